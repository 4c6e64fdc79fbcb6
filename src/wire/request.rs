//! A provider request that was read, whichever API it is for.
//!
//! A [`Protocol`] knows one API: what its requests ask, how its answers are recorded, and how they are replayed. What all
//! of them have in common is here; the layer, the recorder and the cache API speak to [`ProviderRequest`] only.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::answer::{Event, Fresh, Outline, Recorded, Replay, Said, stored_object};
use super::chat::Chat;
use super::completions::Completions;
use super::embeddings::Embeddings;
use super::messages::Messages;
use super::responses::Responses;
use super::sse::{Assembly, StreamRecorder};
use crate::decision::{
    Answer, AnswerKind, Attributes, CHAT_PATH, CacheName, Origin, Prompt, Reason, Scope, Surface, Tenant, Turn, Vars,
};

/// One API of a provider.
pub(crate) trait Protocol: fmt::Debug + Sync {
    /// Where its requests go.
    fn path(&self) -> &'static str;

    /// Where its answers say what they say, for messages.
    fn place(&self) -> &'static str;

    /// In what form its answers are kept.
    fn kind(&self) -> AnswerKind;

    /// What a request asks.
    ///
    /// # Errors
    /// The reason why its answer cannot be cached.
    fn asked(&self, body: &Fields) -> Result<Question, Reason>;

    /// What a request with tools in it, or calls of them, asks: all of it depends on all of its messages.
    ///
    /// # Errors
    /// The reason why its answer cannot be cached.
    fn asked_with_tools(&self, _body: &Fields) -> Result<Question, Reason> {
        Err(Reason::ToolsInUse)
    }

    /// The turns before the last user text; `None` where they cannot be read.
    fn turns(&self, body: &Fields) -> Option<Vec<Turn>>;

    /// Whether the answer must be JSON.
    fn wants_json(&self, body: &Fields) -> bool;

    /// What is against keeping an object: nothing, if it is an answer of this API.
    fn outline(&self, object: &Fields) -> Outline;

    /// Puts a stream's events together.
    fn assembly(&self) -> Box<dyn Assembly>;

    /// What an object says, in no API's format.
    fn said(&self, object: &Fields) -> Said;

    /// An object that says so.
    fn object(&self, said: &Said, model: &str) -> Fields;

    /// The object for a client: fresh where it must be, with usage that says that nothing was spent.
    fn replay(&self, object: Fields, request: &Fields, fresh: &Fresh) -> Fields;

    /// The replayed object as a stream's events. Texts come in pieces of about `piece_bytes`.
    fn events(&self, object: Fields, request: &Fields, piece_bytes: usize) -> Vec<Event>;

    /// Whether answers are kept and replayed to the byte, and never streamed.
    fn is_verbatim(&self) -> bool {
        false
    }
}

/// The fields of a JSON object.
pub(crate) type Fields = Map<String, Value>;

/// What a request asks, and what it depends on.
pub(crate) struct Question {
    pub(crate) surface: Surface,
    pub(crate) turns: Vec<Turn>,
    /// The last user text; empty where only an equal request may be answered alike.
    pub(crate) text: String,
    pub(crate) parameters: BTreeMap<String, Value>,
}

/// A provider request as the client sent it.
#[derive(Debug, Clone)]
pub struct ProviderRequest {
    protocol: &'static dyn Protocol,
    body: Fields,
}

/// What a request's prompt depends on beside its body.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub tenant: Tenant,
    pub cache: CacheName,
    /// Name of the upstream that would answer.
    pub upstream: String,
    /// The request's [`ANSWER_HEADERS`].
    pub headers: Attributes,
    pub attributes: Attributes,
    pub vars: Vars,
    /// Above this temperature a request is not cached.
    pub temperature_max: Option<f64>,
    /// Whether requests with tools in them are cached, by their exact key.
    pub tool_calls: bool,
}

/// Why there is no request to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotRead {
    #[error("must be one of {}", PATHS.join(", "))]
    Path,
    /// The body is of this type.
    #[error("must be an object, got {0}")]
    Body(&'static str),
}

impl ProviderRequest {
    /// # Errors
    /// Answers of that path are not cached, or the body is not an object.
    pub fn new(path: &str, body: Value) -> Result<Self, NotRead> {
        let protocol = protocol(path).ok_or(NotRead::Path)?;
        match body {
            Value::Object(body) => Ok(Self { protocol, body }),
            Value::Array(_) => Err(NotRead::Body("an array")),
            Value::String(_) => Err(NotRead::Body("a string")),
            Value::Number(_) => Err(NotRead::Body("a number")),
            Value::Bool(_) => Err(NotRead::Body("a boolean")),
            Value::Null => Err(NotRead::Body("null")),
        }
    }

