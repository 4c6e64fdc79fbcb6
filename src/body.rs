//! The body of every response, and of every request on its way upstream.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

use crate::wire::problem::Problem;
use crate::wire::request::is_anthropic;

/// Any error of a body.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A stream of bytes of whatever origin.
#[derive(Debug)]
pub struct Body(UnsyncBoxBody<Bytes, BoxError>);

impl Body {
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(body.map_err(Into::into).boxed_unsync())
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self::new(Full::new(bytes.into()))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// The problem as a response, and in its extensions for whoever says it in other words.
pub(crate) fn problem_response(problem: &Problem) -> Response<Body> {
    let mut response = Response::new(Body::from(problem.to_json().to_string()));
    *response.status_mut() = problem.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.extensions_mut().insert(problem.clone());
    response
}

/// A response to a call to `path`: a problem of nearhit's own in the shape that clients of that path read.
pub(crate) fn shaped<B>(path: &str, response: Response<B>, body: impl FnOnce(Body) -> B) -> Response<B> {
    let Some(problem) = response.extensions().get::<Problem>().filter(|_| is_anthropic(path)).cloned() else {
        return response;
    };
    let id = format!("req_{:032x}", fastrand::u128(..));
    let (mut parts, _) = response.into_parts();
    parts.extensions.remove::<Problem>();
    parts.headers.remove(CONTENT_LENGTH);
    if let Ok(id) = HeaderValue::from_str(&id) {
        parts.headers.insert("request-id", id);
    }
    Response::from_parts(parts, body(Body::from(problem.to_anthropic_json(&id).to_string())))
}
