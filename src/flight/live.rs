//! An answer that many read while it comes.
//!
//! Until it is too long to be kept it is held whole, so that others may join. After that, what every reader has is
//! dropped, and whoever is ahead waits for those behind: no more is held than what may be kept. One that stands still for
//! too long is left behind, so that it holds nobody up.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, HeaderMap, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep};

use super::Flight;
use crate::body::{Body, BoxError};
use crate::metrics::FlightMetrics;

/// An answer whose head has come.
pub(super) struct Live {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) extensions: Extensions,
    /// Longer than what is kept: nobody joins any more.
    is_long: AtomicBool,
    answer: Mutex<Answer>,
    waiting: Arc<Waiting>,
    metrics: FlightMetrics,
}

/// What has come of an answer, and where the rest comes from.
struct Answer {
    rest: Option<Body>,
    /// From the piece numbered `dropped` on.
    pieces: VecDeque<Bytes>,
    /// Pieces that nobody needs any more.
    dropped: usize,
    /// Bytes that came.
    bytes: usize,
    /// Bytes of `pieces`.
    held: usize,
    bytes_max: usize,
    broken: Option<String>,
    readers: HashMap<u64, Place>,
    last_id: u64,
    /// Whether whoever has not begun to read by now comes too late.
    is_closed: bool,
}

/// Where a reader stands.
struct Place {
    /// The piece that it reads next.
    next: usize,
    /// When it began, or read something.
    moved: Instant,
}

impl Live {
    pub(super) fn new(response: Response<Body>, bytes_max: usize, metrics: FlightMetrics) -> Self {
        let (parts, body) = response.into_parts();
        let rest = (!body.is_end_stream()).then_some(body);
        let answer = Answer {
            rest,
            pieces: VecDeque::new(),
            dropped: 0,
            bytes: 0,
            held: 0,
            bytes_max,
            broken: None,
            readers: HashMap::new(),
            last_id: 0,
            is_closed: false,
        };
        Self {
            status: parts.status,
            headers: parts.headers,
            extensions: parts.extensions,
            is_long: AtomicBool::new(false),
            answer: Mutex::new(answer),
            waiting: Arc::default(),
            metrics,
        }
    }

    /// Whether all of it can still be had.
    pub(super) fn is_open(&self) -> bool {
        !self.is_long.load(Ordering::SeqCst)
    }

    /// Whether more is to come.
    pub(super) fn goes_on(&self) -> bool {
        self.answer.lock().rest.is_some()
    }

    /// Somebody is not waited for any more.
    pub(super) fn wake_readers(&self) {
        self.waiting.wake_all();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.metrics.holds_less(self.answer.get_mut().held);
    }
}

impl Answer {
    /// Puts what comes next beside what came before; how much that is. Ready when something did, even if only the end.
    fn pull(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(0) };
        let mut came = 0;
        match ready!(Pin::new(&mut *rest).poll_frame(cx)) {
            Some(Ok(frame)) => {
                let is_over = rest.is_end_stream();
                // Trailers speak of the connection to the provider.
                if let Ok(data) = frame.into_data() {
                    came = data.len();
                    self.bytes += came;
                    self.held += came;
                    // A small piece may be a slice of a large buffer, which would be held with it.
                    let is_small = data.len() < SMALL;
                    self.pieces.push_back(if is_small { Bytes::copy_from_slice(&data) } else { data });
                }
                if is_over {
                    self.rest = None;
                }
            }
            Some(Err(error)) => {
                self.broken = Some(error.to_string());
                self.rest = None;
            }
            None => self.rest = None,
        }
        Poll::Ready(came)
    }

    fn is_long(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// Whether so much is held that whoever is ahead has to wait.
    fn is_full(&self) -> bool {
        self.is_long() && self.held > self.bytes_max
    }

    fn end(&self) -> usize {
        self.dropped + self.pieces.len()
    }

    /// Drops what every reader has; how much that was. `is_awaited`: somebody has yet to begin.
    fn trim(&mut self, is_awaited: bool) -> usize {
        if !self.is_long() || is_awaited && !self.is_closed {
            return 0;
        }
        let least = self.readers.values().map(|place| place.next).min().unwrap_or_else(|| self.end());
        let had = self.held;
        while self.dropped < least
            && let Some(piece) = self.pieces.pop_front()
        {
            self.held -= piece.len();
            self.dropped += 1;
        }
        had - self.held
    }

    /// Leaves behind whoever has something to read and has read nothing for too long.
    fn leave_behind(&mut self) {
        let end = self.end();
        self.readers.retain(|_, place| place.next == end || place.moved.elapsed() < STALL_TIME_MAX);
        self.is_closed = true;
    }
}

/// One request's view of the answer.
pub(super) struct Reader {
    live: Arc<Live>,
    /// As long as somebody reads, others may join.
    flight: Arc<Flight>,
    id: u64,
    /// How long it still waits for those behind.
    patience: Option<Pin<Box<Sleep>>>,
}

