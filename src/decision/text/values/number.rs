//! Numbers in digits and in words, with their units.

use super::decimal::Decimal;
use super::{Found, Kind, Source, Value, digits, token_after};
use crate::decision::text::lexicon::{NumberWord, Unit};
use crate::decision::text::token::Token;

pub(super) fn read(source: &Source<'_>, at: usize) -> Found {
    let token = source.tokens[at];
    if source.text.as_bytes()[token.start].is_ascii_digit() { in_digits(source, at) } else { in_words(source, at) }
}

fn in_digits(source: &Source<'_>, at: usize) -> Found {
    let token = source.tokens[at].start;
    let (mut number, mut end) = decimal(source, token);
    let start = start(source.text, token);
    if let Some((divisor, after)) = fraction(source.text.as_bytes(), end) {
        number.divide(divisor);
        end = after;
    }
    let rest = &source.text[end..];
    let mut ordinal = false;
    // Letters written right behind the digits: a power, an ordinal's ending or a unit, or else it is a name.
    let letters = rest.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(rest.len());
    let mut unit = None;
    let mut zeros = 0;
    match &rest[..letters] {
        "" => {}
        "k" | "K" => (zeros, end) = (3, end + 1),
        "M" | "mn" => (zeros, end) = (6, end + letters),
        "bn" | "B" => (zeros, end) = (9, end + letters),
        "st" | "nd" | "rd" | "th" | "er" | "e" => (ordinal, end) = (true, end + letters),
        suffix => {
            let word = source.lexicon.word(source.language, crate::decision::text::word::WordHash::of(suffix));
            unit = Some(word.unit?);
            end += letters;
        }
    }
    let mut next = token_after(source, at, end);
    if letters == 0 {
        while let Some((power, after)) = power(source, next, end) {
            (zeros, end, next) = (zeros + power, after, next + 1);
        }
    }
    number.shift(zeros);
    if unit.is_none() && !ordinal {
        (unit, end) = unit_behind(source, next, end);
    }
    let currency = currency_before(source, start);
    let mut begin = currency.map_or(start, |(_, begin)| begin);
    let mut canonical = number.canonical();
    if let Some(sign) = sign_before(source.text, begin) {
        canonical.insert(0, '-');
        begin = sign;
    }
    if let Some((currency, _)) = currency {
        return Some(value(source, (begin, end), canonical, Some(currency), at));
    }
    if ordinal {
        canonical.push('.');
        let mut ordinal = value(source, (begin, end), canonical, None, at);
        ordinal.0.is_soft = true;
        return Some(ordinal);
    }
    Some(value(source, (begin, end), canonical, unit, at))
}

/// English number words, and single ones of other languages.
fn in_words(source: &Source<'_>, at: usize) -> Found {
    if let Some(NumberWord::Ordinal(number)) = source.tokens[at].word.number {
        let (start, end) = (source.tokens[at].start, source.tokens[at].end);
        let mut value = Value::new(Kind::Number, start, end, format!("{number}."));
        value.is_soft = true;
        return Some((value, at + 1));
    }
    let (mut total, mut current) = (0.0, 0.0);
    let mut is_soft = true;
    let mut next = at;
    let mut end = source.tokens[at].start;
    while let Some(token) = source.tokens.get(next).filter(|token| next == at || token.start <= end + 1) {
        match token.word.number {
            Some(NumberWord::Plain(number)) => {
                // "twenty four", not "two three".
                let fits =
                    next == at || current == 0.0 || number < 10.0 && current % 10.0 == 0.0 || current % 100.0 == 0.0;
                if !fits {
                    break;
                }
                (current, is_soft) = (current + number, false);
            }
            Some(NumberWord::Soft(number)) if next == at => current = number,
            Some(NumberWord::Power(power)) if current > 0.0 && next > at && total + current * power < EXACT_BELOW => {
                current *= power;
                if power >= 1000.0 {
                    (total, current) = (total + current, 0.0);
                }
                is_soft = false;
            }
            _ => break,
        }
        (next, end) = (next + 1, token.end);
    }
    if next == at {
        return None;
    }
    let (unit, end) = unit_behind(source, next, end);
    let number = format!("{}", total + current);
    let mut value = value(source, (source.tokens[at].start, end), number, unit, at);
    value.0.is_soft = is_soft && unit.is_none();
    Some(value)
}

/// Where a number begins whose first digit is at `token`: `.5` with its mark.
fn start(text: &str, token: usize) -> usize {
    let before = text[..token].strip_suffix('.').map(|before| before.strip_suffix(is_minus).unwrap_or(before));
    token - usize::from(before.is_some_and(may_begin))
}

/// Where the minus sign of what begins at `start` stands, if it has one: `-5`, but not `3-5` or `A-5`.
fn sign_before(text: &str, start: usize) -> Option<usize> {
    let before = text[..start].strip_suffix(is_minus)?;
    may_begin(before).then_some(before.len())
}

/// Whether a sign or a decimal mark behind this belongs to the number behind it.
fn may_begin(before: &str) -> bool {
    let last = before.chars().next_back();
    last.is_none_or(|letter| letter.is_whitespace() || matches!(letter, '(' | '[' | '=' | '$' | '€' | '£'))
}

fn is_minus(letter: char) -> bool {
    matches!(letter, '-' | '−' | '–')
}

