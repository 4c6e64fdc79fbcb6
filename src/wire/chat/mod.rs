//! OpenAI's chat completions.
//!
//! An answer is kept as a `chat.completion` object. A stream is recorded into one and replayed from one, so either form
//! serves either kind of client.

mod replay;
mod stream;
mod tools;

use serde_json::{Value, json};

pub(super) use self::replay::usage;
pub(super) use self::stream::said_last;
use super::answer::{Event, Fresh, Outline, Said, Tokens};
use super::parts;
use super::request::{Fields, Protocol, Question, field, filled, is_true, parameters, text};
use super::sse::Assembly;
use crate::decision::{AnswerKind, CHAT_PATH, Finish, Reason, Surface, Turn};

/// `POST /v1/chat/completions`.
#[derive(Debug)]
pub(crate) struct Chat;

impl Protocol for Chat {
    fn path(&self) -> &'static str {
        CHAT_PATH
    }

    fn place(&self) -> &'static str {
        "choices[0].message.content"
    }

    fn kind(&self) -> AnswerKind {
        AnswerKind::ChatCompletion
    }

    fn asked(&self, body: &Fields) -> Result<Question, Reason> {
        refuse_parameters(body)?;
        let messages = body.get("messages").and_then(Value::as_array).ok_or(Reason::NotCacheable)?;
        let last = messages.last().ok_or(Reason::NotCacheable)?;
        messages.iter().try_for_each(refuse_message)?;
        let (text, rest_of_last) = parts::split_last_text(last)?;
        let turns = parts::earlier(messages).ok_or(Reason::NotCacheable)?;
        let mut parameters = parameters(body, ELSEWHERE);
        // A name that no field of the body has: messages have a place of their own.
        if !rest_of_last.is_empty() {
            parameters.insert("messages".into(), Value::Object(rest_of_last));
        }
        Ok(Question { surface: Surface::Chat, turns, text, parameters })
    }

    fn asked_with_tools(&self, body: &Fields) -> Result<Question, Reason> {
        tools::asked(body)
    }

    fn turns(&self, body: &Fields) -> Option<Vec<Turn>> {
        parts::earlier(body.get("messages")?.as_array()?)
    }

    fn wants_json(&self, body: &Fields) -> bool {
        let format = field(body, "response_format").and_then(|f| f.get("type")).and_then(Value::as_str);
        matches!(format, Some("json_object" | "json_schema"))
    }

    fn outline(&self, object: &Fields) -> Outline {
        let choice = choice(object);
        let present =
            |name: &str| message(object).and_then(|m| m.get(name)).is_some_and(|v| !v.is_null() && *v != json!([]));
        let finish = choice.and_then(|choice| choice.get("finish_reason")).and_then(Value::as_str);
        Outline {
            finish: match finish {
                Some("stop") => Finish::Complete,
                Some("tool_calls") if message(object).is_some_and(tools::calls_are_whole) => Finish::ToolCalls,
                _ => Finish::Other,
            },
            text: content(object).unwrap_or_default().to_owned(),
            has_refusal: present("refusal"),
            has_tool_calls: present("tool_calls") || present("function_call"),
            choices: object.get("choices").and_then(Value::as_array).map_or(0, Vec::len),
        }
    }

    fn assembly(&self) -> Box<dyn Assembly> {
        Box::new(stream::Chunks::default())
    }

    fn said(&self, object: &Fields) -> Said {
        let reasoning = message(object).and_then(|message| REASONING.into_iter().find_map(|name| text(message, name)));
        let annotations = message(object).map(|message| super::request::items(message, "annotations"));
        Said {
            text: content(object).unwrap_or_default().to_owned(),
            reasoning: reasoning.map(str::to_owned),
            annotations: annotations.unwrap_or_default().iter().filter_map(flat_annotation).collect(),
            model: text(object, "model").map(str::to_owned),
            usage: field(object, "usage").and_then(tokens),
            service_tier: field(object, "service_tier").cloned(),
        }
    }

    fn object(&self, said: &Said, model: &str) -> Fields {
        replay::object(said, model)
    }

    fn replay(&self, object: Fields, _request: &Fields, fresh: &Fresh) -> Fields {
        replay::fresh(object, fresh)
    }

    fn events(&self, object: Fields, request: &Fields, piece_bytes: usize) -> Vec<Event> {
        replay::events(object, wants_usage(request), piece_bytes)
    }
}

