//! What a request is about to cost, as each API says it: how much it asks, and how long its answer may get.

use serde_json::Value;

use super::answer::BYTES_PER_TOKEN;
use super::request::{Fields, MESSAGES_PATH, field, filled, items, model, text};
use super::sse::size;
use crate::decision::CHAT_PATH;

/// What rules about spending ask of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bill {
    /// Empty where none is named.
    pub(crate) model: String,
    /// An estimate, from bytes. Images and files count as the bytes that they take.
    pub(crate) input_tokens: u64,
    /// Tools are offered, or were used before.
    pub(crate) has_tools: bool,
    /// Images, audio, files or documents are in it.
    pub(crate) has_media: bool,
    /// The provider has more of it, and nobody here knows what.
    pub(crate) is_partial: bool,
}

impl Bill {
    pub(crate) fn read(body: &Fields) -> Self {
        let bytes: usize = ASKED.iter().filter_map(|name| body.get(*name)).map(size).sum();
        let said = || SAID.iter().filter_map(|name| body.get(*name));
        Self {
            model: model(body).to_owned(),
            input_tokens: bytes.div_ceil(BYTES_PER_TOKEN) as u64,
            has_tools: offers_tools(body) || said().any(|value| has_any(value, &is_tool)),
            has_media: said().any(|value| has_any(value, &is_media)),
            is_partial: KEPT.iter().any(|name| field(body, name).is_some())
                || body.get("prompt").is_some_and(Value::is_object)
                || items(body, "input").iter().any(is_reference),
        }
    }
}

/// Whether the model may call something.
pub(crate) fn offers_tools(body: &Fields) -> bool {
    TOOLS.iter().any(|name| filled(body, name))
}

/// How many tokens an answer may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLimit {
    /// Where a request names no limit.
    pub default: Option<u64>,
    /// Where it names a higher one.
    pub ceiling: Option<u64>,
    /// Which of its two fields a chat completion is given.
    pub field: LimitField,
}

/// A chat completion's field for the longest answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LimitField {
    #[default]
    MaxCompletionTokens,
    /// The older one, which some servers know only.
    MaxTokens,
}

impl LimitField {
    pub const ALL: [Self; 2] = [Self::MaxCompletionTokens, Self::MaxTokens];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxTokens => "max_tokens",
        }
    }
}

/// The fields that the limit changes, with their new values; never to a higher one than the request names.
pub(crate) fn limited(path: &str, body: &Fields, limit: &TokenLimit) -> Vec<(&'static str, u64)> {
    let TokenLimit { default, ceiling, field: chat_field } = *limit;
    let (names, default) = match path {
        CHAT_PATH => (&["max_completion_tokens", "max_tokens"][..], default.map(|most| (chat_field.as_str(), most))),
        "/v1/responses" => (&["max_output_tokens"][..], default.map(|most| ("max_output_tokens", most))),
        MESSAGES_PATH => (&["max_tokens"][..], default.map(|most| ("max_tokens", most))),
        // Whoever names none here gets 16 tokens from OpenAI: any default would be more.
        "/v1/completions" => (&["max_tokens"][..], None),
        _ => return Vec::new(),
    };
    // A limit within what may be thought is refused by the provider.
    let least = if path == MESSAGES_PATH { thought(body).map_or(0, |thought| thought.saturating_add(1)) } else { 0 };
    let named: Vec<_> = names.iter().filter_map(|name| Some((*name, field(body, name)?))).collect();
    if named.is_empty() {
        return default.map(|(name, most)| (name, most.max(least))).into_iter().collect();
    }
    let Some(most) = ceiling.map(|most| most.max(least)) else { return Vec::new() };
    // What is no such number, a provider may take for one that is higher, or for none at all.
    let is_within = |value: &Value| value.as_f64().is_some_and(|asked| (0.0..=most as f64).contains(&asked));
    named.into_iter().filter(|(_, value)| !is_within(value)).map(|(name, _)| (name, most)).collect()
}

/// How many tokens Anthropic's models may think, where a request says so.
fn thought(body: &Fields) -> Option<u64> {
    let thinking = field(body, "thinking")?.as_object().filter(|thinking| kind(thinking) == "enabled")?;
    thinking.get("budget_tokens")?.as_u64()
}

