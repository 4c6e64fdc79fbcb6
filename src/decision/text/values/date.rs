//! Dates and times of day.
//!
//! A relative day ("tomorrow") is no value: what it means depends on when it is asked.

use super::{Found, Kind, Source, Value, digits, token_after};
use crate::decision::text::lexicon::Clock;

pub(super) fn read(source: &Source<'_>, at: usize) -> Found {
    numeric_date(source, at)
        .or_else(|| east_asian(source, at))
        .or_else(|| day_first(source, at))
        .or_else(|| month_first(source, at))
        .or_else(|| quarter(source, at))
        .or_else(|| time(source, at))
        .or_else(|| weekday(source, at))
        .or_else(|| year(source, at))
}

/// `2024-03-12`, `12.3.2024`, `3/12/24`.
fn numeric_date(source: &Source<'_>, at: usize) -> Found {
    let bytes = source.text.as_bytes();
    let start = source.tokens[at].start;
    let a = digits(bytes, start);
    let mark = *bytes.get(start + a)?;
    if !(1..=4).contains(&a) || !matches!(mark, b'-' | b'/' | b'.') {
        return None;
    }
    let second = start + a + 1;
    let b = digits(bytes, second);
    if !(1..=2).contains(&b) || bytes.get(second + b) != Some(&mark) {
        return None;
    }
    let third = second + b + 1;
    let c = digits(bytes, third);
    let end = third + c;
    let goes_on = bytes.get(end).is_some_and(|byte| byte.is_ascii_alphanumeric() && *byte != b'T');
    let number = |from: usize, length: usize| source.text[from..from + length].parse::<u32>().ok();
    let (first, second, last) = (number(start, a)?, number(second, b)?, number(third, c)?);
    let (year, month, day) = match (a, c) {
        (4, 1 | 2) => (first, second, last),
        (1 | 2, 2 | 4) => {
            let year = if c == 2 { 2000 + last } else { last };
            let day_first = mark == b'.' || source.language.has_day_first();
            if first > 12 || day_first && second <= 12 { (year, second, first) } else { (year, first, second) }
        }
        _ => return None,
    };
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day) && (1000..=2999).contains(&year) && !goes_on;
    is_date.then(|| found(source, at, end, format!("{year}-{month:02}-{day:02}")))
}

/// `2024年3月12日`, `3월 12일`: at least two of the three parts.
fn east_asian(source: &Source<'_>, at: usize) -> Found {
    if !source.language.is_unspaced() {
        return None;
    }
    let mut end = source.tokens[at].start;
    let mut canonical = String::new();
    let mut parts = 0;
    for marks in [['年', '년'], ['月', '월'], ['日', '일']] {
        let from = end + usize::from(parts > 0 && source.text[end..].starts_with(' '));
        let length = digits(source.text.as_bytes(), from);
        let rest = &source.text[from + length..];
        if (1..=4).contains(&length) && rest.starts_with(marks) {
            let number: u32 = source.text[from..from + length].parse().ok()?;
            canonical.push_str(&if length == 4 { format!("{number}") } else { format!("-{number:02}") });
            end = from + length + marks[0].len_utf8();
            parts += 1;
        } else if parts > 0 {
            break;
        }
    }
    (parts >= 2).then(|| found(source, at, end, canonical))
}

/// `12 March 2024`, `12. März`, `12 de marzo de 2024`.
fn day_first(source: &Source<'_>, at: usize) -> Found {
    let (day, mut end) = small_number(source, at, 31)?;
    let mut next = token_after(source, at, end);
    if source.text[source.tokens.get(next)?.start..].starts_with("de ")
        || source.text[source.tokens[next].start..].starts_with("of ")
    {
        next += 1;
    }
    let month = source.tokens.get(next).filter(|token| token.start - end < 6)?;
    if month.word.month == 0 {
        return None;
    }
    end = month.end;
    let year = following_year(source, next + 1);
    let (year, end) = year.map_or((String::new(), end), |(year, end)| (year.to_string(), end));
    Some(found(source, at, end, format!("{year}-{:02}-{day:02}", month.word.month)))
}

/// `March 12, 2024`, `March 2024`, `March 12th`, or a month's name alone.
fn month_first(source: &Source<'_>, at: usize) -> Found {
    let token = source.tokens[at];
    let month = token.word.month;
    if month == 0 {
        return None;
    }
    if let Some((year, end)) = following_year(source, at + 1) {
        return Some(found(source, at, end, format!("{year}-{month:02}")));
    }
    let day = source
        .tokens
        .get(at + 1)
        .filter(|next| next.start <= token.end + 2)
        .and_then(|_| small_number(source, at + 1, 31));
    if let Some((day, end)) = day {
        let next = token_after(source, at, end);
        let (year, end) =
            following_year(source, next).map_or((String::new(), end), |(year, end)| (year.to_string(), end));
        return Some(found(source, at, end, format!("{year}-{month:02}-{day:02}")));
    }
    let is_certain = !token.word.is_doubtful || token.is_capital && !token.starts_sentence;
    is_certain.then(|| found(source, at, token.end, format!("-{month:02}")))
}

/// `Q3 2024`, `Q3`.
fn quarter(source: &Source<'_>, at: usize) -> Found {
    let token = source.tokens[at];
    let quarter = match &source.text.as_bytes()[token.start..token.end] {
        [b'q' | b'Q', digit @ b'1'..=b'4'] => char::from(*digit),
        _ => return None,
    };
    let (year, end) =
        following_year(source, at + 1).map_or((String::new(), token.end), |(year, end)| (year.to_string(), end));
    Some(found(source, at, end, format!("{year}-Q{quarter}")))
}

