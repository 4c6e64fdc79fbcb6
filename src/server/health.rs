//! Is the process there, and does it serve all that it could?

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;

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
    /// `ready`: every recoverable entry is served.
    #[schema(example = "ready")]
    state: &'static str,
    /// Parts that do not work, such as `embedder`: only exact matches are served then.
    degraded: Vec<&'static str>,
    /// What turns text into vectors.
    embedder: String,
}

/// Every recoverable entry is served.
#[utoipa::path(get, path = "/readyz", responses((status = 200, description = "Every recoverable entry is served", body = Readiness)))]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Json<Readiness> {
    let degraded = app.degraded.iter().copied().collect();
    Json(Readiness { state: "ready", degraded, embedder: app.embedder.clone() })
}
