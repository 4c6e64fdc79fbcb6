//! Chat completions with tools of the client's: what such a request depends on, and whether calls of them are whole.

use serde_json::{Value, json};

use super::{ELSEWHERE, refuse_others, refuse_part};
use crate::decision::{Reason, Surface};
use crate::wire::request::{Fields, Question, field, items, parameters, text};

/// A request with tools in it depends on every message to the byte: ids of calls and what tools said included.
pub(super) fn asked(body: &Fields) -> Result<Question, Reason> {
    if field(body, "functions").is_some() || field(body, "web_search_options").is_some() {
        return Err(Reason::ToolsInUse);
    }
    if !items(body, "tools").iter().all(|tool| is(tool, "function")) {
        return Err(Reason::ToolsInUse);
    }
    refuse_others(body)?;
    let messages = body.get("messages").and_then(Value::as_array).ok_or(Reason::NotCacheable)?;
    messages.iter().try_for_each(refuse_message)?;
    let last = messages.last().ok_or(Reason::NotCacheable)?;
    if !matches!(last.get("role").and_then(Value::as_str), Some("user" | "tool")) {
        return Err(Reason::NotCacheable);
    }
    let mut parameters = parameters(body, ELSEWHERE);
    parameters.insert("messages".into(), json!(messages));
    let text = messages.iter().rev().find_map(users_text).unwrap_or_default();
    Ok(Question { surface: Surface::ChatWithTools, turns: Vec::new(), text, parameters })
}

/// Whether a message is nothing but calls that a client can make: each with an id, a name and arguments that are JSON.
pub(super) fn calls_are_whole(message: &Fields) -> bool {
    let calls = items(message, "tool_calls");
    let is_whole = |call: &Value| {
        let has = |pointer: &str| call.pointer(pointer).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        let arguments = call.pointer("/function/arguments").and_then(Value::as_str);
        let is_json = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        is(call, "function") && has("/id") && has("/function/name") && arguments.is_some_and(is_json)
    };
    !calls.is_empty() && calls.iter().all(is_whole) && field(message, "function_call").is_none()
}

/// Takes pieces of calls into those so far: those with one `index` are one call, unless their ids say that they are two.
pub(super) fn grow(calls: &mut Vec<Value>, pieces: Vec<Value>) {
    for piece in pieces {
        let place = piece.get("index").cloned();
        let id = |call: &Value| call.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_one = |call: &Value| [id(call), id(&piece)].iter().any(String::is_empty) || id(call) == id(&piece);
        let begun =
            calls.iter_mut().rfind(|call| place.is_some() && call.get("index") == place.as_ref() && is_one(call));
        match (begun, piece) {
            (Some(Value::Object(call)), Value::Object(more)) => {
                for (name, value) in more {
                    match (call.get_mut(&name), value) {
                        (Some(Value::Object(function)), Value::Object(more)) if name == "function" => {
                            more.into_iter().for_each(|(name, value)| grow_function(function, &name, value));
                        }
                        (Some(known), _) if !known.is_null() => {}
                        (_, value) => drop(call.insert(name, value)),
                    }
                }
            }
            (_, piece) => calls.push(piece),
        }
    }
}

/// Arguments come in pieces; anything else is said once.
fn grow_function(function: &mut Fields, name: &str, value: Value) {
    match (function.get_mut(name), value) {
        (Some(Value::String(text)), Value::String(more)) if name == "arguments" => text.push_str(&more),
        (Some(known), _) if !known.is_null() => {}
        (_, value) => drop(function.insert(name.to_owned(), value)),
    }
}

/// Takes the places of calls in a stream out of a whole message.
pub(super) fn without_places(message: &mut Fields) {
    for call in calls_of(message) {
        call.remove("index");
    }
}

/// Puts them in, for a stream.
pub(super) fn with_places(message: &mut Fields) {
    for (place, call) in calls_of(message).enumerate() {
        call.insert("index".into(), json!(place));
    }
}

fn calls_of(message: &mut Fields) -> impl Iterator<Item = &mut Fields> {
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
    calls.into_iter().flatten().filter_map(Value::as_object_mut)
}

fn refuse_message(message: &Value) -> Result<(), Reason> {
    let message = message.as_object().ok_or(Reason::NotCacheable)?;
    if field(message, "function_call").is_some() {
        return Err(Reason::ToolsInUse);
    }
    if field(message, "audio").is_some() {
        return Err(Reason::Multimodal);
    }
    let calls = items(message, "tool_calls");
    match text(message, "role") {
        Some("assistant") if !calls.is_empty() && !calls.iter().all(|call| is(call, "function")) => {
            return Err(Reason::ToolsInUse);
        }
        // Whoever calls need not say anything.
        Some("assistant") if !calls.is_empty() && field(message, "content").is_none() => return Ok(()),
        Some("system" | "developer" | "user" | "assistant" | "tool") => {}
        Some("function") => return Err(Reason::ToolsInUse),
        _ => return Err(Reason::NotCacheable),
    }
    match message.get("content") {
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) => parts.iter().try_for_each(refuse_part),
        _ => Err(Reason::NotCacheable),
    }
}

/// What a user's message says last, in text.
fn users_text(message: &Value) -> Option<String> {
    let message = message.as_object().filter(|message| text(message, "role") == Some("user"))?;
    let part = |part: &Value| part.get("text").and_then(Value::as_str).map(str::to_owned);
    text(message, "content").map(str::to_owned).or_else(|| items(message, "content").iter().rev().find_map(part))
}

fn is(value: &Value, kind: &str) -> bool {
    value.get("type").is_some_and(|of| of == kind)
}
