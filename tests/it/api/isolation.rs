//! What one caller stored, and what was stored for another purpose, is not there for anybody else.

use serde_json::{Value, json};

use super::{ENTRIES, PASSWORD, pair};
use crate::support::Home;

/// Each row differs from the inserted entry in one thing, and that is enough to find nothing.
#[tokio::test]
async fn everything_but_the_text_must_be_equal() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    let stored = json!({"prompt": PASSWORD, "context": "c", "attributes": {"locale": "en", "tier": "gold"}});
    let mut body = stored.clone();
    body["response"] = json!("So.");
    client.insert(&body).await;
    assert_eq!(client.search(&stored).await["outcome"], "hit");

    for (field, value) in [
        ("context", Value::Null),
        ("context", json!("")),
        ("context", json!("C")),
        ("attributes", json!({})),
        ("attributes", json!({"locale": "en"})),
        ("attributes", json!({"locale": "de", "tier": "gold"})),
        ("attributes", json!({"locale": "en", "tier": "gold", "more": ""})),
        ("attributes", json!({"locale": "gold", "tier": "en"})),
    ] {
        let mut other = stored.clone();
        other[field] = value;
        assert_eq!(client.search(&other).await["data"], json!([]), "{other}");
    }
    let elsewhere = client.post("/v1/caches/elsewhere/entries/search", &stored).await.check(200).json();
    assert_eq!(elsewhere["outcome"], "miss");
}

#[tokio::test]
async fn two_keys_are_two_tenants() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let (ada, bob) = (server.client("sk-ada"), server.client("sk-bob"));
    let id = ada.insert(&json!({"prompt": PASSWORD, "response": "Ada's", "tags": ["t"]})).await;

    // The same key in the other header is the same tenant.
    let own = server.client("").with("x-api-key", "sk-ada");
    assert_eq!(own.find(PASSWORD).await, pair("exact", "Ada's"));

    let path = format!("{ENTRIES}/{id}");
    for stranger in [&bob, &server.client("")] {
        assert_eq!(stranger.find(PASSWORD).await.0, "miss");
        stranger.get(&path).await.refusal(404, "unknown_entry");
        stranger.delete(&path).await.refusal(404, "unknown_entry");
        assert_eq!(stranger.get("/v1/caches").await.json(), json!({"data": []}));
        assert_eq!(stranger.get(ENTRIES).await.json(), json!({"data": [], "next": null}));
        assert_eq!(stranger.stats("default").await["entries"], 0);
        let removed = stranger.post(&format!("{ENTRIES}/delete"), &json!({"tags": ["t"]})).await.check(200);
        assert_eq!(removed.json(), json!({"matched": 0, "deleted": 0}));
        stranger.post("/v1/caches/default/flush", &json!({"confirm": "default"})).await.check(204);
    }
    assert_eq!(ada.find(PASSWORD).await, pair("exact", "Ada's"));

    bob.insert(&json!({"prompt": PASSWORD, "response": "Bob's"})).await;
    assert_eq!(ada.find(PASSWORD).await, pair("exact", "Ada's"));
    assert_eq!(bob.find(PASSWORD).await, pair("exact", "Bob's"));
}

#[tokio::test]
async fn with_single_tenancy_all_callers_share() {
    let home = Home::with_config("tenancy = \"single\"");
    let server = home.serve(&[]).await;
    server.client("sk-ada").insert(&json!({"prompt": PASSWORD, "response": "ours"})).await;
    for key in ["sk-bob", ""] {
        assert_eq!(server.client(key).find(PASSWORD).await, pair("exact", "ours"), "{key:?}");
    }
}
