//! A stream that is over before its provider says so: what it was asked for is complete.
//!
//! Events go on as they came, up to the one that completes the answer; then come the events that end a stream of this API.
//! Where anything comes that is not understood, or the provider ends the answer itself, everything goes on as it is.

mod asked;
mod cut;
mod end;

use serde_json::Value;

pub use self::asked::StopRule;
use self::asked::{Asked, is_stream};
use self::cut::{Cut, Cutter};
use self::end::Ending;
use super::request::{Fields, MESSAGES_PATH, field, items, text};
use super::spend::offers_tools;
use crate::decision::CHAT_PATH;

/// Watches one stream.
#[derive(Debug)]
pub(crate) struct StreamWatch {
    api: Api,
    asked: Asked,
    ending: Ending,
    /// Bytes of an event that is not whole yet.
    held: Vec<u8>,
    cutter: Cutter,
    /// Nothing is looked at any more.
    is_over: bool,
}

/// What goes on to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) bytes: Vec<u8>,
    /// The answer ends with them.
    pub(crate) is_stopped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    Chat,
    Completions,
    Messages,
}

/// What an event says of the answer.
enum Heard {
    /// Nothing that counts.
    Nothing,
    /// A piece of it.
    Piece(String),
    /// Another text begins.
    Begins,
    /// The provider ends it, or goes on in a way that is not understood.
    Over,
}

impl StreamWatch {
    /// `None` where the rule says nothing of this request. Where tools are offered, a text need not be all of the answer.
    pub(crate) fn new(path: &str, request: &Fields, wants_json: bool, rule: &StopRule) -> Option<Self> {
        let api = match path {
            CHAT_PATH => Api::Chat,
            "/v1/completions" => Api::Completions,
            MESSAGES_PATH => Api::Messages,
            _ => return None,
        };
        let is_watched = is_stream(request) && is_one(api, request) && !offers_tools(request);
        let asked = Asked::new(rule, wants_json).filter(|_| is_watched)?;
        let ending = Ending::new(request);
        Some(Self { api, asked, ending, held: Vec::new(), cutter: Cutter::default(), is_over: false })
    }

    /// Takes bytes as they come. After a stop nothing more may be fed.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Passed {
        self.held.extend_from_slice(bytes);
        let mut passed = Vec::new();
        while !self.is_over {
            let event = match self.cutter.next(&self.held) {
                Cut::Event(event) => self.held[event].to_vec(),
                Cut::More => break,
                Cut::Odd => {
                    self.is_over = true;
                    break;
                }
            };
            match self.end_in(&event) {
                None => passed.extend_from_slice(&event),
                // The provider's own end is here already: nothing is saved, and it says more.
                Some(_) if self.ends_itself() => {
                    self.is_over = true;
                    passed.extend_from_slice(&event);
                }
                Some(last) => {
                    passed.extend_from_slice(&last.unwrap_or(event));
                    passed.extend_from_slice(self.end_events().as_bytes());
                    return Passed { bytes: passed, is_stopped: true };
                }
            }
        }
        self.held.drain(..self.cutter.forget());
        if self.is_over || self.held.len() > HELD_BYTES_MAX {
            self.is_over = true;
            passed.append(&mut self.rest());
        }
        Passed { bytes: passed, is_stopped: false }
    }

    /// What was held back, once nothing more comes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.cutter = Cutter::default();
        std::mem::take(&mut self.held)
    }

    /// Whether this event completes the answer, and what to send in its place if it says more than that.
    fn end_in(&mut self, event: &[u8]) -> Option<Option<Vec<u8>>> {
        let data = data(event)?;
        let parsed: Option<Fields> = serde_json::from_str(&data).ok();
        let Some(mut object) = parsed else {
            self.is_over = true;
            return None;
        };
        match self.api.heard(&object) {
            Heard::Nothing => {}
            Heard::Over => self.is_over = true,
            Heard::Begins => self.asked.begin(),
            Heard::Piece(piece) => {
                self.ending.grow(&piece);
                let end = self.asked.end_in(&piece)?;
                self.ending.hear(self.api, &object);
                return Some((end < piece.len()).then(|| self.api.shortened(&mut object, &piece[..end])));
            }
        }
        self.ending.hear(self.api, &object);
        if self.asked.is_lost() {
            self.is_over = true;
        }
        None
    }

    /// Whether what is held has the provider's end of the answer in it.
    fn ends_itself(&self) -> bool {
        let mut ahead = self.cutter;
        while let Cut::Event(event) = ahead.next(&self.held) {
            let is_end = data(&self.held[event]).is_some_and(|data| match serde_json::from_str(&data) {
                Ok(object) => matches!(self.api.heard(&object), Heard::Over),
                Err(_) => true,
            });
            if is_end {
                return true;
            }
        }
        false
    }

    fn end_events(&self) -> String {
        self.ending.events(self.api)
    }
}

