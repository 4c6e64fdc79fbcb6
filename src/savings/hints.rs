//! Hints for Anthropic's prompt cache, behind nearhit's own: they change the bytes that go upstream, and no answer.
//!
//! Writing a prefix costs the provider's price and a quarter more, reading it a tenth: it pays from 1.3 uses on. That a prefix
//! came so often in the last five minutes is taken for a sign that it will again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::future::Either;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderValue};
use http::{Request, Response, request};
use http_body_util::BodyExt;
use tower_service::Service;

use super::Kind;
use super::rules::CacheHints;
use super::service::Shared;
use super::sightings::Key;
use crate::body::{Body, problem_response};
use crate::decision::Tenant;
use crate::room::broken_off;
use crate::wire::hint::{End, Prefixes, outline, with_hint};

/// In a response's extensions: a hint was put into its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hinted;

/// A service that is sent hints with requests whose extensions hold [`CacheHints`].
#[derive(Clone)]
pub struct HintedService<S> {
    shared: Arc<Shared>,
    inner: S,
}

impl<S> HintedService<S> {
    pub(super) fn new(shared: Arc<Shared>, inner: S) -> Self {
        Self { shared, inner }
    }
}

impl<S> Service<Request<Body>> for HintedService<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Some(hints) = request.extensions_mut().remove::<CacheHints>() else {
            return Either::Left(self.inner.call(request));
        };
        let waiting = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, waiting);
        let shared = Arc::clone(&self.shared);
        Either::Right(Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) => return Ok(problem_response(&broken_off(&error))),
            };
            let Some(hinted) = shared.hinted(&parts, &body, hints) else {
                return inner.call(Request::from_parts(parts, Body::from(body))).await;
            };
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(hinted.len()));
            let mut response = inner.call(Request::from_parts(parts, Body::from(hinted))).await?;
            response.extensions_mut().insert(Hinted);
            Ok(response)
        }))
    }
}

impl Shared {
    /// The body with a hint in it, where that will pay.
    fn hinted(&self, parts: &request::Parts, body: &[u8], hints: CacheHints) -> Option<Vec<u8>> {
        let prefixes = Prefixes::read(body)?;
        let now = Instant::now();
        let key = |what: &str, texts: [&str; 2]| key(parts, what, prefixes.model, texts);
        if let Some(system) = prefixes.system {
            let (like, exact) = (key("like", [&outline(system), ""]), key("exact", [system, ""]));
            if self.sightings.is_unlike(like, exact, now) {
                self.metrics.saved(Kind::UnstablePrompt.as_str());
                tracing::debug!(
                    system_bytes = system.len(),
                    "a system prompt came with another value in it: no provider's cache finds it again"
                );
            }
        }
        let pays = |end: End| {
            let (texts, tokens) = prefixes.ending(end)?;
            if tokens < hints.tokens_min {
                return None;
            }
            let uses = self.sightings.seen(key("prefix", texts), now);
            (uses as f64 >= hints.uses_min).then_some(end)
        };
        // Both are seen, whichever is used; the longer one saves more.
        let [system, tools] = [End::System, End::Tools].map(pays);
        system.into_iter().chain(tools).find_map(|end| with_hint(body, end))
    }
}

/// What is remembered is the caller's own: another tenant or provider key has other sightings.
fn key(parts: &request::Parts, what: &str, model: &str, texts: [&str; 2]) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key("nearhit 2026-11-22 sighting v1");
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    add(parts.extensions.get::<Tenant>().map_or("", Tenant::as_str).as_bytes());
    for name in [AUTHORIZATION.as_str(), "x-api-key"] {
        add(parts.headers.get(name).map_or(&[][..], HeaderValue::as_bytes));
    }
    [what, model, texts[0], texts[1]].iter().for_each(|text| add(text.as_bytes()));
    let mut key = Key::default();
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}
