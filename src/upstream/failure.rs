//! Why an upstream gave no answer, and what the client is told.

use std::time::Duration;

use http::header::{HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use super::retry::Again;
use crate::body::{Body, problem_response};
use crate::wire::problem::Problem;

/// A try that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection, or one that broke before there was a head.
    Unreachable,
    /// No head within this time.
    TimedOut(Duration),
    /// Nothing was sent: so much waits for the provider's limit that this would not have been its turn in time.
    Busy { retry_after: Duration },
    /// No upstream has such a path.
    UnknownPath(String),
}

impl Failure {
    /// The word of the metric.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::TimedOut(_) => "timed_out",
            Self::Busy { .. } => "busy",
            Self::UnknownPath(_) => "unknown_path",
        }
    }

    /// Whether it says anything about the upstream.
    pub(super) fn is_upstreams(&self) -> bool {
        matches!(self, Self::Unreachable | Self::TimedOut(_))
    }

    pub(super) fn again(&self) -> Again {
        if self.is_upstreams() { Again::Anytime } else { Again::Elsewhere }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let retry_after = match self {
            Self::Busy { retry_after } => Some(retry_after),
            _ => None,
        };
        let problem = self.problem();
        let mut response = problem_response(&problem);
        if let Some(wait) = retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }

    fn problem(self) -> Problem {
        match self {
            Self::Unreachable => {
                let message = "the upstream could not be reached";
                Problem::new(StatusCode::BAD_GATEWAY, "upstream_unreachable", message)
            }
            Self::TimedOut(time) => {
                let message = format!("the upstream did not answer within {} s", time.as_secs());
                Problem::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message)
            }
            Self::Busy { .. } => {
                let message = "too many requests wait for the upstream's rate limit";
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message)
            }
            Self::UnknownPath(path) => {
                let message = format!("no upstream for the path {path:?}");
                Problem::new(StatusCode::NOT_FOUND, "unknown_path", message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;

    #[tokio::test]
    async fn what_the_client_is_told() {
        for (failure, status, code) in [
            (Failure::Unreachable, 502, "upstream_unreachable"),
            (Failure::TimedOut(Duration::from_secs(7)), 504, "upstream_timeout"),
            (Failure::Busy { retry_after: Duration::from_millis(1_001) }, 429, "rate_limit_exceeded"),
            (Failure::UnknownPath("/v1/x".into()), 404, "unknown_path"),
        ] {
            let is_busy = matches!(failure, Failure::Busy { .. });
            let (parts, body) = failure.into_response().into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!((parts.status.as_u16(), &body["error"]["code"]), (status, &Value::from(code)));
            assert_eq!(parts.headers.get(RETRY_AFTER).map(HeaderValue::as_bytes), is_busy.then_some(&b"2"[..]));
            // In the shape of the path that was called, by whoever knows it.
            assert!(parts.extensions.get::<Problem>().is_some());
        }
    }
}
