//! Clients of other products, which speak to those products' caches.

use serde_json::{Value, json};

use crate::support::{Client, Home, Server, Upstream, until};

struct Setup {
    upstream: Upstream,
    client: Client,
    server: Server,
    home: Home,
}

impl Setup {
    /// `compat` is TOML: the list, and whatever else.
    async fn start(compat: &str) -> Self {
        let upstream = Upstream::saying("").await;
        upstream.count_up();
        let home = Home::with_config(compat);
        let server = home.serve(&["--upstream", &upstream.base()]).await;
        let client = server.client("sk-test");
        Self { upstream, client, server, home }
    }

    /// Asks the same question with these headers: outcome, and tier or reason.
    async fn ask(&self, headers: &[(&str, &str)]) -> (String, String) {
        let entries = self.entries().await;
        let client = headers.iter().fold(self.client.clone(), |client, (name, value)| client.with(name, value));
        let answer = client.chat(&question()).await.check(200);
        let (outcome, why) = answer.outcome();
        let (outcome, why) = (outcome.to_owned(), why.to_owned());
        // An answer is stored after it was sent.
        if outcome == "miss" && why != "refresh" && !headers.iter().any(|(name, _)| *name == "x-bf-cache-no-store") {
            self.client.wait_for_entries(entries + 1).await;
        }
        (outcome, why)
    }

    async fn entries(&self) -> u64 {
        self.client.stats("default").await["entries"].as_u64().expect("a count")
    }

    /// How long the only entry lives, in seconds.
    async fn life_s(&self) -> u64 {
        let page = self.client.get("/v1/caches/default/entries").await.check(200).json();
        let ms = |name: &str| page["data"][0][name].as_u64().unwrap_or_else(|| panic!("{page}"));
        (ms("expiresMs") - ms("createdMs")) / 1000
    }

    async fn check(&self, headers: &[(&str, &str)], expected: (&str, &str)) {
        let (outcome, why) = self.ask(headers).await;
        assert_eq!((outcome.as_str(), why.as_str()), expected, "{headers:?}");
    }

    async fn refuse(&self, name: &str, value: &str) {
        let calls = self.upstream.count();
        let message = self.client.with(name, value).chat(&question()).await.refusal(400, "invalid_value");
        assert!(message.contains(name) && message.contains(&format!("{value:?}")), "{message}");
        assert_eq!(self.upstream.count(), calls);
    }
}

fn question() -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "What is a heron?"}]})
}

const HIT: (&str, &str) = ("hit", "exact");
const NO_STORE: (&str, &str) = ("bypass", "no_store");
const REFRESH: (&str, &str) = ("miss", "refresh");

/// A miss in a cache that is empty, or holds nothing of this kind.
fn nothing(is_empty: bool) -> (&'static str, &'static str) {
    match is_empty {
        true => ("miss", "empty"),
        false => ("miss", if cfg!(feature = "candle") { "empty" } else { "embedder_down" }),
    }
}

#[tokio::test]
async fn helicone() {
    let setup = Setup::start("compat = [\"helicone\"]").await;
    setup.check(&[("helicone-cache-enabled", "true")], nothing(true)).await;
    setup.check(&[], HIT).await;
    setup.check(&[("helicone-cache-seed", "one")], nothing(false)).await;
    setup.check(&[("helicone-cache-seed", "one"), ("helicone-cache-bucket-max-size", "1")], HIT).await;
    setup.check(&[("helicone-cache-seed", "two"), ("helicone-user-id", "u")], nothing(false)).await;
    let sent = setup.upstream.last();
    assert_eq!((sent.header("helicone-cache-seed"), sent.header("helicone-user-id")), ("", "u"));
    setup.check(&[("helicone-cache-enabled", "false")], NO_STORE).await;
    setup.check(&[("helicone-cache-bucket-max-size", "3")], NO_STORE).await;
    assert_eq!(setup.upstream.last().header("helicone-cache-bucket-max-size"), "");
    setup.refuse("helicone-cache-enabled", "perhaps").await;
    assert_eq!(setup.entries().await, 3);
}

