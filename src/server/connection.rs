//! Connections of a listener: how many there are, how long a head may be and take, and finishing what is on its way.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
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
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::outflow::Outflow;
use super::seats::{Seat, Seats};
use crate::body::{Flushes, Holding};

/// What a listener takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionLimits {
    pub(super) connections_max: usize,
    /// Longest that a connection may do nothing, and that a head may take.
    pub(super) idle: Duration,
}

/// Serves HTTP/1 and HTTP/2 until `stop` is done, then takes no more and returns when every call has its answer.
pub(super) async fn serve(
    mut listener: TcpListener,
    routes: Router,
    limits: ConnectionLimits,
    stop: impl Future<Output = ()>,
) {
    let ConnectionLimits { connections_max, idle } = limits;
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(HEAD_BYTES_MAX);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(PING_PAUSE).keep_alive_timeout(PING_TIME);
    let (seats, open, stopping) = (Seats::new(connections_max), TaskTracker::new(), CancellationToken::new());
    let mut stop = pin!(stop);
    loop {
        let knocks = async {
            let (stream, peer) = Listener::accept(&mut listener).await;
            (stream, peer, Arc::new(seats.take().await))
        };
        let (stream, peer, seat) = tokio::select! {
            biased;
            () = &mut stop => break,
            taken = knocks => taken,
        };
        // Without this, small answers wait for the client's delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not set TCP_NODELAY");
        }
        let (routes, sitting, flushes) = (routes.clone(), Arc::clone(&seat), Flushes::default());
        let stream = Outflow::new(TokioIo::new(stream), flushes.clone(), Arc::clone(&seat));
        let calls = service_fn(move |request| call(&routes, request, (peer, &flushes), &sitting));
        let connection = builder.serve_connection(stream, calls).into_owned();
        open.spawn(attend(connection, seat, idle, stopping.clone()));
    }
    drop(listener);
    stopping.cancel();
    open.close();
    open.wait().await;
}

/// The answer of the routes, which are told who calls.
fn call(
    routes: &Router,
    mut request: Request<Incoming>,
    (peer, flushes): (SocketAddr, &Flushes),
    seat: &Seat,
) -> impl Future<Output = Result<http::Response<Holding<Body, super::seats::Busy>>, std::convert::Infallible>> + use<> {
    let held = seat.begin();
    request.extensions_mut().insert(ConnectInfo(peer));
    request.extensions_mut().insert(flushes.clone());
    // Routers are always ready.
    let answer = Service::call(&mut routes.clone(), request.map(Body::new));
    async move { Ok(answer.await?.map(|body| Holding { body, _held: held })) }
}

/// Serves a connection until it ends, does nothing for too long, or has to go.
async fn attend<C>(connection: C, seat: Arc<Seat>, idle: Duration, stopping: CancellationToken)
where
    C: GracefulConnection,
    C::Error: std::fmt::Debug,
{
    let ended = |ended: Result<(), C::Error>| {
        if let Err(error) = ended {
            tracing::debug!(?error, "a connection ended early");
        }
    };
    let mut connection = pin!(connection);
    let pause = tokio::select! {
        biased;
        done = connection.as_mut() => return ended(done),
        () = stopping.cancelled() => GRACE,
        () = seat.needed() => Duration::ZERO,
        () = seat.idle_for(idle) => GRACE,
        () = seat.stuck_for(idle) => return,
    };
    connection.as_mut().graceful_shutdown();
    let over = async {
        if pause.is_zero() {
            // What was answered last may still be on its way.
            return seat.settled_for(GRACE).await;
        }
        tokio::time::sleep(pause).await;
        seat.idle_for(GRACE).await;
    };
    tokio::select! {
        biased;
        done = connection.as_mut() => ended(done),
        // It never said what it wants.
        () = over => {}
        () = seat.stuck_for(idle) => {}
    }
}

/// For the rest of a head, at the end.
const GRACE: Duration = Duration::from_secs(2);

/// Between two questions whether an HTTP/2 client is still there, and longest wait for its answer: some clients answer only while
/// they read.
const PING_PAUSE: Duration = Duration::from_secs(60);
const PING_TIME: Duration = Duration::from_secs(120);

/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;
