//! Messages with tools of the client's: what such a request depends on, and whether uses of them are whole.

use serde_json::{Value, json};

use super::{ELSEWHERE, KEPT, is, refuse_block, system};
use crate::decision::{Reason, Surface};
use crate::wire::request::{Fields, Question, field, filled, has_lossy_number, items, parameters};

/// A request with tools in it depends on every message to the byte: ids of uses and what tools said included.
pub(super) fn asked(body: &Fields) -> Result<Question, Reason> {
    let is_clients = |tool: &Value| {
        let is_custom = tool.get("type").is_none_or(|kind| kind.is_null() || kind == "custom");
        is_custom && tool.get("input_schema").is_some_and(Value::is_object)
    };
    if filled(body, "mcp_servers") || !items(body, "tools").iter().all(is_clients) {
        return Err(Reason::ToolsInUse);
    }
    if field(body, "container").is_some() {
        return Err(Reason::Stateful);
    }
    let turns = system(body)?.into_iter().collect();
    let messages = body.get("messages").and_then(Value::as_array).ok_or(Reason::NotCacheable)?;
    messages.iter().try_for_each(refuse_message)?;
    let last = messages.last().ok_or(Reason::NotCacheable)?;
    if last.get("role").is_none_or(|role| role != "user") {
        return Err(Reason::NotCacheable);
    }
    let mut parameters = parameters(body, ELSEWHERE);
    parameters.insert("messages".into(), json!(messages));
    let text = messages.iter().rev().find_map(users_text).unwrap_or_default();
    Ok(Question { surface: Surface::MessagesWithTools, turns, text, parameters })
}

/// Whether blocks are nothing but what is said and uses that a client can make, one of them at least.
pub(super) fn uses_are_whole(blocks: &[Value]) -> bool {
    let is_use = |block: &Value| {
        let has = |name: &str| block.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        // A number that a double does not hold would be another one in the replay.
        let is_kept = |input: &Value| input.is_object() && !has_lossy_number(input);
        is(block, USE) && has("id") && has("name") && block.get("input").is_some_and(is_kept)
    };
    let is_said = |block: &Value| KEPT.iter().any(|kind| is(block, kind));
    blocks.iter().any(is_use) && blocks.iter().all(|block| is_said(block) || is_use(block))
}

fn refuse_message(message: &Value) -> Result<(), Reason> {
    if !matches!(message.get("role").and_then(Value::as_str), Some("user" | "assistant")) {
        return Err(Reason::NotCacheable);
    }
    let refuse = |block: &Value| match block.get("content") {
        _ if is(block, USE) => Ok(()),
        None | Some(Value::String(_)) if is(block, RESULT) => Ok(()),
        Some(Value::Array(inner)) if is(block, RESULT) => inner.iter().try_for_each(refuse_block),
        _ => refuse_block(block),
    };
    match message.get("content") {
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(blocks)) => blocks.iter().try_for_each(refuse),
        _ => Err(Reason::NotCacheable),
    }
}

/// What a user's message says last, in text.
fn users_text(message: &Value) -> Option<String> {
    let content = message.get("content").filter(|_| message.get("role").is_some_and(|role| role == "user"))?;
    let said = |block: &Value| block.get("text").and_then(Value::as_str).map(str::to_owned);
    let text = content.as_str().map(str::to_owned);
    text.or_else(|| content.as_array()?.iter().rev().filter(|block| is(block, "text")).find_map(said))
}

/// A call of a tool.
pub(super) const USE: &str = "tool_use";

/// What it gave.
const RESULT: &str = "tool_result";
