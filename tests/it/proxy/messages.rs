//! Anthropic's messages: looked up, kept and replayed, whole and streamed.

use serde_json::{Value, json};

use super::{Recording, Setup, and};
use crate::support::{Answer, Client, Reply, until};

const MESSAGES: &str = "/v1/messages";

fn ask(text: &str) -> Value {
    json!({"model": "claude", "max_tokens": 100, "messages": [{"role": "user", "content": text}]})
}

/// A message that thinks, then says `text`.
fn message(text: &str) -> Value {
    json!({
        "id": "msg_upstream", "type": "message", "role": "assistant", "model": "claude-20250101",
        "content": [{"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"}, {"type": "text", "text": text}],
        "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 12, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 3, "output_tokens": 9},
    })
}

fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().expect("a type"))
}

/// The same as a stream, a word at a time.
fn events(text: &str) -> Vec<Value> {
    let mut begun = message("");
    begun["content"] = json!([]);
    begun["stop_reason"] = Value::Null;
    begun["usage"]["output_tokens"] = json!(1);
    let delta = |index: usize, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let start =
        |index: usize, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
    let stop = |index: usize| json!({"type": "content_block_stop", "index": index});
    let mut events = vec![
        json!({"type": "message_start", "message": begun}),
        start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
        json!({"type": "ping"}),
        delta(0, json!({"type": "thinking_delta", "thinking": "Let me "})),
        delta(0, json!({"type": "thinking_delta", "thinking": "see."})),
        delta(0, json!({"type": "signature_delta", "signature": "c2ln"})),
        stop(0),
        start(1, json!({"type": "text", "text": ""})),
    ];
    let words = text.split_inclusive(' ');
    events.extend(words.map(|word| delta(1, json!({"type": "text_delta", "text": word}))));
    let end = json!({"stop_reason": "end_turn", "stop_sequence": null});
    let usage = json!({"input_tokens": 12, "cache_read_input_tokens": 3, "output_tokens": 9});
    events.extend([
        stop(1),
        json!({"type": "message_delta", "delta": end, "usage": usage}),
        json!({"type": "message_stop"}),
    ]);
    events
}

fn stream(events: &[Value]) -> String {
    events.iter().map(event).collect()
}

/// A whole stream, and a call that it answers.
pub(super) fn recording() -> Recording {
    (MESSAGES, and(ask("Hi"), json!({"stream": true})), stream(&events("It is fine.")))
}

/// The message that an answer amounts to, whole or streamed: what Anthropic's own clients make of it.
#[track_caller]
fn read(answer: &Answer) -> Value {
    if !answer.header("content-type").starts_with("text/event-stream") {
        return answer.json();
    }
    let mut message = Value::Null;
    for part in answer.text().split_terminator("\n\n") {
        let (name, data) = part.split_once('\n').expect("two lines");
        let event: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        assert_eq!(name.strip_prefix("event: "), event["type"].as_str(), "{part}");
        let index = event["index"].as_u64().map(|index| usize::try_from(index).expect("small"));
        match event["type"].as_str().expect("a type") {
            "message_start" => message = event["message"].clone(),
            "content_block_start" => {
                message["content"].as_array_mut().expect("a list").push(event["content_block"].clone());
            }
            "content_block_delta" => {
                let block = &mut message["content"][index.expect("an index")];
                for field in ["text", "thinking", "signature"] {
                    if let Some(more) = event["delta"][field].as_str() {
                        block[field] = json!(format!("{}{more}", block[field].as_str().expect("a text")));
                    }
                }
            }
            "message_delta" => {
                message["stop_reason"] = event["delta"]["stop_reason"].clone();
                message["usage"]["output_tokens"] = event["usage"]["output_tokens"].clone();
            }
            _ => {}
        }
    }
    assert!(answer.text().ends_with("data: {\"type\":\"message_stop\"}\n\n"), "{}", answer.text());
    message
}

async fn start() -> Setup {
    let setup = Setup::start("").await;
    setup.upstream.answer_with(|call| match call.json()["stream"] {
        Value::Bool(true) => Reply::events(stream(&events("It is fine."))),
        _ => Reply::json(200, &message("It is fine.")),
    });
    setup
}

