//! The rules as a tower service in front of the cache.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::Either;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use tower_service::Service;

use super::hints::{Hinted, HintedService};
use super::rewrite::{Rewritten, rewritten};
use super::rules::{PATHS, SavingsRules};
use super::sightings::Sightings;
use super::stopping::Stopping;
use super::{Kind, Saved};
use crate::body::{Body, BoxError, check_media, is_encoded, problem_response, shaped};
use crate::decision::{Outcome, Tier};
use crate::metrics::{Registry, SavingsMetrics};
use crate::room::{Reading, Room, Taken, take};
use crate::wire::controls::header;
use crate::wire::stop::StreamWatch;

/// The rules, and what they are counted by.
#[derive(Clone)]
pub struct Savings {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) rules: SavingsRules,
    /// How request bodies are read, and what is held of them.
    reading: Reading,
    bodies: Arc<Room>,
    pub(super) metrics: SavingsMetrics,
    pub(super) sightings: Arc<Sightings>,
}

impl Savings {
    /// `reading` says how large a body may be, and how slow; all of them have room in `bodies`.
    pub fn new(rules: SavingsRules, reading: Reading, bodies: Arc<Room>, registry: &mut Registry) -> Self {
        let metrics = SavingsMetrics::register(registry);
        Self { shared: Arc::new(Shared { rules, reading, bodies, metrics, sightings: Arc::default() }) }
    }

    /// Under other rules, with what was seen and counted.
    pub fn renewed(&self, rules: SavingsRules) -> Self {
        let Shared { rules: _, reading, bodies, metrics, sightings } = &*self.shared;
        let (bodies, metrics, sightings) = (Arc::clone(bodies), metrics.clone(), Arc::clone(sightings));
        Self { shared: Arc::new(Shared { rules, reading: *reading, bodies, metrics, sightings }) }
    }

    /// In front of the cache: changes requests, and ends streams.
    pub fn before_cache<S>(&self, inner: S) -> SavingsService<S> {
        SavingsService { shared: Arc::clone(&self.shared), inner }
    }

    /// Behind the cache: puts hints for the provider into what goes upstream.
    pub fn behind_cache<S>(&self, inner: S) -> HintedService<S> {
        HintedService::new(Arc::clone(&self.shared), inner)
    }
}

/// A service with the rules in front of it.
#[derive(Clone)]
pub struct SavingsService<S> {
    shared: Arc<Shared>,
    inner: S,
}

impl<S, B> Service<Request<B>> for SavingsService<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !self.shared.is_for(&request) {
            return Either::Left(self.inner.call(request.map(Body::new)));
        }
        let waiting = self.inner.clone();
        // The clone that was polled ready is the one to call.
        let inner = std::mem::replace(&mut self.inner, waiting);
        Either::Right(Box::pin(Arc::clone(&self.shared).send(inner, request)))
    }
}

impl Shared {
    /// Whether a rule may be about the request, and can read it. Any other is refused, or not understood, further on.
    fn is_for<B>(&self, request: &Request<B>) -> bool {
        !self.rules.is_empty()
            && request.method() == Method::POST
            && PATHS.contains(&path(request.uri()).as_ref())
            && check_media(request.headers()).is_ok()
    }

    async fn send<S, B>(self: Arc<Self>, mut inner: S, request: Request<B>) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut parts, body) = request.into_parts();
        // Given back before the layer takes as much.
        let mut share = self.bodies.share();
        let taken = take(body, self.reading, &mut share).await;
        drop(share);
        let body = match taken {
            Ok(Taken::Whole(body)) => body,
            // Nor has the layer.
            Ok(Taken::Begun(begun)) => return inner.call(Request::from_parts(parts, Body::new(begun))).await,
            Err(problem) => return Ok(shaped(&path(&parts.uri), problem_response(&problem), |body| body)),
        };
        let tag = parts.headers.get(&header::ROUTE).and_then(|tag| tag.to_str().ok());
        let Rewritten { body, mut saved, watch, hints } = rewritten(&self.rules, &path(&parts.uri), tag, body);
        parts.headers.remove(TRANSFER_ENCODING);
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        hints.map(|hints| parts.extensions.insert(hints));
        let mut response = inner.call(Request::from_parts(parts, Body::from(body))).await?;
        if response.extensions_mut().remove::<Hinted>().is_some() {
            saved.push(Saved::plain(Kind::CacheControl));
        }
        let watch = watch.filter(|_| is_fresh_stream(&response));
        if watch.is_none() {
            saved.retain(|saved| saved.kind != Kind::Watched);
        }
        saved.iter().for_each(|saved| self.metrics.saved(saved.kind.as_str()));
        say(response.headers_mut(), &saved);
        Ok(match watch {
            Some(watch) => self.watched(response, watch),
            None => response,
        })
    }

    fn watched(self: Arc<Self>, response: Response<Body>, watch: StreamWatch) -> Response<Body> {
        let (mut parts, body) = response.into_parts();
        // It may get shorter.
        parts.headers.remove(CONTENT_LENGTH);
        let stopped = move || self.metrics.saved(Kind::StoppedEarly.as_str());
        Response::from_parts(parts, Body::new(Stopping::new(body, watch, stopped)))
    }
}

/// The path as a server may read it that decodes what is escaped.
fn path(uri: &Uri) -> Cow<'_, str> {
    percent_decode_str(uri.path()).decode_utf8_lossy()
}

/// Whether the answer is a stream that still costs something: one from the cache does not.
fn is_fresh_stream(response: &Response<Body>) -> bool {
    let headers = response.headers();
    let is = |name, value: &str| headers.get(name).is_some_and(|header| header.as_bytes() == value.as_bytes());
    let is_kept = is(header::OUTCOME, Outcome::Hit.as_str()) && !is(header::TIER, Tier::Joined.as_str());
    let media = headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    response.status() == StatusCode::OK
        && !is_kept
        && !is_encoded(headers)
        && media.split(';').next().is_some_and(|media| media.trim() == "text/event-stream")
}

/// Says what was done.
fn say(headers: &mut HeaderMap, saved: &[Saved]) {
    let words: Vec<String> = saved.iter().map(ToString::to_string).collect();
    if let Ok(value) = HeaderValue::from_str(&words.join(", "))
        && !words.is_empty()
    {
        headers.insert(header::SAVED, value);
    }
}
