//! The caller's caches as wholes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::App;
use super::super::auth::Caller;
use super::super::error::ApiError;
use super::super::health::StoreHealth;
use super::fields::{CallersCache, JsonBody, typed};
use super::search::counts;
use crate::decision::budget::Budget;
use crate::decision::budget::tune::Recommendation;
use crate::decision::{Reason, Tier};
use crate::store::{Filter, Owner, Which};
use crate::wire::controls::UNIT_PROBLEM;
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
    pub(in super::super) cache: String,
    pub(in super::super) entries: u64,
    pub(in super::super) bytes: u64,
    pub(in super::super) inserts: u64,
    /// By tier.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub(in super::super) hits: BTreeMap<&'static str, u64>,
    /// By reason.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub(in super::super) misses: BTreeMap<&'static str, u64>,
    pub(in super::super) tokens_saved: TokensField,
    /// Of the whole store, not only of this cache.
    pub(in super::super) store: StoreHealth,
    /// Wrong hits / requests, of the requests that no exact match answered; null before anything was decided.
    pub(in super::super) estimated_error: Option<f64>,
    /// Its upper confidence bound (95 %).
    pub(in super::super) estimated_error_upper: Option<f64>,
    pub(in super::super) budget: BudgetField,
    /// In the currency of the operator's prices; null without prices.
    pub(in super::super) money_saved: Option<f64>,
}

/// The error budget, and how it is kept.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct BudgetField {
    /// Most wrong hits / requests.
    pub(in super::super) max_error: f64,
    /// Most wrong hits / hits.
    pub(in super::super) max_error_per_hit: f64,
    /// Only candidates with a score above this are served by meaning; 1 if none is.
    pub(in super::super) bound: Option<f64>,
    /// Wrong hits / hits, estimated, and its upper confidence bound (95 %).
    pub(in super::super) estimated_error_per_hit: Option<f64>,
    pub(in super::super) estimated_error_per_hit_upper: Option<f64>,
    /// Labels that the estimate rests on; 0: on the shipped calibration alone.
    pub(in super::super) samples: f64,
    pub(in super::super) is_over_budget: bool,
    /// Times that answers were worse than expected for long.
    pub(in super::super) alarms: u32,
    /// Fresh answers that were compared with what the cache had: the same, another, and not known.
    pub(in super::super) right: u64,
    pub(in super::super) wrong: u64,
    pub(in super::super) unknown: u64,
    /// Entries whose answers are barred for errors.
    pub(in super::super) quarantined: usize,
    /// Decide and compare, but never serve.
    pub(in super::super) shadow: bool,
}

/// The bound that would have kept a budget.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct TuneAnswer {
    max_error: f64,
    max_error_per_hit: f64,
    /// Fresh answers that were compared with what the cache had.
    samples: usize,
    /// Serve what scores above this; 1: nothing keeps the budget.
    bound: f64,
    /// The bound lies between these with a confidence of 90 %.
    bound_low: f64,
    bound_high: f64,
    /// What the bound would have done: hits / requests, wrong hits / requests with its upper bound, wrong hits / hits.
    hit_rate: f64,
    error: f64,
    error_upper: f64,
    error_per_hit: f64,
}

/// A budget to look for a bound for; the cache's own where it is not given.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct TuneQuery {
    max_error: Option<f64>,
    max_error_per_hit: Option<f64>,
}

/// Provider tokens of the answers that hits served.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct TokensField {
    pub(in super::super) input: u64,
    pub(in super::super) output: u64,
}

/// A flush, confirmed by the name of what is flushed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct FlushBody {
    pub(in super::super) confirm: String,
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
    Json(count(&app, &owner).await)
}

