//! The whole cache as a tower layer over `http::Request`: what a gateway mounts, and what nearhit's own proxy is.
//!
//! A `POST` to a path whose answers are cached (`/v1/chat/completions` and its like) is looked up; a hit is answered here,
//! a miss goes to the inner service with the bytes it came with, and its answer is recorded while it streams to the
//! client. Everything else passes through untouched.
//! Whose entries are used is said by a [`Tenant`] in the request's extensions; without one nothing is cached.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{ACCEPT_ENCODING, AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio_util::task::TaskTracker;
use tower_layer::Layer;
use tower_service::Service;

use crate::body::{Body, BoxError, problem_response, shaped};
use crate::cache::{Cache, Judged, Lookup, Match, Miss, Query};
use crate::decision::{Attributes, Embedding, Outcome, Prompt, Reason, Tenant};
use crate::record::Keep;
use crate::replay::Pace;
use crate::store::Owner;
use crate::wire::answer::{Fresh, Replay};
use crate::wire::controls::{Controls, OWN_HEADER_PREFIX, header};
use crate::wire::json;
use crate::wire::problem::Problem;
use crate::wire::request::{ANSWER_HEADERS, OWN_FIELDS, ProviderRequest, Surroundings, is_anthropic, is_cacheable};

/// How the layer behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSettings {
    /// Names the upstream behind the layer: answers of one are never served for another.
    pub upstream: String,
    /// The same of the upstream for Anthropic's paths.
    pub anthropic_upstream: String,
    /// Above this temperature a request bypasses the cache.
    pub temperature_max: Option<f64>,
    /// Largest request body.
    pub body_bytes_max: usize,
    /// Largest answer that is kept.
    pub answer_bytes_max: usize,
    /// Longest that a request waits for its embedding before it goes upstream.
    pub patience: Duration,
    /// How fast streamed hits are sent.
    pub replay: Pace,
}

impl Default for LayerSettings {
    /// 32 MiB is Anthropic's own limit, so nothing is refused that a provider would take.
    fn default() -> Self {
        Self {
            upstream: String::new(),
            anthropic_upstream: String::new(),
            temperature_max: None,
            body_bytes_max: 32 << 20,
            answer_bytes_max: 1 << 20,
            patience: Duration::from_millis(250),
            replay: Pace::default(),
        }
    }
}

impl LayerSettings {
    /// The upstream that a path's requests go to.
    pub(crate) fn upstream_of(&self, path: &str) -> &str {
        if is_anthropic(path) { &self.anthropic_upstream } else { &self.upstream }
    }
}

/// Wraps a service that answers provider requests with the cache.
#[derive(Clone)]
pub struct CacheLayer {
    gate: Arc<Gate>,
}

/// What every call through the layer shares.
struct Gate {
    cache: Arc<Cache>,
    settings: LayerSettings,
    tasks: TaskTracker,
}

impl CacheLayer {
    /// `tasks` runs the storing of answers that have been sent; wait for it before the process ends.
    pub fn new(cache: Arc<Cache>, settings: LayerSettings, tasks: TaskTracker) -> Self {
        Self { gate: Arc::new(Gate { cache, settings, tasks }) }
    }
}

impl<S> Layer<S> for CacheLayer {
    type Service = CacheService<S>;

    fn layer(&self, inner: S) -> CacheService<S> {
        CacheService { gate: Arc::clone(&self.gate), inner }
    }
}

/// A service with the cache in front of it.
#[derive(Clone)]
pub struct CacheService<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S, B> Service<Request<B>> for CacheService<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let gate = Arc::clone(&self.gate);
        let waiting = self.inner.clone();
        // The clone that was polled ready is the one to call.
        let inner = std::mem::replace(&mut self.inner, waiting);
        let path = request.uri().path().to_owned();
        Box::pin(async move { Ok(shaped(&path, gate.answer(inner, request).await?, |body| body)) })
    }
}

/// A provider request that has been read.
struct Read {
    /// The bytes to forward.
    body: Bytes,
    only_if_cached: bool,
    /// What it asks, or why that is not for the cache.
    asked: Result<Asked, Reason>,
}

