//! A body that breaks off only once what came before is on its way.
//!
//! A connection that is told of an error forgets what it has not written yet. So the error waits until the connection has
//! let go of everything, where that is known; else for one more poll, before which connections write what they can.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

use super::{Body, BoxError};

/// In a request's extensions: how often its connection let go of all that it had, and who waits for the next time.
#[derive(Debug, Clone, Default)]
pub struct Flushes(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    count: u64,
    waiting: Vec<Waker>,
}

impl Flushes {
    /// The connection let go of all that it had.
    pub fn flushed(&self) {
        let waiting = {
            let State { count, waiting } = &mut *self.0.lock();
            *count += 1;
            std::mem::take(waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    fn count(&self) -> u64 {
        self.0.lock().count
    }

    /// Ready when that happened more often.
    fn poll_past(&self, count: u64, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.count > count {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// The body, whose error waits.
pub(super) struct Late {
    body: Body,
    error: Option<BoxError>,
    flushes: Option<Flushes>,
    /// How often the connection had let go of everything when it was given the last bytes, or the head.
    given_at: u64,
}

impl Late {
    pub(super) fn new(body: Body, flushes: Option<Flushes>) -> Self {
        let given_at = flushes.as_ref().map_or(0, Flushes::count);
        Self { body, error: None, flushes, given_at }
    }
}

impl http_body::Body for Late {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.error.is_none() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Err(error)) => this.error = Some(error),
                frame => {
                    this.given_at = this.flushes.as_ref().map_or(0, Flushes::count);
                    return Poll::Ready(frame);
                }
            }
            if this.flushes.is_none() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        if let Some(flushes) = &this.flushes {
            ready!(flushes.poll_past(this.given_at, cx));
        }
        Poll::Ready(this.error.take().map(Err))
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

    fn body(flushes: Option<Flushes>) -> Late {
        let frames = [Ok(Frame::data(Bytes::from_static(b"last"))), Err(BoxError::from("cut"))];
        Late::new(Body::new(StreamBody::new(stream::iter(frames))), flushes)
    }

    /// The bytes, what went wrong, or nothing at the end; pending if it waits.
    fn poll(body: &mut Late) -> Poll<Option<Result<Bytes, String>>> {
        let frame = Pin::new(body).poll_frame(&mut Context::from_waker(&noop_waker()));
        let bytes = |frame: Frame<Bytes>| frame.into_data().unwrap_or_default();
        frame.map(|frame| frame.map(|frame| frame.map(bytes).map_err(|error| error.to_string())))
    }

    #[test]
    fn an_error_waits_once_and_nothing_else_does() {
        let mut body = body(None);
        assert_eq!(poll(&mut body), Poll::Ready(Some(Ok(Bytes::from_static(b"last")))));
        assert_eq!(poll(&mut body), Poll::Pending);
        assert_eq!(poll(&mut body), Poll::Ready(Some(Err("cut".into()))));
        assert_eq!(poll(&mut body), Poll::Ready(None));
    }

    #[test]
    fn an_error_waits_until_all_before_it_is_sent() {
        let flushes = Flushes::default();
        flushes.flushed();
        let mut waits = body(Some(flushes.clone()));
        assert!(poll(&mut waits).is_ready());
        for _ in 0..3 {
            assert_eq!(poll(&mut waits), Poll::Pending, "that was before");
        }
        flushes.flushed();
        assert_eq!(poll(&mut waits), Poll::Ready(Some(Err("cut".into()))));
        let mut sent = body(Some(flushes.clone()));
        assert!(poll(&mut sent).is_ready());
        flushes.flushed();
        assert_eq!(poll(&mut sent), Poll::Ready(Some(Err("cut".into()))), "there is nothing to wait for");
    }
}
