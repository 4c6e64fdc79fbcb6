//! What is tried again, where, and what the client gets if nothing helps.

use http_body_util::BodyExt;
use serde_json::json;

use super::raw::{Act, Raw};
use super::{Setup, ask, section, spare};
use crate::support::{Call, Reply, Upstream, completion};

/// Answers like `first`, then with a completion.
fn once(mut first: impl FnMut() -> Reply + Send + 'static) -> impl FnMut(&Call) -> Reply + Send + 'static {
    let mut calls = 0;
    move |call| {
        calls += 1;
        if calls == 1 { first() } else { Reply::saying("At last.", call) }
    }
}

#[tokio::test]
async fn only_what_may_pass_is_tried_again() {
    let upstream = Upstream::saying("").await;
    let Setup { client, server: _server, home: _home } =
        Setup::start(&section("a", &upstream.base(), "retries = 1")).await;
    let statuses = [400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529];
    for status in statuses {
        upstream.answer_with(once(move || Reply::new(status, "text/plain", "as it is").header("x-mine", "1")));
        let calls = upstream.count();
        let answer = client.chat(&ask(&format!("Status {status}?"))).await;
        let is_tried_again = status == 429 || status >= 500;
        assert_eq!(upstream.count() - calls, if is_tried_again { 2 } else { 1 }, "{status}");
        if is_tried_again {
            assert_eq!((answer.status.as_u16(), answer.header("x-nearhit-tries")), (200, "2"), "{status}");
        } else {
            assert_eq!((answer.status.as_u16(), answer.text().as_str()), (status, "as it is"));
            assert_eq!((answer.header("x-mine"), answer.header("x-nearhit-tries")), ("1", "1"));
        }
    }
}

#[tokio::test]
async fn nothing_is_tried_again_unless_configured() {
    let upstream = Upstream::saying("").await;
    let Setup { client, server: _server, home: _home } =
        Setup::start(&format!("[upstream]\nopenai = {:?}", upstream.base())).await;
    for (status, media, body) in [
        (429, "application/json", "{ \"error\":{}}"),
        (503, "text/html", "<p>"),
        (200, "application/json", "{\"half"),
        (200, "text/html", "<p>"),
    ] {
        upstream.answer_with(move |_| Reply::new(status, media, body).header("retry-after", "1"));
        let calls = upstream.count();
        let answer = client.chat(&ask(&format!("{status} {media}"))).await.check(status);
        assert_eq!((answer.text().as_str(), answer.header("retry-after")), (body, "1"));
        assert_eq!((answer.header("x-nearhit-tries"), upstream.count()), ("1", calls + 1));
    }
}

#[tokio::test]
async fn three_tries_are_all_there_are() {
    let (a, b) = (Upstream::saying("").await, Upstream::saying("").await);
    for upstream in [&a, &b] {
        let name = upstream.origin();
        upstream.answer_with(move |_| Reply::new(500, "text/plain", name.clone()).header("retry-after", "0"));
    }
    for (retries, expected) in [(2, (3, 0)), (1, (2, 1)), (0, (1, 2))] {
        let config = section("a", &a.base(), &format!("retries = {retries}\nfallback = [\"b\"]"));
        let Setup { client, server: _server, home: _home } =
            Setup::start(&(config + &spare("b", &b, "retries = 2"))).await;
        let calls = (a.count(), b.count());
        let answer = client.chat(&ask("Anybody?")).await.check(500);
        assert_eq!((a.count() - calls.0, b.count() - calls.1), expected);
        let (name, last) = if retries == 2 { ("a", &a) } else { ("b", &b) };
        assert_eq!((answer.header("x-nearhit-upstream"), answer.header("x-nearhit-tries")), (name, "3"));
        assert_eq!(answer.text(), last.origin());
    }
}

#[tokio::test]
async fn who_asks_for_a_long_wait_is_not_asked_again() {
    let (a, b) = (Upstream::saying("").await, Upstream::saying("From b.").await);
    a.answer_with(|_| Reply::json(429, &json!({"error": {"message": "later"}})).header("retry-after", "61"));
    let Setup { client, server: _server, home: _home } = Setup::start(&section("a", &a.base(), "retries = 2")).await;
    let answer = client.chat(&ask("Now?")).await.check(429);
    assert_eq!((answer.header("retry-after"), answer.header("x-nearhit-tries"), a.count()), ("61", "1", 1));
    assert_eq!(answer.json(), json!({"error": {"message": "later"}}));
    // Another upstream does not make anybody wait.
    let config = section("a", &a.base(), "retries = 2\nfallback = [\"b\"]") + &spare("b", &b, "");
    let Setup { client, server: _server, home: _home } = Setup::start(&config).await;
    let answer = client.chat(&ask("Now?")).await.check(200);
    assert_eq!((answer.header("x-nearhit-upstream"), answer.header("x-nearhit-tries"), a.count()), ("b", "2", 2));
}

#[tokio::test]
async fn a_200_that_is_no_answer_is_tried_again() {
    let upstream = Upstream::saying("").await;
    let Setup { client, server: _server, home: _home } =
        Setup::start(&section("a", &upstream.base(), "retries = 1")).await;
    let stream = |text: &str| json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": text}]});
    for (row, (asked, media, body)) in [
        (ask("1"), "text/html", "<html>"),
        (ask("2"), "application/json", "{\"choices\": ["),
        (ask("3"), "application/json", ""),
        (ask("4"), "text/event-stream", "data: {}\n\n"),
        (stream("5"), "application/json", "{}"),
        (stream("6"), "text/event-stream", ""),
    ]
    .into_iter()
    .enumerate()
    {
        upstream.answer_with(once(move || Reply::new(200, media, body)));
        let answer = client.chat(&asked).await.check(200);
        assert_eq!(answer.header("x-nearhit-tries"), "2", "row {row}");
        assert!(answer.text().contains("At"), "row {row}: {}", answer.text());
    }
}

/// Faults below HTTP: the fallback answers all of them.
#[tokio::test]
async fn a_fallback_answers_where_a_connection_breaks() {
    let b = Upstream::saying("From b.").await;
    let rows: [(&str, &'static [Act]); 5] = [
        ("closes at once", &[]),
        ("half a head", &[Act::Send("HTTP/1.1 200 OK\r\ncontent-ty")]),
        ("no HTTP", &[Act::Send("hello\r\n\r\n")]),
        (
            "half a body",
            &[Act::Send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{\"a\"")],
        ),
        ("silence", &[Act::Watch]),
    ];
    for (row, acts) in rows {
        let a = Raw::start(acts).await;
        let config = "[upstream]\nhead_timeout_s = 3\n".to_owned() + &section("a", &a.base(), "fallback = [\"b\"]");
        let Setup { client, server: _server, home: _home } = Setup::start(&(config + &spare("b", &b, ""))).await;
        let answer = client.chat(&ask(row)).await.check(200);
        assert_eq!((answer.header("x-nearhit-upstream"), answer.header("x-nearhit-tries")), ("b", "2"), "{row}");
        assert!(a.requests() >= 1, "{row}");
    }
    let nobody = section("a", "http://127.0.0.1:9/v1", "fallback = [\"b\"]");
    let Setup { client, server: _server, home: _home } = Setup::start(&(nobody + &spare("b", &b, ""))).await;
    assert_eq!(client.chat(&ask("Nobody?")).await.check(200).header("x-nearhit-upstream"), "b");
}

#[tokio::test]
async fn nothing_is_tried_again_once_a_byte_was_sent() {
    let upstream = Upstream::saying("").await;
    let Setup { client, server: _server, home: _home } =
        Setup::start(&section("a", &upstream.base(), "retries = 2")).await;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    upstream.answer_with(move |_| {
        let (reply, live) = Reply::live();
        sender.send(live).expect("a test");
        reply
    });
    let asked = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "Go on"}]}).to_string();
    let client = client.with("content-type", "application/json");
    let opening = tokio::spawn(async move { client.open(http::Method::POST, "/v1/chat/completions", asked).await });
    let live = receiver.recv().await.expect("a call");
    live.send("data: {\"choices\":[]}\n\n").await;
    let mut body = opening.await.expect("an answer").into_body();
    let first = body.frame().await.expect("a frame").expect("data").into_data().expect("data");
    assert_eq!(first, "data: {\"choices\":[]}\n\n");
    live.cut().await;
    assert!(body.frame().await.is_some_and(|frame| frame.is_err()), "broken off, as it was upstream");
    assert_eq!(upstream.count(), 1);
}

