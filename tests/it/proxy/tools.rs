//! Requests with tools in them, where the operator lets their answers be kept: equal ones only, calls included.

use serde_json::{Value, json};

use super::{Setup, and, ask, events};
use crate::support::{Answer, Reply, event_stream, until};

const ALLOWED: &str = "[cache]\ntool_calls = true\n";
const MESSAGES: &str = "/v1/messages";

fn tools() -> Value {
    let weather = json!({"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}});
    json!([{"type": "function", "function": weather}])
}

fn question(text: &str) -> Value {
    and(ask(text), json!({"tools": tools()}))
}

/// Two calls, as a whole answer has them.
fn calls() -> Value {
    json!([
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Graz\"}"}},
        {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
    ])
}

fn completion(calls: &Value) -> Value {
    json!({
        "id": "chatcmpl-upstream", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": "tool_calls",
            "message": {"role": "assistant", "content": null, "tool_calls": calls}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    })
}

/// The same as a stream: arguments in pieces of three bytes, places beside them.
fn stream(calls: &Value) -> String {
    let chunk = |delta: Value, finish: Value| {
        json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    };
    let mut chunks = vec![chunk(json!({"role": "assistant", "content": null}), Value::Null)];
    for (index, call) in calls.as_array().expect("calls").iter().enumerate() {
        let mut begun = call.clone();
        begun["index"] = json!(index);
        begun["function"]["arguments"] = json!("");
        chunks.push(chunk(json!({"tool_calls": [begun]}), Value::Null));
        let arguments = call["function"]["arguments"].as_str().expect("a text").as_bytes();
        for piece in arguments.chunks(3) {
            let piece = String::from_utf8_lossy(piece);
            let call = json!({"index": index, "function": {"arguments": piece}});
            chunks.push(chunk(json!({"tool_calls": [call]}), Value::Null));
        }
    }
    chunks.push(chunk(json!({}), json!("tool_calls")));
    event_stream(&chunks)
}

/// The calls of an answer in either form, as a client puts them together.
fn called(answer: &Answer) -> Value {
    if !answer.header("content-type").starts_with("text/event-stream") {
        let choice = &answer.json()["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls");
        return choice["message"]["tool_calls"].clone();
    }
    let events = events(answer);
    let finish = events.iter().filter_map(|event| event.pointer("/choices/0/finish_reason")?.as_str());
    assert_eq!(finish.collect::<Vec<_>>(), ["tool_calls"]);
    let mut calls: Vec<Value> = Vec::new();
    for piece in events.iter().filter_map(|event| event.pointer("/choices/0/delta/tool_calls")?.as_array()).flatten() {
        let place = piece["index"].as_u64().expect("a place") as usize;
        let mut piece = piece.clone();
        piece.as_object_mut().expect("a call").remove("index");
        match calls.get_mut(place) {
            None => calls.push(piece),
            Some(call) => {
                let more = piece["function"]["arguments"].as_str().expect("a piece").to_owned();
                let arguments = call["function"]["arguments"].as_str().expect("a text").to_owned();
                call["function"]["arguments"] = json!(arguments + &more);
            }
        }
    }
    json!(calls)
}

#[tokio::test]
async fn calls_are_kept_and_replayed_in_both_forms() {
    let setup = Setup::with_config("", ALLOWED).await;
    setup.upstream.answer_with(|call| match call.json()["stream"] == true {
        true => Reply::events(stream(&calls())),
        false => Reply::json(200, &completion(&calls())),
    });
    let (whole, streamed) = (json!({}), json!({"stream": true}));
    for (stored, asked) in [(&whole, &whole), (&whole, &streamed), (&streamed, &whole), (&streamed, &streamed)] {
        let question = and(question("Weather?"), json!({"seed": format!("{stored} {asked}")}));
        setup.learn(&setup.client, &and(question.clone(), stored.clone())).await;
        let hit = setup.client.chat(&and(question, asked.clone())).await.check(200);
        assert_eq!(hit.outcome(), ("hit", "exact"), "{stored} {asked}");
        assert_eq!(called(&hit), calls(), "{stored} {asked}");
    }
    assert_eq!(setup.upstream.count(), 4);
}

#[tokio::test]
async fn only_an_equal_request_is_served() {
    let setup = Setup::with_config("", ALLOWED).await;
    setup.upstream.answer_with(|_| Reply::json(200, &completion(&calls())));
    setup.learn(&setup.client, &question("How do I reset my password?")).await;
    let mut other_tool = question("How do I reset my password?");
    other_tool["tools"][0]["function"]["name"] = json!("forecast");
    for other in [
        question("How can I reset my password?"),
        question("How do I reset my password? "),
        and(question("How do I reset my password?"), json!({"tool_choice": "required"})),
        other_tool,
    ] {
        let answer = setup.client.chat(&other).await.check(200);
        assert_eq!(answer.outcome(), ("miss", "no_candidate"), "{other}");
    }
    until("all are kept", async || (setup.answers("kept").await == 5).then_some(())).await;
    // Without tools it is another question altogether.
    setup.upstream.answer_with(|call| Reply::saying("So.", call));
    setup.learn(&setup.client, &ask("How do I reset my password?")).await;
    assert_eq!(setup.client.chat(&ask("How do I reset my password?")).await.check(200).outcome(), ("hit", "exact"));
}

/// What the tools gave comes back, is answered, and that answer is kept too.
#[tokio::test]
async fn a_loop_with_a_tool_is_served_step_by_step() {
    let setup = Setup::with_config("", ALLOWED).await;
    setup.upstream.answer_with(|call| match call.json()["messages"].as_array().map(Vec::len) {
        Some(1) => Reply::json(200, &completion(&calls())),
        _ => Reply::saying("Sunny.", call),
    });
    let result = |id: &str, said: &str| json!({"role": "tool", "tool_call_id": id, "content": said});
    for outcome in ["miss", "hit"] {
        let first = question("Weather?");
        let answer = match outcome {
            "miss" => setup.learn(&setup.client, &first).await,
            _ => setup.client.chat(&first).await.check(200),
        };
        let message = answer.json()["choices"][0]["message"].clone();
        let mut second = first;
        let messages = second["messages"].as_array_mut().expect("messages");
        messages.extend([message, result("call_1", "sun"), result("call_2", "rain")]);
        let answer = match outcome {
            "miss" => setup.learn(&setup.client, &second).await,
            _ => setup.client.chat(&second).await.check(200),
        };
        assert_eq!((answer.outcome().0, super::said(&answer).as_str()), (outcome, "Sunny."));
        // Another result is another question.
        second["messages"][2]["content"] = json!(format!("snow, the {outcome}"));
        assert_eq!(setup.client.chat(&second).await.check(200).outcome().0, "miss");
    }
}

#[tokio::test]
async fn calls_that_no_client_could_make_are_not_kept() {
    let setup = Setup::with_config("", ALLOWED).await;
    let with = |change: fn(&mut Value)| {
        let mut changed = calls();
        change(&mut changed[1]);
        changed
    };
    let broken = [
        with(|call| call["function"]["arguments"] = json!("{\"city\": ")),
        with(|call| call["function"]["name"] = json!("")),
        with(|call| call["id"] = Value::Null),
        with(|call| call["type"] = json!("custom")),
    ];
    let mut dropped = 0;
    for calls in broken {
        for is_stream in [false, true] {
            let answered = calls.clone();
            setup.upstream.answer_with(move |_| match is_stream {
                true => Reply::events(stream(&answered)),
                false => Reply::json(200, &completion(&answered)),
            });
            let asked = and(question("Weather?"), json!({"stream": is_stream}));
            setup.client.chat(&asked).await.check(200);
            dropped += 1;
            until("the answer is dropped", async || (setup.answers("finish_reason").await == dropped).then_some(()))
                .await;
        }
    }
    assert_eq!(setup.entries().await, 0);
}

/// What a tool of the provider's, or of an older API, would do is nobody's to replay.
#[tokio::test]
async fn other_tools_still_bypass() {
    let setup = Setup::with_config("fresh", ALLOWED).await;
    let custom = json!([{"type": "custom", "custom": {"name": "f"}}]);
    for (more, reason) in [
        (json!({"tools": custom}), "tools_in_use"),
        (json!({"functions": [{"name": "f"}]}), "tools_in_use"),
        (json!({"tools": tools(), "web_search_options": {}}), "tools_in_use"),
        (json!({"tools": tools(), "n": 2}), "n_over_one"),
        (json!({"tools": tools(), "store": true}), "stateful"),
        (json!({"tools": tools(), "logprobs": true}), "not_cacheable"),
        (json!({"tools": tools(), "messages": [{"role": "assistant", "content": "Hi"}]}), "not_cacheable"),
        (json!({"messages": [{"role": "function", "name": "f", "content": "7"}]}), "tools_in_use"),
    ] {
        let answer = setup.client.chat(&and(ask("Hi"), more.clone())).await.check(200);
        assert_eq!(answer.outcome(), ("bypass", reason), "{more}");
    }
    let server_tool = json!([{"type": "web_search_20250305", "name": "web_search"}]);
    let asked = and(ask("Hi"), json!({"max_tokens": 9, "tools": server_tool}));
    assert_eq!(setup.client.post(MESSAGES, &asked).await.check(200).outcome(), ("bypass", "tools_in_use"));
    assert_eq!(setup.entries().await, 0);
}

/// A message that says something, then uses a tool.
fn message() -> Value {
    json!({
        "id": "msg_upstream", "type": "message", "role": "assistant", "model": "claude-20250101",
        "content": [{"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Graz", "days": [1, 2]}}],
        "stop_reason": "tool_use", "stop_sequence": null, "usage": {"input_tokens": 12, "output_tokens": 9},
    })
}