async fn learn(setup: &Setup, client: &Client, asked: &Value) -> Answer {
    let kept = setup.answers("kept").await;
    let answer = client.post(MESSAGES, asked).await.check(200);
    assert_eq!(answer.outcome().0, "miss", "{asked}");
    until("the answer is kept", async || (setup.answers("kept").await > kept).then_some(())).await;
    answer
}

/// Recorded from either form, replayed in either form.
#[tokio::test]
async fn a_message_serves_whole_and_streamed() {
    let setup = start().await;
    let (whole, streamed) = (json!({}), json!({"stream": true}));
    for (row, stored, asked) in [
        ("whole, whole", &whole, &whole),
        ("whole, streamed", &whole, &streamed),
        ("streamed, whole", &streamed, &whole),
        ("streamed, streamed", &streamed, &streamed),
    ] {
        let question = and(ask("Hi"), json!({"system": row}));
        let miss = learn(&setup, &setup.client, &and(question.clone(), stored.clone())).await;
        let hit = setup.client.post(MESSAGES, &and(question, asked.clone())).await.check(200);
        assert_eq!(hit.outcome(), ("hit", "exact"), "{row}");
        let (miss, mut hit) = (read(&miss), read(&hit));
        assert!(hit["id"].as_str().is_some_and(|id| id.starts_with("msg_") && id != "msg_upstream"), "{row}: {hit}");
        assert_eq!(hit["usage"]["nearhit"], json!({"cached": true, "provider_tokens": 0}), "{row}");
        hit["id"] = miss["id"].clone();
        hit["usage"].as_object_mut().expect("usage").remove("nearhit");
        assert_eq!(hit, miss, "{row}");
        assert_eq!(hit["content"], message("It is fine.")["content"]);
    }
    assert_eq!(setup.upstream.count(), 4);
}

#[tokio::test]
async fn what_an_answer_does_not_depend_on_is_left_out() {
    let setup = start().await;
    let system = |text: &str, cached: bool| {
        let mut block = json!({"type": "text", "text": text});
        if cached {
            block["cache_control"] = json!({"type": "ephemeral"});
        }
        json!({"system": [block]})
    };
    let asked = and(ask("Hi"), json!({"system": "Brief."}));
    learn(&setup, &setup.client, &asked).await;
    let part =
        json!([{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}]);
    for same in [
        system("Brief.", false),
        system("Brief.", true),
        json!({"metadata": {"user_id": "u"}}),
        json!({"messages": part}),
        json!({"cache_control": {"type": "ephemeral"}}),
    ] {
        let body = and(asked.clone(), same);
        assert_eq!(setup.client.post(MESSAGES, &body).await.check(200).outcome(), ("hit", "exact"), "{body}");
    }
    let mut kept = 1;
    for other in [
        system("Long.", true),
        json!({"max_tokens": 7}),
        json!({"thinking": {"type": "enabled", "budget_tokens": 5}}),
        json!({"top_k": 5}),
        json!({"stop_sequences": ["x"]}),
        json!({"messages": [{"role": "user", "content": "One"}, {"role": "user", "content": "Hi"}]}),
    ] {
        let body = and(asked.clone(), other);
        let bytes = body.to_string();
        let miss = setup.client.post_bytes(MESSAGES, bytes.clone()).await.check(200);
        assert_eq!(miss.outcome().0, "miss", "{body}");
        assert_eq!(setup.upstream.last().body, bytes, "forwarded as it came");
        kept += 1;
        setup.client.wait_for_entries(kept).await;
    }
    // Without a length the provider refuses, not the cache.
    let mut without = ask("Hi");
    without.as_object_mut().expect("an object").remove("max_tokens");
    assert_eq!(setup.client.post(MESSAGES, &without).await.check(200).outcome().0, "miss");
    let versioned = setup.client.with("anthropic-version", "2023-06-01");
    assert_eq!(versioned.post(MESSAGES, &asked).await.check(200).outcome().0, "miss", "the version counts");
}

