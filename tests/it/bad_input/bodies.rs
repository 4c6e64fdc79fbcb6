//! Bodies that are no JSON, too much of it, or not what they say they are.

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::Method;
use serde_json::json;

use super::{Besieged, CHAT, INSERT, Refusal, SEARCH, headers};

/// Every endpoint that reads a body, and the proxy.
const READERS: [&str; 7] = [
    SEARCH,
    INSERT,
    "/v1/caches/default/entries/search/batch",
    "/v1/caches/default/entries/batch",
    "/v1/caches/default/entries/delete",
    "/v1/caches/default/flush",
    CHAT,
];

#[tokio::test]
async fn bodies_that_are_not_json() {
    let besieged = Besieged::start("").await;
    let deep = |depth: usize| format!("{{\"prompt\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    for (body, word) in [
        (b"".to_vec(), "EOF"),
        (b"{".to_vec(), "EOF"),
        (b"{\"prompt\":\"p\"".to_vec(), "EOF"),
        (b"{\"prompt\":\"p\"} x".to_vec(), "trailing"),
        (b"{\"prompt\":\"p\"}{}".to_vec(), "trailing"),
        (b"{prompt:\"p\"}".to_vec(), "key must be a string"),
        (b"{\"prompt\":'p'}".to_vec(), "expected value"),
        (b"{\"prompt\":\"p\",}".to_vec(), "trailing comma"),
        (b"{\"prompt\":\"p\",\"prompt\":\"q\"}".to_vec(), "\"prompt\" appears twice"),
        (b"{\"a\":[{\"b\":1,\"b\":2}]}".to_vec(), "\"b\" appears twice"),
        (b"{\"limit\":NaN}".to_vec(), "expected value"),
        (b"{\"limit\":1e999}".to_vec(), "out of range"),
        (b"{\"limit\":01}".to_vec(), "invalid number"),
        (b"\xef\xbb\xbf{\"prompt\":\"p\"}".to_vec(), "expected value"),
        (b"{\"prompt\":\"\xff\"}".to_vec(), "unicode"),
        (b"{\"prompt\":\"\xed\xa0\x80\"}".to_vec(), "unicode"),
        (b"{\"prompt\":\"\\ud800\"}".to_vec(), "escape"),
        (b"{\"prompt\":\"a\nb\"}".to_vec(), "control character"),
        (deep(128).into_bytes(), "recursion limit"),
        (deep(100_000).into_bytes(), "recursion limit"),
    ] {
        for path in READERS {
            let answer = besieged.client.post_bytes(path, body.clone()).await;
            let sent = format!("{path} {:.60}", String::from_utf8_lossy(&body));
            let refusal = Refusal { status: 400, code: "invalid_json", param: "", words: &["not valid JSON", word] };
            refusal.check(&sent, &answer);
        }
    }
    besieged.check_unharmed().await;
}

#[tokio::test]
async fn bodies_that_are_no_object() {
    let besieged = Besieged::start("").await;
    for body in ["[]", "null", "7", "\"text\"", "true"] {
        for path in READERS {
            let answer = besieged.client.post_bytes(path, body).await;
            assert_eq!(answer.status, 400, "{path} {body}: {}", answer.text());
            assert!(answer.json()["error"]["message"].is_string());
        }
    }
    besieged.check_unharmed().await;
}

