//! A service that is watched: each try is counted, and one failure after another opens its breaker.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::time::Instant;
use tower_service::Service;

use super::failure::Failure;
use super::health::Breaker;
use super::settings::BreakerSettings;
use crate::body::Body;
use crate::metrics::UpstreamMetrics;

#[derive(Clone)]
pub(super) struct Watched<S> {
    inner: S,
    watch: Arc<Watch>,
}

/// What is known of a service, to whoever asks.
pub(super) struct Watch {
    name: String,
    breaker: Mutex<Breaker>,
    started: Instant,
    metrics: UpstreamMetrics,
}

impl<S> Watched<S> {
    pub(super) fn new(inner: S, name: &str, settings: BreakerSettings, metrics: UpstreamMetrics) -> Self {
        let (name, breaker) = (name.to_owned(), Mutex::new(Breaker::new(settings)));
        metrics.is_open(&name, false);
        Self { inner, watch: Arc::new(Watch { name, breaker, started: Instant::now(), metrics }) }
    }

    /// Another service that is watched as this one was: what is known of this holds for that.
    pub(super) fn follow<T>(&self, inner: T) -> Watched<T> {
        Watched { inner, watch: Arc::clone(&self.watch) }
    }

    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    pub(super) fn inner(&self) -> &S {
        &self.inner
    }
}

impl Watch {
    pub(super) fn is_open(&self) -> bool {
        self.breaker.lock().is_open()
    }

    /// Whether the upstream may be asked before others.
    pub(super) fn admits(&self) -> bool {
        self.breaker.lock().admits(self.started.elapsed())
    }

    fn record(&self, result: &Result<Response<Body>, Failure>) {
        let (word, succeeded) = match result {
            Ok(response) => (status_word(response.status()), Some(!response.status().is_server_error())),
            Err(failure) => (failure.word(), failure.is_upstreams().then_some(false)),
        };
        self.metrics.tried(&self.name, word);
        if let Some(succeeded) = succeeded {
            let mut breaker = self.breaker.lock();
            let was_open = breaker.is_open();
            breaker.record(succeeded, self.started.elapsed());
            let is_open = breaker.is_open();
            drop(breaker);
            if was_open != is_open {
                self.metrics.is_open(&self.name, is_open);
                tracing::warn!(upstream = self.name, is_open, "an upstream's breaker changed");
            }
        }
    }
}

impl<S> Service<Request<Body>> for Watched<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Failure>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Failure>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (answer, watch) = (self.inner.call(request), Arc::clone(&self.watch));
        Box::pin(async move {
            let result = answer.await;
            watch.record(&result);
            result
        })
    }
}

fn status_word(status: StatusCode) -> &'static str {
    match status {
        StatusCode::TOO_MANY_REQUESTS => "rate_limited",
        status if status.is_server_error() => "server_error",
        status if status.is_client_error() => "client_error",
        _ => "answered",
    }
}
