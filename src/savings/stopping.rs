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
    /// An error to tell after what came before it.
    broken: Option<BoxError>,
    stopped: F,
}

impl<F: FnMut()> Stopping<F> {
    pub(super) fn new(body: Body, watch: StreamWatch, stopped: F) -> Self {
        Self { body: Some(body), watch, broken: None, stopped }
    }
}

impl<F: FnMut() + Unpin> http_body::Body for Stopping<F> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(self.broken.take().map(Err)) };
            let data = match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
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
