//! OpenAI's responses.
//!
//! The provider keeps a response under its id unless the request says `"store": false`, and later requests name that id.
//! An id that the cache hands out must mean the same there, which nobody can promise for long (ids are deleted, and
//! expire): what is kept at the provider is not cached.
//!
//! A request with nothing in it but messages, temperature and `top_p` says what a chat completion says; the two share
//! their answers. Any other field keeps them apart, whether or not the other API has one like it.

mod replay;
mod stream;

use serde_json::{Value, json};

use super::answer::{Event, Fresh, Outline, Said, Tokens};
use super::parts;
use super::request::{Fields, Protocol, Question, field, filled, is_true, items, parameters, text};
use super::sse::Assembly;
use crate::decision::{AnswerKind, Finish, Reason, Surface, Turn};

/// `POST /v1/responses`.
#[derive(Debug)]
pub(crate) struct Responses;

impl Protocol for Responses {
    fn path(&self) -> &'static str {
        "/v1/responses"
    }

    fn place(&self) -> &'static str {
        "output[].content[].text"
    }

    fn kind(&self) -> AnswerKind {
        AnswerKind::Response
    }

    fn asked(&self, body: &Fields) -> Result<Question, Reason> {
        refuse_parameters(body)?;
        let messages = messages(body)?;
        let (text, rest_of_last) = parts::split_last_text(messages.last().ok_or(Reason::NotCacheable)?)?;
        let turns = parts::earlier(&messages).ok_or(Reason::NotCacheable)?;
        let mut parameters = parameters(body, ELSEWHERE);
        let is_plain = rest_of_last.is_empty()
            && turns.iter().all(|turn| turn.rest.is_empty())
            && parameters.keys().all(|name| AS_IN_CHAT.contains(&name.as_str()));
        // A name that no field of the body has: messages have a place of their own.
        if !rest_of_last.is_empty() {
            parameters.insert("input".into(), Value::Object(rest_of_last));
        }
        let surface = if is_plain { Surface::Chat } else { Surface::Responses };
        Ok(Question { surface, turns, text, parameters })
    }

    fn turns(&self, body: &Fields) -> Option<Vec<Turn>> {
        parts::earlier(&messages(body).ok()?)
    }

    fn wants_json(&self, body: &Fields) -> bool {
        let format = field(body, "text").and_then(|text| text.pointer("/format/type")).and_then(Value::as_str);
        matches!(format, Some("json_object" | "json_schema"))
    }

    fn outline(&self, object: &Fields) -> Outline {
        let output = items(object, "output");
        let is_whole = text(object, "status") == Some("completed") && field(object, "incomplete_details").is_none();
        let (messages, others): (Vec<&Value>, Vec<&Value>) = output.iter().partition(|item| is(item, "message"));
        let parts = || messages.iter().flat_map(|message| contents(message));
        Outline {
            finish: if is_whole { Finish::Complete } else { Finish::Other },
            text: said_text(object),
            has_refusal: parts().any(|part| !is(part, "output_text")),
            has_tool_calls: others.iter().any(|item| !is(item, "reasoning")),
            choices: usize::from(!messages.is_empty()),
        }
    }

    fn assembly(&self) -> Box<dyn Assembly> {
        Box::new(stream::Progress::default())
    }

    fn said(&self, object: &Fields) -> Said {
        let output = items(object, "output");
        let thought = output.iter().filter(|item| is(item, "reasoning"));
        let lists = |item: &'_ Value| ["summary", "content"].map(|list| item.get(list).cloned().unwrap_or_default());
        let thought = thought.flat_map(lists).filter_map(|list| match list {
            Value::Array(parts) => Some(parts),
            _ => None,
        });
        let thought: Vec<String> =
            thought.flatten().filter_map(|part| Some(part.get("text")?.as_str()?.to_owned())).collect();
        let parts = output.iter().filter(|item| is(item, "message")).flat_map(contents);
        let annotations = parts.filter_map(|part| part.get("annotations")?.as_array()).flatten().cloned();
        Said {
            text: said_text(object),
            reasoning: (!thought.is_empty()).then(|| thought.join("\n\n")),
            annotations: annotations.collect(),
            model: text(object, "model").map(str::to_owned),
            usage: field(object, "usage").and_then(tokens),
            service_tier: field(object, "service_tier").cloned(),
        }
    }

    fn object(&self, said: &Said, model: &str) -> Fields {
        replay::object(said, model)
    }

    fn replay(&self, object: Fields, request: &Fields, fresh: &Fresh) -> Fields {
        replay::fresh(object, request, fresh)
    }

    fn events(&self, object: Fields, _request: &Fields, piece_bytes: usize) -> Vec<Event> {
        replay::events(object, piece_bytes)
    }
}

