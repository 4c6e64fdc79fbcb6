//! OpenAI's chat completions: a request to a [`Prompt`], an answer to and from the canonical form.
//!
//! The canonical answer is a `chat.completion` object. A stream is recorded into one and replayed from one, so either
//! form serves either kind of client.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::decision::{
    Answer, AnswerKind, Attributes, CacheName, Finish, Origin, Prompt, Reason, Recording, Scope, Speaker, Surface,
    Tenant, TokenUsage, Turn, Vars,
};

/// A chat completion request as the client sent it.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    body: Map<String, Value>,
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
}

/// Request headers that change what a provider answers, in lower case.
pub const ANSWER_HEADERS: &[&str] =
    &["anthropic-beta", "anthropic-version", "openai-beta", "openai-organization", "openai-project"];

impl ChatRequest {
    /// # Errors
    /// The value is not an object; the error is the value's type.
    pub fn new(body: Value) -> Result<Self, &'static str> {
        match body {
            Value::Object(body) => Ok(Self { body }),
            Value::Array(_) => Err("an array"),
            Value::String(_) => Err("a string"),
            Value::Number(_) => Err("a number"),
            Value::Bool(_) => Err("a boolean"),
            Value::Null => Err("null"),
        }
    }

    pub fn model(&self) -> &str {
        self.body.get("model").and_then(Value::as_str).unwrap_or_default()
    }

    pub fn wants_stream(&self) -> bool {
        self.body.get("stream") == Some(&Value::Bool(true))
    }

    /// Whether a streamed answer should end with its token usage.
    pub fn wants_stream_usage(&self) -> bool {
        self.body.get("stream_options").and_then(|o| o.get("include_usage")) == Some(&Value::Bool(true))
    }

    /// The fields that say how the answer is sent.
    pub fn transport(&self) -> [Option<&Value>; 2] {
        [self.body.get("stream"), self.body.get("stream_options")]
    }

    pub fn wants_json(&self) -> bool {
        let format = self.body.get("response_format").and_then(|f| f.get("type")).and_then(Value::as_str);
        matches!(format, Some("json_object" | "json_schema"))
    }

    /// The request without the fields that nearhit itself reads, to be kept with the entry.
    pub fn to_origin(&self) -> Value {
        let mut body = self.body.clone();
        OWN_FIELDS.iter().for_each(|field| drop(body.remove(*field)));
        Value::Object(body)
    }

    /// The value of a field that nearhit reads and the provider must not see.
    pub fn own_field(&self, name: &str) -> Option<&Value> {
        debug_assert!(OWN_FIELDS.contains(&name));
        self.body.get(name)
    }

    /// What the request asks.
    ///
    /// # Errors
    /// The reason why its answer cannot be cached.
    pub fn prompt(&self, surroundings: Surroundings) -> Result<Prompt, Reason> {
        self.refuse_parameters(surroundings.temperature_max)?;
        let messages = self.body.get("messages").and_then(Value::as_array).ok_or(Reason::NotCacheable)?;
        let (last, earlier) = messages.split_last().ok_or(Reason::NotCacheable)?;
        for message in messages {
            refuse_message(message)?;
        }
        let (text, rest_of_last) = split_last_text(last)?;
        let turns =
            earlier.iter().map(|message| turn(message).ok_or(Reason::NotCacheable)).collect::<Result<_, _>>()?;
        let outside =
            |name: &str| OWN_FIELDS.contains(&name) || NOT_IN_ANSWER.contains(&name) || IN_SCOPE.contains(&name);
        let parameters = self.body.iter().filter(|(name, _)| !outside(name));
        let mut parameters: BTreeMap<String, Value> =
            parameters.map(|(name, value)| (name.clone(), value.clone())).collect();
        // A name that no field of the body has: messages have a place of their own.
        if !rest_of_last.is_empty() {
            parameters.insert("messages".into(), Value::Object(rest_of_last));
        }
        let Surroundings { tenant, cache, upstream, headers, attributes, vars, temperature_max: _ } = surroundings;
        let model = self.model().to_owned();
        let surface = Surface::Chat;
        let scope = Scope { tenant, cache, surface, upstream, model, turns, parameters, headers, attributes };
        Ok(Prompt::new(scope, &text, vars))
    }

    fn refuse_parameters(&self, temperature_max: Option<f64>) -> Result<(), Reason> {
        let field = |name: &str| self.body.get(name).filter(|value| !value.is_null());
        let filled = |name: &str| field(name).is_some_and(|value| value.as_array().is_none_or(|a| !a.is_empty()));
        let is_true = |name: &str| field(name) == Some(&Value::Bool(true));
        if filled("tools") || filled("functions") || filled("web_search_options") {
            return Err(Reason::ToolsInUse);
        }
        if field("n").is_some_and(|n| n.as_u64() != Some(1)) {
            return Err(Reason::NOverOne);
        }
        if is_true("store") {
            return Err(Reason::Stateful);
        }
        if filled("audio") || field("modalities").is_some_and(|m| *m != json!(["text"])) {
            return Err(Reason::Multimodal);
        }
        let odd_stream = field("stream").is_some_and(|stream| !stream.is_boolean());
        if odd_stream || is_true("logprobs") || !self.body.get("model").is_some_and(Value::is_string) {
            return Err(Reason::NotCacheable);
        }
        match (field("temperature").map(Value::as_f64), temperature_max) {
            (Some(None), _) => Err(Reason::NotCacheable),
            (Some(Some(temperature)), Some(most)) if temperature > most => Err(Reason::Sampling),
            _ => Ok(()),
        }
    }
}

