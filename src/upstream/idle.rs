//! A body that must go on: an upstream that says nothing more for too long is left, however long the whole may take.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::body::{Body, BoxError};

/// Ends with an error where the next bytes take longer than allowed.
pub(super) struct Idle {
    body: Body,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
}

/// Why the body broke off.
#[derive(Debug, thiserror::Error)]
#[error("the upstream sent nothing for {} s", .0.as_secs())]
struct Silence(Duration);

impl Idle {
    pub(super) fn new(body: Body, timeout: Duration) -> Self {
        Self { body, timeout, timer: Box::pin(sleep(timeout)) }
    }
}

impl http_body::Body for Idle {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.timer.as_mut().reset(Instant::now() + this.timeout);
            return Poll::Ready(frame);
        }
        ready!(this.timer.as_mut().poll(cx));
        tracing::warn!(idle_s = this.timeout.as_secs(), "an upstream fell silent in the middle of an answer");
        Poll::Ready(Some(Err(Silence(this.timeout).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_silence_ends_it() {
        let pieces = stream::unfold(0_u64, |seconds| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Some((Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"x"))), seconds + 2))
        });
        let mut body = Idle::new(Body::new(StreamBody::new(Box::pin(pieces))), Duration::from_secs(9));
        let mut read = 0;
        let error = loop {
            match body.frame().await.expect("it never ends by itself") {
                Ok(_) => read += 1,
                Err(error) => break error.to_string(),
            }
        };
        // After 0, 2, 4, 6 and 8 seconds; the next would come after 10.
        assert_eq!((read, error.as_str()), (5, "the upstream sent nothing for 9 s"));
    }
}
