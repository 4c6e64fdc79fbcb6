//! nearhit as a filter in Envoy, which goes to the providers itself, as docs/envoy.md configures it.

use std::path::Path;

use axum::body::Body;
use futures_util::stream::{self, StreamExt};
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::envoy::{self, Envoy};
use crate::support::{Answer, Client, Home, Llmock, Reply, Server, Upstream, say_skipped, until, variable};

/// Envoy with the filter, nearhit beside it, and a provider behind it.
struct Setup {
    envoy: Envoy,
    server: Server,
    home: Home,
}

impl Setup {
    async fn start(python: &str, home: Home, provider: &str) -> Self {
        // Whatever nearhit itself would call is not there.
        let nowhere = "http://127.0.0.1:9";
        let upstreams = ["--upstream", &format!("{nowhere}/v1"), "--anthropic-upstream", nowhere];
        let server = home.serve(&upstreams).await;
        let envoy = Envoy::filtering(python, &server.url, provider, provider).await;
        Self { envoy, server, home }
    }

    fn client(&self) -> Client {
        Client::new(&self.envoy.url, "sk-test")
    }

    /// Waits until so many answers were stored since the start, all in all.
    async fn kept(&self, count: u64) {
        until(&format!("{count} answers are kept"), async || {
            let metrics = self.server.admin().get("/metrics").await.text();
            (sample(&metrics, "nearhit_answers_total", "result=\"kept\"") == count).then_some(())
        })
        .await;
    }
}

/// The sum of a counter's samples with this label.
fn sample(metrics: &str, name: &str, label: &str) -> u64 {
    let samples = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
    samples.map(|line| line.rsplit_once(' ').expect("a value").1.parse::<u64>().expect("a count")).sum()
}

async fn calls(llmock: &Llmock) -> u64 {
    sample(&Client::new(&llmock.url, "").get("/metrics").await.text(), "aimock_requests_total", "method=\"POST\"")
}

fn ask(question: &str) -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}]})
}

fn with(mut body: Value, field: &str, value: impl Into<Value>) -> Value {
    body[field] = value.into();
    body
}

/// The text of a chat completion, streamed or not.
fn said(answer: &Answer) -> String {
    if !answer.header("content-type").starts_with("text/event-stream") {
        return answer.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned();
    }
    let text = answer.text();
    assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    events.filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}

