//! A request as the rules want it: other bytes where they say so, and what was done.
//!
//! Trouble leaves a request as it came: what cannot be read is the cache's or the provider's to refuse.

use bytes::Bytes;

use super::rules::{Asked, CacheHints, SavingsRules, Steps};
use super::{Kind, Saved};
use crate::wire::edit::{replaced, with_field};
use crate::wire::json;
use crate::wire::request::{MESSAGES_PATH, ProviderRequest};
use crate::wire::spend::{Bill, limited};
use crate::wire::stop::StreamWatch;
use crate::wire::trim::{Trimmed, trimmed};

/// A request that the rules were asked about.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub(super) body: Bytes,
    pub(super) saved: Vec<Saved>,
    /// What its answer is to be watched for.
    pub(super) watch: Option<StreamWatch>,
    pub(super) hints: Option<CacheHints>,
}

impl Rewritten {
    fn untouched(body: Bytes) -> Self {
        Self { body, saved: Vec::new(), watch: None, hints: None }
    }
}

/// `tag` is what the caller says of the request.
pub(super) fn rewritten(rules: &SavingsRules, path: &str, tag: Option<&str>, body: Bytes) -> Rewritten {
    let request = json::parse(&body).ok().and_then(|value| ProviderRequest::new(path, value).ok());
    let Some(request) = request else { return Rewritten::untouched(body) };
    let (fields, bill) = (request.fields(), Bill::read(request.fields()));
    let Steps { model, limit, turns, stop, hints } = rules.steps(&Asked { path, tag, bill: &bill });
    let mut saved = Vec::new();
    let mut body = body;
    if let Some(Trimmed { body: shorter, dropped }) = turns.and_then(|turns| trimmed(path, fields, &body, turns)) {
        body = shorter.into();
        saved.push(Saved::new(Kind::Trimmed, dropped));
    }
    for (name, most) in limit.map(|limit| limited(path, fields, &limit)).unwrap_or_default() {
        if let Some(limited) = with_field(&body, name, &most.to_string()) {
            body = limited.into();
            saved.retain(|saved| saved.kind != Kind::MaxTokens);
            saved.push(Saved::new(Kind::MaxTokens, most));
        }
    }
    if let Some(model) = model.filter(|model| *model != bill.model)
        && let Some(routed) = serde_json::to_string(&model).ok().and_then(|text| replaced(&body, "model", &text))
    {
        body = routed.into();
        saved.push(Saved::new(Kind::Routed, model));
    }
    let watch = stop.and_then(|rule| StreamWatch::new(path, fields, request.wants_json(), &rule));
    if watch.is_some() {
        saved.push(Saved::plain(Kind::Watched));
    }
    Rewritten { body, saved, watch, hints: hints.filter(|_| path == MESSAGES_PATH) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::rules::{PATHS, Rule, When};
    use super::super::{LimitField, StopRule, TokenLimit, Turns};
    use super::*;

    fn everything() -> Steps {
        Steps {
            model: Some("small".into()),
            limit: Some(TokenLimit { default: Some(100), ceiling: Some(500), field: LimitField::default() }),
            turns: Some(Turns { max: 1, step: 1 }),
            stop: Some(StopRule { json: true, after: Vec::new() }),
            hints: Some(CacheHints { tokens_min: 1024, uses_min: 1.3 }),
        }
    }

    fn rules(then: Steps) -> SavingsRules {
        SavingsRules(vec![Rule { when: When::default(), then }])
    }

    #[test]
    fn everything_at_once() {
        let body = "{ \"model\" : \"large\", \"messages\":[{\"role\":\"user\",\"content\":\"1\"},{\"role\":\"assistant\",\"content\":\"2\"}, {\"role\":\"user\",\"content\":\"caf\\u00e9\"}],\"max_tokens\":9e3,\"stream\":true,\"response_format\":{\"type\":\"json_object\"},\"seed\":1.50}";
        let expected = "{ \"model\" : \"small\", \"messages\":[{\"role\":\"user\",\"content\":\"caf\\u00e9\"}],\"max_tokens\":500,\"stream\":true,\"response_format\":{\"type\":\"json_object\"},\"seed\":1.50}";
        let rewritten = rewritten(&rules(everything()), PATHS[0], None, Bytes::from_static(body.as_bytes()));
        assert_eq!(String::from_utf8_lossy(&rewritten.body), expected);
        let said: Vec<String> = rewritten.saved.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["trimmed=2", "max_tokens=500", "routed=small", "watched"]);
        assert!(rewritten.watch.is_some() && rewritten.hints.is_none());
    }

    #[test]
    fn what_needs_nothing_stays_as_it_is() {
        let check = |path: &str, body: &str| {
            let rewritten = rewritten(&rules(everything()), path, None, Bytes::copy_from_slice(body.as_bytes()));
            assert_eq!((rewritten.body.as_ref(), rewritten.saved), (body.as_bytes(), vec![]), "{path} {body}");
        };
        check(PATHS[1], r#"{"model":"small", "max_tokens":500,"messages":[]}"#);
        // What nobody can read in one way is refused elsewhere.
        for body in ["", "[]", "{", "7", r#"{"model":"large","model":"large"}"#] {
            check(PATHS[0], body);
        }
        // A model that is none, and a path that no rule is about.
        check(PATHS[0], r#"{"max_tokens":500}"#);
        check(PATHS[0], r#"{"max_tokens":500,"model":"small","stream":true}"#);
    }

    proptest! {
        #[test]
        fn without_anything_to_do_a_request_is_what_it_was(
            path in 0_usize..4, text in ".{0,20}", max in any::<i32>(), space in "[ \\t\\n]{0,3}", stream in any::<bool>(),
        ) {
            let message = json!({"role": "user", "content": text});
            let body = format!(
                "{space}{{\"model\":{space}\"m\",\"messages\":[{message}{space}, {message}],\"input\":{space}\"x\",\"max_tokens\":{max},\"stream\":{stream}}}{space}"
            );
            for rules in [SavingsRules::default(), rules(Steps::default())] {
                let bytes = Bytes::from(body.clone());
                let rewritten = rewritten(&rules, PATHS[path], Some("tag"), bytes.clone());
                prop_assert_eq!(&rewritten.body, &bytes);
                prop_assert!(rewritten.saved.is_empty() && rewritten.watch.is_none() && rewritten.hints.is_none());
            }
        }
    }
}