/// `5pm`, `5:30 p.m.`, `17:00`, `17h30`, `17 Uhr`, `5時`, `5시`.
fn time(source: &Source<'_>, at: usize) -> Found {
    let bytes = source.text.as_bytes();
    let start = source.tokens[at].start;
    let length = digits(bytes, start);
    if !(1..=2).contains(&length) {
        return None;
    }
    let hour: u32 = source.text[start..start + length].parse().ok()?;
    let mut end = start + length;
    let mut minutes = 0;
    let mut is_time = false;
    if matches!(bytes.get(end), Some(b':' | b'h' | b'H' | b'.')) && digits(bytes, end + 1) == 2 {
        let is_point = bytes[end] == b'.';
        minutes = source.text[end + 1..end + 3].parse().ok()?;
        let is_clock = minutes < 60 && hour < 24;
        let is_said = clock(source, end + 3).is_some();
        if !is_clock || is_point && !is_said {
            return None;
        }
        (is_time, end) = (true, end + 3);
    }
    let mut hour = hour;
    if let Some((clock, after)) = clock(source, end) {
        match clock {
            Clock::Morning if hour == 12 => hour = 0,
            Clock::Afternoon if hour < 12 => hour += 12,
            _ => {}
        }
        (is_time, end) = (true, after);
    } else if !is_time && source.text[end..].starts_with(['時', '点', '시']) && source.language.is_unspaced() {
        (is_time, end) = (!source.text[end..].starts_with("時間") && !source.text[end..].starts_with("시간"), end + 3);
    }
    let goes_on = source.text[end..].starts_with(|next: char| next.is_ascii_digit());
    (is_time && hour < 25 && !goes_on).then(|| {
        let value = Value::new(Kind::Time, start, end, format!("{hour:02}:{minutes:02}"));
        (value, token_after(source, at, end))
    })
}

/// `pm`, ` p.m.`, ` Uhr` at byte `end`.
fn clock(source: &Source<'_>, end: usize) -> Option<(Clock, usize)> {
    let rest = &source.text[end..];
    let space = usize::from(rest.starts_with(' '));
    let word = &rest[space..];
    for (spelling, clock) in [
        ("a.m", Clock::Morning),
        ("p.m", Clock::Afternoon),
        ("am", Clock::Morning),
        ("pm", Clock::Afternoon),
        ("o'clock", Clock::Hour),
        ("uhr", Clock::Hour),
    ] {
        let found =
            word.as_bytes().get(..spelling.len()).is_some_and(|start| start.eq_ignore_ascii_case(spelling.as_bytes()));
        if found && !word[spelling.len()..].starts_with(char::is_alphanumeric) {
            return Some((clock, end + space + spelling.len()));
        }
    }
    None
}

fn weekday(source: &Source<'_>, at: usize) -> Found {
    let token = source.tokens[at];
    (token.word.weekday > 0).then(|| found(source, at, token.end, format!("day {}", token.word.weekday)))
}

/// A bare year. A date's year, so that a changed year is a changed date.
fn year(source: &Source<'_>, at: usize) -> Found {
    let token = source.tokens[at];
    let word = &source.text[token.start..token.end];
    let rest = &source.text.as_bytes()[token.end..];
    let is_decimal = matches!(rest, [b'.' | b',', digit, ..] if digit.is_ascii_digit());
    let before = source.text.as_bytes()[..token.start].last();
    let is_money = matches!(before, Some(b'$' | b'.' | b','));
    let year: u32 =
        (word.len() == 4 && word.bytes().all(|byte| byte.is_ascii_digit())).then(|| word.parse().ok()).flatten()?;
    let has_unit =
        source.tokens.get(at + 1).is_some_and(|next| next.word.unit.is_some() && next.start <= token.end + 1);
    ((1900..=2099).contains(&year) && !is_decimal && !is_money && !has_unit)
        .then(|| found(source, at, token.end, year.to_string()))
}

fn following_year(source: &Source<'_>, at: usize) -> Option<(u32, usize)> {
    let mut at = at;
    let mut token = source.tokens.get(at)?;
    if matches!(&source.text[token.start..token.end], "de" | "of" | "del") {
        at += 1;
        token = source.tokens.get(at)?;
    }
    let word = &source.text[token.start..token.end];
    let is_near = at > 0 && token.start - source.tokens[at - 1].end <= 2;
    let year: u32 = (word.len() == 4 && is_near).then(|| word.parse().ok()).flatten()?;
    (1000..=2999).contains(&year).then_some((year, token.end))
}

/// A number of one or two digits, perhaps with an ordinal's ending; and its end.
fn small_number(source: &Source<'_>, at: usize, most: u32) -> Option<(u32, usize)> {
    let token = source.tokens.get(at)?;
    let word = &source.text[token.start..token.end];
    let length = digits(word.as_bytes(), 0);
    let ending = &word[length..];
    let number: u32 = (1..=2).contains(&length).then(|| word[..length].parse().ok()).flatten()?;
    let is_plain = matches!(ending, "" | "st" | "nd" | "rd" | "th" | "er" | "º");
    let end = if source.text[token.end..].starts_with(". ") && source.language.has_day_first() {
        token.end + 1
    } else {
        token.end
    };
    (is_plain && (1..=most).contains(&number)).then_some((number, end))
}

fn found(source: &Source<'_>, at: usize, end: usize, canonical: String) -> (Value, usize) {
    (Value::new(Kind::Date, source.tokens[at].start, end, canonical), token_after(source, at, end))
}
