//! Numbers in digits and in words, with their units.

use super::{Found, Kind, Source, Value, digits, token_after};
use crate::decision::text::lexicon::{NumberWord, Unit};
use crate::decision::text::token::Token;

pub(super) fn read(source: &Source<'_>, at: usize) -> Found {
    let token = source.tokens[at];
    if source.text.as_bytes()[token.start].is_ascii_digit() { in_digits(source, at) } else { in_words(source, at) }
}

fn in_digits(source: &Source<'_>, at: usize) -> Found {
    let start = source.tokens[at].start;
    let (mut number, mut end) = decimal(source, start)?;
    if let Some((divisor, after)) = fraction(source.text.as_bytes(), end) {
        (number, end) = (number / divisor, after);
    }
    let rest = &source.text[end..];
    let mut ordinal = false;
    // Letters written right behind the digits: a power, an ordinal's ending or a unit, or else it is a name.
    let letters = rest.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(rest.len());
    let mut unit = None;
    match &rest[..letters] {
        "" => {}
        "k" | "K" => (number, end) = (number * 1e3, end + 1),
        "M" | "mn" => (number, end) = (number * 1e6, end + letters),
        "bn" | "B" => (number, end) = (number * 1e9, end + letters),
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
            (number, end, next) = (number * power, after, next + 1);
        }
    }
    if unit.is_none() && !ordinal {
        (unit, end) = unit_behind(source, next, end);
    }
    if let Some((currency, begin)) = currency_before(source, start) {
        return Some(value(source, (begin, end), number, Some(currency), at));
    }
    if ordinal {
        let mut ordinal = value(source, (start, end), number, None, at);
        ordinal.0.canonical.push('.');
        ordinal.0.is_soft = true;
        return Some(ordinal);
    }
    Some(value(source, (start, end), number, unit, at))
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
            Some(NumberWord::Power(power)) if current > 0.0 && next > at => {
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
    let mut value = value(source, (source.tokens[at].start, end), total + current, unit, at);
    value.0.is_soft = is_soft && unit.is_none();
    Some(value)
}

/// Digits with group marks and a decimal mark at `start`; and the end.
fn decimal(source: &Source<'_>, start: usize) -> Option<(f64, usize)> {
    let bytes = source.text.as_bytes();
    let mut plain = String::with_capacity(16);
    let mut end = start + digits(bytes, start);
    plain.push_str(&source.text[start..end]);
    let comma_is_decimal = source.language.has_decimal_comma();
    let mut groups = 0;
    while let Some(mark) = bytes.get(end).filter(|mark| matches!(mark, b',' | b'.')) {
        let length = digits(bytes, end + 1);
        let is_decimal_mark = (*mark == b',') == comma_is_decimal;
        let is_group = length == 3 && (!is_decimal_mark || groups > 0) && end - start <= 3 + 4 * groups;
        if is_group {
            plain.push_str(&source.text[end + 1..end + 4]);
            (end, groups) = (end + 4, groups + 1);
        } else if length > 0
            && (is_decimal_mark || groups > 0 || length != 3)
            && !has_mark_behind(bytes, end + 1 + length, *mark)
            && !has_mark_before(bytes, start, *mark)
        {
            plain.push('.');
            plain.push_str(&source.text[end + 1..end + 1 + length]);
            end += 1 + length;
            break;
        } else {
            break;
        }
    }
    Some((plain.parse().ok()?, end))
}

/// `1,2,3` is a list.
fn has_mark_behind(bytes: &[u8], at: usize, mark: u8) -> bool {
    bytes.get(at) == Some(&mark) && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
}

fn has_mark_before(bytes: &[u8], start: usize, mark: u8) -> bool {
    start >= 2 && bytes[start - 1] == mark && bytes[start - 2].is_ascii_digit()
}

/// `/4` behind a number.
fn fraction(bytes: &[u8], end: usize) -> Option<(f64, usize)> {
    let length = digits(bytes, end + 1);
    let is_fraction =
        bytes.get(end) == Some(&b'/') && (1..=3).contains(&length) && bytes.get(end + 1 + length) != Some(&b'/');
    let divisor: f64 =
        is_fraction.then(|| std::str::from_utf8(&bytes[end + 1..end + 1 + length]).ok()?.parse().ok()).flatten()?;
    (divisor > 0.0).then_some((divisor, end + 1 + length))
}

fn power(source: &Source<'_>, next: usize, end: usize) -> Option<(f64, usize)> {
    let token = source.tokens.get(next).filter(|token| token.start <= end + 1)?;
    match token.word.number {
        Some(NumberWord::Power(power)) => Some((power, token.end)),
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
    number: f64,
    unit: Option<Unit>,
    at: usize,
) -> (Value, usize) {
    let kind = match unit {
        None => Kind::Number,
        Some(unit) if source.lexicon.is_currency(unit) => Kind::Money,
        Some(unit) if source.lexicon.unit_name(unit) == "percent" => Kind::Percent,
        Some(_) => Kind::Quantity,
    };
    let is_tiny = number.abs() < TINY;
    let rounded = if is_tiny { number } else { (number * ROUNDING).round() / ROUNDING };
    let mut value = Value::new(kind, start, end, format!("{rounded}"));
    value.unit = unit;
    (value, token_after(source, at, end))
}

/// A third is written with more or fewer digits.
const ROUNDING: f64 = 1e4;

/// Below this every digit counts.
const TINY: f64 = 1e-2;
