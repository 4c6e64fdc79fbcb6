//! What a proxied call asks of the cache, asked wrongly: refused before anything goes upstream.

use serde_json::{Value, json};

use super::{Besieged, CHAT, Refusal, with};

fn chat(field: &str, value: Value) -> Value {
    with(json!({"model": "m", "messages": [{"role": "user", "content": "p"}]}), field, value)
}

#[tokio::test]
async fn control_headers() {
    let besieged = Besieged::start("").await;
    for (name, value) in [
        ("x-nearhit-threshold", "1.1"),
        ("x-nearhit-threshold", "-0.1"),
        ("x-nearhit-threshold", "NaN"),
        ("x-nearhit-threshold", "high"),
        ("x-nearhit-max-error", "-1"),
        ("x-nearhit-max-error", "2"),
        ("x-nearhit-ttl", "-1"),
        ("x-nearhit-ttl", "0"),
        ("x-nearhit-ttl", "1e18"),
        ("x-nearhit-ttl", "1h"),
        ("x-nearhit-cache", "../x"),
        ("x-nearhit-cache", "Default"),
        ("x-nearhit-cache", "a b"),
        ("x-nearhit-sources", "manual"),
        ("x-nearhit-sources", "@7"),
        ("x-nearhit-vars", "{"),
        ("x-nearhit-vars", "[]"),
        ("x-nearhit-vars", "%7B%22n%22%3A1%7D"),
        ("x-nearhit-vars", "%ff"),
    ] {
        let client = besieged.client.with(name, value);
        let answer = client.post(CHAT, &chat("temperature", json!(0))).await;
        Refusal { status: 400, code: "invalid_value", param: name, words: &[value] }.check(value, &answer);
    }
    let answer = besieged.client.with("cache-control", "max-age=soon").post(CHAT, &chat("seed", json!(1))).await;
    let refusal = Refusal { status: 400, code: "invalid_value", param: "cache-control: max-age", words: &["soon"] };
    refusal.check("max-age=soon", &answer);
    besieged.check_unharmed().await;
}

#[tokio::test]
async fn control_fields_of_the_body() {
    let besieged = Besieged::start("").await;
    for (field, value, param, word) in [
        ("cache", json!(true), "cache", "true"),
        ("cache", json!({"ttl": -1}), "cache.ttl", "-1"),
        ("cache", json!({"ttl": "1h"}), "cache.ttl", "1h"),
        ("cache", json!({"s-maxage": -5}), "cache.s-maxage", "-5"),
        ("cache", json!({"no-cache": "yes"}), "cache.no-cache", "yes"),
        ("cache", json!({"namespace": "../x"}), "cache.namespace", "../x"),
        ("cache", json!({"nocache": true}), "cache.nocache", "true"),
        ("nearhit", json!({"vars": {"n": 1}}), "nearhit.vars", r#"{\"n\":1}"#),
        ("nearhit", json!({"vars": "n"}), "nearhit.vars", r#"\"n\""#),
    ] {
        let answer = besieged.client.post(CHAT, &chat(field, value)).await;
        Refusal { status: 400, code: "invalid_value", param, words: &[word] }.check(param, &answer);
    }
    besieged.check_unharmed().await;
}
