//! What reaches the provider, and what comes back from it, where the cache has no say.

use axum::body::Body;
use futures_util::stream::{self, StreamExt};
use http::Method;
use serde_json::json;

use super::{Setup, ask, said};
use crate::support::{Home, Reply, Upstream};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn bodies_are_forwarded_to_the_byte() {
    let setup = Setup::start("Yes.").await;
    for (row, sent, forwarded) in [
        (
            "as it is",
            "{ \"model\" : \"m\",\n\t\"messages\":[{\"content\":\"caf\\u00e9 \\ud83d\\ude00\",\"role\":\"user\"}] ,\"temperature\":1.50,\"big\":12345678901234567890123,\"unknown\":{\"b\":1,\"a\":2.0e0} }\r\n",
            None,
        ),
        (
            "cache and nearhit are taken out",
            r#"{ "cache" : {"ttl": 60}, "model":"m", "seed": 1.50 ,"messages":[ {"role":"user","content":"caf\u00e9"} ],"nearhit":{"vars":{}}}"#,
            Some(r#"{"model":"m","seed":1.50,"messages":[ {"role":"user","content":"caf\u00e9"} ]}"#),
        ),
        (
            "further in they are the client's",
            r#"{"model":"m","messages":[{"role":"user","content":"Hi","cache":1}],"x":{"nearhit":2}}"#,
            None,
        ),
        ("not cacheable", r#"{"model":"m", "messages":[], "cache":{"ttl":1}}"#, Some(r#"{"model":"m","messages":[]}"#)),
    ] {
        setup.client.post_bytes(CHAT, sent).await.check(200);
        let call = setup.upstream.last();
        assert_eq!(String::from_utf8_lossy(&call.body), forwarded.unwrap_or(sent), "{row}");
        assert_eq!(call.header("content-length"), call.body.len().to_string(), "{row}");
        assert_eq!((call.method.as_str(), call.target.as_str()), ("POST", CHAT));
    }
    // However it came in, it goes out in one piece and with its length.
    let pieces = stream::iter(["{\"model\":\"m\",\"messages\":[", "{\"role\":\"user\",\"content\":\"In pieces\"}]}"]);
    setup.client.post_bytes(CHAT, Body::from_stream(pieces.map(Ok::<_, std::convert::Infallible>))).await.check(200);
    let call = setup.upstream.last();
    assert_eq!((call.header("content-length"), call.header("transfer-encoding")), ("64", ""));
    assert_eq!(call.json()["messages"][0]["content"], "In pieces");
}

#[tokio::test]
async fn headers_are_forwarded_but_for_those_that_end_here() {
    let setup = Setup::start("Yes.").await;
    let client = setup.client.with("openai-organization", "o").with("x-request-id", "r").with("user-agent", "agent/1");
    let client = client.with("x-nearhit-cache", "a").with("x-nearhit-tags", "t");
    let client = client.with("accept-encoding", "gzip").with("te", "trailers").with("connection", "x-mine");
    client.with("x-mine", "1").chat(&ask("Hi")).await.check(200);
    let call = setup.upstream.last();
    for (name, expected) in [
        ("authorization", "Bearer sk-test"),
        ("openai-organization", "o"),
        ("x-request-id", "r"),
        ("user-agent", "agent/1"),
        ("content-type", "application/json"),
        // A compressed answer could not be recorded.
        ("accept-encoding", "identity"),
        ("host", setup.upstream.origin().trim_start_matches("http://")),
        ("te", ""),
        ("x-mine", ""),
    ] {
        assert_eq!(call.header(name), expected, "{name}");
    }
    let own: Vec<_> = call.headers.keys().filter(|name| name.as_str().starts_with("x-nearhit")).collect();
    assert!(own.is_empty(), "{own:?}");
}

/// Everything else below /v1/ goes through untouched, each time, in both directions.
#[tokio::test]
async fn other_paths_pass_through() {
    let setup = Setup::start("").await;
    let anthropic = &[("anthropic-version", "2023-06-01"), ("x-api-key", "sk-ant")][..];
    let json = &[("content-type", "application/json")][..];
    let binary = b"--x\r\ncontent-disposition: form-data\r\n\r\n\x00\xff\r\n--x--";
    for (method, target, headers, body, status, answer) in [
        ("GET", "/v1/models?limit=2&after=a%20b%2Fc", &[][..], &b""[..], 200, "{\"data\": [ ]}"),
        ("GET", "/v1/models", anthropic, b"", 200, "{}"),
        ("GET", "/v1/models/none", &[], b"", 404, "{\"error\":{\"message\":\"no such model\"}}"),
        ("POST", "/v1/embeddings", json, b"{\"input\" : \"x\"}", 200, "{ \"data\":[1.50]}"),
        ("POST", "/v1/moderations", json, b"no JSON", 429, "slow down"),
        ("POST", "/v1/files", &[("content-type", "multipart/form-data; boundary=x")], binary, 200, "{}"),
        ("DELETE", "/v1/files/file-1", &[], b"", 200, ""),
        ("GET", "/v1/files/file-1.jsonl/content", &[], b"", 200, "\u{1}\u{2}"),
        ("GET", "/v1/chat/completions?limit=1", &[], b"", 200, "{}"),
        ("POST", "/v1/moderations", json, b"{\"cache\": 1}", 500, "{\"error\":{}}"),
        ("POST", "/v1/messages", anthropic, b"{\"max_tokens\": 1}", 200, "{\"type\":\"message\"}"),
        ("POST", "/v1/messages?beta=true", anthropic, b"{}", 529, "{\"type\":\"error\"}"),
        ("POST", "/v1/messages/count_tokens", anthropic, b"{}", 200, "{}"),
    ] {
        let reply = answer.to_owned();
        setup.upstream.answer_with(move |_| {
            Reply::new(status, "application/json; charset=x", reply.clone()).header("x-request-id", "r")
        });
        for _ in 0..2 {
            let calls = setup.upstream.count();
            let client = headers.iter().fold(setup.client.clone(), |client, (name, value)| client.with(name, value));
            let method: Method = method.parse().expect("a method");
            let got = client.send(method.clone(), target, Body::from(body)).await;
            let call = setup.upstream.last();
            assert_eq!(setup.upstream.count(), calls + 1, "{method} {target}");
            assert_eq!((call.method.as_str(), call.target.as_str()), (method.as_str(), target));
            assert_eq!(call.body, body, "{method} {target}");
            assert_eq!((got.status.as_u16(), got.text().as_str()), (status, answer), "{method} {target}");
            assert_eq!((got.header("content-type"), got.header("x-request-id")), ("application/json; charset=x", "r"));
            assert_eq!(got.outcome(), ("bypass", "not_cacheable"), "{method} {target}");
            for (name, value) in headers {
                assert_eq!(call.header(name), *value, "{method} {target}");
            }
        }
    }
    assert_eq!(setup.entries().await, 0);
}

/// Anthropic's calls go to Anthropic, all others to the other upstream, whose base may have a path.
#[tokio::test]
async fn each_path_has_its_upstream() {
    let (openai, anthropic) = (Upstream::saying("openai").await, Upstream::saying("anthropic").await);
    let home = Home::new();
    let base = format!("{}/proxy/openai/v1/", openai.origin());
    let server = home.serve(&["--upstream", &base, "--anthropic-upstream", &anthropic.origin()]).await;
    let client = server.client("sk-test");
    client.chat(&ask("Hi")).await.check(200);
    assert_eq!(openai.last().target, "/proxy/openai/v1/chat/completions");
    client.post("/v1/messages", &ask("Hi")).await.check(200);
    assert_eq!(anthropic.last().target, "/v1/messages");
    assert_eq!((openai.count(), anthropic.count()), (1, 1));
}

/// Redirects are the client's to follow: the proxy goes where its configuration says and nowhere else.
#[tokio::test]
async fn redirects_are_not_followed() {
    let setup = Setup::start("").await;
    setup.upstream.answer_with(|_| Reply::new(307, "text/plain", "").header("location", "http://192.0.2.1/"));
    let answer = setup.client.chat(&ask("Hi")).await.check(307);
    assert_eq!((answer.header("location"), setup.upstream.count()), ("http://192.0.2.1/", 1));
}

#[tokio::test]
async fn without_its_upstream_it_serves_what_it_has() {
    // A port that takes connections and never says a word, and one that takes none.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent_url = format!("http://{}/v1", silent.local_addr().expect("bound"));
    for (url, status, code) in
        [("http://127.0.0.1:9/v1", 502, "upstream_unreachable"), (silent_url.as_str(), 504, "upstream_timeout")]
    {
        let home = Home::with_config("[upstream]\nhead_timeout_s = 0.3");
        let server = home.serve(&["--upstream", url]).await;
        let client = server.client("sk-test");
        client.insert(&json!({"request": ask("known"), "response": "still here"})).await;
        let failed = client.chat(&ask("unknown")).await;
        let message = failed.refusal(status, code);
        assert!(!message.contains("127.0.0.1"), "the client need not know where: {message}");
        assert_eq!(failed.outcome().0, "miss");
        client.get("/v1/models").await.refusal(status, code);
        let hit = client.chat(&ask("known")).await.check(200);
        assert_eq!((hit.outcome(), said(&hit).as_str()), (("hit", "exact"), "still here"));
        assert_eq!(client.stats("default").await["entries"], 1);
    }
}
