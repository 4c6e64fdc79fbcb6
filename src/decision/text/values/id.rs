//! Identifiers: UUIDs, hashes, order numbers, ticket codes, versions.

use super::{Found, Kind, Source, Value, digits, token_after};

pub(super) fn read(source: &Source<'_>, at: usize) -> Found {
    let token = source.tokens[at];
    let bytes = source.text.as_bytes();
    let rest = &bytes[token.start..];
    let bare = |length: usize| source.text[token.start..token.start + length].trim_end_matches(['-', '_', '.']);
    let length = run(&rest[..rest.len().min(LOOKED_AT)]);
    let whole = bare(length);
    let is_marked = token.start > 0 && bytes[token.start - 1] == b'#';
    if !is_marked && !whole.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let is_id = is_marked && !whole.is_empty() || is_uuid(whole) || is_version(whole) || is_code(whole);
    is_id.then(|| {
        // What it is shows early; which one it is may show at the very end.
        let whole = if length < LOOKED_AT { whole } else { bare(run(rest)) };
        let end = token.start + whole.len();
        let start = if is_marked { token.start - 1 } else { token.start };
        (Value::new(Kind::Id, start, end, canonical(whole)), token_after(source, at, end))
    })
}

/// In small letters and without marks, but for those between two digits: `1-23` is not `12-3`. A UUID has its marks at
/// the same places always.
fn canonical(whole: &str) -> String {
    let bytes = whole.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let has_free_marks = !is_uuid(whole);
    let is_kept = |at: usize| has_free_marks && at > 0 && is_digit(at - 1) && is_digit(at + 1);
    let kept = bytes.iter().enumerate().filter(|(at, byte)| !matches!(byte, b'-' | b'_') || is_kept(*at));
    kept.map(|(_, byte)| char::from(byte.to_ascii_lowercase())).collect()
}

/// How many bytes may be of an identifier.
fn run(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')).count()
}

fn is_uuid(whole: &str) -> bool {
    whole.len() == 36
        && whole.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// `1.2.3`, `v2.0`.
fn is_version(whole: &str) -> bool {
    let bare = whole.strip_prefix(['v', 'V']).unwrap_or(whole);
    let parts = bare.split('.').count();
    let least = if bare.len() < whole.len() { 2 } else { 3 };
    // Four digits or groups of three are a date or a grouped number.
    let is_small = |part: &str| !part.is_empty() && part.len() < 3 && digits(part.as_bytes(), 0) == part.len();
    let is_date = parts == 3 && bare.len() >= 6 && bare.split('.').all(|part| part.len() == 2);
    parts >= least && !is_date && bare.split('.').all(is_small)
}

/// Letters and digits mixed beyond what a unit makes of a number, or more digits than one counts with.
fn is_code(whole: &str) -> bool {
    let letters = whole.bytes().filter(u8::is_ascii_alphabetic).count();
    let digits = whole.bytes().filter(u8::is_ascii_digit).count();
    let marks = whole.len() - letters - digits;
    if letters == 0 {
        let parts_are_short = whole.split('-').all(|part| part.len() < 5);
        return marks == 0 && (digits >= 8 || digits >= 4 && whole.starts_with('0')) || digits >= 9 && !parts_are_short;
    }
    let starts_with_number = whole.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    let is_hex = whole.len() >= 7 && marks == 0 && digits >= 2 && whole.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_ticket = !starts_with_number && digits >= 3 && letters <= 4 * digits;
    is_hex || is_ticket || starts_with_number && letters >= 2 && digits >= 4 && !whole.contains(['-', '.'])
}

/// Bytes that tell an identifier from something else.
const LOOKED_AT: usize = 80;