/// A provider request that may be served from the cache.
struct Asked {
    request: ProviderRequest,
    controls: Controls,
    prompt: Prompt,
    /// When it came.
    came: Instant,
}

impl Gate {
    async fn answer<S, B>(self: Arc<Self>, inner: S, request: Request<B>) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
        S::Future: Send,
        S::Error: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut parts, body) = request.into_parts();
        if parts.method != Method::POST || !is_cacheable(parts.uri.path()) {
            strip_own_headers(&mut parts.headers);
            return self.pass(inner, Request::from_parts(parts, Body::new(body)), Reason::NotCacheable).await;
        }
        let Read { body, only_if_cached, asked } = match self.read(&parts, body).await {
            Ok(read) => read,
            Err(problem) => return Ok(problem_response(&problem)),
        };
        strip_own_headers(&mut parts.headers);
        let forward = |body: Bytes| {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            Request::from_parts(parts, Body::from(body))
        };
        let asked = match asked {
            Ok(asked) => asked,
            Err(reason) if only_if_cached => {
                self.cache.metrics().bypass(reason);
                return Ok(not_cached(Outcome::Bypass, reason));
            }
            Err(reason) => return self.pass(inner, forward(body), reason).await,
        };
        self.hear(&asked);
        let miss = if asked.controls.refresh {
            self.cache.missed(&asked.prompt, Reason::Refresh);
            Miss::because(Reason::Refresh)
        } else {
            let query = Query {
                terms: asked.controls.terms,
                patience: Some(self.settings.patience),
                is_comparable: !only_if_cached,
                ..Query::new(asked.prompt.clone())
            };
            match self.lookup(&query).await {
                Lookup::Hit(matches) => match matches.into_iter().next() {
                    Some(found) => {
                        let response = hit_response(&asked.request, &found, self.settings.replay);
                        if let Some(judged) = found.judged.filter(Judged::is_audited) {
                            self.audit(inner, forward(body), asked, judged);
                        }
                        return Ok(response);
                    }
                    None => Miss::because(Reason::NoCandidate),
                },
                Lookup::Miss(miss) => miss,
            }
        };
        if only_if_cached {
            return Ok(not_cached(miss.outcome(), miss.reason));
        }
        let mut response = call(inner, recordable(forward(body))).await?;
        match &miss.shadow {
            Some(found) => stamp_shadow(response.headers_mut(), found),
            None => stamp(response.headers_mut(), Outcome::Miss, miss.reason),
        }
        let status = response.status();
        Ok(self.keep(asked, status, miss.vector, miss.judged, false).record(response))
    }

    fn keep(
        &self,
        asked: Asked,
        status: StatusCode,
        vector: Option<Embedding>,
        judged: Option<Judged>,
        is_audit: bool,
    ) -> Keep {
        let Asked { request, controls, prompt, came } = asked;
        let (cache, tasks) = (Arc::clone(&self.cache), self.tasks.clone());
        let answer_bytes_max = self.settings.answer_bytes_max;
        Keep { cache, tasks, answer_bytes_max, request, controls, prompt, came, vector, status, judged, is_audit }
    }

    /// Asks upstream for an answer that was served already, in the background, to see whether it was right.
    fn audit<S>(self: Arc<Self>, inner: S, request: Request<Body>, asked: Asked, judged: Judged)
    where
        S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
        S::Future: Send,
        S::Error: Send,
    {
        self.tasks.clone().spawn(async move {
            let Ok(response) = call(inner, recordable(request)).await else { return };
            let status = response.status();
            let response = self.keep(asked, status, None, Some(judged), true).record(response);
            // Recorded as it passes: nobody else reads it.
            let mut body = pin!(response.into_body());
            while let Some(Ok(_)) = body.frame().await {}
        });
    }

    /// Takes what the caller says of earlier answers.
    fn hear(&self, asked: &Asked) {
        let scope = &asked.prompt.scope;
        for (id, is_right) in asked.controls.feedback.clone() {
            let cache = Arc::clone(&self.cache);
            let owner = Owner { tenant: scope.tenant.clone(), cache: scope.cache.clone() };
            self.tasks.spawn(async move {
                match cache.feedback(&owner, id, is_right, None).await {
                    Ok(true) => {}
                    Ok(false) => tracing::info!(entry = %id, "feedback on an entry that is not there"),
                    Err(error) => tracing::warn!(%error, "could not take feedback"),
                }
            });
        }
    }

    /// A fault of the cache, even a panic of one of its parts, is a miss.
    async fn lookup(&self, query: &Query) -> Lookup {
        match AssertUnwindSafe(self.cache.lookup(query)).catch_unwind().await {
            Ok(lookup) => lookup,
            Err(_) => {
                tracing::error!("a lookup panicked");
                Lookup::Miss(Miss::because(Reason::StoreDown))
            }
        }
    }

    /// Sends the request on and the answer back, unrecorded.
    async fn pass<S>(&self, inner: S, request: Request<Body>, reason: Reason) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
    {
        self.cache.metrics().bypass(reason);
        let mut response = call(inner, request).await?;
        stamp(response.headers_mut(), Outcome::Bypass, reason);
        Ok(response)
    }

    async fn read<B>(&self, parts: &request::Parts, body: B) -> Result<Read, Problem>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        check_media(&parts.headers)?;
        let bytes = read_body(body, self.settings.body_bytes_max).await?;
        let value = json::parse(&bytes).map_err(|error| Problem::not_json(&error, &bytes))?;
        let request = ProviderRequest::new(parts.uri.path(), value)
            .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body {error}")))?;
        let (body_cache, body_own) = (request.own_field("cache"), request.own_field("nearhit"));
        let controls = Controls::read(&parts.headers, body_cache, body_own)?;
        let body = if body_cache.is_some() || body_own.is_some() {
            json::without_fields(&bytes, OWN_FIELDS).map_err(|error| Problem::not_json(&error, &bytes))?.into()
        } else {
            bytes
        };
        Ok(Read { body, only_if_cached: controls.only_if_cached, asked: self.asked(parts, request, controls) })
    }

    fn asked(&self, parts: &request::Parts, request: ProviderRequest, controls: Controls) -> Result<Asked, Reason> {
        let tenant = parts.extensions.get::<Tenant>().ok_or(Reason::NoTenant)?.clone();
        if controls.no_store {
            return Err(Reason::NoStore);
        }
        // A query may change the answer, and nobody knows how.
        if parts.uri.query().is_some() {
            return Err(Reason::NotCacheable);
        }
        let prompt = request.prompt(Surroundings {
            tenant,
            cache: controls.cache.clone(),
            upstream: self.settings.upstream_of(request.path()).to_owned(),
            headers: answer_headers(&parts.headers),
            attributes: Attributes::new(),
            vars: controls.vars.clone(),
            temperature_max: self.settings.temperature_max,
        })?;
        Ok(Asked { request, controls, prompt, came: Instant::now() })
    }
}