/// Fields for nearhit; the provider never sees them.
pub const OWN_FIELDS: &[&str] = &["cache", "nearhit"];

/// Fields that do not change what is answered: how it is sent, and for whom it is counted.
const NOT_IN_ANSWER: &[&str] = &[
    "stream",
    "stream_options",
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "store",
];

/// Fields that have a place of their own in the scope.
const IN_SCOPE: &[&str] = &["model", "messages"];

fn refuse_message(message: &Value) -> Result<(), Reason> {
    match message.get("role").and_then(Value::as_str) {
        Some("system" | "developer" | "user" | "assistant") => {}
        Some("tool" | "function") => return Err(Reason::ToolsInUse),
        _ => return Err(Reason::NotCacheable),
    }
    let calls = |name: &str| message.get(name).is_some_and(|calls| !calls.is_null());
    if calls("tool_calls") || calls("function_call") {
        return Err(Reason::ToolsInUse);
    }
    if calls("audio") {
        return Err(Reason::Multimodal);
    }
    match message.get("content") {
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) => parts.iter().try_for_each(refuse_part),
        _ => Err(Reason::NotCacheable),
    }
}

fn refuse_part(part: &Value) -> Result<(), Reason> {
    match part.get("type").and_then(Value::as_str) {
        Some("text") if part.get("text").is_some_and(Value::is_string) => Ok(()),
        Some("image_url" | "input_audio" | "file") => Err(Reason::Multimodal),
        _ => Err(Reason::NotCacheable),
    }
}

/// The turns before the last of a request that is kept with an entry; none where it cannot be read.
pub fn earlier_turns(origin: &Origin) -> Vec<Turn> {
    let Origin::Request { body, headers: _ } = origin else { return Vec::new() };
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let messages = body.get("messages").and_then(Value::as_array);
    let earlier = messages.and_then(|messages| messages.split_last()).map(|(_, earlier)| earlier);
    earlier.into_iter().flatten().map(turn).collect::<Option<_>>().unwrap_or_default()
}