#[tokio::test]
async fn what_cannot_be_cached_goes_to_the_provider_every_time() {
    let setup = start().await;
    let last = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    let text = json!({"type": "text", "text": "Hi"});
    for (more, reason) in [
        (json!({"tools": [{"name": "f", "input_schema": {}}]}), "tools_in_use"),
        (json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}), "tools_in_use"),
        (json!({"mcp_servers": [{"url": "https://x.example"}]}), "tools_in_use"),
        (last(json!([{"type": "tool_result", "tool_use_id": "1", "content": "7"}, text])), "tools_in_use"),
        (last(json!([{"type": "image", "source": {}}, text])), "multimodal"),
        (last(json!([{"type": "document", "source": {}}, text])), "multimodal"),
        (last(json!([{"type": "web_search_tool_result", "content": []}, text])), "multimodal"),
        (json!({"container": "c1"}), "stateful"),
        (last(json!([{"type": "hologram"}, text])), "not_cacheable"),
        (last(json!([])), "not_cacheable"),
        (last(json!(" \n")), "not_cacheable"),
        (json!({"system": 7}), "not_cacheable"),
        (json!({"messages": []}), "not_cacheable"),
        (
            json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "So"}]}),
            "not_cacheable",
        ),
        (json!({"messages": [{"role": "system", "content": "Hi"}]}), "not_cacheable"),
        (json!({"temperature": "hot"}), "not_cacheable"),
        (json!({"stream": 1}), "not_cacheable"),
        (json!({"seed": 1e30}), "not_cacheable"),
    ] {
        let body = and(ask("Hi"), more).to_string();
        for _ in 0..2 {
            let calls = setup.upstream.count();
            let answer = setup.client.post_bytes(MESSAGES, body.clone()).await.check(200);
            assert_eq!(answer.outcome(), ("bypass", reason), "{body}");
            assert_eq!((setup.upstream.count(), setup.upstream.last().body == body), (calls + 1, true));
        }
    }
    assert_eq!(setup.entries().await, 0);
}

#[tokio::test]
async fn messages_that_did_not_end_well_are_not_kept() {
    let setup = Setup::start("").await;
    let changed = |pointer: &str, value: Value| {
        let mut body = message("Fine.");
        *body.pointer_mut(pointer).expect("there") = value;
        body
    };
    let tool = json!({"type": "tool_use", "id": "1", "name": "f", "input": {}});
    for (row, rule, body) in [
        ("cut", "finish_reason", changed("/stop_reason", json!("max_tokens"))),
        ("tool", "finish_reason", changed("/stop_reason", json!("tool_use"))),
        ("refusal", "finish_reason", changed("/stop_reason", json!("refusal"))),
        ("paused", "finish_reason", changed("/stop_reason", json!("pause_turn"))),
        ("unfinished", "finish_reason", changed("/stop_reason", Value::Null)),
        ("a tool's block", "tool_calls", changed("/content/0", tool)),
        ("nothing said", "empty", changed("/content/1/text", json!(""))),
        ("thoughts only", "empty", changed("/content/1", json!({"type": "redacted_thinking", "data": "x"}))),
        ("another model", "model", changed("/model", json!("claude-mini"))),
        ("an error", "error", json!({"type": "error", "error": {"type": "overloaded_error", "message": "x"}})),
    ] {
        let dropped = setup.answers(rule).await;
        setup.upstream.answer_with(move |_| Reply::json(200, &body));
        for _ in 0..2 {
            assert_eq!(setup.client.post(MESSAGES, &ask(row)).await.check(200).outcome().0, "miss", "{row}");
        }
        assert_eq!(setup.answers(rule).await, dropped + 2, "{row} was not dropped by {rule}");
    }
    let good = || events("One two.");
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let without = |index: usize| {
        let mut events = good();
        events.remove(index);
        stream(&events)
    };
    let with = |index: usize, event: Value| {
        let mut events = good();
        events.insert(index, event);
        stream(&events)
    };
    let last = good().len() - 1;
    for (row, stream) in [
        ("no end", without(last)),
        ("no reason to end", without(last - 1)),
        ("a block that does not stop", without(last - 2)),
        ("a block that does not start", without(7)),
        ("an error", with(last, error.clone())),
        ("an error at the end", format!("{}{}", without(last), event(&error))),
        ("an event of tomorrow", with(3, json!({"type": "hologram"}))),
        ("a message within a message", with(3, good()[0].clone())),
        (
            "a delta of another block",
            with(9, json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}})),
        ),
        ("no message", with(0, json!({"type": "content_block_stop", "index": 0}))),
    ] {
        let dropped = setup.answers("incomplete").await;
        setup.upstream.answer_with(move |_| Reply::events(stream.clone()));
        let answer = setup.client.post(MESSAGES, &and(ask(row), json!({"stream": true}))).await.check(200);
        assert_eq!(answer.outcome().0, "miss", "{row}");
        assert_eq!(setup.answers("incomplete").await, dropped + 1, "{row}");
    }
    assert_eq!(setup.entries().await, 0);
}

