//! The whole cache as a tower layer over `http::Request`: what a gateway mounts, and what nearhit's own proxy is.
//!
//! A `POST` to a path whose answers are cached (`/v1/chat/completions` and its like) is looked up; a hit is answered here,
//! a miss goes to the inner service with the bytes it came with, and its answer is recorded while it streams to the
//! client. Everything else passes through untouched.
//! Whose entries are used is said by a [`Tenant`] in the request's extensions; without one nothing is cached.

mod settings;
mod unread;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{ACCEPT_ENCODING, AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode, request};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tower_layer::Layer;
use tower_service::Service;

pub use self::settings::LayerSettings;
use crate::body::{Body, BoxError, Flushes, problem_response, shaped};
use crate::cache::{Cache, Company, Held, Judged, Lookup, Match, Miss, Query, Tiers};
use crate::decision::{Attributes, Embedding, EntryId, Fingerprint, Outcome, Prompt, Reason, Tenant, Terms, Tier};
use crate::flight::{Boarding, FlightKey, Flights, Landing, Seat};
use crate::judge::PacedJudge;
use crate::record::Keep;
use crate::room::{Share, Taken};
use crate::route::{Elsewhere, KEY_HEADERS, Priority, Resolved, Substitute};
use crate::stamp::{hit_response, not_cached, stamp, stamp_shadow, strip_own_headers};
use crate::store::Owner;
use crate::wire::compat;
use crate::wire::controls::{Controls, header};
use crate::wire::json;
use crate::wire::problem::Problem;
use crate::wire::request::{ANSWER_HEADERS, GATEWAY_HEADERS, OWN_FIELDS, ProviderRequest, Surroundings, is_cacheable};

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
    flights: Arc<Flights>,
    judge: Option<Arc<PacedJudge>>,
    /// A permit for each audit on its way.
    audits: Arc<Semaphore>,
}

impl CacheLayer {
    /// `tasks` runs the storing of answers that have been sent; wait for it before the process ends.
    pub fn new(cache: Arc<Cache>, settings: LayerSettings, tasks: TaskTracker) -> Self {
        Self::with_judge(cache, settings, tasks, None)
    }

    /// The same with whoever judges where a cache's policy says [`Judge::Model`](crate::decision::Judge::Model).
    pub fn with_judge(
        cache: Arc<Cache>,
        settings: LayerSettings,
        tasks: TaskTracker,
        judge: Option<Arc<PacedJudge>>,
    ) -> Self {
        let audits = Arc::new(Semaphore::new(AUDITS_MAX));
        let flights = Arc::new(Flights::new(cache.metrics().flights()));
        Self { gate: Arc::new(Gate { cache, settings, tasks, flights, judge, audits }) }
    }

    /// A layer that behaves otherwise over the same cache. Calls on their way through this one go on as they began, and
    /// are shared with equal calls through that.
    pub fn renewed(&self, settings: LayerSettings, judge: Option<Arc<PacedJudge>>) -> Self {
        let Gate { cache, settings: _, tasks, flights, judge: _, audits } = &*self.gate;
        let (cache, tasks) = (Arc::clone(cache), tasks.clone());
        let (flights, audits) = (Arc::clone(flights), Arc::clone(audits));
        Self { gate: Arc::new(Gate { cache, settings, tasks, flights, judge, audits }) }
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
        let flushes = request.extensions().get::<Flushes>().cloned();
        Box::pin(async move {
            let mut share = gate.settings.bodies.share();
            let response = shaped(&path, gate.answer(inner, request, &mut share).await?, |body| body);
            Ok(unread::holding(response, share).map(|body| body.late(flushes)))
        })
    }
}

/// A provider request that has been read.
struct Read {
    /// The bytes to forward.
    body: Bytes,
    only_if_cached: bool,
    /// What the caller says of earlier answers.
    feedback: Vec<(EntryId, bool)>,
    owner: Option<Owner>,
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
    /// With whose keys, and how urgent it is.
    caller: Caller,
}

