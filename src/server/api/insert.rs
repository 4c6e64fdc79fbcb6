//! Storing answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::super::App;
use super::super::error::ApiError;
use super::super::idempotency::{Attempt, Known};
use super::fields::{
    Asked, CallersCache, JsonBody, SourceField, batch, brief, check_map, check_set, read_vector, typed,
};
use crate::cache::{Inserted, NewEntry};
use crate::decision::{Answer, AnswerKind, Attributes, EntryId, Reason, Source, Vars};
use crate::store::Owner;
use crate::wire::controls::{TTL_PROBLEM, seconds};
use crate::wire::problem::Problem;
use crate::wire::request::{ProviderRequest, given};

/// An answer to store.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct InsertBody {
    /// What it answers; or `request`. An entry stored by `prompt` is found by `prompt` only.
    #[schema(example = "How do I reset my password?")]
    pub(in super::super) prompt: Option<String>,
    /// System prompt and earlier turns as one string.
    pub(in super::super) context: Option<String>,
    /// A whole provider request instead. Such an entry is found by `request` and by proxied calls.
    #[schema(value_type = Option<Object>)]
    pub(in super::super) request: Option<Value>,
    /// With `request`: the path that it would be sent to, `/v1/chat/completions` by default.
    pub(in super::super) path: Option<String>,
    /// With `request`: headers that its answer depends on.
    #[serde(default)]
    pub(in super::super) headers: Attributes,
    /// The answer: a string, or a whole provider response.
    #[schema(value_type = Object)]
    pub(in super::super) response: Value,
    #[serde(default)]
    pub(in super::super) attributes: Attributes,
    /// Template variables.
    #[serde(default)]
    pub(in super::super) vars: Vars,
    /// For deletion by tag.
    #[serde(default)]
    pub(in super::super) tags: BTreeSet<String>,
    /// Documents that the answer was made from, for deletion by source.
    #[serde(default)]
    pub(in super::super) sources: BTreeSet<SourceField>,
    /// Time to live from now; the operator's by default, which is shorter where the answer depends on now or here.
    pub(in super::super) ttl_millis: Option<i64>,
    /// The same key with the same body is one insert; with another body it is an error (409).
    pub(in super::super) idempotency_key: Option<String>,
    /// The prompt's unit vector, where the server is configured for callers' vectors.
    pub(in super::super) vector: Option<Vec<Option<f64>>>,
    /// When the answer was made, milliseconds since 1970; now by default.
    pub(in super::super) created_ms: Option<u64>,
}

/// A stored answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct InsertAnswer {
    pub(in super::super) entry_id: String,
    /// Why only an exact match will find it, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(in super::super) exact_only: Option<Reason>,
}

impl From<Inserted> for InsertAnswer {
    fn from(inserted: Inserted) -> Self {
        Self { entry_id: inserted.id.to_string(), exact_only: inserted.exact_only }
    }
}

/// An insert that has been read.
enum Wanted {
    /// Done before, under the same idempotency key.
    Done(EntryId),
    New(Box<NewEntry>, Option<Attempt>),
}

/// Stores an answer. The 201 is sent when the entry is as durable as `store.durability` says.
#[utoipa::path(
    post, path = "/v1/caches/{cache}/entries", params(("cache" = String, Path)), request_body = InsertBody,
    responses((status = 201, description = "Stored", body = InsertAnswer), (status = 400, description = "A field is wrong"),
        (status = 409, description = "The idempotency key was used with another body"), (status = 413, description = "The answer is too large"),
        (status = 507, description = "The disk is full"))
)]
pub(in super::super) async fn insert(
    State(app): State<Arc<App>>,
    CallersCache(owner): CallersCache,
    JsonBody(body, _share): JsonBody,
) -> Result<(StatusCode, Json<InsertAnswer>), ApiError> {
    Ok((StatusCode::CREATED, Json(store(&app, &owner, typed(body)?).await?)))
}

/// Stores one answer.
///
/// # Errors
/// A field is wrong, or the store could not keep it.
pub(in super::super) async fn store(app: &App, owner: &Owner, body: InsertBody) -> Result<InsertAnswer, ApiError> {
    let inserted = match read(app, owner, body).await? {
        Wanted::Done(id) => Inserted { id, exact_only: None },
        Wanted::New(new, attempt) => {
            let inserted = app.cache.insert(*new).await?;
            attempt.into_iter().for_each(|attempt| app.idempotency.remember(attempt, inserted.id));
            inserted
        }
    };
    Ok(inserted.into())
}

