//! What holds for every API: an answer is the same however it came, and a question is another one in every field.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::decision::{Admission, Fingerprint};
use crate::wire::answer::{Figures, Timing, Tokens, pieces};

const FRESH: Fresh = Fresh { nonce: 7, now_s: 9, figures: Figures::Stored };

/// The APIs that stream, each with a request for a stream that tells all it can.
fn streamed() -> Vec<ProviderRequest> {
    let options = json!({"include_usage": true});
    [
        (CHAT_PATH, json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream_options": options})),
        (MESSAGES_PATH, json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]})),
        ("/v1/responses", json!({"model": "m", "input": "Hi", "store": false})),
        ("/v1/completions", json!({"model": "m", "prompt": "Hi", "stream_options": options})),
    ]
    .into_iter()
    .map(|(path, mut body)| {
        body["stream"] = json!(true);
        ProviderRequest::new(path, body).expect("a request")
    })
    .collect()
}

fn whole(request: &ProviderRequest) -> ProviderRequest {
    let mut request = request.clone();
    request.body.insert("stream".into(), json!(false));
    request
}

/// An answer in the API's own form.
fn answer(request: &ProviderRequest, said: &Said) -> Answer {
    let (protocol, object) = (request.protocol, request.protocol.object(said, "m"));
    Recorded { protocol, object, verbatim: None, whole: true }.into_answer(None)
}

fn replayed(request: &ProviderRequest, answer: &Answer) -> Fields {
    match whole(request).replay(answer, &FRESH, usize::MAX) {
        Replay::Json(body) => serde_json::from_str(&body).expect("an object"),
        Replay::Events(events) => panic!("{events:?}"),
    }
}

fn stream(request: &ProviderRequest, answer: &Answer, piece_bytes: usize) -> String {
    match request.replay(answer, &FRESH, piece_bytes) {
        Replay::Json(body) => panic!("{body}"),
        Replay::Events(events) => events.into_iter().map(|event| event.bytes).collect(),
    }
}

fn record(request: &ProviderRequest, stream: &[u8], cut: usize) -> Recorded {
    let mut recorder = request.recorder();
    stream.chunks(cut.max(1)).for_each(|piece| recorder.feed(piece));
    recorder.finish()
}

fn said(text: &str, reasoning: Option<&str>, usage: Option<Tokens>) -> Said {
    Said { text: text.to_owned(), reasoning: reasoning.map(str::to_owned), usage, ..Said::default() }
}

fn surroundings() -> Surroundings {
    Surroundings {
        tenant: Tenant::new("t"),
        cache: CacheName::default(),
        upstream: "u".into(),
        headers: Attributes::new(),
        attributes: Attributes::new(),
        vars: Vars::new(),
        temperature_max: None,
        tool_calls: false,
    }
}

/// What the request is asked upstream as.
fn scope(request: &ProviderRequest) -> Scope {
    Scope { model: request.model().to_owned(), ..Scope::bare(Tenant::new("t"), CacheName::default()) }
}

fn exact(path: &str, body: &Value) -> Result<[u8; 32], Reason> {
    let prompt = ProviderRequest::new(path, body.clone()).expect("a request").prompt(surroundings())?;
    Ok(Fingerprint::split(&prompt).0.exact)
}