fn refuse_parameters(body: &Fields) -> Result<(), Reason> {
    // What is absent is kept.
    let is_kept = body.get("store") != Some(&Value::Bool(false));
    let state = ["previous_response_id", "conversation", "prompt"];
    if is_kept || is_true(body, "background") || state.iter().any(|name| field(body, name).is_some()) {
        return Err(Reason::Stateful);
    }
    if filled(body, "tools") {
        return Err(Reason::ToolsInUse);
    }
    // What is encrypted only its own organisation's keys can give back.
    let is_own = |included: &Value| {
        included.as_str().is_some_and(|name| name.ends_with("logprobs") || name.ends_with("encrypted_content"))
    };
    let background = field(body, "background").is_some_and(|background| !background.is_boolean());
    if background || field(body, "top_logprobs").is_some() || items(body, "include").iter().any(is_own) {
        return Err(Reason::NotCacheable);
    }
    Ok(())
}

/// The input as messages of text parts.
fn messages(body: &Fields) -> Result<Vec<Value>, Reason> {
    match body.get("input") {
        Some(Value::String(text)) => Ok(vec![json!({"role": "user", "content": text})]),
        Some(Value::Array(items)) => items.iter().map(message).collect(),
        _ => Err(Reason::NotCacheable),
    }
}

/// An input item as a message, without what does not change the answer: its id, and that it is complete.
fn message(item: &Value) -> Result<Value, Reason> {
    let mut message = item.as_object().ok_or(Reason::NotCacheable)?.clone();
    match message.remove("type").unwrap_or_else(|| json!("message")).as_str() {
        Some("message") => {}
        Some("item_reference") => return Err(Reason::Stateful),
        Some(kind) if kind.ends_with("_call") || kind.ends_with("_call_output") => return Err(Reason::ToolsInUse),
        _ => return Err(Reason::NotCacheable),
    }
    if !matches!(text(&message, "role"), Some("system" | "developer" | "user" | "assistant")) {
        return Err(Reason::NotCacheable);
    }
    message.remove("id");
    if message.get("status").is_some_and(|status| status.is_null() || status == "completed") {
        message.remove("status");
    }
    match message.get_mut("content") {
        Some(Value::String(_)) => {}
        Some(Value::Array(parts)) => parts.iter_mut().try_for_each(plain_part)?,
        _ => return Err(Reason::NotCacheable),
    }
    Ok(Value::Object(message))
}

/// A text part as every API writes it, without lists that are empty.
fn plain_part(part: &mut Value) -> Result<(), Reason> {
    let part = part.as_object_mut().ok_or(Reason::NotCacheable)?;
    match text(part, "type") {
        Some("input_text" | "output_text") if text(part, "text").is_some() => {}
        Some("input_image" | "input_file" | "input_audio") => return Err(Reason::Multimodal),
        _ => return Err(Reason::NotCacheable),
    }
    part.insert("type".into(), json!("text"));
    for name in ["annotations", "logprobs"] {
        if !filled(part, name) {
            part.remove(name);
        }
    }
    Ok(())
}

fn is(item: &Value, kind: &str) -> bool {
    item.get("type").is_some_and(|of| of == kind)
}

/// The parts of a message or of thoughts.
fn contents(item: &Value) -> &[Value] {
    item.get("content").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn said_text(object: &Fields) -> String {
    let parts = items(object, "output").iter().filter(|item| is(item, "message")).flat_map(contents);
    parts.filter(|part| is(part, "output_text")).filter_map(|part| part.get("text")?.as_str()).collect()
}

fn tokens(usage: &Value) -> Option<Tokens> {
    let count = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64);
    let (input, output) = (count("/input_tokens"), count("/output_tokens"));
    input.or(output)?;
    Some(Tokens {
        input: input.unwrap_or(0),
        cached: count("/input_tokens_details/cached_tokens").unwrap_or(0),
        output: output.unwrap_or(0),
        reasoning: count("/output_tokens_details/reasoning_tokens").unwrap_or(0),
    })
}

/// Fields that mean the same in a chat completion.
const AS_IN_CHAT: &[&str] = &["temperature", "top_p"];

/// What a response repeats of its request without depending on it.
const ECHOED: &[&str] =
    &["metadata", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "store", "background"];

/// Fields that do not change what is answered, and those that have a place of their own in the scope.
const ELSEWHERE: &[&str] = &[
    "stream",
    "stream_options",
    "metadata",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "store",
    "background",
    "model",
    "input",
    "previous_response_id",
    "conversation",
    "prompt",
];
