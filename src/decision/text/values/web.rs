//! E-mail addresses, URLs, network addresses and paths.

use super::{Found, Kind, Source, Value, token_after};

pub(super) fn read(source: &Source<'_>, at: usize) -> Found {
    let token = source.tokens[at];
    let text = source.text;
    let start = start(text, token.start);
    let short = chunk(text, start, LOOKED_AT);
    if !short.bytes().any(|byte| matches!(byte, b'@' | b'/' | b'\\' | b':' | b'.')) {
        return None;
    }
    let kind = if is_url(short) {
        Kind::Url
    } else if is_email(short) {
        Kind::Email
    } else if is_network_address(short) {
        Kind::Id
    } else if is_path(short) {
        Kind::Path
    } else {
        return None;
    };
    // What it is shows early; which one it is may show at the very end.
    let chunk = chunk(text, start, usize::MAX);
    let canonical = match kind {
        Kind::Url => bare_url(chunk),
        Kind::Path => chunk.to_owned(),
        _ => chunk.to_ascii_lowercase(),
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
fn chunk(text: &str, start: usize, longest: usize) -> &str {
    let rest = &text.as_bytes()[start..];
    let length = rest
        .iter()
        .take(longest)
        .take_while(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'`' | b'{' | b'}' | b'|'))
        .count();
    text[start..start + length].trim_end_matches(['.', ',', ';', ':', '!', '?', ')', ']', '\'', '*'])
}

/// Without scheme, `www.` and the slash at the end; only the host's letters are the same in either case.
fn bare_url(url: &str) -> String {
    let bare = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (host, path) = bare.split_at(bare.find(['/', '?', '#']).unwrap_or(bare.len()));
    let host = host.to_ascii_lowercase();
    format!("{}{}", host.trim_start_matches("www."), path.trim_end_matches('/'))
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

/// Bytes that tell an address from something else.
const LOOKED_AT: usize = 300;
