//! The body of every response, and of every request on its way upstream; how a body is read that nobody wants.

mod late;

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

pub use self::late::Flushes;
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

    /// The same, which breaks off only once what came before is on its way.
    pub(crate) fn late(self, flushes: Option<Flushes>) -> Self {
        Self::new(late::Late::new(self, flushes))
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

/// A body that keeps something as long as it lives.
pub(crate) struct Holding<B, H> {
    pub(crate) body: B,
    pub(crate) _held: H,
}

impl<B, H> http_body::Body for Holding<B, H>
where
    B: http_body::Body + Unpin,
    H: Unpin,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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

pub(crate) fn check_media(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported =
        |message: String| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message);
    if let Some(encoding) = encoding(headers) {
        return Err(unsupported(format!("content-encoding {encoding:?} is not accepted; send the body as it is")));
    }
    let media = headers.get(CONTENT_TYPE).map(|t| t.to_str().unwrap_or_default().to_ascii_lowercase());
    match media.as_deref().map(|t| t.split(';').next().unwrap_or_default().trim()) {
        None | Some("application/json") => Ok(()),
        Some(other) => Err(unsupported(format!("content-type {other:?} is not accepted; send application/json"))),
    }
}

/// Whether a body is another one than its media type says: "identity", in whatever case, is no encoding (RFC 9110, 8.4.1).
pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    encoding(headers).is_some()
}

fn encoding(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get_all(CONTENT_ENCODING).iter().find(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Reads on and forgets, up to `limit` bytes: most clients send all they have before they listen, and one that is
/// still sending when the connection closes never learns why.
pub(crate) async fn discard<B>(mut body: Pin<&mut B>, limit: usize)
where
    B: http_body::Body<Data = Bytes>,
{
    let reading = async {
        let mut read = 0;
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(DISCARD_PAUSE, body.frame()).await {
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

/// Longest time that is spent on reading what is refused.
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Longest wait for more of it.
const DISCARD_PAUSE: Duration = Duration::from_secs(2);
