//! Answers that are passed on and never kept, and what became of them.

use std::io::Write;

use serde_json::{Value, json};

use super::{Setup, and, ask};
use crate::support::{Reply, chunks, completion, completion_with, event_stream};

/// A completion with one thing changed.
fn changed(pointer: &str, value: Value) -> Value {
    let mut body = completion("Fine.");
    *body.pointer_mut(pointer).expect("there") = value;
    body
}

fn with_message(field: &str, value: Value) -> Value {
    let mut body = completion("Fine.");
    body["choices"][0]["message"][field] = value;
    body
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

/// Asks twice: both go upstream, both get the provider's answer to the byte, and nothing is kept.
async fn check(setup: &Setup, row: &str, rule: &str, asked: Value, reply: impl Fn() -> Reply + Send + 'static) {
    setup.upstream.answer_with(move |_| reply());
    let (dropped, calls) = (setup.answers(rule).await, setup.upstream.count());
    let first = setup.client.chat(&asked).await;
    let second = setup.client.chat(&asked).await;
    assert_eq!(setup.upstream.count(), calls + 2, "{row}");
    assert_eq!((first.status, &first.body), (second.status, &second.body), "{row}");
    for answer in [first, second] {
        assert_eq!(answer.outcome().0, "miss", "{row}");
    }
    assert_eq!(setup.answers(rule).await, dropped + 2, "{row} was not dropped by {rule}");
}

#[tokio::test]
async fn answers_that_are_not_clean_are_not_kept() {
    let setup = Setup::start("").await;
    let asked = |row: &str| ask(&format!("Question of the row {row:?}"));
    for status in [201, 204, 301, 400, 401, 403, 404, 429, 500, 503] {
        let row = format!("status {status}");
        let reply = move || Reply::json(status, &completion("Not this."));
        check(&setup, &row, "status", asked(&row), reply).await;
    }
    let error = json!({"error": {"message": "overloaded", "type": "server_error", "param": null, "code": null}});
    let two =
        json!([completion("x")["choices"][0], {"index": 1, "message": {"content": "y"}, "finish_reason": "stop"}]);
    for (row, rule, body) in [
        ("length", "finish_reason", changed("/choices/0/finish_reason", json!("length"))),
        ("filtered", "finish_reason", changed("/choices/0/finish_reason", json!("content_filter"))),
        ("calls", "finish_reason", changed("/choices/0/finish_reason", json!("tool_calls"))),
        ("unfinished", "finish_reason", changed("/choices/0/finish_reason", Value::Null)),
        ("tool calls", "tool_calls", with_message("tool_calls", json!([{"id": "1"}]))),
        ("function call", "tool_calls", with_message("function_call", json!({"name": "f"}))),
        ("refusal", "refusal", with_message("refusal", json!("No."))),
        ("empty", "empty", completion("")),
        ("blank", "empty", completion(" \n")),
        ("null", "empty", with_message("content", Value::Null)),
        ("error", "error", error.clone()),
        ("error beside an answer", "error", and(completion("Fine."), error)),
        ("another model", "model", completion_with("Fine.", "another")),
        ("a smaller model", "model", completion_with("Fine.", "m-mini")),
        ("two choices", "choices", changed("/choices", two)),
        ("no choices", "choices", changed("/choices", json!([]))),
        ("choices missing", "choices", json!({"id": "x", "model": "m"})),
        ("an array", "not_json", json!([completion("Fine.")])),
    ] {
        check(&setup, row, rule, asked(row), move || Reply::json(200, &body)).await;
    }
    for (row, rule, media, body) in [
        ("html", "media_type", "text/html", "<html>Sign in to the hotel's network</html>".as_bytes().to_vec()),
        ("text", "media_type", "text/plain", completion("Fine.").to_string().into_bytes()),
        ("garbage", "not_json", "application/json", b"\x00\xff{".to_vec()),
        ("cut", "not_json", "application/json", completion("Fine.").to_string().into_bytes()[..60].to_vec()),
        ("nothing", "empty", "application/json", Vec::new()),
    ] {
        check(&setup, row, rule, asked(row), move || Reply::new(200, media, body.clone())).await;
    }
    let compressed = || {
        let body = gzip(&completion("Fine.").to_string());
        Reply::new(200, "application/json", body).header("content-encoding", "gzip")
    };
    check(&setup, "compressed", "encoding", asked("compressed"), compressed).await;
    assert_eq!(setup.entries().await, 0);
}

#[tokio::test]
async fn json_that_was_asked_for_must_be_json() {
    let setup = Setup::start("").await;
    let asked = |kind: &str, row: &str| and(ask(row), json!({"response_format": {"type": kind}}));
    for (row, text) in [("prose", "Here you are:"), ("cut", "{\"a\": "), ("fenced", "```json\n{}\n```")] {
        for kind in ["json_object", "json_schema"] {
            check(&setup, row, "json", asked(kind, row), move || Reply::json(200, &completion(text))).await;
        }
    }
    assert_eq!(setup.entries().await, 0);
    setup.upstream.answer_with(|_| Reply::json(200, &completion("{\"a\": [1]}")));
    setup.client.chat(&asked("json_object", "valid")).await.check(200);
    setup.client.wait_for_entries(1).await;
}

#[tokio::test]
async fn streams_that_did_not_end_well_are_not_kept() {
    let setup = Setup::start("").await;
    let asked = |row: &str| and(ask(&format!("Question of the row {row:?}")), json!({"stream": true}));
    let good = || chunks("One two three.", "m");
    let change = |index: usize, pointer: &str, value: Value| {
        let mut chunks = good();
        *chunks[index].pointer_mut(pointer).expect("there") = value;
        event_stream(&chunks)
    };
    let without_end = event_stream(&good()).replace("data: [DONE]\n\n", "");
    let error = "data: {\"error\": {\"message\": \"overloaded\"}}\n\n";
    let mut second = good();
    second.insert(2, json!({"id": "x", "model": "m", "choices": [{"index": 1, "delta": {"content": "Uno."}}]}));
    let mut calling = good();
    calling[1]["choices"][0]["delta"]["tool_calls"] = json!([{"index": 0, "id": "1"}]);
    for (row, rule, stream) in [
        ("no end mark", "incomplete", without_end.clone()),
        ("half an event", "incomplete", without_end[..without_end.len() - 9].to_owned()),
        ("end mark without its end", "incomplete", event_stream(&good()).trim_end().to_owned()),
        ("an event that is no JSON", "incomplete", event_stream(&good()).replacen("data: {", "data: {{", 2)),
        ("an event that is no object", "incomplete", format!("data: [1]\n\n{}", event_stream(&good()))),
        ("two choices", "incomplete", event_stream(&second)),
        ("nothing but the end", "finish_reason", "data: [DONE]\n\n".to_owned()),
        ("no events", "empty", String::new()),
        ("an error at the end", "error", format!("{without_end}{error}data: [DONE]\n\n")),
        ("an error instead of the end", "incomplete", format!("{without_end}{error}")),
        ("length", "finish_reason", change(4, "/choices/0/finish_reason", json!("length"))),
        ("no finish", "finish_reason", change(4, "/choices/0/finish_reason", Value::Null)),
        ("another model", "model", event_stream(&chunks("One.", "another"))),
        ("tool calls", "tool_calls", event_stream(&calling)),
        ("refusal", "refusal", change(1, "/choices/0/delta", json!({"refusal": "No."}))),
        ("nothing said", "empty", event_stream(&chunks("", "m"))),
    ] {
        check(&setup, row, rule, asked(row), move || Reply::events(stream.clone())).await;
    }
    assert_eq!(setup.entries().await, 0);

    // The same without a fault is kept.
    setup.upstream.answer_with(move |_| Reply::events(event_stream(&chunks("One two three.", "m"))));
    setup.client.chat(&asked("good")).await.check(200);
    setup.client.wait_for_entries(1).await;
}

/// What depends on now is not recorded where the operator says so, and not for long elsewhere.
#[tokio::test]
async fn answers_of_now_are_kept_as_the_operator_says() {
    let weather = || ask("What is the weather in Oslo today?");
    let setup = Setup::with_config("Rain.", "[cache]\nperishable = \"miss\"").await;
    for _ in 0..2 {
        let miss = setup.client.chat(&weather()).await.check(200);
        assert_eq!(miss.outcome(), ("miss", "perishable"));
    }
    assert_eq!((setup.upstream.count(), setup.answers("perishable").await), (2, 2));
    setup.learn(&setup.client, &ask("How do I boil an egg?")).await;
    assert_eq!(setup.entries().await, 1);

    let setup = Setup::start("Rain.").await;
    let patient = setup.client.with("x-nearhit-ttl", "7200");
    setup.learn(&patient, &weather()).await;
    setup.learn(&patient, &ask("How do I boil an egg?")).await;
    let listed = setup.client.get("/v1/caches/default/entries").await.check(200).json();
    let mut lives: Vec<u64> = listed["data"]
        .as_array()
        .expect("a page")
        .iter()
        .map(|entry| entry["expiresMs"].as_u64().expect("ms") - entry["createdMs"].as_u64().expect("ms"))
        .collect();
    lives.sort_unstable();
    assert_eq!(lives, [300_000, 7_200_000]);
}
