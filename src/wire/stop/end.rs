//! The events that end a stream in the place of its provider's.

use serde_json::{Value, json};

use super::Api;
use crate::wire::answer::{BYTES_PER_TOKEN, Event};
use crate::wire::request::{Fields, field, items};
use crate::wire::spend::Bill;

/// What the end of a stream has to repeat.
#[derive(Debug)]
pub(super) struct Ending {
    /// Of a chunk: everything but what is said.
    head: Fields,
    /// The block that grows, in a message.
    block: u64,
    /// Whether the client wants to know the usage of a chat completion.
    wants_usage: bool,
    input_tokens: u64,
    said_bytes: usize,
}

impl Ending {
    pub(super) fn new(request: &Fields) -> Self {
        let options = field(request, "stream_options").and_then(|options| options.get("include_usage"));
        Self {
            head: Fields::new(),
            block: 0,
            wants_usage: options == Some(&Value::Bool(true)),
            input_tokens: Bill::read(request).input_tokens,
            said_bytes: 0,
        }
    }

    pub(super) fn hear(&mut self, api: Api, event: &Fields) {
        match api {
            Api::Messages => self.block = event.get("index").and_then(Value::as_u64).unwrap_or(self.block),
            // Some begin with a chunk that says nothing but what was filtered.
            Api::Chat | Api::Completions if self.head.is_empty() && !items(event, "choices").is_empty() => {
                let is_said = |name: &str| ["choices", "usage", "obfuscation"].contains(&name);
                self.head =
                    event.iter().filter(|(name, _)| !is_said(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
            }
            Api::Chat | Api::Completions => {}
        }
    }

    pub(super) fn grow(&mut self, piece: &str) {
        self.said_bytes += piece.len();
    }

    pub(super) fn events(&self, api: Api) -> String {
        let events = match api {
            Api::Messages => self.of_message(),
            Api::Chat => self.of_chunks(json!({"index": 0, "delta": {}, "logprobs": null, "finish_reason": "stop"})),
            Api::Completions => {
                self.of_chunks(json!({"index": 0, "text": "", "logprobs": null, "finish_reason": "stop"}))
            }
        };
        events.into_iter().map(|event| event.bytes).collect()
    }

    fn of_chunks(&self, last: Value) -> Vec<Event> {
        let chunk = |choices: Value, usage: Value| {
            let mut chunk = self.head.clone();
            chunk.insert("choices".into(), choices);
            if self.wants_usage {
                chunk.insert("usage".into(), usage);
            }
            chunk
        };
        let mut end = chunk(json!([last]), Value::Null);
        end.insert("nearhit".into(), stopped());
        let mut events = vec![Event::data(&Value::Object(end))];
        if self.wants_usage {
            let (input, output) = (self.input_tokens, self.output_tokens());
            let usage = json!({
                "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
                "nearhit": {"estimated": true},
            });
            events.push(Event::data(&Value::Object(chunk(json!([]), usage))));
        }
        events.push(Event::data(&"[DONE]"));
        events
    }

    fn of_message(&self) -> Vec<Event> {
        let usage = json!({"output_tokens": self.output_tokens(), "nearhit": {"estimated": true}});
        let delta = json!({"stop_reason": "end_turn", "stop_sequence": null});
        vec![
            Event::typed(&json!({"type": "content_block_stop", "index": self.block})),
            Event::typed(&json!({"type": "message_delta", "delta": delta, "usage": usage, "nearhit": stopped()})),
            Event::typed(&json!({"type": "message_stop"})),
        ]
    }

    /// The provider's own figures never come.
    fn output_tokens(&self) -> u64 {
        self.said_bytes.div_ceil(BYTES_PER_TOKEN) as u64
    }
}

fn stopped() -> Value {
    json!({"stopped_early": true})
}
