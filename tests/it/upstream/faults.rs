//! Whatever an upstream answers, its client gets just that, nothing of it is kept, and the next call is none the worse.
//!
//! A thousand identical misses are in `proxy/coalesce.rs`, disks that fill up in `faults/disk.rs`.

use std::sync::Arc;

use http::Method;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::json;

use super::raw::{Act, Raw};
use super::scripted::{Scripted, framed};
use super::{Setup, ask, section};
use crate::proxy::recordings;
use crate::support::{Home, Live, Reply, Upstream, chunks, completion, event_stream, until};

const CHAT: &str = "/v1/chat/completions";

/// F9: every status, with a body that would be kept if it were a 200.
#[tokio::test]
async fn every_status_is_passed_on_and_only_200_is_kept() {
    let setup = Scripted::start("").await;
    let asked = ask("What is the status?");
    let body = completion("Not this.").to_string();
    let (mut passed, mut refused) = (0, 0);
    for status in (201..600_u16).chain([600, 799, 999]) {
        let body = if matches!(status, 204 | 304) { "" } else { body.as_str() };
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        setup.say(format!(
            "HTTP/1.1 {status} Whatever\r\ncontent-type: application/json\r\nretry-after: 7\r\nconnection: close\r\n{length}\r\n{body}"
        ));
        let got = setup.call(CHAT, &asked).await;
        assert_eq!((got.status, got.whole), (status, true));
        assert_eq!((got.text().as_str(), got.header("retry-after")), (body, "7"), "{status}");
        assert_eq!(got.header("x-nearhit-outcome"), "miss", "{status}");
        passed += 1;
    }
    // What comes before the answer is not the answer; a protocol that nobody asked for is none.
    let good = framed("application/json", completion("Here.").to_string().as_bytes());
    for early in ["100 Continue", "102 Processing", "103 Early Hints"] {
        setup.say([format!("HTTP/1.1 {early}\r\nlink: </x>\r\n\r\n").as_bytes(), &good].concat());
        let got = setup.call(CHAT, &json!({"model": "other", "messages": asked["messages"]})).await;
        assert_eq!((got.status, got.header("x-nearhit-outcome")), (200, "miss"), "{early}");
        passed += 1;
    }
    setup.say("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\nfoo");
    assert_eq!(setup.call(CHAT, &asked).await.status, 502);
    refused += 1;
    assert_eq!(setup.calls(), passed + refused);
    assert_eq!(setup.entries().await, 0);
    println!("statuses: {passed} passed on to the byte, {refused} refused with 502, 0 kept");
    setup.check_unharmed(0).await;
}

/// F11: a 200 that is no answer.
#[tokio::test]
async fn garbage_is_passed_on_and_never_kept() {
    let setup = Scripted::start("").await;
    let good = completion("Fine.").to_string();
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let changed = |pointer: &str, value: serde_json::Value| {
        let mut body = completion("Fine.");
        *body.pointer_mut(pointer).expect("there") = value;
        body.to_string().into_bytes()
    };
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b" ".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"7".to_vec(),
        b"\"Fine.\"".to_vec(),
        b"\0".to_vec(),
        b"\xff\xfe{".to_vec(),
        b"<html>Sign in to the hotel's network</html>".to_vec(),
        b"{\"error\":{\"message\":\"overloaded\"}}".to_vec(),
        b"data: {\"choices\":[]}\n\ndata: [DONE]\n\n".to_vec(),
        format!("\u{feff}{good}").into_bytes(),
        format!("{good}x").into_bytes(),
        format!("{good}{good}").into_bytes(),
        format!("[{good}]").into_bytes(),
        good.replace("Fine.", "\\ud800").into_bytes(),
        good.replace("Fine.", "a\nb").into_bytes(),
        deep.into_bytes(),
        changed("/model", json!("another")),
        changed("/choices", json!(null)),
        changed("/choices", json!("Fine.")),
        changed("/choices/0", json!([])),
        changed("/choices/0/message", json!(7)),
        changed("/choices/0/message/content", json!({"text": "Fine."})),
        changed("/choices/0/finish_reason", json!(["stop"])),
    ];
    let asked = ask("Is this an answer?");
    let media = ["application/json", "text/event-stream", "text/html"];
    let mut rows: Vec<_> = bodies.into_iter().flat_map(|body| media.map(|media| (media, body.clone()))).collect();
    // Every shorter answer is none.
    rows.extend((1..good.len()).map(|end| (media[0], good.as_bytes()[..end].to_vec())));
    for (media, body) in &rows {
        setup.say(framed(media, body));
        let got = setup.call(CHAT, &asked).await;
        let row = format!("{media}: {:.200}", String::from_utf8_lossy(body));
        assert_eq!((got.status, got.whole, got.header("x-nearhit-outcome")), (200, true, "miss"), "{row}");
        assert!(got.body == *body, "{row}");
    }
    assert_eq!(setup.entries().await, 0);
    println!("garbage: {} answers, {} calls, all passed on to the byte, 0 kept", rows.len(), setup.calls());
    setup.check_unharmed(0).await;
}