fn message_stream() -> String {
    let mut begun = message();
    let blocks = begun["content"].take();
    (begun["content"], begun["stop_reason"]) = (json!([]), Value::Null);
    let input = blocks[1]["input"].to_string();
    let (head, tail) = input.split_at(input.len() / 2);
    let mut tool = blocks[1].clone();
    tool["input"] = json!({});
    let delta = |index: usize, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let json_delta = |text: &str| json!({"type": "input_json_delta", "partial_json": text});
    let events = [
        json!({"type": "message_start", "message": begun}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        delta(0, json!({"type": "text_delta", "text": "Let me look."})),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": tool}),
        delta(1, json_delta("")),
        delta(1, json_delta(head)),
        delta(1, json_delta(tail)),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null},
            "usage": {"output_tokens": 9}}),
        json!({"type": "message_stop"}),
    ];
    events
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().expect("a type")))
        .collect()
}

/// The blocks of a message in either form, as a client puts them together.
fn blocks(answer: &Answer) -> Value {
    if !answer.header("content-type").starts_with("text/event-stream") {
        let message = answer.json();
        assert_eq!(message["stop_reason"], "tool_use");
        return message["content"].clone();
    }
    let text = answer.text();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = data.map(|data| serde_json::from_str(data).expect("JSON")).collect();
    let mut blocks: Vec<(Value, String)> = Vec::new();
    for event in &events {
        match event["type"].as_str().expect("a type") {
            "content_block_start" => blocks.push((event["content_block"].clone(), String::new())),
            "content_block_delta" => {
                let (_, said) = blocks.last_mut().expect("a block");
                let more = event["delta"].get("text").or_else(|| event["delta"].get("partial_json"));
                said.push_str(more.and_then(Value::as_str).expect("a piece"));
            }
            "message_delta" => assert_eq!(event["delta"]["stop_reason"], "tool_use"),
            _ => {}
        }
    }
    let whole = |(mut block, said): (Value, String)| {
        if block["type"] == "text" {
            block["text"] = json!(said);
        } else {
            assert_eq!(block["input"], json!({}), "it comes in pieces");
            block["input"] = serde_json::from_str(&said).expect("JSON");
        }
        block
    };
    blocks.into_iter().map(whole).collect()
}

