//! A streamed response, event by event. The last event holds all of it; the ones before must agree.

use serde_json::Value;

use crate::wire::request::{Fields, text};
use crate::wire::sse::{Assembly, Step, size};

/// What was said so far, and the response once it is there.
#[derive(Debug, Default)]
pub(super) struct Progress {
    said: String,
    response: Fields,
    /// The number of the last event.
    number: Option<u64>,
    kept_bytes: usize,
}

impl Assembly for Progress {
    fn event(&mut self, mut event: Fields) -> Step {
        let number = event.get("sequence_number").and_then(Value::as_u64);
        if number.is_some_and(|number| self.number.is_some_and(|last| number <= last)) {
            return Step::Broken;
        }
        self.number = number.or(self.number);
        let kind = text(&event, "type").unwrap_or_default().to_owned();
        match kind.as_str() {
            "response.output_text.delta" => match event.get("delta").and_then(Value::as_str) {
                Some(more) => self.said.push_str(more),
                None => return Step::Broken,
            },
            "response.completed" | "response.incomplete" | "response.failed" => return self.end(&mut event),
            "error" => {
                self.response.insert("error".into(), Value::Object(event));
                return Step::Broken;
            }
            // What it announces is in the last event, too.
            _ if kind.starts_with("response.") => {}
            _ => return Step::Broken,
        }
        Step::GoesOn
    }

    fn bytes(&self) -> usize {
        self.kept_bytes + self.said.len()
    }

    fn finish(self: Box<Self>) -> Fields {
        self.response
    }
}

impl Progress {
    fn end(&mut self, event: &mut Fields) -> Step {
        let Some(Value::Object(response)) = event.remove("response") else { return Step::Broken };
        self.kept_bytes = response.values().map(size).sum();
        self.response = response;
        // A piece was lost, or another answer came between.
        if super::said_text(&self.response) != self.said {
            self.response.insert("error".into(), "the pieces are not the whole".into());
        }
        Step::Done
    }
}
