//! OpenAI's responses, its older completions and its embeddings.

use serde_json::{Value, json};

use super::{Recording, Setup, and};
use crate::support::{Answer, Reply, event_stream, until};

const RESPONSES: &str = "/v1/responses";
const COMPLETIONS: &str = "/v1/completions";
const EMBEDDINGS: &str = "/v1/embeddings";

fn ask(text: &str) -> Value {
    json!({"model": "gpt", "input": text, "store": false})
}

/// A response that thinks, then says `text`.
fn response(text: &str) -> Value {
    json!({
        "id": "resp_upstream", "object": "response", "created_at": 1, "status": "completed", "error": null,
        "incomplete_details": null, "model": "gpt-2026-01-01", "metadata": {"of": "the first"}, "store": false,
        "output": [
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Let me see."}]},
            {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
                "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]},
        ],
        "usage": {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 16},
    })
}

/// The events that matter, a word at a time.
fn events(text: &str, last: &Value) -> Vec<Value> {
    let place = json!({"item_id": "msg_1", "output_index": 1, "content_index": 0});
    let mut events = vec![json!({"type": "response.created", "response": {"id": "resp_upstream", "output": []}})];
    events.extend(text.split_inclusive(' ').map(|word| {
        and(place.clone(), json!({"type": "response.output_text.delta", "delta": word, "obfuscation": "x"}))
    }));
    events.push(and(place, json!({"type": "response.output_text.done", "text": text})));
    events.push(last.clone());
    events.into_iter().enumerate().map(|(number, event)| and(event, json!({"sequence_number": number}))).collect()
}

fn completed(response: Value) -> Value {
    json!({"type": "response.completed", "response": response})
}

fn stream(events: &[Value]) -> String {
    events.iter().map(|data| format!("event: {}\ndata: {data}\n\n", data["type"].as_str().expect("a type"))).collect()
}

/// A whole stream, and a call that it answers.
pub(super) fn recording() -> Recording {
    let stream = stream(&events("It is fine.", &completed(response("It is fine."))));
    (RESPONSES, and(ask("Hi"), json!({"stream": true})), stream)
}

async fn start() -> Setup {
    let setup = Setup::start("").await;
    setup.upstream.answer_with(|call| match call.json()["stream"] {
        Value::Bool(true) => Reply::events(stream(&events("It is fine.", &completed(response("It is fine."))))),
        _ => Reply::json(200, &response("It is fine.")),
    });
    setup
}

async fn learn(setup: &Setup, path: &str, asked: &Value) -> Answer {
    let kept = setup.answers("kept").await;
    let answer = setup.client.post(path, asked).await.check(200);
    assert_eq!(answer.outcome().0, "miss", "{asked}");
    until("the answer is kept", async || (setup.answers("kept").await > kept).then_some(())).await;
    answer
}

/// The response that an answer amounts to; of a stream, the one of its last event, which the others lead up to.
#[track_caller]
fn read(answer: &Answer) -> Value {
    if !answer.header("content-type").starts_with("text/event-stream") {
        return answer.json();
    }
    let mut events = Vec::new();
    for part in answer.text().split_terminator("\n\n") {
        let (name, data) = part.split_once('\n').expect("two lines");
        let event: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        assert_eq!(name.strip_prefix("event: "), event["type"].as_str(), "{part}");
        assert_eq!(event["sequence_number"], events.len(), "{part}");
        events.push(event);
    }
    let last = events.pop().expect("events");
    assert_eq!(last["type"], "response.completed");
    let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).cloned().collect::<Vec<_>>();
    let output = last["response"]["output"].as_array().expect("output");
    let done: Vec<_> = of("response.output_item.done").iter().map(|event| event["item"].clone()).collect();
    assert_eq!(&done, output);
    assert_eq!(of("response.output_item.added").len(), output.len());
    assert_eq!(of("response.created").len() + of("response.in_progress").len(), 2);
    let said: String = of("response.output_text.delta")
        .iter()
        .map(|event| event["delta"].as_str().expect("a text").to_owned())
        .collect();
    assert_eq!(of("response.output_text.done")[0]["text"], said);
    last["response"].clone()
}