/// Whether a streamed answer should end with its token usage.
pub(super) fn wants_usage(request: &Fields) -> bool {
    field(request, "stream_options").and_then(|o| o.get("include_usage")) == Some(&Value::Bool(true))
}

fn refuse_parameters(body: &Fields) -> Result<(), Reason> {
    if filled(body, "tools") || filled(body, "functions") || filled(body, "web_search_options") {
        return Err(Reason::ToolsInUse);
    }
    refuse_others(body)
}

/// What is refused with tools and without.
fn refuse_others(body: &Fields) -> Result<(), Reason> {
    if field(body, "n").is_some_and(|n| n.as_u64() != Some(1)) {
        return Err(Reason::NOverOne);
    }
    if is_true(body, "store") {
        return Err(Reason::Stateful);
    }
    if filled(body, "audio") || field(body, "modalities").is_some_and(|m| *m != json!(["text"])) {
        return Err(Reason::Multimodal);
    }
    if is_true(body, "logprobs") { Err(Reason::NotCacheable) } else { Ok(()) }
}

fn refuse_message(message: &Value) -> Result<(), Reason> {
    match message.get("role").and_then(Value::as_str) {
        Some("system" | "developer" | "user" | "assistant") => {}
        Some("tool" | "function") => return Err(Reason::ToolsInUse),
        _ => return Err(Reason::NotCacheable),
    }
    let calls = |name: &str| message.get(name).is_some_and(|calls| !calls.is_null());
    if calls("tool_calls") || calls("function_call") {
        return Err(Reason::ToolsInUse);
    }
    if calls("audio") {
        return Err(Reason::Multimodal);
    }
    match message.get("content") {
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) => parts.iter().try_for_each(refuse_part),
        _ => Err(Reason::NotCacheable),
    }
}

fn refuse_part(part: &Value) -> Result<(), Reason> {
    match part.get("type").and_then(Value::as_str) {
        Some("text") if part.get("text").is_some_and(Value::is_string) => Ok(()),
        Some("image_url" | "input_audio" | "file") => Err(Reason::Multimodal),
        _ => Err(Reason::NotCacheable),
    }
}

fn choice(object: &Fields) -> Option<&Fields> {
    object.get("choices")?.as_array()?.first()?.as_object()
}

fn message(object: &Fields) -> Option<&Fields> {
    choice(object)?.get("message")?.as_object()
}

fn content(object: &Fields) -> Option<&str> {
    text(message(object)?, "content")
}

/// The figures of a chat completion, or of an older one.
pub(super) fn tokens(usage: &Value) -> Option<Tokens> {
    let count = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64);
    let (input, output) = (count("/prompt_tokens"), count("/completion_tokens"));
    input.or(output)?;
    Some(Tokens {
        input: input.unwrap_or(0),
        cached: count("/prompt_tokens_details/cached_tokens").unwrap_or(0),
        output: output.unwrap_or(0),
        reasoning: count("/completion_tokens_details/reasoning_tokens").unwrap_or(0),
    })
}

/// An annotation as the responses API writes it.
fn flat_annotation(annotation: &Value) -> Option<Value> {
    let kind = annotation.get("type")?.as_str()?;
    let mut flat = annotation.get(kind)?.as_object()?.clone();
    flat.insert("type".into(), json!(kind));
    Some(Value::Object(flat))
}

/// Names under which providers tell what the model thought.
const REASONING: [&str; 2] = ["reasoning_content", "reasoning"];

/// Fields that do not change what is answered (how it is sent, and for whom it is counted), and those that have a place
/// of their own in the scope.
const ELSEWHERE: &[&str] = &[
    "stream",
    "stream_options",
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "store",
    "model",
    "messages",
];