/// Whether a value, or one in it, is like that.
fn has_any(value: &Value, is_meant: &impl Fn(&Fields) -> bool) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| has_any(item, is_meant)),
        Value::Object(fields) => is_meant(fields) || fields.values().any(|value| has_any(value, is_meant)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn kind(fields: &Fields) -> &str {
    text(fields, "type").unwrap_or_default()
}

fn is_tool(item: &Fields) -> bool {
    let kind = kind(item);
    let ends = ["tool_use", "tool_result", "_call", "_call_output"];
    let role = text(item, "role").unwrap_or_default();
    ends.iter().any(|end| kind.ends_with(end))
        || matches!(role, "tool" | "function")
        || filled(item, "tool_calls")
        || field(item, "function_call").is_some()
}

/// Whether an item stands for one that the provider keeps: by its type, or with nothing but a name.
fn is_reference(item: &Value) -> bool {
    let Value::Object(item) = item else { return false };
    let is_bare = ["type", "role"].iter().all(|name| field(item, name).is_none()) && field(item, "id").is_some();
    is_bare || kind(item) == "item_reference"
}

fn is_media(part: &Fields) -> bool {
    let kinds = ["image", "audio", "video", "file", "document"];
    let words: Vec<&str> = kind(part).split('_').collect();
    kinds.iter().any(|kind| words.contains(kind)) || field(part, "audio").is_some()
}

/// Fields that the provider reads as input.
const ASKED: &[&str] =
    &["messages", "system", "input", "instructions", "prompt", "tools", "functions", "response_format"];

/// Those of them that hold what was said.
const SAID: &[&str] = &["messages", "input"];

/// Fields that name what the provider keeps.
const KEPT: &[&str] = &["previous_response_id", "conversation"];

/// Fields that offer tools.
const TOOLS: &[&str] = &["tools", "functions", "web_search_options", "mcp_servers"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const MESSAGES: &str = MESSAGES_PATH;

    fn fields(value: Value) -> Fields {
        value.as_object().expect("an object").clone()
    }

    fn limit(default: Option<u64>, ceiling: Option<u64>) -> TokenLimit {
        TokenLimit { default, ceiling, field: LimitField::default() }
    }

    #[test]
    fn limits_of_every_api() {
        let check = |path: &str, body: Value, expected: &[(&str, u64)]| {
            let changes = limited(path, &fields(body.clone()), &limit(Some(100), Some(500)));
            assert_eq!(changes, expected, "{path} {body}");
        };
        check(CHAT_PATH, json!({}), &[("max_completion_tokens", 100)]);
        check(CHAT_PATH, json!({"max_tokens": null}), &[("max_completion_tokens", 100)]);
        check(CHAT_PATH, json!({"max_tokens": 500}), &[]);
        check(CHAT_PATH, json!({"max_tokens": 501}), &[("max_tokens", 500)]);
        let both = json!({"max_tokens": 501, "max_completion_tokens": 9e9});
        check(CHAT_PATH, both, &[("max_completion_tokens", 500), ("max_tokens", 500)]);
        check(CHAT_PATH, json!({"max_tokens": 0}), &[]);
        // Some servers take these for more, or for no limit.
        for odd in [json!(-1), json!(-0.5), json!("100000"), json!("1"), json!(true), json!([]), json!({})] {
            check(CHAT_PATH, json!({"max_tokens": odd}), &[("max_tokens", 500)]);
        }
        check("/v1/completions", json!({"max_tokens": -1}), &[("max_tokens", 500)]);
        check("/v1/responses", json!({"max_tokens": 501}), &[("max_output_tokens", 100)]);
        check("/v1/responses", json!({"max_output_tokens": 501}), &[("max_output_tokens", 500)]);
        check(MESSAGES, json!({"max_tokens": 501}), &[("max_tokens", 500)]);
        check(MESSAGES, json!({}), &[("max_tokens", 100)]);
        let thinking = |asked: Value, budget: u64| json!({"max_tokens": asked, "thinking": {"type": "enabled", "budget_tokens": budget}});
        check(MESSAGES, thinking(json!(9000), 499), &[("max_tokens", 500)]);
        check(MESSAGES, thinking(json!(9000), 500), &[("max_tokens", 501)]);
        check(MESSAGES, thinking(json!(9000), 8998), &[("max_tokens", 8999)]);
        check(MESSAGES, thinking(json!(9000), 8999), &[]);
        check(MESSAGES, thinking(json!(9000), u64::MAX), &[]);
        check(MESSAGES, thinking(json!(-1), 600), &[("max_tokens", 601)]);
        check(MESSAGES, thinking(json!(501), 10), &[("max_tokens", 500)]);
        check(MESSAGES, thinking(Value::Null, 99), &[("max_tokens", 100)]);
        check(MESSAGES, thinking(Value::Null, 600), &[("max_tokens", 601)]);
        // It is Anthropic's, and counts where it is turned on.
        for (path, kind) in [(CHAT_PATH, "enabled"), (MESSAGES, "disabled"), (MESSAGES, "adaptive")] {
            let body = json!({"max_tokens": 9000, "thinking": {"type": kind, "budget_tokens": 8000}});
            check(path, body, &[("max_tokens", 500)]);
        }
        check(MESSAGES, json!({"max_tokens": 9000, "thinking": {"budget_tokens": 8000}}), &[("max_tokens", 500)]);
        check("/v1/completions", json!({}), &[]);
        check("/v1/completions", json!({"max_tokens": 501}), &[("max_tokens", 500)]);
        check("/v1/embeddings", json!({}), &[]);
        let older = TokenLimit { field: LimitField::MaxTokens, ..limit(Some(7), None) };
        assert_eq!(limited(CHAT_PATH, &Fields::new(), &older), [("max_tokens", 7)]);
        assert_eq!(limited(CHAT_PATH, &fields(json!({"max_tokens": 9})), &older), []);
    }

    #[test]
    fn bills() {
        let check = |body: Value, has_tools: bool, has_media: bool| {
            let bill = Bill::read(&fields(body.clone()));
            assert_eq!((bill.has_tools, bill.has_media), (has_tools, has_media), "{body}");
        };
        let said = |message: Value| json!({"model": "m", "messages": [message]});
        let part = |kind: &str| said(json!({"role": "user", "content": [{"type": kind}]}));
        check(said(json!({"role": "user", "content": "an image of a tool"})), false, false);
        check(part("text"), false, false);
        for kind in ["image", "image_url", "input_image", "input_audio", "file", "input_file", "document"] {
            check(part(kind), false, true);
        }
        check(part("tool_result"), true, false);
        check(said(json!({"role": "assistant", "tool_calls": [{"id": "1"}]})), true, false);
        check(said(json!({"role": "tool", "content": "x"})), true, false);
        check(json!({"tools": []}), false, false);
        check(json!({"tools": [{"name": "x"}]}), true, false);
        check(json!({"input": [{"type": "function_call_output", "call_id": "1"}]}), true, false);
        let is_partial = |body: Value| Bill::read(&fields(body)).is_partial;
        for partial in [
            json!({"previous_response_id": "resp_1", "input": "go on"}),
            json!({"conversation": "conv_1", "input": "go on"}),
            json!({"conversation": {"id": "conv_1"}, "input": "go on"}),
            json!({"prompt": {"id": "pmpt_1"}}),
            json!({"input": [{"type": "item_reference", "id": "msg_1"}]}),
            json!({"input": [{"role": "user", "content": "x"}, {"type": null, "id": "msg_1"}]}),
        ] {
            assert!(is_partial(partial.clone()), "{partial}");
        }
        for whole in [
            json!({"previous_response_id": null, "conversation": null, "prompt": null, "input": "x"}),
            json!({"prompt": "x"}),
            json!({"prompt": ["x"]}),
            json!({"input": [{"role": "user", "content": "x"}, {"type": "message", "id": "msg_1", "role": "assistant"}]}),
            said(json!({"role": "assistant", "tool_calls": [{"id": "1"}]})),
        ] {
            assert!(!is_partial(whole.clone()), "{whole}");
        }
        let asked = json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(4000)}]});
        let tokens = Bill::read(&fields(asked)).input_tokens;
        assert!((1000..1020).contains(&tokens), "{tokens}");
    }

    proptest! {
        #[test]
        fn a_ceiling_never_raises(
            asked in prop::option::of(any::<i64>()), older in prop::option::of(any::<u32>()), thought in prop::option::of(0_u64..10_000),
            default in prop::option::of(1_u64..10_000), ceiling in prop::option::of(1_u64..10_000), path in 0_usize..5,
        ) {
            let path = [CHAT_PATH, "/v1/responses", MESSAGES, "/v1/completions", "/v1/embeddings"][path];
            let name = if path == "/v1/responses" { "max_output_tokens" } else { "max_tokens" };
            let mut body = Fields::new();
            asked.map(|asked| body.insert(name.into(), json!(asked)));
            older.map(|older| body.insert("max_completion_tokens".into(), json!(older)));
            thought.map(|thought| body.insert("thinking".into(), json!({"type": "enabled", "budget_tokens": thought})));
            let least = thought.filter(|_| path == MESSAGES).map_or(0, |thought| thought + 1);
            let changes = limited(path, &body, &limit(default, ceiling));
            for (name, most) in &changes {
                match body.get(*name).and_then(Value::as_f64) {
                    // Below zero it is no limit.
                    Some(asked) => prop_assert!(
                        (asked < 0.0 || (*most as f64) < asked) && Some(*most) == ceiling.map(|most| most.max(least))
                    ),
                    None => prop_assert_eq!(Some(*most), default.map(|most| most.max(least))),
                }
                prop_assert!(least <= *most);
            }
            // Whatever is named: what goes upstream is within the ceiling, or within what must be for the thoughts.
            let names: &[&str] = match path {
                CHAT_PATH => &["max_tokens", "max_completion_tokens"],
                "/v1/embeddings" => &[],
                _ => &[name],
            };
            for name in names.iter().filter(|name| body.contains_key(**name)) {
                let changed = changes.iter().find(|(changed, _)| changed == name).map(|(_, most)| *most as f64);
                let sent = changed.or_else(|| body[*name].as_f64()).expect("a number");
                prop_assert!(ceiling.is_none_or(|most| (0.0..=most.max(least) as f64).contains(&sent)), "{} {}", name, sent);
            }
            prop_assert_eq!(limited(path, &body, &limit(None, None)), []);
        }
    }
}
