//! Bytes as no library for gRPC sends them, over HTTP/2 without negotiation.

use std::time::Duration;

use axum::body::Body;
use futures_util::stream::{StreamExt, iter, pending, unfold};
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::support::{Answer, Home, Server, until};

const INSERT: &str = "/nearhit.v1.CacheService/Insert";

/// Names and values.
type Pairs<'a> = &'a [(&'a str, &'a str)];

/// A caller of one server, with the headers of a gRPC call unless others are given.
struct Caller {
    http: Client<HttpConnector, Body>,
    url: String,
}

impl Caller {
    fn new(server: &Server) -> Self {
        let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        Self { http, url: server.url.clone() }
    }

    async fn call(&self, method: Method, path: &str, headers: Pairs<'_>, body: impl Into<Body>) -> (Answer, HeaderMap) {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
            if !headers.iter().any(|(other, _)| *other == name) {
                request = request.header(name, value);
            }
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).expect("a request");
        let (parts, body) = self.http.request(request).await.expect("an answer").into_parts();
        let collected = body.collect().await.expect("a whole answer");
        let trailers = collected.trailers().cloned().unwrap_or_default();
        (Answer { status: parts.status, headers: parts.headers, body: collected.to_bytes() }, trailers)
    }

    /// The status and its message, wherever they stand.
    async fn status(&self, headers: Pairs<'_>, body: Vec<u8>) -> (String, String) {
        let (answer, trailers) = self.call(Method::POST, INSERT, headers, body).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
        let of = |name: &str| {
            let value = trailers.get(name).or(answer.headers.get(name));
            value.map_or_else(String::new, |value| value.to_str().expect("a text").to_owned())
        };
        (of("grpc-status"), of("grpc-message"))
    }
}

/// An insert as a message with its prefix.
fn insert(prompt: &str) -> Vec<u8> {
    let field = |number: u8, text: &str| [&[number << 3 | 2, text.len() as u8], text.as_bytes()].concat();
    framed(0, &[field(2, prompt), field(6, "answer")].concat())
}

