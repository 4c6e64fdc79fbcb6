//! The cache API: searching, inserting, reading and removing entries of the caller's own caches.

pub(super) mod caches;
pub(super) mod entries;
pub(super) mod fields;
mod gptcache;
pub(super) mod insert;
pub(super) mod search;
pub(super) mod templates;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .merge(gptcache::routes())
        .route("/v1/caches", get(caches::list))
        .route("/v1/caches/{cache}/stats", get(caches::stats))
        .route("/v1/caches/{cache}/tune", get(caches::tune))
        .route("/v1/caches/{cache}/templates", get(templates::list))
        .route("/v1/caches/{cache}/flush", post(caches::flush))
        .route("/v1/caches/{cache}/entries/search", post(search::search))
        .route("/v1/caches/{cache}/entries/search/batch", post(search::search_batch))
        .route("/v1/caches/{cache}/entries/batch", post(insert::insert_batch))
        .route("/v1/caches/{cache}/entries/delete", post(entries::delete_matching))
        .route("/v1/caches/{cache}/entries", get(entries::list).post(insert::insert).delete(entries::delete_matching))
        .route("/v1/caches/{cache}/entries/{id}", get(entries::get).delete(entries::delete))
        .route("/v1/caches/{cache}/entries/{id}/feedback", post(entries::feedback))
}
