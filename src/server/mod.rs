//! The edges in: the data plane (provider paths, cache API, gRPC, health) and the admin plane (metrics, OpenAPI).

mod admin;
mod api;
mod auth;
mod connection;
mod credentials;
mod error;
mod files;
#[cfg(feature = "grpc")]
mod grpc;
mod head;
mod health;
mod idempotency;
pub mod keys;
mod limits;
mod live;
mod outflow;
mod proxy;
mod rate;
mod reload;
mod run;
mod scopes;
mod seats;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::from_fn_with_state;
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use tokio_util::task::TaskTracker;

use crate::cache::Cache;

pub use self::auth::{Secret, SecretError, Tenancy};
pub use self::idempotency::IdempotencyKeys;
pub use self::keys::Keys;
pub use self::limits::{TenantLimit, TenantLimits, Traffic};
pub use self::live::{Change, Live, LiveSettings};
pub use self::rate::Rate;
pub use self::reload::{Reload, ReloadRefused, Reloaded, Reloads};
pub use self::run::{ServeError, ServeSettings, serve};

/// What the handlers share.
pub struct App {
    pub cache: Arc<Cache>,
    pub registry: Registry,
    /// How calls are answered: see [`App::live`] and [`App::put_in_force`].
    pub live: RwLock<Arc<Live>>,
    /// Where to ask for other settings.
    pub reloads: Reloads,
    pub tenancy: Tenancy,
    /// Who may call.
    pub keys: Keys,
    /// How much.
    pub traffic: Traffic,
    /// Keys tenant names, so that a name does not give away a provider key.
    pub secret: Secret,
    /// Which model embeds, and what computes it, for people to read.
    pub embedder: String,
    pub engine: String,
    /// Parts that do not work.
    pub degraded: BTreeSet<&'static str>,
    /// Work that goes on after its request was answered.
    pub tasks: TaskTracker,
    pub idempotency: IdempotencyKeys,
}

/// Everything that the data listener serves.
pub fn data_plane(app: &Arc<App>) -> Router {
    let guarded = api::routes()
        .fallback(|State(app): State<Arc<App>>, request: Request| {
            let proxy = app.live().proxy.clone();
            proxy::forward(proxy, request)
        })
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(app), auth::identify));
    let routes = Router::new().merge(health::routes()).merge(guarded);
    #[cfg(feature = "grpc")]
    let routes = routes.merge(grpc::routes(app));
    routes.method_not_allowed_fallback(error::method_not_allowed).with_state(Arc::clone(app))
}

/// Everything that the admin listener serves.
pub fn admin_plane(app: &Arc<App>) -> Router {
    Router::new()
        .merge(health::routes())
        .merge(
            admin::routes()
                .method_not_allowed_fallback(error::method_not_allowed)
                .layer(from_fn_with_state(Arc::clone(app), auth::administrators_only)),
        )
        .fallback(error::unknown_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(Arc::clone(app))
}