#[tokio::test]
async fn bodies_of_another_kind() {
    let besieged = Besieged::start("").await;
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-type", "text/plain; charset=utf-8"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-type", "multipart/form-data; boundary=x"),
        ("content-encoding", "gzip"),
        ("content-encoding", "br"),
    ] {
        for path in READERS {
            let client = besieged.client.with(name, value);
            let answer = client.post_bytes(path, "{\"prompt\":\"before\"}").await;
            let word = value.split(';').next().unwrap_or(value);
            let refusal = Refusal { status: 415, code: "unsupported_media_type", param: "", words: &[name, word] };
            refusal.check(&format!("{path} {name}: {value}"), &answer);
        }
    }
    // These mean the same as what everybody sends.
    for (name, value) in [
        ("content-type", "application/json; charset=utf-8"),
        ("content-type", "Application/JSON"),
        ("content-encoding", "identity"),
    ] {
        let answer = besieged.client.with(name, value).post_bytes(SEARCH, "{\"prompt\":\"before\"}").await;
        assert_eq!(answer.check(200).json()["outcome"], "hit", "{value}");
    }
    let bare = besieged.client.send(Method::POST, SEARCH, "{\"prompt\":\"before\"}").await;
    assert_eq!(bare.check(200).json()["outcome"], "hit");
    besieged.check_unharmed().await;
}

/// Over the limit of 32 MiB, whether the client says so beforehand or not.
#[tokio::test]
async fn bodies_that_are_too_large() {
    let besieged = Besieged::start("").await;
    let mebibyte = Bytes::from(vec![b' '; 1 << 20]);
    for path in [SEARCH, INSERT, CHAT] {
        let whole = Body::from(vec![b' '; 33 << 20]);
        let pieces = stream::iter(vec![mebibyte.clone(); 33]).map(Ok::<_, std::convert::Infallible>);
        for (kind, body) in [("whole", whole), ("chunked", Body::from_stream(pieces))] {
            let answer = besieged.client.post_bytes(path, body).await;
            let refusal = Refusal { status: 413, code: "body_too_large", param: "", words: &["33554432"] };
            refusal.check(&format!("{path} {kind}"), &answer);
        }
    }
    // Just below it is read.
    let padding = " ".repeat((32 << 20) - 100);
    let large = besieged.client.post_bytes(SEARCH, format!("{{{padding}\"prompt\":\"before\"}}")).await;
    assert_eq!(large.check(200).json()["outcome"], "hit");
    besieged.check_unharmed().await;
}

#[tokio::test]
async fn callers_that_are_not_clear_about_themselves() {
    let besieged = Besieged::start("").await;
    for (sent, status, code, param) in [
        (
            headers(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]),
            400,
            "invalid_value",
            "authorization",
        ),
        (headers(&[("x-api-key", "a"), ("x-api-key", "b")]), 400, "invalid_value", "x-api-key"),
        (headers(&[("host", "evil.example")]), 403, "foreign_host", "host"),
        (headers(&[("host", "evil.example:8080")]), 403, "foreign_host", "host"),
        (headers(&[("host", "127.0.0.1.evil.example")]), 403, "foreign_host", "host"),
        (headers(&[("host", "192.0.2.7")]), 403, "foreign_host", "host"),
        (headers(&[("origin", "https://evil.example")]), 403, "foreign_origin", "origin"),
        (headers(&[("origin", "null")]), 403, "foreign_origin", "origin"),
        (headers(&[("x-nearhit-key", "nh_1")]), 401, "invalid_api_key", ""),
        (headers(&[("authorization", "Bearer nh_1")]), 401, "invalid_api_key", ""),
    ] {
        for path in [SEARCH, INSERT, CHAT] {
            let mut client = besieged.client.clone();
            for (name, value) in &sent {
                client = client.with(name.as_str(), value.to_str().expect("a text"));
            }
            let answer = client.post(path, &json!({"prompt": "before"})).await;
            Refusal { status, code, param, words: &[] }.check(&format!("{path} {sent:?}"), &answer);
        }
    }
    for host in ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:80", "127.1.2.3"] {
        let answer = besieged.client.with("host", host).post(SEARCH, &json!({"prompt": "before"})).await;
        assert_eq!(answer.check(200).json()["outcome"], "hit", "{host}");
    }
    let admin = besieged.server.admin().with("host", "evil.example");
    for path in ["/metrics", "/openapi.json"] {
        admin.get(path).await.refusal(403, "foreign_host");
    }
    besieged.check_unharmed().await;
}
