//! A response for a client, whole or as events.

use serde_json::{Value, json};

use super::{ECHOED, contents, is};
use crate::wire::answer::{Event, Fresh, Said, Tokens, pieces, replayed_usage};
use crate::wire::request::{Fields, items, text};

pub(super) fn object(said: &Said, model: &str) -> Fields {
    let part = json!({"type": "output_text", "annotations": said.annotations, "logprobs": [], "text": said.text});
    let message = json!({"type": "message", "status": "completed", "role": "assistant", "content": [part]});
    let thought = said
        .reasoning
        .as_ref()
        .map(|thought| json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": thought}]}));
    let output: Vec<Value> = thought.into_iter().chain([message]).collect();
    let Value::Object(mut object) = json!({
        "object": "response", "status": "completed", "error": null, "incomplete_details": null, "instructions": null,
        "max_output_tokens": null, "model": said.model.as_deref().unwrap_or(model), "output": output,
        "parallel_tool_calls": true, "previous_response_id": null, "reasoning": {"effort": null, "summary": null},
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "truncation": "disabled",
    }) else {
        return Fields::new();
    };
    if let Some(tokens) = said.usage {
        object.insert("usage".into(), usage(tokens));
    }
    if let Some(tier) = &said.service_tier {
        object.insert("service_tier".into(), tier.clone());
    }
    object
}

/// A fresh id and time, usage that says that it was not spent again, and of the request what it repeats.
pub(super) fn fresh(mut object: Fields, request: &Fields, fresh: &Fresh) -> Fields {
    object.insert("id".into(), json!(format!("resp_{:032x}", fresh.nonce)));
    object.insert("object".into(), json!("response"));
    object.insert("created_at".into(), json!(fresh.now_s));
    if object.get("completed_at").is_some_and(Value::is_number) {
        object.insert("completed_at".into(), json!(fresh.now_s));
    }
    // Ids of items stay as they were: what a provider encrypted is bound to them.
    for (index, item) in object.get_mut("output").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        let prefix = if is(item, "reasoning") { "rs" } else { "msg" };
        if let Some(item) = item.as_object_mut() {
            item.entry("id").or_insert_with(|| json!(format!("{prefix}_{:032x}{index:02x}", fresh.nonce)));
        }
    }
    for name in ECHOED {
        object.remove(*name);
        if let Some(value) = request.get(*name) {
            object.insert((*name).into(), value.clone());
        }
    }
    object.entry("metadata").or_insert_with(|| json!({}));
    object.entry("background").or_insert(json!(false));
    for name in ["temperature", "top_p"] {
        object.entry(name).or_insert_with(|| request.get(name).cloned().unwrap_or_else(|| json!(1.0)));
    }
    let said = super::said_text(&object);
    let usage = replayed_usage(fresh.figures, object.get("usage").cloned(), || usage(Tokens::estimate(&said)));
    object.insert("usage".into(), usage);
    object
}

/// From `response.created` to `response.completed`.
pub(super) fn events(object: Fields, piece_bytes: usize) -> Vec<Event> {
    let mut begun = object.clone();
    for (name, value) in [("status", json!("in_progress")), ("output", json!([])), ("usage", Value::Null)] {
        begun.insert(name.into(), value);
    }
    begun.remove("completed_at");
    let mut stream = Stream::default();
    stream.say(json!({"type": "response.created", "response": begun}));
    stream.say(json!({"type": "response.in_progress", "response": begun}));
    for (index, item) in items(&object, "output").iter().enumerate() {
        stream.item(index, item, piece_bytes);
    }
    stream.say(json!({"type": "response.completed", "response": object}));
    stream.events
}

/// Events with their numbers.
#[derive(Default)]
struct Stream {
    events: Vec<Event>,
}

impl Stream {
    fn say(&mut self, mut event: Value) {
        event["sequence_number"] = json!(self.events.len());
        self.events.push(Event::typed(&event));
    }

    fn item(&mut self, index: usize, item: &Value, piece_bytes: usize) {
        // As with its parts.
        if !item.is_object() {
            return;
        }
        let mut added = item.clone();
        let id = item.get("id").cloned().unwrap_or_default();
        let lists: &[&str] = if is(item, "reasoning") { &["summary", "content"] } else { &["content"] };
        for list in lists {
            if item.get(list).is_some_and(Value::is_array) {
                added[*list] = json!([]);
            }
        }
        if item.get("status").is_some_and(Value::is_string) {
            added["status"] = json!("in_progress");
        }
        self.say(json!({"type": "response.output_item.added", "output_index": index, "item": added}));
        for (number, part) in item.get("summary").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let place = json!({"item_id": id, "output_index": index, "summary_index": number});
            let kinds = ["reasoning_summary_part.added", "reasoning_summary_text", "reasoning_summary_part.done"];
            self.part(&place, kinds, part, piece_bytes);
        }
        for (number, part) in contents(item).iter().enumerate() {
            let place = json!({"item_id": id, "output_index": index, "content_index": number});
            let said = if is(item, "reasoning") { "reasoning_text" } else { "output_text" };
            self.part(&place, ["content_part.added", said, "content_part.done"], part, piece_bytes);
        }
        self.say(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
    }

    /// A part with its text: begun, said piece by piece, done.
    fn part(&mut self, place: &Value, [added, said, done]: [&str; 3], part: &Value, piece_bytes: usize) {
        // A provider may write parts that are none.
        if !part.is_object() {
            return;
        }
        let at = |kind: &str, more: Value| {
            let mut event = place.clone();
            event["type"] = json!(format!("response.{kind}"));
            more.as_object().into_iter().flatten().for_each(|(name, value)| event[name] = value.clone());
            event
        };
        let quoted = part.get("annotations").and_then(Value::as_array).cloned().unwrap_or_default();
        let odds = |event: &mut Value| {
            if said == "output_text" {
                event["logprobs"] = json!([]);
            }
        };
        let mut begun = part.clone();
        begun["text"] = json!("");
        if !quoted.is_empty() {
            begun["annotations"] = json!([]);
        }
        self.say(at(added, json!({"part": begun})));
        let text = part.as_object().and_then(|part| text(part, "text")).unwrap_or_default();
        for piece in pieces(text, piece_bytes).into_iter().filter(|piece| !piece.is_empty()) {
            let mut event = at(&format!("{said}.delta"), json!({"delta": piece}));
            odds(&mut event);
            self.say(event);
            if let Some(event) = self.events.last_mut() {
                event.is_piece = true;
            }
        }
        for (number, quoted) in quoted.iter().enumerate() {
            let more = json!({"annotation": quoted, "annotation_index": number});
            self.say(at(&format!("{said}.annotation.added"), more));
        }
        let mut event = at(&format!("{said}.done"), json!({"text": text}));
        odds(&mut event);
        self.say(event);
        self.say(at(done, json!({"part": part})));
    }
}

/// The figures as a response gives them.
fn usage(tokens: Tokens) -> Value {
    let Tokens { input, cached, output, reasoning } = tokens;
    json!({
        "input_tokens": input, "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": output, "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": input.saturating_add(output),
    })
}
