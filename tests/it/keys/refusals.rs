//! Whoever has no valid key gets one and the same answer, and nothing else happens.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CHAT, ENTRIES, MESSAGES, SEARCH, Setup, ask};
use crate::support::{Answer, Home, until};

/// Calls of every kind, with bodies that would be served.
fn calls() -> Vec<(Method, &'static str, String)> {
    let one = "/v1/caches/default/entries/00000000000000000000000000000000";
    vec![
        (Method::POST, CHAT, ask("Hi").to_string()),
        (
            Method::POST,
            MESSAGES,
            json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}).to_string(),
        ),
        (Method::POST, "/v1/embeddings", json!({"model": "m", "input": "Hi"}).to_string()),
        (Method::GET, "/v1/models", String::new()),
        (Method::GET, "/unheard-of", String::new()),
        (Method::POST, SEARCH, json!({"prompt": "Hi"}).to_string()),
        (Method::POST, ENTRIES, json!({"prompt": "Hi", "response": "Ho"}).to_string()),
        (Method::GET, ENTRIES, String::new()),
        (Method::GET, "/v1/caches", String::new()),
        (Method::DELETE, one, String::new()),
        (Method::POST, "/v1/caches/default/flush", json!({"confirm": "default"}).to_string()),
        // Not even whether this would have been understood is said.
        (Method::POST, CHAT, "{".to_owned()),
        (Method::PATCH, ENTRIES, String::new()),
    ]
}

#[tokio::test]
async fn without_a_valid_key_nothing_happens() {
    let setup = Setup::start("").await;
    let (home, key) = (&setup.home, setup.key.as_str());
    let (revoked, expired) =
        (home.key("acme", "read,write,admin"), home.key_with(&["--tenant", "acme", "--expires", "1s"]));
    home.revoke(&revoked);
    let last = home.key("acme", "read");
    until("the keys are known", async || (setup.client(&last).get("/v1/caches").await.status == 200).then_some(()))
        .await;
    for key in [&revoked, &expired] {
        until("the key is refused", async || (setup.client(key).get("/v1/caches").await.status == 401).then_some(()))
            .await;
    }
    setup.client(key).get("/v1/caches").await.check(200);
    let elsewhere = Home::new().key("acme", "read,write,admin");

    let bearer = |key: &str| vec![("authorization".to_owned(), format!("Bearer {key}"))];
    let own = |key: &str| vec![("x-nearhit-key".to_owned(), key.to_owned())];
    let long = key.chars().cycle().take(10 << 10).collect::<String>();
    let mut rows: Vec<(&str, Vec<(String, String)>)> = vec![
        ("22 no key", vec![]),
        ("22 a provider's key", bearer("sk-test")),
        ("22 a provider's key, as Anthropic's clients send it", vec![("x-api-key".into(), "sk-test".into())]),
        ("23 another server's", bearer(&elsewhere)),
        ("23 another server's", own(&elsewhere)),
        ("23 another server's, and a provider's", [own(&elsewhere), bearer("sk-test")].concat()),
        ("23 no key's form", own("secret")),
        ("23 empty", own("")),
        ("24 the prefix", bearer("nh_")),
        ("24 the prefix and the id", bearer(&key[..11])),
        ("24 the first 20 characters", bearer(&key[..20])),
        ("24 all but the last character", bearer(&key[..key.len() - 1])),
        ("24 in capitals", bearer(&key.to_uppercase())),
        ("25 two spaces", bearer(&format!(" {key}"))),
        ("25 a space and more", bearer(&format!("{key} x"))),
        ("25 a tab and more", own(&format!("{key}\tx"))),
        ("25 an escaped space", own(&format!("{key}%20"))),
        ("26 SQL", bearer(&format!("{key}' OR '1'='1"))),
        ("26 SQL alone", own("nh_' OR 1=1 --")),
        ("26 an escaped line break", own(&format!("{key}%0d%0ax-nearhit-tenant:%20other"))),
        ("27 10 KiB", bearer(&long)),
        ("27 10 KiB", own(&long)),
        ("28 revoked", bearer(&revoked)),
        ("28 revoked", own(&revoked)),
        ("28 expired", bearer(&expired)),
        ("31 a tenant by name", vec![("x-nearhit-tenant".into(), "acme".into())]),
    ];
    for name in ["basic", "Basic", "token"] {
        rows.push(("26 another scheme", vec![("authorization".to_owned(), format!("{name} {key}"))]));
    }
    let before = setup.upstream.count();
    let mut bodies: BTreeMap<(Method, &str), BTreeSet<String>> = BTreeMap::new();
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    for (row, headers) in &rows {
        let client = headers.iter().fold(setup.client(""), |client, (name, value)| client.with(name, value));
        for (method, path, body) in calls() {
            let client = client.with("content-type", "application/json");
            let answer = client.send(method.clone(), path, body).await;
            assert_eq!(answer.status, 401, "{row}: {method} {path}: {}", answer.text());
            if path == MESSAGES {
                let message = answer.json();
                assert_eq!(
                    (&message["type"], &message["error"]["type"]),
                    (&json!("error"), &json!("authentication_error"))
                );
            } else {
                answer.refusal(401, "invalid_api_key");
            }
            assert!(
                !answer.headers.keys().any(|name| name.as_str().starts_with("x-nearhit")),
                "{row}: {method} {path}"
            );
            let mut body = answer.json();
            // Anthropic's shape names each call.
            body.as_object_mut().expect("an object").remove("request_id");
            bodies.entry((method, path)).or_default().insert(body.to_string());
            *refused.entry(&row[..2]).or_default() += 1;
        }
    }
    for (call, bodies) in bodies {
        assert_eq!(bodies.len(), 1, "{call:?} has one answer for all: {bodies:?}");
    }
    println!("refused with 401, by row: {refused:?}");
    assert_eq!(setup.upstream.count(), before, "the provider was not asked");
    let metrics = setup.admin(key).get("/metrics").await.check(200).text();
    assert!(!metrics.contains("nearhit_lookups_total{"), "nothing was looked up:\n{metrics}");
    assert_eq!(setup.client(key).get("/v1/caches").await.json(), json!({"data": []}), "nothing was stored");
}