#[tokio::test]
async fn a_response_serves_whole_and_streamed() {
    let setup = start().await;
    let (whole, streamed) = (json!({}), json!({"stream": true}));
    for (row, stored, asked) in [
        ("whole, whole", &whole, &whole),
        ("whole, streamed", &whole, &streamed),
        ("streamed, whole", &streamed, &whole),
        ("streamed, streamed", &streamed, &streamed),
    ] {
        let question = and(ask("Hi"), json!({"instructions": row}));
        learn(&setup, RESPONSES, &and(question.clone(), stored.clone())).await;
        let asked = and(and(question, asked.clone()), json!({"metadata": {"of": "the second"}, "user": "u"}));
        let hit = setup.client.post(RESPONSES, &asked).await.check(200);
        assert_eq!(hit.outcome(), ("hit", "exact"), "{row}");
        let (mut hit, upstream) = (read(&hit), response("It is fine."));
        assert!(hit["id"].as_str().is_some_and(|id| id.starts_with("resp_") && id != "resp_upstream"), "{hit}");
        assert!(hit["created_at"].as_u64() > Some(1_600_000_000));
        assert_eq!(hit["usage"]["nearhit"], json!({"cached": true, "provider_tokens": 0}), "{row}");
        // What a response repeats of its request is this request's.
        assert_eq!((&hit["metadata"], &hit["user"]), (&json!({"of": "the second"}), &json!("u")), "{row}");
        hit["usage"].as_object_mut().expect("usage").remove("nearhit");
        for field in ["output", "model", "status", "usage", "error"] {
            assert_eq!(hit[field], upstream[field], "{row}: {field}");
        }
    }
    assert_eq!(setup.upstream.count(), 4);
}

/// What the provider keeps under an id, and whatever else cannot be replayed, goes to the provider.
#[tokio::test]
async fn what_the_provider_keeps_is_not_cached() {
    let setup = start().await;
    let input = |item: Value| json!({"input": [item]});
    let user = |part: Value| input(json!({"role": "user", "content": [part]}));
    for (more, reason) in [
        (json!({"store": true}), "stateful"),
        (json!({"store": null}), "stateful"),
        (json!({"previous_response_id": "resp_1"}), "stateful"),
        (json!({"conversation": "conv_1"}), "stateful"),
        (json!({"background": true}), "stateful"),
        (json!({"prompt": {"id": "pmpt_1"}}), "stateful"),
        (input(json!({"type": "item_reference", "id": "msg_1"})), "stateful"),
        (json!({"tools": [{"type": "web_search"}]}), "tools_in_use"),
        (input(json!({"type": "function_call_output", "call_id": "1", "output": "7"})), "tools_in_use"),
        (user(json!({"type": "input_image", "image_url": "https://x.example"})), "multimodal"),
        (user(json!({"type": "input_file", "file_id": "f"})), "multimodal"),
        (user(json!({"type": "hologram"})), "not_cacheable"),
        (input(json!({"role": "assistant", "content": "Hi"})), "not_cacheable"),
        (input(json!({"type": "reasoning", "summary": []})), "not_cacheable"),
        (json!({"input": []}), "not_cacheable"),
        (json!({"input": " "}), "not_cacheable"),
        (json!({"include": ["message.output_text.logprobs"]}), "not_cacheable"),
        (json!({"top_logprobs": 3}), "not_cacheable"),
    ] {
        let body = and(ask("Hi"), more).to_string();
        for _ in 0..2 {
            let calls = setup.upstream.count();
            let answer = setup.client.post_bytes(RESPONSES, body.clone()).await.check(200);
            assert_eq!(answer.outcome(), ("bypass", reason), "{body}");
            assert_eq!((setup.upstream.count(), setup.upstream.last().body == body), (calls + 1, true));
        }
    }
    // Absent means that it is kept there.
    let answer = setup.client.post(RESPONSES, &json!({"model": "gpt", "input": "Hi"})).await.check(200);
    assert_eq!(answer.outcome(), ("bypass", "stateful"));
    assert_eq!(setup.entries().await, 0);
}

