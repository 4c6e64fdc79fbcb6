//! A semantic cache for LLM calls: a question that was answered before, in these words or in others, is answered from
//! the cache.
//!
//! ```text
//! request ─ wire ─> Prompt ─ Fingerprint ─> exact key known? ────────────────────────> hit
//!                      └─ Embedder ─> Embedding ─ Store::nearest ─> Policy::judge ─┬──> hit
//!                                                                                  └──> miss: ask the provider,
//!                                                                                       admit and store the answer
//! ```
//!
//! Only the last user text is matched by meaning. Everything else that an answer depends on (model, system prompt,
//! earlier turns, tools, parameters, tenant) is a [`Scope`](decision::Scope) and must be equal.
//!
//! [`Cache`](cache::Cache) is the whole path of one request; [`CacheLayer`](layer::CacheLayer) is the same as a tower
//! layer over `http::Request`, for gateways (`examples/gateway.rs`); the `nearhit` program is that layer around an HTTP
//! client, with an API beside it. Trouble with a part is a miss with a [`Reason`](decision::Reason), never an error.
//!
//! ```
//! use std::sync::Arc;
//!
//! use nearhit::cache::{Cache, CacheSettings, Lookup, NewEntry, Parts, Query};
//! use nearhit::decision::{Answer, AnswerKind, CacheName, Origin, Prompt, Scope, Tenant, Tier, Vars};
//! use nearhit::{clock::SystemClock, metrics::Registry, store::StoreError, store::memory::MemoryStore};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), StoreError> {
//!     // Without an embedder only exact repeats are found.
//!     let parts = Parts { store: Arc::new(MemoryStore::default()), embedder: None, clock: Arc::new(SystemClock::start()) };
//!     let cache = Cache::new(parts, CacheSettings::default(), &mut Registry::default());
//!     let scope = Scope::bare(Tenant::new("me"), CacheName::default());
//!     let prompt = Prompt::new(scope, "How do I reset my password?", Vars::new());
//!     cache.insert(NewEntry {
//!         prompt: prompt.clone(),
//!         origin: Origin::Prompt { context: None },
//!         answer: Answer { kind: AnswerKind::Text, body: "In the settings.".into(), usage: None },
//!         tags: [].into(), sources: [].into(), writer: "me".into(), created_ms: None, ttl: None, vector: None,
//!     }).await?;
//!     let Lookup::Hit(matches) = cache.lookup(&Query::new(prompt)).await else { panic!("a miss") };
//!     assert_eq!((matches[0].tier, matches[0].entry.answer.body.as_str()), (Tier::Exact, "In the settings."));
//!     Ok(())
//! }
//! ```
//!
//! | feature | adds | default |
//! |---|---|---|
//! | (none) | [`decision`], [`cache`], [`layer`], [`savings`], the memory store: what a gateway mounts | |
//! | `server` | the program: HTTP edges, provider client, configuration, command line; implies `local` | yes |
//! | `grpc` | the cache API over gRPC, with health and reflection, on the port of HTTP; implies `server` | yes |
//! | `local` | the durable store: sled and hnsw_rs | yes |
//! | `candle` | the local embedder | yes |
//! | `bundled-model` | all-MiniLM-L6-v2 inside the binary (45 MB); implies `candle` | yes |
//! | `light` | `server`, `local` and `grpc`: everything but the embedder | |
//! | `cuda`, `metal` | candle on that hardware | |

// A failure is an error value. What cannot fail says why, in an `expect` under #[expect(.., reason = "..")].
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unimplemented, clippy::unreachable)]

// In reading order: the rules, the path of one request, the seams and what stands behind them, the edges.
pub mod decision;

pub mod cache;
pub mod clock;
pub mod contain;
pub mod metrics;
mod renew;
pub mod route;
pub mod rules;
mod tally;
pub mod templates;
mod walk;

pub mod embed;
pub mod judge;
pub mod store;
#[cfg(feature = "server")]
pub mod upstream;

pub mod body;
mod compare;
mod flight;
pub mod layer;
mod record;
pub mod replay;
pub mod room;
pub mod savings;
mod stamp;
pub mod wire;

#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod server;
