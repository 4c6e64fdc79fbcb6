//! Requests whose answers are never kept: sent on as they are, and answered by the provider every time.

use serde_json::{Value, json};

use super::{Setup, and, ask};
use crate::support::until;

#[tokio::test]
async fn what_cannot_be_cached_goes_upstream_every_time() {
    let setup = Setup::with_config("fresh", "[cache]\ntemperature_max = 1.0").await;
    let tool = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    let last = |message: Value| json!({"messages": [message]});
    let user = |content: Value| last(json!({"role": "user", "content": content}));
    let text = json!({"type": "text", "text": "Hi"});
    let hi = json!({"role": "user", "content": "Hi"});
    for (more, reason) in [
        (json!({"tools": tool}), "tools_in_use"),
        (json!({"functions": [{"name": "f"}]}), "tools_in_use"),
        (json!({"web_search_options": {}}), "tools_in_use"),
        (json!({"messages": [{"role": "tool", "tool_call_id": "1", "content": "7"}, hi]}), "tools_in_use"),
        (json!({"messages": [{"role": "function", "name": "f", "content": "7"}, hi]}), "tools_in_use"),
        (json!({"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}, hi]}), "tools_in_use"),
        (json!({"n": 2}), "n_over_one"),
        (json!({"n": 0}), "n_over_one"),
        (json!({"n": "1"}), "n_over_one"),
        (user(json!([text, {"type": "image_url", "image_url": {"url": "https://x.example/y.png"}}])), "multimodal"),
        (user(json!([{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, text])), "multimodal"),
        (user(json!([{"type": "file", "file": {"file_id": "f"}}, text])), "multimodal"),
        (json!({"modalities": ["text", "audio"], "audio": {"voice": "v"}}), "multimodal"),
        (user(json!([{"type": "hologram"}, text])), "not_cacheable"),
        (user(json!([text, {"type": "text"}])), "not_cacheable"),
        (user(json!([])), "not_cacheable"),
        (user(json!("")), "not_cacheable"),
        (user(json!(" \n\t")), "not_cacheable"),
        (user(json!("\u{200b}\u{feff}")), "not_cacheable"),
        (user(json!(null)), "not_cacheable"),
        (user(json!(7)), "not_cacheable"),
        (last(json!({"role": "assistant", "content": "Hi"})), "not_cacheable"),
        (last(json!({"role": "system", "content": "Hi"})), "not_cacheable"),
        (last(json!({"role": "narrator", "content": "Hi"})), "not_cacheable"),
        (last(json!({"content": "Hi"})), "not_cacheable"),
        (last(json!("Hi")), "not_cacheable"),
        (json!({"messages": []}), "not_cacheable"),
        (json!({"messages": null}), "not_cacheable"),
        (json!({"messages": {"role": "user"}}), "not_cacheable"),
        (json!({"model": null}), "not_cacheable"),
        (json!({"model": 7}), "not_cacheable"),
        (json!({"stream": "yes"}), "not_cacheable"),
        (json!({"stream": 1}), "not_cacheable"),
        (json!({"temperature": "hot"}), "not_cacheable"),
        (json!({"logprobs": true}), "not_cacheable"),
        (json!({"temperature": 1.01}), "sampling"),
        (json!({"store": true}), "stateful"),
    ] {
        let body = and(ask("Hi"), more).to_string();
        for _ in 0..2 {
            let calls = setup.upstream.count();
            let answer = setup.client.post_bytes("/v1/chat/completions", body.clone()).await.check(200);
            assert_eq!(answer.outcome(), ("bypass", reason), "{body}");
            assert_eq!((answer.header("x-cache-status"), answer.header("x-nearhit-tier")), ("BYPASS", ""));
            assert_eq!(setup.upstream.count(), calls + 1, "{body}");
            assert_eq!(setup.upstream.last().body, body, "forwarded as it came");
        }
    }
    // Missing altogether is the same as null.
    for body in [json!({"model": "m"}), json!({"messages": [hi]}), json!({})] {
        assert_eq!(setup.client.chat(&body).await.check(200).outcome(), ("bypass", "not_cacheable"), "{body}");
    }
    assert_eq!(setup.entries().await, 0);
}

/// The neighbours of those: what says the same as nothing at all.
#[tokio::test]
async fn what_only_looks_like_it_is_cached() {
    let setup = Setup::with_config("fresh", "[cache]\ntemperature_max = 1.0").await;
    for (row, more) in [
        json!({"tools": []}),
        json!({"tools": null, "functions": null}),
        json!({"n": 1}),
        json!({"n": null}),
        json!({"store": false}),
        json!({"stream": null, "temperature": null}),
        json!({"modalities": ["text"], "audio": null}),
        json!({"logprobs": false}),
        json!({"temperature": 1.0}),
        json!({"messages": [{"role": "assistant", "content": "", "tool_calls": null}, {"role": "user", "content": "Hi"}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}),
    ]
    .into_iter()
    .enumerate()
    {
        // The seed keeps the rows apart.
        let body = and(and(ask("Hi"), more), json!({"seed": row}));
        assert_eq!(setup.client.chat(&body).await.check(200).outcome().0, "miss", "{body}");
        setup.client.wait_for_entries(row as u64 + 1).await;
        assert_eq!(setup.client.chat(&body).await.check(200).outcome(), ("hit", "exact"), "{body}");
        assert_eq!(setup.upstream.count(), row + 1);
    }
}

/// Whoever bypasses the cache may still say what became of an earlier answer.
#[tokio::test]
async fn feedback_is_heard_on_what_bypasses_the_cache() {
    let setup = Setup::start("fresh").await;
    let learned = async || setup.client.chat(&ask("Hi")).await.check(200).header("x-nearhit-reason").to_owned();
    setup.learn(&setup.client, &ask("Hi")).await;
    let hit = setup.client.chat(&ask("Hi")).await.check(200);
    assert_eq!(hit.outcome(), ("hit", "exact"));
    let id = hit.header("x-nearhit-entry");
    let say = |word: &str| setup.client.with("x-nearhit-feedback", &format!("{id}={word}"));
    let told = async |word: &str, more: Value| {
        let answer = say(word).chat(&and(ask("Something else"), more)).await.check(200);
        assert_eq!(answer.outcome().0, "bypass");
    };
    let until_said = async |word: &str| {
        let quarantined = u64::from(word == "wrong");
        until(word, async || {
            let budget = setup.client.stats("default").await["budget"].clone();
            (budget["quarantined"] == quarantined).then_some(())
        })
        .await;
    };
    told("wrong", json!({"n": 2})).await;
    until_said("wrong").await;
    told("right", json!({"store": true})).await;
    until_said("right").await;
    say("wrong").with("cache-control", "no-store").chat(&ask("Hi")).await.check(200);
    until_said("wrong").await;
    say("right").get("/v1/models").await.check(200);
    until_said("right").await;
    // Another caller's word is none on this entry.
    let stranger = setup.server.client("sk-another").with("x-nearhit-feedback", &format!("{id}=wrong"));
    stranger.get("/v1/models").await.check(200);
    assert_eq!(learned().await, "");
}
