//! An upstream that fails again and again is asked last, and never not at all.

use serde_json::json;

use super::{Setup, ask, section, spare};
use crate::support::{Reply, Upstream, until};

#[tokio::test]
async fn an_upstream_that_fails_is_asked_last() {
    let (a, b) = (Upstream::saying("").await, Upstream::saying("From b.").await);
    a.answer_with(|_| Reply::new(500, "text/plain", ""));
    let config = "[upstream]\nbreaker_failures = 2\nbreaker_pause_s = 3600\n".to_owned();
    let config = config + &section("a", &a.base(), "fallback = [\"b\"]") + &spare("b", &b, "");
    let setup = Setup::start(&config).await;
    for (call, (asked_a, tries)) in [(1, "2"), (2, "2"), (2, "1"), (2, "1")].into_iter().enumerate() {
        let answer = setup.client.chat(&ask(&format!("Call {call}?"))).await.check(200);
        assert_eq!((a.count(), answer.header("x-nearhit-tries")), (asked_a, tries), "call {call}");
        assert_eq!(answer.header("x-nearhit-upstream"), "b");
    }
    let ready = setup.client.get("/readyz").await.check(200).json();
    assert_eq!(ready["failingUpstreams"], json!(["a"]), "{ready}");
    assert!(ready["degraded"].as_array().expect("a list").contains(&json!("upstream")), "{ready}");
    assert_eq!(setup.metric("nearhit_upstream_open{upstream=\"a\"}").await, 1);
    assert_eq!(setup.metric("nearhit_upstream_open{upstream=\"b\"}").await, 0);
    // Where the others fail too, it is its turn all the same.
    b.answer_with(|_| Reply::new(503, "text/plain", ""));
    let calls = a.count();
    setup.client.chat(&ask("Anybody?")).await.check(500);
    assert_eq!(a.count(), calls + 1);
}

#[tokio::test]
async fn an_upstream_that_is_well_again_is_asked_first_again() {
    let (a, b) = (Upstream::saying("").await, Upstream::saying("From b.").await);
    a.answer_with(|_| Reply::new(500, "text/plain", ""));
    let config = "[upstream]\nbreaker_failures = 1\nbreaker_pause_s = 0.01\n".to_owned();
    let config = config + &section("a", &a.base(), "fallback = [\"b\"]") + &spare("b", &b, "");
    let setup = Setup::start(&config).await;
    setup.client.chat(&ask("Ill?")).await.check(200);
    assert_eq!(setup.client.get("/readyz").await.check(200).json()["failingUpstreams"], json!(["a"]));
    a.answer_with(|call| Reply::saying("From a.", call));
    let mut call = 0;
    until("a answers again", async || {
        call += 1;
        let answer = setup.client.chat(&ask(&format!("Well, {call}?"))).await.check(200);
        (answer.header("x-nearhit-upstream") == "a").then_some(())
    })
    .await;
    assert_eq!(setup.client.get("/readyz").await.check(200).json()["failingUpstreams"], json!([]));
}

/// With nobody else to ask, every call is passed on.
#[tokio::test]
async fn a_single_upstream_is_always_asked() {
    let upstream = Upstream::saying("").await;
    upstream.answer_with(|_| Reply::new(500, "text/plain", "ill"));
    let config = format!("[upstream]\nopenai = {:?}\nbreaker_failures = 1\nbreaker_pause_s = 3600", upstream.base());
    let setup = Setup::start(&config).await;
    for call in 1..=5 {
        let answer = setup.client.chat(&ask("Ill?")).await.check(500);
        assert_eq!((answer.text().as_str(), upstream.count()), ("ill", call));
    }
    assert_eq!(setup.client.get("/readyz").await.check(200).json()["failingUpstreams"], json!(["openai"]));
    upstream.answer_with(|call| Reply::saying("Well.", call));
    setup.client.chat(&ask("Ill?")).await.check(200);
    assert_eq!(setup.client.get("/readyz").await.check(200).json()["failingUpstreams"], json!([]));
}
