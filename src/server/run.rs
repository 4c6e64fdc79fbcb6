//! Listening, serving, and stopping without cutting anybody off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::from_fn;
use axum::{Extension, Router};
use tokio::net::TcpListener;

use super::connection::{self, ConnectionLimits};
use super::{App, admin_plane, auth, data_plane, files, head, proxy};

/// The listeners and their limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeSettings {
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    /// Listen on addresses that other machines reach, also without any keys.
    pub insecure: bool,
    /// Refuse to start in a degraded state.
    pub strict: bool,
    /// Largest request body.
    pub body_bytes_max: usize,
    /// Of all request bodies that are held at a time.
    pub bodies_bytes_max: usize,
    /// Longest wait for the next bytes of a request body.
    pub body_patience: Duration,
    /// Most connections of a listener.
    pub connections_max: usize,
    /// Longest that a connection may do nothing, and that a request's head may take.
    pub idle: Duration,
    /// Longest wait, at the end, for answers on their way.
    pub drain: Duration,
}

/// Why the server did not start, or broke.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{key}: cannot listen on {address}: {source}")]
    Listen { key: &'static str, address: SocketAddr, source: std::io::Error },
    #[error(
        "{key}: {address} can be reached from other machines, and there is no {needed}: make one with nearhit key create, \
         listen on 127.0.0.1, or start with --insecure if a network you trust is all around"
    )]
    Exposed { key: &'static str, address: SocketAddr, needed: &'static str },
    #[error("the server broke: {0}")]
    Broken(#[source] std::io::Error),
}

/// Serves until `stop` is done, then finishes what is on its way, for `settings.drain` at most.
///
/// `started` is called with the addresses once both listeners are open.
///
/// # Errors
/// A listener cannot be opened, would be open to other machines without keys, or breaks.
pub async fn serve(
    app: Arc<App>,
    settings: &ServeSettings,
    started: impl FnOnce(SocketAddr, SocketAddr),
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let keys = app.keys.in_force();
    let needed = (!settings.insecure && !keys.is_required()).then_some("key");
    let data = listen("serve.listen", settings.listen, needed).await?;
    let needed = (!settings.insecure && !keys.is_required_for_admin()).then_some("key with the scope admin");
    let admin = listen("serve.admin_listen", settings.admin_listen, needed).await?;
    let bound = |listener: &TcpListener| listener.local_addr().map_err(ServeError::Broken);
    let (data_address, admin_address) = (bound(&data)?, bound(&admin)?);
    started(data_address, admin_address);
    let renewing = tokio::spawn(renew_vectors(Arc::clone(&app)));
    let mining = tokio::spawn(mine_templates(Arc::clone(&app)));
    let watching = tokio::spawn(watch_keys(Arc::clone(&app)));

    let (stopping, stopped) = tokio::sync::watch::channel(false);
    let stop_signal = tokio::spawn(async move {
        stop.await;
        stopping.send_replace(true);
    });
    let limits =
        ConnectionLimits { connections_max: files::connections_max(settings.connections_max), idle: settings.idle };
    let data = run(data, data_plane(&app), (data_address, limits), stopped.clone());
    let admin = run(admin, admin_plane(&app), (admin_address, limits), stopped.clone());
    let served = async { tokio::join!(data, admin) };
    let drained = async {
        let mut stopped = stopped;
        // The sender lives in a task that ends only after sending.
        if stopped.wait_for(|stopped| *stopped).await.is_ok() {
            tracing::info!("stopping: no new connections, finishing what is on its way");
        }
        tokio::time::sleep(settings.drain).await;
    };
    tokio::select! {
        _ = served => {}
        () = drained => {
            tracing::warn!(drain_s = settings.drain.as_secs(), "cut off what was still on its way");
        }
    }
    stop_signal.abort();
    renewing.abort();
    mining.abort();
    watching.abort();
    // Answers that were sent are stored before the process goes.
    app.tasks.close();
    if tokio::time::timeout(STORE_TIME, app.tasks.wait()).await.is_err() {
        tracing::warn!("some answers were sent but not stored");
    }
    Ok(())
}

/// In the background: whoever looks something up comes first.
async fn renew_vectors(app: Arc<App>) {
    match app.cache.renew_vectors().await {
        Ok(0) => {}
        Ok(entries) => tracing::info!(entries, "embedded entries again"),
        Err(error) => tracing::warn!(%error, "not every entry could be embedded again; the next start goes on"),
    }
}

/// In the background too: until it is done the template tier finds less.
async fn mine_templates(app: Arc<App>) {
    match app.cache.mine_templates().await {
        Ok(entries) => tracing::debug!(entries, "found templates in what is stored"),
        Err(error) => tracing::warn!(%error, "not every stored entry is found by its template before the next start"),
    }
}

/// Takes up keys that are created or revoked while the server runs.
async fn watch_keys(app: Arc<App>) {
    loop {
        tokio::time::sleep(KEYS_PAUSE).await;
        let app = Arc::clone(&app);
        if tokio::task::spawn_blocking(move || app.keys.refresh()).await.is_err() {
            tracing::error!("reading the keys panicked");
        }
    }
}

/// `needed` is the key that is missing for an address that other machines reach.
async fn listen(
    key: &'static str,
    address: SocketAddr,
    needed: Option<&'static str>,
) -> Result<TcpListener, ServeError> {
    if !address.ip().is_loopback()
        && let Some(needed) = needed
    {
        return Err(ServeError::Exposed { key, address, needed });
    }
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { key, address, source })
}

async fn run(
    listener: TcpListener,
    routes: Router,
    (address, limits): (SocketAddr, ConnectionLimits),
    mut stopped: tokio::sync::watch::Receiver<bool>,
) {
    let routes = if address.ip().is_loopback() { routes.layer(from_fn(auth::local_names_only)) } else { routes };
    // For calls that end only when the server stops.
    let routes = routes.layer(Extension(stopped.clone()));
    let routes = routes.layer(from_fn(head::check)).layer(from_fn(proxy::shape));
    let until = async move {
        if stopped.wait_for(|stopped| *stopped).await.is_err() {
            tracing::debug!("the stop signal's sender is gone");
        }
    };
    connection::serve(listener, routes, limits, until).await;
}

/// Longest wait, at the end, for answers to be stored.
const STORE_TIME: Duration = Duration::from_secs(10);

/// Between two looks at the key file: a revoked key is refused within a second, with room to spare.
const KEYS_PAUSE: Duration = Duration::from_millis(200);
