//! gRPC on the data listener: the cache API as `nearhit.v1.CacheService`, Envoy's external processing, health and reflection.
//!
//! The same functions answer as for HTTP; what is here reads their bodies from messages and writes their answers to them.

mod call;
mod codec;
mod convert;
mod ext_proc;
mod health;
mod service;
mod status;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::post_service;
use tonic::server::NamedService;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;
use tower_service::Service;

use self::pb::cache_service_server::CacheServiceServer;
use super::{App, auth};

/// What proto/ was compiled to.
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "tonic's generator writes them into what it generates"
)]
mod pb {
    tonic::include_proto!("nearhit.v1");

    pub(super) const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("nearhit.v1");
}

/// The services, each below its name. Only the cache's asks whose call it is; Envoy's asks of each request that it carries.
pub(super) fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    let cache = CacheServiceServer::new(service::Calls::new(app)).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let cache = serving(cache).layer(from_fn_with_state(Arc::clone(app), auth::identify));
    let reflection = || {
        let described = Builder::configure().register_encoded_file_descriptor_set(pb::DESCRIPTORS);
        described.register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    #[expect(clippy::expect_used, reason = "the descriptors were written when this was built")]
    let (v1, v1alpha) = (
        reflection().build_v1().expect("the build's descriptors are whole"),
        reflection().build_v1alpha().expect("the build's descriptors are whole"),
    );
    cache
        .merge(serving(HealthServer::new(health::Readiness::new(app))))
        .merge(serving(ext_proc::service(app)))
        .merge(serving(v1))
        .merge(serving(v1alpha))
        .layer(from_fn(call::answer))
}

fn serving<S>(service: S) -> Router<Arc<App>>
where
    S: Service<Request, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
    S::Response: IntoResponse,
    S::Future: Send,
{
    Router::new().route(&format!("/{}/{{*method}}", S::NAME), post_service(service))
}

/// What gRPC's libraries send and take unless they are told otherwise.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