/// What no client library sends.
#[tokio::test]
async fn keys_that_break_out_of_their_header() {
    let setup = Setup::start("").await;
    let key = &setup.key;
    let address = setup.server.url.trim_start_matches("http://").to_owned();
    let status = async |header: &str| {
        let mut stream = TcpStream::connect(&address).await.expect("a connection");
        let request = format!("GET /v1/caches HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or_default().to_owned()
    };
    for (header, expected) in [
        (format!("authorization: Bearer {key}"), "200"),
        // White space around a value is not part of it (RFC 9110, 5.5).
        (format!("authorization:  Bearer {key} "), "200"),
        (format!("authorization: Bearer {key} x"), "401"),
        (format!("authorization: Bearer {key}\r\n x"), "400"),
        (format!("authorization: Bearer {key}\0"), "400"),
        (format!("authorization: Bearer {key}\r\nauthorization: Bearer {key}"), "400"),
        (format!("authorization: Bearer {key}\r\nauthorization: Bearer sk-test"), "400"),
        (format!("authorization: Bearer nh_\r\nauthorization : Bearer {key}"), "400"),
        (format!("x-nearhit-key: {key}\r\nX-Nearhit-Key: {key}"), "400"),
        (format!("authorization: Bearer {key}\u{e4}"), "401"),
        ("authorization:".to_owned(), "401"),
    ] {
        assert_eq!(status(&header).await, expected, "{header:?}");
    }
}

#[tokio::test]
async fn a_call_with_two_keys_says_so() {
    let setup = Setup::start("").await;
    let other = setup.home.key("acme", "write");
    let twice = setup.client(&setup.key);
    for (client, param) in [
        (twice.with("authorization", &format!("Bearer {}", setup.key)), "authorization"),
        (twice.with("x-nearhit-key", &other), "authorization"),
        (twice.with("x-api-key", &other), "x-api-key"),
        (twice.with("x-api-key", "a").with("x-api-key", "b"), "x-api-key"),
    ] {
        for path in [CHAT, SEARCH] {
            let answer = client.post(path, &ask("Hi")).await;
            answer.refusal(400, "invalid_value");
            assert_eq!(answer.json()["error"]["param"], param);
        }
        let answer = client.post(MESSAGES, &ask("Hi")).await.check(400).json();
        assert_eq!(answer["error"]["type"], "invalid_request_error");
    }
    twice.with("x-nearhit-key", &setup.key).with("x-api-key", &setup.key).get("/v1/caches").await.check(200);
    assert_eq!(setup.upstream.count(), 0);
}

/// Where there are no keys, nobody gets in with one: whoever sends one expects entries that are not there.
#[tokio::test]
async fn a_server_without_keys_refuses_them() {
    for config in ["", "tenancy = \"single\""] {
        let home = Home::with_config(config);
        let server = home.serve(&[]).await;
        let key = Home::new().key("acme", "write");
        for client in [server.client(&key), server.client("sk-test").with("x-nearhit-key", &key)] {
            let message = client.get("/v1/caches").await.refusal(401, "invalid_api_key");
            assert!(message.contains("no keys of its own"), "{message}");
        }
        server.client("sk-test").get("/v1/caches").await.check(200);
    }
    let home = Home::with_config("require_keys = true");
    let server = home.serve(&[]).await;
    for key in ["", "sk-test"] {
        server.client(key).get("/v1/caches").await.refusal(401, "invalid_api_key");
    }
}

/// A client that is still sending learns why it is refused.
#[tokio::test]
async fn a_large_body_is_refused_like_any_other() {
    let setup = Setup::start("").await;
    for _ in 0..5 {
        let answer = setup.client("nh_wrong").post(CHAT, &ask(&"x".repeat(8 << 20))).await;
        answer.refusal(401, "invalid_api_key");
    }
}

/// Health is told to everybody, and nothing else on either listener.
#[tokio::test]
async fn only_health_is_open() {
    let setup = Setup::start("").await;
    let status = async |answer: Answer| answer.status.as_u16();
    let open = Body::empty;
    for client in [setup.client(""), setup.admin("")] {
        for path in ["/healthz", "/readyz"] {
            assert_eq!(status(client.get(path).await).await, 200);
            assert_eq!(status(client.send(Method::HEAD, path, open()).await).await, 200);
        }
    }
    for path in ["/metrics", "/openapi.json"] {
        setup.admin("").get(path).await.refusal(401, "invalid_api_key");
        setup.admin("sk-test").get(path).await.refusal(401, "invalid_api_key");
        setup.admin(&setup.key).get(path).await.check(200);
        setup.client("").get(path).await.refusal(401, "invalid_api_key");
        setup.client(&setup.key).get(path).await.refusal(404, "unknown_path");
    }
}