/// Digits with group marks and a decimal mark at `token`; and the end.
fn decimal(source: &Source<'_>, token: usize) -> (Decimal, usize) {
    let bytes = source.text.as_bytes();
    let mut plain = String::with_capacity(16);
    let mut end = token + digits(bytes, token);
    plain.push_str(&source.text[token..end]);
    if start(source.text, token) < token {
        let scale = plain.len();
        return (Decimal::new(plain, scale), end);
    }
    let comma_is_decimal = source.language.has_decimal_comma();
    let (mut groups, mut scale) = (0, 0);
    while let Some(mark) = bytes.get(end).filter(|mark| matches!(mark, b',' | b'.')) {
        let length = digits(bytes, end + 1);
        let is_decimal_mark = (*mark == b',') == comma_is_decimal;
        let is_group = length == 3 && (!is_decimal_mark || groups > 0) && end - token <= 3 + 4 * groups;
        if is_group {
            plain.push_str(&source.text[end + 1..end + 4]);
            (end, groups) = (end + 4, groups + 1);
        } else if length > 0
            && (is_decimal_mark || groups > 0 || length != 3)
            && !has_mark_behind(bytes, end + 1 + length, *mark)
            && !has_mark_before(bytes, token, *mark)
        {
            plain.push_str(&source.text[end + 1..end + 1 + length]);
            (end, scale) = (end + 1 + length, length);
            break;
        } else {
            break;
        }
    }
    (Decimal::new(plain, scale), end)
}

/// `1,2,3` is a list.
fn has_mark_behind(bytes: &[u8], at: usize, mark: u8) -> bool {
    bytes.get(at) == Some(&mark) && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
}

fn has_mark_before(bytes: &[u8], start: usize, mark: u8) -> bool {
    start >= 2 && bytes[start - 1] == mark && bytes[start - 2].is_ascii_digit()
}

/// `/4` behind a number.
fn fraction(bytes: &[u8], end: usize) -> Option<(u16, usize)> {
    let length = digits(bytes, end + 1);
    let is_fraction =
        bytes.get(end) == Some(&b'/') && (1..=3).contains(&length) && bytes.get(end + 1 + length) != Some(&b'/');
    let divisor: u16 =
        is_fraction.then(|| std::str::from_utf8(&bytes[end + 1..end + 1 + length]).ok()?.parse().ok()).flatten()?;
    (divisor > 0).then_some((divisor, end + 1 + length))
}

/// The zeros of a word like "thousand", and where it ends.
fn power(source: &Source<'_>, next: usize, end: usize) -> Option<(usize, usize)> {
    let token = source.tokens.get(next).filter(|token| token.start <= end + 1)?;
    match token.word.number {
        Some(NumberWord::Power(power)) => Some((power.log10().round() as usize, token.end)),
        _ => None,
    }
}

/// A unit at most one space or hyphen behind, and where it ends.
fn unit_behind(source: &Source<'_>, next: usize, end: usize) -> (Option<Unit>, usize) {
    let rest = &source.text[end..];
    let gap = usize::from(rest.starts_with([' ', '-']));
    for symbol in ["%", "$", "€", "£", "¥", "₩", "₹"] {
        if rest[gap..].starts_with(symbol) {
            let unit = source.lexicon.word(source.language, crate::decision::text::word::WordHash::of(symbol)).unit;
            return (unit, end + gap + symbol.len());
        }
    }
    if let Some(inside) = source.lexicon.inside(source.language) {
        let found = inside.units.iter().find(|(word, _)| rest[gap..].starts_with(word.as_str()));
        return found.map_or((None, end), |(word, unit)| (Some(*unit), end + gap + word.len()));
    }
    match source.tokens.get(next).filter(|token| token.start == end + gap) {
        Some(Token { word, end: after, is_symbol: false, .. }) if word.unit.is_some() => (word.unit, *after),
        _ => (None, end),
    }
}

/// A currency's symbol right before the number, and where it begins.
fn currency_before(source: &Source<'_>, start: usize) -> Option<(Unit, usize)> {
    let before = source.text[..start].trim_end_matches(' ');
    let symbol = before.chars().next_back().filter(|symbol| matches!(symbol, '$' | '€' | '£' | '¥' | '₩' | '₹'))?;
    let mut buffer = [0; 4];
    let unit = source
        .lexicon
        .word(source.language, crate::decision::text::word::WordHash::of(symbol.encode_utf8(&mut buffer)))
        .unit?;
    Some((unit, before.len() - symbol.len_utf8()))
}

fn value(
    source: &Source<'_>,
    (start, end): (usize, usize),
    canonical: String,
    unit: Option<Unit>,
    at: usize,
) -> (Value, usize) {
    let kind = match unit {
        None => Kind::Number,
        Some(unit) if source.lexicon.is_currency(unit) => Kind::Money,
        Some(unit) if source.lexicon.unit_name(unit) == "percent" => Kind::Percent,
        Some(_) => Kind::Quantity,
    };
    let mut value = Value::new(kind, start, end, canonical);
    value.unit = unit;
    (value, token_after(source, at, end))
}

/// Below this every whole number, and every half of one, is an `f64`.
const EXACT_BELOW: f64 = 4_503_599_627_370_496.0;
