//! Rows 1 to 21: framing, heads, paths and methods.

use serde_json::json;

use super::Then::{Bypass, Closed, Miss, Refused, Served};
use super::{CHAT, Row, Then, To, ask, post, unframed};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |number: u8, what: &str, bytes: Vec<u8>, then: Then| {
        rows.push(Row { number, what: what.to_owned(), to: To::Open, bytes, then });
    };
    let hi = ask("Hi", json!({}));
    let chunked = |body: &str| format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let with = |lines: &str| post(CHAT, lines, &hi);
    let at = |path: &str| post(path, "", &hi);
    let coded = |coding: &str| unframed(CHAT, coding, chunked(&hi));
    let bare = |line: &str| format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").into_bytes();

    // Both are allowed to whoever then goes by the chunks alone and closes (RFC 9112, 6.3): the second request is none.
    let smuggled = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let both = |first: &str, second: &str, text: &str| {
        let body = chunked(&ask(text, json!({}))) + smuggled;
        unframed(CHAT, &format!("connection: keep-alive\r\n{first}{second}"), body)
    };
    let (length, chunks) = ("content-length: 4\r\n", "transfer-encoding: chunked\r\n");
    add(1, "a length, then chunks", both(length, chunks, "Row 1, length first"), Miss);
    add(1, "chunks, then a length", both(chunks, length, "Row 1, chunks first"), Miss);
    add(2, "two lengths", with("content-length: 3\r\n"), Closed(400));
    add(3, "a signed length", unframed(CHAT, "content-length: +5\r\n", &hi), Closed(400));
    add(3, "a negative length", unframed(CHAT, "content-length: -5\r\n", &hi), Closed(400));
    add(3, "a list of lengths", unframed(CHAT, "content-length: 5, 5\r\n", &hi), Closed(400));
    add(4, "chunks, then nothing", coded("transfer-encoding: chunked, identity\r\n"), Closed(400));
    add(4, "an unknown coding", coded("transfer-encoding: xchunked\r\n"), Closed(400));
    let coding = Refused(400, "invalid_value", "transfer-encoding");
    add(4, "compressed chunks", coded("transfer-encoding: gzip, chunked\r\n"), coding);
    let coding = Refused(400, "invalid_value", "transfer-encoding");
    add(4, "chunks in chunks", coded("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"), coding);
    add(5, "a space before the colon", coded("transfer-encoding : chunked\r\n"), Closed(400));
    add(6, "a folded header", with("x-a: b\r\n c\r\n"), Closed(400));
    add(7, "a NUL", with("x-a: b\0c\r\n"), Closed(400));
    add(7, "a bare CR", with("x-a: b\rc\r\n"), Closed(400));
    let broken = || Refused(400, "body_broken_off", "");
    let chunk = |size: &str| unframed(CHAT, "transfer-encoding: chunked\r\n", format!("{size}\r\n{hi}\r\n0\r\n\r\n"));
    add(8, "a chunk over 64 bits", chunk("fffffffffffffffff"), broken());
    add(8, "a negative chunk", chunk("-1"), broken());
    add(8, "a chunk with a prefix", chunk("0x10"), broken());

    let many: String = (0..101).map(|n| format!("x-{n}: a\r\n")).collect();
    add(9, "101 more headers", with(&many), Closed(431));
    add(10, "a header of 70 KB", with(&format!("x-a: {}\r\n", "a".repeat(70_000))), Closed(431));
    let large: String = (0..70).map(|n| format!("x-{n}: {}\r\n", "a".repeat(1000))).collect();
    add(10, "70 headers of 1 KB", with(&large), Closed(431));
    add(11, "a path of 9 KB", at(&format!("/v1/models/{}", "a".repeat(9000))), Refused(414, "uri_too_long", ""));
    add(11, "a query of 9 KB", at(&format!("{CHAT}?{}", "a".repeat(9000))), Refused(414, "uri_too_long", ""));
    let host = || Refused(400, "invalid_value", "host");
    for name in ["x/?", "x#", "localhost/?", "a@localhost", "localhost localhost"] {
        add(12, name, with(&format!("host: {name}\r\n")), host());
    }
    add(13, "two hosts", with("host: localhost\r\nhost: evil.example\r\n"), host());
    add(13, "one host twice", with("host: localhost\r\nHost: localhost\r\n"), host());
    let nameless = format!("POST {CHAT} HTTP/1.1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    add(13, "no host", nameless.into_bytes(), host());
    add(14, "a line for another host", at(&format!("http://evil.example{CHAT}")), host());
    let foreign = post(&format!("http://evil.example{CHAT}"), "host: evil.example\r\n", &hi);
    add(14, "another host in both", foreign, Refused(403, "foreign_host", "host"));
    // Whoever switches to nothing may ignore it (RFC 9110, 7.8), and some clients always ask.
    let upgrade = |to: &str| {
        let lines = format!("connection: upgrade, close\r\nupgrade: {to}\r\n");
        post(CHAT, &lines, ask(&format!("Row 15, {to}"), json!({})))
    };
    add(15, "another protocol", upgrade("foo"), Miss);
    add(15, "HTTP/2", upgrade("h2c"), Miss);
    add(16, "what nobody expects", with("expect: x\r\n"), Refused(417, "invalid_value", "expect"));

    add(17, "an unknown path", at("/unheard-of"), Refused(404, "unknown_path", ""));
    add(17, "an unknown path of the cache API", at("/v1/caches/default/unheard-of"), Refused(404, "unknown_path", ""));
    let not_allowed = || Refused(405, "method_not_allowed", "");
    add(18, "GET of a search", bare("GET /v1/caches/default/entries/search"), not_allowed());
    add(18, "GET of chats, which the provider has", bare("GET /v1/chat/completions"), Bypass("not_cacheable"));
    for path in ["//v1/chat/completions", "/v1/%2e%2e/healthz", "/v1/./chat/completions", "/%76%31/models"] {
        add(19, path, at(path), Refused(404, "unknown_path", ""));
    }
    add(19, "an escaped slash is no slash", at("/v1/chat%2fcompletions"), Bypass("not_cacheable"));
    add(20, "TRACE", bare("TRACE /v1/models"), not_allowed());
    let connect = "CONNECT localhost:80 HTTP/1.1\r\nhost: localhost:80\r\nconnection: close\r\n\r\n";
    add(20, "CONNECT", connect.into(), not_allowed());
    add(21, "HEAD /healthz", bare("HEAD /healthz"), Served);
    rows
}
