//! E-mail addresses, URLs, network addresses and paths.

use super::{Found, Kind, Source, Value, token_after};

pub(super) fn read(source: &Source<'_>, at: usize) -> Found {
    let token = source.tokens[at];
    let text = source.text;
    let start = start(text, token.start);
    let chunk = chunk(text, start);
    if !chunk.bytes().any(|byte| matches!(byte, b'@' | b'/' | b'\\' | b':' | b'.')) {
        return None;
    }
    let lower = || chunk.to_ascii_lowercase();
    let (kind, canonical) = if is_url(chunk) {
        let lower = lower();
        let bare = lower.split_once("://").map_or(lower.as_str(), |(_, rest)| rest);
        (Kind::Url, bare.trim_start_matches("www.").trim_end_matches('/').to_owned())
    } else if is_email(chunk) {
        (Kind::Email, lower())
    } else if is_network_address(chunk) {
        (Kind::Id, lower())
    } else if is_path(chunk) {
        (Kind::Path, chunk.to_owned())
    } else {
        return None;
    };
    let end = start + chunk.len();
    Some((Value::new(kind, start, end, canonical), token_after(source, at, end)))
}

/// A path begins before its first word.
fn start(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let mut start = at;
    while start > 0 && at - start < 3 && matches!(bytes[start - 1], b'/' | b'~' | b'.' | b'\\') {
        start -= 1;
    }
    let joined =
        start > 0 && !bytes[start - 1].is_ascii_whitespace() && !matches!(bytes[start - 1], b'(' | b'"' | b'\'' | b'`');
    if joined { at } else { start }
}

/// Printable ASCII from `start` on, without the punctuation that closes it.
fn chunk(text: &str, start: usize) -> &str {
    let rest = &text.as_bytes()[start..];
    let length = rest
        .iter()
        .take(LONGEST)
        .take_while(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'`' | b'{' | b'}' | b'|'))
        .count();
    text[start..start + length].trim_end_matches(['.', ',', ';', ':', '!', '?', ')', ']', '\'', '*'])
}

fn is_url(chunk: &str) -> bool {
    let has_scheme =
        chunk.find("://").is_some_and(|at| at > 1 && chunk[..at].bytes().all(|byte| byte.is_ascii_alphanumeric()));
    has_scheme || chunk.starts_with("www.") && chunk.len() > 6
}

fn is_email(chunk: &str) -> bool {
    let Some((user, domain)) = chunk.split_once('@') else { return false };
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+');
    !user.is_empty()
        && user.bytes().all(word)
        && domain.bytes().all(word)
        && domain.rsplit_once('.').is_some_and(|(name, end)| !name.is_empty() && end.len() > 1)
}

fn is_network_address(chunk: &str) -> bool {
    let parts = chunk.split('.');
    parts.clone().count() == 4
        && parts.clone().all(|part| !part.is_empty() && part.len() < 4 && part.bytes().all(|b| b.is_ascii_digit()))
}

fn is_path(chunk: &str) -> bool {
    let is_drive = chunk.as_bytes().get(1..3) == Some(b":\\");
    let slashes = chunk.bytes().filter(|byte| *byte == b'/').count();
    let starts =
        chunk.starts_with('/') || chunk.starts_with("~/") || chunk.starts_with("./") || chunk.starts_with("../");
    let has_file = chunk.rsplit('/').next().is_some_and(|file| {
        file.rsplit_once('.').is_some_and(|(name, end)| {
            !name.is_empty() && (1..=5).contains(&end.len()) && end.bytes().any(|byte| byte.is_ascii_alphabetic())
        })
    });
    is_drive || starts && chunk.len() > 3 || slashes > 0 && has_file
}

const LONGEST: usize = 300;
