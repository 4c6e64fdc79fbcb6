//! What an answer depends on: whatever differs there, the answer is another one.

use serde_json::{Value, json};

use super::{Setup, and, ask, said};
use crate::support::{Client, Reply};

/// A provider that never says the same twice.
async fn counting() -> Setup {
    let setup = Setup::start("").await;
    let mut count = 0;
    setup.upstream.answer_with(move |call| {
        count += 1;
        Reply::saying(&format!("answer {count}"), call)
    });
    setup
}

fn with_headers(client: &Client, headers: &[(&str, &str)]) -> Client {
    headers.iter().fold(client.clone(), |client, (name, value)| client.with(name, value))
}

/// Each row differs from every other in one thing: it is asked upstream once, and gets its own answer from then on.
#[tokio::test]
async fn everything_but_the_last_text_is_compared_exactly() {
    let setup = counting().await;
    let user = |content: Value| json!({"role": "user", "content": content});
    let last = user(json!("Hi"));
    let turns = |turns: &[Value]| json!({"messages": turns});
    let none: &[(&str, &str)] = &[];
    let rows = [
        (none, json!({})),
        (none, turns(&[json!({"role": "system", "content": "Be brief."}), last.clone()])),
        (none, turns(&[json!({"role": "system", "content": "Be brief"}), last.clone()])),
        (none, turns(&[json!({"role": "developer", "content": "Be brief."}), last.clone()])),
        (none, turns(&[user(json!("Be brief.")), last.clone()])),
        (none, turns(&[user(json!("Be brief.")), json!({"role": "assistant", "content": "Yes."}), last.clone()])),
        (none, turns(&[user(json!("Be brief.")), json!({"role": "assistant", "content": "No."}), last.clone()])),
        (none, turns(&[json!({"role": "user", "content": "Hi", "name": "ada"})])),
        (none, turns(&[user(json!([{"type": "text", "text": "So."}, {"type": "text", "text": "Hi"}]))])),
        (none, json!({"model": "n"})),
        (none, json!({"temperature": 0})),
        (none, json!({"temperature": 0.0})),
        (none, json!({"temperature": 1})),
        (none, json!({"top_p": 0.5})),
        (none, json!({"seed": 1})),
        (none, json!({"max_tokens": 10})),
        (none, json!({"response_format": {"type": "text"}})),
        (none, json!({"tool_choice": "none"})),
        (none, json!({"unheard_of": {"a": [1, {"b": null}]}})),
        (none, json!({"unheard_of": {"a": [1, {"b": 0}]}})),
        (&[("openai-organization", "o")], json!({})),
        (&[("openai-project", "p")], json!({})),
        (&[("openai-project", "q")], json!({})),
        (&[("openai-beta", "assistants=v2")], json!({})),
        (&[("x-nearhit-cache", "another")], json!({})),
        (none, json!({"cache": {"namespace": "a-third"}})),
    ];
    let mut answers = Vec::new();
    for (asked, (headers, more)) in rows.iter().enumerate() {
        let body = and(ask("Hi"), more.clone());
        let miss = setup.learn(&with_headers(&setup.client, headers), &body).await;
        assert_eq!(setup.upstream.count(), asked + 1);
        answers.push(said(&miss));
    }
    for ((headers, more), expected) in rows.iter().zip(&answers) {
        let body = and(ask("Hi"), more.clone());
        let hit = with_headers(&setup.client, headers).chat(&body).await.check(200);
        assert_eq!((hit.outcome(), &said(&hit)), (("hit", "exact"), expected), "{headers:?} {body}");
    }
    assert_eq!(setup.upstream.count(), rows.len());
}

#[tokio::test]
async fn what_does_not_change_an_answer_is_no_part_of_the_question() {
    let setup = counting().await;
    setup.learn(&setup.client, &and(ask("Hi"), json!({"seed": 1, "unheard_of": {"a": 1, "b": 2}}))).await;
    let same = r#"{"unheard_of":{"b":2,"a":1},"messages":[{"content":"Hi","role":"user"}],"seed":1,"model":"m"}"#;
    let reordered: Value = serde_json::from_str(same).expect("JSON");
    let none: &[(&str, &str)] = &[];
    for (headers, more) in [
        (none, json!({})),
        (none, json!({"stream": false})),
        (none, json!({"stream": true, "stream_options": {"include_usage": true}})),
        (none, json!({"user": "ada", "metadata": {"trace": "1"}})),
        (none, json!({"safety_identifier": "x", "prompt_cache_key": "y", "store": false})),
        (none, json!({"cache": {"ttl": 60}, "nearhit": {}})),
        (&[("user-agent", "another client"), ("x-stainless-lang", "rust"), ("accept", "*/*")], json!({})),
        (&[("x-nearhit-cache", "default"), ("x-nearhit-tags", "t")], json!({})),
    ] {
        let hit = with_headers(&setup.client, headers).chat(&and(reordered.clone(), more.clone())).await.check(200);
        assert_eq!((hit.outcome(), said(&hit).as_str()), (("hit", "exact"), "answer 1"), "{headers:?} {more}");
    }
    assert_eq!(setup.client.post_bytes("/v1/chat/completions", same).await.check(200).outcome().0, "hit");
    assert_eq!(setup.upstream.count(), 1);
}

/// Not even for the asking: whoever calls with another key asks the provider with that key.
#[tokio::test]
async fn two_keys_never_share_an_answer() {
    let setup = counting().await;
    let (ada, bob) = (setup.client.clone(), setup.server.client("sk-bob"));
    let anonymous = setup.server.client("");
    for (client, expected) in [(&ada, "answer 1"), (&bob, "answer 2"), (&anonymous, "answer 3")] {
        let miss = client.chat(&ask("Hi")).await.check(200);
        assert_eq!((miss.outcome().0, said(&miss).as_str()), ("miss", expected));
        client.wait_for_entries(1).await;
    }
    for (client, expected) in [(&ada, "answer 1"), (&bob, "answer 2"), (&anonymous, "answer 3")] {
        let hit = client.chat(&ask("Hi")).await.check(200);
        assert_eq!((hit.outcome(), said(&hit).as_str()), (("hit", "exact"), expected));
    }
    let stolen = bob.with("cache-control", "only-if-cached").chat(&ask("Hello")).await;
    stolen.refusal(504, "only_if_cached");
}

/// A query may be a parameter too, and nobody knows of what: it is sent on, and the answer is not kept.
#[tokio::test]
async fn a_query_is_part_of_the_question() {
    let setup = counting().await;
    let path = "/v1/chat/completions";
    setup.client.post(path, &ask("Hi")).await.check(200);
    setup.client.wait_for_entries(1).await;
    for query in ["?api-version=1", "?api-version=2", "?"] {
        let answer = setup.client.post(&format!("{path}{query}"), &ask("Hi")).await.check(200);
        assert_ne!(said(&answer), "answer 1", "{query}");
    }
    assert_eq!(setup.client.post(path, &ask("Hi")).await.check(200).outcome(), ("hit", "exact"));
}
