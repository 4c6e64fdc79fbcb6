//! Answers that repeat a value of their question: taken apart at the value, and put together around another one.
//!
//! Of a provider's object only the one text that it says is looked at and changed, as text, so the JSON stays valid
//! whatever the value holds. Putting an answer's own value back gives the answer, to the byte.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::canonical::FieldHasher;
use super::entry::{Answer, AnswerKind};
use super::slots::Slot;
use super::template::stands_alone;

/// An answer without the value that it repeats.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerTemplate {
    /// What is between the places of the value: one text more than there are places.
    texts: Vec<String>,
    /// The provider's object around the text, where there is one.
    object: Option<Map<String, Value>>,
}

impl AnswerTemplate {
    /// `None` if the answer does not repeat the value, standing alone and as it was written, or is over 64 KiB.
    pub fn cut(answer: &Answer, value: &str) -> Option<Self> {
        if answer.body.len() > LONGEST {
            return None;
        }
        let (text, object) = match answer.kind {
            AnswerKind::Text => (answer.body.clone(), None),
            _ => {
                let Value::Object(mut object) = serde_json::from_str(&answer.body).ok()? else { return None };
                let Value::String(text) = content(&mut object)?.take() else { return None };
                (text, Some(object))
            }
        };
        let texts = cut(&text, value)?;
        Some(Self { texts, object })
    }

    /// Equal for answers that differ in nothing but the value, and in what the provider says of the single call: its id,
    /// its time, its costs.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = FieldHasher::new("nearhit 2026-11-22 answer template v2");
        hasher.parts(self.texts.len());
        self.texts.iter().for_each(|text| hasher.text(text));
        if let Some(object) = &self.object {
            hasher.json(&without_the_call(&Value::Object(object.clone())));
        }
        hasher.finish()
    }

    /// The answer around this value; `None` if it could not be told from what stands around it.
    pub fn fill(&self, value: &str) -> Option<String> {
        let text = self.texts.join(value);
        if cut(&text, value)? != self.texts {
            return None;
        }
        match &self.object {
            None => Some(text),
            Some(object) => {
                let mut object = object.clone();
                *content(&mut object)? = Value::String(text);
                Some(Value::Object(object).to_string())
            }
        }
    }
}

/// Whether the answer repeats what stands in the slot, or a word of it.
pub fn repeats(answer: &Answer, slot: &Slot) -> bool {
    let Some(text) = text(answer) else { return true };
    let words = slot.written.split(|letter: char| !letter.is_alphanumeric());
    let words = words.filter(|word| word.contains(char::is_alphabetic));
    let text = text.to_lowercase();
    words.chain([slot.written.as_str()]).any(|word| cut(&text, &word.to_lowercase()).is_some())
}

/// What the answer says; `None` for an object that says nothing, or not in one text.
pub(super) fn text(answer: &Answer) -> Option<Cow<'_, str>> {
    match answer.kind {
        AnswerKind::Text => Some(Cow::Borrowed(answer.body.as_str())),
        _ => {
            let Value::Object(mut object) = serde_json::from_str(&answer.body).ok()? else { return None };
            let Value::String(text) = content(&mut object)?.take() else { return None };
            Some(Cow::Owned(text))
        }
    }
}

/// The text at the places where `value` stands alone; `None` if there is none.
fn cut(text: &str, value: &str) -> Option<Vec<String>> {
    if value.is_empty() {
        return None;
    }
    let mut texts = Vec::new();
    let mut rest = 0;
    for (at, _) in text.match_indices(value).filter(|(at, _)| stands_alone(text, *at, value)) {
        texts.push(text[rest..at].to_owned());
        rest = at + value.len();
    }
    texts.push(text[rest..].to_owned());
    (texts.len() > 1).then_some(texts)
}

/// What a provider's object says, if that is one text: of its one choice, its one text block, its one message.
fn content(object: &mut Map<String, Value>) -> Option<&mut Value> {
    if object.contains_key("choices") {
        let choice = only(object.get_mut("choices")?, |_| true)?;
        return if choice.get("message").is_some() {
            choice.get_mut("message")?.get_mut("content")
        } else {
            choice.get_mut("text")
        };
    }
    let is = |item: &Value, kind: &str| item.get("type").is_some_and(|of| of == kind);
    if object.contains_key("output") {
        let message = only(object.get_mut("output")?, |item| is(item, "message"))?;
        return only(message.get_mut("content")?, |_| true)?.get_mut("text");
    }
    only(object.get_mut("content")?, |block| is(block, "text"))?.get_mut("text")
}

/// The one item that is meant, if there is exactly one.
fn only(items: &mut Value, is_meant: impl Fn(&Value) -> bool) -> Option<&mut Value> {
    let mut meant = items.as_array_mut()?.iter_mut().filter(|item| is_meant(item));
    meant.next().filter(|_| meant.next().is_none())
}

