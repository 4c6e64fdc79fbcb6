//! Messages of text parts: an earlier one as a turn, the last one as its last text and what else it says.
//!
//! A part is `{"type", "text", …}` in every API. What an API writes differently is brought into this form before.

use serde_json::{Value, json};

use super::request::Fields;
use crate::decision::{Reason, Speaker, Turn};

/// A message as a turn; `None` where it is none that is understood. One text part is the same as its text.
pub(crate) fn turn(message: &Value) -> Option<Turn> {
    let mut rest = message.as_object()?.clone();
    let role = match rest.remove("role")?.as_str()? {
        "system" => Speaker::System,
        "developer" => Speaker::Developer,
        "user" => Speaker::User,
        "assistant" => Speaker::Assistant,
        _ => return None,
    };
    let (texts, more): (Vec<String>, Vec<Value>) = match rest.remove("content")? {
        Value::String(text) => (vec![text], Vec::new()),
        Value::Array(parts) => parts.into_iter().map(split_part).collect::<Option<Vec<_>>>()?.into_iter().unzip(),
        _ => return None,
    };
    if more.iter().any(|part| part.as_object().is_none_or(|part| !part.is_empty())) {
        rest.insert("content".into(), Value::Array(more));
    }
    Some(Turn::new(role, texts.iter().map(String::as_str), rest))
}

/// All messages but the last as turns.
pub(crate) fn earlier(messages: &[Value]) -> Option<Vec<Turn>> {
    let (_, earlier) = messages.split_last()?;
    earlier.iter().map(turn).collect()
}

/// The last user text, and what else its message says: a text part before it, a name.
///
/// # Errors
/// The message is not a user's, or does not end with a text.
pub(crate) fn split_last_text(message: &Value) -> Result<(String, Fields), Reason> {
    let mut rest =
        message.as_object().filter(|m| m.get("role") == Some(&json!("user"))).ok_or(Reason::NotCacheable)?.clone();
    let text = match rest.remove("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(mut parts)) => {
            let Some(Value::Object(mut last)) = parts.pop() else { return Err(Reason::NotCacheable) };
            let Some(Value::String(text)) = last.remove("text") else { return Err(Reason::NotCacheable) };
            last.remove("type");
            if !parts.is_empty() {
                rest.insert("content".into(), Value::Array(parts));
            }
            if !last.is_empty() {
                rest.insert("part".into(), Value::Object(last));
            }
            text
        }
        _ => return Err(Reason::NotCacheable),
    };
    rest.remove("role");
    if is_blank(&text) { Err(Reason::NotCacheable) } else { Ok((text, rest)) }
}

/// Whether the text shows nothing: white space, and characters that have no shape.
pub fn is_blank(text: &str) -> bool {
    let shapeless = |c: char| {
        matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
            || ('\u{e0000}'..='\u{e007f}').contains(&c)
    };
    text.chars().all(|c| c.is_whitespace() || c.is_control() || shapeless(c))
}

/// A part's text, and what else it says. Another part says all of it elsewhere than in a text.
fn split_part(part: Value) -> Option<(String, Value)> {
    let Value::Object(mut part) = part else { return None };
    if part.get("type").is_some_and(|kind| kind != "text") {
        return Some((String::new(), Value::Object(part)));
    }
    let Some(Value::String(text)) = part.remove("text") else { return None };
    part.remove("type");
    Some((text, Value::Object(part)))
}
