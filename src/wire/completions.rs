//! OpenAI's older completions: one text in, one text out.

use serde_json::{Value, json};

use super::answer::{Event, Fresh, Outline, Said, Tokens, pieces, replayed_usage};
use super::chat;
use super::parts::is_blank;
use super::request::{Fields, Protocol, Question, field, is_true, parameters, text};
use super::sse::{Assembly, Step};
use crate::decision::{AnswerKind, Finish, Reason, Surface, Turn};

/// `POST /v1/completions`.
#[derive(Debug)]
pub(crate) struct Completions;

impl Protocol for Completions {
    fn path(&self) -> &'static str {
        "/v1/completions"
    }

    fn place(&self) -> &'static str {
        "choices[0].text"
    }

    fn kind(&self) -> AnswerKind {
        AnswerKind::TextCompletion
    }

    fn asked(&self, body: &Fields) -> Result<Question, Reason> {
        let several = |name: &str| field(body, name).is_some_and(|n| n.as_u64() != Some(1));
        if several("n") || several("best_of") {
            return Err(Reason::NOverOne);
        }
        // With `echo` the answer repeats its own question.
        if field(body, "logprobs").is_some() || is_true(body, "echo") {
            return Err(Reason::NotCacheable);
        }
        let prompt = text(body, "prompt").filter(|prompt| !is_blank(prompt)).ok_or(Reason::NotCacheable)?;
        let mut parameters = parameters(body, ELSEWHERE);
        // A model that goes on with a text goes on otherwise after a line end.
        let (before, after) = (prompt.len() - prompt.trim_start().len(), prompt.trim_end().len());
        if before > 0 || after < prompt.len() {
            parameters.insert("prompt".into(), json!([&prompt[..before], &prompt[after..]]));
        }
        let text = prompt.to_owned();
        Ok(Question { surface: Surface::Completions, turns: Vec::new(), text, parameters })
    }

    fn turns(&self, _body: &Fields) -> Option<Vec<Turn>> {
        Some(Vec::new())
    }

    fn wants_json(&self, _body: &Fields) -> bool {
        false
    }

    fn outline(&self, object: &Fields) -> Outline {
        let finish = choice(object).and_then(|choice| text(choice, "finish_reason"));
        Outline {
            finish: if finish == Some("stop") { Finish::Complete } else { Finish::Other },
            text: said_text(object).to_owned(),
            has_refusal: false,
            has_tool_calls: false,
            choices: object.get("choices").and_then(Value::as_array).map_or(0, Vec::len),
        }
    }

    fn assembly(&self) -> Box<dyn Assembly> {
        Box::new(Chunks::default())
    }

    fn said(&self, object: &Fields) -> Said {
        Said {
            text: said_text(object).to_owned(),
            model: text(object, "model").map(str::to_owned),
            usage: field(object, "usage").and_then(chat::tokens),
            ..Said::default()
        }
    }

    fn object(&self, said: &Said, model: &str) -> Fields {
        let choices = json!([{"index": 0, "text": said.text, "logprobs": null, "finish_reason": "stop"}]);
        let mut object = Fields::new();
        object.insert("model".into(), json!(said.model.as_deref().unwrap_or(model)));
        object.insert("choices".into(), choices);
        if let Some(tokens) = said.usage {
            object.insert("usage".into(), chat::usage(tokens));
        }
        object
    }

    fn replay(&self, mut object: Fields, _request: &Fields, fresh: &Fresh) -> Fields {
        object.insert("id".into(), json!(format!("cmpl-{:032x}", fresh.nonce)));
        object.insert("created".into(), json!(fresh.now_s));
        object.insert("object".into(), json!("text_completion"));
        let said = said_text(&object);
        let usage = replayed_usage(fresh.figures, object.get("usage").cloned(), || chat::usage(Tokens::estimate(said)));
        object.insert("usage".into(), usage);
        object
    }

    fn events(&self, mut head: Fields, request: &Fields, piece_bytes: usize) -> Vec<Event> {
        let with_usage = chat::wants_usage(request);
        let usage = head.remove("usage").unwrap_or_default();
        let mut choice = choice(&head).cloned().unwrap_or_default();
        let text = said_text(&head).to_owned();
        head.remove("choices");
        let chunk = |choices: Value, usage: Value| {
            let mut chunk = head.clone();
            chunk.insert("choices".into(), choices);
            if with_usage {
                chunk.insert("usage".into(), usage);
            }
            Event::data(&Value::Object(chunk))
        };
        let said = |piece: &str| {
            let choice = json!({"index": 0, "text": piece, "logprobs": null, "finish_reason": null});
            chunk(json!([choice]), Value::Null).piece()
        };
        let mut events: Vec<Event> = pieces(&text, piece_bytes).into_iter().map(said).collect();
        choice.insert("index".into(), json!(0));
        choice.insert("text".into(), json!(""));
        events.push(chunk(json!([choice]), Value::Null));
        if with_usage {
            events.push(chunk(json!([]), usage));
        }
        events.push(Event::data(&"[DONE]"));
        events
    }
}

fn choice(object: &Fields) -> Option<&Fields> {
    object.get("choices")?.as_array()?.first()?.as_object()
}

fn said_text(object: &Fields) -> &str {
    choice(object).and_then(|choice| text(choice, "text")).unwrap_or_default()
}

/// The chunks of a streamed completion so far.
#[derive(Debug, Default)]
struct Chunks {
    head: Fields,
    choice: Fields,
    text: String,
    usage: Option<Value>,
}

impl Assembly for Chunks {
    fn event(&mut self, chunk: Fields) -> Step {
        let mut step = Step::GoesOn;
        for (name, value) in chunk {
            match (name.as_str(), value) {
                ("choices", Value::Array(choices)) => {
                    for choice in choices {
                        let Value::Object(mut choice) = choice else { return Step::Broken };
                        // A second choice cannot be replayed as a whole.
                        if choice.remove("index").is_some_and(|index| index.as_u64() != Some(0)) {
                            step = Step::Broken;
                        }
                        if let Some(Value::String(more)) = choice.remove("text") {
                            self.text.push_str(&more);
                        }
                        chat::said_last(&mut self.choice, choice);
                    }
                }
                ("choices", _) => step = Step::Broken,
                ("usage", Value::Null) | ("obfuscation", _) => {}
                ("usage", usage) => self.usage = Some(usage),
                (_, value) => drop(self.head.insert(name, value)),
            }
        }
        step
    }

    fn end_mark(&mut self) -> Step {
        Step::Done
    }

    fn bytes(&self) -> usize {
        self.text.len()
    }

    fn finish(self: Box<Self>) -> Fields {
        let Self { head: mut object, mut choice, text, usage } = *self;
        choice.insert("index".into(), json!(0));
        choice.insert("text".into(), json!(text));
        choice.entry("finish_reason").or_insert(Value::Null);
        choice.entry("logprobs").or_insert(Value::Null);
        object.insert("choices".into(), json!([choice]));
        if let Some(usage) = usage {
            object.insert("usage".into(), usage);
        }
        object
    }
}

/// Fields that do not change what is answered, and those that have a place of their own in the scope.
const ELSEWHERE: &[&str] = &["stream", "stream_options", "user", "model", "prompt"];
