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

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TRANSFER_ENCODING};
use http::{Method, Request, Response, request};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tower_service::Service;

use crate::body::{Body, is_encoded, problem_response};
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
    /// What they were made from.
    settings: UpstreamSettings,
    keys: HashMap<String, ProviderKey>,
    client: HttpClient,
    metrics: UpstreamMetrics,
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
        Ok(Self::of(settings, keys, client, UpstreamMetrics::register(registry), None))
    }

    /// Other providers, for calls to come. One that is there as before keeps its connections, its breaker, and what was
    /// spent of its limit. Calls on their way go on with those of before.
    ///
    /// # Errors
    /// The machine offers no usable TLS configuration.
    pub fn renewed(
        &self,
        settings: UpstreamSettings,
        keys: &HashMap<String, ProviderKey>,
    ) -> Result<Self, rustls::Error> {
        let Set { settings: before, client, metrics, .. } = &*self.set;
        let client = match settings.connect_timeout == before.connect_timeout {
            true => client.clone(),
            false => http_client(settings.connect_timeout)?,
        };
        Ok(Self::of(settings, keys, client, metrics.clone(), Some(&self.set)))
    }

    /// Takes those out of the metrics that `successor` does not have.
    pub fn retire(&self, successor: &Self) {
        let has = |name: &String| successor.set.stations.iter().any(|station| station.name == *name);
        let gone = self.set.stations.iter().map(|station| &station.name).filter(|name| !has(name));
        gone.for_each(|name| self.set.metrics.is_gone(name));
    }

    fn of(
        settings: UpstreamSettings,
        keys: &HashMap<String, ProviderKey>,
        client: HttpClient,
        metrics: UpstreamMetrics,
        before: Option<&Set>,
    ) -> Self {
        let station = |endpoint: &Endpoint| {
            let key = keys.get(&endpoint.name).cloned();
            let has_own_key = key.is_some() && !endpoint.is_default();
            let (head_timeout, idle_timeout) = (settings.head_timeout, settings.idle_timeout);
            let same = before.and_then(|before| before.same(endpoint));
            let is_limited_alike = same.is_some_and(|(was, _)| {
                let before_key = before.and_then(|before| before.keys.get(&endpoint.name));
                let has_same_queue = before.is_some_and(|before| before.settings.queue == settings.queue);
                was.limit == endpoint.limit && has_same_queue && before_key == key.as_ref()
            });
            let calls = Calls { endpoint: endpoint.clone(), key, head_timeout, idle_timeout };
            let provider = Provider::new(client.clone(), calls);
            let limited = match same.filter(|_| is_limited_alike) {
                Some((_, station)) => station.service.inner().follow(provider),
                None => limit::Limited::new(provider, endpoint.limit, settings.queue, has_own_key)
                    .counted(metrics.queue(&endpoint.name)),
            };
            let is_watched_alike = before.is_some_and(|before| before.settings.breaker == settings.breaker);
            let service = match same.filter(|_| is_watched_alike) {
                Some((_, station)) => station.service.follow(limited),
                None => Watched::new(limited, &endpoint.name, settings.breaker, metrics.clone()),
            };
            Station { name: endpoint.name.clone(), retries: endpoint.retries, service }
        };
        let stations = settings.endpoints.iter().map(station).collect();
        let routes = Arc::new(Routes::new(&settings));
        Self { set: Arc::new(Set { routes, stations, keys: keys.clone(), client, metrics, settings }) }
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
    /// The provider of an endpoint, as it was called here.
    fn same(&self, endpoint: &Endpoint) -> Option<(&Endpoint, &Station)> {
        let is_same =
            |was: &&Endpoint| was.name == endpoint.name && was.protocol == endpoint.protocol && was.url == endpoint.url;
        let was = self.settings.endpoints.iter().find(is_same)?;
        Some((was, self.stations.iter().find(|station| station.name == was.name)?))
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let protocol = routes::protocol_of(parts.uri.path(), &parts.headers);
        if !self.must_be_read(&parts, &body) {
            return self.send_unread(Request::from_parts(parts, body), protocol).await;
        }
        let body = match read(body, self.settings.body_bytes_max).await {
            Ok(body) => body,
            Err(problem) => return problem_response(&problem),
        };
        parts.headers.remove(TRANSFER_ENCODING);
        let outline = Outline::read(&body);
        let stops = match self.routes.route(protocol, &outline.model) {
            Some(route) => stops(&route.legs, &outline, &body),
            None => Vec::new(),
        };
        let (wants_stream, longest_wait) = (outline.wants_stream, self.settings.head_timeout);
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
        let fits = body.size_hint().lower() <= self.settings.body_bytes_max as u64;
        let names_model = parts.method == Method::POST && routes::names_model(parts.uri.path());
        names_model && is_json && fits && !is_encoded(&parts.headers) && self.routes.read_bodies()
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