#[tokio::test]
async fn uses_in_messages_are_kept_and_replayed_in_both_forms() {
    let setup = Setup::with_config("", ALLOWED).await;
    setup.upstream.answer_with(|call| match call.json()["stream"] == true {
        true => Reply::events(message_stream()),
        false => Reply::json(200, &message()),
    });
    let tool = json!([{"name": "weather", "input_schema": {"type": "object"}}]);
    let asked = json!({"model": "claude", "max_tokens": 100, "tools": tool, "system": "Be brief.",
        "messages": [{"role": "user", "content": "Weather?"}]});
    let mut kept = 0;
    for stored in [false, true] {
        for stream in [false, true] {
            // What keeps the rows apart.
            let row = and(asked.clone(), json!({"top_k": kept + 1}));
            let miss = setup.client.post(MESSAGES, &and(row.clone(), json!({"stream": stored}))).await.check(200);
            assert_eq!(miss.outcome().0, "miss");
            kept += 1;
            until("the answer is kept", async || (setup.answers("kept").await == kept).then_some(())).await;
            let hit = setup.client.post(MESSAGES, &and(row, json!({"stream": stream}))).await.check(200);
            assert_eq!(hit.outcome(), ("hit", "exact"), "{stored} {stream}");
            assert_eq!(blocks(&hit), message()["content"], "{stored} {stream}");
        }
    }
    // What the tool gave, and what is said to that.
    let mut second = asked.clone();
    let result = json!([{"type": "tool_result", "tool_use_id": "toolu_1", "content": "sun"}]);
    let messages = second["messages"].as_array_mut().expect("messages");
    messages.push(json!({"role": "assistant", "content": message()["content"]}));
    messages.push(json!({"role": "user", "content": result}));
    setup.upstream.answer_with(|call| Reply::saying("Sunny.", call));
    assert_eq!(setup.client.post(MESSAGES, &second).await.check(200).outcome().0, "miss");
    until("the answer is kept", async || (setup.answers("kept").await == kept + 1).then_some(())).await;
    assert_eq!(setup.client.post(MESSAGES, &second).await.check(200).outcome(), ("hit", "exact"));
}

