//! Fields of the cache API with values that they cannot have. Each row names the field and the value.

use http::Method;
use serde_json::{Value, json};

use super::{Besieged, INSERT, Refusal, SEARCH, with};

fn search(field: &str, value: Value) -> Value {
    with(json!({"prompt": "p"}), field, value)
}

fn insert(field: &str, value: Value) -> Value {
    with(json!({"prompt": "p", "response": "r"}), field, value)
}

#[tokio::test]
async fn fields_of_a_search() {
    let besieged = Besieged::start("").await;
    let request = json!({"model": "m", "messages": [{"role": "user", "content": "p"}]});
    let many: serde_json::Map<String, Value> = (0..65).map(|n| (format!("name{n}"), json!("v"))).collect();
    for (body, param, words) in [
        (json!({}), "prompt", vec!["missing"]),
        (json!({"prompt": null}), "prompt", vec!["missing"]),
        (json!({"prompt": ""}), "prompt", vec!["\"\""]),
        (json!({"prompt": " \n\t"}), "prompt", vec![r#"" \n\t""#]),
        (json!({"prompt": 7}), "prompt", vec!["7", "string"]),
        (json!({"prompt": ["p"]}), "prompt", vec!["string"]),
        (json!({"prompt": "p", "request": request}), "request", vec!["either"]),
        (json!({"request": "p"}), "request", vec!["a string"]),
        (json!({"request": []}), "request", vec!["an array"]),
        (json!({"request": request, "context": "c"}), "context", vec!["prompt"]),
        (json!({"request": request, "headers": {"x-mine": "1"}}), "headers", vec!["x-mine", "openai-project"]),
        (search("headers", json!({"openai-project": "p"})), "headers", vec!["request"]),
        (search("context", json!(["c"])), "context", vec!["string"]),
        (search("unheard_of", json!(1)), "unheard_of", vec!["unknown field"]),
        (search("similarity_threshold", json!(1)), "similarity_threshold", vec!["similarityThreshold"]),
        (search("similarityThreshold", json!(-1)), "similarityThreshold", vec!["-1"]),
        (search("similarityThreshold", json!(1.1)), "similarityThreshold", vec!["1.1"]),
        (search("similarityThreshold", json!("x")), "similarityThreshold", vec!["\"x\""]),
        (search("similarityThreshold", json!("NaN")), "similarityThreshold", vec!["NaN"]),
        (search("maxErrorRate", json!(-1)), "maxErrorRate", vec!["-1"]),
        (search("maxErrorRate", json!(1.5)), "maxErrorRate", vec!["1.5"]),
        (search("maxErrorRate", json!(true)), "maxErrorRate", vec!["true"]),
        (search("limit", json!(0)), "limit", vec!["0", "100"]),
        (search("limit", json!(-1)), "limit", vec!["-1"]),
        (search("limit", json!(101)), "limit", vec!["101"]),
        (search("limit", json!(1_000_000_000)), "limit", vec!["1000000000"]),
        (search("limit", json!(1.5)), "limit", vec!["1.5"]),
        (search("limit", json!("1")), "limit", vec!["\"1\""]),
        (search("limit", json!(u64::MAX)), "limit", vec!["18446744073709551615"]),
        (search("searchStrategies", json!("exact")), "searchStrategies", vec!["exact"]),
        (search("searchStrategies", json!(["fuzzy"])), "searchStrategies[0]", vec!["fuzzy"]),
        (search("searchStrategies", json!([])), "searchStrategies", vec!["[]"]),
        (search("attributes", json!({"locale": 1})), "attributes.locale", vec!["1"]),
        (search("attributes", json!(["en"])), "attributes", vec!["map"]),
        (search("attributes", json!(many)), "attributes", vec!["65", "64"]),
        (search("attributes", json!({"a": "v".repeat(1025)})), "attributes", vec!["1025", "1024"]),
        (search("attributes", json!({"n".repeat(2000): "v"})), "attributes", vec!["2000", "nnn"]),
        (search("vars", json!({"order": 7})), "vars.order", vec!["7"]),
        (search("vars", json!(many)), "vars", vec!["65"]),
        (search("vector", json!([1.0])), "vector", vec!["external"]),
        (search("response", json!("r")), "response", vec!["unknown field"]),
    ] {
        let answer = besieged.client.post(SEARCH, &body).await;
        let sent = body.to_string().chars().take(200).collect::<String>();
        Refusal { status: 400, code: "invalid_value", param, words: &words }.check(&sent, &answer);
    }
    besieged.check_unharmed().await;
}

#[tokio::test]
async fn fields_of_an_insert() {
    let besieged = Besieged::start("").await;
    let tags: Vec<String> = (0..65).map(|n| n.to_string()).collect();
    let tools = json!({"model": "m", "messages": [{"role": "user", "content": "p"}], "tools": [{"type": "function"}]});
    for (body, param, words) in [
        (json!({"prompt": "p"}), "", vec!["response", "missing"]),
        (json!({"response": "r"}), "prompt", vec!["missing"]),
        (insert("prompt", json!("\u{a0}")), "prompt", vec!["text"]),
        (insert("response", json!("")), "response", vec!["empty"]),
        (insert("response", json!(null)), "response", vec!["null"]),
        (insert("response", json!(7)), "response", vec!["7"]),
        (insert("response", json!(["r"])), "response", vec!["[\"r\"]"]),
        (insert("response", json!({})), "response", vec!["choices[0].message.content"]),
        (insert("response", json!({"choices": []})), "response", vec!["choices[0].message.content"]),
        (insert("ttlMillis", json!(-1)), "ttlMillis", vec!["-1"]),
        (insert("ttlMillis", json!(0)), "ttlMillis", vec!["0"]),
        (insert("ttlMillis", json!(1_000_000_000_000_000_000u64)), "ttlMillis", vec!["1000000000000000000"]),
        (insert("ttlMillis", json!(1e18)), "ttlMillis", vec!["1e+18"]),
        (insert("ttlMillis", json!(i64::MIN)), "ttlMillis", vec!["-9223372036854775808"]),
        (insert("ttlMillis", json!(1.5)), "ttlMillis", vec!["1.5"]),
        (insert("ttlMillis", json!("1h")), "ttlMillis", vec!["1h"]),
        (insert("createdMs", json!(-1)), "createdMs", vec!["-1"]),
        (insert("tags", json!("t")), "tags", vec!["\"t\""]),
        (insert("tags", json!(tags)), "tags", vec!["65"]),
        (insert("tags", json!(["t".repeat(2000)])), "tags", vec!["2000"]),
        (insert("sources", json!([{"id": "manual"}])), "sources[0]", vec!["version"]),
        (insert("sources", json!(["manual@7"])), "sources[0]", vec!["manual@7"]),
        (insert("idempotencyKey", json!(7)), "idempotencyKey", vec!["7"]),
        (insert("vector", json!([1.0])), "vector", vec!["external"]),
        (insert("limit", json!(1)), "limit", vec!["unknown field"]),
        (json!({"request": tools, "response": "r"}), "request", vec!["tools_in_use"]),
        (json!({"request": {}, "response": "r"}), "request", vec!["not_cacheable"]),
    ] {
        let answer = besieged.client.post(INSERT, &body).await;
        let sent = body.to_string().chars().take(200).collect::<String>();
        Refusal { status: 400, code: "invalid_value", param, words: &words }.check(&sent, &answer);
    }
    let large = insert("response", json!("r".repeat((1 << 20) + 1)));
    let refusal = Refusal { status: 413, code: "answer_too_large", param: "response", words: &["1048576"] };
    refusal.check("a response over 1 MiB", &besieged.client.post(INSERT, &large).await);
    besieged.check_unharmed().await;
}

#[tokio::test]
async fn fields_of_everything_else() {
    let besieged = Besieged::start("").await;
    let delete = "/v1/caches/default/entries/delete";
    let flush = "/v1/caches/default/flush";
    for (path, body, param, words) in [
        (delete, json!({}), "attributes", vec!["empty"]),
        (delete, json!({"attributes": {}}), "attributes", vec!["empty"]),
        (delete, json!({"tags": [], "dryRun": false}), "attributes", vec!["empty"]),
        (delete, json!({"sources": []}), "attributes", vec!["empty"]),
        (delete, json!({"writer": ""}), "attributes", vec!["empty"]),
        (delete, json!({"tags": ["t"], "writer": "w"}), "attributes", vec!["one of"]),
        (delete, json!({"tag": ["t"]}), "tag", vec!["unknown field"]),
        (delete, json!({"all": true}), "all", vec!["unknown field"]),
        (delete, json!({"olderThanMs": -1}), "olderThanMs", vec!["-1"]),
        (delete, json!({"tags": ["t"], "dryRun": "yes"}), "dryRun", vec!["yes"]),
        (flush, json!({}), "", vec!["confirm", "missing"]),
        (flush, json!({"confirm": true}), "confirm", vec!["true"]),
        (flush, json!({"confirm": "other"}), "confirm", vec!["\"default\"", "\"other\""]),
        (flush, json!({"confirm": "default", "force": true}), "force", vec!["unknown field"]),
    ] {
        let answer = besieged.client.post(path, &body).await;
        Refusal { status: 400, code: "invalid_value", param, words: &words }.check(&body.to_string(), &answer);
    }
    for (path, param, words) in [
        ("/v1/caches/default/entries?limit=0", "limit", vec!["0", "1000"]),
        ("/v1/caches/default/entries?limit=1001", "limit", vec!["1001"]),
        ("/v1/caches/default/entries?limit=-1", "limit", vec!["-1"]),
        ("/v1/caches/default/entries?limit=x", "limit", vec!["x"]),
        ("/v1/caches/default/entries?cursor=xyz", "cursor", vec!["xyz"]),
        ("/v1/caches/default/entries?cursor=", "cursor", vec!["\"\""]),
        ("/v1/caches/default/entries?curser=x", "curser", vec!["unknown"]),
    ] {
        let answer = besieged.client.get(path).await;
        Refusal { status: 400, code: "invalid_value", param, words: &words }.check(path, &answer);
    }
    besieged.check_unharmed().await;
}

#[tokio::test]
async fn names_that_no_cache_can_have() {
    let besieged = Besieged::start("").await;
    let long = "a".repeat(65);
    for (name, shown) in [
        ("Default", "Default"),
        ("-a", "-a"),
        ("_a", "_a"),
        ("a.b", "a.b"),
        ("a%20b", "a b"),
        ("a%2Fb", "a/b"),
        ("%2e%2e", ".."),
        ("a%00", "a\\0"),
        ("%C3%A9", "é"),
        (&long, &long),
        ("", "\"\""),
    ] {
        for (method, rest) in [("GET", "stats"), ("POST", "entries/search"), ("POST", "entries"), ("POST", "flush")] {
            let path = format!("/v1/caches/{name}/{rest}");
            let answer = besieged.client.send(method.parse().expect("a method"), &path, "{}").await;
            Refusal { status: 400, code: "invalid_value", param: "cache", words: &[shown] }.check(&path, &answer);
        }
    }
    // Not even text.
    let answer = besieged.client.get("/v1/caches/%ff/stats").await;
    Refusal { status: 400, code: "invalid_value", param: "cache", words: &["UTF-8"] }.check("%ff", &answer);
    besieged.check_unharmed().await;
}

#[tokio::test]
async fn batches_that_are_none() {
    let besieged = Besieged::start("").await;
    let too_many = |item: Value| Value::Array(vec![item; 1001]);
    for (path, field, item) in [
        (format!("{INSERT}/batch"), "entries", json!({"prompt": "p", "response": "r"})),
        (format!("{SEARCH}/batch"), "searches", json!({"prompt": "p"})),
    ] {
        for (body, status, code, param, words) in [
            (json!({}), 400, "invalid_value", field, vec!["missing"]),
            (json!({field: {}}), 400, "invalid_value", field, vec!["array", "{}"]),
            (json!({field: null}), 400, "invalid_value", field, vec!["array", "null"]),
            (json!({field: [], "more": 1}), 400, "invalid_value", "more", vec!["unknown field"]),
            (json!({field: too_many(item)}), 413, "batch_too_large", field, vec!["1001", "1000"]),
        ] {
            let answer = besieged.client.post(&path, &body).await;
            Refusal { status, code, param, words: &words }.check(&format!("{path} {param}"), &answer);
        }
    }
    // The longest batch there may be is taken, whatever is wrong with its items.
    let items = Value::Array(vec![json!({"prompt": ""}); 1000]);
    let answer = besieged.client.post(&format!("{SEARCH}/batch"), &json!({"searches": items})).await.check(200);
    assert_eq!(answer.json()["results"].as_array().map(Vec::len), Some(1000));
    let bare = besieged.client.send(Method::GET, "/v1/caches/default/entries/batch", "").await;
    bare.refusal(405, "method_not_allowed");
    besieged.check_unharmed().await;
}
