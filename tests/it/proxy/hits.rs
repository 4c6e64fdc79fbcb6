//! A question that was answered before is answered again, in whatever form it is asked for.

use serde_json::{Value, json};

use super::{Setup, and, ask, events, said};
use crate::support::{Reply, chunks, event_stream};

const PASSWORD: &str = "How do I reset my password?";

#[tokio::test]
async fn a_miss_goes_upstream_and_its_repeat_does_not() {
    let setup = Setup::start("Open Settings.").await;
    let miss = setup.client.chat(&ask(PASSWORD)).await.check(200);
    assert_eq!((miss.outcome(), miss.header("x-cache-status")), (("miss", "empty"), "MISS"));
    for absent in ["age", "x-nearhit-tier", "x-nearhit-entry", "x-nearhit-similarity", "x-nearhit-probability"] {
        assert_eq!(miss.header(absent), "", "{absent}");
    }
    assert_eq!(miss.json(), crate::support::completion("Open Settings."), "a miss is the provider's answer");
    setup.client.wait_for_entries(1).await;

    let hit = setup.client.chat(&ask(PASSWORD)).await.check(200);
    assert_eq!((hit.outcome(), hit.header("x-cache-status")), (("hit", "exact"), "HIT"));
    assert_eq!((hit.header("x-nearhit-reason"), hit.header("content-type")), ("", "application/json"));
    assert_eq!((hit.header("x-nearhit-similarity"), hit.header("x-nearhit-probability")), ("1.0000", "1.0000"));
    assert!(hit.header("age").parse::<u64>().expect("seconds") < 60);
    let entry = hit.header("x-nearhit-entry");
    setup.client.get(&format!("/v1/caches/default/entries/{entry}")).await.check(200);

    // All of it is as it was, but for what must be fresh and for the usage, which says that nothing was spent.
    let (stored, mut replayed) = (miss.json(), hit.json());
    let id = replayed["id"].as_str().expect("an id").to_owned();
    assert!(id.starts_with("chatcmpl-") && id != "chatcmpl-upstream", "{id}");
    assert!(replayed["created"].as_u64().expect("seconds") > 1_600_000_000);
    assert_eq!(replayed["usage"]["nearhit"], json!({"cached": true, "provider_tokens": 0}));
    for field in ["id", "created"] {
        replayed[field] = stored[field].clone();
    }
    replayed["usage"].as_object_mut().expect("usage").remove("nearhit");
    assert_eq!(replayed, stored);

    let again = setup.client.chat(&ask(PASSWORD)).await.check(200).json();
    assert_ne!(again["id"], json!(id), "every hit has an id of its own");
    assert_eq!(setup.upstream.count(), 1);
}

#[cfg(feature = "candle")]
#[tokio::test]
async fn a_reworded_question_is_a_hit() {
    let setup = Setup::start("Open Settings.").await;
    setup.client.chat(&ask(PASSWORD)).await.check(200);
    setup.client.wait_for_entries(1).await;
    let hit = setup.client.chat(&ask("How can I reset my password?")).await.check(200);
    assert_eq!((hit.outcome(), said(&hit).as_str()), (("hit", "semantic"), "Open Settings."));
    let similarity: f64 = hit.header("x-nearhit-similarity").parse().expect("a number");
    assert!((0.9..1.0).contains(&similarity), "{similarity}");
    let probability = hit.header("x-nearhit-probability").parse::<f64>().expect("a number");
    assert!((0.8..1.0).contains(&probability), "{probability}");

    let far = setup.client.chat(&ask("What is the capital of Mongolia?")).await.check(200);
    assert_eq!(far.outcome(), ("miss", "low_probability"));
    assert_eq!(setup.upstream.count(), 2);
}

/// Recorded from either form, replayed in either form.
#[tokio::test]
async fn an_answer_serves_whole_and_streamed() {
    let text = "The first word, then \"others\" \u{1f600}\nand a line.";
    let setup = Setup::start(text).await;
    let (whole, streamed) = (json!({}), json!({"stream": true}));
    let with_usage = json!({"stream": true, "stream_options": {"include_usage": true}});
    for (row, stored, asked) in [
        ("whole, whole", &whole, &whole),
        ("whole, streamed", &whole, &streamed),
        ("whole, with usage", &whole, &with_usage),
        ("streamed, whole", &streamed, &whole),
        ("streamed, streamed", &streamed, &streamed),
        ("streamed, with usage", &streamed, &with_usage),
    ] {
        // The seed keeps the rows apart.
        let question = and(ask("Hi"), json!({"seed": row}));
        let miss = setup.learn(&setup.client, &and(question.clone(), stored.clone())).await;
        assert_eq!(said(&miss), text, "{row}");

        let hit = setup.client.chat(&and(question, asked.clone())).await.check(200);
        assert_eq!((hit.outcome(), said(&hit).as_str()), (("hit", "exact"), text), "{row}");
        let is_stream = asked["stream"] == true;
        assert_eq!(hit.header("content-type"), if is_stream { "text/event-stream" } else { "application/json" });
        if is_stream {
            check_chunks(&events(&hit), asked == &with_usage, stored == &whole);
        } else {
            let usage = &hit.json()["usage"];
            assert_eq!(usage["nearhit"].get("estimated").is_some(), stored == &streamed, "{row}: {usage}");
        }
    }
    assert_eq!(setup.upstream.count(), 6);
}

