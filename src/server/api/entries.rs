//! Entries one by one, by page, and removing them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::super::App;
use super::super::error::ApiError;
use super::fields::{CallersCache, JsonBody, typed};
use super::search::{MatchField, response};
use crate::cache::Match;
use crate::decision::{Attributes, EntryId, Origin};
use crate::store::{Filter, Owner, WantedSource, Which};
use crate::wire::problem::Problem;

/// Which entries to remove: exactly one of the fields, and it must not be empty.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct DeleteBody {
    /// All of these equal.
    attributes: Option<Attributes>,
    /// Any of these.
    tags: Option<BTreeSet<String>>,
    /// Any of these.
    sources: Option<BTreeSet<WantedSourceField>>,
    writer: Option<String>,
    /// Made at least this long ago.
    older_than_ms: Option<u64>,
    /// Counts without removing.
    #[serde(default)]
    dry_run: bool,
}

/// Whether an answer was right.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct FeedbackBody {
    pub(in super::super) correct: bool,
    /// The question that it answered; if not given, the last that the entry was served for by meaning, else its own.
    pub(in super::super) prompt: Option<String>,
}

/// A document in one version, or in any.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct WantedSourceField {
    id: String,
    /// Every version if absent.
    version: Option<String>,
}

impl From<WantedSourceField> for WantedSource {
    fn from(WantedSourceField { id, version }: WantedSourceField) -> Self {
        Self { id, version }
    }
}

/// How many were found, and removed.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct DeleteAnswer {
    matched: u64,
    deleted: u64,
}

/// One entry.
#[utoipa::path(
    get, path = "/v1/caches/{cache}/entries/{id}", params(("cache" = String, Path), ("id" = String, Path)),
    responses((status = 200, description = "The entry", body = MatchField), (status = 404, description = "No such entry of the caller's"))
)]
pub(in super::super) async fn get(
    State(app): State<Arc<App>>,
    CallersCache(owner): CallersCache,
    Path(path): Path<BTreeMap<String, String>>,
) -> Result<Json<MatchField>, ApiError> {
    Ok(Json(find(&app, &owner, id_in(&path)).await?))
}

/// One entry.
///
/// # Errors
/// There is none with this id, or the store could not be read.
pub(in super::super) async fn find(app: &App, owner: &Owner, id: &str) -> Result<MatchField, ApiError> {
    let found = app.cache.get(owner, entry_id(id)?).await?;
    found.as_ref().map(MatchField::from).ok_or_else(|| ApiError::UnknownEntry(id.to_owned()))
}

/// Removes one entry.
#[utoipa::path(
    delete, path = "/v1/caches/{cache}/entries/{id}", params(("cache" = String, Path), ("id" = String, Path)),
    responses((status = 204, description = "Removed"), (status = 404, description = "No such entry of the caller's"))
)]
pub(in super::super) async fn delete(
    State(app): State<Arc<App>>,
    CallersCache(owner): CallersCache,
    Path(path): Path<BTreeMap<String, String>>,
) -> Result<StatusCode, ApiError> {
    remove(&app, owner, id_in(&path)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes one entry.
///
/// # Errors
/// There is none with this id, or the store could not be changed.
pub(in super::super) async fn remove(app: &App, owner: Owner, id: &str) -> Result<(), ApiError> {
    let removed = app.cache.remove(&Filter { owner, which: Which::Id(entry_id(id)?), dry_run: false }).await?;
    if removed.deleted == 0 { Err(ApiError::UnknownEntry(id.to_owned())) } else { Ok(()) }
}

/// Says whether an entry's answer was right. A wrong one is kept from such questions at once.
#[utoipa::path(
    post, path = "/v1/caches/{cache}/entries/{id}/feedback", params(("cache" = String, Path), ("id" = String, Path)),
    request_body = FeedbackBody,
    responses((status = 204, description = "Heard"), (status = 404, description = "No such entry of the caller's"))
)]
pub(in super::super) async fn feedback(
    State(app): State<Arc<App>>,
    CallersCache(owner): CallersCache,
    Path(path): Path<BTreeMap<String, String>>,
    JsonBody(body, _share): JsonBody,
) -> Result<StatusCode, ApiError> {
    hear(&app, &owner, id_in(&path), typed(body)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes feedback.
///
/// # Errors
/// There is no entry with this id, or the store could not be read.
pub(in super::super) async fn hear(app: &App, owner: &Owner, id: &str, body: FeedbackBody) -> Result<(), ApiError> {
    let FeedbackBody { correct, prompt } = body;
    let is_there = app.cache.feedback(owner, entry_id(id)?, correct, prompt.as_deref()).await?;
    if is_there { Ok(()) } else { Err(ApiError::UnknownEntry(id.to_owned())) }
}

/// Removes what matches. Also as `DELETE /v1/caches/{cache}/entries` with the same body.
#[utoipa::path(
    post, path = "/v1/caches/{cache}/entries/delete", params(("cache" = String, Path)), request_body = DeleteBody,
    responses((status = 200, description = "Counts", body = DeleteAnswer), (status = 400, description = "The filter is empty"))
)]
pub(in super::super) async fn delete_matching(
    State(app): State<Arc<App>>,
    CallersCache(owner): CallersCache,
    JsonBody(body, _share): JsonBody,
) -> Result<Json<DeleteAnswer>, ApiError> {
    let body: DeleteBody = typed(body)?;
    let dry_run = body.dry_run;
    let which = body.which(app.cache.now_ms())?;
    let removed = app.cache.remove(&Filter { owner, which, dry_run }).await?;
    Ok(Json(DeleteAnswer { matched: removed.matched, deleted: removed.deleted }))
}