#[tokio::test]
async fn responses_that_did_not_end_well_are_not_kept() {
    let setup = Setup::start("").await;
    let changed = |pointer: &str, value: Value| {
        let mut body = response("Fine.");
        *body.pointer_mut(pointer).expect("there") = value;
        body
    };
    let call = json!({"type": "function_call", "name": "f", "arguments": "{}"});
    for (row, rule, body) in [
        ("cut", "finish_reason", changed("/status", json!("incomplete"))),
        ("failed", "error", changed("/error", json!({"code": "server_error", "message": "x"}))),
        ("in progress", "finish_reason", changed("/status", json!("in_progress"))),
        ("a call", "tool_calls", changed("/output/0", call)),
        ("a refusal", "refusal", changed("/output/1/content/0", json!({"type": "refusal", "refusal": "No."}))),
        ("nothing said", "choices", changed("/output", json!([]))),
        ("empty", "empty", changed("/output/1/content/0/text", json!(""))),
        ("another model", "model", changed("/model", json!("gpt-mini"))),
    ] {
        let dropped = setup.answers(rule).await;
        setup.upstream.answer_with(move |_| Reply::json(200, &body));
        for _ in 0..2 {
            assert_eq!(setup.client.post(RESPONSES, &ask(row)).await.check(200).outcome().0, "miss", "{row}");
        }
        assert_eq!(setup.answers(rule).await, dropped + 2, "{row} was not dropped by {rule}");
    }
    let good = || events("One two.", &completed(response("One two.")));
    let without = |index: usize| {
        let mut events = good();
        events.remove(index);
        stream(&events)
    };
    let last = good().len() - 1;
    let failed =
        events("One two.", &json!({"type": "response.failed", "response": changed("/status", json!("failed"))}));
    let mut error = good();
    error.insert(2, json!({"type": "error", "code": "server_error", "message": "x", "sequence_number": 2}));
    for (row, rule, stream) in [
        ("no end", "incomplete", without(last)),
        ("a lost piece", "error", without(1)),
        ("twice the same piece", "incomplete", format!("{}{}", stream(&good()[..2]), stream(&good()[1..]))),
        ("failed", "error", stream(&failed)),
        ("an error on the way", "incomplete", stream(&error)),
        ("an event of tomorrow", "incomplete", format!("data: {{\"type\": \"hologram\"}}\n\n{}", stream(&good()))),
    ] {
        let dropped = setup.answers(rule).await;
        setup.upstream.answer_with(move |_| Reply::events(stream.clone()));
        let answer = setup.client.post(RESPONSES, &and(ask(row), json!({"stream": true}))).await.check(200);
        assert_eq!(answer.outcome().0, "miss", "{row}");
        assert_eq!(setup.answers(rule).await, dropped + 1, "{row}");
    }
    assert_eq!(setup.entries().await, 0);
}

/// Where both APIs say the same, one answer serves both.
#[tokio::test]
async fn chat_completions_and_responses_share_what_they_say_alike() {
    let setup = start().await;
    learn(&setup, RESPONSES, &and(ask("Hi"), json!({"temperature": 0}))).await;
    let chat = json!({"model": "gpt", "temperature": 0, "messages": [{"role": "user", "content": "Hi"}]});
    let hit = setup.client.chat(&chat).await.check(200);
    assert_eq!((hit.outcome(), super::said(&hit).as_str()), (("hit", "exact"), "It is fine."));
    let body = hit.json();
    assert_eq!(body["choices"][0]["message"]["reasoning_content"], "Let me see.");
    assert_eq!(body["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
    assert_eq!((&body["object"], &body["choices"][0]["finish_reason"]), (&json!("chat.completion"), &json!("stop")));
    let hit = setup.client.chat(&and(chat.clone(), json!({"stream": true}))).await.check(200);
    assert_eq!(super::said(&hit), "It is fine.");
    for apart in [json!({"max_tokens": 9}), json!({"seed": 1}), json!({"response_format": {"type": "text"}})] {
        assert_eq!(setup.client.chat(&and(chat.clone(), apart)).await.check(200).outcome().0, "miss");
    }
}

#[tokio::test]
async fn older_completions_are_cached() {
    let setup = Setup::start("").await;
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8});
    let part = |text: &str, finish: Value| {
        json!({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "instruct",
            "choices": [{"index": 0, "text": text, "logprobs": null, "finish_reason": finish}]})
    };
    setup.upstream.answer_with(move |call| match call.json()["stream"] {
        Value::Bool(true) => Reply::events(event_stream(&[part("in a ", Value::Null), part("house.", json!("stop"))])),
        _ => Reply::json(200, &and(part("in a house.", json!("stop")), json!({"usage": usage}))),
    });
    let ask = |more: Value| and(json!({"model": "instruct", "prompt": "Once there lived a cat"}), more);
    for (stored, asked) in [(json!({}), json!({"stream": true})), (json!({"stream": true}), json!({}))] {
        let row = json!({"seed": stored.to_string()});
        learn(&setup, COMPLETIONS, &and(ask(row.clone()), stored)).await;
        let hit = setup.client.post(COMPLETIONS, &and(ask(row), asked.clone())).await.check(200);
        assert_eq!(hit.outcome(), ("hit", "exact"));
        if asked["stream"] == true {
            let said: String = super::events(&hit)
                .iter()
                .filter_map(|event| Some(event.pointer("/choices/0/text")?.as_str()?.to_owned()))
                .collect();
            assert_eq!(said, "in a house.");
        } else {
            let body = hit.json();
            assert_eq!(
                (&body["choices"][0]["text"], &body["object"]),
                (&json!("in a house."), &json!("text_completion"))
            );
            assert!(body["id"].as_str().is_some_and(|id| id.starts_with("cmpl-") && id != "cmpl-1"));
            assert_eq!(body["usage"]["nearhit"]["cached"], true);
        }
    }
    // A model goes on otherwise after a line end.
    let row = json!({"seed": "{}"});
    let other = and(ask(row), json!({"prompt": "Once there lived a cat\n"}));
    assert_eq!(setup.client.post(COMPLETIONS, &other).await.check(200).outcome().0, "miss");
    for (more, reason) in [
        (json!({"prompt": ["a", "b"]}), "not_cacheable"),
        (json!({"prompt": [1, 2]}), "not_cacheable"),
        (json!({"prompt": ""}), "not_cacheable"),
        (json!({"logprobs": 3}), "not_cacheable"),
        (json!({"echo": true}), "not_cacheable"),
        (json!({"n": 2}), "n_over_one"),
        (json!({"best_of": 3}), "n_over_one"),
    ] {
        let answer = setup.client.post(COMPLETIONS, &ask(more.clone())).await.check(200);
        assert_eq!(answer.outcome(), ("bypass", reason), "{more}");
    }
}