/// `counted`: the provider had said what the answer cost.
fn check_chunks(chunks: &[Value], with_usage: bool, counted: bool) {
    for chunk in chunks {
        assert_eq!(
            (&chunk["object"], &chunk["id"], &chunk["model"]),
            (&json!("chat.completion.chunk"), &chunks[0]["id"], &json!("m"))
        );
        assert_eq!(chunk.get("usage").is_some(), with_usage, "{chunk}");
    }
    let finishes: Vec<_> =
        chunks.iter().filter_map(|chunk| chunk.pointer("/choices/0/finish_reason")?.as_str()).collect();
    assert_eq!(finishes, ["stop"]);
    assert_eq!(chunks[0].pointer("/choices/0/delta/role"), Some(&json!("assistant")));
    let last = chunks.last().expect("a chunk");
    if with_usage {
        assert_eq!(last["choices"], json!([]));
        let usage = &last["usage"];
        assert_eq!(usage["nearhit"].get("estimated").is_none(), counted, "{usage}");
        assert_eq!(usage["nearhit"]["provider_tokens"], 0);
        assert!(usage["completion_tokens"].as_u64().expect("tokens") > 0);
    }
}

/// What a stream says about itself is kept with it: usage, fingerprint, fields of one provider only.
#[tokio::test]
async fn a_recorded_stream_keeps_what_its_chunks_said() {
    let setup = Setup::start("").await;
    setup.upstream.answer_with(|_| {
        let mut chunks = chunks("Hello there.", "m");
        for chunk in &mut chunks {
            chunk["system_fingerprint"] = json!("fp");
            chunk["usage"] = Value::Null;
            chunk["obfuscation"] = json!("xyz");
        }
        chunks[1]["choices"][0]["delta"]["reasoning_content"] = json!("Think");
        chunks[2]["choices"][0]["delta"]["reasoning_content"] = json!("ing.");
        let usage = json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5});
        chunks.push(json!({"id": "x", "model": "m", "choices": [], "usage": usage}));
        // Comments and both kinds of line end are part of the format.
        Reply::events(format!(": warming up\n\n{}", event_stream(&chunks).replacen('\n', "\r\n", 4)))
    });
    let asked = and(ask("Hi"), json!({"stream": true, "stream_options": {"include_usage": true}}));
    setup.client.chat(&asked).await.check(200);
    setup.client.wait_for_entries(1).await;
    let hit = setup.client.chat(&ask("Hi")).await.check(200).json();
    let message = &hit["choices"][0]["message"];
    assert_eq!(message, &json!({"role": "assistant", "content": "Hello there.", "reasoning_content": "Thinking."}));
    assert_eq!((&hit["system_fingerprint"], &hit["usage"]["total_tokens"]), (&json!("fp"), &json!(5)));
    assert_eq!(hit["usage"]["nearhit"], json!({"cached": true, "provider_tokens": 0}));
    assert_eq!(hit.get("obfuscation"), None);
}

/// What concerned the one call is not told to the next caller.
#[tokio::test]
async fn a_hit_replays_no_header_of_the_provider() {
    let setup = Setup::start("").await;
    setup.upstream.answer_with(|call| {
        let reply = Reply::saying("Hello.", call).header("set-cookie", "session=1").header("x-request-id", "req-1");
        let reply = reply.header("cache-control", "no-store").header("x-nearhit-tier", "exact");
        reply.header("x-nearhit-entry", "of another nearhit")
    });
    let miss = setup.client.chat(&ask("Hi")).await.check(200);
    assert_eq!((miss.header("set-cookie"), miss.header("x-request-id")), ("session=1", "req-1"));
    assert_eq!((miss.header("x-nearhit-tier"), miss.header("x-nearhit-entry")), ("", ""), "said by an upstream");
    // A provider's own cache directives are not obeyed.
    setup.client.wait_for_entries(1).await;
    let hit = setup.client.chat(&ask("Hi")).await.check(200);
    assert_eq!(hit.outcome(), ("hit", "exact"));
    for name in ["set-cookie", "x-request-id", "cache-control"] {
        assert_eq!(hit.header(name), "", "{name}");
    }
}
