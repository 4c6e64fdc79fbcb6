//! A key does what its scopes say, for its own tenant.

use http::Method;
use serde_json::{Value, json};

use super::{CHAT, ENTRIES, MESSAGES, SEARCH, Setup, ask};
use crate::support::until;

/// Every call, and the scopes of which one is enough.
fn calls() -> Vec<(Method, &'static str, Value, &'static [&'static str])> {
    const READ: &[&str] = &["read", "write"];
    const WRITE: &[&str] = &["write"];
    const ADMIN: &[&str] = &["admin"];
    let one = "/v1/caches/default/entries/00000000000000000000000000000000";
    let feedback = "/v1/caches/default/entries/00000000000000000000000000000000/feedback";
    vec![
        (Method::GET, "/v1/caches", Value::Null, READ),
        (Method::GET, "/v1/caches/default/stats", Value::Null, READ),
        (Method::GET, "/v1/caches/default/tune", Value::Null, READ),
        (Method::GET, "/v1/caches/default/templates", Value::Null, READ),
        (Method::GET, ENTRIES, Value::Null, READ),
        (Method::GET, one, Value::Null, READ),
        (Method::POST, SEARCH, json!({"prompt": "p"}), READ),
        (Method::POST, "/v1/caches/default/entries/search/batch", json!({"searches": [{"prompt": "p"}]}), READ),
        (Method::POST, ENTRIES, json!({"prompt": "p", "response": "r"}), WRITE),
        (Method::POST, "/v1/caches/default/entries/batch", json!({"entries": []}), WRITE),
        (Method::POST, feedback, json!({"correct": true}), WRITE),
        (Method::DELETE, one, Value::Null, WRITE),
        (Method::POST, CHAT, ask("Hi"), WRITE),
        (Method::POST, MESSAGES, ask("Hi"), WRITE),
        (Method::GET, "/v1/models", Value::Null, WRITE),
        (Method::POST, "/v1/caches/default/entries/delete", json!({"tags": ["t"]}), ADMIN),
        (Method::DELETE, ENTRIES, json!({"tags": ["t"]}), ADMIN),
        (Method::POST, "/v1/caches/default/flush", json!({"confirm": "default"}), ADMIN),
    ]
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say() {
    let setup = Setup::start("").await;
    let (mut allowed, mut refused) = (0, 0);
    for scope in ["read", "write", "admin"] {
        let key = setup.home.key("acme", scope);
        let client = setup.client(&key).with("content-type", "application/json");
        until("the key is known", async || (client.get("/v1/caches").await.status != 401).then_some(())).await;
        for (method, path, body, enough) in calls() {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let answer = client.send(method.clone(), path, body).await;
            if enough.contains(&scope) {
                assert!(answer.status != 401 && answer.status != 403, "{scope} {method} {path}: {}", answer.text());
                allowed += 1;
            } else {
                let message = answer.check(403).json();
                assert_eq!(message["error"]["type"], "permission_error", "{message}");
                assert!(path == MESSAGES || message["error"]["code"] == "permission_denied", "{message}");
                // The least that would do.
                assert!(message["error"]["message"].as_str().expect("a text").contains(enough[0]), "{message}");
                refused += 1;
            }
        }
        let admin = setup.admin(&key);
        for path in ["/metrics", "/openapi.json"] {
            let answer = admin.get(path).await;
            match scope {
                "admin" => drop(answer.check(200)),
                _ => assert!(answer.refusal(403, "permission_denied").contains("admin")),
            }
        }
    }
    println!("{allowed} calls allowed, {refused} refused");
}

/// What one tenant stored, by whatever way, nobody else finds, reads, counts or removes.
#[tokio::test]
async fn entries_are_their_tenants() {
    let setup = Setup::start("").await;
    let ada = setup.client(&setup.key);
    let (other, same) = (setup.home.key("bob", "read,write,admin"), setup.home.key("acme", "read,write,admin"));
    let (bob, colleague) = (setup.client(&other), setup.client(&same));
    until("the keys are known", async || (bob.get("/v1/caches").await.status == 200).then_some(())).await;
    let id = ada.insert(&json!({"prompt": "Hi", "response": "Ada's", "tags": ["t"]})).await;
    ada.chat(&ask("Hi")).await.check(200);
    ada.wait_for_entries(2).await;
    let asked = setup.upstream.count();

    // The tenant is the key's, whatever the caller says, and whatever provider's key comes with it.
    let path = format!("{ENTRIES}/{id}");
    let absent = format!("{ENTRIES}/{}", "0".repeat(32));
    for stranger in [
        bob.clone(),
        bob.with("x-nearhit-tenant", "acme"),
        setup.client("sk-test").with("x-nearhit-key", &other),
        setup.client("").with("x-api-key", &other),
    ] {
        assert_eq!(stranger.find("Hi").await.0, "miss");
        assert_eq!(stranger.stats("default").await["entries"], 0);
        assert_eq!(stranger.get(ENTRIES).await.json(), json!({"data": [], "next": null}));
        let deleted = stranger.delete(&path).await;
        deleted.refusal(404, "unknown_entry");
        let never = stranger.delete(&absent).await.text().replace(&"0".repeat(32), &id);
        assert_eq!(deleted.text(), never, "as if it were absent");
        stranger.get(&path).await.refusal(404, "unknown_entry");
        stranger.post("/v1/caches/default/flush", &json!({"confirm": "default"})).await.check(204);
        stranger.with("cache-control", "only-if-cached").chat(&ask("Hi")).await.refusal(504, "only_if_cached");
        let body = json!({"prompt": "Hi", "tenant": "acme"});
        stranger.post(SEARCH, &body).await.refusal(400, "invalid_value");
    }
    assert_eq!(setup.upstream.count(), asked);
    for client in [&ada, &colleague, &setup.client("sk-other").with("x-nearhit-key", &same)] {
        assert_eq!(client.find("Hi").await, ("exact".to_owned(), "Ada's".to_owned()));
        assert_eq!(client.chat(&ask("Hi")).await.check(200).outcome(), ("hit", "exact"));
    }
    assert_eq!(setup.upstream.count(), asked);
}

#[tokio::test]
async fn a_single_tenant_has_keys_too() {
    let setup = Setup::start("tenancy = \"single\"").await;
    let other = setup.home.key("bob", "read");
    let bob = setup.client(&other);
    until("the key is known", async || (bob.get("/v1/caches").await.status == 200).then_some(())).await;
    setup.client(&setup.key).insert(&json!({"prompt": "Hi", "response": "ours"})).await;
    assert_eq!(bob.find("Hi").await, ("exact".to_owned(), "ours".to_owned()));
    bob.post(ENTRIES, &json!({"prompt": "Hi", "response": "mine"})).await.refusal(403, "permission_denied");
    setup.client("sk-test").get("/v1/caches").await.refusal(401, "invalid_api_key");
}
