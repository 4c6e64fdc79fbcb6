//! Envoy's external processing: nearhit as a filter in somebody else's gateway.
//!
//! One stream is one HTTP request that passes Envoy. A hit is answered in place of the provider; anything else goes where
//! Envoy sends it, and the answer is recorded as it passes. The layer decides all of it, as for the proxy. A stream never
//! ends with an error: whatever is wrong, Envoy goes on without nearhit.

mod exchange;
mod hop;
mod message;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::ConnectInfo;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use self::exchange::Exchange;
use self::pb::external_processor_server::{ExternalProcessor, ExternalProcessorServer};
use self::pb::{ProcessingRequest, ProcessingResponse};
use super::super::App;

/// What Envoy's protocol was compiled to.
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::enum_variant_names,
    reason = "tonic's generator writes them into what it generates, and the names are Envoy's"
)]
mod pb {
    tonic::include_proto!("envoy.service.ext_proc.v3");
}

/// The service. Whose call a request is stands in the request, not in the stream that carries it.
pub(super) fn service(app: &Arc<App>) -> ExternalProcessorServer<Processor> {
    let processor = Processor { app: Arc::clone(app) };
    let body_bytes_max = app.live().settings().layer.body_bytes_max;
    ExternalProcessorServer::new(processor).max_decoding_message_size(body_bytes_max + AROUND_BODY_BYTES)
}

/// Answers streams.
pub(super) struct Processor {
    app: Arc<App>,
}

#[tonic::async_trait]
impl ExternalProcessor for Processor {
    type ProcessStream = BoxStream<'static, Result<ProcessingResponse, Status>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().copied();
        let (say, said) = mpsc::channel(1);
        let exchange = Exchange::new(request.into_inner(), say);
        let app = Arc::clone(&self.app);
        // Nobody else's request can wait for what one stream is shown, and what Envoy sends in place of a provider is whole.
        let layer = app.live().around_one();
        // In a task of its own: a panic ends this stream, and not the connection that carries all of Envoy's.
        self.app.tasks.spawn(async move {
            if exchange.run(&app, &layer, peer).await.is_none() {
                tracing::debug!("Envoy left before its request was answered");
            }
        });
        let answers = unfold(said, |mut said| async move { Some((Ok(said.recv().await?), said)) });
        Ok(Response::new(answers.boxed()))
    }
}

/// Beside a body, a message has room for so many bytes.
const AROUND_BODY_BYTES: usize = 1 << 20;
