//! The paths of GPTCache's server, for its clients, where the operator names it: `/put`, `/get` and `/flush` over the
//! caller's cache `default`.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::routing::post;
use axum::{Json, Router};
use http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::App;
use super::super::auth::Caller;
use super::super::error::{ApiError, method_not_allowed, not_found};
use super::fields::{JsonBody, owner, typed};
use super::{insert, search};
use crate::decision::CacheName;
use crate::store::Owner;
use crate::wire::compat::Compat;

/// Routes of their own: where GPTCache is not named they are not there.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/put", post(put).fallback(other_method))
        .route("/get", post(get).fallback(other_method))
        .route("/flush", post(flush).fallback(other_method))
}

/// A question, and its answer where there is one.
#[derive(Debug, Deserialize, Serialize)]
struct CacheData {
    prompt: String,
    #[serde(default)]
    answer: Option<String>,
}

/// The caller's cache, on a server that speaks GPTCache's way.
struct Served(Owner);

impl FromRequestParts<Arc<App>> for Served {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        if !app.live().settings().layer.compats.contains(&Compat::GptCache) {
            return Err(not_found(parts.uri.path()));
        }
        let Caller(tenant) = Caller::from_request_parts(parts, app).await?;
        owner(Some(&tenant), CacheName::default().as_str()).map(Self)
    }
}

async fn put(
    State(app): State<Arc<App>>,
    Served(owner): Served,
    JsonBody(body, _share): JsonBody,
) -> Result<Json<&'static str>, ApiError> {
    let CacheData { prompt, answer } = typed(body)?;
    let body = typed(json!({"prompt": prompt, "response": answer.unwrap_or_default()}))?;
    insert::store(&app, &owner, body).await?;
    Ok(Json("successfully update the cache"))
}

/// The question with its answer, which is null on a miss.
async fn get(
    State(app): State<Arc<App>>,
    Served(owner): Served,
    JsonBody(body, _share): JsonBody,
) -> Result<Json<CacheData>, ApiError> {
    let CacheData { prompt, answer: _ } = typed(body)?;
    let found = search::answer(&app, &owner, typed(json!({"prompt": prompt}))?).await?;
    let answer = found.data.into_iter().next().map(|found| match found.response {
        Value::String(text) => text,
        object => object.to_string(),
    });
    Ok(Json(CacheData { prompt, answer }))
}

/// There, this writes to disk what is in memory, and removes nothing. What was put here is as durable as
/// `store.durability` says when it is acknowledged.
async fn flush(Served(_): Served) -> Json<&'static str> {
    Json("successfully flush the cache")
}

async fn other_method(Served(_): Served, request: Request) -> ApiError {
    method_not_allowed(request).await
}
