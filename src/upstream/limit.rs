//! Waiting for a provider's limit: a service that sends no more in a minute than one key of one provider takes.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use parking_lot::Mutex;
use tokio::time::Instant;
use tower_service::Service;

use super::charge::{BYTES_PER_TOKEN, Charge};
use super::failure::Failure;
use super::lane::Lane;
use super::settings::{QueueSettings, RateLimit};
use crate::body::Body;
use crate::decision::Tenant;
use crate::metrics::QueueLength;
use crate::route::{KEY_HEADERS, Priority};

/// A service behind a limit, or without one.
#[derive(Clone)]
pub(super) struct Limited<S> {
    inner: S,
    limiter: Option<Arc<Limiter>>,
    waiting: QueueLength,
}

impl<S> Limited<S> {
    pub(super) fn new(inner: S, limit: RateLimit, queue: QueueSettings, has_own_key: bool) -> Self {
        let limiter = (limit != RateLimit::default()).then(|| Arc::new(Limiter::new(limit, queue, has_own_key)));
        Self { inner, limiter, waiting: QueueLength::default() }
    }

    /// The same, which says how many calls wait.
    pub(super) fn counted(self, waiting: QueueLength) -> Self {
        Self { waiting, ..self }
    }

    /// Another service behind this one's limit, with whatever was spent of it and whoever waits for it.
    pub(super) fn follow<T>(&self, inner: T) -> Limited<T> {
        Limited { inner, limiter: self.limiter.clone(), waiting: self.waiting.clone() }
    }
}

impl<S> Service<Request<Body>> for Limited<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Failure> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Failure>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut inner = self.inner.clone();
        let Some(limiter) = self.limiter.clone() else { return Box::pin(inner.call(request)) };
        let waiting = self.waiting.clone();
        Box::pin(async move {
            let lane = limiter.lane(request.headers());
            let tokens = lane.capped(estimate(&request));
            let priority = request.extensions().get::<Priority>().copied().unwrap_or_default();
            let caller = request.extensions().get::<Tenant>().map(|tenant| tenant.as_str().to_owned());
            let queued = waiting.join();
            let turn = lane.turn(priority, &caller.unwrap_or_default(), tokens).await;
            drop(queued);
            turn.map_err(|retry_after| Failure::Busy { retry_after })?;
            if limiter.limit.tokens.is_none() {
                return inner.call(request).await;
            }
            let charge = Charge::new(lane, tokens);
            match inner.call(request).await {
                Ok(response) if response.status().is_success() => Ok(charge.metered(response)),
                failed => {
                    charge.give_back();
                    failed
                }
            }
        })
    }
}

/// One provider's limit, for each key that it is called with.
struct Limiter {
    limit: RateLimit,
    queue: QueueSettings,
    /// All calls go under one key, whatever the clients send.
    has_own_key: bool,
    lanes: Mutex<Lanes>,
    hasher: RandomState,
    started: Instant,
}

struct Lanes {
    by_key: HashMap<u64, Arc<Lane>>,
    /// So many lanes are too many: those that owe nothing go.
    swept_at: usize,
}

impl Limiter {
    fn new(limit: RateLimit, queue: QueueSettings, has_own_key: bool) -> Self {
        let lanes = Mutex::new(Lanes { by_key: HashMap::new(), swept_at: LANES_MIN });
        Self { limit, queue, has_own_key, lanes, hasher: RandomState::new(), started: Instant::now() }
    }

    /// The lane of the key that a request would be sent with.
    fn lane(&self, headers: &HeaderMap) -> Arc<Lane> {
        let sent = |name| headers.get(name).map(http::HeaderValue::as_bytes);
        let keys = (!self.has_own_key).then(|| KEY_HEADERS.map(sent));
        let key = self.hasher.hash_one(keys);
        let Lanes { by_key, swept_at } = &mut *self.lanes.lock();
        if let Some(lane) = by_key.get(&key) {
            return Arc::clone(lane);
        }
        if by_key.len() >= *swept_at {
            by_key.retain(|_, lane| Arc::strong_count(lane) > 1 || !lane.owes_nothing());
            *swept_at = LANES_MIN.max(2 * by_key.len());
        }
        let lane = Arc::new(Lane::new(self.limit, self.queue, self.started));
        by_key.insert(key, Arc::clone(&lane));
        lane
    }
}

/// Tokens of a request that nobody has counted yet.
fn estimate(request: &Request<Body>) -> u64 {
    (request.body().size_hint().lower() / BYTES_PER_TOKEN).max(1)
}