/// The same text, the same bytes; nothing near is the same text.
#[tokio::test]
async fn embeddings_are_served_to_the_byte() {
    let setup = Setup::start("").await;
    let body = "{ \"object\":\"list\",\"model\":\"embed\", \"data\":[{\"index\":0,\"embedding\":[0.10, -1.5e-3,0.30000000000000004]}],\"usage\":{\"prompt_tokens\":2,\"total_tokens\":2}}";
    setup.upstream.answer_with(move |_| Reply::new(200, "application/json", body));
    let ask = |input: Value| json!({"model": "embed", "input": input});
    learn(&setup, EMBEDDINGS, &ask(json!("What is the weather today?"))).await;
    let hit = setup.client.post(EMBEDDINGS, &ask(json!("What is the weather today?"))).await.check(200);
    assert_eq!((hit.outcome(), hit.text().as_str()), (("hit", "exact"), body));
    let same = and(ask(json!("What is the weather today?")), json!({"user": "u"}));
    assert_eq!(setup.client.post(EMBEDDINGS, &same).await.check(200).outcome(), ("hit", "exact"));
    let mut kept = 1;
    for other in [
        ask(json!("What is the weather today? ")),
        ask(json!("what is the weather today?")),
        ask(json!(["What is the weather today?"])),
        ask(json!(["What is the weather today?", "x"])),
        and(same.clone(), json!({"dimensions": 3})),
        and(same.clone(), json!({"encoding_format": "base64"})),
        and(same, json!({"model": "embed-2026-01-01"})),
    ] {
        let miss = setup.client.post(EMBEDDINGS, &other).await.check(200);
        assert_eq!(miss.outcome(), ("miss", "no_candidate"), "{other}");
        if other["model"] == "embed" {
            kept += 1;
            setup.client.wait_for_entries(kept).await;
        }
    }
    let calls = setup.upstream.count();
    for input in [json!(""), json!([]), json!([1, 2]), json!([[1]]), json!(["a", ""]), json!(null)] {
        let answer = setup.client.post(EMBEDDINGS, &ask(input.clone())).await.check(200);
        assert_eq!(answer.outcome(), ("bypass", "not_cacheable"), "{input}");
    }
    assert_eq!(setup.upstream.count(), calls + 6);
    for (row, rule, reply) in [
        ("no vectors", "empty", json!({"object": "list", "model": "embed", "data": []})),
        ("an error", "error", json!({"error": {"message": "x"}})),
        ("another model", "model", json!({"model": "other", "data": [{"embedding": [1]}]})),
    ] {
        let dropped = setup.answers(rule).await;
        setup.upstream.answer_with(move |_| Reply::json(200, &reply));
        setup.client.post(EMBEDDINGS, &ask(json!(row))).await.check(200);
        assert_eq!(setup.answers(rule).await, dropped + 1, "{row}");
    }
}

/// However it is paced, a streamed hit says the same.
#[tokio::test]
async fn a_stream_is_sent_at_the_pace_that_is_set() {
    for pace in ["\"original\"", "200", "\"as_fast_as_possible\""] {
        let setup =
            Setup::with_config("One two three four five six seven.", &format!("[cache]\nreplay = {pace}")).await;
        let asked = and(super::ask("Hi"), json!({"stream": true}));
        setup.learn(&setup.client, &asked).await;
        let hit = setup.client.chat(&asked).await.check(200);
        assert_eq!(
            (hit.outcome(), super::said(&hit).as_str()),
            (("hit", "exact"), "One two three four five six seven.")
        );
        let pieces = super::events(&hit).len();
        assert!(if pace == "200" { pieces > 3 } else { pieces >= 2 }, "{pace}: {pieces}");
        // How long the stream took is nobody's business.
        assert_eq!(setup.client.chat(&super::ask("Hi")).await.check(200).json().get("nearhit"), None);
    }
}
