//! Connections of a listener: how long a head may be and take, and finishing what is on its way.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tower_service::Service;

use super::outflow::Outflow;
use crate::body::Flushes;

/// Serves HTTP/1 and HTTP/2 until `stop` is done, then takes no more and returns when every call has its answer.
pub(super) async fn serve(mut listener: TcpListener, routes: Router, stop: impl Future<Output = ()>) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES_MAX);
    let open = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = Listener::accept(&mut listener) => accepted,
        };
        // Without this, small answers wait for the client's delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not set TCP_NODELAY");
        }
        let flushes = Flushes::default();
        let stream = Outflow::new(TokioIo::new(stream), flushes.clone());
        let connection = builder.serve_connection(stream, service_fn(calls(routes.clone(), peer, flushes)));
        let connection = open.watch(connection.into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection ended early");
            }
        });
    }
    drop(listener);
    open.shutdown().await;
}

/// The routes, told who calls.
fn calls(
    routes: Router,
    peer: SocketAddr,
    flushes: Flushes,
) -> impl Fn(Request<Incoming>) -> <Router as Service<Request<Body>>>::Future + Clone {
    move |mut request| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(flushes.clone());
        // Routers are always ready.
        Service::call(&mut routes.clone(), request.map(Body::new))
    }
}

/// Longest that a head may take, and a connection may wait for its next: longer than the usual clients keep an idle one
/// (Go and hyper: 90 s), so that they let go first.
const HEAD_TIME: Duration = Duration::from_secs(120);

/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;
