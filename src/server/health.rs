//! Is the process there, and does it serve all that it could?

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use crate::store::Health;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz))
}

/// The process answers.
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "The process answers", body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// What `/readyz` says.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Readiness {
    /// `ready`: every recoverable entry is served. `repairing`: not yet.
    #[schema(example = "ready")]
    state: &'static str,
    /// Parts that do not work: `embedder` (only exact matches are served), `store` (nothing new outlives
    /// the process), `tenants` (their secret was lost: callers with a provider's key begin anew), `keys` (nearhit's own
    /// are lost and calls with them are refused, or those read last go on), `upstream` (one fails).
    degraded: Vec<&'static str>,
    /// The model that turns text into vectors.
    embedder: String,
    /// What computes it, and in which precision.
    #[schema(example = "candle-fused f32 avx512")]
    engine: String,
    /// What is wrong with keys of nearhit's own, where something is.
    keys: Option<&'static str>,
    /// Upstreams that failed again and again: they are asked after their fallbacks for a while.
    failing_upstreams: Vec<String>,
    store: StoreHealth,
}

/// What befell the store, since the start unless it says otherwise.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::server) struct StoreHealth {
    /// Everything is being copied into fresh files.
    pub(in crate::server) rewriting: bool,
    /// Why nothing new is kept, where that is so.
    pub(in crate::server) failing: Option<String>,
    /// The disk has no room for more entries.
    pub(in crate::server) full: bool,
    /// Acknowledged entries that no copy has any more, over all starts.
    pub(in crate::server) lost: u64,
    /// Entries that one copy had lost and the other gave back.
    pub(in crate::server) restored: u64,
    /// Entries that only their exact key finds, because their vector is lost.
    pub(in crate::server) lost_vectors: u64,
    pub(in crate::server) restored_vectors: u64,
    /// Rows, records and vectors that were not what was written.
    pub(in crate::server) damaged: u64,
    /// Parts of the index that had to be built again.
    pub(in crate::server) damaged_segments: u64,
    /// Vectors that wait for a graph: every search of their cache looks through them.
    pub(in crate::server) unindexed: u64,
    /// Damaged folders kept beside the data.
    pub(in crate::server) set_aside: u64,
    pub(in crate::server) expired: u64,
    pub(in crate::server) evicted: u64,
}

impl From<Health> for StoreHealth {
    fn from(health: Health) -> Self {
        let Health {
            loading: _, // the state says it
            rewriting,
            failing,
            full,
            lost,
            restored,
            lost_vectors,
            restored_vectors,
            damaged,
            damaged_segments,
            unindexed,
            set_aside,
            expired,
            evicted,
        } = health;
        Self {
            rewriting,
            failing,
            full,
            lost,
            restored,
            lost_vectors,
            restored_vectors,
            damaged,
            damaged_segments,
            unindexed,
            set_aside,
            expired,
            evicted,
        }
    }
}

/// Every recoverable entry is served.
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, description = "Every recoverable entry is served", body = Readiness),
    (status = 503, description = "The store is still reading in or repairing; exact matches are served", body = Readiness),
))]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let health = app.cache.health();
    let mut degraded = app.degraded.clone();
    if health.failing.is_some() || health.full {
        degraded.insert("store");
    }
    let keys = app.keys.in_force().problem();
    if keys.is_some() {
        degraded.insert("keys");
    }
    let live = app.live();
    if live.settings().judge.is_some() {
        // It may have been put right since the start.
        degraded.remove("judge");
    }
    let failing_upstreams: Vec<String> = live.settings().upstream.failing().into_iter().map(str::to_owned).collect();
    if !failing_upstreams.is_empty() {
        degraded.insert("upstream");
    }
    let (status, state) = match health.loading {
        true => (StatusCode::SERVICE_UNAVAILABLE, "repairing"),
        false => (StatusCode::OK, "ready"),
    };
    let degraded = degraded.into_iter().collect();
    let (embedder, engine) = (app.embedder.clone(), app.engine.clone());
    let readiness = Readiness { state, degraded, embedder, engine, keys, failing_upstreams, store: health.into() };
    (status, Json(readiness)).into_response()
}