proptest! {
    #[test]
    fn replaying_and_recording_gives_the_completion_back(
        text in "\\PC{1,60}", reasoning in prop::option::of("\\PC{1,30}"), counted in any::<bool>(),
        cut in 1usize..60, piece_bytes in prop_oneof![1usize..20, Just(usize::MAX)],
    ) {
        let usage = counted.then_some(Tokens { input: 5, cached: 2, output: 7, reasoning: 3 });
        let said = said(&text, reasoning.as_deref(), usage);
        for request in streamed() {
            let stored = answer(&request, &said);
            let recorded = record(&request, stream(&request, &stored, piece_bytes).as_bytes(), cut);
            prop_assert!(recorded.whole, "{}", request.path());
            let is_blank = text.trim().is_empty();
            prop_assert_eq!(recorded.admission(&request, &scope(&request), 200) == Admission::Keep, !is_blank);
            // A stream and a whole answer say the same.
            let expected = replayed(&request, &stored);
            prop_assert_eq!(&recorded.object, &expected, "{}", request.path());
            // So does what is kept of either, in either form.
            let again = recorded.into_answer(Some(Timing { first_ms: 1, total_ms: 2 }));
            prop_assert_eq!(replayed(&request, &again), expected);
            prop_assert_eq!(stream(&request, &again, usize::MAX), stream(&request, &stored, usize::MAX));
        }
    }

    #[test]
    fn an_answer_that_breaks_off_is_not_whole(text in "[a-z \"\\\\é]{1,20}", place in any::<prop::sample::Index>()) {
        for request in streamed() {
            let stored = answer(&request, &said(&text, Some("so"), None));
            let stream = stream(&request, &stored, 3);
            let end = place.index(stream.len());
            prop_assert!(!record(&request, &stream.as_bytes()[..end], 7).whole, "{} at {end}", request.path());
            let body = Value::Object(replayed(&request, &stored)).to_string();
            prop_assert!(request.recorded(&body.as_bytes()[..place.index(body.len())]).is_none());
        }
    }

    /// Whatever line of a stream is lost, what is kept says all of it.
    #[test]
    fn a_lost_event_is_noticed_or_says_nothing(place in any::<prop::sample::Index>()) {
        let text = "One two three four five.";
        for request in streamed().into_iter().filter(|request| request.path() != "/v1/completions") {
            let stored = answer(&request, &said(text, None, None));
            let stream = stream(&request, &stored, usize::MAX);
            let mut events: Vec<&str> = stream.split_inclusive("\n\n").collect();
            events.remove(place.index(events.len()));
            let recorded = record(&request, events.concat().as_bytes(), 50);
            if recorded.admission(&request, &scope(&request), 200) == Admission::Keep {
                prop_assert_eq!(request.protocol.said(&recorded.object).text, text);
            }
        }
    }

    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for request in streamed() {
            let recorded = record(&request, &bytes, 9);
            prop_assert!(!recorded.whole || bytes.windows(6).any(|w| w == b"[DONE]"));
        }
    }

    /// A field that nobody knows counts, whatever it is called.
    #[test]
    fn an_unknown_field_is_another_question(name in "[a-z_]{1,12}", value in "[a-z]{0,4}|[0-9]{1,4}") {
        for (path, base, outside) in requests() {
            prop_assume!(base.get(&name).is_none());
            let outside = outside.contains(&name.as_str()) || OWN_FIELDS.contains(&name.as_str());
            let mut body = base.clone();
            body[&name] = json!(value);
            match exact(path, &body) {
                Ok(other) => prop_assert_eq!(other == exact(path, &base).expect("cacheable"), outside, "{}: {}", path, name),
                Err(reason) => prop_assert!(reason != Reason::NoTenant, "{}", path),
            }
        }
    }

    #[test]
    fn pieces_are_the_text(text in "\\PC{0,40}", bytes in 0usize..9) {
        let pieces = pieces(&text, bytes);
        prop_assert_eq!(pieces.concat(), text.as_str());
        prop_assert!(pieces.iter().all(|piece| piece.len() < bytes.max(1) + 4));
    }
}