/// What nearhit itself has to say to a client of Anthropic's is said in Anthropic's shape.
#[tokio::test]
async fn refusals_have_the_shape_of_the_path() {
    let setup = start().await;
    let check = |answer: Answer, status: u16, kind: &str| {
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
        let body = answer.json();
        assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!(kind)), "{body}");
        assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        assert_eq!(body["request_id"], answer.header("request-id"), "{body}");
    };
    let client = &setup.client;
    check(client.post_bytes(MESSAGES, "{").await, 400, "invalid_request_error");
    check(client.post_bytes(MESSAGES, "[]").await, 400, "invalid_request_error");
    check(client.with("content-type", "text/plain").post_bytes(MESSAGES, "{}").await, 415, "invalid_request_error");
    check(client.with("x-nearhit-ttl", "-1").post(MESSAGES, &ask("Hi")).await, 400, "invalid_request_error");
    check(client.with("cache-control", "only-if-cached").post(MESSAGES, &ask("Hi")).await, 504, "timeout_error");
    check(client.post_bytes(MESSAGES, vec![b' '; (32 << 20) + 1]).await, 413, "request_too_large");
    // Before the layer, too.
    check(client.with("host", "evil.example").post(MESSAGES, &ask("Hi")).await, 403, "permission_error");
    assert_eq!(setup.upstream.count(), 0);
    client.with("x-nearhit-ttl", "-1").chat(&super::ask("Hi")).await.refusal(400, "invalid_value");
}

/// An answer may be brought, and is listed with its path, so that it can be brought again.
#[tokio::test]
async fn messages_can_be_inserted_and_listed() {
    let setup = start().await;
    let request = ask("Is it?");
    setup.client.insert(&json!({"request": request, "path": MESSAGES, "response": message("It is.")})).await;
    let hit = setup.client.post(MESSAGES, &request).await.check(200);
    assert_eq!((hit.outcome(), hit.json()["content"][1]["text"].as_str()), (("hit", "exact"), Some("It is.")));
    let found = setup.client.search(&json!({"request": request, "path": MESSAGES})).await;
    assert_eq!((&found["outcome"], &found["data"][0]["response"]["id"]), (&json!("hit"), &json!("msg_upstream")));
    // The same words to another path are another question.
    assert_eq!(setup.client.search(&json!({"request": request})).await["outcome"], "miss");
    let listed = setup.client.get("/v1/caches/default/entries").await.check(200).json();
    let mut entry = listed["data"][0].clone();
    assert_eq!(entry["path"], MESSAGES);
    for field in ["expiresMs", "cache"] {
        entry.as_object_mut().expect("an object").remove(field);
    }
    setup.client.insert(&entry).await;
    // A bare text is an answer, too.
    setup.client.insert(&json!({"request": ask("And?"), "path": MESSAGES, "response": "Well."})).await;
    let hit = setup.client.post(MESSAGES, &and(ask("And?"), json!({"stream": true}))).await.check(200);
    assert_eq!(read(&hit)["content"], json!([{"type": "text", "text": "Well."}]));
    let post = async |body: Value| setup.client.post("/v1/caches/default/entries", &body).await;
    let bad = post(json!({"request": request, "path": "/v1/other", "response": "x"})).await;
    assert!(bad.refusal(400, "invalid_value").starts_with("path: "));
    let bad = post(json!({"prompt": "p", "path": MESSAGES, "response": "x"})).await;
    assert!(bad.refusal(400, "invalid_value").starts_with("path: "));
    let bad = post(json!({"request": request, "path": MESSAGES, "response": {"choices": []}})).await;
    assert!(bad.refusal(400, "invalid_value").contains(MESSAGES));
    assert_eq!(setup.upstream.count(), 0);
}
