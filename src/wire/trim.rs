//! Conversations without their oldest turns.
//!
//! A turn is what a user says and everything up to what a user says next: a conversation is cut before a user's words only,
//! never between a tool's call and its result. What nobody understands is not cut at all.

use std::collections::HashMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::edit::replaced;
use super::json::fields;
use super::request::{Fields, MESSAGES_PATH, field, items, text};
use crate::decision::CHAT_PATH;

/// How much of a conversation is kept beside its system messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turns {
    /// Most turns.
    pub max: usize,
    /// Turns are dropped so many at a time: what is kept then begins alike for as many turns, and a provider's prompt cache
    /// finds it again.
    pub step: usize,
}

/// A body without the oldest turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trimmed {
    pub(crate) body: Vec<u8>,
    /// Messages that are gone.
    pub(crate) dropped: usize,
}

/// `fields` are the body's. `None` where nothing is to be dropped.
pub(crate) fn trimmed(path: &str, fields: &Fields, body: &[u8], turns: Turns) -> Option<Trimmed> {
    let name = if path == "/v1/responses" { "input" } else { "messages" };
    // The provider keeps what came before.
    if ["previous_response_id", "conversation"].iter().any(|name| field(fields, name).is_some()) {
        return None;
    }
    let messages = items(fields, name).iter().map(|item| Message::read(path, item)).collect::<Option<Vec<_>>>()?;
    let cut = cut(&messages, turns)?;
    let is_kept = |place: usize, message: &Message<'_>| place >= cut || message.speaker == Speaker::System;
    let kept: Vec<bool> = messages.iter().enumerate().map(|(place, message)| is_kept(place, message)).collect();
    let dropped = kept.iter().filter(|kept| !**kept).count();
    if dropped == 0 {
        return None;
    }
    let body = without(body, name, &kept)?;
    Some(Trimmed { body, dropped })
}

/// A message, as far as it decides where a conversation can be cut.
#[derive(Debug)]
struct Message<'a> {
    speaker: Speaker,
    /// Tools that are called in it, by the name of the call.
    calls: Vec<&'a str>,
    /// Calls whose results are in it.
    results: Vec<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaker {
    System,
    User,
    Model,
    /// What was called, here or at the client.
    Tool,
}

impl<'a> Message<'a> {
    /// `None` where it is not understood.
    fn read(path: &str, item: &'a Value) -> Option<Self> {
        let item = item.as_object()?;
        match path {
            CHAT_PATH => Self::of_chat(item),
            MESSAGES_PATH => Self::of_messages(item),
            "/v1/responses" => Self::of_responses(item),
            _ => None,
        }
    }

    fn of_chat(item: &'a Fields) -> Option<Self> {
        let speaker = match text(item, "role")? {
            "system" | "developer" => Speaker::System,
            "user" => Speaker::User,
            "assistant" => Speaker::Model,
            "tool" | "function" => Speaker::Tool,
            _ => return None,
        };
        let calls = items(item, "tool_calls").iter().filter_map(|call| call.get("id")?.as_str());
        let called = item.get("function_call").and_then(|call| call.get("name")?.as_str());
        let result = text(item, "tool_call_id").or_else(|| text(item, "name").filter(|_| is_function(item)));
        Some(Self { speaker, calls: calls.chain(called).collect(), results: result.into_iter().collect() })
    }

    fn of_messages(item: &'a Fields) -> Option<Self> {
        let blocks = items(item, "content");
        let of = |end: &'static str, name: &'static str| {
            let is_meant = move |block: &&Value| kind(block).ends_with(end);
            blocks.iter().filter(is_meant).filter_map(move |block| block.get(name)?.as_str()).collect::<Vec<_>>()
        };
        let (calls, results) = (of("tool_use", "id"), of("tool_result", "tool_use_id"));
        let speaker = match text(item, "role")? {
            "user" if blocks.iter().any(|block| kind(block).ends_with("tool_result")) => Speaker::Tool,
            "user" => Speaker::User,
            // Results of the provider's own tools are in it, too.
            "assistant" => Speaker::Model,
            _ => return None,
        };
        Some(Self { speaker, calls, results })
    }

    fn of_responses(item: &'a Fields) -> Option<Self> {
        let (mut calls, mut results) = (Vec::new(), Vec::new());
        let speaker = match text(item, "type").unwrap_or("message") {
            "message" => match text(item, "role")? {
                "system" | "developer" => Speaker::System,
                "user" => Speaker::User,
                "assistant" => Speaker::Model,
                _ => return None,
            },
            "reasoning" => Speaker::Model,
            kind if kind.ends_with("_call_output") => {
                results.push(text(item, "call_id")?);
                Speaker::Tool
            }
            kind if kind.ends_with("_call") => {
                calls.extend(text(item, "call_id").or_else(|| text(item, "id")));
                Speaker::Model
            }
            // What it stands for is at the provider.
            _ => return None,
        };
        Some(Self { speaker, calls, results })
    }
}

fn is_function(item: &Fields) -> bool {
    text(item, "role") == Some("function")
}

fn kind(block: &Value) -> &str {
    block.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// The place of the first message that is kept, always one of a user.
fn cut(messages: &[Message<'_>], turns: Turns) -> Option<usize> {
    let starts = starts(messages);
    let over = starts.len().checked_sub(turns.max.max(1)).filter(|over| *over > 0)?;
    let dropped = over.next_multiple_of(turns.step.max(1)).min(starts.len() - 1);
    // Rather more is kept than a result without its call.
    let is_orphaning = orphaning(messages);
    starts[1..=dropped].iter().rev().copied().find(|start| !is_orphaning[*start])
}

/// Where users begin to speak. Of several messages in a row the first counts, whether or not a system message is between.
fn starts(messages: &[Message<'_>]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut last = Speaker::Model;
    for (place, message) in messages.iter().enumerate() {
        // What brings a tool's results belongs to the turn of the call, and so does what is said right after it.
        if message.speaker == Speaker::User && !matches!(last, Speaker::User | Speaker::Tool) {
            starts.push(place);
        }
        if message.speaker != Speaker::System {
            last = message.speaker;
        }
    }
    starts
}

/// For each place, whether a conversation that is cut there keeps a result and not its call: as every place does that is behind the
/// last call of that name, up to the result.
fn orphaning(messages: &[Message<'_>]) -> Vec<bool> {
    let mut called = HashMap::new();
    // By how many more results than the place before each place parts from their calls.
    let mut changes = vec![0_isize; messages.len() + 1];
    for (place, message) in messages.iter().enumerate() {
        for call in message.results.iter().filter_map(|result| called.get(result)) {
            changes[call + 1] += 1;
            changes[place + 1] -= 1;
        }
        called.extend(message.calls.iter().map(|call| (*call, place)));
    }
    let mut parted = 0;
    let sum = |change: &isize| {
        parted += change;
        parted > 0
    };
    changes[..messages.len()].iter().map(sum).collect()
}

/// The body with those items of a list that are kept, each to the byte.
fn without(body: &[u8], name: &str, kept: &[bool]) -> Option<Vec<u8>> {
    let fields = fields(body).ok()?;
    let (_, list) = fields.iter().find(|(field, _)| field == name)?;
    let items: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
    let items = items.iter().zip(kept).filter(|(_, kept)| **kept).map(|(item, _)| item.get());
    replaced(body, name, &format!("[{}]", items.collect::<Vec<_>>().join(",")))
}

#[cfg(test)]
mod tests;