/// A message as a turn; `None` where it is none that is understood. One text part is the same as its text.
fn turn(message: &Value) -> Option<Turn> {
    let mut rest = message.as_object()?.clone();
    let role = match rest.remove("role")?.as_str()? {
        "system" => Speaker::System,
        "developer" => Speaker::Developer,
        "user" => Speaker::User,
        "assistant" => Speaker::Assistant,
        _ => return None,
    };
    let (texts, more): (Vec<String>, Vec<Value>) = match rest.remove("content")? {
        Value::String(text) => (vec![text], Vec::new()),
        Value::Array(parts) => parts.into_iter().map(split_part).collect::<Option<Vec<_>>>()?.into_iter().unzip(),
        _ => return None,
    };
    if more.iter().any(|part| part.as_object().is_none_or(|part| !part.is_empty())) {
        rest.insert("content".into(), Value::Array(more));
    }
    Some(Turn::new(role, texts.iter().map(String::as_str), rest))
}

/// A text part's text, and what else it says.
fn split_part(part: Value) -> Option<(String, Value)> {
    let Value::Object(mut part) = part else { return None };
    let Some(Value::String(text)) = part.remove("text") else { return None };
    part.remove("type");
    Some((text, Value::Object(part)))
}

/// The last user text, and what else its message says: a text part before it, a name.
fn split_last_text(message: &Value) -> Result<(String, Map<String, Value>), Reason> {
    let mut rest =
        message.as_object().filter(|m| m.get("role") == Some(&json!("user"))).ok_or(Reason::NotCacheable)?.clone();
    let text = match rest.remove("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(mut parts)) => {
            let Some(Value::Object(mut last)) = parts.pop() else { return Err(Reason::NotCacheable) };
            let Some(Value::String(text)) = last.remove("text") else { return Err(Reason::NotCacheable) };
            last.remove("type");
            if !parts.is_empty() {
                rest.insert("content".into(), Value::Array(parts));
            }
            if !last.is_empty() {
                rest.insert("part".into(), Value::Object(last));
            }
            text
        }
        _ => return Err(Reason::NotCacheable),
    };
    rest.remove("role");
    if is_blank(&text) { Err(Reason::NotCacheable) } else { Ok((text, rest)) }
}

/// Whether the text shows nothing: white space, and characters that have no shape.
pub fn is_blank(text: &str) -> bool {
    let shapeless = |c: char| {
        matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
            || ('\u{e0000}'..='\u{e007f}').contains(&c)
    };
    text.chars().all(|c| c.is_whitespace() || c.is_control() || shapeless(c))
}

/// A `chat.completion` object.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion(Map<String, Value>);

