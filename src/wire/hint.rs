//! Anthropic's `cache_control`: where a request may tell the provider to keep a prefix of it.
//!
//! It changes what a call costs and nothing of what is answered. A client that sets it anywhere knows better.

use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::BYTES_PER_TOKEN;
use super::edit::{appended, replaced};
use super::json::fields;

/// What stands at the beginning of a provider's prompt: tools, then the system prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prefixes<'a> {
    pub(crate) model: &'a str,
    /// As they stand in the body.
    pub(crate) tools: Option<&'a str>,
    pub(crate) system: Option<&'a str>,
}

/// Which of them a hint ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Tools,
    /// The tools before it included.
    System,
}

impl<'a> Prefixes<'a> {
    /// `None` where the client sets hints itself, or the body is no request that is understood.
    pub(crate) fn read(body: &'a [u8]) -> Option<Self> {
        let fields = fields(body).ok()?;
        let named = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.get());
        // Escaped or further in, it is a name only where it is followed as one: read closely what looks like it.
        if has_name(&serde_json::from_slice(body).ok()?, HINT) {
            return None;
        }
        let filled = |text: &&str| !matches!(*text, "null" | "[]" | "\"\"");
        Some(Self {
            model: named("model")?,
            tools: named("tools").filter(filled),
            system: named("system").filter(filled),
        })
    }

    /// The prefix that ends there, and how many tokens it has, about; `None` where a hint cannot stand.
    pub(crate) fn ending(&self, end: End) -> Option<([&'a str; 2], u64)> {
        let (tools, system) = match end {
            End::Tools => (self.tools?, ""),
            End::System => (self.tools.unwrap_or_default(), self.system?),
        };
        let tokens = (tools.len() + system.len()).div_ceil(BYTES_PER_TOKEN) as u64;
        Some(([tools, system], tokens))
    }
}

/// The body with a hint there, every byte around it as it was; `None` where it cannot stand.
pub(crate) fn with_hint(body: &[u8], end: End) -> Option<Vec<u8>> {
    let name = match end {
        End::Tools => "tools",
        End::System => "system",
    };
    let fields = fields(body).ok()?;
    let (_, value) = fields.iter().find(|(field, _)| field == name)?;
    let text = value.get();
    if text.starts_with('"') && end == End::System {
        if is_blank(&serde_json::from_str::<String>(text).ok()?) {
            return None;
        }
        return replaced(body, name, &format!("[{{\"type\":\"text\",\"text\":{text},{SET}}}]"));
    }
    let blocks: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    let (last, before) = blocks.split_last()?;
    let block: Value = serde_json::from_str(last.get()).ok()?;
    if !takes_hint(&block, end) {
        return None;
    }
    let hinted = String::from_utf8(appended(last.get().as_bytes(), SET)?).ok()?;
    let blocks = before.iter().map(|block| block.get()).chain([hinted.as_str()]);
    replaced(body, name, &format!("[{}]", blocks.collect::<Vec<_>>().join(",")))
}