#[test]
fn the_shown_configuration_is_valid() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    if !Path::new("/etc/ssl/certs/ca-certificates.crt").exists() {
        return say_skipped("this machine has its certificates elsewhere");
    }
    let output = envoy::program(&python).args(["--mode", "validate", "--config-yaml", &envoy::sample()]).output();
    let output = output.expect("Envoy starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn what_passes_envoy_is_cached() {
    let [Some(python), Some(llmock)] = ["NEARHIT_PYTHON", "NEARHIT_LLMOCK"].map(variable) else { return };
    let llmock = Llmock::start(&llmock, "matrix.json");
    let setup = Setup::start(&python, Home::new(), &llmock.url).await;
    let client = setup.client();
    let mut expected = (0, 0);
    // A question, what it is answered, and in which forms: whether streamed, and what becomes of it.
    for (question, answer, forms) in [
        (CLOSE, CLOSED, [(false, "miss"), (false, "hit"), (true, "hit")]),
        (RINGS, RING, [(true, "miss"), (true, "hit"), (false, "hit")]),
    ] {
        for (is_streamed, outcome) in forms {
            let what = format!("{question} {is_streamed}");
            let answered = client.chat(&with(ask(question), "stream", is_streamed)).await.check(200);
            assert_eq!((answered.header("x-nearhit-outcome"), said(&answered).as_str()), (outcome, answer), "{what}");
            let media = if is_streamed { "text/event-stream" } else { "application/json" };
            assert!(answered.header("content-type").starts_with(media), "{what}: {:?}", answered.headers);
            assert_eq!(answered.header("x-cache-status"), outcome.to_uppercase(), "{what}");
            assert_eq!(answered.headers.contains_key("age"), outcome == "hit", "{what}");
            if outcome == "miss" {
                assert!(!answered.header("x-nearhit-reason").is_empty(), "{what}");
                expected = (expected.0 + 1, expected.1 + 1);
                setup.kept(expected.1).await;
            } else {
                assert_eq!(answered.header("x-nearhit-tier"), "exact", "{what}");
            }
            assert_eq!(calls(&llmock).await, expected.0, "{what}");
        }
    }

    // Another API, with another provider's cluster.
    let message = json!({"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": CLOSE}]});
    for (is_streamed, outcome) in [(false, "miss"), (false, "hit"), (true, "hit")] {
        let answered = client.post("/v1/messages", &with(message.clone(), "stream", is_streamed)).await.check(200);
        assert_eq!(answered.header("x-nearhit-outcome"), outcome, "{is_streamed}: {}", answered.text());
        let text = answered.text();
        assert!(if is_streamed { text.contains("message_stop") } else { text.contains("Close account") }, "{text}");
        setup.kept(expected.1 + 1).await;
    }
    expected = (expected.0 + 1, expected.1 + 1);

    // What a provider refuses passes, and is asked for again.
    for (question, status) in [(GOLDBERG, 429), (PURR, 500)] {
        for is_streamed in [false, true] {
            let refused = client.chat(&with(ask(question), "stream", is_streamed)).await.check(status);
            assert_eq!(refused.header("x-nearhit-outcome"), "miss");
            assert!(
                refused.json()["error"]["message"]
                    .as_str()
                    .is_some_and(|m| m.contains("provider") || m.contains("fell"))
            );
            expected.0 += 1;
        }
    }

    // Controls are heard: a fresh answer, none, no answer at all.
    let refreshed = client.with("cache-control", "no-cache").chat(&ask(CLOSE)).await.check(200);
    assert_eq!(refreshed.outcome(), ("miss", "refresh"));
    expected = (expected.0 + 1, expected.1 + 1);
    setup.kept(expected.1).await;
    let unstored = client.with("cache-control", "no-store").chat(&ask(CLOSE)).await.check(200);
    assert_eq!(unstored.outcome(), ("bypass", "no_store"));
    expected.0 += 1;
    let absent = client.with("cache-control", "only-if-cached").chat(&ask("Anybody there?")).await;
    absent.refusal(504, "only_if_cached");
    client.with("x-nearhit-threshold", "high").chat(&ask(CLOSE)).await.refusal(400, "invalid_value");
    client.post_bytes("/v1/chat/completions", "{").await.refusal(400, "invalid_json");

    // Another key is another tenant, and another host may be another provider.
    let other = Client::new(&setup.envoy.url, "sk-other").chat(&ask(CLOSE)).await.check(200);
    assert_eq!(other.header("x-nearhit-outcome"), "miss");
    let host = client.with("host", "other.example").chat(&ask(CLOSE)).await.check(200);
    assert_eq!(host.header("x-nearhit-outcome"), "miss");
    expected = (expected.0 + 2, expected.1 + 2);
    setup.kept(expected.1).await;
    assert_eq!(calls(&llmock).await, expected.0);

    assert_eq!(client.get("/v1/models").await.outcome(), ("bypass", "not_cacheable"));
}

/// A client that leaves takes its answer along; nobody else gets half of one.
#[tokio::test]
async fn half_an_answer_is_not_kept() {
    let [Some(python), Some(llmock)] = ["NEARHIT_PYTHON", "NEARHIT_LLMOCK"].map(variable) else { return };
    let llmock = Llmock::start(&llmock, "matrix.json");
    let setup = Setup::start(&python, Home::new(), &llmock.url).await;
    let client = setup.client();
    let asked = with(ask(BREAD), "stream", true);
    let mut left = client
        .with("content-type", "application/json")
        .open(Method::POST, "/v1/chat/completions", asked.to_string())
        .await;
    assert_eq!(left.headers()["x-nearhit-outcome"], "miss");
    left.body_mut().frame().await.expect("more").expect("the beginning");
    drop(left);
    until("the answer is broken off", async || {
        let metrics = setup.server.admin().get("/metrics").await.text();
        (sample(&metrics, "nearhit_answers_total", "result=\"broken_off\"") == 1).then_some(())
    })
    .await;
    let again = client.chat(&ask(BREAD)).await.check(200);
    assert_eq!(again.header("x-nearhit-outcome"), "miss");
    assert!(said(&again).ends_with("bake it dark."), "{}", again.text());
    setup.kept(1).await;
}

