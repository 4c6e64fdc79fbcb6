//! F18: more bytes of request bodies at a time than there is room for.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use super::{ask, each, start};
use crate::support::{Client, Reply, Server, Upstream, until};

/// All of them are on their way at a time: the provider answers none before it has every one.
#[tokio::test]
async fn what_there_is_no_room_for_goes_upstream_all_the_same() {
    const CALLS: usize = 24;
    const BODY: usize = 4 << 20;
    let upstream = Upstream::saying("Small.").await;
    let config = "[serve]\nbody_bytes_max = 8388608\nbodies_bytes_max = 8388608";
    let (_home, mut server) = start(&upstream, config).await;
    let small = server.client("sk-test").chat(&ask("A small one?")).await.check(200);
    assert_eq!(small.outcome(), ("miss", "empty"));

    let everybody = Arc::new(Barrier::new(CALLS));
    upstream.answer_with(move |call| {
        let everybody = Arc::clone(&everybody);
        let hash = blake3::hash(&call.body).to_hex().to_string();
        Reply::saying(&hash, call).after(async move {
            everybody.wait().await;
        })
    });
    let bodies: Vec<String> =
        (0..CALLS).map(|number| ask(&format!("{number} {}", "word ".repeat(BODY / 5))).to_string()).collect();
    let before = server.rss_bytes();
    let answers = join_all(bodies.iter().map(|body| async {
        // Of its own connection.
        let client = Client::new(&server.url, "sk-test");
        client.post_bytes("/v1/chat/completions", body.clone()).await.check(200)
    }))
    .await;
    let grown = each(before, server.peak_bytes(), 1);
    let (mut unread, mut looked_up) = (0, 0);
    for (answer, body) in answers.iter().zip(&bodies) {
        let hash = blake3::hash(body.as_bytes()).to_hex().to_string();
        assert_eq!(answer.json()["choices"][0]["message"]["content"], hash, "every byte came to the provider");
        match answer.outcome() {
            ("bypass", "overloaded") => unread += 1,
            ("miss", _) => looked_up += 1,
            other => panic!("{other:?}"),
        }
    }
    println!(
        "{CALLS} bodies of {BODY} bytes with room for 2: {unread} unread, {looked_up} looked up; memory grew by {grown:?} bytes"
    );
    assert!(unread >= CALLS - 2, "{unread}");
    assert!(grown.is_none_or(|bytes| bytes <= (CALLS * BODY) as u64), "{grown:?}");

    // All of the room is there again.
    upstream.answer_with(|call| Reply::saying("Large.", call));
    let client = server.client("sk-test");
    let large = client.post_bytes("/v1/chat/completions", bodies[0].clone()).await.check(200);
    assert_ne!(large.outcome(), ("bypass", "overloaded"));
    assert_eq!(client.chat(&ask("A small one?")).await.outcome(), ("hit", "exact"));
    server.check_alive();
}

/// The cache API says so, and a client that wants the cache's answer only gets none.
#[tokio::test]
async fn without_room_the_api_says_so() {
    let upstream = Upstream::saying("Here.").await;
    let config = "[serve]\nbody_bytes_max = 1048576\nbodies_bytes_max = 1048576";
    let (_home, mut server) = start(&upstream, config).await;
    let client = server.client("sk-test");
    let insert = json!({"prompt": "a", "response": "b"});
    let mut holder = None;
    let refused = until("there is no room", async || {
        // One that comes while another body is read is sent on unread: then the next one takes it all.
        holder = Some(hold_all(&server).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answer = client.post("/v1/caches/default/entries", &insert).await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    refused.refusal(503, "overloaded");
    let only = client.with("cache-control", "only-if-cached").chat(&ask("Is it there?")).await.check(504);
    assert_eq!(only.outcome(), ("bypass", "overloaded"));
    let asked = client.chat(&ask("Is it there?")).await.check(200);
    assert_eq!(asked.outcome(), ("bypass", "overloaded"));
    drop(holder);
    until("there is room again", async || {
        (client.post("/v1/caches/default/entries", &insert).await.status == 201).then_some(())
    })
    .await;
    assert_eq!(client.find("a").await, ("exact".to_owned(), "b".to_owned()));
    server.check_alive();
}

/// A body that takes all of the room, and never comes to an end.
async fn hold_all(server: &Server) -> TcpStream {
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n100000\r\n";
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.expect("a connection");
    stream.write_all(format!("{head}{}\r\n", " ".repeat(1 << 20)).as_bytes()).await.expect("a reader");
    stream
}
