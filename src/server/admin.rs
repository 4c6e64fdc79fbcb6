//! For operators: metrics, and the description of the API.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::CONTENT_TYPE;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{App, api, health, reload};

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
        .route("/admin/reload", post(reload::reload))
}

async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    app.cache.refresh_gauges();
    let mut text = String::new();
    // Writing to a string does not fail.
    let written = prometheus_client::encoding::text::encode(&mut text, &app.registry);
    debug_assert!(written.is_ok());
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Api::openapi())
}

/// Where a key may stand.
struct KeySchemes;

impl Modify for KeySchemes {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A key of nearhit's own, nh_..."))
            .build();
        let header =
            ApiKey::Header(ApiKeyValue::with_description("x-nearhit-key", "The same, beside a provider's key"));
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("nearhitKey", SecurityScheme::ApiKey(header));
    }
}

#[derive(OpenApi)]
#[openapi(
    modifiers(&KeySchemes),
    // None where the server has no keys.
    security((), ("bearer" = []), ("nearhitKey" = [])),
    info(
        title = "nearhit",
        description = "A semantic cache for LLM calls. Where the server has keys of its own, every call but /healthz and /readyz, \
            and gRPC's health checks and reflection, needs one: 401 without a valid key, 403 without the scope, 429 beyond the tenant's limits."
    ),
    paths(
        health::healthz,
        health::readyz,
        api::search::search,
        api::search::search_batch,
        api::insert::insert,
        api::insert::insert_batch,
        api::entries::list,
        api::entries::get,
        api::entries::delete,
        api::entries::delete_matching,
        api::entries::feedback,
        api::caches::list,
        api::caches::stats,
        api::caches::tune,
        api::caches::flush,
        api::templates::list,
        reload::reload,
    )
)]
struct Api;