    pub fn path(&self) -> &'static str {
        self.protocol.path()
    }

    pub(crate) fn fields(&self) -> &Fields {
        &self.body
    }

    pub fn model(&self) -> &str {
        model(&self.body)
    }

    pub fn wants_stream(&self) -> bool {
        self.body.get("stream") == Some(&Value::Bool(true)) && !self.protocol.is_verbatim()
    }

    /// The value of a field that nearhit reads and the provider must not see.
    pub fn own_field(&self, name: &str) -> Option<&Value> {
        debug_assert!(OWN_FIELDS.contains(&name));
        self.body.get(name)
    }

    /// The request without the fields that nearhit itself reads, to be kept with the entry.
    pub fn to_origin(&self, headers: Attributes) -> Origin {
        let mut body = self.body.clone();
        OWN_FIELDS.iter().for_each(|field| drop(body.remove(*field)));
        Origin::Request { path: self.path().to_owned(), body: Value::Object(body).to_string(), headers }
    }

    /// What the request asks.
    ///
    /// # Errors
    /// The reason why its answer cannot be cached.
    pub fn prompt(&self, surroundings: Surroundings) -> Result<Prompt, Reason> {
        let question = match self.protocol.asked(&self.body) {
            Err(Reason::ToolsInUse) if surroundings.tool_calls => self.protocol.asked_with_tools(&self.body),
            asked => asked,
        };
        let Question { surface, turns, text, parameters } = question?;
        let odd_stream = field(&self.body, "stream").is_some_and(|stream| !stream.is_boolean());
        let has_model = self.body.get("model").is_some_and(Value::is_string);
        if odd_stream || !has_model || self.body.values().any(has_lossy_number) {
            return Err(Reason::NotCacheable);
        }
        match (field(&self.body, "temperature").map(Value::as_f64), surroundings.temperature_max) {
            (Some(None), _) => return Err(Reason::NotCacheable),
            (Some(Some(temperature)), Some(most)) if temperature > most => return Err(Reason::Sampling),
            _ => {}
        }
        let Surroundings { tenant, cache, upstream, headers, attributes, vars, temperature_max: _, tool_calls: _ } =
            surroundings;
        let model = self.model().to_owned();
        let scope = Scope { tenant, cache, surface, upstream, model, turns, parameters, headers, attributes };
        Ok(Prompt::new(scope, &text, vars))
    }

    /// Takes an answer's stream.
    pub(crate) fn recorder(&self) -> StreamRecorder {
        StreamRecorder::new(self.protocol)
    }

    /// An answer that came in one piece; `None` if it is no object.
    pub(crate) fn recorded(&self, bytes: &[u8]) -> Option<Recorded> {
        let object = serde_json::from_slice(bytes).ok()?;
        let verbatim =
            if self.protocol.is_verbatim() { Some(std::str::from_utf8(bytes).ok()?.to_owned()) } else { None };
        Some(Recorded { protocol: self.protocol, object, verbatim, whole: true })
    }

    /// Whether the answer must be JSON.
    pub(crate) fn wants_json(&self) -> bool {
        self.protocol.wants_json(&self.body)
    }

    /// Whether a bare text is an answer to such a request.
    pub fn takes_text(&self) -> bool {
        !self.protocol.is_verbatim()
    }

    /// The stored answer for this request's client. Texts of a stream come in pieces of about `piece_bytes`.
    pub(crate) fn replay(&self, answer: &Answer, fresh: &Fresh, piece_bytes: usize) -> Replay {
        if self.protocol.is_verbatim() {
            return Replay::Json(answer.body.clone());
        }
        let stored = stored_object(answer);
        let object = match stored {
            Some(object) if answer.kind == self.protocol.kind() => object,
            stored => self.protocol.object(&said(answer.kind, stored.as_ref(), &answer.body), self.model()),
        };
        let object = self.protocol.replay(object, &self.body, fresh);
        if self.wants_stream() {
            Replay::Events(self.protocol.events(object, &self.body, piece_bytes))
        } else {
            Replay::Json(Value::Object(object).to_string())
        }
    }
}

/// An answer that somebody brings, as a provider's object: that of a chat completion, if it is no request's.
///
/// # Errors
/// What is against it.
pub fn given(request: Option<&ProviderRequest>, object: Map<String, Value>) -> Result<Answer, String> {
    let protocol = request.map_or(&Chat as &dyn Protocol, |request| request.protocol);
    let outline = protocol.outline(&object);
    if outline.choices == 0 || outline.text.is_empty() {
        return Err(format!("has nothing at {}, where an answer to {} says it", protocol.place(), protocol.path()));
    }
    Ok(Recorded { protocol, object, verbatim: None, whole: true }.into_answer(None))
}