impl DeleteBody {
    fn which(self, now_ms: u64) -> Result<Which, Problem> {
        let Self { attributes, tags, sources, writer, older_than_ms, dry_run: _ } = self;
        let mut given = Vec::new();
        given.extend(attributes.filter(|a| !a.is_empty()).map(Which::Attributes));
        given.extend(tags.filter(|t| !t.is_empty()).map(Which::Tags));
        given.extend(
            sources.filter(|s| !s.is_empty()).map(|s| Which::Sources(s.into_iter().map(WantedSource::from).collect())),
        );
        given.extend(writer.filter(|w| !w.is_empty()).map(Which::Writer));
        given.extend(older_than_ms.map(|age| Which::CreatedUntil(now_ms.saturating_sub(age))));
        match (given.pop(), given.is_empty()) {
            (Some(which), true) => Ok(which),
            (None, _) => Err(Problem::invalid(
                "attributes",
                "the filter is empty: give attributes, tags, sources, writer or olderThanMs",
            )),
            (Some(_), false) => Err(Problem::invalid(
                "attributes",
                "give one of attributes, tags, sources, writer and olderThanMs at a time",
            )),
        }
    }
}

/// A page of entries, each as a body that would insert it again.
#[utoipa::path(
    get, path = "/v1/caches/{cache}/entries",
    params(("cache" = String, Path), ("cursor" = Option<String>, Query), ("limit" = Option<usize>, Query)),
    responses((status = 200, description = "`data`, and `next` if there is more"))
)]
pub(in super::super) async fn list(
    State(app): State<Arc<App>>,
    CallersCache(owner): CallersCache,
    Query(mut query): Query<BTreeMap<String, String>>,
) -> Result<Json<Value>, ApiError> {
    let cursor = query
        .remove("cursor")
        .map(|c| c.parse().map_err(|e| Problem::invalid("cursor", format!("cursor: {e}, got {c:?}"))))
        .transpose()?;
    let limit =
        match query.remove("limit") {
            None => PAGE_MAX,
            Some(text) => text.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit)).ok_or_else(|| {
                Problem::invalid("limit", format!("limit: must be from 1 to {PAGE_MAX}, got {text:?}"))
            })?,
        };
    if let Some(name) = query.keys().next() {
        return Err(Problem::invalid(name, format!("{name}: unknown parameter")).into());
    }
    let (entries, next) = app.cache.page(&owner, cursor, limit).await?;
    let external = app.cache.settings().external_dimensions.is_some();
    let exported = entries.iter().map(|found| {
        let mut body = export(&owner, found);
        // Nobody here could make such a vector again.
        if external && let Some((_, vector)) = &found.entry.place {
            body["vector"] = json!(vector.as_slice());
        }
        body
    });
    let data: Vec<Value> = exported.collect();
    Ok(Json(json!({"data": data, "next": next.map(|id| id.to_string())})))
}

/// The entry as an insert body, with its cache and times.
fn export(owner: &Owner, found: &Match) -> Value {
    let entry = &found.entry;
    let mut body = json!({
        "cache": owner.cache.as_str(), "response": response(&entry.answer), "attributes": entry.attributes, "vars": entry.vars,
        "tags": entry.tags, "sources": entry.sources, "createdMs": entry.life.created_ms, "expiresMs": entry.life.expires_ms,
    });
    match &entry.origin {
        Origin::Prompt { context } => {
            body["prompt"] = json!(entry.text);
            body["context"] = json!(context);
        }
        Origin::Request { path, body: request, headers } => {
            body["path"] = json!(path);
            body["request"] = serde_json::from_str(request).unwrap_or(Value::Null);
            body["headers"] = json!(headers);
        }
    }
    body
}

fn id_in(path: &BTreeMap<String, String>) -> &str {
    path.get("id").map(String::as_str).unwrap_or_default()
}

fn entry_id(text: &str) -> Result<EntryId, ApiError> {
    // An id that no entry can have is an entry that is not there.
    text.parse().map_err(|_| ApiError::UnknownEntry(text.chars().take(80).collect()))
}

/// Entries in a page.
const PAGE_MAX: usize = 1000;