/// So many lanes are kept without looking.
const LANES_MIN: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::AUTHORIZATION;
    use http_body_util::BodyExt;
    use tokio::time::timeout;

    use super::*;

    /// Answers every call with a usage of so many tokens.
    #[derive(Clone)]
    struct Provider(u64);

    impl Service<Request<Body>> for Provider {
        type Response = Response<Body>;
        type Error = Failure;
        type Future = std::future::Ready<Result<Response<Body>, Failure>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::ready(Ok(Response::new(Body::from(format!("{{\"usage\":{{\"input_tokens\":{}}}}}", self.0)))))
        }
    }

    fn queue(length: usize, wait_s: u64) -> QueueSettings {
        QueueSettings { length, wait: Duration::from_secs(wait_s) }
    }

    fn request(key: &str, caller: &str, priority: Priority) -> Request<Body> {
        let mut request = Request::new(Body::from("x".repeat(40)));
        request.headers_mut().insert(AUTHORIZATION, key.parse().expect("a value"));
        request.extensions_mut().insert(Tenant::new(caller));
        request.extensions_mut().insert(priority);
        request
    }

    async fn send(service: &Limited<Provider>, request: Request<Body>) -> Result<(), Failure> {
        let response = service.clone().call(request).await?;
        response.into_body().collect().await.expect("a whole body");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_and_each_key_has_its_own_limit() {
        let limit = RateLimit { requests: Some(6), tokens: None };
        let service = Limited::new(Provider(1), limit, queue(10, 60), false);
        let started = Instant::now();
        for _ in 0..7 {
            send(&service, request("a", "", Priority::Interactive)).await.expect("a turn");
        }
        assert_eq!(started.elapsed(), Duration::from_secs(60), "one at once, then one in ten seconds");
        send(&service, request("b", "", Priority::Interactive)).await.expect("a turn");
        assert_eq!(started.elapsed(), Duration::from_secs(60), "another key does not wait for the first");
        for header in KEY_HEADERS {
            for key in ["c", "d"] {
                let mut request = Request::new(Body::from("x"));
                request.headers_mut().insert(header, key.parse().expect("a value"));
                send(&service, request).await.expect("a turn");
            }
        }
        assert_eq!(started.elapsed(), Duration::from_secs(60), "whatever header it stands in");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_of_the_upstreams_own_is_one_key() {
        let limit = RateLimit { requests: Some(6), tokens: None };
        let service = Limited::new(Provider(1), limit, queue(10, 60), true);
        let started = Instant::now();
        for key in ["a", "b"] {
            send(&service, request(key, "", Priority::Interactive)).await.expect("a turn");
        }
        assert_eq!(started.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_is_told_when_to_come() {
        let limit = RateLimit { requests: Some(6), tokens: None };
        let waiting = QueueLength::default();
        let service = Limited::new(Provider(1), limit, queue(2, 15), false).counted(waiting.clone());
        let one = || send(&service, request("a", "", Priority::Interactive));
        one().await.expect("a turn");
        // Two wait, one for 10 seconds and one for longer than it may; the third finds no place.
        let (first, second, third, counted) = tokio::join!(one(), one(), one(), async { waiting.read() });
        assert_eq!((counted, waiting.read()), (2, 0), "as long as they wait");
        assert_eq!(first, Ok(()));
        assert_eq!(second, Err(Failure::Busy { retry_after: Duration::from_secs(5) }));
        assert_eq!(third, Err(Failure::Busy { retry_after: Duration::from_secs(30) }));
        one().await.expect("both left the queue");
    }

    #[tokio::test(start_paused = true)]
    async fn callers_and_priorities_take_turns() {
        let limit = RateLimit { requests: Some(6), tokens: None };
        let service = Limited::new(Provider(1), limit, queue(100, 600), false);
        let order = Arc::new(Mutex::new(Vec::new()));
        send(&service, request("k", "", Priority::Interactive)).await.expect("a turn");
        let calls = [
            ("a", Priority::Batch),
            ("a", Priority::Interactive),
            ("a", Priority::Interactive),
            ("b", Priority::Interactive),
        ];
        let tasks = calls.map(|(caller, priority)| {
            let (service, order) = (service.clone(), Arc::clone(&order));
            async move {
                send(&service, request("k", caller, priority)).await.expect("a turn");
                order.lock().push((caller, priority.as_str()));
            }
        });
        futures_util::future::join_all(tasks).await;
        let expected = [("a", "interactive"), ("b", "interactive"), ("a", "interactive"), ("a", "batch")];
        assert_eq!(*order.lock(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_makes_room_for_whoever_asks_less() {
        let limit = RateLimit { requests: Some(6), tokens: None };
        let service = Limited::new(Provider(1), limit, queue(3, 600), false);
        let one = |caller, priority| send(&service, request("k", caller, priority));
        one("", Priority::Interactive).await.expect("a turn");
        let batch = || one("a", Priority::Batch);
        let interactive = |caller| one(caller, Priority::Interactive);
        // Three of a's are there, and nobody's time is worth less.
        let (first, second, third, fourth, fifth, sixth) =
            tokio::join!(batch(), batch(), batch(), interactive("b"), interactive("b"), interactive("b"));
        assert_eq!([&fourth, &fifth, &sixth], [&Ok(()); 3], "all batch leaves before");
        for refused in [first, second, third] {
            assert!(matches!(refused, Err(Failure::Busy { .. })), "{refused:?}");
        }
        let (first, second, third, other, more) =
            tokio::join!(interactive("a"), interactive("a"), interactive("a"), interactive("b"), interactive("a"));
        assert_eq!([&first, &second, &other], [&Ok(()); 3]);
        for refused in [third, more] {
            assert!(matches!(refused, Err(Failure::Busy { .. })), "{refused:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_hangs_up_leaves_the_queue() {
        let limit = RateLimit { requests: Some(6), tokens: None };
        let service = Limited::new(Provider(1), limit, queue(1, 600), false);
        let one = || send(&service, request("a", "", Priority::Interactive));
        one().await.expect("a turn");
        timeout(Duration::from_secs(1), one()).await.expect_err("it is not its turn yet");
        let started = Instant::now();
        one().await.expect("there is a place, and nobody before");
        assert_eq!(started.elapsed(), Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_estimated_then_counted() {
        let limit = RateLimit { requests: None, tokens: Some(600) };
        // 40 bytes are 10 tokens; the answer says 200.
        let service = Limited::new(Provider(200), limit, queue(10, 600), false);
        let started = Instant::now();
        send(&service, request("a", "", Priority::Interactive)).await.expect("a turn");
        send(&service, request("a", "", Priority::Interactive)).await.expect("a turn");
        let waited = started.elapsed();
        // 110 of 501 tokens a minute.
        assert!(waited > Duration::from_secs(13) && waited < Duration::from_secs(14), "{waited:?}");
    }
}
