//! Rows of wrong requests by number, as bytes on a socket: what each is told, whether the provider was asked, and that
//! nobody else notices. More of each kind is in the files beside this one, in `keys/` and in `proxy/bypass.rs`.

mod bodies;
mod callers;
mod heads;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::CHAT;
use crate::support::{Client, Home, PATIENCE, Reply, Server, Upstream};

/// One request, and what must become of it.
struct Row {
    number: u8,
    what: String,
    to: To,
    bytes: Vec<u8>,
    then: Then,
}

/// Whom it is sent to.
#[derive(Clone, Copy, PartialEq)]
enum To {
    /// A server without keys of its own.
    Open,
    /// One that wants a key.
    Keyed,
    /// The admin listener of that.
    Admin,
}

/// What must become of a request. But for the last four nothing goes upstream.
enum Then {
    /// Not even a request: this status, and the connection is closed.
    Closed(u16),
    /// In OpenAI's shape: status, code, and the field or header at fault.
    Refused(u16, &'static str, &'static str),
    /// In Anthropic's shape: status and type.
    RefusedAsAnthropic(u16, &'static str),
    /// 200, by nearhit itself.
    Served,
    /// Answered by the provider, and not kept for this reason.
    Bypass(&'static str),
    /// Answered by the provider, and kept.
    Miss,
    /// The same by a server whose entries are not counted here.
    Passed,
    /// The provider's error in the middle of a stream is passed on.
    BrokenStream,
}

/// An HTTP/1.1 request with these lines in its head and the body's length.
fn post(path: &str, lines: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let length = body.as_ref().len();
    unframed(path, &format!("{lines}content-length: {length}\r\n"), body)
}

/// The same, without the body's length.
fn unframed(path: &str, lines: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let lower = lines.to_ascii_lowercase();
    let absent = |name: &str, line: &'static str| if lower.contains(&format!("{name}:")) { "" } else { line };
    let line = format!("POST {path} HTTP/1.1\r\n");
    let head = [
        line.as_str(),
        absent("host", "host: localhost\r\n"),
        absent("authorization", "authorization: Bearer sk-test\r\n"),
        absent("content-type", "content-type: application/json\r\n"),
        absent("connection", "connection: close\r\n"),
        lines,
        "\r\n",
    ];
    [head.concat().as_bytes(), body.as_ref()].concat()
}

/// A chat request that asks `text`, with more fields. The seed keeps the rows apart, however near they are.
fn ask(text: &str, more: Value) -> String {
    let seed: u64 = text.bytes().map(u64::from).sum();
    let mut body = json!({"model": "m", "seed": seed, "messages": [{"role": "user", "content": text}]});
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body.to_string()
}

struct Table {
    upstream: Upstream,
    open: Server,
    keyed: Server,
    client: Client,
    /// Entries of the open server.
    kept: u64,
    _homes: [Home; 2],
}

/// A key of each kind.
struct KeysOfTest {
    valid: String,
    other: String,
    revoked: String,
}

#[tokio::test]
async fn every_row_is_answered_as_it_must_and_nobody_else_notices() {
    let upstream = Upstream::start(|call| {
        if String::from_utf8_lossy(&call.body).contains("Break off") {
            let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
            return Reply::events(format!("event: error\ndata: {error}\n\n"));
        }
        Reply::saying("Fine.", call)
    })
    .await;
    let homes = [Home::new(), Home::new()];
    let keys = KeysOfTest {
        valid: homes[1].key("acme", "read,write"),
        other: homes[1].key("other", "read,write,admin"),
        revoked: homes[1].key("acme", "read,write"),
    };
    homes[1].revoke(&keys.revoked);
    let (base, origin) = (upstream.base(), upstream.origin());
    let flags = ["--upstream", &base, "--anthropic-upstream", &origin];
    let (open, keyed) = (homes[0].serve(&flags).await, homes[1].serve(&flags).await);
    let client = open.client("sk-test");
    let known: Value = serde_json::from_str(&ask("Known?", json!({}))).expect("JSON");
    client.insert(&json!({"request": known, "response": "Still here."})).await;
    // Nobody may call it, whatever a request says.
    let canary = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    canary.set_nonblocking(true).expect("a socket");
    let canary_url = format!("http://{}", canary.local_addr().expect("bound"));

    let mut table = Table { upstream, open, keyed, client, kept: 1, _homes: homes };
    let mut rows = heads::rows();
    rows.extend(callers::rows(&keys));
    rows.extend(bodies::rows(&canary_url));
    let numbers: BTreeSet<u8> = rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=74).collect());
    let (mut refused, mut passed) = (0, 0);
    for row in &rows {
        let calls = table.check(row).await;
        if calls == 0 {
            refused += 1
        } else {
            passed += 1
        }
        let hit = table.client.post(CHAT, &known).await.check(200);
        assert_eq!(hit.outcome(), ("hit", "exact"), "after row {} ({})", row.number, row.what);
    }
    assert_eq!(canary.accept().expect_err("nobody").kind(), std::io::ErrorKind::WouldBlock);
    table.client.wait_for_entries(table.kept).await;
    table.open.check_alive();
    table.keyed.check_alive();
    println!(
        "bad input: {} rows, {} requests: {refused} ended here, {passed} passed to the provider once each; the next good \
         request was served after all of them",
        numbers.len(),
        rows.len()
    );
}