/// What depends on now lives shortly with tools in it, too.
#[tokio::test]
async fn answers_of_now_live_shortly_with_tools_too() {
    let setup = Setup::with_config("", "[cache]\ntool_calls = true\nperishable = \"miss\"\n").await;
    setup.upstream.answer_with(|_| Reply::json(200, &completion(&calls())));
    let asked = question("What is the weather in Graz today?");
    for _ in 0..2 {
        assert_eq!(setup.client.chat(&asked).await.check(200).outcome().0, "miss");
    }
    assert_eq!((setup.upstream.count(), setup.entries().await), (2, json!(0)));
}

#[tokio::test]
async fn hits_may_say_that_they_cost_nothing() {
    let setup = Setup::with_config("Hello.", "[cache]\nusage = \"zero\"\n").await;
    setup.learn(&setup.client, &ask("Hi")).await;
    let hit = setup.client.chat(&ask("Hi")).await.check(200);
    let usage = json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0,
        "nearhit": {"cached": true, "provider_tokens": 0}});
    assert_eq!(hit.json()["usage"], usage);
    let streamed = and(ask("Hi"), json!({"stream": true, "stream_options": {"include_usage": true}}));
    let hit = setup.client.chat(&streamed).await.check(200);
    assert_eq!(events(&hit).last().expect("a chunk")["usage"], usage);
    // What was saved is counted all the same.
    assert_eq!(setup.client.stats("default").await["tokensSaved"]["output"], 14);
}