#[tokio::test]
async fn portkey() {
    let setup = Setup::start("compat = [\"portkey\"]\n[cache]\nttl_s = 600").await;
    let simple = r#"{"cache":{"mode":"simple","max_age":60},"retry":{"attempts":2}}"#;
    // Whoever wants an equal request only asks no embedder.
    setup.check(&[("x-portkey-config", simple)], ("miss", "empty")).await;
    assert_eq!(setup.upstream.last().header("x-portkey-config"), simple, "it says more than what is for a cache");
    assert_eq!(setup.life_s().await, 60);
    // It may say who answers.
    setup.check(&[("x-portkey-config", "pc-1")], nothing(false)).await;
    setup.check(&[("x-portkey-config", "pc-1")], HIT).await;
    setup.check(&[("x-portkey-config", simple)], HIT).await;
    setup.check(&[("x-portkey-config", simple), ("x-portkey-cache-force-refresh", "true")], REFRESH).await;
    setup.check(&[("x-portkey-config", simple), ("x-portkey-cache-force-refresh", "false")], HIT).await;
    setup.check(&[("x-portkey-cache-namespace", "a"), ("x-portkey-config", simple)], ("miss", "no_candidate")).await;
    assert_eq!(setup.upstream.last().header("x-portkey-cache-namespace"), "");
    setup.check(&[("x-portkey-cache-namespace", "a"), ("x-portkey-config", simple)], HIT).await;
    setup.refuse("x-portkey-config", "{\"cache\":").await;
}

#[tokio::test]
async fn cloudflares_gateway() {
    let setup = Setup::start("compat = [\"cf-aig\"]\n[cache]\nttl_s = 600").await;
    setup.check(&[("cf-aig-cache-ttl", "60")], nothing(true)).await;
    assert_eq!(setup.life_s().await, 60);
    assert_eq!(setup.upstream.last().header("cf-aig-cache-ttl"), "");
    setup.check(&[("cf-aig-skip-cache", "true")], NO_STORE).await;
    setup.check(&[("cf-aig-skip-cache", "false")], HIT).await;
    setup.check(&[("cf-aig-cache-key", "k")], nothing(false)).await;
    setup.check(&[("cf-aig-cache-key", "k")], HIT).await;
    // A key makes nothing of two questions that are not equal anyway.
    let other = json!({"model": "m", "messages": [{"role": "user", "content": "Who wrote Hamlet?"}]});
    let answer = setup.client.with("cf-aig-cache-key", "k").chat(&other).await.check(200);
    assert_eq!(answer.outcome().0, "miss");
    setup.refuse("cf-aig-cache-ttl", "soon").await;
}

#[tokio::test]
async fn a_life_is_never_longer_than_the_operators() {
    let setup = Setup::start("compat = [\"cf-aig\"]\n[cache]\nttl_s = 60").await;
    setup.check(&[("cf-aig-cache-ttl", "86400")], nothing(true)).await;
    assert_eq!(setup.life_s().await, 60);
    let own = [("cf-aig-cache-ttl", "30"), ("x-nearhit-ttl", "50"), ("cache-control", "no-cache")];
    setup.check(&own, REFRESH).await;
    // nearhit's own header counts.
    until("the fresh answer is stored", async || (setup.life_s().await == 50).then_some(())).await;
}

#[tokio::test]
async fn openrouter() {
    let setup = Setup::start("compat = [\"openrouter\"]\n[cache]\nttl_s = 600").await;
    setup.check(&[("x-openrouter-cache", "true"), ("x-openrouter-cache-ttl", "60")], nothing(true)).await;
    assert_eq!(setup.life_s().await, 60);
    let sent = setup.upstream.last();
    assert_eq!((sent.header("x-openrouter-cache"), sent.header("x-openrouter-cache-ttl")), ("", ""));
    setup.check(&[], HIT).await;
    setup.check(&[("x-openrouter-cache", "false")], NO_STORE).await;
    setup.check(&[("x-openrouter-cache-clear", "true")], REFRESH).await;
    setup.refuse("x-openrouter-cache-ttl", "300s").await;
}

