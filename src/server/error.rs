//! Every status code that the cache API answers with. The client reads the outer message, the log the inner one.

use std::panic::AssertUnwindSafe;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::StatusCode;

use super::reload::ReloadRefused;
use crate::body::problem_response;
use crate::store::StoreError;
use crate::wire::problem::Problem;

/// Why a call through the cache API failed.
#[derive(Debug)]
pub(crate) enum ApiError {
    Problem(Problem),
    Store(StoreError),
    UnknownEntry(String),
    NoTenant,
    ReloadRefused(ReloadRefused),
    CannotReload,
    Panicked,
}

impl ApiError {
    /// What the client is told.
    pub(crate) fn problem(self) -> Problem {
        match self {
            Self::Problem(problem) => problem,
            Self::Store(StoreError::Full) => Problem::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "storage_full",
                "the disk is full; lookups go on, inserts do not",
            ),
            Self::Store(StoreError::Unavailable(cause)) => {
                tracing::error!(cause, "the store failed");
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store_down", "the store is not available")
            }
            Self::UnknownEntry(id) => {
                Problem::new(StatusCode::NOT_FOUND, "unknown_entry", format!("no entry {id:?} in this cache"))
            }
            Self::ReloadRefused(ReloadRefused(problems)) => {
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config", problems)
            }
            Self::CannotReload => {
                let message = "the configuration cannot be read again just now";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "cannot_reload", message)
            }
            Self::Panicked => {
                let message = "this call broke something in nearhit; others go on";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
            }
            Self::NoTenant => {
                let message = "a call from another machine needs an Authorization, x-api-key or api-key header";
                Problem::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        problem_response(&self.problem()).map(axum::body::Body::new)
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a call is answered, even if its handler panics.
pub(crate) async fn answered(request: Request, next: Next) -> Response {
    AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("a call panicked");
        ApiError::Panicked.into_response()
    })
}

pub(crate) async fn unknown_path(request: Request) -> ApiError {
    not_found(request.uri().path())
}

pub(crate) fn not_found(path: &str) -> ApiError {
    Problem::new(StatusCode::NOT_FOUND, "unknown_path", format!("unknown path {path:?}")).into()
}

pub(crate) async fn method_not_allowed(request: Request) -> ApiError {
    let message = format!("{} is not allowed on {:?}", request.method(), request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message).into()
}