/// What the provider gets is what the client sent, but for what is for nearhit.
#[tokio::test]
async fn what_is_for_nearhit_goes_no_further() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    let upstream = Upstream::saying("Under the stairs.").await;
    let home = Home::new();
    let key = home.key("acme", "read,write");
    let setup = Setup::start(&python, home, &upstream.origin()).await;
    let anonymous = Client::new(&setup.envoy.url, "");

    // Without a key nothing is looked up or asked, whatever the path.
    anonymous.chat(&ask("Where?")).await.refusal(401, "invalid_api_key");
    setup.client().chat(&ask("Where?")).await.refusal(401, "invalid_api_key");
    anonymous.get("/v1/models").await.refusal(401, "invalid_api_key");
    let refused = anonymous.post("/v1/messages", &json!({})).await.check(401);
    assert_eq!(
        (&refused.json()["type"], &refused.json()["error"]["type"]),
        (&json!("error"), &json!("authentication_error"))
    );
    let reader = anonymous.with("x-nearhit-key", &setup.home.key("acme", "read"));
    until("the key is known", async || {
        let answer = reader.chat(&ask("Where?")).await;
        (answer.status != 401).then(|| answer.refusal(403, "permission_denied"))
    })
    .await;
    assert_eq!(upstream.count(), 0);

    let client = setup.client().with("x-nearhit-key", &key);
    let body = r#"{ "model":"m",  "messages":[{"role":"user","content":"Where?"}], "seed": 1.50}"#;
    let answered = client
        .with("x-nearhit-cache", "other")
        .with("x-other", "kept")
        .with("accept-encoding", "gzip, br")
        .post_bytes("/v1/chat/completions", body)
        .await
        .check(200);
    assert_eq!(answered.header("x-nearhit-outcome"), "miss");
    let call = upstream.last();
    assert_eq!(call.body, body);
    assert_eq!((call.header("content-length"), call.header("accept-encoding")), ("78", "identity"));
    assert_eq!((call.header("authorization"), call.header("x-other")), ("Bearer sk-test", "kept"));
    assert!(call.headers.keys().all(|name| !name.as_str().starts_with("x-nearhit")), "{:?}", call.headers);

    // Fields for nearhit are cut out, and the length is that of what is left. Then without a length.
    let marked = r#"{"model":"m","cache":{"namespace":"third"},"messages":[{"role":"user","content":"Where?"}]}"#;
    let plain = r#"{"model":"m","messages":[{"role":"user","content":"Where?"}]}"#;
    let in_pieces = || {
        let (first, second) = marked.split_at(30);
        Body::from_stream(stream::iter([first, second].map(Ok::<_, std::io::Error>)))
    };
    client.post_bytes("/v1/chat/completions", marked).await.check(200);
    assert_eq!((upstream.last().body.as_ref(), upstream.last().header("content-length")), (plain.as_bytes(), "61"));
    setup.kept(2).await;
    let hit = client.post_bytes("/v1/chat/completions", in_pieces()).await.check(200);
    assert_eq!(hit.outcome(), ("hit", "exact"));
    let fresh =
        client.with("cache-control", "no-cache").post_bytes("/v1/chat/completions", in_pieces()).await.check(200);
    assert_eq!((fresh.outcome(), upstream.last().body.as_ref()), (("miss", "refresh"), plain.as_bytes()));
    // nearhit's key alone: the provider gets none.
    let bare = Client::new(&setup.envoy.url, &key).chat(&ask("And where else?")).await.check(200);
    assert_eq!((bare.header("x-nearhit-outcome"), upstream.last().headers.get("authorization")), ("miss", None));
}