/// F12: a stream of each API, cut after every byte, in two framings: one that shows the cut, one that does not.
#[tokio::test]
async fn a_stream_that_is_cut_anywhere_is_passed_on_and_never_kept() {
    let setup = Scripted::start("").await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
    let (mut cuts, mut kept) = (0, 0);
    for (path, asked, stream) in recordings() {
        // One byte less is a comment that nobody finished, or an event without its end.
        for end in 0..stream.len() {
            let part = &stream.as_bytes()[..end];
            let chunk = if end == 0 { String::new() } else { format!("{end:x}\r\n") };
            for (framing, after, shows) in [
                (format!("{head}connection: close\r\n\r\n"), "", false),
                (format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}"), if end == 0 { "" } else { "\r\n" }, true),
            ] {
                setup.say_in_two([framing.as_bytes(), part, after.as_bytes()].concat(), "");
                let got = setup.call_until(path, &asked, end).await;
                assert_eq!((got.status, got.header("x-nearhit-outcome")), (200, "miss"), "{path} {end}");
                assert!(got.body == part, "{path} {end}: {:?}", got.text());
                assert_eq!(got.whole, !shows, "{path} {end}: a cut that shows must show at the client");
                cuts += 1;
            }
        }
        assert_eq!(setup.entries().await, kept, "{path}");
        setup.say(framed("text/event-stream", stream.as_bytes()));
        assert!(setup.call(path, &asked).await.body == stream.as_bytes());
        kept += 1;
        setup.client.wait_for_entries(kept).await;
    }
    println!("cut streams: {cuts} cuts of {kept} recordings, every byte passed on, 0 kept");
    setup.check_unharmed(kept).await;
}

/// F10, F12: below HTTP. Before there is a head it is a 502; after it, a body that breaks off.
#[tokio::test]
async fn what_is_no_http_is_a_502() {
    let setup = Scripted::start("").await;
    let good = completion("Fine.").to_string();
    let (head, length) = ("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n", good.len());
    let heads = [
        String::new(),
        "\r\n\r\n".into(),
        "HTTP/1.1 200".into(),
        head.into(),
        "no HTTP at all\r\n\r\n".into(),
        "SSH-2.0-OpenSSH_9.6\r\n".into(),
        "\u{16}\u{3}\u{1}".into(),
        "HTTP/1.1 2000 OK\r\n\r\n".into(),
        "HTTP/1.1 -1 OK\r\n\r\n".into(),
        "HTTP/3.0 200 OK\r\n\r\n".into(),
        format!("{head}content-length: -1\r\n\r\n{good}"),
        format!("{head}content-length: {length}\r\ncontent-length: 3\r\n\r\n{good}"),
        format!("{head}content-length: 99999999999999999999999\r\n\r\n{good}"),
        format!("{head}x-a: \0\r\n\r\n{good}"),
        format!("{head}: x\r\n\r\n{good}"),
        format!("{head}x-a: {}\r\n\r\n{good}", "a".repeat(1 << 20)),
    ];
    let asked = ask("Are you there?");
    for head in &heads {
        setup.say(head.as_bytes());
        let got = setup.call(CHAT, &asked).await;
        assert_eq!((got.status, got.whole), (502, true), "{head:.200}");
        let body: serde_json::Value = serde_json::from_slice(&got.body).expect("an error object");
        assert_eq!(body["error"]["code"], "upstream_unreachable", "{head:.200}");
    }
    let begun = format!("{head}transfer-encoding: chunked\r\n\r\n{length:x}\r\n{good}");
    let bodies = [
        (format!("{head}content-length: {}\r\n\r\n{good}", length + 1), ""),
        (begun.clone(), ""),
        (begun.clone(), "\r\n"),
        (begun.clone(), "\r\nxyz\r\n"),
        (begun.clone(), "x\r\n0\r\n\r\n"),
        (begun, "\r\nfffffffffffffffff\r\nx\r\n0\r\n\r\n"),
    ];
    for (begun, rest) in &bodies {
        setup.say_in_two(begun.as_bytes(), *rest);
        let got = setup.call_until(CHAT, &asked, length).await;
        assert_eq!((got.status, got.whole, got.text().as_str()), (200, false, good.as_str()), "{begun:.200} {rest:?}");
    }
    assert_eq!(setup.entries().await, 0);
    println!("no HTTP: {} heads are a 502, {} bodies break off, 0 kept", heads.len(), bodies.len());
    setup.check_unharmed(0).await;
}