/// A request for each API with many fields, and those that its answer does not depend on.
fn requests() -> Vec<(&'static str, Value, &'static [&'static str])> {
    let messages = json!([{"role": "assistant", "content": "Well."}, {"role": "user", "content": "And?"}]);
    vec![
        (
            CHAT_PATH,
            json!({"model": "m", "messages": messages, "temperature": 0.5, "top_p": 1, "seed": 7, "stop": ["x"],
                "max_tokens": 5, "response_format": {"type": "text"}, "service_tier": "auto", "logit_bias": {"1": 2},
                "reasoning_effort": "low", "stream": false, "stream_options": {}, "user": "u", "metadata": {},
                "safety_identifier": "s", "prompt_cache_key": "k", "prompt_cache_retention": "24h", "store": false}),
            &[
                "stream",
                "stream_options",
                "user",
                "metadata",
                "safety_identifier",
                "prompt_cache_key",
                "prompt_cache_retention",
                "store",
            ],
        ),
        (
            MESSAGES_PATH,
            json!({"model": "m", "messages": messages, "system": "s", "max_tokens": 5, "temperature": 0.5, "top_k": 3,
                "stop_sequences": ["x"], "thinking": {"type": "disabled"}, "service_tier": "auto", "stream": false,
                "metadata": {"user_id": "u"}, "cache_control": {"type": "ephemeral"}}),
            &["stream", "metadata", "cache_control"],
        ),
        (
            "/v1/responses",
            json!({"model": "m", "input": messages, "instructions": "i", "temperature": 0.5, "top_p": 1,
                "max_output_tokens": 5, "text": {"format": {"type": "text"}}, "reasoning": {"effort": "low"},
                "truncation": "auto", "include": [], "service_tier": "auto", "store": false, "stream": false,
                "stream_options": {}, "user": "u", "metadata": {}, "safety_identifier": "s", "prompt_cache_key": "k",
                "prompt_cache_retention": "24h", "background": false}),
            &[
                "stream",
                "stream_options",
                "user",
                "metadata",
                "safety_identifier",
                "prompt_cache_key",
                "prompt_cache_retention",
                "background",
            ],
        ),
        (
            "/v1/completions",
            json!({"model": "m", "prompt": "p", "suffix": "s", "temperature": 0.5, "max_tokens": 5, "stop": "x",
                "presence_penalty": 1, "seed": 7, "stream": false, "stream_options": {}, "user": "u"}),
            &["stream", "stream_options", "user"],
        ),
        (
            "/v1/embeddings",
            json!({"model": "m", "input": ["a", "b"], "dimensions": 3, "encoding_format": "float", "user": "u"}),
            &["user"],
        ),
    ]
}

/// Every field, one after the other: other values are another question, or none for the cache.
#[test]
fn every_field_is_another_question() {
    for (path, base, outside) in requests() {
        let before = exact(path, &base).expect("cacheable");
        for (name, value) in base.as_object().expect("an object") {
            let other = match value {
                Value::String(text) => json!(format!("{text}!")),
                Value::Number(number) => json!(number.as_f64().expect("small") + 1.0),
                Value::Bool(flag) => json!(!flag),
                Value::Array(items) => {
                    json!([items.as_slice(), &[json!({"role": "user", "content": "More?"})]].concat())
                }
                _ => json!({"changed": true}),
            };
            let mut body = base.clone();
            body[name] = other;
            match exact(path, &body) {
                Ok(after) => assert_eq!(after == before, outside.contains(&name.as_str()), "{path}: {name}"),
                Err(reason) => {
                    let bypassed = [("store", Reason::Stateful), ("background", Reason::Stateful)];
                    let known = bypassed.contains(&(name.as_str(), reason)) || reason == Reason::NotCacheable;
                    assert!(known && name != "user" && name != "metadata", "{path}: {name} {reason:?}");
                }
            }
        }
    }
}

/// Two numbers that a double cannot tell apart are no reason to give one answer to both.
#[test]
fn numbers_that_lose_digits_are_not_cached() {
    let parse = |number: &str| -> Result<[u8; 32], Reason> {
        let body = format!(r#"{{"model":"m","seed":{number},"messages":[{{"role":"user","content":"Hi"}}]}}"#);
        exact(CHAT_PATH, &crate::wire::json::parse(body.as_bytes()).expect("JSON"))
    };
    let different = [
        "1",
        "2",
        "1.0",
        "9007199254740992",
        "9007199254740993",
        "18446744073709551615",
        "-9223372036854775808",
        "18446744073709551614",
        "-9223372036854775807",
        "0.1",
        "0.2",
        "-1",
    ];
    for (i, a) in different.iter().enumerate() {
        let key = parse(a).unwrap_or_else(|reason| panic!("{a}: {reason:?}"));
        for b in &different[i + 1..] {
            assert_ne!(Ok(key), parse(b), "{a} and {b}");
        }
    }
    for lossy in [
        "18446744073709551616",
        "18446744073709551617",
        "123456789012345678901234567890",
        "1e300",
        "-9223372036854775809",
        "9007199254740992.5",
    ] {
        assert_eq!(parse(lossy), Err(Reason::NotCacheable), "{lossy}");
    }
}

/// What one API says like another shares its answers; anything that differs keeps them apart.
#[test]
fn responses_share_with_chat_what_both_say_alike() {
    let scope = |path: &str, body: Value| exact(path, &body).expect("cacheable");
    let user = |text: &str| json!({"role": "user", "content": text});
    let chat = |more: Value| {
        let mut body = json!({"model": "m", "messages": [{"role": "developer", "content": "Brief."}, user("Hi")]});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        scope(CHAT_PATH, body)
    };
    let respond = |more: Value| {
        let developer =
            json!({"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Brief."}]});
        let mut body = json!({"model": "m", "store": false, "input": [developer, user("Hi")]});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        scope("/v1/responses", body)
    };
    for same in [json!({}), json!({"temperature": 0.5}), json!({"top_p": 0.9, "temperature": 0})] {
        assert_eq!(chat(same.clone()), respond(same));
    }
    for apart in [
        json!({"service_tier": "auto"}),
        json!({"instructions": "x"}),
        json!({"max_output_tokens": 5}),
        json!({"max_tokens": 5}),
        json!({"reasoning": {}}),
        json!({"text": {}}),
        json!({"unknown": 1}),
    ] {
        assert_ne!(chat(apart.clone()), respond(apart.clone()), "{apart}");
    }
    assert_ne!(chat(json!({"temperature": 0})), respond(json!({"temperature": 1})));
    let messages = json!({"model": "m", "messages": [user("Hi")]});
    assert_ne!(scope(CHAT_PATH, messages.clone()), scope(MESSAGES_PATH, messages));
}

