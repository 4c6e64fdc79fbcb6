//! A message for a client, whole or as events.

use serde_json::{Value, json};

use super::tools::USE;
use crate::wire::answer::{Event, Fresh, Said, Tokens, pieces, replayed_usage};
use crate::wire::request::{Fields, items, text};

pub(super) fn object(said: &Said, model: &str) -> Fields {
    // What another API tells of the thoughts has no signature, so it is no thinking block.
    let mut object = Fields::from_iter([
        ("type".to_owned(), json!("message")),
        ("role".to_owned(), json!("assistant")),
        ("model".to_owned(), json!(said.model.as_deref().unwrap_or(model))),
        ("content".to_owned(), json!([{"type": "text", "text": said.text}])),
        ("stop_reason".to_owned(), json!("end_turn")),
        ("stop_sequence".to_owned(), Value::Null),
    ]);
    if let Some(tokens) = said.usage {
        object.insert("usage".into(), usage(tokens));
    }
    object
}

/// A fresh id, and usage that says that it was not spent again.
pub(super) fn fresh(mut object: Fields, fresh: &Fresh) -> Fields {
    object.insert("id".into(), json!(format!("msg_{:032x}", fresh.nonce)));
    let usage = replayed_usage(fresh.figures, object.get("usage").cloned(), || {
        usage(Tokens::estimate(&super::said_text(&object)))
    });
    object.insert("usage".into(), usage);
    object
}

/// From `message_start` to `message_stop`.
pub(super) fn events(mut object: Fields, piece_bytes: usize) -> Vec<Event> {
    let blocks: Vec<Value> = items(&object, "content").to_vec();
    let usage = object.get("usage").cloned().unwrap_or_default();
    let end = json!({
        "type": "message_delta", "usage": usage,
        "delta": {"stop_reason": object.get("stop_reason"), "stop_sequence": object.get("stop_sequence")},
    });
    for (name, value) in [("content", json!([])), ("stop_reason", Value::Null), ("stop_sequence", Value::Null)] {
        object.insert(name.into(), value);
    }
    // The figures of the beginning: nothing is said yet.
    let mut begun = usage;
    begun["output_tokens"] = json!(0);
    object.insert("usage".into(), begun);
    let mut events = vec![Event::typed(&json!({"type": "message_start", "message": object}))];
    for (index, block) in blocks.into_iter().enumerate() {
        let Value::Object(block) = block else { continue };
        events.extend(block_events(index, block, piece_bytes));
    }
    events.push(Event::typed(&end));
    events.push(Event::typed(&json!({"type": "message_stop"})));
    events
}

fn block_events(index: usize, mut block: Fields, piece_bytes: usize) -> Vec<Event> {
    let mut deltas = Vec::new();
    for (field, kind) in [("thinking", "thinking_delta"), ("text", "text_delta")] {
        if let Some(said) = text(&block, field).filter(|said| !said.is_empty()) {
            deltas
                .extend(pieces(said, piece_bytes).into_iter().map(|piece| (json!({"type": kind, field: piece}), true)));
            block.insert(field.into(), json!(""));
        }
    }
    if let Some(Value::Array(citations)) = block.get_mut("citations").map(Value::take) {
        deltas.extend(citations.iter().map(|quoted| (json!({"type": "citations_delta", "citation": quoted}), false)));
        block.insert("citations".into(), json!([]));
    }
    if block.get("type").is_some_and(|kind| kind == USE) {
        let input = block.insert("input".into(), json!({})).unwrap_or_else(|| json!({}));
        deltas.push((json!({"type": "input_json_delta", "partial_json": input.to_string()}), false));
    }
    if let Some(signature) = text(&block, "signature").filter(|signature| !signature.is_empty()) {
        deltas.push((json!({"type": "signature_delta", "signature": signature}), false));
        block.insert("signature".into(), json!(""));
    }
    let mut events =
        vec![Event::typed(&json!({"type": "content_block_start", "index": index, "content_block": block}))];
    for (delta, is_piece) in deltas {
        let event = Event::typed(&json!({"type": "content_block_delta", "index": index, "delta": delta}));
        events.push(if is_piece { event.piece() } else { event });
    }
    events.push(Event::typed(&json!({"type": "content_block_stop", "index": index})));
    events
}

/// The figures as Anthropic gives them.
fn usage(tokens: Tokens) -> Value {
    let Tokens { input, cached, output, reasoning: _ } = tokens;
    json!({
        "input_tokens": input.saturating_sub(cached), "output_tokens": output,
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": cached,
    })
}
