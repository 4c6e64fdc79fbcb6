//! Whoever leaves is not waited for, on either side.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use serde_json::json;

use super::raw::{Act, Raw};
use super::{Setup, ask, section};
use crate::support::{Upstream, until};

const CHAT: &str = "/v1/chat/completions";

const HALF_A_STREAM: Act = Act::Send(
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n10\r\ndata: {\"a\": 1}\n\n\r\n",
);

/// No deadline is near: the upstream's socket is closed because the client's was.
#[tokio::test]
async fn a_client_that_leaves_ends_the_call_upstream() {
    let rows: [(&str, &'static [Act], bool); 2] =
        [("before the head", &[Act::Watch], false), ("in the middle", &[HALF_A_STREAM, Act::Watch], true)];
    for (row, acts, has_head) in rows {
        for more in ["", "retries = 2"] {
            let upstream = Raw::start(acts).await;
            let Setup { client, server: _server, home: _home } =
                Setup::start(&section("a", &upstream.base(), more)).await;
            let client = client.with("content-type", "application/json");
            let body =
                json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}).to_string();
            let mut call = Box::pin(client.open(Method::POST, CHAT, body));
            if has_head {
                let mut response = call.await;
                response.body_mut().frame().await.expect("a frame").expect("data");
                assert_eq!(upstream.abandoned(), 0, "{row} {more}");
                drop(response);
            } else {
                let patience = tokio::time::timeout(Duration::from_millis(1), &mut call);
                patience.await.expect_err("nobody answers");
                until("the call is upstream", async || {
                    tokio::time::timeout(Duration::from_millis(5), &mut call).await.expect_err("nobody answers");
                    (upstream.requests() == 1).then_some(())
                })
                .await;
                drop(call);
            }
            drop(client);
            until("the upstream's socket is closed", async || (upstream.abandoned() == 1).then_some(())).await;
            assert_eq!((upstream.connections(), upstream.requests()), (1, 1), "{row} {more}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_falls_silent_is_left() {
    let upstream = Raw::start(&[HALF_A_STREAM, Act::Watch]).await;
    let config = format!("[upstream]\nopenai = {:?}\nidle_timeout_s = 0.3", upstream.base());
    let Setup { client, server, home: _home } = Setup::start(&config).await;
    let client = client.with("content-type", "application/json");
    let response = client.open(Method::POST, CHAT, ask("Go on").to_string()).await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let first = body.frame().await.expect("a frame").expect("data").into_data().expect("data");
    assert_eq!(first, "data: {\"a\": 1}\n\n");
    assert!(body.frame().await.is_some_and(|frame| frame.is_err()), "the stream is broken off, not ended");
    until("the upstream's socket is closed", async || (upstream.abandoned() == 1).then_some(())).await;
    assert!(server.log().contains("fell silent"), "{}", server.log());
}

/// A stream may take any time, as long as it goes on.
#[tokio::test]
async fn a_slow_stream_is_not_cut() {
    let upstream = Upstream::start(|_| {
        let (reply, live) = crate::support::Reply::live();
        tokio::spawn(async move {
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(300)).await;
                live.send("data: {}\n\n").await;
            }
        });
        reply
    })
    .await;
    let config = format!("[upstream]\nopenai = {:?}\nidle_timeout_s = 30\nhead_timeout_s = 2", upstream.base());
    let Setup { client, server: _server, home: _home } = Setup::start(&config).await;
    let answer = client.chat(&ask("Slowly")).await.check(200);
    assert_eq!(answer.text(), "data: {}\n\n".repeat(8));
}
