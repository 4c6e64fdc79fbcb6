//! OpenAI's embeddings: the same texts, the same vectors, to the byte.
//!
//! Nothing is matched by meaning here: the texts are part of what must be equal, as they are written.

use serde_json::Value;

use super::answer::{Event, Fresh, Outline, Said, Tokens};
use super::request::{Fields, Protocol, Question, field, items, parameters, text};
use super::sse::{Assembly, Step};
use crate::decision::{AnswerKind, Finish, Reason, Surface, Turn};

/// `POST /v1/embeddings`.
#[derive(Debug)]
pub(crate) struct Embeddings;

impl Protocol for Embeddings {
    fn path(&self) -> &'static str {
        "/v1/embeddings"
    }

    fn place(&self) -> &'static str {
        "data[].embedding"
    }

    fn kind(&self) -> AnswerKind {
        AnswerKind::Embeddings
    }

    fn asked(&self, body: &Fields) -> Result<Question, Reason> {
        let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
        let is_understood = match body.get("input") {
            Some(Value::Array(texts)) => !texts.is_empty() && texts.iter().all(is_text),
            Some(input) => is_text(input),
            None => false,
        };
        if !is_understood || body.contains_key("stream") {
            return Err(Reason::NotCacheable);
        }
        let parameters = parameters(body, ELSEWHERE);
        Ok(Question { surface: Surface::Embeddings, turns: Vec::new(), text: String::new(), parameters })
    }

    fn turns(&self, _body: &Fields) -> Option<Vec<Turn>> {
        Some(Vec::new())
    }

    fn wants_json(&self, _body: &Fields) -> bool {
        false
    }

    fn outline(&self, object: &Fields) -> Outline {
        let vectors = items(object, "data");
        let is_whole = !vectors.is_empty() && vectors.iter().all(has_vector);
        Outline {
            finish: Finish::Complete,
            text: if is_whole { vectors.len().to_string() } else { String::new() },
            has_refusal: false,
            has_tool_calls: false,
            choices: 1,
        }
    }

    fn assembly(&self) -> Box<dyn Assembly> {
        Box::new(NoStream)
    }

    fn said(&self, object: &Fields) -> Said {
        let count = field(object, "usage").and_then(|usage| usage.get("prompt_tokens")).and_then(Value::as_u64);
        Said {
            // As this OpenAI answers `text-embedding-ada-002`.
            model: text(object, "model").map(|model| match model {
                "text-embedding-ada-002-v2" => "text-embedding-ada-002".to_owned(),
                model => model.to_owned(),
            }),
            usage: count.map(|input| Tokens { input, ..Tokens::default() }),
            ..Said::default()
        }
    }

    fn object(&self, _said: &Said, _model: &str) -> Fields {
        Fields::new()
    }

    fn replay(&self, object: Fields, _request: &Fields, _fresh: &Fresh) -> Fields {
        object
    }

    fn events(&self, _object: Fields, _request: &Fields, _piece_bytes: usize) -> Vec<Event> {
        Vec::new()
    }

    fn is_verbatim(&self) -> bool {
        true
    }
}

fn has_vector(item: &Value) -> bool {
    match item.get("embedding") {
        Some(Value::Array(values)) => !values.is_empty() && values.iter().all(Value::is_number),
        Some(Value::String(base64)) => !base64.is_empty(),
        _ => false,
    }
}

/// Embeddings are not streamed.
#[derive(Debug)]
struct NoStream;

impl Assembly for NoStream {
    fn event(&mut self, _event: Fields) -> Step {
        Step::Broken
    }

    fn bytes(&self) -> usize {
        0
    }

    fn finish(self: Box<Self>) -> Fields {
        Fields::new()
    }
}

/// Fields that do not change what is answered, and those that have a place of their own in the scope.
const ELSEWHERE: &[&str] = &["user", "model"];
