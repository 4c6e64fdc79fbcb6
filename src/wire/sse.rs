//! Server-sent events of a chat completion: recording a stream into the object it amounts to, and writing one.

use serde_json::{Map, Value};

use super::chat::Completion;

/// Takes a stream's bytes in pieces of any size, and puts the events together.
#[derive(Debug, Default)]
pub struct StreamRecorder {
    line: Vec<u8>,
    data: String,
    head: Map<String, Value>,
    message: Map<String, Value>,
    finish: Option<Value>,
    usage: Option<Value>,
    /// Bytes of what was put together so far.
    kept_bytes: usize,
    broken: bool,
    done: bool,
}

impl StreamRecorder {
    pub fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.end_line(line.strip_suffix(b"\r").unwrap_or(&line));
            } else {
                self.line.push(*byte);
            }
        }
    }

    /// Bytes that the recorder holds, about.
    pub fn bytes(&self) -> usize {
        self.kept_bytes + self.line.len() + self.data.len()
    }

    /// Whether the stream's own end mark was seen.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// What the stream amounted to, and whether it was whole: it ended with `[DONE]`, and every event was understood.
    pub fn finish(self) -> (Completion, bool) {
        let mut body = self.head;
        let mut choice = Map::new();
        choice.insert("index".into(), 0.into());
        choice.insert("message".into(), Value::Object(self.message));
        choice.insert("finish_reason".into(), self.finish.unwrap_or(Value::Null));
        body.insert("object".into(), "chat.completion".into());
        body.insert("choices".into(), Value::Array(vec![Value::Object(choice)]));
        if let Some(usage) = self.usage {
            body.insert("usage".into(), usage);
        }
        (Completion::unchecked(body), self.done && !self.broken)
    }

    fn end_line(&mut self, line: &[u8]) {
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            if !data.is_empty() {
                self.event(&data);
            }
            return;
        }
        if let Some(value) = line.strip_prefix(b"data:") {
            match std::str::from_utf8(value.strip_prefix(b" ").unwrap_or(value)) {
                Ok(text) if self.data.is_empty() => self.data.push_str(text),
                Ok(text) => {
                    self.data.push('\n');
                    self.data.push_str(text);
                }
                Err(_) => self.broken = true,
            }
        }
    }

    fn event(&mut self, data: &str) {
        if self.done {
            self.broken = true;
        } else if data == "[DONE]" {
            self.done = true;
        } else {
            match serde_json::from_str(data) {
                Ok(Value::Object(chunk)) => self.chunk(chunk),
                _ => self.broken = true,
            }
        }
    }

    fn chunk(&mut self, chunk: Map<String, Value>) {
        for (name, value) in chunk {
            match name.as_str() {
                "choices" => self.choices(value),
                "usage" if value.is_null() => {}
                "usage" => self.usage = Some(value),
                // Padding against traffic analysis; different in every chunk.
                "obfuscation" => {}
                _ => drop(self.head.insert(name, value)),
            }
        }
    }

    fn choices(&mut self, choices: Value) {
        let Value::Array(choices) = choices else {
            self.broken = true;
            return;
        };
        for choice in choices {
            let Value::Object(mut choice) = choice else {
                self.broken = true;
                continue;
            };
            // A second choice cannot be replayed as a whole, so the stream counts as broken.
            self.broken |= choice.get("index").is_some_and(|index| index.as_u64() != Some(0));
            if let Some(Value::Object(delta)) = choice.remove("delta") {
                self.kept_bytes += delta.values().map(size).sum::<usize>();
                merge(&mut self.message, delta);
            }
            if let Some(finish) = choice.remove("finish_reason").filter(|finish| !finish.is_null()) {
                self.finish = Some(finish);
            }
        }
    }
}

/// Bytes of a value, about.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + size(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => size_of::<Value>(),
    }
}

/// Text is appended, lists are extended, anything else is replaced.
fn merge(message: &mut Map<String, Value>, delta: Map<String, Value>) {
    for (name, value) in delta {
        match (message.get_mut(&name), value) {
            (Some(_), Value::Null) => {}
            (Some(Value::String(text)), Value::String(more)) if name != "role" => text.push_str(&more),
            (Some(Value::Array(items)), Value::Array(more)) => items.extend(more),
            (_, value) => drop(message.insert(name, value)),
        }
    }
}

/// The events as the bytes of a stream.
pub fn write_events(events: &[String]) -> String {
    events.iter().map(|data| format!("data: {data}\n\n")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::wire::chat::ChatRequest;

    fn record(stream: &str, cut: usize) -> (Completion, bool) {
        let mut recorder = StreamRecorder::default();
        stream.as_bytes().chunks(cut.max(1)).for_each(|piece| recorder.feed(piece));
        recorder.finish()
    }

    #[test]
    fn a_stream_is_whole_only_with_its_end_mark() {
        let chunk = r#"{"id":"x","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}]}"#;
        let last = r#"{"id":"x","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
        let check = |stream: &str, whole: bool| assert_eq!(record(stream, 7).1, whole, "{stream}");
        check(&format!("data: {chunk}\n\ndata: {last}\n\ndata: [DONE]\n\n"), true);
        check(&format!(": ping\r\n\r\ndata: {chunk}\r\n\r\ndata:{last}\r\n\r\ndata: [DONE]\r\n\r\n"), true);
        check(&format!("data: {chunk}\n\ndata: {last}\n\n"), false);
        check(&format!("data: {chunk}\n\ndata: {{\n\ndata: [DONE]\n\n"), false);
        check(&format!("data: {chunk}\n\ndata: [DONE]\n\ndata: {last}\n\n"), false);
        check(&format!("data: {}\n\ndata: [DONE]\n\n", chunk.replace("\"index\":0", "\"index\":1")), false);
    }

    proptest! {
        #[test]
        fn replaying_and_recording_gives_the_completion_back(text in "\\PC{1,40}", cut in 1usize..40, usage in any::<bool>()) {
            let request = ChatRequest::new(json!({"model": "m"})).expect("an object");
            let mut body = json!({"id": "a", "object": "chat.completion", "model": "m", "system_fingerprint": "fp",
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text, "reasoning_content": "why"}}]});
            if usage {
                body["usage"] = json!({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7});
            }
            let stored = Completion::new(body).expect("a completion");
            let (recorded, whole) = record(&write_events(&stored.replay_events("b", 5, usage)), cut);
            prop_assert!(whole);
            prop_assert_eq!(recorded.text(), Some(text.as_str()));
            prop_assert_eq!(recorded.replay("c", 6), stored.replay("c", 6));
            let recording = recorded.recording(&request, 200, whole);
            prop_assert_eq!(recording.choices, 1);
        }

        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut recorder = StreamRecorder::default();
            recorder.feed(&bytes);
            let (_, whole) = recorder.finish();
            prop_assert!(!whole || bytes.windows(6).any(|w| w == b"[DONE]"));
        }
    }
}
