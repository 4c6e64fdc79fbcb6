//! What a call takes of a provider's tokens: charged by its size when it is sent, settled when its answer is over by what
//! that says it took.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_TYPE;
use http_body::{Frame, SizeHint};

use super::lane::Lane;
use crate::body::{Body, BoxError};
use crate::wire::usage::UsageReader;

/// Tokens that a call was charged. Dropped, it is settled: before there is an answer, at a bounded share of the request.
pub(super) struct Charge {
    lane: Arc<Lane>,
    charged: u64,
    counted: u64,
}

impl Charge {
    pub(super) fn new(lane: Arc<Lane>, charged: u64) -> Self {
        Self { lane, charged, counted: charged.min(REQUEST_TOKENS_MAX) }
    }

    /// The call failed: it took nothing.
    pub(super) fn give_back(mut self) {
        self.counted = 0;
    }

    /// The answer, whose usage counts once it is over. If it has none, its length does.
    pub(super) fn metered(self, response: Response<Body>) -> Response<Body> {
        let media = response.headers().get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
        let is_stream = media.starts_with("text/event-stream");
        let bytes_per_token = if is_stream { STREAM_BYTES_PER_TOKEN } else { BYTES_PER_TOKEN };
        let usage = UsageReader::new(is_stream);
        response.map(|body| Body::new(Metered { body, usage, bytes: 0, bytes_per_token, charge: self }))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.lane.correct(self.charged, self.counted);
    }
}

/// A body on its way to the client.
struct Metered {
    body: Body,
    usage: UsageReader,
    bytes: u64,
    bytes_per_token: u64,
    charge: Charge,
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.usage.feed(data);
            self.bytes += data.len() as u64;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        let Self { body: _, usage, bytes, bytes_per_token, charge } = self;
        let estimate = || charge.lane.capped(charge.counted + *bytes / *bytes_per_token);
        charge.counted = usage.tokens().unwrap_or_else(estimate);
    }
}

/// A token is about four bytes of English or JSON.
pub(super) const BYTES_PER_TOKEN: u64 = 4;

/// An event of a stream is mostly its frame, and holds a token or two.
const STREAM_BYTES_PER_TOKEN: u64 = 128;

/// What a request counts at most where no answer says more: a larger one is mostly images or files, whose bytes are not
/// tokens.
const REQUEST_TOKENS_MAX: u64 = 8_192;

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::time::Duration;

    use http::Request;
    use http_body::Body as _;
    use http_body_util::BodyExt;
    use tokio::time::{Instant, timeout};
    use tower_service::Service;

    use super::*;
    use crate::upstream::failure::Failure;
    use crate::upstream::limit::Limited;
    use crate::upstream::settings::{QueueSettings, RateLimit};

    type Answer = Result<Response<Body>, Failure>;

    /// By the bytes of the request; `None`: never.
    type Answers = fn(u64) -> Option<Answer>;

    #[derive(Clone)]
    struct Provider(Answers);

    impl Service<Request<Body>> for Provider {
        type Response = Response<Body>;
        type Error = Failure;
        type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            match (self.0)(request.body().size_hint().lower()) {
                Some(answer) => Box::pin(std::future::ready(answer)),
                None => Box::pin(std::future::pending()),
            }
        }
    }

    /// 10,000 tokens go at once, then 50,000 a minute.
    fn limited(answer: Answers) -> Limited<Provider> {
        let limit = RateLimit { requests: None, tokens: Some(60_000) };
        let queue = QueueSettings { length: 10, wait: Duration::from_secs(3600) };
        Limited::new(Provider(answer), limit, queue, true)
    }

    fn of_tokens(tokens: usize) -> Request<Body> {
        Request::new(Body::from("x".repeat(4 * tokens)))
    }

    async fn send(service: &Limited<Provider>, tokens: usize) -> Duration {
        let started = Instant::now();
        if let Ok(response) = service.clone().call(of_tokens(tokens)).await {
            response.into_body().collect().await.expect("a whole body");
        }
        started.elapsed()
    }

    fn answer(status: u16, media: &str, body: String) -> Option<Answer> {
        let response = Response::builder().status(status).header(CONTENT_TYPE, media).body(Body::from(body));
        Some(Ok(response.expect("a response")))
    }

    const JSON: &str = "application/json";

    #[tokio::test(start_paused = true)]
    async fn what_was_not_taken_is_given_back() {
        let rows: [(&str, Answers); 5] = [
            ("unreachable", |_| Some(Err(Failure::Unreachable))),
            ("500", |_| answer(500, JSON, "x".repeat(4_000))),
            ("429", |_| answer(429, JSON, "{}".into())),
            ("302", |_| answer(302, JSON, "{}".into())),
            ("few", |_| answer(200, JSON, r#"{"usage":{"prompt_tokens":1}}"#.into())),
        ];
        for (name, provider) in rows {
            let service = limited(provider);
            send(&service, 1_250_000).await;
            assert_eq!(send(&service, 9_999).await, Duration::ZERO, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_largest_call_is_charged_what_goes_at_once() {
        let service = limited(small_ones);
        tokio::select! {
            biased;
            _ = send(&service, 1_250_000) => panic!("it is never answered"),
            waited = send(&service, 10_000) => {
                assert!(waited > Duration::from_secs(11) && waited < Duration::from_secs(13), "{waited:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_usage_is_estimated() {
        let check = async |asked: usize, provider: Answers, took: usize| {
            for (tokens, waits) in [(10_000 - took, false), (10_001 - took, true)] {
                let service = limited(provider);
                send(&service, asked).await;
                let waited = send(&service, tokens).await;
                assert_eq!(waited > Duration::ZERO, waits, "{asked}, then {tokens}: {waited:?}");
            }
        };
        check(3_000, |_| answer(200, JSON, "x".repeat(400)), 3_100).await;
        check(3_000, |_| answer(200, "text/event-stream", "x".repeat(128 * 50)), 3_050).await;
        check(1_250_000, |_| answer(200, JSON, String::new()), 8_192).await;
        // However long it is, it holds nobody up for longer than what goes at once.
        let service = limited(|_| answer(200, JSON, "x".repeat(4_000_000)));
        send(&service, 3_000).await;
        let waited = send(&service, 10_000).await;
        assert!(waited > Duration::from_secs(11) && waited < Duration::from_secs(13), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_before_the_answer_took_no_more_than_a_share() {
        let service = limited(small_ones);
        timeout(Duration::from_millis(1), send(&service, 1_250_000)).await.expect_err("it is never answered");
        assert_eq!(send(&service, 1_800).await, Duration::ZERO);
        assert!(send(&service, 10_000).await > Duration::ZERO);
    }

    /// Never answers a large one.
    fn small_ones(bytes: u64) -> Option<Answer> {
        if bytes < 1_000_000 { answer(200, JSON, "{}".into()) } else { None }
    }
}