/// Why the answer broke off for one of its readers.
#[derive(Debug, thiserror::Error)]
#[error("others read the same answer, and had waited {} s for this reader", STALL_TIME_MAX.as_secs())]
struct LeftBehind;

impl Reader {
    /// `None` if the beginning is gone.
    pub(super) fn new(live: Arc<Live>, flight: Arc<Flight>) -> Option<Self> {
        let mut answer = live.answer.lock();
        if answer.dropped > 0 || answer.is_closed {
            return None;
        }
        answer.last_id += 1;
        let id = answer.last_id;
        answer.readers.insert(id, Place { next: 0, moved: Instant::now() });
        drop(answer);
        live.metrics.began_to_read();
        Some(Self { live, flight, id, patience: None })
    }

    /// The next piece, if it is there.
    fn read(&self, answer: &mut Answer) -> Result<Option<Bytes>, LeftBehind> {
        let dropped = answer.dropped;
        let place = answer.readers.get_mut(&self.id).ok_or(LeftBehind)?;
        let Some(piece) = answer.pieces.get(place.next - dropped).cloned() else { return Ok(None) };
        let was_last = place.next == dropped;
        place.next += 1;
        place.moved = Instant::now();
        if was_last {
            self.trim(answer);
        }
        Ok(Some(piece))
    }

    fn trim(&self, answer: &mut Answer) {
        let freed = answer.trim(self.flight.is_awaited());
        if freed > 0 {
            self.live.metrics.holds_less(freed);
            self.live.waiting.wake_all();
        }
    }
}

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let live = Arc::clone(&self.live);
        let mut answer = live.answer.lock();
        loop {
            match self.read(&mut answer) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Ok(None) => {}
                Err(left_behind) => return Poll::Ready(Some(Err(left_behind.into()))),
            }
            if let Some(error) = &answer.broken {
                return Poll::Ready(Some(Err(error.clone().into())));
            }
            if answer.rest.is_none() {
                return Poll::Ready(None);
            }
            // Before anything is asked: it may wake at once.
            live.waiting.wait(self.id, cx.waker());
            self.trim(&mut answer);
            if answer.is_full() {
                let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(STALL_TIME_MAX)));
                ready!(patience.as_mut().poll(cx));
                self.patience = None;
                answer.leave_behind();
                continue;
            }
            self.patience = None;
            let waker = Waker::from(Arc::clone(&live.waiting));
            let Poll::Ready(came) = answer.pull(&mut Context::from_waker(&waker)) else { return Poll::Pending };
            live.metrics.holds_more(came);
            if answer.is_long() {
                live.is_long.store(true, Ordering::SeqCst);
            }
            live.waiting.forget(self.id);
            live.waiting.wake_all();
        }
    }

    fn is_end_stream(&self) -> bool {
        let answer = self.live.answer.lock();
        let is_at_end = answer.readers.get(&self.id).is_some_and(|place| place.next == answer.end());
        answer.rest.is_none() && answer.broken.is_none() && is_at_end
    }

    fn size_hint(&self) -> SizeHint {
        let answer = self.live.answer.lock();
        let Some(place) = answer.readers.get(&self.id) else { return SizeHint::default() };
        let here = answer.pieces.iter().skip(place.next - answer.dropped).map(|piece| piece.len() as u64).sum::<u64>();
        let rest = answer.rest.as_ref().map_or(SizeHint::with_exact(0), http_body::Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(here + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(here + upper);
        }
        hint
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut answer = self.live.answer.lock();
        answer.readers.remove(&self.id);
        self.trim(&mut answer);
        drop(answer);
        self.live.metrics.ceased_to_read();
        self.live.waiting.forget(self.id);
        // Whoever is left asks for the rest itself.
        self.live.waiting.wake_all();
    }
}

/// Who waits: for the next piece, or for those behind.
#[derive(Default)]
struct Waiting(Mutex<HashMap<u64, Waker>>);

impl Waiting {
    fn wait(&self, id: u64, waker: &Waker) {
        let mut waiting = self.0.lock();
        match waiting.get_mut(&id) {
            Some(old) => old.clone_from(waker),
            None => drop(waiting.insert(id, waker.clone())),
        }
    }

    fn forget(&self, id: u64) {
        drop(self.0.lock().remove(&id));
    }

    fn wake_all(&self) {
        let waiting: Vec<Waker> = self.0.lock().drain().map(|(_, waker)| waker).collect();
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}

/// As long as others wait for a reader that reads nothing: longer than networks stutter, shorter than clients wait.
pub(super) const STALL_TIME_MAX: Duration = Duration::from_secs(120);

/// Bytes of a piece that is copied rather than kept with the buffer that it came in.
const SMALL: usize = 4 << 10;
