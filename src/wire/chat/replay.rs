//! A chat completion for a client, whole or as chunks.

use serde_json::{Value, json};

use super::{REASONING, tools};
use crate::wire::answer::{Event, Fresh, Said, Tokens, pieces, replayed_usage};
use crate::wire::request::{Fields, field, text};

pub(super) fn object(said: &Said, model: &str) -> Fields {
    let mut message = json!({"role": "assistant", "content": said.text, "refusal": null, "annotations": []});
    message["annotations"] = said.annotations.iter().filter_map(nested_annotation).collect();
    if let Some(reasoning) = &said.reasoning {
        message["reasoning_content"] = json!(reasoning);
    }
    let choices = json!([{"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"}]);
    let mut object = Fields::new();
    object.insert("object".into(), json!("chat.completion"));
    object.insert("model".into(), json!(said.model.as_deref().unwrap_or(model)));
    object.insert("choices".into(), choices);
    if let Some(tokens) = said.usage {
        object.insert("usage".into(), usage(tokens));
    }
    if let Some(tier) = &said.service_tier {
        object.insert("service_tier".into(), tier.clone());
    }
    object
}

/// A fresh id and time, and usage that says that it was not spent again.
pub(super) fn fresh(mut object: Fields, fresh: &Fresh) -> Fields {
    object.insert("id".into(), json!(format!("chatcmpl-{:032x}", fresh.nonce)));
    object.insert("created".into(), json!(fresh.now_s));
    object.insert("object".into(), json!("chat.completion"));
    let said = super::content(&object).unwrap_or_default();
    let usage = replayed_usage(fresh.figures, object.get("usage").cloned(), || usage(Tokens::estimate(said)));
    object.insert("usage".into(), usage);
    object
}

/// Chunks, `[DONE]` last. In one piece, everything that is said is in the first.
pub(super) fn events(mut head: Fields, with_usage: bool, piece_bytes: usize) -> Vec<Event> {
    let usage = head.remove("usage").unwrap_or_default();
    let mut choice = super::choice(&head).cloned().unwrap_or_default();
    head.remove("choices");
    head.insert("object".into(), json!("chat.completion.chunk"));
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = head.clone();
        chunk.insert("choices".into(), choices);
        if with_usage {
            chunk.insert("usage".into(), usage);
        }
        Event::data(&Value::Object(chunk))
    };
    let message = match choice.remove("message") {
        Some(Value::Object(mut message)) => {
            tools::with_places(&mut message);
            message
        }
        _ => Fields::new(),
    };
    choice.insert("index".into(), json!(0));
    let said = |delta: Fields| {
        let mut choice = Fields::new();
        choice.insert("index".into(), json!(0));
        choice.insert("delta".into(), Value::Object(delta));
        choice.insert("finish_reason".into(), Value::Null);
        chunk(json!([choice]), Value::Null)
    };
    let mut events: Vec<Event> = deltas(message, piece_bytes).into_iter().map(|delta| said(delta).piece()).collect();
    choice.insert("delta".into(), json!({}));
    choice.entry("finish_reason").or_insert(json!("stop"));
    events.push(chunk(json!([choice]), Value::Null));
    if with_usage {
        events.push(chunk(json!([]), usage));
    }
    events.push(Event::data(&"[DONE]"));
    events
}

/// The message as deltas: first what is no text, with the first piece of it; what was thought before what is said.
fn deltas(mut message: Fields, piece_bytes: usize) -> Vec<Fields> {
    let texts = REASONING.into_iter().chain(["content"]);
    let texts: Vec<(&str, String)> =
        texts.filter_map(|name| Some((name, text(&message, name).filter(|t| !t.is_empty())?.to_owned()))).collect();
    if texts.iter().map(|(_, text)| text.len()).sum::<usize>() <= piece_bytes {
        return vec![message];
    }
    texts.iter().for_each(|(name, _)| message.insert((*name).to_owned(), json!("")).map_or((), drop));
    message.retain(|name, _| name == "content" || !texts.iter().any(|(text, _)| text == name));
    let said = texts.iter().flat_map(|(name, text)| pieces(text, piece_bytes).into_iter().map(move |p| (*name, p)));
    let said = said.map(|(name, piece)| Fields::from_iter([(name.to_owned(), json!(piece))]));
    std::iter::once(message).chain(said).collect()
}

/// The figures as a chat completion gives them.
pub(in crate::wire) fn usage(tokens: Tokens) -> Value {
    let Tokens { input, cached, output, reasoning } = tokens;
    json!({
        "prompt_tokens": input, "completion_tokens": output, "total_tokens": input.saturating_add(output),
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    })
}

/// An annotation of the responses API as a chat completion writes it.
fn nested_annotation(annotation: &Value) -> Option<Value> {
    let mut fields = annotation.as_object()?.clone();
    let kind = field(&fields, "type")?.as_str()?.to_owned();
    fields.remove("type");
    let mut nested = Fields::new();
    nested.insert(kind.clone(), Value::Object(fields));
    nested.insert("type".into(), json!(kind));
    Some(Value::Object(nested))
}
