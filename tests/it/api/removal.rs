//! Removing entries, and counting and listing what is left.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use super::{NOTHING, pair};
use crate::support::{Client, Home};

/// Four entries that every kind of filter tells apart.
async fn fill(client: &Client, cache: &str) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let hour_ago = u64::try_from(now.as_millis()).expect("before the year 584542046") - 3_600_000;
    let entries = json!({"entries": [
        {"prompt": "a", "response": "r", "attributes": {"locale": "en"}, "tags": ["x", "y"]},
        {"prompt": "b", "response": "r", "attributes": {"locale": "en", "tier": "gold"}, "tags": ["y"]},
        {"prompt": "c", "response": "r", "sources": [{"id": "manual", "version": "7"}, {"id": "faq", "version": "1"}]},
        {"prompt": "d", "response": "r", "sources": [{"id": "manual", "version": "8"}], "createdMs": hour_ago},
    ]});
    client.post(&format!("/v1/caches/{cache}/entries/batch"), &entries).await.check(200);
}

async fn prompts(client: &Client, cache: &str) -> String {
    let listed = client.get(&format!("/v1/caches/{cache}/entries")).await.check(200).json();
    let prompts = listed["data"].as_array().expect("a page").iter();
    prompts.map(|entry| entry["prompt"].as_str().expect("a prompt")).collect::<BTreeSet<_>>().into_iter().collect()
}

#[tokio::test]
async fn each_filter_removes_what_matches_and_nothing_else() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    let filters = [
        (json!({"attributes": {"locale": "en"}}), "cd"),
        (json!({"attributes": {"locale": "en", "tier": "gold"}}), "acd"),
        (json!({"attributes": {"locale": "de"}}), "abcd"),
        (json!({"tags": ["x"]}), "bcd"),
        (json!({"tags": ["x", "y"]}), "cd"),
        (json!({"tags": ["z"]}), "abcd"),
        (json!({"sources": [{"id": "manual", "version": "7"}]}), "abd"),
        (json!({"sources": [{"id": "manual", "version": "8"}, {"id": "faq", "version": "1"}]}), "ab"),
        (json!({"sources": [{"id": "manual", "version": "9"}]}), "abcd"),
        (json!({"sources": [{"id": "manual"}]}), "ab"),
        (json!({"sources": [{"id": "faq"}, {"id": "manual", "version": "9"}]}), "abd"),
        (json!({"sources": [{"id": "guide"}]}), "abcd"),
        (json!({"writer": "local"}), ""),
        (json!({"writer": "somebody"}), "abcd"),
        (json!({"olderThanMs": 1_800_000}), "abc"),
        (json!({"olderThanMs": 36_000_000}), "abcd"),
        (json!({"olderThanMs": 0}), ""),
    ];
    for (row, (filter, left)) in filters.iter().enumerate() {
        let cache = format!("row-{row}");
        fill(&client, &cache).await;
        let matched = 4 - left.len();
        let mut dry = filter.clone();
        dry["dryRun"] = json!(true);
        let counted = client.post(&format!("/v1/caches/{cache}/entries/delete"), &dry).await.check(200);
        assert_eq!(counted.json(), json!({"matched": matched, "deleted": 0}), "{filter}");
        assert_eq!(prompts(&client, &cache).await, "abcd", "{filter}");

        // Both spellings of the call.
        let (method, path) = [(Method::POST, "entries/delete"), (Method::DELETE, "entries")][row % 2].clone();
        let path = format!("/v1/caches/{cache}/{path}");
        let removed = client.with("content-type", "application/json").send(method, &path, filter.to_string()).await;
        assert_eq!(removed.check(200).json(), json!({"matched": matched, "deleted": matched}), "{filter}");
        assert_eq!(prompts(&client, &cache).await, *left, "{filter}");
    }
}

