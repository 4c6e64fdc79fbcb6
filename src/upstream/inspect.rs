//! Is a 200 what was asked for? Looked at only while another try is possible, and before anything of it is sent: an
//! answer in one piece is read whole, a stream to its first bytes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use serde::de::IgnoredAny;

use crate::body::{Body, BoxError, is_encoded};

/// The response as it came, or `None` where a 200 is no answer: not JSON, no event stream where one was asked for, or
/// broken off before anything of it could be sent.
pub(super) async fn inspect(response: Response<Body>, wants_stream: bool) -> Option<Response<Body>> {
    if response.status() != StatusCode::OK {
        return Some(response);
    }
    let media = media(response.headers());
    let is_encoded = is_encoded(response.headers());
    let (parts, mut body) = response.into_parts();
    let mut read = Vec::new();
    let whole = if wants_stream {
        if media != "text/event-stream" {
            return None;
        }
        !read_past(&mut body, &mut read, 0).await?
    } else {
        if media != "application/json" {
            return None;
        }
        read_past(&mut body, &mut read, LOOKED_AT_BYTES_MAX).await?
    };
    let is_json = || serde_json::from_slice::<IgnoredAny>(&read.concat()).is_ok();
    if whole && !wants_stream && !is_encoded && !is_json() {
        return None;
    }
    // A stream that ends with its first bytes is the provider's to explain.
    let ended = whole && !wants_stream;
    if wants_stream && read.iter().all(Bytes::is_empty) {
        return None;
    }
    let body = match ended {
        true => Body::from(read.concat()),
        false => Body::new(Resumed { read: read.into(), body }),
    };
    Some(Response::from_parts(parts, body))
}

/// Reads until more than `most` bytes are there (false) or the body ends (true); `None` where it breaks off.
async fn read_past(body: &mut Body, read: &mut Vec<Bytes>, most: usize) -> Option<bool> {
    let mut length = 0;
    while length <= most {
        match body.frame().await {
            None => return Some(true),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    length += data.len();
                    read.push(data);
                }
            }
            Some(Err(_)) => return None,
        }
    }
    Some(false)
}

fn media(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What was read, then the rest.
struct Resumed {
    read: VecDeque<Bytes>,
    body: Body,
}

impl http_body::Body for Resumed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.read.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read: usize = self.read.iter().map(Bytes::len).sum();
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + read as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + read as u64);
        }
        hint
    }
}

/// A longer answer in one piece is sent without having been looked at.
const LOOKED_AT_BYTES_MAX: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http::header::CONTENT_ENCODING;
    use http_body_util::StreamBody;

    use super::*;

    /// The body in these pieces; `None` breaks it off.
    fn response(status: u16, media: &str, pieces: &[Option<&'static str>]) -> Response<Body> {
        let frame = |piece: &Option<&'static str>| match piece {
            Some(piece) => Ok(Frame::data(Bytes::from_static(piece.as_bytes()))),
            None => Err(BoxError::from("cut")),
        };
        let body = Body::new(StreamBody::new(stream::iter(pieces.iter().map(frame).collect::<Vec<_>>())));
        Response::builder().status(status).header(CONTENT_TYPE, media).body(body).expect("a response")
    }

    #[tokio::test]
    async fn what_is_no_answer_is_none() {
        let check =
            async |status, media: &str, pieces: &[Option<&'static str>], stream: bool, expected: Option<&str>| {
                let seen = match inspect(response(status, media, pieces), stream).await {
                    None => None,
                    Some(response) => Some(response.into_body().collect().await.map(|body| body.to_bytes())),
                };
                let text = |body: Result<Bytes, _>| {
                    body.map_or("broken off".into(), |b| String::from_utf8_lossy(&b).into_owned())
                };
                assert_eq!(seen.map(text).as_deref(), expected, "{status} {media} {pieces:?} {stream}");
            };
        let (json, events) = ("application/json; charset=utf-8", "text/event-stream");
        check(200, json, &[Some("{\"a\""), Some(":1}")], false, Some("{\"a\":1}")).await;
        check(200, json, &[Some("{\"a\"")], false, None).await;
        check(200, json, &[Some("{\"a\""), None], false, None).await;
        check(200, json, &[], false, None).await;
        check(200, "text/html", &[Some("{}")], false, None).await;
        check(200, events, &[Some("data: {}\n\n")], false, None).await;
        check(200, events, &[Some("data: "), Some("{}\n\n")], true, Some("data: {}\n\n")).await;
        // What comes after the first bytes is on its way to the client already.
        check(200, events, &[Some("data: "), None], true, Some("broken off")).await;
        check(200, events, &[None], true, None).await;
        check(200, events, &[], true, None).await;
        check(200, json, &[Some("{}")], true, None).await;
        // What is encoded is not read; "identity" is no encoding, whatever its case.
        for (encoding, expected) in [("gzip", Some("?")), ("identity", None), ("Identity", None)] {
            let mut response = response(200, json, &[Some("?")]);
            response.headers_mut().insert(CONTENT_ENCODING, encoding.parse().expect("a value"));
            let seen = inspect(response, false).await.map(|response| response.into_body().collect());
            let seen = match seen {
                None => None,
                Some(body) => Some(body.await.expect("a whole body").to_bytes()),
            };
            assert_eq!(seen.as_deref(), expected.map(str::as_bytes), "{encoding}");
        }
        // Only a 200 promises anything.
        check(404, "text/html", &[Some("no")], true, Some("no")).await;
    }
}
