//! Anthropic's messages.
//!
//! An answer is kept as a `message` object with its text and thinking blocks. A stream is recorded into one and replayed
//! from one.

mod replay;
mod stream;
mod tools;

use serde_json::{Value, json};

use super::answer::{Event, Fresh, Outline, Said, Tokens};
use super::parts;
use super::request::{Fields, MESSAGES_PATH, Protocol, Question, field, filled, items, parameters, text};
use super::sse::Assembly;
use crate::decision::{AnswerKind, Finish, Reason, Surface, Turn};

/// `POST /v1/messages`.
#[derive(Debug)]
pub(crate) struct Messages;

impl Protocol for Messages {
    fn path(&self) -> &'static str {
        MESSAGES_PATH
    }

    fn place(&self) -> &'static str {
        "content[].text"
    }

    fn kind(&self) -> AnswerKind {
        AnswerKind::Message
    }

    fn asked(&self, body: &Fields) -> Result<Question, Reason> {
        if filled(body, "tools") || filled(body, "mcp_servers") {
            return Err(Reason::ToolsInUse);
        }
        if field(body, "container").is_some() {
            return Err(Reason::Stateful);
        }
        let system = system(body)?;
        let messages = body.get("messages").and_then(Value::as_array).ok_or(Reason::NotCacheable)?;
        messages.iter().try_for_each(refuse_message)?;
        let messages: Vec<Value> = messages.iter().map(without_hints).collect();
        let (text, rest_of_last) = parts::split_last_text(messages.last().ok_or(Reason::NotCacheable)?)?;
        let turns = system.into_iter().chain(parts::earlier(&messages).ok_or(Reason::NotCacheable)?).collect();
        let mut parameters = parameters(body, ELSEWHERE);
        // A name that no field of the body has: messages have a place of their own.
        if !rest_of_last.is_empty() {
            parameters.insert("messages".into(), Value::Object(rest_of_last));
        }
        Ok(Question { surface: Surface::Messages, turns, text, parameters })
    }

    fn asked_with_tools(&self, body: &Fields) -> Result<Question, Reason> {
        tools::asked(body)
    }

    fn turns(&self, body: &Fields) -> Option<Vec<Turn>> {
        let messages: Vec<Value> = items(body, "messages").iter().map(without_hints).collect();
        Some(system(body).ok()?.into_iter().chain(parts::earlier(&messages)?).collect())
    }

    fn wants_json(&self, body: &Fields) -> bool {
        let formats = [body.get("output_format"), body.get("output_config").and_then(|config| config.get("format"))];
        formats.into_iter().flatten().any(|format| format.get("type").is_some_and(|kind| kind == "json_schema"))
    }

    fn outline(&self, object: &Fields) -> Outline {
        let is_said = |block: &Value| KEPT.iter().any(|kind| is(block, kind));
        Outline {
            finish: match text(object, "stop_reason") {
                Some("end_turn" | "stop_sequence") => Finish::Complete,
                Some("tool_use") if tools::uses_are_whole(items(object, "content")) => Finish::ToolCalls,
                _ => Finish::Other,
            },
            text: said_text(object),
            has_refusal: text(object, "stop_reason") == Some("refusal"),
            has_tool_calls: !items(object, "content").iter().all(is_said),
            choices: usize::from(text(object, "type") == Some("message") && object.contains_key("content")),
        }
    }

    fn assembly(&self) -> Box<dyn Assembly> {
        Box::new(stream::Blocks::default())
    }

    fn said(&self, object: &Fields) -> Said {
        let thought = items(object, "content").iter().filter(|block| is(block, "thinking"));
        let thought: Vec<&str> = thought.filter_map(|block| block.get("thinking")?.as_str()).collect();
        Said {
            text: said_text(object),
            reasoning: (!thought.is_empty()).then(|| thought.concat()),
            annotations: Vec::new(),
            model: text(object, "model").map(str::to_owned),
            usage: field(object, "usage").and_then(tokens),
            service_tier: None,
        }
    }

    fn object(&self, said: &Said, model: &str) -> Fields {
        replay::object(said, model)
    }

    fn replay(&self, object: Fields, _request: &Fields, fresh: &Fresh) -> Fields {
        replay::fresh(object, fresh)
    }

    fn events(&self, object: Fields, _request: &Fields, piece_bytes: usize) -> Vec<Event> {
        replay::events(object, piece_bytes)
    }
}

/// The system prompt as the first turn.
fn system(body: &Fields) -> Result<Option<Turn>, Reason> {
    let Some(content) = field(body, "system") else { return Ok(None) };
    if let Value::Array(blocks) = content {
        blocks.iter().try_for_each(refuse_block)?;
    }
    let message = without_hints(&json!({"role": "system", "content": content}));
    parts::turn(&message).map(Some).ok_or(Reason::NotCacheable)
}

fn refuse_message(message: &Value) -> Result<(), Reason> {
    if !matches!(message.get("role").and_then(Value::as_str), Some("user" | "assistant")) {
        return Err(Reason::NotCacheable);
    }
    match message.get("content") {
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(blocks)) => blocks.iter().try_for_each(refuse_block),
        _ => Err(Reason::NotCacheable),
    }
}

/// Text, and what the model thought before, are understood. What a tool of the provider brought is no text.
fn refuse_block(block: &Value) -> Result<(), Reason> {
    let kind = block.get("type").and_then(Value::as_str).ok_or(Reason::NotCacheable)?;
    match kind {
        "text" if block.get("text").is_some_and(Value::is_string) => Ok(()),
        "thinking" | "redacted_thinking" => Ok(()),
        "tool_use" | "tool_result" => Err(Reason::ToolsInUse),
        "image" | "document" | "search_result" | "container_upload" => Err(Reason::Multimodal),
        _ if kind.ends_with("tool_use") || kind.ends_with("tool_result") => Err(Reason::Multimodal),
        _ => Err(Reason::NotCacheable),
    }
}

/// The message without what does not change its answer: where the provider's prompt cache may cut, and places quoted by
/// nobody.
fn without_hints(message: &Value) -> Value {
    let mut message = message.clone();
    for block in message.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(block) = block.as_object_mut() {
            block.remove("cache_control");
            if block.get("citations").is_some_and(Value::is_null) {
                block.remove("citations");
            }
        }
    }
    message
}

fn is(block: &Value, kind: &str) -> bool {
    block.get("type").is_some_and(|of| of == kind)
}

fn said_text(object: &Fields) -> String {
    let texts = items(object, "content").iter().filter(|block| is(block, "text"));
    texts.filter_map(|block| block.get("text")?.as_str()).collect()
}

/// Anthropic counts what its prompt cache read or wrote apart from the input.
fn tokens(usage: &Value) -> Option<Tokens> {
    let count = |name: &str| usage.get(name).and_then(Value::as_u64);
    let (input, output) = (count("input_tokens"), count("output_tokens"));
    input.or(output)?;
    let cached = count("cache_read_input_tokens").unwrap_or(0);
    let written = count("cache_creation_input_tokens").unwrap_or(0);
    let input = input.unwrap_or(0).saturating_add(cached).saturating_add(written);
    Some(Tokens { input, cached, output: output.unwrap_or(0), reasoning: 0 })
}

/// Blocks of an answer that is kept.
const KEPT: [&str; 3] = ["text", "thinking", "redacted_thinking"];

/// Fields that do not change what is answered, and those that have a place of their own in the scope.
const ELSEWHERE: &[&str] = &["stream", "metadata", "cache_control", "model", "messages", "system"];