impl Completion {
    /// # Errors
    /// The value is not an object with a text answer in its first choice; the error says what is missing.
    pub fn new(value: Value) -> Result<Self, &'static str> {
        let Value::Object(body) = value else { return Err("is not an object") };
        let completion = Self(body);
        if completion.text().is_none() {
            return Err("has no choices[0].message.content string");
        }
        Ok(completion)
    }

    /// The provider's object whatever it holds: an error, a refusal, no answer at all.
    pub(crate) fn unchecked(body: Map<String, Value>) -> Self {
        Self(body)
    }

    /// A completion that says `text`, for an answer that came without a provider's object around it.
    pub fn saying(text: &str, model: &str) -> Self {
        let message = json!({"role": "assistant", "content": text});
        let choices = json!([{"index": 0, "message": message, "finish_reason": "stop"}]);
        let fields = [("object", json!("chat.completion")), ("model", json!(model)), ("choices", choices)];
        Self(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// From a stored answer.
    pub fn of(answer: &Answer, model: &str) -> Self {
        let stored = match answer.kind {
            AnswerKind::Text => None,
            AnswerKind::ChatCompletion => serde_json::from_str(&answer.body).ok().map(Self),
        };
        stored.unwrap_or_else(|| Self::saying(&answer.body, model))
    }

    pub fn into_answer(self) -> Answer {
        let count = |name: &str| self.0.get("usage").and_then(|usage| usage.get(name)).and_then(Value::as_u64);
        let usage = match (count("prompt_tokens"), count("completion_tokens")) {
            (None, None) => None,
            (input, output) => Some(TokenUsage { input: input.unwrap_or(0), output: output.unwrap_or(0) }),
        };
        Answer { kind: AnswerKind::ChatCompletion, body: Value::Object(self.0).to_string(), usage }
    }

    pub fn text(&self) -> Option<&str> {
        self.message()?.get("content")?.as_str()
    }

    /// What decides whether this answer to `request` may be kept.
    pub fn recording<'a>(&'a self, request: &'a ChatRequest, status: u16, whole: bool) -> Recording<'a> {
        let choice = self.choice();
        let present =
            |name: &str| self.message().and_then(|m| m.get(name)).is_some_and(|v| !v.is_null() && *v != json!([]));
        let finish = choice.and_then(|choice| choice.get("finish_reason")).and_then(Value::as_str);
        Recording {
            status,
            whole,
            finish: if finish == Some("stop") { Finish::Complete } else { Finish::Other },
            text: self.text().unwrap_or_default(),
            has_refusal: present("refusal"),
            has_error: self.0.contains_key("error"),
            has_tool_calls: present("tool_calls") || present("function_call"),
            choices: self.0.get("choices").and_then(Value::as_array).map_or(0, Vec::len),
            model_asked: request.model(),
            model_served: self.0.get("model").and_then(Value::as_str),
            json_asked: request.wants_json(),
        }
    }

    /// The object for a client: a fresh id and time, and usage that says it was not spent again.
    pub fn replay(&self, id: &str, created_s: u64) -> Value {
        let mut body = self.0.clone();
        body.insert("id".into(), json!(id));
        body.insert("created".into(), json!(created_s));
        body.insert("object".into(), json!("chat.completion"));
        body.insert("usage".into(), self.replayed_usage());
        Value::Object(body)
    }

    /// The same as a stream's events, `[DONE]` last.
    pub fn replay_events(&self, id: &str, created_s: u64, with_usage: bool) -> Vec<String> {
        let mut head = self.0.clone();
        let choice = self.choice().cloned().unwrap_or(Value::Null);
        ["usage", "choices"].iter().for_each(|field| drop(head.remove(*field)));
        head.insert("id".into(), json!(id));
        head.insert("created".into(), json!(created_s));
        head.insert("object".into(), json!("chat.completion.chunk"));
        let chunk = |choices: Value, usage: Option<Value>| {
            let mut chunk = head.clone();
            chunk.insert("choices".into(), choices);
            if with_usage {
                chunk.insert("usage".into(), usage.unwrap_or(Value::Null));
            }
            Value::Object(chunk).to_string()
        };
        let delta = self.message().cloned().unwrap_or_default();
        let finish = choice.get("finish_reason").cloned().unwrap_or_else(|| json!("stop"));
        let mut events = vec![
            chunk(json!([{"index": 0, "delta": delta, "finish_reason": null}]), None),
            chunk(json!([{"index": 0, "delta": {}, "finish_reason": finish}]), None),
        ];
        if with_usage {
            events.push(chunk(json!([]), Some(self.replayed_usage())));
        }
        events.push("[DONE]".into());
        events
    }

    fn choice(&self) -> Option<&Value> {
        self.0.get("choices")?.as_array()?.first()
    }

    fn message(&self) -> Option<&Map<String, Value>> {
        self.choice()?.get("message")?.as_object()
    }

    /// The stored figures, and beside them that the provider counted nothing this time. Without stored figures, an
    /// estimate of the answer's length, marked as one.
    fn replayed_usage(&self) -> Value {
        match self.0.get("usage") {
            Some(Value::Object(stored)) => {
                let mut usage = stored.clone();
                usage.insert("nearhit".into(), json!({"cached": true, "provider_tokens": 0}));
                Value::Object(usage)
            }
            _ => {
                let output = self.text().unwrap_or_default().len().div_ceil(BYTES_PER_TOKEN);
                json!({
                    "prompt_tokens": 0, "completion_tokens": output, "total_tokens": output,
                    "nearhit": {"cached": true, "provider_tokens": 0, "estimated": true},
                })
            }
        }
    }
}

/// English text has about four bytes a token in the providers' vocabularies.
const BYTES_PER_TOKEN: usize = 4;