impl Api {
    fn heard(self, event: &Fields) -> Heard {
        match self {
            Self::Chat | Self::Completions => self.heard_in_chunk(event),
            Self::Messages => heard_in_message(event),
        }
    }

    fn heard_in_chunk(self, chunk: &Fields) -> Heard {
        if field(chunk, "error").is_some() {
            return Heard::Over;
        }
        let choice = match items(chunk, "choices") {
            [] => return Heard::Nothing,
            [Value::Object(choice)] => choice,
            _ => return Heard::Over,
        };
        let is_first = choice.get("index").is_none_or(|index| index.as_u64() == Some(0));
        if !is_first || field(choice, "finish_reason").is_some() {
            return Heard::Over;
        }
        let piece = match self {
            Self::Completions => text(choice, "text"),
            _ => {
                let Some(Value::Object(delta)) = choice.get("delta") else { return Heard::Nothing };
                if ["tool_calls", "function_call", "refusal", "audio"].iter().any(|name| field(delta, name).is_some()) {
                    return Heard::Over;
                }
                text(delta, "content")
            }
        };
        piece.filter(|piece| !piece.is_empty()).map_or(Heard::Nothing, |piece| Heard::Piece(piece.to_owned()))
    }

    /// The event with less text in it.
    fn shortened(self, event: &mut Fields, piece: &str) -> Vec<u8> {
        let place = match self {
            Self::Chat => "/choices/0/delta/content",
            Self::Completions => "/choices/0/text",
            Self::Messages => "/delta/text",
        };
        let mut value = Value::Object(std::mem::take(event));
        if let Some(said) = value.pointer_mut(place) {
            *said = Value::String(piece.to_owned());
        }
        match self {
            Self::Messages => format!("event: content_block_delta\ndata: {value}\n\n").into_bytes(),
            Self::Chat | Self::Completions => format!("data: {value}\n\n").into_bytes(),
        }
    }
}

fn heard_in_message(event: &Fields) -> Heard {
    let of = |name: &str| event.get(name).and_then(|inner| inner.get("type")).and_then(Value::as_str);
    match text(event, "type").unwrap_or_default() {
        "message_start" | "ping" | "content_block_stop" => Heard::Nothing,
        "content_block_start" => match of("content_block") {
            Some("text" | "thinking" | "redacted_thinking") => Heard::Begins,
            _ => Heard::Over,
        },
        "content_block_delta" => match of("delta") {
            Some("text_delta") => {
                let piece = event.get("delta").and_then(|delta| delta.get("text")).and_then(Value::as_str);
                piece.map_or(Heard::Over, |piece| Heard::Piece(piece.to_owned()))
            }
            Some("thinking_delta" | "signature_delta" | "citations_delta") => Heard::Nothing,
            _ => Heard::Over,
        },
        _ => Heard::Over,
    }
}

/// Whether one answer is asked for, and nothing but it is to be said.
fn is_one(api: Api, request: &Fields) -> bool {
    let is_single = field(request, "n").is_none_or(|n| n.as_u64() == Some(1));
    let is_plain = match api {
        Api::Chat | Api::Messages => true,
        Api::Completions => {
            let is_echoed = field(request, "echo").is_some_and(|echo| *echo != Value::Bool(false));
            !is_echoed && field(request, "prompt").is_some_and(is_one_prompt)
        }
    };
    is_single && is_plain
}

/// Whether a prompt is one: a text, or tokens; by itself, or alone in a list.
fn is_one_prompt(prompt: &Value) -> bool {
    let is_tokens = |value: &Value| value.as_array().is_some_and(|tokens| tokens.iter().all(Value::is_number));
    match prompt {
        Value::String(_) => true,
        Value::Array(prompts) => match prompts.as_slice() {
            [] => false,
            [one] if !one.is_number() => one.is_string() || is_tokens(one),
            _ => is_tokens(prompt),
        },
        _ => false,
    }
}

/// The data of an event; `None` where it has none.
fn data(event: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(event);
    let lines = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let lines: Vec<&str> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// No event of an answer is as long.
const HELD_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests;
