//! A body that lets go of what it has before it breaks off.
//!
//! A connection that is told of an error forgets what it has not written yet. So the error comes a moment later: whoever
//! asks is told to wait once, which is when connections write, and is woken at once.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{Body, BoxError};

/// The body, whose error waits for one more poll.
pub(super) struct Late {
    body: Body,
    error: Option<BoxError>,
}

impl Late {
    pub(super) fn new(body: Body) -> Self {
        Self { body, error: None }
    }
}

impl http_body::Body for Late {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Err(error)) => {
                self.error = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.error.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use futures_util::task::noop_waker;
    use http_body::Body as _;
    use http_body_util::StreamBody;

    use super::*;

    #[test]
    fn an_error_waits_once_and_nothing_else_does() {
        let frames = [Ok(Frame::data(Bytes::from_static(b"last"))), Err(BoxError::from("cut"))];
        let mut body = Late::new(Body::new(StreamBody::new(stream::iter(frames))));
        let mut poll = || {
            let frame = Pin::new(&mut body).poll_frame(&mut Context::from_waker(&noop_waker()));
            frame.map(|frame| frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default())))
        };
        assert!(matches!(poll(), Poll::Ready(Some(Ok(data))) if data == "last"));
        assert!(poll().is_pending());
        assert!(matches!(poll(), Poll::Ready(Some(Err(error))) if error.to_string() == "cut"));
        assert!(matches!(poll(), Poll::Ready(None)));
    }
}