/// What the provider takes a hint on: no empty text, and no tool that is loaded later.
fn takes_hint(block: &Value, end: End) -> bool {
    match end {
        End::Tools => block.is_object() && block.get("defer_loading") != Some(&Value::Bool(true)),
        End::System => {
            let is_text = block.get("type").is_some_and(|kind| kind == "text");
            is_text && block.get("text").and_then(Value::as_str).is_some_and(|text| !is_blank(text))
        }
    }
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

fn has_name(value: &Value, name: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| has_name(item, name)),
        Value::Object(fields) => fields.contains_key(name) || fields.values().any(|value| has_name(value, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A system prompt without what looks like a value: two that differ in a date have one outline.
pub(crate) fn outline(system: &str) -> String {
    let mut outline = String::with_capacity(system.len());
    for word in system.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let (text, end) = match word.char_indices().last() {
            Some((at, last)) if !last.is_alphanumeric() => word.split_at(at),
            _ => (word, ""),
        };
        let is_value = text.contains(|c: char| c.is_numeric()) || CALENDAR.contains(&text.to_lowercase().as_str());
        outline.push_str(if is_value { "#" } else { text });
        outline.push_str(end);
    }
    outline
}

/// Names of days and months, which a date changes though they have no digit.
const CALENDAR: &[&str] = &[
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "mon",
    "tue",
    "wed",
    "thu",
    "fri",
    "sat",
    "sun",
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "jan",
    "feb",
    "mar",
    "apr",
    "jun",
    "jul",
    "aug",
    "sep",
    "sept",
    "oct",
    "nov",
    "dec",
    "am",
    "pm",
];

const HINT: &str = "cache_control";

const SET: &str = "\"cache_control\":{\"type\":\"ephemeral\"}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_stand_at_the_end_of_a_prefix() {
        let check = |body: &str, end: End, expected: Option<&str>| {
            let hinted = with_hint(body.as_bytes(), end).map(|body| String::from_utf8(body).expect("text"));
            assert_eq!(hinted.as_deref(), expected, "{body}");
            if let Some(hinted) = hinted {
                assert_eq!(Prefixes::read(hinted.as_bytes()), None, "{hinted}");
            }
        };
        let hint = r#""cache_control":{"type":"ephemeral"}"#;
        check(
            r#"{ "system" : "caf\u00e9", "model":"m" , "seed":1.50}"#,
            End::System,
            Some(&format!(
                r#"{{ "system" : [{{"type":"text","text":"caf\u00e9",{hint}}}], "model":"m" , "seed":1.50}}"#
            )),
        );
        check(
            r#"{"model":"m","system":[ {"type":"text","text":"a"}, {"type":"text","text":"b" } ]}"#,
            End::System,
            Some(&format!(
                r#"{{"model":"m","system":[{{"type":"text","text":"a"}},{{"type":"text","text":"b" ,{hint}}}]}}"#
            )),
        );
        check(
            r#"{"tools":[{"name":"x","input_schema":{}}],"model":"m"}"#,
            End::Tools,
            Some(&format!(r#"{{"tools":[{{"name":"x","input_schema":{{}},{hint}}}],"model":"m"}}"#)),
        );
        check(r#"{"model":"m","system":[{"type":"text","text":" "}]}"#, End::System, None);
        check(r#"{"model":"m","system":" "}"#, End::System, None);
        check(r#"{"model":"m","system":"\u0020\n"}"#, End::System, None);
        check(r#"{"model":"m","system":[]}"#, End::System, None);
        check(r#"{"model":"m","tools":[{"name":"x","defer_loading":true}]}"#, End::Tools, None);
        check(r#"{"model":"m"}"#, End::System, None);
        check(r#"{"model":"m","system":7}"#, End::System, None);
    }

    #[test]
    fn prefixes() {
        let check = |body: &str, tools: Option<&str>, system: Option<&str>| {
            let expected = Prefixes { model: "\"m\"", tools, system };
            assert_eq!(Prefixes::read(body.as_bytes()), Some(expected), "{body}");
        };
        check(r#"{"model":"m","system":"s","tools":[{"a":1}]}"#, Some(r#"[{"a":1}]"#), Some("\"s\""));
        check(r#"{"model":"m","system":"","tools":[]}"#, None, None);
        check(r#"{"model":"m","system":null,"messages":[{"content":"\"cache_control\": {}"}]}"#, None, None);
        for theirs in [
            r#"{"model":"m","cache_control":{}}"#,
            r#"{"model":"m","messages":[{"content":[{"cache\u005fcontrol":{}}]}]}"#,
            r#"{"model":"m","tools":[{"cache_control":null}]}"#,
            r#"{"system":"no model"}"#,
            "[]",
        ] {
            assert_eq!(Prefixes::read(theirs.as_bytes()), None, "{theirs}");
        }
        let both = Prefixes { model: "\"m\"", tools: Some("12345"), system: Some("678") };
        assert_eq!(both.ending(End::Tools), Some((["12345", ""], 2)));
        assert_eq!(both.ending(End::System), Some((["12345", "678"], 2)));
        assert_eq!(Prefixes { system: None, ..both }.ending(End::System), None);
    }

    #[test]
    fn outlines() {
        let check = |a: &str, b: &str, expected: bool| assert_eq!(outline(a) == outline(b), expected, "{a} / {b}");
        check("Today is Monday, 3 March 2026.", "Today is Friday, 13 June 2026.", true);
        check("Session 4f2a: be kind.", "Session 99c1: be kind.", true);
        check("Be kind.", "Be brief.", false);
        check("You serve 3 people.", "You serve 3 people. Now.", false);
    }
}