async fn call<S: Service<Request<Body>>>(mut inner: S, request: Request<Body>) -> Result<S::Response, S::Error> {
    inner.call(request).await
}

pub(crate) fn check_media(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported =
        |message: String| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message);
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return Err(unsupported(format!("content-encoding {encoding:?} is not accepted; send the body as it is")));
    }
    let media = headers.get(CONTENT_TYPE).map(|t| t.to_str().unwrap_or_default().to_ascii_lowercase());
    match media.as_deref().map(|t| t.split(';').next().unwrap_or_default().trim()) {
        None | Some("application/json") => Ok(()),
        Some(other) => Err(unsupported(format!("content-type {other:?} is not accepted; send application/json"))),
    }
}

/// Reads a whole body, up to `limit` bytes.
pub(crate) async fn read_body<B>(body: B, limit: usize) -> Result<Bytes, Problem>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    match Limited::new(body.as_mut(), limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            discard(body, limit).await;
            Err(Problem::too_large(limit))
        }
        Err(error) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "body_broken_off",
            format!("the body could not be read: {error}"),
        )),
    }
}

/// Reads on and forgets, up to `limit` bytes: most clients send all they have before they listen, and one that is
/// still sending when the connection closes never learns why.
async fn discard<B>(mut body: Pin<&mut B>, limit: usize)
where
    B: http_body::Body<Data = Bytes>,
{
    let reading = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > limit {
                break;
            }
        }
    };
    if tokio::time::timeout(DISCARD_TIME, reading).await.is_err() {
        tracing::debug!("a body that is too large came too slowly to be read to its end");
    }
}

