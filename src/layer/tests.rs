//! Questions that are near in meaning, asked at one time: an embedder to which everything is near, and a provider that
//! answers when it is told to.

use async_trait::async_trait;
use http::HeaderName;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::cache::{CacheSettings, Parts};
use crate::clock::ManualClock;
use crate::embed::{Asker, EmbedError, Embedder};
use crate::store::memory::MemoryStore;

struct AllNear;

#[async_trait]
impl Embedder for AllNear {
    fn model(&self) -> &str {
        "all-near"
    }

    fn engine(&self) -> &str {
        "none"
    }

    fn dimensions(&self) -> usize {
        2
    }

    async fn embed(&self, texts: &[&str], _: Asker<'_>) -> Vec<Result<Embedding, EmbedError>> {
        texts.iter().map(|_| Ok(Embedding::new(vec![1.0, 0.0]).expect("a vector"))).collect()
    }
}

/// Fails its first calls, and answers the others by their number.
#[derive(Clone)]
struct Provider {
    calls: Arc<Mutex<usize>>,
    fails: usize,
    go: watch::Receiver<bool>,
}

impl Service<Request<Body>> for Provider {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let Self { calls, fails, mut go } = self.clone();
        Box::pin(async move {
            let number = {
                let mut calls = calls.lock();
                *calls += 1;
                *calls
            };
            go.wait_for(|go| *go).await.expect("somebody to say so");
            let (status, body) = match number > fails {
                false => (500, json!({"error": {"message": "no"}})),
                true => (200, completion(&format!("answer {number}"))),
            };
            let response = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
            Ok(response.body(Body::from(body.to_string())).expect("a response"))
        })
    }
}

fn completion(text: &str) -> Value {
    json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
    })
}

struct Setup {
    service: CacheService<Provider>,
    go: watch::Sender<bool>,
    calls: Arc<Mutex<usize>>,
}

/// What a client sees: status, outcome, tier, whether it is told how similar the two are, and what the answer says.
type Seen = (u16, String, String, bool, Value);

impl Setup {
    fn new(coalesce_semantic: bool, fails: usize) -> Self {
        let (store, clock) = (Arc::new(MemoryStore::default()), Arc::new(ManualClock::at(1_000_000)));
        let parts = Parts { store, embedder: Some(Arc::new(AllNear)), clock };
        let cache = Arc::new(Cache::new(parts, CacheSettings::default(), &mut Registry::default()));
        let settings = LayerSettings { coalesce_semantic, ..LayerSettings::default() };
        let (go, told) = watch::channel(false);
        let calls = Arc::default();
        let provider = Provider { calls: Arc::clone(&calls), fails, go: told };
        let service = CacheLayer::new(cache, settings, TaskTracker::new()).layer(provider);
        Self { service, go, calls }
    }

