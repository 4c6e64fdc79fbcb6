//! A connection that says when it has let go of all that it was given.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};

use super::seats::Seat;
use crate::body::Flushes;

/// The connection. Whoever writes to it flushes it only when nothing is left to be written.
pub(super) struct Outflow<S> {
    stream: S,
    flushes: Flushes,
    seat: Arc<Seat>,
}

impl<S> Outflow<S> {
    pub(super) fn new(stream: S, flushes: Flushes, seat: Arc<Seat>) -> Self {
        Self { stream, flushes, seat }
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(_) => self.seat.sent(),
            Poll::Pending => self.seat.blocked(),
        }
        written
    }
}

impl<S: Read + Unpin> Read for Outflow<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: Write + Unpin> Write for Outflow<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.flushes.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(written)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::stream;
    use http::{Request, Response};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::super::seats::Seats;
    use super::*;
    use crate::body::{Body, BoxError};

    /// A client that reads slower than it is written to, of a body that breaks off: how much of it comes.
    async fn comes(pieces: usize) -> usize {
        let (mut client, server) = duplex(64);
        let flushes = Flushes::default();
        let told = Some(flushes.clone());
        let answer = move |_: Request<Incoming>| {
            let pieces = std::iter::repeat_n(Bytes::from_static(b"####"), pieces);
            let frames = pieces.map(|piece| Ok(Frame::data(piece))).chain([Err(BoxError::from("cut"))]);
            let body = Body::new(StreamBody::new(stream::iter(frames))).late(told.clone());
            async move { Ok::<_, Infallible>(Response::new(body)) }
        };
        let seat = Seats::new(1).take().await;
        let connection = Outflow::new(TokioIo::new(server), flushes, Arc::new(seat));
        let serving = tokio::spawn(http1::Builder::new().serve_connection(connection, service_fn(answer)));
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("a server");
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.expect("the end");
        assert!(serving.await.expect("no panic").is_err(), "it broke off");
        read.iter().filter(|byte| **byte == b'#').count()
    }

    #[tokio::test]
    async fn whatever_is_on_its_way_comes_before_the_end() {
        for pieces in 0..50 {
            assert_eq!(comes(pieces).await, 4 * pieces, "{pieces}");
        }
    }
}