/// Up to 1,000 inserts, an id or an error for each.
#[utoipa::path(
    post, path = "/v1/caches/{cache}/entries/batch", params(("cache" = String, Path)), request_body = Object,
    responses((status = 200, description = "An id or an error per item"), (status = 413, description = "Too many items"))
)]
pub(in super::super) async fn insert_batch(
    State(app): State<Arc<App>>,
    CallersCache(owner): CallersCache,
    JsonBody(body, _share): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let items = batch(body, "entries")?;
    let mut new = Vec::new();
    let mut attempts = Vec::new();
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        // The place of a new entry's result is filled in once it is stored.
        let read = match typed(item) {
            Ok(body) => read(&app, &owner, body).await,
            Err(problem) => Err(problem.into()),
        };
        results.push(match read {
            Ok(Wanted::Done(id)) => Some(json!({"entryId": id.to_string()})),
            Ok(Wanted::New(entry, attempt)) => {
                new.push(*entry);
                attempts.push(attempt);
                None
            }
            Err(error) => Some(error.problem().to_json()),
        });
    }
    let mut inserted = app.cache.insert_all(new).await?.into_iter();
    for (attempt, inserted) in attempts.into_iter().zip(inserted.as_slice()) {
        attempt.into_iter().for_each(|attempt| app.idempotency.remember(attempt, inserted.id));
    }
    let results =
        results.into_iter().map(|result| result.or_else(|| Some(json!(InsertAnswer::from(inserted.next()?)))));
    Ok(Json(json!({ "results": results.collect::<Vec<_>>() })))
}

async fn read(app: &App, owner: &Owner, body: InsertBody) -> Result<Wanted, ApiError> {
    let attempt = body.idempotency_key.as_deref().map(|key| Attempt::new(owner, key, &json!(body).to_string()));
    if let Some(attempt) = &attempt {
        match app.idempotency.find(attempt) {
            Known::New => {}
            // An entry that has gone since is stored again.
            Known::Same(id) if app.cache.get(owner, id).await?.is_some() => return Ok(Wanted::Done(id)),
            Known::Same(_) => {}
            Known::Other => {
                let message = format!(
                    "idempotencyKey: {:?} was used with another body",
                    body.idempotency_key.unwrap_or_default()
                );
                let problem = Problem::new(StatusCode::CONFLICT, "idempotency_conflict", message);
                return Err(Problem { param: Some("idempotencyKey".into()), ..problem }.into());
            }
        }
    }
    let InsertBody {
        prompt,
        context,
        request,
        path,
        headers,
        response,
        attributes,
        vars,
        tags,
        sources,
        ttl_millis,
        vector,
        created_ms,
        ..
    } = body;
    check_set("tags", &tags)?;
    check_map("sources", &sources.iter().map(|s| (format!("{}@{}", s.id, s.version), String::new())).collect())?;
    let ttl = ttl_millis.map(read_ttl).transpose()?;
    let asked = Asked { prompt, context, request, path, headers, attributes, vars };
    let answer = read_answer(response, asked.request()?.as_ref(), app.live().settings().layer.answer_bytes_max)?;
    let vector = read_vector(app, vector.as_ref())?;
    let (prompt, origin) = asked.read(app, owner)?.map_err(|reason| {
        Problem::invalid("request", format!("request: its answer cannot be cached: {}", reason.as_str()))
    })?;
    let writer = owner.tenant.as_str().to_owned();
    let sources: BTreeSet<Source> = sources.into_iter().map(Source::from).collect();
    let new = NewEntry { prompt, origin, answer, tags, sources, writer, created_ms, ttl, vector };
    Ok(Wanted::New(Box::new(new), attempt))
}

fn read_ttl(millis: i64) -> Result<Duration, Problem> {
    seconds(Some(millis as f64 / 1000.0))
        .ok_or_else(|| Problem::invalid("ttlMillis", format!("ttlMillis: {TTL_PROBLEM}, got {millis} ms")))
}

/// An answer to the request, if it is one to a request.
fn read_answer(response: Value, asked: Option<&ProviderRequest>, bytes_max: usize) -> Result<Answer, Problem> {
    let bad = |message: String| Problem::invalid("response", format!("response: {message}"));
    let answer = match response {
        Value::String(text) if text.is_empty() => return Err(bad("must not be empty".into())),
        Value::String(text) if asked.is_none_or(ProviderRequest::takes_text) => {
            Answer { kind: AnswerKind::Text, body: text, usage: None }
        }
        Value::Object(object) => given(asked, object).map_err(bad)?,
        other => return Err(bad(format!("must be a string or a provider's response, got {}", brief(&other)))),
    };
    if answer.body.len() > bytes_max {
        let message = format!("response: is larger than {bytes_max} bytes");
        return Err(Problem {
            param: Some("response".into()),
            ..Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "answer_too_large", message)
        });
    }
    Ok(answer)
}