/// An answer of one API as another's client gets it.
#[test]
fn an_answer_is_told_in_every_api() {
    let usage = Tokens { input: 9, cached: 4, output: 6, reasoning: 2 };
    let annotation = json!({"type": "url_citation", "url": "https://x.example", "start_index": 0, "end_index": 2});
    let told = Said { annotations: vec![annotation], ..said("Fine.", Some("Hm."), Some(usage)) };
    let requests = streamed();
    for from in &requests {
        for to in &requests {
            let object = replayed(to, &answer(from, &told));
            let heard = to.protocol.said(&object);
            assert_eq!(heard.text, "Fine.", "{} as {}", from.path(), to.path());
            assert_eq!(heard.usage.map(|tokens| (tokens.input, tokens.output)), Some((9, 6)));
            let openai = |request: &ProviderRequest| [CHAT_PATH, "/v1/responses"].contains(&request.path());
            if openai(from) && openai(to) {
                assert_eq!((heard.reasoning.as_deref(), heard.usage), (Some("Hm."), Some(usage)));
                assert_eq!(heard.annotations, told.annotations);
            }
        }
        let text = Answer { kind: AnswerKind::Text, body: "Fine.".into(), usage: None };
        let object = replayed(from, &text);
        assert_eq!(from.protocol.said(&object).text, "Fine.");
        assert_eq!(object["usage"]["nearhit"], json!({"cached": true, "provider_tokens": 0, "estimated": true}));
        let recorded = record(from, stream(from, &text, usize::MAX).as_bytes(), 5);
        assert_eq!(recorded.admission(from, &scope(from), 200), Admission::Keep, "{}", from.path());
    }
}

/// The turns of a kept request are those that its prompt had.
#[test]
fn the_turns_of_a_kept_request_are_read_again() {
    for (path, body, _) in requests() {
        let request = ProviderRequest::new(path, body).expect("a request");
        let turns = request.prompt(surroundings()).expect("cacheable").scope.turns;
        let origin = request.to_origin(Attributes::new());
        assert_eq!(earlier_turns(&origin), turns, "{path}");
        let stored = serde_json::to_string(&origin).expect("writable");
        assert_eq!(serde_json::from_str::<Origin>(&stored).expect("readable"), origin, "{path}");
    }
}

#[test]
fn a_stream_is_whole_only_with_its_end_mark() {
    let chunk = r#"{"id":"x","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}]}"#;
    let last = r#"{"id":"x","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let chat = &streamed()[0];
    let check = |stream: &str, whole: bool| assert_eq!(record(chat, stream.as_bytes(), 7).whole, whole, "{stream}");
    check(&format!("data: {chunk}\n\ndata: {last}\n\ndata: [DONE]\n\n"), true);
    check(&format!(": ping\r\n\r\ndata: {chunk}\r\n\r\ndata:{last}\r\n\r\ndata: [DONE]\r\n\r\n"), true);
    check(&format!("data: {chunk}\n\ndata: {last}\n\n"), false);
    check(&format!("data: {chunk}\n\ndata: {{\n\ndata: [DONE]\n\n"), false);
    check(&format!("data: {chunk}\n\ndata: [DONE]\n\ndata: {last}\n\n"), false);
    check(&format!("data: {}\n\ndata: [DONE]\n\n", chunk.replace("\"index\":0", "\"index\":1")), false);
}
