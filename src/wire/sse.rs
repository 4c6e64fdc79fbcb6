//! Server-sent events: a stream's bytes in pieces of any size, put together into the object that it amounts to.

use std::fmt;

use serde_json::Value;

use super::answer::Recorded;
use super::request::{Fields, Protocol};

/// Puts the events of one API's streams together.
pub(crate) trait Assembly: fmt::Debug + Send {
    /// Takes the next event.
    fn event(&mut self, event: Fields) -> Step;

    /// Takes `[DONE]`.
    fn end_mark(&mut self) -> Step {
        Step::Broken
    }

    /// Bytes of what was put together so far, about.
    fn bytes(&self) -> usize;

    /// What the stream amounted to.
    fn finish(self: Box<Self>) -> Fields;
}

/// What an event made of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    GoesOn,
    /// The stream came to its end, and is whole if nothing broke it.
    Done,
    /// Not an event that is understood: the stream goes on, and is not kept.
    Broken,
}

/// Takes a stream's bytes in pieces of any size, and puts the events together.
#[derive(Debug)]
pub(crate) struct StreamRecorder {
    protocol: &'static dyn Protocol,
    assembly: Box<dyn Assembly>,
    line: Vec<u8>,
    data: String,
    broken: bool,
    done: bool,
}

impl StreamRecorder {
    pub(crate) fn new(protocol: &'static dyn Protocol) -> Self {
        let assembly = protocol.assembly();
        Self { protocol, assembly, line: Vec::new(), data: String::new(), broken: false, done: false }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
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
    pub(crate) fn bytes(&self) -> usize {
        self.assembly.bytes() + self.line.len() + self.data.len()
    }

    /// Whether the stream's own end was seen.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// What the stream amounted to. Whole if it ended as it must, and every event was understood.
    pub(crate) fn finish(self) -> Recorded {
        let Self { protocol, assembly, done, broken, .. } = self;
        Recorded { protocol, object: assembly.finish(), verbatim: None, whole: done && !broken }
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
        let step = match data {
            _ if self.done => Step::Broken,
            "[DONE]" => self.assembly.end_mark(),
            _ => match serde_json::from_str(data) {
                Ok(event) => self.assembly.event(event),
                Err(_) => Step::Broken,
            },
        };
        match step {
            Step::GoesOn => {}
            Step::Done => self.done = true,
            Step::Broken => self.broken = true,
        }
    }
}

/// Bytes of a value, about.
pub(crate) fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + size(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => size_of::<Value>(),
    }
}
