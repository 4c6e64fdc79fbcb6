//! F13: many streams at a time, and one without end in sight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::iter;
use http::Method;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::json;

use super::{ask, each, raise_file_limit, start};
use crate::support::{Live, Reply, Upstream, chunks, event_stream};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn many_streams_cost_little_each() {
    const STREAMS: usize = 500;
    raise_file_limit();
    let upstream = Upstream::saying("").await;
    let lives: Arc<Mutex<Vec<(String, Live)>>> = Arc::default();
    let begun = Arc::clone(&lives);
    upstream.answer_with(move |call| {
        let (reply, live) = Reply::live();
        let asked = call.json()["messages"][0]["content"].as_str().expect("a question").to_owned();
        begun.lock().push((asked, live));
        reply
    });
    let (_home, mut server) = start(&upstream, "").await;
    let client = server.client("sk-test").with("content-type", "application/json");
    let said = |question: &str| event_stream(&chunks(&format!("{question} {}", "It depends. ".repeat(20)), "m"));
    let (mut before, mut streams) = (None, Vec::new());
    for number in 0..STREAMS + WARM {
        if number == WARM {
            before = server.rss_bytes();
        }
        let question = format!("Question {number}?");
        let mut asked = ask(&question);
        asked["stream"] = json!(true);
        streams.push((question, client.open(Method::POST, CHAT, asked.to_string()).await.into_body(), Vec::new()));
    }
    let lives = std::mem::take(&mut *lives.lock());
    assert_eq!(lives.len(), STREAMS + WARM);
    let halves = |stream: &str| (stream[..stream.len() / 2].to_owned(), stream[stream.len() / 2..].to_owned());
    for (question, live) in &lives {
        live.send(&halves(&said(question)).0).await;
    }
    for (question, body, got) in &mut streams {
        while got.len() < said(question).len() / 2 {
            got.extend(body.frame().await.expect("a frame").expect("no error").into_data().expect("data"));
        }
    }
    let each = each(before, server.rss_bytes(), STREAMS);
    println!("{STREAMS} streams: {each:?} bytes each (goal: 65536)");
    assert!(each.is_none_or(|bytes| bytes <= 256 << 10), "{each:?}");
    for (question, live) in &lives {
        live.send(&halves(&said(question)).1).await;
    }
    drop(lives);
    let mut whole = 0;
    for (question, body, mut got) in streams {
        got.extend_from_slice(&body.collect().await.expect("a whole stream").to_bytes());
        assert_eq!(String::from_utf8_lossy(&got), said(&question));
        whole += 1;
    }
    assert_eq!(whole, STREAMS + WARM);
    server.client("sk-test").wait_for_entries(whole as u64).await;
    server.check_alive();
}

/// Streams before the count begins: threads, pools and tables are there then.
const WARM: usize = 20;

/// 64 MiB to a client that reads, then to one that stops reading: nearhit holds next to nothing of it.
#[tokio::test]
async fn a_huge_stream_is_not_held() {
    const PIECE: usize = 64 << 10;
    const PIECES: usize = 1024;
    let event = |number: usize| {
        let filler = blake3::hash(&number.to_le_bytes()).to_hex().repeat(PIECE / 64 - 1);
        format!("data: {{\"number\": {number}, \"filler\": \"{filler}\"}}\n\n")
    };
    let pulled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&pulled);
    let upstream = Upstream::start(move |_| {
        let count = Arc::clone(&count);
        Reply::events(Body::from_stream(iter((0..PIECES).map(move |number| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(Bytes::from(event(number)))
        }))))
    })
    .await;
    let mut expected = blake3::Hasher::new();
    for number in 0..PIECES {
        expected.update(event(number).as_bytes());
    }
    let (_home, mut server) = start(&upstream, "").await;
    let client = server.client("sk-test").with("content-type", "application/json");
    for (number, stops) in [false, true].into_iter().enumerate() {
        pulled.store(0, Ordering::SeqCst);
        let before = server.rss_bytes();
        let mut asked = ask(&format!("How long is it {number}?"));
        asked["stream"] = json!(true);
        let mut body = client.open(Method::POST, CHAT, asked.to_string()).await.into_body();
        let (mut hasher, mut most) = (blake3::Hasher::new(), 0);
        if stops {
            settled(&pulled).await;
            let sent = pulled.load(Ordering::SeqCst) * PIECE;
            most = each(before, server.rss_bytes(), 1).unwrap_or_default();
            println!("a reader that stopped: {sent} bytes were taken from upstream, memory grew by {most} bytes");
            assert!(sent < PIECE * PIECES / 2, "{sent} bytes were taken from upstream for nobody");
        }
        let mut pieces = 0;
        while let Some(frame) = body.frame().await {
            hasher.update(&frame.expect("no error").into_data().expect("data"));
            pieces += 1;
            if pieces % 100 == 0 {
                most = most.max(each(before, server.rss_bytes(), 1).unwrap_or_default());
            }
        }
        assert_eq!(hasher.finalize(), expected.finalize(), "stops: {stops}");
        println!("a stream of {} bytes: memory grew by {most} bytes", PIECE * PIECES);
        assert!(most <= 24 << 20, "{most} bytes");
    }
    assert_eq!(client.stats("default").await["entries"], 0);
    server.check_alive();
}

/// Nothing more is asked for.
async fn settled(pulled: &AtomicUsize) {
    loop {
        let before = pulled.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        if before > 0 && pulled.load(Ordering::SeqCst) == before {
            return;
        }
    }
}
