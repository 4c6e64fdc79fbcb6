//! `grpc.health.v1`: what `/readyz` says, for whoever asks in gRPC.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt, unfold};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::super::App;
use super::pb::cache_service_server::SERVICE_NAME;

/// Whether the services serve.
pub(super) struct Readiness(Arc<App>);

impl Readiness {
    pub(super) fn new(app: &Arc<App>) -> Self {
        Self(Arc::clone(app))
    }
}

/// What one caller watches.
struct Watch {
    app: Arc<App>,
    service: String,
    /// True once the server stops.
    stopped: Option<watch::Receiver<bool>>,
    said: Option<ServingStatus>,
}

#[tonic::async_trait]
impl Health for Readiness {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let HealthCheckRequest { service } = request.into_inner();
        match status(&self.0, &service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!("service: {service:?} is not known"))),
            status => Ok(Response::new(said(status))),
        }
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let stopped = request.extensions().get::<watch::Receiver<bool>>().cloned();
        let HealthCheckRequest { service } = request.into_inner();
        let watch = Watch { app: Arc::clone(&self.0), service, stopped, said: None };
        let statuses = unfold(Some(watch), |watch| async move {
            let (status, watch) = watch?.next().await;
            Some((Ok(said(status)), watch))
        });
        Ok(Response::new(statuses.boxed()))
    }
}

impl Watch {
    /// The next status that differs from the last, and the watch unless that was its end: a stopping server waits for
    /// the calls on their way, and a watch would never end by itself.
    async fn next(mut self) -> (ServingStatus, Option<Self>) {
        loop {
            if self.stopped.as_ref().is_some_and(|stopped| *stopped.borrow()) {
                return (ServingStatus::NotServing, None);
            }
            let status = status(&self.app, &self.service);
            if self.said != Some(status) {
                self.said = Some(status);
                return (status, Some(self));
            }
            match &mut self.stopped {
                None => tokio::time::sleep(POLL).await,
                // Stopped, or a moment later: either way it is looked at again.
                Some(stopped) => match timeout(POLL, stopped.changed()).await {
                    Ok(Ok(())) | Err(_) => {}
                    Ok(Err(_)) => self.stopped = None,
                },
            }
        }
    }
}

fn status(app: &App, service: &str) -> ServingStatus {
    match service {
        "" | SERVICE_NAME if app.cache.health().loading => ServingStatus::NotServing,
        "" | SERVICE_NAME => ServingStatus::Serving,
        _ => ServingStatus::ServiceUnknown,
    }
}

fn said(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// How soon a watcher learns of a change.
const POLL: Duration = Duration::from_secs(1);