impl Table {
    /// Sends the request of a row; how often the provider was asked.
    async fn check(&mut self, row: &Row) -> usize {
        let Row { number, what, to, bytes, then } = row;
        let name = format!("row {number} ({what})");
        let url = match to {
            To::Open => &self.open.url,
            To::Keyed => &self.keyed.url,
            To::Admin => &self.keyed.admin_url,
        };
        let before = self.upstream.count();
        let got = exchange(url.trim_start_matches("http://"), bytes).await;
        let calls = self.upstream.count() - before;
        let (head, body) = got.split_once("\r\n\r\n").unwrap_or((&got, ""));
        let status: u16 = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default();
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
        };
        let outcome = (status, header("x-nearhit-outcome"), header("x-nearhit-reason"));
        let error = || serde_json::from_str::<Value>(body).unwrap_or_default();
        let mut expected_calls = 1;
        match *then {
            Then::Closed(expected) => {
                assert_eq!((status, header("connection")), (expected, "close"), "{name}: {got:.300}");
                expected_calls = 0;
            }
            Then::Refused(expected, code, param) => {
                let error = error();
                let said = (error["error"]["code"].as_str(), error["error"]["param"].as_str().unwrap_or_default());
                assert_eq!((status, said), (expected, (Some(code), param)), "{name}: {got:.600}");
                assert_eq!(header("allow").is_empty(), status != 405, "{name}: {got:.600}");
                expected_calls = 0;
            }
            Then::RefusedAsAnthropic(expected, kind) => {
                let error = error();
                assert_eq!((status, error["type"].as_str()), (expected, Some("error")), "{name}: {got:.600}");
                assert_eq!(error["error"]["type"], kind, "{name}: {got:.600}");
                expected_calls = 0;
            }
            Then::Served => {
                assert_eq!((status, body), (200, ""), "{name}: {got:.300}");
                expected_calls = 0;
            }
            Then::Bypass(reason) => assert_eq!(outcome, (200, "bypass", reason), "{name}: {got:.600}"),
            Then::Miss | Then::Passed => assert_eq!((status, outcome.1), (200, "miss"), "{name}: {got:.600}"),
            Then::BrokenStream => {
                assert_eq!((status, outcome.1), (200, "miss"), "{name}: {got:.600}");
                assert!(body.contains("event: error"), "{name}: {got:.600}");
            }
        }
        assert_eq!(calls, expected_calls, "{name}: calls upstream");
        assert_eq!(got.matches("HTTP/1.1 ").count(), 1, "{name}: one request has one answer: {got:.600}");
        if calls == 1 {
            let call = self.upstream.last();
            for gone in ["transfer-encoding", "upgrade", "connection", "x-nearhit-cache", "x-nearhit-threshold"] {
                assert_eq!(call.header(gone), "", "{name}: {gone} went upstream");
            }
        }
        if matches!(then, Then::Miss) {
            self.kept += 1;
            self.client.wait_for_entries(self.kept).await;
        } else {
            assert_eq!(self.client.stats("default").await["entries"], self.kept, "{name}: something was stored");
        }
        calls
    }
}

/// Sends the bytes, and reads until the server closes.
async fn exchange(address: &str, bytes: &[u8]) -> String {
    let (mut reader, mut writer) = TcpStream::connect(address).await.expect("the server").into_split();
    let mut answer = Vec::new();
    // A server that has refused need not read the rest: neither side's trouble with that is one.
    let writing = async { drop(writer.write_all(bytes).await) };
    let reading = async { drop(reader.read_to_end(&mut answer).await) };
    let both = tokio::time::timeout(PATIENCE, async { tokio::join!(writing, reading) });
    both.await.expect("the server answers and closes");
    String::from_utf8_lossy(&answer).into_owned()
}
