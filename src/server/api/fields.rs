//! What the bodies of several endpoints have in common, read and checked in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{FromRequest, Path, Request};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::super::App;
use super::super::error::ApiError;
use crate::body::check_media;
use crate::decision::{
    Attributes, CHAT_PATH, CacheName, Embedding, InvalidEmbedding, Origin, Prompt, Reason, Scope, Tenant, Turn, Vars,
};
use crate::room::{Share, Taken, take};
use crate::route::Resolved;
use crate::store::Owner;
use crate::wire::controls::check_names;
use crate::wire::json;
use crate::wire::parts::is_blank;
use crate::wire::problem::Problem;
use crate::wire::request::{ANSWER_HEADERS, NotRead, ProviderRequest, Surroundings};

/// What a prompt may be given as: bare, or as a whole provider request.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) prompt: Option<String>,
    pub(super) context: Option<String>,
    pub(super) request: Option<Value>,
    /// Where the request would be sent; that of a chat completion by default.
    pub(super) path: Option<String>,
    pub(super) headers: Attributes,
    pub(super) attributes: Attributes,
    pub(super) vars: Vars,
}

/// A document in a version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct SourceField {
    pub(in super::super) id: String,
    pub(in super::super) version: String,
}

impl From<SourceField> for crate::decision::Source {
    fn from(SourceField { id, version }: SourceField) -> Self {
        Self { id, version }
    }
}

impl Asked {
    /// The provider request, if it is one.
    pub(super) fn request(&self) -> Result<Option<ProviderRequest>, Problem> {
        let Some(body) = &self.request else { return Ok(None) };
        let path = self.path.as_deref().unwrap_or(CHAT_PATH);
        ProviderRequest::new(path, body.clone()).map(Some).map_err(|error| match error {
            NotRead::Path => Problem::invalid("path", format!("path: {error}, got {path:?}")),
            NotRead::Body(_) => Problem::invalid("request", format!("request: {error}")),
        })
    }

    /// The prompt, and where it came from; or the reason why such a request is never cached.
    pub(super) fn read(self, app: &App, owner: &Owner) -> Result<Result<(Prompt, Origin), Reason>, Problem> {
        let asked = self.request()?;
        let Self { prompt, context, request: _, path, headers, attributes, vars } = self;
        check_map("attributes", &attributes)?;
        check_map("vars", &vars)?;
        let Owner { tenant, cache } = owner.clone();
        if path.is_some() && asked.is_none() {
            return Err(Problem::invalid("path", "path: goes with request, not with prompt"));
        }
        match (prompt, asked) {
            (Some(text), None) => {
                if !headers.is_empty() {
                    return Err(Problem::invalid("headers", "headers: goes with request, not with prompt"));
                }
                if is_blank(&text) {
                    return Err(Problem::invalid("prompt", format!("prompt: must hold text, got {text:?}")));
                }
                let turns = context.iter().map(|context| Turn::context(context)).collect();
                let scope = Scope { turns, attributes, ..Scope::bare(tenant, cache) };
                Ok(Ok((Prompt::new(scope, &text, vars), Origin::Prompt { context })))
            }
            (None, Some(request)) => {
                if context.is_some() {
                    return Err(Problem::invalid("context", "context: goes with prompt, not with request"));
                }
                let headers =
                    headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect::<Attributes>();
                if let Some(name) = headers.keys().find(|name| !ANSWER_HEADERS.contains(&name.as_str())) {
                    let known = ANSWER_HEADERS.join(", ");
                    return Err(Problem::invalid("headers", format!("headers: {name:?} is none of {known}")));
                }
                let origin = request.to_origin(headers.clone());
                let live = app.live();
                let layer = &live.settings().layer;
                let Resolved { upstream, model } = layer.upstream.resolve(request.path(), request.model());
                let prompt = request.prompt(Surroundings {
                    tenant,
                    cache,
                    upstream,
                    headers,
                    attributes,
                    vars,
                    temperature_max: layer.temperature_max,
                    tool_calls: layer.tool_calls,
                });
                Ok(prompt.map(|mut prompt| {
                    prompt.scope.model = model;
                    (prompt, origin)
                }))
            }
            (Some(_), Some(_)) => Err(Problem::invalid("request", "request: give either prompt or request, not both")),
            (None, None) => {
                Err(Problem::invalid("prompt", "prompt: is missing (or give a whole provider request as request)"))
            }
        }
    }
}

