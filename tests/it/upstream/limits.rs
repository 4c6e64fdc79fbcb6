//! A provider's limits, kept before it has to say so.

use serde_json::json;

use super::{Setup, ask, section, spare};
use crate::support::{Upstream, until};

#[tokio::test]
async fn what_is_over_the_limit_is_told_when_to_come() {
    let upstream = Upstream::saying("Yes.").await;
    let config = format!(
        "[upstream]\nopenai = {:?}\nanthropic = {:?}\nrequests_per_minute = 1\nqueue_wait_s = 0.05",
        upstream.base(),
        upstream.origin()
    );
    let setup = Setup::start(&config).await;
    setup.client.chat(&ask("One?")).await.check(200);
    setup.client.wait_for_entries(1).await;
    let over = setup.client.chat(&ask("Two?")).await;
    let message = over.refusal(429, "rate_limit_exceeded");
    assert!(message.contains("rate limit"), "{message}");
    assert_eq!((over.json()["error"]["type"].as_str(), over.outcome().0), (Some("rate_limit_error"), "miss"));
    let seconds: u64 = over.header("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
    // What the cache has costs no call; another key has a limit of its own, and so has another upstream.
    assert_eq!(setup.client.chat(&ask("One?")).await.check(200).outcome(), ("hit", "exact"));
    setup.server.client("sk-other").chat(&ask("Two?")).await.check(200);
    setup.client.post("/v1/messages", &ask("One?")).await.check(200);
    let over = setup.client.post("/v1/messages", &ask("Two?")).await.check(429).json();
    assert_eq!((over["type"].as_str(), over["error"]["type"].as_str()), (Some("error"), Some("rate_limit_error")));
    assert_eq!(upstream.count(), 3);
    assert_eq!(setup.metric("nearhit_upstream_tries_total{upstream=\"openai\",result=\"busy\"}").await, 1);
    assert_eq!(setup.client.get("/readyz").await.check(200).json()["failingUpstreams"], json!([]));
}

#[tokio::test]
async fn a_fallback_takes_what_is_over_the_limit() {
    let (a, b) = (Upstream::saying("From a.").await, Upstream::saying("From b.").await);
    let config = "[upstream]\nqueue_wait_s = 0.05\n".to_owned();
    let config = config + &section("a", &a.base(), "requests_per_minute = 1\nfallback = [\"b\"]") + &spare("b", &b, "");
    let Setup { client, server: _server, home: _home } = Setup::start(&config).await;
    for (text, upstream) in [("One?", "a"), ("Two?", "b"), ("Three?", "b")] {
        assert_eq!(client.chat(&ask(text)).await.check(200).header("x-nearhit-upstream"), upstream);
    }
    assert_eq!((a.count(), b.count()), (1, 2));
}

/// The answer says 12 tokens; the request was estimated at more.
#[tokio::test]
async fn tokens_are_counted_when_the_answer_is_there() {
    let upstream = Upstream::saying("Yes.").await;
    let config = format!("[upstream]\nopenai = {:?}\ntokens_per_minute = 6000\nqueue_wait_s = 0.05", upstream.base());
    let Setup { client, server: _server, home: _home } = Setup::start(&config).await;
    // 2,000 bytes are estimated at 500 tokens, half of what goes at once: uncorrected, the third would have to wait.
    for call in 0..8 {
        client.chat(&ask(&format!("{call} {}", "long ".repeat(400)))).await.check(200);
    }
    assert_eq!(upstream.count(), 8);
}

#[tokio::test]
async fn a_priority_is_one_of_two_words() {
    let upstream = Upstream::saying("Yes.").await;
    let Setup { client, server: _server, home: _home } =
        Setup::start(&format!("[upstream]\nopenai = {:?}", upstream.base())).await;
    for word in ["interactive", "batch"] {
        client.with("x-nearhit-priority", word).chat(&ask(word)).await.check(200);
        assert_eq!(upstream.last().header("x-nearhit-priority"), "");
    }
    let refused = client.with("x-nearhit-priority", "urgent").chat(&ask("Hi")).await;
    let message = refused.refusal(400, "invalid_value");
    assert!(message.contains("x-nearhit-priority") && message.contains("urgent"), "{message}");
}

/// One place in the queue: whoever waits in it and hangs up leaves it to the next.
#[tokio::test]
async fn whoever_hangs_up_leaves_the_queue() {
    let upstream = Upstream::saying("Yes.").await;
    let config = format!(
        "[upstream]\nopenai = {:?}\nrequests_per_minute = 1\nqueue_length = 1\nqueue_wait_s = 3600",
        upstream.base()
    );
    let setup = Setup::start(&config).await;
    setup.client.chat(&ask("One?")).await.check(200);
    let waiting = tokio::spawn({
        let client = setup.server.client("sk-test");
        async move { while client.chat(&ask("Two?")).await.status == 429 {} }
    });
    // Full: refused at once.
    until("somebody waits", async || {
        let probe = setup.server.client("sk-test");
        let probe =
            tokio::time::timeout(std::time::Duration::from_secs(1), async move { probe.chat(&ask("Three?")).await });
        probe.await.ok().filter(|answer| answer.status == 429)
    })
    .await;
    let waits = async || setup.metric("nearhit_upstream_waiting{upstream=\"openai\"}").await;
    assert_eq!(waits().await, 1);
    waiting.abort();
    until("nobody waits", async || (waits().await == 0).then_some(())).await;
    until("the place is free", async || {
        let probe = setup.server.client("sk-test");
        let probe =
            tokio::time::timeout(std::time::Duration::from_secs(1), async move { probe.chat(&ask("Four?")).await });
        probe.await.err()
    })
    .await;
    assert_eq!(upstream.count(), 1);
}
