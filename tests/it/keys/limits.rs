//! A tenant that asks for more than its share is told to wait, and nobody else is.

use http_body_util::BodyExt;
use serde_json::json;

use super::{CHAT, MESSAGES, SEARCH, Setup, ask};
use crate::support::{Home, Reply, Upstream, until};

/// So slow that nothing comes back while a test runs.
const SLOW: &str = "[limits]\nrequests_per_second = 0.001\nburst = 3\n[tenants.large]\nburst = 5\n";

#[tokio::test]
async fn each_tenant_has_its_own_rate() {
    let setup = Setup::start(SLOW).await;
    let (large, other) = (setup.home.key("large", "write"), setup.home.key("other", "write"));
    let rotated = setup.home.key("other", "write");
    // Refusals of keys that are not known yet cost nothing.
    let known = setup.home.key("last", "admin");
    until("the keys are known", async || (setup.client(&known).get("/v1/caches").await.status == 403).then_some(()))
        .await;
    for (key, served) in [(&setup.key, 3), (&large, 5), (&other, 3), (&rotated, 0)] {
        let client = setup.client(key);
        for n in 0..served + 2 {
            let answer = client.post(SEARCH, &json!({"prompt": "p"})).await;
            if n < served {
                answer.check(200);
                continue;
            }
            assert!(answer.refusal(429, "rate_limit_exceeded").contains("nearhit's own limit"));
            assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
            let wait: u64 = answer.header("retry-after").parse().expect("seconds");
            assert!((1..=1000).contains(&wait), "{wait} s");
        }
    }
    let asked = setup.upstream.count();
    setup.client(&other).post(CHAT, &ask("Hi")).await.refusal(429, "rate_limit_exceeded");
    let anthropic = setup.client(&other).post(MESSAGES, &ask("Hi")).await.check(429);
    assert_eq!(anthropic.json()["error"]["type"], "rate_limit_error");
    assert_eq!(anthropic.json()["type"], "error");
    assert!(!anthropic.header("retry-after").is_empty());
    assert_eq!(setup.upstream.count(), asked, "the provider was not asked");
    // Health and the admin listener are nobody's share.
    setup.client(&other).get("/readyz").await.check(200);
    setup.admin(&setup.key).get("/metrics").await.check(200);
}

/// A provider's own refusal is passed on as it is.
#[tokio::test]
async fn a_providers_limit_is_its_own() {
    let setup = Setup::start("").await;
    setup.upstream.answer_with(|_| Reply::json(429, &json!({"error": {"code": "theirs"}})).header("retry-after", "7"));
    for _ in 0..20 {
        let answer = setup.client(&setup.key).chat(&ask("Hi")).await.check(429);
        assert_eq!((answer.json()["error"]["code"].as_str(), answer.header("retry-after")), (Some("theirs"), "7"));
    }
    assert_eq!(setup.upstream.count(), 20);
}

/// Callers without keys have tenants, too.
#[tokio::test]
async fn a_request_is_in_flight_until_its_answer_is_sent() {
    let upstream = Upstream::saying("").await;
    let (reply, live) = Reply::live();
    let mut reply = Some(reply);
    upstream.answer_with(move |call| reply.take().unwrap_or_else(|| Reply::saying("Hello.", call)));
    let home = Home::with_config("[limits]\nin_flight = 1\n");
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    let (ada, bob) = (server.client("sk-ada"), server.client("sk-bob"));
    let client = ada.with("content-type", "application/json");
    let mut body = ask("Hi");
    body["stream"] = json!(true);
    let mut stream = client.open(http::Method::POST, CHAT, body.to_string()).await.into_body();
    live.send("data: {}\n\n").await;
    stream.frame().await.expect("a frame").expect("no error");

    ada.chat(&ask("Ho")).await.refusal(429, "rate_limit_exceeded");
    bob.chat(&ask("Ho")).await.check(200);
    drop(live);
    stream.collect().await.expect("the rest");
    until("there is room again", async || (ada.chat(&ask("Ho")).await.status == 200).then_some(())).await;

    // A client that goes away makes room, too.
    let (reply, live) = Reply::live();
    let mut reply = Some(reply);
    upstream.answer_with(move |call| reply.take().unwrap_or_else(|| Reply::saying("Hello.", call)));
    body["messages"][0]["content"] = json!("again");
    until("the last answer is sent", async || (ada.get("/v1/caches").await.status == 200).then_some(())).await;
    let answer = client.open(http::Method::POST, CHAT, body.to_string()).await;
    ada.get("/v1/caches").await.refusal(429, "rate_limit_exceeded");
    drop(answer);
    live.abandoned().await;
    until("there is room again", async || (ada.get("/v1/caches").await.status == 200).then_some(())).await;
}