#[tokio::test]
async fn what_cannot_be_cached_passes() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    let upstream = Upstream::saying("Under the stairs.").await;
    let setup = Setup::start(&python, Home::new(), &upstream.origin()).await;
    let client = setup.client();
    let long = ask(&"long ".repeat(400_000)).to_string();
    let pieces: Vec<_> = long.as_bytes().chunks(60_000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let path = "/v1/chat/completions";
    let with_length = client.post_bytes(path, long.clone()).await.check(200);
    assert_eq!(with_length.outcome(), ("bypass", "not_cacheable"));
    assert_eq!((upstream.last().body.as_ref(), said(&with_length).as_str()), (long.as_bytes(), "Under the stairs."));
    let in_pieces = client.post_bytes(path, Body::from_stream(stream::iter(pieces))).await.check(200);
    assert_eq!(in_pieces.outcome(), ("bypass", "not_cacheable"));
    assert_eq!(upstream.last().body, long.as_bytes());

    let compressed = client.with("content-encoding", "gzip").post_bytes(path, "not really").await.check(200);
    assert_eq!(
        (compressed.outcome(), upstream.last().header("content-encoding")),
        (("bypass", "not_cacheable"), "gzip")
    );
    let form =
        client.with("content-type", "multipart/form-data; boundary=x").post_bytes(path, "--x--").await.check(200);
    assert_eq!((form.outcome(), upstream.last().body.as_ref()), (("bypass", "not_cacheable"), b"--x--".as_slice()));
    let upload = client.post_bytes("/v1/files", long.clone()).await.check(200);
    assert_eq!((upload.outcome(), upstream.last().body.len()), (("bypass", "not_cacheable"), long.len()));
    client.delete("/v1/files/file-1").await.check(200);

    // Longer than what is kept, in many pieces.
    let answer = format!("{} ", "v".repeat(999)).repeat(1_500);
    upstream.answer_with(move |call| Reply::saying(&answer, call));
    for is_streamed in [false, true, false] {
        let whole = client.chat(&with(ask("How long?"), "stream", is_streamed)).await.check(200);
        assert_eq!((whole.header("x-nearhit-outcome"), said(&whole).len()), ("miss", 1_500_000));
    }
    assert_eq!(upstream.count(), 9);
}

/// Every stream is a request of its own, whatever else is on its way.
#[tokio::test]
async fn many_at_a_time_are_answered_each_its_own() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    let upstream = Upstream::start(|call| {
        let asked = call.json()["messages"][0]["content"].as_str().expect("a question").to_owned();
        Reply::saying(&format!("an answer to {asked}"), call)
    })
    .await;
    let setup = Setup::start(&python, Home::new(), &upstream.origin()).await;
    let client = &setup.client();
    for expected in ["miss", "hit"] {
        let all = stream::iter(0..60).map(|number| async move {
            let question = format!("item-{number} of the list?");
            let answered = client.chat(&with(ask(&question), "stream", number % 2 == 0)).await.check(200);
            assert_eq!(said(&answered), format!("an answer to {question}"));
            answered.header("x-nearhit-outcome").to_owned()
        });
        let outcomes: Vec<_> = all.buffer_unordered(12).collect().await;
        assert_eq!(outcomes, vec![expected; 60]);
        setup.kept(60).await;
    }
    assert_eq!(upstream.count(), 60);
}

#[tokio::test]
async fn without_nearhit_calls_go_on() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    let upstream = Upstream::saying("Under the stairs.").await;
    let Setup { envoy, server, home } = Setup::start(&python, Home::new(), &upstream.origin()).await;
    let client = Client::new(&envoy.url, "sk-test");
    let asked = |is_streamed: bool| with(ask("Where?"), "stream", is_streamed);
    assert_eq!(client.chat(&asked(false)).await.check(200).header("x-nearhit-outcome"), "miss");

    // Killed in the middle of an answer that passes.
    let (reply, live) = Reply::live();
    let mut reply = Some(reply);
    upstream.answer_with(move |call| reply.take().unwrap_or_else(|| Reply::saying("Under the stairs.", call)));
    let json = client.with("content-type", "application/json");
    let slow = with(ask("Slowly, please."), "stream", true).to_string();
    let mut response = json.open(Method::POST, "/v1/chat/completions", slow).await;
    live.send("data: {}\n\n").await;
    assert!(response.body_mut().frame().await.is_some_and(|frame| frame.is_ok()));
    server.kill();
    live.send("data: [DONE]\n\n").await;
    drop(live);
    let rest = response.into_body().collect().await.expect("the rest").to_bytes();
    assert_eq!(rest, "data: [DONE]\n\n");

    for is_streamed in [false, true, false] {
        let answered = client.with("x-nearhit-key", "nh_secret").chat(&asked(is_streamed)).await.check(200);
        assert_eq!((answered.header("x-nearhit-outcome"), said(&answered).as_str()), ("", "Under the stairs."));
        assert_eq!(upstream.last().headers.get("x-nearhit-key"), None);
    }
    drop(home);
}

// As in matrix.json.
const CLOSE: &str = "How do I close my account?";
const CLOSED: &str = "Open Settings, then Account, then \"Close account\". ☀️";
const RINGS: &str = "Which planets have rings?";
const RING: &str = "Jupiter, Saturn, Uranus and Neptune.";
const BREAD: &str = "Recite something endless about bread.";
const GOLDBERG: &str = "Who composed the Goldberg variations?";
const PURR: &str = "Why do cats purr at night?";