/// The caller's vector, where callers bring them.
pub(super) fn read_vector(app: &App, vector: Option<&Vec<Option<f64>>>) -> Result<Option<Embedding>, Problem> {
    let Some(vector) = vector else { return Ok(None) };
    let bad = |code: &'static str, message: String| Problem {
        code,
        ..Problem::invalid("vector", format!("vector: {message}"))
    };
    let Some(dimensions) = app.cache.settings().external_dimensions else {
        return Err(bad(
            "invalid_value",
            "is accepted only with embed.model = \"external\"; this server embeds by itself".into(),
        ));
    };
    if vector.len() != dimensions {
        return Err(bad("dimension_mismatch", format!("must have {dimensions} numbers, got {}", vector.len())));
    }
    // JSON has no infinity: it arrives as null, or as a number that no f32 can hold.
    let values: Vec<f32> = vector.iter().map(|value| value.map_or(f32::NAN, |value| value as f32)).collect();
    let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
    let embedding = Embedding::new(values).map_err(|error| match error {
        InvalidEmbedding::NotFinite => bad("not_finite", "every number must be finite".into()),
        InvalidEmbedding::ZeroNorm => bad("zero_norm", "must not be all zeros".into()),
    })?;
    if !(0.99..=1.01).contains(&norm) {
        return Err(bad("not_normalised", format!("must have norm 1, got {norm}")));
    }
    Ok(Some(embedding))
}

pub(super) fn check_map(field: &str, map: &BTreeMap<String, String>) -> Result<(), Problem> {
    Ok(check_names(field, map.iter().map(|(name, value)| (name.as_str(), value.as_str())))?)
}

pub(super) fn check_set(field: &str, set: &BTreeSet<String>) -> Result<(), Problem> {
    Ok(check_names(field, set.iter().map(|item| (item.as_str(), "")))?)
}

/// The value at hand as `T`; the error names the field and the value.
pub(super) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let param = if path == "." { None } else { Some(path.clone()) };
        let message = if path == "." { error.inner().to_string() } else { format!("{path}: {}", error.inner()) };
        Problem { param, ..Problem::new(StatusCode::BAD_REQUEST, "invalid_value", message) }
    })
}

/// The items of a batch body, `{"<field>": […]}`.
pub(super) fn batch(mut body: Value, field: &'static str) -> Result<Vec<Value>, Problem> {
    let object = body.as_object_mut().ok_or_else(|| Problem::invalid(field, "the body must be an object"))?;
    let items = match object.remove(field) {
        Some(Value::Array(items)) => items,
        Some(other) => {
            return Err(Problem::invalid(field, format!("{field}: must be an array, got {}", brief(&other))));
        }
        None => return Err(Problem::invalid(field, format!("{field}: is missing"))),
    };
    if let Some(name) = object.keys().next() {
        return Err(Problem::invalid(name, format!("{name}: unknown field")));
    }
    if items.len() > BATCH_MAX {
        let message = format!("{field}: at most {BATCH_MAX} items, got {}", items.len());
        return Err(Problem {
            param: Some(field.into()),
            ..Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "batch_too_large", message)
        });
    }
    Ok(items)
}

/// The start of a value, for a message.
pub(super) fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= 80 { text } else { text.chars().take(80).chain("…".chars()).collect() }
}

/// A JSON body, any value, and the room that it takes.
pub(in super::super) struct JsonBody(pub(super) Value, pub(super) Share);

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        check_media(request.headers())?;
        let live = app.live();
        let layer = &live.settings().layer;
        let mut share = layer.bodies.share();
        let reading = layer.reading();
        let bytes = match take(request.into_body(), reading, &mut share).await? {
            Taken::Whole(bytes) => bytes,
            Taken::Begun(begun) => {
                drop(share);
                begun.discard(reading.bytes_max).await;
                let message = "too many bytes are on their way in already; try again";
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message).into());
            }
        };
        Ok(Self(json::parse(&bytes).map_err(|error| Problem::not_json(&error, &bytes))?, share))
    }
}

/// The caller's cache that the path names.
pub(in super::super) struct CallersCache(pub(super) Owner);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for CallersCache {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, state: &S) -> Result<Self, ApiError> {
        let Path(path) = Path::<BTreeMap<String, String>>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::invalid("cache", format!("cache: {error}")))?;
        let name = path.get("cache").map(String::as_str).unwrap_or_default();
        owner(parts.extensions.get(), name).map(Self)
    }
}

/// The caller's cache of this name.
///
/// # Errors
/// There is no tenant to keep entries for, or no cache can have this name.
pub(in super::super) fn owner(tenant: Option<&Tenant>, name: &str) -> Result<Owner, ApiError> {
    let tenant = tenant.cloned().ok_or(ApiError::NoTenant)?;
    let cache = CacheName::parse(name).map_err(|error| Problem::invalid("cache", format!("cache: {error}")))?;
    Ok(Owner { tenant, cache })
}

/// Items in a batch.
pub(in super::super) const BATCH_MAX: usize = 1000;
