//! What holds for every gRPC call: its content type, its deadline, and that a refusal is a status.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::{Code, Status};

use super::super::error::{self, ApiError};
use super::status;
use crate::wire::problem::Problem;

/// Answers within the call's deadline, in gRPC's terms.
pub(super) async fn answer(request: Request, next: Next) -> Response {
    if !is_grpc(request.headers()) {
        let message = "a gRPC call has the content-type application/grpc";
        let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message);
        return ApiError::from(problem).into_response();
    }
    let deadline = match timeout(request.headers()) {
        Ok(None) => return in_grpc(error::answered(request, next).await),
        Ok(Some(timeout)) => Instant::now() + timeout,
        Err(problem) => return status::of(problem).into_http(),
    };
    // A future is polled before its deadline is: what comes too late must not be begun.
    if deadline <= Instant::now() {
        return late().into_http();
    }
    match timeout_at(deadline, error::answered(request, next)).await {
        Ok(response) => in_grpc(response).map(|body| Body::new(Timed::new(body, deadline))),
        Err(_) => late().into_http(),
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    media == "application/grpc" || media == "application/grpc+proto"
}

/// The response with a refusal as a status.
fn in_grpc(mut response: Response) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        return status::of(problem).into_http();
    }
    if let Some(code) = response.headers_mut().get_mut(Status::GRPC_STATUS) {
        *code = http::HeaderValue::from(i32::from(status::exact(Code::from_bytes(code.as_bytes()))));
    }
    response
}

/// What `grpc-timeout` asks for: up to eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let read = || {
        let (digits, unit) = value.to_str().ok()?.split_at_checked(value.len().checked_sub(1)?)?;
        if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let count = digits.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(count * 60 * 60),
            "M" => Duration::from_secs(count * 60),
            "S" => Duration::from_secs(count),
            "m" => Duration::from_millis(count),
            "u" => Duration::from_micros(count),
            "n" => Duration::from_nanos(count),
            _ => return None,
        })
    };
    let wrong = || {
        Problem::invalid(
            "grpc-timeout",
            format!("grpc-timeout: must be up to eight digits and one of H, M, S, m, u, n, got {value:?}"),
        )
    };
    // Longer than anybody waits is as good as none; the clock could not count it.
    read().ok_or_else(wrong).map(|timeout| Some(timeout.min(TIMEOUT_MAX)))
}

fn late() -> Status {
    Status::deadline_exceeded("the call's deadline has passed")
}

/// A response that ends at the call's deadline, whatever is still to come.
struct Timed {
    body: Body,
    deadline: Pin<Box<Sleep>>,
    is_over: bool,
}

impl Timed {
    fn new(body: Body, deadline: Instant) -> Self {
        Self { body, deadline: Box::pin(sleep_until(deadline)), is_over: false }
    }
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if self.deadline.as_mut().poll(cx).is_ready() {
            self.is_over = true;
            self.body = Body::empty();
            let mut trailers = HeaderMap::new();
            let written = late().add_header(&mut trailers);
            return Poll::Ready(Some(written.map(|()| Frame::trailers(trailers)).map_err(axum::Error::new)));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A year.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        #[track_caller]
        fn check(value: &str, expected: Option<Duration>) {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-timeout"),
                value.parse().expect("a header's value"),
            )]);
            match timeout(&headers) {
                Ok(read) => assert_eq!(read, expected, "{value}"),
                Err(problem) => {
                    assert_eq!(expected, None, "{value}: {problem:?}");
                    assert!(problem.message.contains(&format!("{value:?}")), "{problem:?}");
                }
            }
        }
        check("0n", Some(Duration::ZERO));
        check("1S", Some(Duration::from_secs(1)));
        check("250m", Some(Duration::from_millis(250)));
        check("7u", Some(Duration::from_micros(7)));
        check("2M", Some(Duration::from_secs(120)));
        check("1H", Some(Duration::from_secs(3600)));
        check("99999999H", Some(TIMEOUT_MAX));
        check("123456789S", None);
        check("1", None);
        check("S", None);
        check("", None);
        check("1s", None);
        check("-1S", None);
        check("+1S", None);
        assert_eq!(timeout(&HeaderMap::new()), Ok(None));
    }

    #[tokio::test]
    async fn a_response_ends_at_the_deadline() {
        use futures_util::stream::pending;
        use http_body_util::BodyExt;

        let endless = Body::from_stream(pending::<Result<Bytes, axum::Error>>());
        let body = Timed::new(endless, Instant::now() + Duration::from_millis(5));
        let collected = body.collect().await.expect("no error");
        assert_eq!(collected.trailers().expect("trailers")["grpc-status"], "4");

        let whole = Timed::new(Body::from("all"), Instant::now() + TIMEOUT_MAX);
        let collected = whole.collect().await.expect("no error");
        assert_eq!(collected.trailers(), None);
        assert_eq!(collected.to_bytes(), "all");
    }
}
