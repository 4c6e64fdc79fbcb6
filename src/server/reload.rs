//! `POST /admin/reload`: the configuration is read again, and put in force as a whole or not at all.
//!
//! Who reads it is not known here: whoever holds the other end of [`Reloads`].

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

use super::App;
use super::error::ApiError;

/// Where a server asks for its configuration to be read again.
#[derive(Clone)]
pub struct Reloads(mpsc::Sender<Reload>);

/// Somebody asks for it, and waits for what comes of it.
pub struct Reload {
    pub answer: oneshot::Sender<Result<Reloaded, ReloadRefused>>,
}

/// Another configuration is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reloaded {
    /// Keys of the configuration whose values are other ones; none where nothing changed.
    pub changed: Vec<String>,
}

/// Why the configuration of before goes on: every problem, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReloadRefused(pub String);

impl Reloads {
    /// One at a time is under way, and a few wait.
    pub fn new() -> (Self, mpsc::Receiver<Reload>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    async fn ask(&self) -> Result<Reloaded, ApiError> {
        let (answer, answered) = oneshot::channel();
        let asked = self.0.try_send(Reload { answer });
        asked.map_err(|_| ApiError::CannotReload)?;
        let result = answered.await.map_err(|_| ApiError::CannotReload)?;
        result.map_err(ApiError::ReloadRefused)
    }
}

/// Reads the configuration again and puts it in force, with the flags and environment variables that the server was
/// started with over it. Calls on their way end as they began.
#[utoipa::path(
    post, path = "/admin/reload",
    responses(
        (status = 200, description = "It is in force", body = Reloaded),
        (status = 422, description = "It is not valid, or changes what only a start takes up; nothing changed"),
        (status = 503, description = "The server stops, or too many ask at a time"),
    )
)]
pub(super) async fn reload(State(app): State<Arc<App>>) -> Result<Json<Reloaded>, ApiError> {
    app.reloads.ask().await.map(Json)
}

/// Reading a file twice more for whoever comes in the meantime is enough.
const WAITING_MAX: usize = 16;
