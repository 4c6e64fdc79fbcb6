//! Request bodies on their way in: how long one may take, and how many bytes of all of them are held at a time.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::body::{BoxError, discard};
use crate::wire::problem::Problem;

/// Room for request bodies.
#[derive(Debug)]
pub struct Room {
    bytes_max: usize,
    held: AtomicUsize,
}

impl Room {
    /// Of so many bytes, for all bodies together.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, held: AtomicUsize::new(0) }
    }

    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { room: Arc::clone(self), bytes: 0 }
    }
}

/// What one request has of it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    room: Arc<Room>,
    bytes: usize,
}

impl Share {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes so many bytes more; false if there is no room for them.
    fn grow(&mut self, bytes: usize) -> bool {
        let Room { bytes_max, held } = &*self.room;
        let more = |now: usize| now.checked_add(bytes).filter(|sum| sum <= bytes_max);
        let is_room = held.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok();
        self.bytes += if is_room { bytes } else { 0 };
        is_room
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.held.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// How much of a body is read, and how long that may take.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    pub bytes_max: usize,
    /// Longest wait for the next bytes.
    pub pause_max: Duration,
}

/// A body that was read.
pub(crate) enum Taken<B> {
    Whole(Bytes),
    /// There was no room for all of it.
    Begun(Begun<B>),
}

/// Reads a body, as far as there is room for it.
///
/// # Errors
/// It is too large, breaks off, or comes too slowly.
pub(crate) async fn take<B>(body: B, reading: Reading, share: &mut Share) -> Result<Taken<B>, Problem>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let Reading { bytes_max, pause_max } = reading;
    let mut body = Box::pin(body);
    if body.size_hint().lower() > bytes_max as u64 {
        discard(body.as_mut(), bytes_max.saturating_mul(2)).await;
        return Err(Problem::too_large(bytes_max));
    }
    let (started, mut pieces, mut total) = (Instant::now(), VecDeque::new(), 0_usize);
    loop {
        let trickling = started + pause_max + Duration::from_secs((total / BYTES_PER_SECOND_MIN) as u64);
        let deadline = trickling.min(Instant::now() + pause_max);
        let frame = match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(broken_off(&error.into())),
            Ok(None) => break,
            Err(_) => return Err(too_slow(total)),
        };
        let Ok(piece) = frame.into_data() else { continue };
        total += piece.len();
        if total > bytes_max {
            drop(pieces);
            discard(body.as_mut(), bytes_max).await;
            return Err(Problem::too_large(bytes_max));
        }
        let is_room = share.grow(piece.len());
        pieces.push_back(piece);
        if !is_room {
            return Ok(Taken::Begun(Begun { pieces, rest: body }));
        }
    }
    Ok(Taken::Whole(joined(pieces, total)))
}

fn joined(mut pieces: VecDeque<Bytes>, total: usize) -> Bytes {
    if pieces.len() <= 1 {
        return pieces.pop_front().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(total);
    // Each goes as soon as it is copied.
    pieces.drain(..).for_each(|piece| whole.extend_from_slice(&piece));
    whole.freeze()
}

pub(crate) fn broken_off(error: &BoxError) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "body_broken_off", format!("the body could not be read: {error}"))
}

fn too_slow(bytes: usize) -> Problem {
    let message = format!("the body came too slowly: {bytes} bytes so far");
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
}

/// A body of which some was read: all of it, from its beginning.
pub(crate) struct Begun<B> {
    pieces: VecDeque<Bytes>,
    rest: Pin<Box<B>>,
}

#[cfg(feature = "server")]
impl<B> Begun<B>
where
    B: http_body::Body<Data = Bytes>,
{
    /// Reads it to its end and forgets it.
    pub(crate) async fn discard(mut self, bytes_max: usize) {
        self.pieces.clear();
        discard(self.rest.as_mut(), bytes_max).await;
    }
}

impl<B: http_body::Body<Data = Bytes>> http_body::Body for Begun<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None => self.rest.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let here = self.pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(here + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(here + upper);
        }
        hint
    }
}

/// Slower than any line that people use: who sends less holds the server up on purpose.
const BYTES_PER_SECOND_MIN: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;

    const READING: Reading = Reading { bytes_max: 10_000, pause_max: Duration::from_secs(30) };

    /// A body of `count` pieces of this length, `pause` between two.
    fn body(count: usize, length: usize, pause: Duration) -> impl http_body::Body<Data = Bytes, Error = BoxError> {
        let pieces = stream::unfold(0, move |number| async move {
            if number == count {
                return None;
            }
            tokio::time::sleep(pause).await;
            Some((Ok(Frame::data(Bytes::from(vec![number as u8; length]))), number + 1))
        });
        StreamBody::new(pieces)
    }

    fn whole(count: usize, length: usize) -> Vec<u8> {
        (0..count).flat_map(|number| vec![number as u8; length]).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_take_its_time_but_not_for_ever() {
        let check = async |count, length, pause_ms, expected: Result<(), &str>| {
            let room = Arc::new(Room::new(1 << 20));
            let mut share = room.share();
            let taken = take(body(count, length, Duration::from_millis(pause_ms)), READING, &mut share).await;
            match taken {
                Ok(Taken::Whole(bytes)) => assert_eq!((bytes.as_ref(), Ok(())), (&*whole(count, length), expected)),
                Ok(Taken::Begun(_)) => panic!("there is room"),
                Err(problem) => assert_eq!(Err(problem.code), expected, "{count} {length} {pause_ms}"),
            }
            drop(share);
            assert_eq!(room.held.load(Ordering::SeqCst), 0);
        };
        check(0, 0, 0, Ok(())).await;
        check(1, 1, 29_999, Ok(())).await;
        check(1, 1, 30_001, Err("body_timeout")).await;
        check(10, 1_000, 2_900, Ok(())).await;
        // Always something, and never enough.
        check(1_000, 1, 1_000, Err("body_timeout")).await;
        check(11, 1_000, 0, Err("body_too_large")).await;
    }

    #[tokio::test]
    async fn what_there_is_no_room_for_can_still_be_read_whole() {
        let room = Arc::new(Room::new(2_500));
        let (mut first, mut second) = (room.share(), room.share());
        let one = take(body(2, 1_000, Duration::ZERO), READING, &mut first).await.expect("a body");
        assert!(matches!(one, Taken::Whole(bytes) if bytes == whole(2, 1_000)));
        let Ok(Taken::Begun(begun)) = take(body(3, 400, Duration::ZERO), READING, &mut second).await else {
            panic!("there is no room for all of it");
        };
        assert_eq!((first.bytes(), second.bytes()), (2_000, 400));
        assert_eq!(begun.collect().await.expect("no error").to_bytes(), whole(3, 400));
        drop((first, second));
        assert_eq!(room.held.load(Ordering::SeqCst), 0);
        let mut third = room.share();
        assert!(matches!(take(body(5, 500, Duration::ZERO), READING, &mut third).await, Ok(Taken::Whole(_))));
    }
}