#[tokio::test]
async fn bifrost() {
    let setup = Setup::start("compat = [\"bifrost\"]\n[cache]\nttl_s = 600").await;
    let session = ("x-bf-cache-key", "session-1");
    setup.check(&[session, ("x-bf-cache-no-store", "true")], nothing(true)).await;
    // It was not stored, so it is asked again; and now it is.
    setup.check(&[session, ("x-bf-cache-ttl", "1m")], nothing(true)).await;
    assert_eq!(setup.life_s().await, 60);
    assert_eq!(setup.upstream.count(), 2);
    setup.check(&[session, ("x-bf-cache-no-store", "true"), ("x-bf-cache-type", "direct")], HIT).await;
    setup.check(&[("x-bf-cache-key", "session-2"), ("x-bf-cache-type", "direct")], ("miss", "no_candidate")).await;
    let sent = setup.upstream.last();
    assert_eq!((sent.header("x-bf-cache-key"), sent.header("x-bf-cache-type")), ("", ""));
    setup.check(&[session, ("x-bf-cache-threshold", "0.9")], HIT).await;
    setup.refuse("x-bf-cache-threshold", "high").await;
}

#[tokio::test]
async fn a_product_that_is_not_named_is_not_heard() {
    let setup = Setup::start("compat = [\"portkey\"]").await;
    setup.check(&[("helicone-cache-seed", "one"), ("x-bf-cache-threshold", "high")], nothing(true)).await;
    let sent = setup.upstream.last();
    assert_eq!((sent.header("helicone-cache-seed"), sent.header("x-bf-cache-threshold")), ("one", "high"));
    setup.check(&[("cf-aig-skip-cache", "true")], HIT).await;
    for path in ["/get", "/put", "/flush"] {
        setup.client.post(path, &json!({"prompt": "p"})).await.refusal(404, "unknown_path");
        setup.client.get(path).await.refusal(404, "unknown_path");
    }
    // From now on it is.
    setup.home.write("nearhit.toml", "compat = [\"portkey\", \"cf-aig\", \"gptcache\"]");
    let reloaded = setup.server.admin().post_bytes("/admin/reload", "").await.check(200).json();
    assert!(reloaded["changed"].as_array().expect("keys").contains(&json!("compat")), "{reloaded}");
    setup.check(&[("cf-aig-skip-cache", "true")], NO_STORE).await;
    setup.client.post("/get", &json!({"prompt": "p"})).await.check(200);
}

#[tokio::test]
async fn gptcaches_server() {
    let setup = Setup::start("compat = [\"gptcache\"]").await;
    let client = &setup.client;
    let post = async |path: &str, body: Value| client.post(path, &body).await.check(200).json();
    assert_eq!(post("/get", json!({"prompt": "Hi"})).await, json!({"prompt": "Hi", "answer": null}));
    assert_eq!(post("/put", json!({"prompt": "Hi", "answer": "Ho"})).await, "successfully update the cache");
    assert_eq!(post("/get", json!({"prompt": "Hi"})).await, json!({"prompt": "Hi", "answer": "Ho"}));
    assert_eq!(post("/put", json!({"prompt": "Hi", "answer": "Hey"})).await, "successfully update the cache");
    // Nothing is removed by it.
    assert_eq!(client.post_bytes("/flush", "").await.check(200).json(), "successfully flush the cache");
    assert_eq!(post("/get", json!({"prompt": "Hi", "answer": ""})).await, json!({"prompt": "Hi", "answer": "Hey"}));
    assert_eq!(client.find("Hi").await, ("exact".to_owned(), "Hey".to_owned()), "it is the same cache");
    // Another caller has another one.
    let other = setup.server.client("sk-other").post("/get", &json!({"prompt": "Hi"})).await.check(200).json();
    assert_eq!(other["answer"], Value::Null);
    assert!(client.post("/put", &json!({"answer": "r"})).await.refusal(400, "invalid_value").contains("prompt"));
    client.post("/put", &json!({"prompt": "p"})).await.refusal(400, "invalid_value");
    client.get("/get").await.refusal(405, "method_not_allowed");
    assert_eq!(setup.upstream.count(), 0);
}
