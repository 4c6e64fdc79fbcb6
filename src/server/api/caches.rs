//! The caller's caches as wholes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::App;
use super::super::auth::Caller;
use super::super::error::ApiError;
use super::super::health::StoreHealth;
use super::fields::{CallersCache, JsonBody, typed};
use super::search::counts;
use crate::decision::{Reason, Tier};
use crate::store::{Filter, Which};
use crate::wire::problem::Problem;

/// The caller's caches.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct CachesAnswer {
    data: Vec<CacheField>,
}

/// What a cache holds.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct CacheField {
    name: String,
    entries: u64,
    /// Prompts, answers and vectors, uncompressed.
    bytes: u64,
}

/// What a cache holds, and what it did since the server started.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct StatsAnswer {
    cache: String,
    entries: u64,
    bytes: u64,
    inserts: u64,
    /// By tier.
    #[schema(value_type = BTreeMap<String, u64>)]
    hits: BTreeMap<&'static str, u64>,
    /// By reason.
    #[schema(value_type = BTreeMap<String, u64>)]
    misses: BTreeMap<&'static str, u64>,
    tokens_saved: TokensField,
    /// Of the whole store, not only of this cache.
    store: StoreHealth,
    /// Wrong hits / requests; null as long as nothing measures it.
    estimated_error: Option<f64>,
    /// Its upper confidence bound.
    estimated_error_upper: Option<f64>,
    /// In the currency of the operator's prices; null without prices.
    money_saved: Option<f64>,
}

/// Provider tokens of the answers that hits served.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct TokensField {
    input: u64,
    output: u64,
}

/// A flush, confirmed by the name of what is flushed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct FlushBody {
    confirm: String,
}

/// The caches that hold anything.
#[utoipa::path(get, path = "/v1/caches", responses((status = 200, description = "By name", body = CachesAnswer)))]
pub(in super::super) async fn list(State(app): State<Arc<App>>, Caller(tenant): Caller) -> Json<CachesAnswer> {
    let caches = app.cache.caches(&tenant).into_iter();
    let data =
        caches.map(|(name, usage)| CacheField { name: name.to_string(), entries: usage.entries, bytes: usage.bytes });
    Json(CachesAnswer { data: data.collect() })
}

/// What a cache holds, and what it did.
#[utoipa::path(
    get, path = "/v1/caches/{cache}/stats", params(("cache" = String, Path)),
    responses((status = 200, description = "Counts", body = StatsAnswer))
)]
pub(in super::super) async fn stats(
    State(app): State<Arc<App>>,
    CallersCache(owner): CallersCache,
) -> Json<StatsAnswer> {
    let (usage, did) = app.cache.stats(&owner);
    Json(StatsAnswer {
        cache: owner.cache.to_string(),
        entries: usage.entries,
        bytes: usage.bytes,
        inserts: did.inserts,
        hits: counts(&did.hits, Tier::as_str),
        misses: counts(&did.misses, Reason::as_str),
        tokens_saved: TokensField { input: did.saved.input, output: did.saved.output },
        store: app.cache.health().into(),
        estimated_error: None,
        estimated_error_upper: None,
        money_saved: None,
    })
}

/// Removes every entry of a cache.
#[utoipa::path(
    post, path = "/v1/caches/{cache}/flush", params(("cache" = String, Path)), request_body = FlushBody,
    responses((status = 204, description = "Empty now"), (status = 400, description = "Not confirmed"))
)]
pub(in super::super) async fn flush(
    State(app): State<Arc<App>>,
    CallersCache(owner): CallersCache,
    JsonBody(body): JsonBody,
) -> Result<StatusCode, ApiError> {
    let body: FlushBody = typed(body)?;
    if body.confirm != owner.cache.as_str() {
        let message = format!("confirm: must be the cache's name, {:?}, got {:?}", owner.cache.as_str(), body.confirm);
        return Err(Problem::invalid("confirm", message).into());
    }
    app.cache.remove(&Filter { owner, which: Which::All, dry_run: false }).await?;
    Ok(StatusCode::NO_CONTENT)
}