#[tokio::test]
async fn a_flush_empties_one_cache() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    for cache in ["default", "other"] {
        fill(&client, cache).await;
    }
    let flushed = client.post("/v1/caches/default/flush", &json!({"confirm": "default"})).await.check(204);
    assert!(flushed.body.is_empty());
    assert_eq!(prompts(&client, "default").await, "");
    assert_eq!(prompts(&client, "other").await, "abcd");
    assert_eq!(client.find("a").await, pair("miss", NOTHING));
    // Nothing to remove is no error.
    client.post("/v1/caches/unheard-of/flush", &json!({"confirm": "unheard-of"})).await.check(204);
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    let bodies: Vec<Value> = (0..7).map(|n| json!({"prompt": n.to_string(), "response": "r"})).collect();
    client.post("/v1/caches/default/entries/batch", &json!({"entries": bodies})).await.check(200);
    for (limit, expected) in [(1, vec![1; 7]), (3, vec![3, 3, 1]), (7, vec![7, 0]), (1000, vec![7])] {
        let (mut sizes, mut seen, mut cursor) = (Vec::new(), BTreeSet::new(), String::new());
        loop {
            let path = format!("/v1/caches/default/entries?limit={limit}{cursor}");
            let page = client.get(&path).await.check(200).json();
            let data = page["data"].as_array().expect("a page");
            sizes.push(data.len());
            seen.extend(data.iter().map(|entry| entry["prompt"].as_str().expect("a prompt").to_owned()));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        sizes.pop_if(|last| *last == 0);
        let expected: Vec<usize> = expected.into_iter().filter(|size| *size > 0).collect();
        assert_eq!((sizes, seen.len()), (expected, 7), "limit {limit}");
    }
}

#[tokio::test]
async fn caches_are_listed_and_counted() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("sk-test");
    assert_eq!(client.get("/v1/caches").await.check(200).json(), json!({"data": []}));
    // A cache exists from its first write: a search makes none.
    client.post("/v1/caches/unwritten/entries/search", &json!({"prompt": "a"})).await.check(200);
    for cache in ["b-cache", "a-cache"] {
        fill(&client, cache).await;
    }
    let listed = client.get("/v1/caches").await.check(200).json();
    let names: Vec<_> = listed["data"].as_array().expect("caches").iter().map(|cache| &cache["name"]).collect();
    assert_eq!(names, ["a-cache", "b-cache"]);
    assert_eq!(listed["data"][0]["entries"], 4);
    let bytes = listed["data"][0]["bytes"].as_u64().expect("bytes");

    let search = async |body: Value| {
        client.post("/v1/caches/a-cache/entries/search", &body).await.check(200);
    };
    let answered = json!({"prompt": "e", "response": crate::support::completion("counted")});
    client.post("/v1/caches/a-cache/entries", &answered).await.check(201);
    for body in [json!({"prompt": "c"}), json!({"prompt": "e"}), json!({"prompt": "e"})] {
        search(body).await;
    }
    search(json!({"prompt": "c", "context": "another"})).await;
    let stats = client.stats("a-cache").await;
    let expected = json!({
        "cache": "a-cache", "entries": 5, "inserts": 5, "hits": {"exact": 3}, "misses": {NOTHING: 1},
        "tokensSaved": {"input": 10, "output": 14}, "bytes": stats["bytes"],
        "estimatedError": null, "estimatedErrorUpper": null, "moneySaved": null, "store": stats["store"],
        "budget": stats["budget"],
    });
    assert_eq!(stats, expected);
    assert!(stats["bytes"].as_u64().expect("bytes") > bytes && bytes > 0, "{stats}");
    let budget = &stats["budget"];
    assert_eq!((&budget["maxError"], &budget["maxErrorPerHit"]), (&json!(0.01), &json!(0.05)), "{budget}");
    assert_eq!((&budget["isOverBudget"], &budget["samples"]), (&json!(false), &json!(0.0)), "{budget}");
    assert_eq!((&stats["store"]["lost"], &stats["store"]["full"]), (&json!(0), &json!(false)));
    assert_eq!(client.stats("unwritten").await["entries"], 0);
}
