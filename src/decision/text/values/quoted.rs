//! What stands in quotation marks, and code between backticks.

use super::{Kind, Source, Value};

/// Marks the tokens inside. An apostrophe is no quotation mark.
pub(super) fn scan(source: &mut Source<'_>) -> Vec<Value> {
    let mut values = Vec::new();
    if source.text.is_ascii() && !source.text.bytes().any(|byte| byte == b'"' || byte == b'`') {
        return values;
    }
    let text = source.text;
    let mut rest = 0;
    while let Some(at) = text[rest..].find(OPENING).map(|at| rest + at) {
        let Some((value, end)) = read(text, at) else {
            rest = at + text[at..].chars().next().map_or(1, char::len_utf8);
            continue;
        };
        rest = end;
        let first = source.tokens.partition_point(|token| token.start < value.start);
        source.tokens[first..]
            .iter_mut()
            .take_while(|token| token.end <= value.end)
            .for_each(|token| token.is_quoted = true);
        values.push(value);
    }
    values
}

fn read(text: &str, at: usize) -> Option<(Value, usize)> {
    let opening = text[at..].chars().next()?;
    let fence = &text[at..at + text[at..].bytes().take_while(|byte| *byte == b'`').count().min(3)];
    let (open, close) = match opening {
        '`' => (fence, fence),
        '"' => ("\"", "\""),
        '“' => ("“", "”"),
        '„' => ("„", "“"),
        '«' => ("«", "»"),
        '「' => ("「", "」"),
        '『' => ("『", "』"),
        _ => return None,
    };
    let start = at + open.len();
    let window = if open == "```" { CODE_MOST } else { QUOTE_MOST };
    let limit = text.len().min(start + window);
    let inside = text.as_bytes().get(start..limit)?;
    let length = find(inside, close.as_bytes())?;
    let inner = &text[start..start + length];
    let kind = if opening == '`' { Kind::Code } else { Kind::Quoted };
    let is_prose = kind == Kind::Quoted && inner.contains('\n');
    if inner.trim().is_empty() || is_prose {
        return None;
    }
    let canonical = if kind == Kind::Code { inner.trim().to_owned() } else { fold(inner) };
    let end = start + length + close.len();
    Some((Value::new(kind, at, end, canonical), end))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Lower case, one space between words.
fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        folded.extend(word.chars().flat_map(char::to_lowercase));
    }
    folded
}

const OPENING: [char; 7] = ['"', '`', '“', '„', '«', '「', '『'];

/// A longer run between two quotation marks is rather prose between two quotations.
const QUOTE_MOST: usize = 160;

const CODE_MOST: usize = 4096;