/// What another model says, or the model of that name elsewhere, is no answer of the one that was asked.
#[tokio::test]
async fn a_fallbacks_answer_is_sent_and_not_kept() {
    let (a, b) = (Upstream::saying("").await, Upstream::saying("From b.").await);
    for (model, asked) in [("model = \"other\"", "other"), ("", "m"), ("model = \"m\"", "m")] {
        a.answer_with(|_| Reply::new(500, "text/plain", ""));
        let config = section("a", &a.base(), "fallback = [\"b\"]") + &spare("b", &b, model);
        let setup = Setup::start(&config).await;
        for _ in 0..2 {
            let answer = setup.client.chat(&ask("Who?")).await.check(200);
            assert_eq!((answer.outcome().0, answer.header("x-nearhit-upstream")), ("miss", "b"), "{model}");
            assert_eq!(b.last().json()["model"], asked);
        }
        assert_eq!(setup.metric("nearhit_answers_total{result=\"substitute\"}").await, 2, "{model}");
        assert_eq!(setup.client.stats("default").await["entries"], 0, "{model}");
        // What the first says once it is well again is kept.
        a.answer_with(|call| Reply::saying("From a.", call));
        setup.client.chat(&ask("Who?")).await.check(200);
        setup.client.wait_for_entries(1).await;
        assert_eq!(setup.client.chat(&ask("Who?")).await.check(200).outcome(), ("hit", "exact"), "{model}");
        assert_eq!(setup.metric("nearhit_upstream_tries_total{upstream=\"a\",result=\"server_error\"}").await, 2);
        assert_eq!(setup.metric("nearhit_upstream_tries_total{upstream=\"b\",result=\"answered\"}").await, 2);
    }
}

/// An upstream that answers with another model than it was asked for is found out.
#[tokio::test]
async fn an_answer_that_names_another_model_is_not_kept() {
    let upstream = Upstream::saying("").await;
    upstream.answer_with(|_| Reply::json(200, &completion("I am another.")));
    let setup = Setup::start(&section("a", &upstream.base(), "")).await;
    let asked = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Who?"}]});
    setup.client.chat(&asked).await.check(200);
    assert_eq!(setup.metric("nearhit_answers_total{result=\"model\"}").await, 1);
}
