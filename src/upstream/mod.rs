//! The providers, as one service: a request in, a provider's answer or a gateway error out.
//!
//! Where a request goes is decided by configuration, its path and the model it names, never by anything else in it. With
//! one upstream a protocol, the default, bodies stream through unread.

mod address;
mod chain;
mod charge;
mod client;
mod failure;
mod health;
mod idle;
mod inspect;
pub mod judge;
mod key;
mod lane;
mod limit;
mod rate;
mod retry;
mod routes;
mod settings;
mod tls;
mod turns;
mod watch;

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Response, request};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tower_service::Service;

use crate::body::{Body, problem_response};
use crate::metrics::{Registry, UpstreamMetrics};
use crate::route::Resolve;
use crate::wire::outline::{Outline, with_model};
use crate::wire::problem::Problem;
use chain::{Call, Station, Stop};
use client::{Calls, Provider};
use routes::{Leg, Routes};
use watch::Watched;

pub use self::chain::Answered;
pub use self::client::{HttpClient, http_client};
pub use self::key::{InvalidKey, ProviderKey, WithOperatorsKey};
pub use self::settings::{
    ANTHROPIC, ANTHROPIC_URL, BreakerSettings, Endpoint, KeySource, OPENAI, OPENAI_URL, Protocol, QueueSettings,
    RateLimit, UpstreamSettings,
};

/// The configured providers.
#[derive(Clone)]
pub struct Upstream {
    set: Arc<Set>,
}

struct Set {
    routes: Arc<Routes>,
    /// As the routes' endpoints, in the same places.
    stations: Vec<Station>,
    body_bytes_max: usize,
    longest_wait: Duration,
}

impl Upstream {
    /// `keys` are the providers' own, by the upstream's name.
    ///
    /// # Errors
    /// The machine offers no usable TLS configuration.
    pub fn new(
        settings: UpstreamSettings,
        keys: &HashMap<String, ProviderKey>,
        registry: &mut Registry,
    ) -> Result<Self, rustls::Error> {
        let client = http_client(settings.connect_timeout)?;
        let metrics = UpstreamMetrics::register(registry);
        let station = |endpoint: &Endpoint| {
            let key = keys.get(&endpoint.name).cloned();
            let has_own_key = key.is_some() && !endpoint.is_default();
            let (head_timeout, idle_timeout) = (settings.head_timeout, settings.idle_timeout);
            let calls = Calls { endpoint: endpoint.clone(), key, head_timeout, idle_timeout };
            let provider = Provider::new(client.clone(), calls);
            let limited = limit::Limited::new(provider, endpoint.limit, settings.queue, has_own_key)
                .counted(metrics.queue(&endpoint.name));
            let service = Watched::new(limited, &endpoint.name, settings.breaker, metrics.clone());
            Station { name: endpoint.name.clone(), retries: endpoint.retries, service }
        };
        let stations = settings.endpoints.iter().map(station).collect();
        let routes = Arc::new(Routes::new(&settings));
        let (body_bytes_max, longest_wait) = (settings.body_bytes_max, settings.head_timeout);
        Ok(Self { set: Arc::new(Set { routes, stations, body_bytes_max, longest_wait }) })
    }

    /// Says where requests go, for whoever keeps their answers.
    pub fn resolver(&self) -> Arc<dyn Resolve> {
        Arc::clone(&self.set.routes) as Arc<dyn Resolve>
    }

    /// Names of the upstreams that failed again and again, and are asked last for a while.
    pub fn failing(&self) -> Vec<&str> {
        let failing = self.set.stations.iter().filter(|station| station.service.watch().is_open());
        failing.map(|station| station.name.as_str()).collect()
    }
}

impl Set {
    async fn send(&self, request: Request<Body>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let protocol = routes::protocol_of(parts.uri.path(), &parts.headers);
        if !self.must_be_read(&parts, &body) {
            return self.send_unread(Request::from_parts(parts, body), protocol).await;
        }
        let body = match read(body, self.body_bytes_max).await {
            Ok(body) => body,
            Err(problem) => return problem_response(&problem),
        };
        parts.headers.remove(TRANSFER_ENCODING);
        let outline = Outline::read(&body);
        let stops = match self.routes.route(protocol, &outline.model) {
            Some(route) => stops(&route.legs, &outline, &body),
            None => Vec::new(),
        };
        let (wants_stream, longest_wait) = (outline.wants_stream, self.longest_wait);
        chain::send(&self.stations, Call { parts, stops, wants_stream, longest_wait }).await
    }

    async fn send_unread(&self, request: Request<Body>, protocol: Protocol) -> Response<Body> {
        match self.routes.default_of(protocol).and_then(|place| self.stations.get(place)) {
            Some(station) => chain::send_once(station, request).await,
            None => failure::Failure::UnknownPath(request.uri().path().to_owned()).into_response(),
        }
    }

    /// Whether the body says where it goes, or may have to be sent twice.
    fn must_be_read(&self, parts: &request::Parts, body: &Body) -> bool {
        let media = parts.headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or("application/json");
        let is_json = media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json");
        let fits = body.size_hint().lower() <= self.body_bytes_max as u64;
        let names_model = parts.method == Method::POST && routes::names_model(parts.uri.path());
        let is_plain = |encoding: &HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"identity");
        let is_plain = parts.headers.get_all(CONTENT_ENCODING).iter().all(is_plain);
        names_model && is_json && fits && is_plain && self.routes.read_bodies()
    }
}

/// The upstreams of a route, each with the body that it is sent.
fn stops(legs: &[Leg], outline: &Outline, body: &Bytes) -> Vec<Stop> {
    let first = legs.first().map(|leg| leg.endpoint);
    let stop = |leg: &Leg| {
        let replaced = (leg.model != outline.model).then(|| with_model(body, &leg.model)).flatten();
        Stop {
            station: leg.endpoint,
            body: replaced.map_or_else(|| body.clone(), Bytes::from),
            is_substitute: first != Some(leg.endpoint),
        }
    };
    legs.iter().map(stop).collect()
}

async fn read(body: Body, limit: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::too_large(limit)),
        Err(error) => {
            let message = format!("the body could not be read: {error}");
            Err(Problem::new(http::StatusCode::BAD_REQUEST, "body_broken_off", message))
        }
    }
}

impl Service<Request<Body>> for Upstream {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let set = Arc::clone(&self.set);
        Box::pin(async move { Ok(set.send(request).await) })
    }
}