    /// Sends the question, and lets it come as far as it can.
    async fn ask(&self, tenant: &str, text: &str, more: &[(&'static str, &'static str)]) -> JoinHandle<Seen> {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": text}]});
        let mut request = Request::post("/v1/chat/completions").body(Body::from(body.to_string())).expect("a request");
        request.extensions_mut().insert(Tenant::new(tenant));
        for (name, value) in more {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        let mut service = self.service.clone();
        let asked = tokio::spawn(async move {
            let Ok(response) = service.call(request).await;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            let text = |name: &HeaderName| {
                parts.headers.get(name).map_or("", |value| value.to_str().expect("a text")).to_owned()
            };
            let said =
                serde_json::from_slice::<Value>(&body).expect("JSON").pointer("/choices/0/message/content").cloned();
            let is_told = !text(&header::SIMILARITY).is_empty() && !text(&header::PROBABILITY).is_empty();
            (parts.status.as_u16(), text(&header::OUTCOME), text(&header::TIER), is_told, said.unwrap_or_default())
        });
        settle().await;
        asked
    }

    fn calls(&self) -> usize {
        *self.calls.lock()
    }
}

/// Lets everybody do what they can.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

fn missed(answer: &str) -> Seen {
    (200, "miss".into(), String::new(), false, answer.into())
}

fn joined(answer: &str) -> Seen {
    (200, "hit".into(), "joined".into(), true, answer.into())
}

const FIRST: &str = "How do I return 2 chairs?";

const SECOND: &str = "How can I return 2 chairs?";

#[tokio::test]
async fn near_questions_are_one_call() {
    let setup = Setup::new(true, 0);
    let first = setup.ask("t", FIRST, &[]).await;
    let others = [
        setup.ask("t", SECOND, &[]).await,
        setup.ask("t", "How could I return 2 chairs?", &[]).await,
        // The same as the first, as it comes.
        setup.ask("t", FIRST, &[]).await,
    ];
    assert_eq!(setup.calls(), 1);
    setup.go.send_replace(true);
    assert_eq!(first.await.expect("an answer"), missed("answer 1"));
    let [second, third, same] = others;
    assert_eq!(second.await.expect("an answer"), joined("answer 1"));
    assert_eq!(third.await.expect("an answer"), joined("answer 1"));
    let same = same.await.expect("an answer");
    assert_eq!((same.1.as_str(), same.2.as_str(), same.3), ("hit", "joined", false));
    assert_eq!(setup.calls(), 1);
}

#[tokio::test]
async fn what_differs_is_a_call_of_its_own() {
    const NUMBER: &str = "How can I return 3 chairs?";
    const REFRESH: &[(&str, &str)] = &[("cache-control", "no-cache")];
    type Row = (&'static str, bool, &'static str, &'static str, &'static [(&'static str, &'static str)]);
    let rows: [Row; 9] = [
        ("switched off", false, "t", SECOND, &[]),
        ("another number", true, "t", NUMBER, &[]),
        ("another tenant", true, "other", SECOND, &[]),
        ("another key", true, "t", SECOND, &[("authorization", "Bearer other")]),
        ("another kind of key", true, "t", SECOND, &[("api-key", "other")]),
        ("another cache", true, "t", SECOND, &[("x-nearhit-cache", "mine")]),
        ("terms of its own", true, "t", SECOND, &[("x-nearhit-threshold", "0.5")]),
        ("no answer of before", true, "t", SECOND, REFRESH),
        ("nothing is kept", true, "t", SECOND, &[("cache-control", "no-store")]),
    ];
    for (row, coalesce_semantic, tenant, text, headers) in rows {
        let setup = Setup::new(coalesce_semantic, 0);
        let first = setup.ask("t", FIRST, &[]).await;
        let second = setup.ask(tenant, text, headers).await;
        assert_eq!(setup.calls(), 2, "{row}");
        setup.go.send_replace(true);
        assert_eq!(first.await.expect("an answer").4, "answer 1", "{row}");
        assert_eq!(second.await.expect("an answer").4, "answer 2", "{row}");
    }
}

#[tokio::test]
async fn of_those_who_waited_for_a_failure_one_asks() {
    let setup = Setup::new(true, 1);
    let first = setup.ask("t", FIRST, &[]).await;
    let mut others = Vec::new();
    for text in ["How can I return 2 chairs?", "How could I return 2 chairs?", "How do we return 2 chairs?"] {
        others.push(setup.ask("t", text, &[]).await);
    }
    assert_eq!(setup.calls(), 1);
    setup.go.send_replace(true);
    assert_eq!(first.await.expect("an answer").0, 500);
    let mut seen = Vec::new();
    for other in others {
        seen.push(other.await.expect("an answer"));
    }
    seen.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(seen, [joined("answer 2"), joined("answer 2"), missed("answer 2")]);
    assert_eq!(setup.calls(), 2);
}

#[tokio::test]
async fn who_waits_for_one_that_leaves_asks() {
    let setup = Setup::new(true, 0);
    let first = setup.ask("t", FIRST, &[]).await;
    let second = setup.ask("t", SECOND, &[]).await;
    assert_eq!(setup.calls(), 1);
    first.abort();
    settle().await;
    assert_eq!(setup.calls(), 2);
    setup.go.send_replace(true);
    assert_eq!(second.await.expect("an answer"), missed("answer 2"));
}