fn framed(compressed: u8, message: &[u8]) -> Vec<u8> {
    [&[compressed][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

#[tokio::test]
async fn a_passed_deadline_costs_no_work() {
    let home = Home::new();
    let mut server = home.serve(&[]).await;
    let caller = Caller::new(&server);
    for timeout in ["0n", "0m", "0S", "00000000H"] {
        let (status, message) = caller.status(&[("grpc-timeout", timeout)], insert("late")).await;
        assert_eq!((status.as_str(), message.contains("deadline")), ("4", true), "{timeout}: {message}");
    }
    for timeout in ["", "1", "S", "1s", "-1S", "1.5S", "123456789S", "soon"] {
        let (status, message) = caller.status(&[("grpc-timeout", timeout)], insert("when?")).await;
        assert_eq!((status.as_str(), message.contains("grpc-timeout")), ("3", true), "{timeout}: {message}");
    }
    assert_eq!(server.client("").stats("default").await["entries"], 0, "something was stored");
    for (i, timeout) in ["60S", "99999999H"].into_iter().enumerate() {
        let status = caller.status(&[("grpc-timeout", timeout)], insert(&format!("in time {i}"))).await;
        assert_eq!(status.0, "0", "{timeout}: {}", status.1);
    }
    assert_eq!(server.client("").stats("default").await["entries"], 2);
    server.check_alive();
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline() {
    let home = Home::new();
    let mut server = home.serve(&[]).await;
    let caller = Caller::new(&server);
    let first = iter([Ok::<_, std::io::Error>(insert("in time"))]);
    let endless = Body::from_stream(first.chain(pending()));
    let headers = [("grpc-timeout", "100m")];
    let (answer, trailers) = caller.call(Method::POST, INSERT_BATCH, &headers, endless).await;
    assert_eq!((answer.status.as_u16(), &trailers["grpc-status"]), (200, &"4".parse().expect("a value")));
    assert_eq!(caller.status(&[], insert("afterwards")).await.0, "0");
    server.check_alive();
}

const INSERT_BATCH: &str = "/nearhit.v1.CacheService/InsertBatch";

#[tokio::test]
async fn a_stream_has_as_many_messages_as_a_batch() {
    let home = Home::new();
    let mut server = home.serve(&[]).await;
    let caller = Caller::new(&server);
    let message = framed(0, b"");
    for (count, expected) in [(1_000, "0"), (1_001, "8")] {
        let (_, trailers) = caller.call(Method::POST, INSERT_BATCH, &[], message.repeat(count)).await;
        assert_eq!(trailers["grpc-status"], expected, "{count} messages");
    }
    server.check_alive();
}

/// A stream that is open does not outlive its caller's key.
#[tokio::test]
async fn a_stream_ends_with_its_key() {
    let home = Home::new();
    let (key, other) = (home.key("acme", "write"), home.key("acme", "write"));
    let mut server = home.serve(&[]).await;
    let caller = Caller::new(&server);
    let endless = unfold(0, |number| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some((Ok::<_, std::io::Error>(insert(&format!("question {number}"))), number + 1))
    });
    let headers = [("x-nearhit-key", key.as_str())];
    let streamed = caller.call(Method::POST, INSERT_BATCH, &headers, Body::from_stream(endless));
    let revoked = async {
        let other = server.client(&other);
        let stored = async || other.stats("default").await["entries"].as_u64().filter(|count| *count > 0);
        until("something is stored", stored).await;
        home.revoke(&key);
    };
    let ((_, trailers), ()) = tokio::join!(streamed, revoked);
    assert_eq!(trailers["grpc-status"], "16");
    server.check_alive();
}

#[tokio::test]
async fn broken_frames_are_refused() {
    let home = Home::new();
    let mut server = home.serve(&[]).await;
    let caller = Caller::new(&server);
    let whole = insert("whole");
    let gzip: Pairs = &[("grpc-encoding", "gzip")];
    let cases: &[(&str, Pairs, Vec<u8>, &[&str])] = &[
        ("nothing", &[], Vec::new(), &["13", "3"]),
        ("half a prefix", &[], whole[..3].to_vec(), &["13", "3"]),
        ("a prefix only", &[], whole[..5].to_vec(), &["13", "3"]),
        ("half a message", &[], whole[..whole.len() - 1].to_vec(), &["13", "3"]),
        ("4 GiB announced", &[], [&[0, 255, 255, 255, 255][..], &whole].concat(), &["8"]),
        ("4 MiB and a byte announced", &[], [0, 0, 0x40, 0, 1].to_vec(), &["8"]),
        ("compressed with gzip", gzip, framed(1, b"\x1f\x8b\x08\0\0\0\0\0\0\0"), &["12"]),
        ("compressed with what nobody knows", &[("grpc-encoding", "zip")], framed(1, b"x"), &["12"]),
        ("compressed with nothing", &[], framed(1, &whole), &["13", "3", "12"]),
        ("an unknown flag", &[], framed(7, &whole), &["13", "3"]),
        ("no such wire type", &[], framed(0, b"\x17\x01"), &["3"]),
    ];
    for (what, headers, body, expected) in cases {
        let (status, message) = caller.status(headers, body.clone()).await;
        assert!(expected.contains(&status.as_str()), "{what}: {status} {message}");
    }
    println!("{} broken frames were refused", cases.len());
    assert_eq!(server.client("").stats("default").await["entries"], 0, "something was stored");
    assert_eq!(caller.status(&[], whole).await.0, "0");
    server.check_alive();
}

#[tokio::test]
async fn only_grpc_calls_are_calls() {
    let home = Home::new();
    let mut server = home.serve(&["--upstream", "http://127.0.0.1:9/v1"]).await;
    let caller = Caller::new(&server);
    for media in
        ["application/json", "text/plain", "application/grpc-web", "application/grpc+json", "application/grpcx", ""]
    {
        let (answer, _) = caller.call(Method::POST, INSERT, &[("content-type", media)], insert("a page's")).await;
        answer.refusal(415, "unsupported_media_type");
    }
    let (answer, _) = caller.call(Method::GET, INSERT, &[], Body::empty()).await;
    answer.refusal(405, "method_not_allowed");
    for path in ["/nearhit.v1.CacheService", "/nearhit.v1.CacheService/", "/nearhit.v1/Insert"] {
        let (answer, _) = caller.call(Method::POST, path, &[], insert("nowhere")).await;
        assert_eq!(answer.status.as_u16(), 404, "{path}: {}", answer.text());
    }
    // A page from elsewhere, and a name that is not this machine's.
    let (answer, _) =
        caller.call(Method::POST, INSERT, &[("origin", "https://evil.example")], insert("a page's")).await;
    answer.refusal(403, "foreign_origin");
    let plain = server.client("").with("host", "evil.example").with("content-type", "application/grpc");
    plain.post_bytes(INSERT, insert("rebound")).await.refusal(403, "foreign_host");

    assert_eq!(server.client("").stats("default").await["entries"], 0, "something was stored");
    // HTTP's own calls are served over HTTP/2 as they are over HTTP/1.
    let body = r#"{"prompt": "over h2", "response": "yes"}"#;
    let json = [("content-type", "application/json")];
    let (answer, _) = caller.call(Method::POST, "/v1/caches/default/entries", &json, body).await;
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.text());
    server.check_alive();
}
