//! Is there an answer already?

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use futures_util::stream::{StreamExt, iter};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::super::App;
use super::super::error::ApiError;
use super::fields::{Asked, CallersCache, JsonBody, batch, read_vector, typed};
use crate::cache::{Lookup, Match, Nearest, Query, Tiers};
use crate::decision::{Answer, AnswerKind, Attributes, Outcome, Probability, Reason, Similarity, Terms, Tier, Vars};
use crate::store::Owner;
use crate::wire::answer::stored_object;
use crate::wire::controls::{UNIT_PROBLEM, threshold};
use crate::wire::problem::Problem;

/// A question to the cache.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct SearchBody {
    /// The text to find an answer for; or `request`.
    #[schema(example = "How do I reset my password?")]
    pub(in super::super) prompt: Option<String>,
    /// System prompt and earlier turns as one string; must be equal.
    pub(in super::super) context: Option<String>,
    /// A whole provider request instead of `prompt` and `context`.
    #[schema(value_type = Option<Object>)]
    pub(in super::super) request: Option<Value>,
    /// With `request`: the path that it would be sent to, `/v1/chat/completions` by default.
    pub(in super::super) path: Option<String>,
    /// With `request`: headers that its answer depends on.
    #[serde(default)]
    pub(in super::super) headers: Attributes,
    /// Must be equal.
    #[serde(default)]
    pub(in super::super) attributes: Attributes,
    /// Template variables.
    #[serde(default)]
    pub(in super::super) vars: Vars,
    /// Any of `exact`, `template`, `semantic`; all by default.
    #[schema(value_type = Option<Vec<String>>)]
    pub(in super::super) search_strategies: Option<Vec<Strategy>>,
    /// Least cosine similarity, 0 to 1; may only tighten what the operator set.
    pub(in super::super) similarity_threshold: Option<f64>,
    /// Most 1 - probability of this one hit, 0 to 1.
    pub(in super::super) max_error_rate: Option<f64>,
    /// Most matches, 1 to 100.
    pub(in super::super) limit: Option<i64>,
    /// The prompt's unit vector, where the server is configured for callers' vectors.
    pub(in super::super) vector: Option<Vec<Option<f64>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum Strategy {
    Exact,
    Template,
    Semantic,
}

/// What the cache has to say.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct SearchAnswer {
    #[schema(value_type = String, example = "hit")]
    pub(in super::super) outcome: Outcome,
    #[schema(value_type = Option<String>, example = "semantic")]
    pub(in super::super) tier: Option<Tier>,
    /// Why there is no match.
    #[schema(value_type = Option<String>)]
    pub(in super::super) reason: Option<Reason>,
    /// Matches, best first.
    pub(in super::super) data: Vec<MatchField>,
    /// The candidate that came nearest, and what was against it.
    pub(in super::super) nearest: Option<NearestField>,
}

/// A stored entry that answers the prompt.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct MatchField {
    pub(in super::super) id: String,
    pub(in super::super) prompt: String,
    /// A string, or the provider's object as it was stored.
    #[schema(value_type = Object)]
    pub(in super::super) response: Value,
    pub(in super::super) attributes: Attributes,
    /// Cosine similarity, -1 to 1.
    pub(in super::super) similarity: f32,
    /// Of the turns before, where they are matched by meaning and are not equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) context_similarity: Option<f32>,
    /// Chance that the reuse is right, where it is known.
    pub(in super::super) probability: Option<f64>,
    #[schema(value_type = String)]
    pub(in super::super) search_strategy: Tier,
    pub(in super::super) age_ms: u64,
    pub(in super::super) expires_in_ms: u64,
}

/// A refused candidate.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct NearestField {
    pub(in super::super) id: String,
    pub(in super::super) similarity: f32,
    #[schema(value_type = String)]
    pub(in super::super) reason: Reason,
}

/// Searches a cache. A miss is no error: `data` is empty then, and `reason` says why.
#[utoipa::path(
    post, path = "/v1/caches/{cache}/entries/search", params(("cache" = String, Path)), request_body = SearchBody,
    responses((status = 200, description = "A hit or a miss", body = SearchAnswer), (status = 400, description = "A field is wrong"))
)]
pub(in super::super) async fn search(
    State(app): State<Arc<App>>,
    CallersCache(owner): CallersCache,
    JsonBody(body, _share): JsonBody,
) -> Result<Json<SearchAnswer>, ApiError> {
    Ok(Json(answer(&app, &owner, typed(body)?).await?))
}