/// Whether answers of a path are cached.
pub fn is_cacheable(path: &str) -> bool {
    protocol(path).is_some()
}

/// Whether a path is of Anthropic's API, whose errors have a shape of their own.
pub fn is_anthropic(path: &str) -> bool {
    path.strip_prefix(MESSAGES_PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The turns before the last of a request that is kept with an entry; none where it cannot be read.
pub fn earlier_turns(origin: &Origin) -> Vec<Turn> {
    let Origin::Request { path, body, headers: _ } = origin else { return Vec::new() };
    let body: Option<Fields> = serde_json::from_str(body).ok();
    let turns = protocol(path).zip(body).and_then(|(protocol, body)| protocol.turns(&body));
    turns.unwrap_or_default()
}

/// What a stored answer says.
pub(crate) fn text_of(answer: &Answer) -> String {
    said(answer.kind, stored_object(answer).as_ref(), &answer.body).text
}

/// Bytes of what a stored answer says and tells of its thoughts.
pub(crate) fn spoken_bytes(answer: &Answer) -> usize {
    let said = said(answer.kind, stored_object(answer).as_ref(), &answer.body);
    said.text.len() + said.reasoning.map_or(0, |thought| thought.len())
}

fn said(kind: AnswerKind, object: Option<&Fields>, text: &str) -> Said {
    let protocol = PROTOCOLS.into_iter().find(|protocol| protocol.kind() == kind);
    match protocol.zip(object) {
        Some((protocol, object)) => protocol.said(object),
        None => Said { text: text.to_owned(), ..Said::default() },
    }
}

fn protocol(path: &str) -> Option<&'static dyn Protocol> {
    PROTOCOLS.into_iter().find(|protocol| protocol.path() == path)
}

const PROTOCOLS: [&dyn Protocol; 5] = [&Chat, &Messages, &Responses, &Completions, &Embeddings];

/// Their paths.
const PATHS: [&str; 5] = [CHAT_PATH, MESSAGES_PATH, "/v1/responses", "/v1/completions", "/v1/embeddings"];

/// The path of Anthropic's messages.
pub(crate) const MESSAGES_PATH: &str = "/v1/messages";

/// Request headers that change what a provider answers, in lower case.
pub const ANSWER_HEADERS: &[&str] =
    &["anthropic-beta", "anthropic-version", "openai-beta", "openai-organization", "openai-project"];

/// Headers by which other gateways choose who answers, where one of them is the upstream.
pub(crate) const GATEWAY_HEADERS: &[&str] = &[
    "helicone-model-override",
    "helicone-target-url",
    "x-portkey-config",
    "x-portkey-custom-host",
    "x-portkey-provider",
    "x-portkey-virtual-key",
];

/// Fields for nearhit; the provider never sees them.
pub const OWN_FIELDS: &[&str] = &["cache", "nearhit"];

/// The fields that an answer depends on: all but nearhit's own and those that are named.
pub(crate) fn parameters(body: &Fields, elsewhere: &[&str]) -> BTreeMap<String, Value> {
    let outside = |name: &str| OWN_FIELDS.contains(&name) || elsewhere.contains(&name);
    let inside = body.iter().filter(|(name, _)| !outside(name));
    inside.map(|(name, value)| (name.clone(), value.clone())).collect()
}

pub(crate) fn model(fields: &Fields) -> &str {
    text(fields, "model").unwrap_or_default()
}

/// A field's text, if it is one.
pub(crate) fn text<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str)
}

/// A field that says something.
pub(crate) fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

/// Whether a field is there and no empty list.
pub(crate) fn filled(fields: &Fields, name: &str) -> bool {
    field(fields, name).is_some_and(|value| value.as_array().is_none_or(|items| !items.is_empty()))
}

pub(crate) fn is_true(fields: &Fields, name: &str) -> bool {
    fields.get(name) == Some(&Value::Bool(true))
}

/// The items of a list field; none if it is no list.
pub(crate) fn items<'a>(fields: &'a Fields, name: &str) -> &'a [Value] {
    fields.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether a number in it may have lost digits on its way into a double: two different ones would then be equal here,
/// and another to the provider. Smaller numbers with a fraction are doubles for everybody.
pub(crate) fn has_lossy_number(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64() && number.as_f64().is_none_or(|n| n.abs() >= EXACT_BELOW),
        Value::Array(items) => items.iter().any(has_lossy_number),
        Value::Object(fields) => fields.values().any(has_lossy_number),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// 2^53: the doubles below it hold every whole number.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests;