/// What a cache holds, and what it did.
pub(in super::super) async fn count(app: &App, owner: &Owner) -> StatsAnswer {
    let (usage, did) = app.cache.stats(owner);
    let (learnt, policy) = (app.cache.learnt(owner).await, app.cache.policy(&owner.cache));
    let report = learnt.as_ref().map(|learnt| learnt.report);
    let compared = learnt.as_ref().map(|learnt| learnt.compared).unwrap_or_default();
    StatsAnswer {
        cache: owner.cache.to_string(),
        entries: usage.entries,
        bytes: usage.bytes,
        inserts: did.inserts,
        hits: counts(&did.hits, Tier::as_str),
        misses: counts(&did.misses, Reason::as_str),
        tokens_saved: TokensField { input: did.saved.input, output: did.saved.output },
        store: app.cache.health().into(),
        estimated_error: report.map(|report| report.error),
        estimated_error_upper: report.map(|report| report.error_upper),
        budget: BudgetField {
            max_error: policy.budget.max_error,
            max_error_per_hit: policy.budget.max_error_per_hit,
            bound: report.map(|report| report.bound),
            estimated_error_per_hit: report.map(|report| report.error_per_hit),
            estimated_error_per_hit_upper: report.map(|report| report.error_per_hit_upper),
            samples: report.map_or(0.0, |report| report.samples),
            is_over_budget: report.is_some_and(|report| report.is_over_budget),
            alarms: report.map_or(0, |report| report.alarms),
            right: compared.right,
            wrong: compared.wrong,
            unknown: compared.unknown,
            quarantined: learnt.as_ref().map_or(0, |learnt| learnt.quarantined),
            shadow: policy.shadow,
        },
        money_saved: None,
    }
}

/// Recommends a bound for a budget, from the fresh answers that were compared with what the cache had: most of all in
/// shadow mode, where every candidate is.
#[utoipa::path(
    get, path = "/v1/caches/{cache}/tune", params(("cache" = String, Path), TuneQuery),
    responses((status = 200, description = "A recommendation", body = TuneAnswer), (status = 400, description = "A value is wrong"))
)]
pub(in super::super) async fn tune(
    State(app): State<Arc<App>>,
    CallersCache(owner): CallersCache,
    query: Result<Query<TuneQuery>, QueryRejection>,
) -> Result<Json<TuneAnswer>, ApiError> {
    let Query(query) = query.map_err(|error| Problem::invalid("query", error.body_text()))?;
    let own = app.cache.policy(&owner.cache).budget;
    let share = |field: &str, asked: Option<f64>, own: f64| match asked {
        Some(share) if !(0.0..=1.0).contains(&share) => {
            Err(Problem::invalid(field, format!("{field}: {UNIT_PROBLEM}, got {share}")))
        }
        asked => Ok(asked.unwrap_or(own)),
    };
    let budget = Budget {
        max_error: share("maxError", query.max_error, own.max_error)?,
        max_error_per_hit: share("maxErrorPerHit", query.max_error_per_hit, own.max_error_per_hit)?,
    };
    let Recommendation { bound, bound_low, bound_high, hit_rate, error, error_upper, error_per_hit, samples } =
        app.cache.recommend(&owner, budget);
    let Budget { max_error, max_error_per_hit } = budget;
    Ok(Json(TuneAnswer {
        max_error,
        max_error_per_hit,
        samples,
        bound,
        bound_low,
        bound_high,
        hit_rate,
        error,
        error_upper,
        error_per_hit,
    }))
}

/// Removes every entry of a cache.
#[utoipa::path(
    post, path = "/v1/caches/{cache}/flush", params(("cache" = String, Path)), request_body = FlushBody,
    responses((status = 204, description = "Empty now"), (status = 400, description = "Not confirmed"))
)]
pub(in super::super) async fn flush(
    State(app): State<Arc<App>>,
    CallersCache(owner): CallersCache,
    JsonBody(body, _share): JsonBody,
) -> Result<StatusCode, ApiError> {
    empty(&app, owner, typed(body)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes every entry of a cache.
///
/// # Errors
/// It is not confirmed, or the store could not be changed.
pub(in super::super) async fn empty(app: &App, owner: Owner, body: FlushBody) -> Result<(), ApiError> {
    let FlushBody { confirm } = body;
    if confirm != owner.cache.as_str() {
        let message = format!("confirm: must be the cache's name, {:?}, got {confirm:?}", owner.cache.as_str());
        return Err(Problem::invalid("confirm", message).into());
    }
    app.cache.remove(&Filter { owner, which: Which::All, dry_run: false }).await?;
    Ok(())
}