/// Up to 1,000 searches, an outcome or an error for each.
#[utoipa::path(
    post, path = "/v1/caches/{cache}/entries/search/batch", params(("cache" = String, Path)), request_body = Object,
    responses((status = 200, description = "An outcome or an error per item"), (status = 413, description = "Too many items"))
)]
pub(in super::super) async fn search_batch(
    State(app): State<Arc<App>>,
    CallersCache(owner): CallersCache,
    JsonBody(body, _share): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let items = batch(body, "searches")?;
    let results: Vec<Value> = iter(items)
        .map(|item| async {
            let answer = match typed(item) {
                Ok(body) => answer(&app, &owner, body).await,
                Err(problem) => Err(problem),
            };
            answer.map_or_else(|problem| problem.to_json(), |answer| serde_json::json!(answer))
        })
        .buffered(IN_FLIGHT)
        .collect()
        .await;
    Ok(Json(serde_json::json!({ "results": results })))
}

/// Searches.
///
/// # Errors
/// A field is wrong.
pub(in super::super) async fn answer(app: &App, owner: &Owner, body: SearchBody) -> Result<SearchAnswer, Problem> {
    let SearchBody { prompt, context, request, path, headers, attributes, vars, .. } = body;
    let asked = Asked { prompt, context, request, path, headers, attributes, vars };
    let unit = |field: &str, value: f64| Problem::invalid(field, format!("{field}: {UNIT_PROBLEM}, got {value}"));
    let terms = Terms {
        threshold: body
            .similarity_threshold
            .map(|t| threshold(Some(t)).ok_or_else(|| unit("similarityThreshold", t)))
            .transpose()?,
        error_max: body
            .max_error_rate
            .map(|e| Probability::new(e).ok_or_else(|| unit("maxErrorRate", e)))
            .transpose()?,
        age_max_ms: None,
    };
    let limit = body.limit.unwrap_or(1);
    let limit = usize::try_from(limit).ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    let limit = limit.ok_or_else(|| {
        Problem::invalid("limit", format!("limit: must be from 1 to {LIMIT_MAX}, got {}", body.limit.unwrap_or(1)))
    })?;
    let vector = read_vector(app, body.vector.as_ref())?;
    let prompt = match asked.read(app, owner)? {
        Ok((prompt, _)) => prompt,
        Err(reason) => {
            app.cache.metrics().bypass(reason);
            return Ok(SearchAnswer {
                outcome: Outcome::Bypass,
                tier: None,
                reason: Some(reason),
                data: Vec::new(),
                nearest: None,
            });
        }
    };
    let tiers = body.search_strategies.map_or(Tiers::ALL, |wanted| Tiers {
        exact: wanted.contains(&Strategy::Exact),
        template: wanted.contains(&Strategy::Template),
        semantic: wanted.contains(&Strategy::Semantic),
    });
    if tiers == (Tiers { exact: false, template: false, semantic: false }) {
        return Err(Problem::invalid(
            "searchStrategies",
            "searchStrategies: must name exact, template or semantic, got []",
        ));
    }
    let query = Query {
        prompt,
        terms,
        tiers,
        limit,
        patience: Some(app.live().settings().api_patience),
        vector,
        is_comparable: false,
        company: None,
    };
    Ok(match app.cache.lookup(&query).await {
        Lookup::Hit(matches) => SearchAnswer {
            outcome: Outcome::Hit,
            tier: matches.first().map(|first| first.tier),
            reason: None,
            data: matches.iter().map(MatchField::from).collect(),
            nearest: None,
        },
        Lookup::Miss(miss) => SearchAnswer {
            outcome: miss.outcome(),
            tier: miss.shadow.as_ref().map(|found| found.tier),
            reason: Some(miss.reason),
            data: Vec::new(),
            nearest: miss.nearest.map(NearestField::from),
        },
    })
}

impl From<&Match> for MatchField {
    fn from(found: &Match) -> Self {
        Self {
            id: found.entry.id.to_string(),
            prompt: found.entry.text.clone(),
            response: response(&found.entry.answer),
            attributes: found.entry.attributes.clone(),
            similarity: found.similarity.get(),
            context_similarity: found.context.map(Similarity::get),
            probability: found.probability.map(Probability::get),
            search_strategy: found.tier,
            age_ms: found.age_ms,
            expires_in_ms: found.expires_in_ms,
        }
    }
}

impl From<Nearest> for NearestField {
    fn from(nearest: Nearest) -> Self {
        Self { id: nearest.id.to_string(), similarity: nearest.similarity.get(), reason: nearest.reason }
    }
}

/// The answer as it was given: a string, or the provider's object.
pub(super) fn response(answer: &Answer) -> Value {
    match answer.kind {
        AnswerKind::Text => Value::String(answer.body.clone()),
        _ => stored_object(answer).map_or_else(|| Value::String(answer.body.clone()), Value::Object),
    }
}

/// Counts by word.
pub(super) fn counts<W: Copy>(counts: &[(W, u64)], word: impl Fn(W) -> &'static str) -> BTreeMap<&'static str, u64> {
    counts.iter().map(|(w, count)| (word(*w), *count)).collect()
}

/// Most matches that one search returns.
const LIMIT_MAX: usize = 100;

/// Searches of a batch that run at a time; fewer than the embedder's queue holds.
pub(in super::super) const IN_FLIGHT: usize = 16;