/// F13: a byte at a time, and more than is kept.
#[tokio::test]
async fn slow_and_huge_streams_arrive_whole() {
    let upstream = Upstream::saying("").await;
    let config = format!("[upstream]\nopenai = {:?}", upstream.base());
    let Setup { client, mut server, home: _home } = Setup::start(&config).await;
    let client = client.with("content-type", "application/json");
    let asked = |text: &str| json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": text}]});
    let (reply, live) = Reply::live();
    let mut reply = Some(reply);
    upstream.answer_with(move |_| reply.take().expect("one call upstream"));
    let mut body = client.open(Method::POST, CHAT, asked("Slow?").to_string()).await.into_body();
    let slow = event_stream(&chunks("One byte at a time.", "m"));
    for byte in slow.split_inclusive(|_: char| true) {
        live.send(byte).await;
        let frame = body.frame().await.expect("a frame").expect("no error").into_data().expect("data");
        assert_eq!(frame, byte.as_bytes(), "each byte is there before the next is sent");
    }
    drop(live);
    assert!(body.frame().await.is_none());
    client.wait_for_entries(1).await;
    let long = format!("{} ", "word".repeat(25)).repeat(15_000);
    let huge = event_stream(&chunks(&long, "m"));
    upstream.answer_with(move |call| Reply::saying(&long, call));
    for _ in 0..2 {
        let answer = client.chat(&asked("Huge?")).await.check(200);
        assert_eq!(answer.outcome().0, "miss", "too large to be kept");
        assert!(answer.body == huge.as_bytes(), "{} bytes of {}", answer.body.len(), huge.len());
    }
    assert_eq!(client.stats("default").await["entries"], 1);
    server.check_alive();
    println!("streams: {} bytes one at a time, {} bytes at once, all whole", slow.len(), huge.len());
}

