//! A streamed chat completion, chunk by chunk.

use serde_json::{Map, Value};

use super::tools;
use crate::wire::request::Fields;
use crate::wire::sse::{Assembly, Step, size};

/// The chunks so far.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    head: Fields,
    /// What the choice says beside its message.
    choice: Fields,
    message: Fields,
    usage: Option<Value>,
    kept_bytes: usize,
}

impl Assembly for Chunks {
    fn event(&mut self, chunk: Fields) -> Step {
        let mut step = Step::GoesOn;
        for (name, value) in chunk {
            match name.as_str() {
                "choices" => step = self.choices(value),
                "usage" if value.is_null() => {}
                "usage" => self.usage = Some(value),
                // Padding against traffic analysis; different in every chunk.
                "obfuscation" => {}
                _ => drop(self.head.insert(name, value)),
            }
        }
        step
    }

    fn end_mark(&mut self) -> Step {
        Step::Done
    }

    fn bytes(&self) -> usize {
        self.kept_bytes
    }

    fn finish(self: Box<Self>) -> Fields {
        let Self { head: mut body, mut choice, mut message, usage, kept_bytes: _ } = *self;
        tools::without_places(&mut message);
        choice.insert("index".into(), 0.into());
        choice.insert("message".into(), Value::Object(message));
        choice.entry("finish_reason").or_insert(Value::Null);
        body.insert("object".into(), "chat.completion".into());
        body.insert("choices".into(), Value::Array(vec![Value::Object(choice)]));
        if let Some(usage) = usage {
            body.insert("usage".into(), usage);
        }
        body
    }
}

impl Chunks {
    fn choices(&mut self, choices: Value) -> Step {
        let Value::Array(choices) = choices else { return Step::Broken };
        let mut step = Step::GoesOn;
        for choice in choices {
            let Value::Object(mut choice) = choice else { return Step::Broken };
            // A second choice cannot be replayed as a whole.
            if choice.remove("index").is_some_and(|index| index.as_u64() != Some(0)) {
                step = Step::Broken;
            }
            if let Some(Value::Object(delta)) = choice.remove("delta") {
                self.kept_bytes += delta.values().map(size).sum::<usize>();
                merge(&mut self.message, delta);
            }
            said_last(&mut self.choice, choice);
        }
        step
    }
}

/// What is said last counts; nothing is no word.
pub(in crate::wire) fn said_last(fields: &mut Fields, more: Fields) {
    for (name, value) in more {
        if value.is_null() {
            fields.entry(name).or_insert(value);
        } else {
            fields.insert(name, value);
        }
    }
}

/// Text is appended, lists are extended, anything else is replaced.
fn merge(message: &mut Fields, delta: Map<String, Value>) {
    for (name, value) in delta {
        match (message.get_mut(&name), value) {
            (Some(_), Value::Null) => {}
            (Some(Value::String(text)), Value::String(more)) if name != "role" => text.push_str(&more),
            (Some(Value::Array(calls)), Value::Array(more)) if name == "tool_calls" => tools::grow(calls, more),
            (Some(Value::Array(items)), Value::Array(more)) => items.extend(more),
            (_, value) => drop(message.insert(name, value)),
        }
    }
}
