//! What a client may ask of the cache, call by call.

use serde_json::json;

use super::{Setup, and, ask, said};
use crate::support::until;

async fn counting() -> Setup {
    let setup = Setup::start("").await;
    setup.upstream.count_up();
    setup
}

/// Each row is asked after its question was answered once; the last column says which answer is kept after it.
#[tokio::test]
async fn directives_are_obeyed() {
    let setup = counting().await;
    let none: &[(&str, &str)] = &[];
    for (row, (headers, more, expected, replaced)) in [
        (&[("cache-control", "no-cache")][..], json!({}), ("miss", "refresh"), true),
        (&[("cache-control", "No-Cache, private")], json!({}), ("miss", "refresh"), true),
        (none, json!({"cache": {"no-cache": true}}), ("miss", "refresh"), true),
        (&[("cache-control", "no-store")], json!({}), ("bypass", "no_store"), false),
        (none, json!({"cache": {"no-store": true}}), ("bypass", "no_store"), false),
        (&[("cache-control", "max-age=0, max-stale=60")], json!({}), ("miss", "expired"), true),
        (&[("cache-control", "max-age=3600")], json!({}), ("hit", "exact"), false),
        (none, json!({"cache": {"s-maxage": 0}}), ("miss", "expired"), true),
        (&[("cache-control", "only-if-cached")], json!({}), ("hit", "exact"), false),
        (&[("cache-control", "unheard-of=1")], json!({}), ("hit", "exact"), false),
        (&[("x-nearhit-threshold", "1"), ("x-nearhit-max-error", "0")], json!({}), ("hit", "exact"), false),
    ]
    .into_iter()
    .enumerate()
    {
        let question = and(ask("Hi"), json!({"seed": row}));
        let first = said(&setup.learn(&setup.client, &question).await);
        // An answer of this very millisecond has no age.
        until("the entry ages", async || {
            let found = setup.client.search(&json!({"request": question})).await;
            (found["data"][0]["ageMs"].as_u64() > Some(0)).then_some(())
        })
        .await;

        let calls = setup.upstream.count();
        let client = headers.iter().fold(setup.client.clone(), |client, (name, value)| client.with(name, value));
        let answer = client.chat(&and(question.clone(), more.clone())).await.check(200);
        assert_eq!(answer.outcome(), expected, "{headers:?} {more}");
        assert_eq!(said(&answer) == first, expected.0 == "hit", "{headers:?} {more}");
        assert_eq!(setup.upstream.count() - calls, usize::from(expected.0 != "hit"), "{headers:?} {more}");
        let kept = if replaced { said(&answer) } else { first };
        until("the stored answer is the right one", async || {
            let hit = setup.client.chat(&question).await.check(200);
            (hit.outcome().0 == "hit" && said(&hit) == kept).then_some(())
        })
        .await;
    }
}

/// Nothing goes upstream, whatever the reason why the cache has no answer.
#[tokio::test]
async fn only_if_cached_is_answered_by_the_cache_or_not_at_all() {
    let setup = counting().await;
    let client = setup.client.with("cache-control", "only-if-cached");
    for (more, expected) in [
        (json!({}), ("miss", "empty")),
        (json!({"stream": true}), ("miss", "empty")),
        (json!({"tools": [{"type": "function"}]}), ("bypass", "tools_in_use")),
        (json!({"n": 2}), ("bypass", "n_over_one")),
        (json!({"cache": {"no-cache": true}}), ("miss", "refresh")),
    ] {
        let answer = client.chat(&and(ask("Hi"), more.clone())).await;
        answer.refusal(504, "only_if_cached");
        assert_eq!(answer.outcome(), expected, "{more}");
    }
    assert_eq!(setup.upstream.count(), 0);
}

#[tokio::test]
async fn an_entry_gets_what_its_call_asked_for() {
    let setup = counting().await;
    let listed = async || setup.client.get("/v1/caches/default/entries").await.check(200).json()["data"][0].clone();
    let client = setup.client.with("x-nearhit-ttl", "60").with("x-nearhit-tags", "a, b");
    client.with("x-nearhit-sources", "manual@7,a@b@1").chat(&ask("Hi")).await.check(200);
    setup.client.wait_for_entries(1).await;
    let entry = listed().await;
    assert_eq!(entry["tags"], json!(["a", "b"]));
    assert_eq!(entry["sources"], json!([{"id": "a@b", "version": "1"}, {"id": "manual", "version": "7"}]));
    let ms = |field: &str| entry[field].as_u64().expect("milliseconds");
    assert_eq!(ms("expiresMs") - ms("createdMs"), 60_000);
    let removed = setup.client.post("/v1/caches/default/entries/delete", &json!({"tags": ["b"]})).await.check(200);
    assert_eq!(removed.json()["deleted"], 1);

    // LiteLLM's way of saying it, overruled by the header.
    let body = and(ask("Hi"), json!({"cache": {"ttl": 30}}));
    setup.client.chat(&body).await.check(200);
    setup.client.wait_for_entries(1).await;
    let entry = listed().await;
    assert_eq!(entry["expiresMs"].as_u64().zip(entry["createdMs"].as_u64()).map(|(e, c)| e - c), Some(30_000));
    assert_eq!(entry["request"].get("cache"), None, "it is no part of the request");
    setup.client.with("cache-control", "no-cache").with("x-nearhit-ttl", "90").chat(&body).await.check(200);
    until("the entry is replaced", async || (listed().await != entry).then_some(())).await;
    let entry = listed().await;
    assert_eq!(entry["expiresMs"].as_u64().zip(entry["createdMs"].as_u64()).map(|(e, c)| e - c), Some(90_000));
}

#[tokio::test]
async fn a_caches_name_comes_by_header_or_body() {
    let setup = counting().await;
    setup.client.with("x-nearhit-cache", "support").chat(&ask("Hi")).await.check(200);
    until("the answer is kept", async || (setup.client.stats("support").await["entries"] == 1).then_some(())).await;
    for (headers, more, expected) in [
        (&[("x-nearhit-cache", "support")][..], json!({}), "hit"),
        (&[], json!({"cache": {"namespace": "support"}}), "hit"),
        (&[("x-nearhit-cache", "support")], json!({"cache": {"namespace": "other"}}), "hit"),
        (&[("x-nearhit-cache", "other")], json!({"cache": {"namespace": "support"}}), "miss"),
    ] {
        let client = headers.iter().fold(setup.client.clone(), |client, (name, value)| client.with(name, value));
        let answer = client.chat(&and(ask("Hi"), more.clone())).await.check(200);
        assert_eq!(answer.outcome().0, expected, "{headers:?} {more}");
    }
}

/// Values that the client names are compared; the rest of the text is what is matched by meaning.
#[tokio::test]
async fn variables_come_by_header_or_body() {
    let setup = counting().await;
    let about = |order: &str| ask(&format!("Where is my order {order}?"));
    let vars = |order: &str| json!({"nearhit": {"vars": {"order": order}}});
    setup.client.chat(&and(about("4711"), vars("4711"))).await.check(200);
    setup.client.wait_for_entries(1).await;
    assert_eq!(setup.upstream.last().json().get("nearhit"), None);
    let by_header = setup.client.with("x-nearhit-vars", "%7B%22order%22%3A%224711%22%7D");
    assert_eq!(by_header.chat(&about("4711")).await.check(200).outcome(), ("hit", "exact"));
    let other = setup.client.chat(&and(about("4712"), vars("4712"))).await.check(200);
    let reason = if cfg!(feature = "candle") { "slots_differ" } else { "embedder_down" };
    assert_eq!(other.outcome(), ("miss", reason));
}
