//! Envoy as the service behind the cache layer: a call's request goes back to Envoy, and its answer is what Envoy shows of
//! the provider's.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{mpsc, oneshot};
use tower_service::Service;

use crate::body::{Body, BoxError};

/// Takes one call.
#[derive(Clone)]
pub(super) struct Hop(mpsc::Sender<Call>);

/// A request that is to go upstream, and where its answer is waited for.
pub(super) struct Call {
    pub(super) request: Request<Body>,
    pub(super) answer: oneshot::Sender<Response<Body>>,
}

/// Envoy has nobody to send a request to: its own was answered, or is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

impl Hop {
    /// The service, and what it is asked for.
    pub(super) fn new() -> (Self, mpsc::Receiver<Call>) {
        let (calls, called) = mpsc::channel(1);
        (Self(calls), called)
    }
}

impl Service<Request<Body>> for Hop {
    type Response = Response<Body>;
    type Error = Gone;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Gone>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let calls = self.0.clone();
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            calls.send(Call { request, answer }).await.map_err(|_| Gone)?;
            answered.await.map_err(|_| Gone)
        })
    }
}

/// The body of an answer that passes Envoy, as far as it was shown.
pub(super) struct Shown(UnboundedReceiver<Piece>);

/// Shows a body piece by piece. Dropped before the end, the body is broken off.
pub(super) struct Showing(UnboundedSender<Piece>);

enum Piece {
    Data(Bytes),
    End,
}

impl Shown {
    pub(super) fn new() -> (Showing, Self) {
        let (pieces, shown) = unbounded_channel();
        (Showing(pieces), Self(shown))
    }
}

impl Showing {
    pub(super) fn show(&self, data: Bytes) {
        // Whoever does not record has dropped the body.
        drop(self.0.send(Piece::Data(data)));
    }

    pub(super) fn end(&self) {
        drop(self.0.send(Piece::End));
    }
}

impl http_body::Body for Shown {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(match ready!(self.0.poll_recv(cx)) {
            Some(Piece::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Piece::End) => None,
            None => Some(Err("Envoy showed no more of the answer".into())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_body_ends_where_it_is_said_to() {
        let (showing, shown) = Shown::new();
        showing.show(Bytes::from("all of "));
        showing.show(Bytes::from("it"));
        showing.end();
        drop(showing);
        assert_eq!(shown.collect().await.expect("whole").to_bytes(), "all of it");

        let (showing, shown) = Shown::new();
        showing.show(Bytes::from("half of"));
        drop(showing);
        assert!(shown.collect().await.is_err(), "it broke off");
    }

    #[tokio::test]
    async fn a_call_that_nobody_takes_fails() {
        let (mut hop, calls) = Hop::new();
        drop(calls);
        assert_eq!(hop.call(Request::new(Body::from(""))).await.map(drop), Err(Gone));

        let (mut hop, mut calls) = Hop::new();
        let answer = hop.call(Request::new(Body::from("")));
        let answered = async {
            let call = calls.recv().await.expect("a call");
            call.answer.send(Response::new(Body::from("yes"))).expect("somebody waits");
        };
        let (answer, ()) = tokio::join!(answer, answered);
        let body = answer.expect("an answer").into_body().collect().await.expect("whole").to_bytes();
        assert_eq!(body, "yes");
    }
}
