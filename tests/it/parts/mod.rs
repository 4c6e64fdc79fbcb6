//! An embedder or a store that fails now and then, or always: every call goes through, and nothing wrong is kept or served.
//!
//! The faults are in the parts themselves, so the server runs in this process; everything else is as it always is.

mod broken;
mod embedder;
mod store;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{StreamExt, iter};
use nearhit::cache::{Cache, CacheSettings, Parts};
use nearhit::clock::SystemClock;
use nearhit::contain::Patience;
use nearhit::decision::{CacheName, Entry, Tenant};
use nearhit::embed::Embedder;
use nearhit::layer::LayerSettings;
use nearhit::metrics::Registry;
use nearhit::savings::{Savings, SavingsRules};
use nearhit::server::keys::KeyFile;
use nearhit::server::{
    App, IdempotencyKeys, Keys, Live, LiveSettings, Reloads, Secret, ServeSettings, Tenancy, Traffic, serve,
};
use nearhit::store::{Owner, Store};
use nearhit::upstream::{Upstream as Providers, UpstreamSettings};
use parking_lot::RwLock;
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::support::{Client, Reply, Upstream, until};

/// The server in this process, and a provider that answers every question in its own words.
struct Setup {
    client: Client,
    cache: Arc<Cache>,
    upstream: Upstream,
    url: String,
    tasks: TaskTracker,
}

/// What was said of calls: how many of each outcome with its tier or reason.
type Said = BTreeMap<String, usize>;

impl Setup {
    async fn start(store: Arc<dyn Store>, embedder: Arc<dyn Embedder>) -> Self {
        let upstream = Upstream::start(|call| {
            let asked = call.json()["messages"][0]["content"].as_str().expect("a question").to_owned();
            Reply::saying(&right_answer(&asked), call)
        })
        .await;
        let mut registry = Registry::default();
        let parts = Parts { store, embedder: Some(embedder), clock: Arc::new(SystemClock::start()) };
        let cache = Arc::new(Cache::new(parts, CacheSettings::default(), &mut registry));
        let base = upstream.base().parse().expect("a URL");
        let settings = UpstreamSettings::new(base, upstream.origin().parse().expect("a URL"));
        let providers = Providers::new(settings, &[].into(), &mut registry).expect("TLS");
        let layer = LayerSettings { upstream: providers.resolver(), patience: PATIENCE, ..LayerSettings::default() };
        let tasks = TaskTracker::new();
        let nowhere = std::env::temp_dir().join("nearhit-has-no-keys-here");
        let savings = Savings::new(SavingsRules::default(), layer.reading(), Arc::clone(&layer.bodies), &mut registry);
        let live = LiveSettings { layer, upstream: providers, savings, judge: None, api_patience: PATIENCE };
        let app = App {
            live: RwLock::new(Arc::new(Live::new(Arc::clone(&cache), tasks.clone(), live))),
            cache: Arc::clone(&cache),
            registry,
            reloads: Reloads::new().0,
            tenancy: Tenancy::Single,
            keys: Keys::open(Vec::new(), KeyFile::new(nowhere), false),
            traffic: Traffic::new(Default::default()),
            secret: Secret::random().expect("random bytes"),
            embedder: "a double".into(),
            engine: "none".into(),
            degraded: [].into(),
            tasks: tasks.clone(),
            idempotency: IdempotencyKeys::default(),
        };
        let (say, started) = oneshot::channel();
        tokio::spawn(async move {
            let started = |data: SocketAddr, _| say.send(data).expect("somebody waits");
            let settings = ServeSettings {
                listen: "127.0.0.1:0".parse().expect("an address"),
                admin_listen: "127.0.0.1:0".parse().expect("an address"),
                insecure: false,
                strict: false,
                body_bytes_max: 1 << 20,
                bodies_bytes_max: 16 << 20,
                body_patience: Duration::from_secs(30),
                connections_max: 100,
                idle: Duration::from_secs(60),
                drain: Duration::from_secs(1),
            };
            serve(Arc::new(app), &settings, started, std::future::pending()).await.expect("it serves");
        });
        let url = format!("http://{}", started.await.expect("it serves"));
        Self { client: Client::new(&url, "sk-test"), cache, upstream, url, tasks }
    }

    /// Asks each question through the proxy, some at a time. Every call must succeed, and be answered rightly.
    async fn ask(&self, questions: &[String]) -> Said {
        let answers = iter(questions).map(|question| async move {
            let body = json!({"model": "m", "messages": [{"role": "user", "content": question}]});
            let answer = self.client.chat(&body).await.check(200);
            let said = &answer.json()["choices"][0]["message"]["content"];
            assert_eq!(*said, json!(right_answer(question)), "{question}");
            let (outcome, why) = answer.outcome();
            format!("{outcome} {why}")
        });
        let mut said = Said::new();
        for what in answers.buffer_unordered(8).collect::<Vec<_>>().await {
            *said.entry(what).or_default() += 1;
        }
        said
    }