/// The headers that an answer depends on.
pub(crate) fn answer_headers(headers: &HeaderMap) -> Attributes {
    let value = |name: &str| {
        // Escaped, so that values which are no text count too.
        let values: Vec<String> =
            headers.get_all(name).iter().map(|value| value.as_bytes().escape_ascii().to_string()).collect();
        (!values.is_empty()).then(|| (name.to_owned(), values.join(", ")))
    };
    ANSWER_HEADERS.iter().filter_map(|name| value(name)).collect()
}

fn strip_own_headers(headers: &mut HeaderMap) {
    let own: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(OWN_HEADER_PREFIX)).cloned().collect();
    own.into_iter().for_each(|name| drop(headers.remove(name)));
}

/// A request whose answer can be recorded: a compressed one could not.
fn recordable(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    request
}

fn hit_response(request: &ProviderRequest, found: &Match, pace: Pace) -> Response<Body> {
    let now_s = (found.entry.life.created_ms + found.age_ms) / 1000;
    let fresh = Fresh { nonce: fastrand::u128(..), now_s };
    let schedule = pace.schedule(&found.entry.answer);
    let (media, body) = match request.replay(&found.entry.answer, &fresh, schedule.piece_bytes) {
        Replay::Json(body) => ("application/json", Body::from(body)),
        Replay::Events(events) => ("text/event-stream", schedule.body(events)),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::OUTCOME, HeaderValue::from_static(Outcome::Hit.as_str()));
    headers.insert(header::CACHE_STATUS, HeaderValue::from_static("HIT"));
    headers.insert(AGE, HeaderValue::from(found.age_ms / 1000));
    insert_match(headers, found);
    response
}

/// What was found, and how near it is.
fn insert_match(headers: &mut HeaderMap, found: &Match) {
    headers.insert(header::TIER, HeaderValue::from_static(found.tier.as_str()));
    insert_text(headers, header::ENTRY, &found.entry.id.to_string());
    insert_text(headers, header::SIMILARITY, &format!("{:.4}", found.similarity.get()));
    if let Some(probability) = found.probability {
        insert_text(headers, header::PROBABILITY, &format!("{:.4}", probability.get()));
    }
}

/// What a cache that only watches would have served.
fn stamp_shadow(headers: &mut HeaderMap, found: &Match) {
    stamp(headers, Outcome::Shadow, Reason::Audit);
    headers.remove(header::REASON);
    insert_match(headers, found);
}

/// The answer to a client that wants the cache's answer or none.
fn not_cached(outcome: Outcome, reason: Reason) -> Response<Body> {
    let problem = Problem::new(StatusCode::GATEWAY_TIMEOUT, "only_if_cached", "no answer in the cache");
    let mut response = problem_response(&problem);
    stamp(response.headers_mut(), outcome, reason);
    response
}

/// What became of a request that was not served from the cache. Another nearhit behind this one has no say in it.
fn stamp(headers: &mut HeaderMap, outcome: Outcome, reason: Reason) {
    strip_own_headers(headers);
    let status = if outcome == Outcome::Bypass { "BYPASS" } else { "MISS" };
    headers.insert(header::OUTCOME, HeaderValue::from_static(outcome.as_str()));
    headers.insert(header::REASON, HeaderValue::from_static(reason.as_str()));
    headers.insert(header::CACHE_STATUS, HeaderValue::from_static(status));
}

fn insert_text(headers: &mut HeaderMap, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Longest time that is spent on reading what is refused.
const DISCARD_TIME: Duration = Duration::from_secs(5);
