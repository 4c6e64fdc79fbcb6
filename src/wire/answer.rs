//! Answers between the APIs: as they were recorded, what they say, and how they are sent again.
//!
//! What is kept is the provider's own object, so that a client of the same API gets all of it back. [`Said`] is what an
//! answer says in no API's format: what any API's clients can be told.

use serde_json::{Value, json};

use super::request::{Fields, Protocol, ProviderRequest};
use crate::decision::{Admission, Answer, AnswerKind, Finish, Policy, Recording, Scope, TokenUsage};

/// An answer as it was recorded.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(super) protocol: &'static dyn Protocol,
    pub(super) object: Fields,
    /// Its bytes, where they are kept as they are.
    pub(super) verbatim: Option<String>,
    /// It ended as its protocol says, and every event was understood.
    pub(super) whole: bool,
}

/// What a recorded object is like, as far as it decides whether it is kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outline {
    pub(crate) finish: Finish,
    pub(crate) text: String,
    pub(crate) has_refusal: bool,
    pub(crate) has_tool_calls: bool,
    pub(crate) choices: usize,
}

/// How long a recorded stream took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Milliseconds until the first bytes.
    pub first_ms: u64,
    /// Milliseconds until the last.
    pub total_ms: u64,
}

impl Recorded {
    /// Whether this answer to `request`, which was asked upstream as `scope` says, may be kept.
    pub(crate) fn admission(&self, request: &ProviderRequest, scope: &Scope, status: u16) -> Admission {
        let Outline { finish, text, has_refusal, has_tool_calls, choices } = self.protocol.outline(&self.object);
        let model_served = self.protocol.said(&self.object).model;
        Policy::admit(&Recording {
            status,
            whole: self.whole,
            finish,
            text: &text,
            has_refusal,
            has_error: self.object.get("error").is_some_and(|error| !error.is_null()),
            has_tool_calls,
            may_call_tools: scope.surface.is_with_tools(),
            choices,
            model_asked: &scope.model,
            model_served: model_served.as_deref(),
            json_asked: request.wants_json(),
        })
    }

    /// To be stored. `timing` is a stream's.
    pub(crate) fn into_answer(self, timing: Option<Timing>) -> Answer {
        let Self { protocol, mut object, verbatim, whole: _ } = self;
        let usage = protocol.said(&object).usage.map(|usage| TokenUsage { input: usage.input, output: usage.output });
        if let Some(Timing { first_ms, total_ms }) = timing {
            object.insert(OWN_FIELD.into(), json!({"first_ms": first_ms, "total_ms": total_ms}));
        }
        let body = verbatim.unwrap_or_else(|| Value::Object(object).to_string());
        Answer { kind: protocol.kind(), body, usage }
    }
}

/// The provider's object of a stored answer; `None` for a bare text.
pub(crate) fn stored_object(answer: &Answer) -> Option<Fields> {
    if answer.kind == AnswerKind::Text {
        return None;
    }
    let mut object: Fields = serde_json::from_str(&answer.body).ok()?;
    object.remove(OWN_FIELD);
    Some(object)
}

/// How long the stream took that a stored answer was recorded from.
pub(crate) fn stored_timing(answer: &Answer) -> Option<Timing> {
    if answer.kind == AnswerKind::Text {
        return None;
    }
    let object: Fields = serde_json::from_str(&answer.body).ok()?;
    let ms = |name: &str| object.get(OWN_FIELD)?.get(name)?.as_u64();
    Some(Timing { first_ms: ms("first_ms")?, total_ms: ms("total_ms")? })
}

/// What nearhit adds to a stored object; clients do not see it.
const OWN_FIELD: &str = "nearhit";

/// What an answer says, in no API's format.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Said {
    pub(crate) text: String,
    /// What the model thought before, where the provider tells.
    pub(crate) reasoning: Option<String>,
    /// Quoted places, as OpenAI's responses write them.
    pub(crate) annotations: Vec<Value>,
    pub(crate) model: Option<String>,
    pub(crate) usage: Option<Tokens>,
    pub(crate) service_tier: Option<Value>,
}

/// What an answer cost, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) input: u64,
    /// Of the input, read from the provider's prompt cache.
    pub(crate) cached: u64,
    pub(crate) output: u64,
    /// Of the output, thought and not said.
    pub(crate) reasoning: u64,
}

impl Tokens {
    /// An estimate for an answer whose provider counted nothing.
    pub(crate) fn estimate(text: &str) -> Self {
        Self { output: text.len().div_ceil(BYTES_PER_TOKEN) as u64, ..Self::default() }
    }
}

/// What a hit says that it cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Figures {
    /// What the stored answer had cost, for who would know what a hit saves.
    #[default]
    Stored,
    /// Nothing, for who adds up what was spent.
    Zero,
}

/// The stored figures, and beside them that the provider counted nothing this time. Without stored figures, those of
/// `estimate`, marked as such; a nearhit behind this one may have marked them before.
pub(crate) fn replayed_usage(figures: Figures, stored: Option<Value>, estimate: impl FnOnce() -> Value) -> Value {
    let is_stored = stored.as_ref().is_some_and(Value::is_object);
    let mut usage = stored.filter(|_| is_stored).unwrap_or_else(estimate);
    let was_estimated = usage.pointer("/nearhit/estimated") == Some(&Value::Bool(true));
    if figures == Figures::Zero {
        zero(&mut usage);
    }
    usage[OWN_FIELD] = json!({"cached": true, "provider_tokens": 0});
    if !is_stored || was_estimated {
        usage[OWN_FIELD]["estimated"] = json!(true);
    }
    usage
}

/// Every number in it becomes 0.
fn zero(figures: &mut Value) {
    match figures {
        Value::Number(number) => *number = 0.into(),
        Value::Object(fields) => fields.values_mut().for_each(zero),
        Value::Array(items) => items.iter_mut().for_each(zero),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// What is other in each replay. Random numbers and the time come in as values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fresh {
    /// Any number, another one each time.
    pub(crate) nonce: u128,
    /// Seconds since 1970.
    pub(crate) now_s: u64,
    pub(crate) figures: Figures,
}

/// A stored answer for a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Replay {
    Json(String),
    Events(Vec<Event>),
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    /// The bytes that are sent.
    pub(crate) bytes: String,
    /// Whether it says a piece of the answer.
    pub(crate) is_piece: bool,
}

impl Event {
    /// `data: …`, as OpenAI's older APIs write it.
    pub(crate) fn data(data: &impl ToString) -> Self {
        Self { bytes: format!("data: {}\n\n", data.to_string()), is_piece: false }
    }

    /// An event that is named by its type.
    pub(crate) fn typed(data: &Value) -> Self {
        let kind = data.get("type").and_then(Value::as_str).unwrap_or_default();
        Self { bytes: format!("event: {kind}\ndata: {data}\n\n"), is_piece: false }
    }

    pub(crate) fn piece(self) -> Self {
        Self { is_piece: true, ..self }
    }
}

/// A text in pieces of about `bytes`, at least one.
pub(crate) fn pieces(text: &str, bytes: usize) -> Vec<&str> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while rest.len() > bytes.max(1) {
        let end = (bytes.max(1)..rest.len()).find(|end| rest.is_char_boundary(*end)).unwrap_or(rest.len());
        let (piece, more) = rest.split_at(end);
        pieces.push(piece);
        rest = more;
    }
    if pieces.is_empty() || !rest.is_empty() {
        pieces.push(rest);
    }
    pieces
}

/// English text has about four bytes a token in the providers' vocabularies.
pub(crate) const BYTES_PER_TOKEN: usize = 4;