/// The value without what the provider says of the single call, at any depth: items of an answer have ids of their own.
fn without_the_call(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| !OF_THE_CALL.contains(&name.as_str()));
            Value::Object(kept.map(|(name, value)| (name.clone(), without_the_call(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_the_call).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// A longer answer says more than a value could be all the difference in, and would take long to compare.
const LONGEST: usize = 64 << 10;

/// Fields of an object that are other ones each time.
const OF_THE_CALL: [&str; 16] = [
    "background",
    "completed_at",
    "created",
    "created_at",
    "encrypted_content",
    "id",
    "metadata",
    "nearhit",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "signature",
    "store",
    "system_fingerprint",
    "usage",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn plain(text: &str) -> Answer {
        Answer { kind: AnswerKind::Text, body: text.to_owned(), usage: None }
    }

    fn chat(text: &str, id: &str, reasoning: &str) -> Answer {
        let message = json!({"role": "assistant", "content": text, "reasoning_content": reasoning});
        let choices = json!([{"index": 0, "message": message, "finish_reason": "stop"}]);
        let body = json!({"id": id, "created": id.len(), "choices": choices, "model": "m"}).to_string();
        Answer { kind: AnswerKind::ChatCompletion, body, usage: None }
    }

    #[test]
    fn an_answer_is_filled_where_it_repeats_the_value() {
        fn check(answer: &str, value: &str, other: &str, expected: Option<&str>) {
            let filled = |answer: &Answer| AnswerTemplate::cut(answer, value).and_then(|cut| cut.fill(other));
            assert_eq!(filled(&plain(answer)).as_deref(), expected, "{answer}");
            let expected = expected.map(|text| chat(text, "x", "").body);
            assert_eq!(filled(&chat(answer, "x", "")), expected, "{answer}");
        }
        check("K-1 is here.", "K-1", "K-2", Some("K-2 is here."));
        check("Keep K-1; K-1!", "K-1", "\"\\\u{0}", Some("Keep \"\\\u{0}; \"\\\u{0}!"));
        check("It is here.", "K-1", "K-2", None);
        check("XK-1 and K-12", "K-1", "K-2", None);
        check("K-1", "", "K-2", None);
        // Nobody could say any more which of the two is the value.
        check("K-1, not K-2", "K-1", "K-2", None);
        // It would grow together with what stands before it.
        check("order#K-1", "#K-1", "K-2", None);
    }

    /// One text that is said is filled, whatever the provider's object; of several nobody knows which.
    #[test]
    fn every_apis_answers_are_filled() {
        let check = |kind, body: Value, is_filled: bool| {
            let answer = Answer { kind, body: body.to_string(), usage: None };
            let filled = AnswerTemplate::cut(&answer, "K-1").and_then(|cut| cut.fill("K-2"));
            let expected = is_filled.then(|| body.to_string().replace("K-1", "K-2"));
            assert_eq!(filled, expected, "{body}");
        };
        let text = json!({"type": "text", "text": "K-1 is here."});
        let thought = json!({"type": "thinking", "thinking": "Hm."});
        check(AnswerKind::Message, json!({"content": [thought, text]}), true);
        check(AnswerKind::Message, json!({"content": [text, text]}), false);
        let said = json!({"type": "message", "content": [{"type": "output_text", "text": "K-1"}]});
        check(AnswerKind::Response, json!({"output": [{"type": "reasoning"}, said]}), true);
        check(AnswerKind::Response, json!({"output": [said, said]}), false);
        check(AnswerKind::TextCompletion, json!({"choices": [{"text": "K-1"}]}), true);
        check(AnswerKind::Embeddings, json!({"data": [{"embedding": "K-1"}]}), false);
    }

    #[test]
    fn what_must_not_differ() {
        fn check(a: &Answer, b: &Answer, same: bool) {
            let digest = |answer, value| AnswerTemplate::cut(answer, value).map(|cut| cut.digest());
            assert_eq!(digest(a, "K-1111") == digest(b, "K-2222"), same, "{a:?} and {b:?}");
        }
        check(&plain("K-1111 is here."), &plain("K-2222 is here."), true);
        check(&plain("K-1111 is here."), &plain("K-2222 is lost."), false);
        check(&plain("K-1111, K-1111"), &plain("K-2222, K-1111"), false);
        check(&plain("K-1111"), &chat("K-2222", "x", ""), false);
        check(&chat("K-1111 is here.", "x", ""), &chat("K-2222 is here.", "other", ""), true);
        check(&chat("K-1111 is here.", "x", "K-1111?"), &chat("K-2222 is here.", "x", "K-2222?"), false);
        let response = |text: &str, id: &str| {
            let said = json!({"type": "message", "id": id, "content": [{"type": "output_text", "text": text}]});
            let body = json!({"id": id, "output": [said], "model": "m"}).to_string();
            Answer { kind: AnswerKind::Response, body, usage: None }
        };
        check(&response("K-1111 is here.", "x"), &response("K-2222 is here.", "y"), true);
        check(&response("K-1111 is here.", "x"), &response("K-2222 is lost.", "x"), false);
        let broken = Answer { body: "{".into(), ..chat("", "", "") };
        assert_eq!(AnswerTemplate::cut(&broken, "K-1111"), None);
    }

    proptest! {
        #[test]
        fn refilling_an_answers_own_value_gives_the_answer(
            before in ".{0,20}", value in ".{1,8}", after in ".{0,20}", dense in "[ab# ]{0,16}", short in "[ab#]{1,3}",
        ) {
            for (text, value) in [(format!("{before}{value}{after}"), value), (dense, short)] {
                for answer in [plain(&text), chat(&text, "x", &after)] {
                    if let Some(cut) = AnswerTemplate::cut(&answer, &value) {
                        prop_assert_eq!(cut.fill(&value), Some(answer.body));
                    }
                }
            }
        }

        #[test]
        fn a_filled_answer_is_valid_json_and_says_what_it_should(value in "\\PC{1,12}|[\"\\\\\u{0}\n]{1,6}") {
            let cut = AnswerTemplate::cut(&chat("Order K-1111 is here.", "x", ""), "K-1111");
            if let Some(filled) = cut.and_then(|cut| cut.fill(&value)) {
                prop_assert_eq!(filled, chat(&format!("Order {value} is here."), "x", "").body);
            }
        }
    }
}
