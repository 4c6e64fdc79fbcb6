//! A streamed message, event by event.

use serde_json::Value;

use crate::wire::request::{Fields, text};
use crate::wire::sse::{Assembly, Step, size};

/// The blocks so far.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    message: Fields,
    blocks: Vec<Fields>,
    usage: Fields,
    /// Whether the last block still grows.
    is_open: bool,
    /// Whether it was said why the message ended.
    is_ended: bool,
    kept_bytes: usize,
    /// Of the last block, if it is a tool's: its input so far, as JSON.
    input: String,
}

impl Assembly for Blocks {
    fn event(&mut self, mut event: Fields) -> Step {
        let kind = text(&event, "type").unwrap_or_default().to_owned();
        // Nothing but a ping, and the event that ends it, comes out of its order.
        let is_begun = !self.message.is_empty();
        match kind.as_str() {
            "ping" => Some(Step::GoesOn),
            "message_start" if !is_begun => self.start(&mut event),
            "content_block_start" if is_begun && !self.is_open && !self.is_ended => self.open(&mut event),
            "content_block_delta" if self.is_open => self.grow(&mut event),
            "content_block_stop" if self.is_open => self.close(&event),
            "message_delta" if is_begun && !self.is_open => self.change(event),
            "message_stop" if self.is_ended && !self.is_open => Some(Step::Done),
            "error" => {
                self.message.insert("error".into(), event.remove("error").unwrap_or_default());
                None
            }
            _ => None,
        }
        .unwrap_or(Step::Broken)
    }

    fn bytes(&self) -> usize {
        self.kept_bytes
    }

    fn finish(self: Box<Self>) -> Fields {
        let Self { mut message, blocks, usage, .. } = *self;
        message.insert("content".into(), blocks.into_iter().map(Value::Object).collect());
        if !usage.is_empty() {
            message.insert("usage".into(), Value::Object(usage));
        }
        message
    }
}

impl Blocks {
    fn start(&mut self, event: &mut Fields) -> Option<Step> {
        let Some(Value::Object(mut message)) = event.remove("message") else { return None };
        // What is said comes block by block.
        if message.remove("content").is_some_and(|content| content.as_array().is_none_or(|said| !said.is_empty())) {
            return None;
        }
        if let Some(Value::Object(usage)) = message.remove("usage") {
            self.usage = usage;
        }
        self.message = message;
        Some(Step::GoesOn)
    }

    fn open(&mut self, event: &mut Fields) -> Option<Step> {
        let Some(Value::Object(block)) = event.remove("content_block") else { return None };
        (index(event) == Some(self.blocks.len())).then_some(())?;
        self.kept_bytes += size(&Value::Object(block.clone()));
        self.blocks.push(block);
        self.is_open = true;
        Some(Step::GoesOn)
    }

    fn grow(&mut self, event: &mut Fields) -> Option<Step> {
        (index(event)? + 1 == self.blocks.len()).then_some(())?;
        let Some(Value::Object(mut delta)) = event.remove("delta") else { return None };
        let block = self.blocks.last_mut()?;
        let field = match text(&delta, "type")? {
            "text_delta" => "text",
            "thinking_delta" => "thinking",
            "signature_delta" => "signature",
            "citations_delta" => {
                let quoted = delta.remove("citation")?;
                self.kept_bytes += size(&quoted);
                match block.entry("citations").or_insert(Value::Null) {
                    Value::Array(citations) => citations.push(quoted),
                    none => *none = Value::Array(vec![quoted]),
                }
                return Some(Step::GoesOn);
            }
            "input_json_delta" => {
                let Some(Value::String(more)) = delta.remove("partial_json") else { return None };
                self.kept_bytes += more.len();
                self.input.push_str(&more);
                return Some(Step::GoesOn);
            }
            _ => return None,
        };
        let Some(Value::String(more)) = delta.remove(field) else { return None };
        self.kept_bytes += more.len();
        match block.entry(field).or_insert_with(|| Value::String(String::new())) {
            Value::String(text) => text.push_str(&more),
            _ => return None,
        }
        Some(Step::GoesOn)
    }

    fn close(&mut self, event: &Fields) -> Option<Step> {
        (index(event)? + 1 == self.blocks.len()).then_some(())?;
        self.is_open = false;
        let input = std::mem::take(&mut self.input);
        if !input.is_empty() {
            let input: Value = serde_json::from_str(&input).ok()?;
            self.blocks.last_mut()?.insert("input".into(), input);
        }
        Some(Step::GoesOn)
    }

    fn change(&mut self, event: Fields) -> Option<Step> {
        for (name, value) in event {
            match (name.as_str(), value) {
                ("type", _) => {}
                // Figures of the end count: they include those of the beginning.
                ("usage", Value::Object(usage)) => {
                    self.usage.extend(usage.into_iter().filter(|(_, value)| !value.is_null()));
                }
                ("delta", Value::Object(delta)) => {
                    self.is_ended |= delta.get("stop_reason").is_some_and(|reason| !reason.is_null());
                    self.message.extend(delta);
                }
                ("usage" | "delta", _) => return None,
                (_, value) => drop(self.message.insert(name, value)),
            }
        }
        Some(Step::GoesOn)
    }
}

fn index(event: &Fields) -> Option<usize> {
    event.get("index")?.as_u64().and_then(|index| usize::try_from(index).ok())
}