/// What differs between callers of one tenant.
struct Caller {
    keys: [Option<HeaderValue>; KEY_HEADERS.len()],
    priority: Priority,
}

impl Asked {
    fn owner(&self) -> Owner {
        Owner { tenant: self.prompt.scope.tenant.clone(), cache: self.prompt.scope.cache.clone() }
    }

    /// The question with its scope, the bytes that ask it, with whose keys, and what is kept with the answer: whoever
    /// differs in nothing of it would get the same answer, or the same refusal.
    fn flight_key(&self, body: &Bytes) -> FlightKey {
        let Controls { ttl, ttl_most, read_only, tags, sources, .. } = &self.controls;
        let mut hasher = blake3::Hasher::new_derive_key("nearhit 2026-11-22 flight v2");
        hasher.update(&Fingerprint::split(&self.prompt).0.exact);
        hasher.update(blake3::hash(body).as_bytes());
        hasher.update(&self.form());
        hasher.update(format!("{:?}", (ttl, ttl_most, read_only, tags, sources)).as_bytes());
        *hasher.finalize().as_bytes()
    }

    /// With whose keys it is asked, how urgent it is, and in which form it is answered.
    fn form(&self) -> [u8; 32] {
        let Caller { keys, priority } = &self.caller;
        let mut hasher = blake3::Hasher::new_derive_key("nearhit 2026-11-22 form v1");
        for key in keys {
            let hash = key.as_ref().map(|key| blake3::hash(key.as_bytes()));
            hasher.update(hash.as_ref().map_or(&[0; 32][..], |hash| hash.as_bytes()));
        }
        let form = format!("{:?}", (self.request.path(), priority, self.request.wants_stream()));
        hasher.update(form.as_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// What became of a request that may share its call.
enum Shared {
    Joined(Response<Body>),
    /// Its own call's answer, if there is one.
    Own(Option<Response<Body>>),
}

impl Gate {
    async fn answer<S, B>(
        self: Arc<Self>,
        inner: S,
        request: Request<B>,
        share: &mut Share,
    ) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
        S::Future: Send,
        S::Error: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut parts, body) = request.into_parts();
        let is_read = parts.extensions.get::<Elsewhere>().is_none_or(|elsewhere| elsewhere.is_read);
        if parts.method != Method::POST || !is_cacheable(parts.uri.path()) || !is_read {
            // Nobody checks here what a call that is not for the cache says to it.
            if let Ok(controls) = Controls::read_with(&self.settings.compats, &parts.headers, None, None) {
                self.hear(owner_of(&parts, &controls), controls.feedback);
            }
            self.strip(&mut parts.headers);
            return self.pass(inner, Request::from_parts(parts, Body::new(body)), Reason::NotCacheable).await;
        }
        let body = match self.take(&parts.headers, body, share).await {
            Ok(Taken::Whole(body)) => body,
            Ok(Taken::Begun(begun)) => return self.pass_begun(inner, parts, begun).await,
            Err(problem) => return Ok(problem_response(&problem)),
        };
        let Read { body, only_if_cached, feedback, owner, asked } = match self.read(&parts, body) {
            Ok(read) => read,
            Err(problem) => return Ok(problem_response(&problem)),
        };
        self.hear(owner, feedback);
        self.strip(&mut parts.headers);
        let forward = |body: Bytes| {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            // It is none, or the request was refused.
            parts.headers.remove(CONTENT_ENCODING);
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
        let may_join = self.may_join(&asked);
        // Mostly nothing is on its way.
        let is_keyed = self.settings.coalesce_semantic || !self.flights.is_empty();
        let key = (may_join && is_keyed).then(|| asked.flight_key(&body));
        let company = key.filter(|_| self.settings.coalesce_semantic).map(|key| Company::new(asked.form(), key));
        if let Some(seat) = key.as_ref().and_then(|key| self.flights.get(key)).filter(Seat::is_live)
            && let Some(response) = seat.answer().await
        {
            return Ok(self.joined(&asked.owner(), response));
        }
        let miss = if asked.controls.refresh {
            self.cache.missed(&asked.prompt, Reason::Refresh);
            Miss::because(Reason::Refresh)
        } else {
            let query = Query {
                terms: asked.controls.terms,
                tiers: if asked.controls.exact_only { Tiers::EXACT } else { Tiers::ALL },
                patience: Some(self.settings.patience),
                is_comparable: !only_if_cached,
                company,
                ..Query::new(asked.prompt.clone())
            };
            match self.lookup(&query).await {
                Lookup::Hit(matches) => match matches.into_iter().next() {
                    Some(found) => match self.replay(&asked, &found) {
                        Some(response) => {
                            if let Some(judged) = found.judged.filter(Judged::is_audited) {
                                self.audit(inner, forward(body), asked, Held { judged, entry: found.entry });
                            }
                            return Ok(response);
                        }
                        // The fresh answer takes its place.
                        None => Miss::because(Reason::StoreDown),
                    },
                    None => Miss::because(Reason::NoCandidate),
                },
                Lookup::Miss(miss) => miss,
            }
        };
        if only_if_cached {
            return Ok(not_cached(miss.outcome(), miss.reason));
        }
        let key = may_join.then(|| key.unwrap_or_else(|| asked.flight_key(&body)));
        let request = recordable(forward(body));
        let owner = asked.owner();
        let error = Arc::new(Mutex::new(None));
        let ask = {
            let (gate, error) = (Arc::clone(&self), Arc::clone(&error));
            move |landing: Option<Landing>| async move {
                // What was on its way during the lookup may have been stored since.
                if landing.is_some()
                    && miss.reason != Reason::StoreDown
                    && let Ok(Some(found)) = AssertUnwindSafe(gate.cache.stored(&asked.prompt)).catch_unwind().await
                    && let Some(response) = gate.replay(&asked, &found)
                {
                    return Some(response);
                }
                let mut response = match call(inner, request).await {
                    Ok(response) => response,
                    Err(failure) => {
                        *error.lock() = Some(failure);
                        return None;
                    }
                };
                match &miss.shadow {
                    Some(found) => stamp_shadow(response.headers_mut(), found),
                    None => stamp(response.headers_mut(), Outcome::Miss, miss.reason),
                }
                let status = response.status();
                let asking = miss.asking;
                let keep = Keep { landing, asking, ..gate.keep(asked, status, miss.vector, miss.judged, false) };
                Some(keep.record(response))
            }
        };
        let answer = match key {
            None => ask(None).await,
            Some(key) => match self.share(key, ask).await {
                Shared::Joined(response) => return Ok(self.joined(&owner, response)),
                Shared::Own(answer) => answer,
            },
        };
        match (answer, error.lock().take()) {
            (Some(response), _) => Ok(response),
            (None, Some(error)) => Err(error),
            (None, None) => {
                let message = "the call upstream broke off";
                Ok(problem_response(&Problem::new(StatusCode::BAD_GATEWAY, "upstream_broke_off", message)))
            }
        }
    }

    /// Takes away what is for this cache and nobody behind it.
    fn strip(&self, headers: &mut HeaderMap) {
        strip_own_headers(headers);
        compat::strip(&self.settings.compats, headers);
    }

    /// Whether the answer to the same question, on its way to somebody else, will do. Whoever has terms of its own may find
    /// nothing where others find an answer.
    fn may_join(&self, asked: &Asked) -> bool {
        let Controls { refresh, only_if_cached, terms, .. } = &asked.controls;
        let watches = self.cache.policy(&asked.prompt.scope.cache).shadow;
        self.settings.coalesce && !refresh && !only_if_cached && *terms == Terms::default() && !watches
    }

    /// Joins the call with this key, or makes it.
    async fn share<C, F>(&self, key: FlightKey, call: C) -> Shared
    where
        C: FnOnce(Option<Landing>) -> F + Send + 'static,
        F: Future<Output = Option<Response<Body>>> + Send,
    {
        match self.flights.board(key, self.settings.answer_bytes_max, call) {
            Boarding::Leads(seat) => Shared::Own(seat.answer().await),
            Boarding::Joins(seat, not_made) => match seat.answer().await {
                Some(response) => Shared::Joined(response),
                // One after another would wait for each other's failures.
                None => Shared::Own(not_made(None).await),
            },
        }
    }

    /// An answer that somebody else asked for.
    fn joined(&self, owner: &Owner, response: Response<Body>) -> Response<Body> {
        let (parts, body) = response.into_parts();
        let mut joined = Response::new(body);
        *joined.status_mut() = parts.status;
        let headers = joined.headers_mut();
        let mut shared = vec![CONTENT_TYPE, CONTENT_ENCODING, RETRY_AFTER];
        // Another model's answer is nobody's hit, and no failure is.
        if parts.status == StatusCode::OK && parts.extensions.get::<Substitute>().is_none() {
            self.cache.joined(owner);
            headers.insert(header::OUTCOME, HeaderValue::from_static(Outcome::Hit.as_str()));
            headers.insert(header::CACHE_STATUS, HeaderValue::from_static("HIT"));
            headers.insert(AGE, HeaderValue::from(0));
        } else {
            shared.extend([header::OUTCOME, header::REASON, header::CACHE_STATUS]);
        }
        headers.insert(header::TIER, HeaderValue::from_static(Tier::Joined.as_str()));
        for name in shared {
            if let Some(value) = parts.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        if headers.contains_key(header::REASON) {
            *joined.extensions_mut() = parts.extensions;
        }
        joined
    }

    fn keep(
        &self,
        asked: Asked,
        status: StatusCode,
        vector: Option<Embedding>,
        held: Option<Held>,
        is_audit: bool,
    ) -> Keep {
        let Asked { request, controls, prompt, came, caller: _ } = asked;
        let (cache, tasks, judge) = (Arc::clone(&self.cache), self.tasks.clone(), self.judge.clone());
        let answer_bytes_max = self.settings.answer_bytes_max;
        Keep {
            cache,
            tasks,
            answer_bytes_max,
            request,
            controls,
            prompt,
            came,
            vector,
            status,
            held,
            judge,
            is_audit,
            landing: None,
            asking: None,
        }
    }

    /// Asks upstream for an answer that was served already, in the background, to see whether it was right; not if too
    /// many are being asked for.
    fn audit<S>(self: Arc<Self>, inner: S, request: Request<Body>, asked: Asked, held: Held)
    where
        S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
        S::Future: Send,
        S::Error: Send,
    {
        let Ok(permit) = Arc::clone(&self.audits).try_acquire_owned() else {
            return self.cache.metrics().audited("left_out");
        };
        self.cache.metrics().audited("begun");
        self.tasks.clone().spawn(async move {
            // Until the answer is there: nobody waits for it.
            let _permit = permit;
            let mut request = recordable(request);
            request.extensions_mut().insert(Priority::Batch);
            let Ok(response) = call(inner, request).await else { return };
            let status = response.status();
            let response = self.keep(asked, status, None, Some(held), true).record(response);
            // Recorded as it passes: nobody else reads it.
            let mut body = pin!(response.into_body());
            while let Some(Ok(_)) = body.frame().await {}
        });
    }

    /// Takes what the caller says of earlier answers.
    fn hear(&self, owner: Option<Owner>, feedback: Vec<(EntryId, bool)>) {
        let Some(owner) = owner else { return };
        for (id, is_right) in feedback {
            let (cache, owner) = (Arc::clone(&self.cache), owner.clone());
            self.tasks.spawn(async move {
                match cache.feedback(&owner, id, is_right, None).await {
                    Ok(true) => {}
                    Ok(false) => tracing::info!(entry = %id, "feedback on an entry that is not there"),
                    Err(error) => tracing::warn!(%error, "could not take feedback"),
                }
            });
        }
    }

    /// The stored answer for this client; `None` if it cannot be told, and be it for a panic.
    fn replay(&self, asked: &Asked, found: &Match) -> Option<Response<Body>> {
        let telling =
            AssertUnwindSafe(|| hit_response(&asked.request, found, self.settings.replay, self.settings.figures));
        let told = std::panic::catch_unwind(telling);
        told.inspect_err(|_| tracing::error!(entry = %found.entry.id, "a stored answer cannot be told")).ok()
    }

    /// A fault of the cache, even a panic of one of its parts, is a miss.
    async fn lookup(&self, query: &Query) -> Lookup {
        match AssertUnwindSafe(self.cache.lookup(query)).catch_unwind().await {
            Ok(lookup) => lookup,
            Err(_) => {
                tracing::error!("a lookup panicked");
                self.cache.missed(&query.prompt, Reason::StoreDown);
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

    fn read(&self, parts: &request::Parts, bytes: Bytes) -> Result<Read, Problem> {
        let value = json::parse(&bytes).map_err(|error| Problem::not_json(&error, &bytes))?;
        let request = ProviderRequest::new(parts.uri.path(), value)
            .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body {error}")))?;
        let (body_cache, body_own) = (request.own_field("cache"), request.own_field("nearhit"));
        let controls = Controls::read_with(&self.settings.compats, &parts.headers, body_cache, body_own)?;
        let body = if body_cache.is_some() || body_own.is_some() {
            json::without_fields(&bytes, OWN_FIELDS).map_err(|error| Problem::not_json(&error, &bytes))?.into()
        } else {
            bytes
        };
        let (only_if_cached, feedback) = (controls.only_if_cached, controls.feedback.clone());
        let owner = owner_of(parts, &controls);
        Ok(Read { body, only_if_cached, feedback, owner, asked: self.asked(parts, request, controls) })
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
        let Resolved { upstream, model } = match parts.extensions.get::<Elsewhere>() {
            Some(elsewhere) => Resolved { upstream: elsewhere.upstream.clone(), model: request.model().to_owned() },
            None => self.settings.upstream.resolve(request.path(), request.model()),
        };
        let mut prompt = request.prompt(Surroundings {
            tenant,
            cache: controls.cache.clone(),
            upstream,
            headers: answer_headers(&parts.headers),
            attributes: controls.attributes.clone(),
            vars: controls.vars.clone(),
            temperature_max: self.settings.temperature_max,
            tool_calls: self.settings.tool_calls,
        })?;
        prompt.scope.model = model;
        let keys = KEY_HEADERS.map(|name| parts.headers.get(name).cloned());
        let caller = Caller { keys, priority: parts.extensions.get().copied().unwrap_or_default() };
        Ok(Asked { request, controls, prompt, came: Instant::now(), caller })
    }
}

/// Whose cache a call speaks of; nobody's without a tenant.
fn owner_of(parts: &request::Parts, controls: &Controls) -> Option<Owner> {
    let tenant = parts.extensions.get::<Tenant>()?.clone();
    Some(Owner { tenant, cache: controls.cache.clone() })
}

async fn call<S: Service<Request<Body>>>(mut inner: S, request: Request<Body>) -> Result<S::Response, S::Error> {
    inner.call(request).await
}

/// The headers that an answer depends on.
pub(crate) fn answer_headers(headers: &HeaderMap) -> Attributes {
    let value = |name: &str| {
        // Escaped, so that values which are no text count too.
        let values: Vec<String> =
            headers.get_all(name).iter().map(|value| value.as_bytes().escape_ascii().to_string()).collect();
        (!values.is_empty()).then(|| (name.to_owned(), values.join(", ")))
    };
    // Keys may stand in these, and what an entry depends on is stored with it.
    let hashed =
        |name: &str| value(name).map(|(name, value)| (name, blake3::hash(value.as_bytes()).to_hex().to_string()));
    let plain = ANSWER_HEADERS.iter().filter_map(|name| value(name));
    plain.chain(GATEWAY_HEADERS.iter().filter_map(|name| hashed(name))).collect()
}

/// A request whose answer can be recorded: a compressed one could not.
fn recordable(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    request
}

/// Audits on their way: each is a call upstream that no client waits for, and so no client slows down.
const AUDITS_MAX: usize = 16;

#[cfg(test)]
mod tests;