    /// The cache API under the same faults, over HTTP and gRPC: a hit that is right, a miss with a reason, or an error that
    /// says what is wrong. How often which.
    async fn use_api(&self, questions: &[String]) -> Said {
        let mut said = Said::new();
        for question in questions {
            let insert = json!({"prompt": question, "response": right_answer(question)});
            let answer = self.client.post("/v1/caches/default/entries", &insert).await;
            let inserted = match answer.status.as_u16() {
                201 => "inserted".to_owned(),
                status @ (503 | 507) => {
                    format!("{status} {}", answer.json()["error"]["code"].as_str().expect("a code"))
                }
                other => panic!("{other}: {}", answer.text()),
            };
            *said.entry(inserted).or_default() += 1;
            let search = json!({"prompt": format!("Please, {question}"), "similarityThreshold": 0.999});
            for body in [json!({"prompt": question}), search] {
                let answer = self.client.search(&body).await;
                let what = match answer["outcome"].as_str().expect("an outcome") {
                    "hit" => {
                        assert_eq!(answer["data"][0]["response"], right_answer(question));
                        "found".to_owned()
                    }
                    "miss" => format!("miss {}", answer["reason"].as_str().expect("a reason")),
                    other => panic!("{other}: {answer}"),
                };
                *said.entry(what).or_default() += 1;
            }
            #[cfg(feature = "grpc")]
            {
                let what = grpc::search(&self.url, question).await;
                *said.entry(format!("grpc {what}")).or_default() += 1;
            }
        }
        said
    }

    /// Once nothing fails any more: everything that was kept is right, and what is asked again is answered rightly.
    async fn check_kept(&self, questions: &[String]) -> usize {
        let idle = async || self.tasks.is_empty().then_some(());
        until("whatever was to be stored is stored, or was given up", idle).await;
        let kept = self.kept().await;
        for entry in &kept {
            assert!(entry.answer.body.contains(&right_answer(&entry.text)), "{}: {}", entry.text, entry.answer.body);
            let vector = entry.place.as_ref().map(|(_, vector)| vector.dimensions());
            assert!(vector.is_none_or(|length| length == broken::DIMENSIONS), "{vector:?}");
        }
        let calls = self.upstream.count();
        let said = self.ask(questions).await;
        let hits: usize = said.iter().filter(|(what, _)| what.starts_with("hit ")).map(|(_, count)| count).sum();
        assert_eq!(self.upstream.count() - calls, questions.len() - hits, "{said:?}");
        kept.len()
    }

    async fn kept(&self) -> Vec<Arc<Entry>> {
        let owner = Owner { tenant: Tenant::new("single"), cache: CacheName::default() };
        let page = self.cache.page(&owner, None, 10_000).await.expect("a store that works");
        page.0.into_iter().map(|found| found.entry).collect()
    }
}

/// What a part says in this text is right only for it.
fn right_answer(question: &str) -> String {
    format!("The answer to {question} is {}.", blake3::hash(question.as_bytes()).to_hex())
}

fn questions(kind: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("What of {kind} {number}?")).collect()
}

/// One line of the table.
fn report(part: &str, kind: &str, percent: u32, proxied: &Said, api: &Said, kept: usize) {
    println!("{part} {kind} {percent} %: proxied {}; api {}; kept {kept}, all right", listed(proxied), listed(api));
}

fn listed(said: &Said) -> String {
    said.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
}

fn count(said: &Said, what: &str) -> usize {
    said.iter().filter(|(key, _)| key.ends_with(what)).map(|(_, count)| count).sum()
}

/// Shares of calls that fail, in percent.
const RATES: [u32; 3] = [10, 50, 100];

/// Of a lookup for its embedding.
const PATIENCE: Duration = Duration::from_millis(50);

/// What hangs is given up as quickly as that.
const SHORT: Patience =
    Patience { read: Duration::from_millis(50), write: Duration::from_millis(50), embed: Duration::from_millis(50) };

#[cfg(feature = "grpc")]
mod grpc {
    //! One search over gRPC, in bytes.

    use axum::body::Body;
    use http::{Method, Request};
    use http_body_util::BodyExt;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    /// The outcome, and the reason where there is one.
    pub(super) async fn search(url: &str, prompt: &str) -> String {
        let field = |number: u8, text: &str| [&[number << 3 | 2, text.len() as u8], text.as_bytes()].concat();
        let message = field(2, prompt);
        let framed = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
        let client: Client<_, Body> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{url}/nearhit.v1.CacheService/Search"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", "Bearer sk-test")
            .body(Body::from(framed))
            .expect("a request");
        let (parts, body) = client.request(request).await.expect("an answer").into_parts();
        let collected = body.collect().await.expect("a whole answer");
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let status = trailers.get("grpc-status").or(parts.headers.get("grpc-status")).expect("a status");
        assert_eq!(status, "0", "{parts:?} {trailers:?}");
        let bytes = collected.to_bytes();
        let mut words = Vec::new();
        // Outcome and reason are the fields 1 and 3, and short.
        let mut rest = &bytes[5..];
        while let [tag @ (0x0a | 0x12 | 0x1a), length, more @ ..] = rest {
            let (text, after) = more.split_at(usize::from(*length));
            if *tag != 0x12 {
                words.push(String::from_utf8_lossy(text).into_owned());
            }
            rest = after;
        }
        words.join(" ")
    }
}
