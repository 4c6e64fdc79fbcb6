//! Answers on their way: passed on as they come, kept only when they came to their end.

use http::Method;
use http_body_util::BodyExt;
use serde_json::json;

use super::{Setup, and, ask, events, said};
use crate::support::{Client, Live, Reply, chunks, completion, event_stream};

/// A provider whose next answer is written by the test.
fn live(setup: &Setup) -> Live {
    let (reply, live) = Reply::live();
    let mut reply = Some(reply);
    setup.upstream.answer_with(move |_| reply.take().expect("one call upstream"));
    live
}

async fn open(client: &Client) -> http::Response<axum::body::Body> {
    let asked = and(ask("Hi"), json!({"stream": true})).to_string();
    client.with("content-type", "application/json").open(Method::POST, "/v1/chat/completions", asked).await
}

/// Each piece is with the client before the provider goes on.
#[tokio::test]
async fn a_streamed_miss_arrives_as_it_is_written() {
    let setup = Setup::start("").await;
    let live = live(&setup);
    let response = open(&setup.client).await;
    assert_eq!(response.headers()["x-nearhit-outcome"], "miss", "the head is there before anything is said");
    let mut body = response.into_body();
    for event in event_stream(&chunks("One two three four.", "m")).split_inclusive("\n\n") {
        live.send(event).await;
        let frame = body.frame().await.expect("a frame").expect("no error").into_data().expect("data");
        assert_eq!(String::from_utf8_lossy(&frame), event);
    }
    drop(live);
    assert!(body.frame().await.is_none());
    setup.client.wait_for_entries(1).await;
    let hit = setup.client.chat(&ask("Hi")).await.check(200);
    assert_eq!((hit.outcome(), said(&hit).as_str()), (("hit", "exact"), "One two three four."));
}

/// Where a provider keeps the connection open after its end mark, the answer is whole all the same.
#[tokio::test]
async fn the_end_mark_ends_the_answer() {
    let setup = Setup::start("").await;
    let live = live(&setup);
    let response = open(&setup.client).await;
    let mut body = response.into_body();
    live.send(&event_stream(&chunks("Done.", "m"))).await;
    body.frame().await.expect("a frame").expect("no error");
    setup.client.wait_for_entries(1).await;
    drop(live);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_answer_with_it() {
    let setup = Setup::start("").await;
    let live = live(&setup);
    let client = setup.server.client("sk-test");
    let mut body = open(&client).await.into_body();
    live.send(&event_stream(&chunks("One two", "m")[..2]).replace("data: [DONE]\n\n", "")).await;
    body.frame().await.expect("a frame").expect("no error");
    drop((body, client));
    let gone = tokio::time::timeout(crate::support::PATIENCE, live.abandoned()).await;
    gone.expect("the provider is told that nobody listens any more");

    setup.upstream.answer_with(|call| Reply::saying("Whole.", call));
    let answer = setup.client.chat(&ask("Hi")).await.check(200);
    assert_eq!((answer.outcome().0, said(&answer).as_str()), ("miss", "Whole."));
    assert_eq!(setup.upstream.count(), 2);
}

#[tokio::test]
async fn a_stream_that_breaks_off_breaks_off_at_the_client_too() {
    let setup = Setup::start("").await;
    let live = live(&setup);
    let mut body = open(&setup.client).await.into_body();
    live.send("data: {\"choices\":[]}\n\n").await;
    body.frame().await.expect("a frame").expect("no error");
    live.cut().await;
    assert!(body.frame().await.expect("an end").is_err(), "a cut stream must not look like a whole one");
    assert_eq!((setup.answers("broken_off").await, setup.entries().await), (1, json!(0)));
}

/// Larger than what is kept, yet no reason to keep it from the client.
#[tokio::test]
async fn an_answer_over_the_cap_is_forwarded_whole() {
    let setup = Setup::with_config("", "[cache]\nanswer_bytes_max = 1000").await;
    let text = "long ".repeat(400);
    for (row, more) in [("whole", json!({})), ("streamed", json!({"stream": true}))] {
        let long = text.clone();
        setup.upstream.answer_with(move |call| Reply::saying(&long, call));
        for count in 1..=2 {
            let answer = setup.client.chat(&and(ask(row), more.clone())).await.check(200);
            assert_eq!((answer.outcome().0, said(&answer)), ("miss", text.clone()), "{row}, call {count}");
        }
    }
    assert_eq!((setup.answers("too_large").await, setup.upstream.count()), (4, 4));
    // An answer below the cap is kept, however many bytes its chunks take.
    setup.upstream.answer_with(|call| Reply::saying(&"word ".repeat(100), call));
    let asked = and(ask("short"), json!({"stream": true}));
    let miss = setup.client.chat(&asked).await.check(200);
    assert!(miss.body.len() > 10_000, "{}", miss.body.len());
    setup.client.wait_for_entries(1).await;
    assert_eq!(events(&setup.client.chat(&asked).await.check(200)).len(), 2);
}

/// A megabyte of answer is one answer.
#[tokio::test]
async fn a_large_answer_is_kept_and_replayed() {
    let setup = Setup::start("").await;
    let text = "0123456789\n".repeat(80_000);
    let long = text.clone();
    setup.upstream.answer_with(move |_| Reply::json(200, &completion(&long)));
    setup.client.chat(&ask("Hi")).await.check(200);
    setup.client.wait_for_entries(1).await;
    for more in [json!({}), json!({"stream": true})] {
        let hit = setup.client.chat(&and(ask("Hi"), more)).await.check(200);
        assert_eq!(hit.outcome(), ("hit", "exact"));
        assert!(said(&hit) == text, "the text came back changed");
    }
}