/// F14: whoever leaves closes the upstream's socket.
#[tokio::test]
async fn every_client_that_leaves_closes_a_socket_upstream() {
    const CLIENTS: usize = 100;
    let begun = Act::Send(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n10\r\ndata: {\"a\": 1}\n\n\r\n",
    );
    let acts: &'static [Act] = Box::leak(Box::new([begun, Act::Watch]));
    let upstream = Raw::start(acts).await;
    let Setup { client, mut server, home: _home } = Setup::start(&section("a", &upstream.base(), "")).await;
    for number in 0..CLIENTS {
        let own = server.client("sk-test").with("content-type", "application/json");
        let mut asked = ask(&format!("Question {number}?"));
        asked["stream"] = json!(true);
        let mut body = own.open(Method::POST, CHAT, asked.to_string()).await.into_body();
        body.frame().await.expect("a frame").expect("no error");
    }
    until("every socket is closed", async || (upstream.abandoned() == CLIENTS).then_some(())).await;
    assert_eq!((upstream.requests(), upstream.abandoned()), (CLIENTS, CLIENTS));
    assert_eq!(client.stats("default").await["entries"], 0);
    server.check_alive();
    println!("clients that left: {CLIENTS}, sockets closed upstream: {}", upstream.abandoned());
}

/// F22: told to stop, it finishes every stream that it began, and keeps all that it acknowledged.
#[tokio::test]
async fn streams_on_their_way_all_end_whole() {
    const STREAMS: usize = 300;
    let upstream = Upstream::saying("").await;
    let lives: Arc<Mutex<Vec<Live>>> = Arc::default();
    let begun = Arc::clone(&lives);
    upstream.answer_with(move |_| {
        let (reply, live) = Reply::live();
        begun.lock().push(live);
        reply
    });
    let home = Home::new();
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    let client = server.client("sk-test").with("content-type", "application/json");
    let mut bodies = Vec::new();
    for number in 0..STREAMS {
        let mut asked = ask(&format!("Question {number}?"));
        asked["stream"] = json!(true);
        bodies.push(client.open(Method::POST, CHAT, asked.to_string()).await.into_body());
    }
    let stream = event_stream(&chunks("One two three.", "m"));
    let (first, rest) = stream.split_at(stream.find("two").expect("the second word"));
    let lives = std::mem::take(&mut *lives.lock());
    for live in &lives {
        live.send(first).await;
    }
    let acknowledged: Arc<Mutex<Vec<String>>> = Arc::default();
    let (writer, written) = (server.client("sk-test"), Arc::clone(&acknowledged));
    let writing = tokio::spawn(async move {
        // Ends when nobody takes any more.
        for number in 0.. {
            let prompt = format!("Insert {number}");
            writer.insert(&json!({"prompt": prompt, "response": prompt})).await;
            written.lock().push(prompt);
        }
    });
    until("inserts are acknowledged", async || (acknowledged.lock().len() >= 20).then_some(())).await;
    server.terminate();
    let address = server.url.trim_start_matches("http://").to_owned();
    until("it takes no new connections", async || tokio::net::TcpStream::connect(&address).await.err()).await;
    assert!(writing.await.is_err(), "the next insert finds nobody");
    for live in lives {
        live.send(rest).await;
    }
    let mut whole = 0;
    for body in bodies {
        let bytes = body.collect().await.expect("a whole stream").to_bytes();
        whole += usize::from(bytes == stream.as_bytes());
    }
    assert_eq!((whole, server.ended().await), (STREAMS, Some(0)));
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    let client = server.client("sk-test");
    let acknowledged = std::mem::take(&mut *acknowledged.lock());
    for prompt in &acknowledged {
        assert_eq!(client.find(prompt).await, ("exact".to_owned(), prompt.clone()));
    }
    let entries = client.stats("default").await["entries"].as_u64().expect("a number") as usize;
    // The last insert may have been stored and its acknowledgement cut off.
    let most = STREAMS + acknowledged.len() + 1;
    assert!((most - 1..=most).contains(&entries), "{entries} kept of {} acknowledged", most - 1);
    let inserts = acknowledged.len();
    println!("at SIGTERM: {STREAMS} streams begun, {whole} whole, all kept; {inserts} inserts, all there; exit code 0");
}

/// F16, F17: with an embedder that cannot even start, every call goes through.
#[tokio::test]
async fn without_an_embedder_every_call_goes_through() {
    const CALLS: usize = 200;
    let upstream = Upstream::saying("Through.").await;
    let config = format!("[embed]\nmodel = \"/nowhere/at-all\"\n[upstream]\nopenai = {:?}", upstream.base());
    let Setup { client, mut server, home: _home } = Setup::start(&config).await;
    let ready = client.get("/readyz").await.check(200).json();
    assert!(ready["degraded"].as_array().expect("a list").contains(&json!("embedder")), "{ready}");
    let mut through = 0;
    for number in 0..CALLS {
        let answer = client.chat(&ask(&format!("Question {number}?"))).await.check(200);
        assert_eq!(answer.outcome().0, "miss");
        assert_eq!(answer.json()["choices"][0]["message"]["content"], "Through.");
        through += 1;
    }
    client.wait_for_entries(CALLS as u64).await;
    // What is asked again is found again: the exact tier needs no embedder.
    for number in 0..CALLS {
        let answer = client.chat(&ask(&format!("Question {number}?"))).await.check(200);
        assert_eq!(answer.outcome(), ("hit", "exact"));
    }
    assert_eq!(upstream.count(), CALLS);
    server.check_alive();
    println!("without an embedder: {CALLS} calls, {through} through, {CALLS} hits after");
}

/// F3: once the store can write no more, every call goes through all the same, and what is served is right.
#[tokio::test]
async fn with_a_store_that_takes_no_more_every_call_goes_through() {
    const CALLS: usize = 300;
    let upstream = Upstream::start(|call| {
        let text = call.json()["messages"][0]["content"].as_str().expect("a question").to_owned();
        Reply::saying(&long_answer(&text), call)
    })
    .await;
    let home = Home::new();
    // No file may grow beyond 768 KiB, as on a disk that is full.
    let limits = "trap '' XFSZ; ulimit -f 1536";
    let mut server = home.serve_limited(limits, &["--upstream", &upstream.base()]).await;
    let client = server.client("sk-test");
    let said = |answer: &crate::support::Answer| answer.json()["choices"][0]["message"]["content"].clone();
    for number in 0..CALLS {
        let question = format!("Question {number}?");
        let answer = client.chat(&ask(&question)).await.check(200);
        assert_eq!((answer.outcome().0, said(&answer)), ("miss", json!(long_answer(&question))));
    }
    let (mut hits, mut misses) = (0, 0);
    for number in 0..CALLS {
        let question = format!("Question {number}?");
        let answer = client.chat(&ask(&question)).await.check(200);
        assert_eq!(said(&answer), json!(long_answer(&question)), "the right answer, wherever it is from");
        if answer.outcome().0 == "hit" { hits += 1 } else { misses += 1 }
    }
    assert!(misses > 0, "the limit was never reached");
    server.check_alive();
    println!(
        "with a store that is full: {} calls, all through, {hits} hits and {misses} misses on what was asked again",
        2 * CALLS
    );
}

/// Some kilobytes that cannot be compressed much, another for each question.
fn long_answer(question: &str) -> String {
    (0..150).map(|n| blake3::hash(format!("{question} {n}").as_bytes()).to_hex().to_string()).collect()
}
