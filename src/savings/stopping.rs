//! A stream on its way to the client, ended when it is complete.
//!
//! Ended, it lets go of what it reads from: where nobody else reads along, the call upstream is given up, its connection
//! closed, and what was recorded of it forgotten. So nothing is kept of an answer that was not heard to its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use crate::body::{Body, BoxError};
use crate::wire::stop::{Passed, StreamWatch};

pub(super) struct Stopping<F> {
    /// `None` once it is over.
    body: Option<Body>,
    watch: StreamWatch,
    /// Trailers to pass on after what came before them.
    trailers: Option<Frame<Bytes>>,
    /// An error to tell after what came before it.
    broken: Option<BoxError>,
    stopped: F,
}

impl<F: FnMut()> Stopping<F> {
    pub(super) fn new(body: Body, watch: StreamWatch, stopped: F) -> Self {
        Self { body: Some(body), watch, trailers: None, broken: None, stopped }
    }
}

impl<F: FnMut() + Unpin> http_body::Body for Stopping<F> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(Some(Ok(trailers)));
            }
            let Some(body) = &mut self.body else { return Poll::Ready(self.broken.take().map(Err)) };
            let data = match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(trailers) => {
                        self.trailers = Some(trailers);
                        match self.watch.rest() {
                            rest if rest.is_empty() => continue,
                            rest => return Poll::Ready(Some(Ok(Frame::data(rest.into())))),
                        }
                    }
                },
                ended => {
                    self.body = None;
                    self.broken = ended.and_then(Result::err);
                    let rest = self.watch.rest();
                    if rest.is_empty() {
                        continue;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(rest.into()))));
                }
            };
            let Passed { bytes, is_stopped } = self.watch.feed(&data);
            if is_stopped {
                self.body = None;
                (self.stopped)();
            }
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(bytes.into()))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http::{HeaderMap, HeaderValue};
    use http_body_util::{BodyExt, StreamBody};
    use serde_json::json;

    use super::*;
    use crate::wire::stop::StopRule;

    /// What came of frames: data, trailers, or an error.
    async fn passed(frames: Vec<Result<Frame<Bytes>, BoxError>>) -> Vec<String> {
        let request = json!({"model": "m", "stream": true, "response_format": {"type": "json_object"}});
        let rule = StopRule { json: true, after: Vec::new() };
        let watch = StreamWatch::new("/v1/chat/completions", request.as_object().expect("fields"), true, &rule);
        let body = Body::new(StreamBody::new(stream::iter(frames)));
        let mut body = Stopping::new(body, watch.expect("watched"), || {});
        let mut passed = Vec::new();
        while let Some(frame) = body.frame().await {
            passed.push(match frame.map(Frame::into_data) {
                Ok(Ok(data)) => String::from_utf8_lossy(&data).into_owned(),
                Ok(Err(frame)) => format!("{:?}", frame.into_trailers().expect("trailers")),
                Err(error) => error.to_string(),
            });
        }
        passed
    }

    #[tokio::test]
    async fn what_is_held_comes_before_what_follows_it() {
        let data = |text: &'static str| Ok(Frame::data(Bytes::from_static(text.as_bytes())));
        let trailers = || {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-end", HeaderValue::from_static("1"));
            Ok(Frame::trailers(trailers))
        };
        let said = "{\"x-end\": \"1\"}";
        assert_eq!(passed(vec![data("data: [DONE]\n"), trailers()]).await, ["data: [DONE]\n", said]);
        assert_eq!(passed(vec![data(": hi\n\n"), trailers()]).await, [": hi\n\n", said]);
        assert_eq!(passed(vec![data("data: [DONE]\n"), Err("cut".into())]).await, ["data: [DONE]\n", "cut"]);
    }
}
