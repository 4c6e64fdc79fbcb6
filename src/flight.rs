//! Identical questions on their way upstream at one time share one call and its live answer.
//!
//! The first that misses leads; whoever asks the same until the answer is stored joins and reads along. The call belongs to
//! all of them: whichever is polled drives it, so it goes on when its leader leaves, and is cancelled when the last one does.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use http::{Extensions, HeaderMap, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use crate::body::{Body, BoxError};

/// The calls on their way, by what they ask.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<FlightKey, Weak<Flight>>>);

/// What two requests must have in common to share a call: the question with its scope, the bytes that ask it, the caller's
/// keys and priority, and what is kept with the answer.
pub(crate) type FlightKey = [u8; 32];

/// A call that requests share.
pub(crate) struct Flight {
    head: Shared<BoxFuture<'static, Option<Arc<Live>>>>,
}

/// What became of a request that wanted to call upstream.
pub(crate) enum Boarding<C> {
    /// It made the call.
    Leads(Arc<Flight>),
    /// The same is on its way already; the call that was not made is handed back.
    Joins(Arc<Flight>, C),
}

/// Ends a flight when it is dropped: nobody joins after that.
pub(crate) struct Landing {
    flights: Arc<Flights>,
    key: FlightKey,
    flight: Weak<Flight>,
}

impl Flights {
    /// Nothing is on its way: no key need be made.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// The flight with this key, if the answer can still be had from its beginning.
    pub(crate) fn get(&self, key: &FlightKey) -> Option<Arc<Flight>> {
        let flight = self.0.lock().get(key).and_then(Weak::upgrade);
        flight.filter(|flight| flight.is_open())
    }

    /// Joins the flight with this key, or makes the call. What `call` is given is kept until the answer is stored. The call's
    /// output is `None` if there is no answer.
    pub(crate) fn board<C, F>(self: &Arc<Self>, key: FlightKey, answer_bytes_max: usize, call: C) -> Boarding<C>
    where
        C: FnOnce(Option<Landing>) -> F + Send + 'static,
        F: Future<Output = Option<Response<Body>>> + Send,
    {
        // Declared first, dropped last: the end of a flight takes the lock.
        let _closed;
        let mut flights = self.0.lock();
        match flights.get(&key).and_then(Weak::upgrade) {
            Some(flight) if flight.is_open() => return Boarding::Joins(flight, call),
            other => _closed = other,
        }
        let flight = Arc::new_cyclic(|flight| {
            let landing = Landing { flights: Arc::clone(self), key, flight: Weak::clone(flight) };
            // Not before it is polled: what it drops may take the lock.
            let answer = async move { call(Some(landing)).await };
            // Of many that wait, one polls: its panic must not be theirs.
            let answer = AssertUnwindSafe(answer).catch_unwind();
            let head = answer.map(move |answer| Some(Arc::new(Live::new(answer.ok()??, answer_bytes_max))));
            Flight { head: head.boxed().shared() }
        });
        flights.insert(key, Arc::downgrade(&flight));
        Boarding::Leads(flight)
    }
}

impl Flight {
    /// The answer from its beginning, when its head is there; `None` if there is none, or its beginning is gone.
    pub(crate) async fn answer(self: Arc<Self>) -> Option<Response<Body>> {
        let live = self.head.clone().await?;
        let reader = Reader::new(Arc::clone(&live), self)?;
        let mut response = Response::new(Body::new(reader));
        *response.status_mut() = live.status;
        live.headers.clone_into(response.headers_mut());
        live.extensions.clone_into(response.extensions_mut());
        Some(response)
    }

    /// Whether more of the answer is to come. What came to its end is about to be in the cache, or is there.
    pub(crate) fn is_live(&self) -> bool {
        self.head.peek().is_none_or(|live| live.as_ref().is_some_and(|live| live.answer.lock().rest.is_some()))
    }

    fn is_open(&self) -> bool {
        self.head.peek().is_none_or(|live| live.as_ref().is_some_and(|live| !live.is_long.load(Ordering::SeqCst)))
    }
}

impl Landing {
    /// The flight, to be held until its answer is stored.
    pub(crate) fn hold(self) -> Option<(Self, Arc<Flight>)> {
        let flight = self.flight.upgrade()?;
        Some((self, flight))
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.flights.0.lock();
        if flights.get(&self.key).is_some_and(|flight| flight.ptr_eq(&self.flight)) {
            flights.remove(&self.key);
        }
    }
}

/// An answer whose head has come.
struct Live {
    status: StatusCode,
    headers: HeaderMap,
    extensions: Extensions,
    /// Longer than what is kept: nobody joins any more.
    is_long: AtomicBool,
    answer: Mutex<Answer>,
    readers: Arc<Readers>,
}

/// What has come of an answer, and where the rest comes from.
struct Answer {
    rest: Option<Body>,
    /// From the piece numbered `dropped` on.
    pieces: Vec<Bytes>,
    /// Pieces that nobody needs any more.
    dropped: usize,
    bytes: usize,
    bytes_max: usize,
    broken: Option<String>,
    readers: u64,
}

impl Live {
    fn new(response: Response<Body>, bytes_max: usize) -> Self {
        let (parts, body) = response.into_parts();
        let rest = (!body.is_end_stream()).then_some(body);
        let answer = Answer { rest, pieces: Vec::new(), dropped: 0, bytes: 0, bytes_max, broken: None, readers: 0 };
        Self {
            status: parts.status,
            headers: parts.headers,
            extensions: parts.extensions,
            is_long: AtomicBool::new(false),
            answer: Mutex::new(answer),
            readers: Arc::default(),
        }
    }
}

impl Answer {
    /// Puts what comes next beside what came before. Ready when something did, even if only the end.
    fn pull(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(()) };
        match std::task::ready!(Pin::new(&mut *rest).poll_frame(cx)) {
            Some(Ok(frame)) => {
                let is_over = rest.is_end_stream();
                // Trailers speak of the connection to the provider.
                if let Ok(data) = frame.into_data() {
                    self.bytes += data.len();
                    self.pieces.push(data);
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
        Poll::Ready(())
    }
}

/// One request's view of the answer.
struct Reader {
    live: Arc<Live>,
    /// As long as somebody reads, others may join.
    flight: Arc<Flight>,
    id: u64,
    /// The piece that it reads next.
    position: usize,
}

impl Reader {
    fn new(live: Arc<Live>, flight: Arc<Flight>) -> Option<Self> {
        let mut answer = live.answer.lock();
        if answer.dropped > 0 {
            return None;
        }
        answer.readers += 1;
        let id = answer.readers;
        drop(answer);
        Some(Self { live, flight, id, position: 0 })
    }

    fn read(&mut self, answer: &mut Answer) -> Option<Bytes> {
        let next = self.position - answer.dropped;
        let piece = answer.pieces.get(next).cloned()?;
        self.position += 1;
        if self.live.is_long.load(Ordering::SeqCst) && Arc::strong_count(&self.flight) == 1 {
            answer.pieces.drain(..=next);
            answer.dropped = self.position;
        }
        Some(piece)
    }
}

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let live = Arc::clone(&self.live);
        let mut answer = live.answer.lock();
        loop {
            if let Some(piece) = self.read(&mut answer) {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if let Some(error) = &answer.broken {
                return Poll::Ready(Some(Err(error.clone().into())));
            }
            if answer.rest.is_none() {
                return Poll::Ready(None);
            }
            // Before the rest is asked: it may wake at once.
            live.readers.wait(self.id, cx.waker());
            let waker = Waker::from(Arc::clone(&live.readers));
            if answer.pull(&mut Context::from_waker(&waker)).is_pending() {
                return Poll::Pending;
            }
            if answer.bytes > answer.bytes_max {
                live.is_long.store(true, Ordering::SeqCst);
            }
            live.readers.forget(self.id);
            live.readers.wake_all();
        }
    }

    fn is_end_stream(&self) -> bool {
        let answer = self.live.answer.lock();
        answer.rest.is_none() && answer.broken.is_none() && self.position == answer.dropped + answer.pieces.len()
    }

    fn size_hint(&self) -> SizeHint {
        let answer = self.live.answer.lock();
        let here =
            answer.pieces.iter().skip(self.position - answer.dropped).map(|piece| piece.len() as u64).sum::<u64>();
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
        self.live.readers.forget(self.id);
        // Whoever is left asks for the rest itself.
        self.live.readers.wake_all();
    }
}

/// Who waits for the next piece.
#[derive(Default)]
struct Readers(Mutex<HashMap<u64, Waker>>);

impl Readers {
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

impl Wake for Readers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::AtomicUsize;

    use futures_util::task::noop_waker;
    use proptest::prelude::*;

    use super::*;

    /// Gives a piece at every second poll, so that readers wait too; says when it is dropped.
    struct Pieces {
        pieces: VecDeque<Result<Bytes, &'static str>>,
        is_ready: bool,
        dropped: Arc<AtomicUsize>,
    }

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.is_ready = !self.is_ready;
            if !self.is_ready {
                return Poll::Pending;
            }
            Poll::Ready(self.pieces.pop_front().map(|piece| piece.map(Frame::data).map_err(Into::into)))
        }
    }

    impl Drop for Pieces {
        fn drop(&mut self) {
            self.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// What a reader got so far, and whether that is all.
    type Got = (Vec<u8>, Option<bool>);

    fn poll(body: &mut Body, (bytes, end): &mut Got) {
        match Pin::new(body).poll_frame(&mut Context::from_waker(&noop_waker())) {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => bytes.extend(frame.into_data().expect("data")),
            Poll::Ready(Some(Err(_))) => *end = Some(false),
            Poll::Ready(None) => *end = Some(true),
        }
    }

    fn board(
        flights: &Arc<Flights>,
        pieces: Vec<Result<Bytes, &'static str>>,
        dropped: &Arc<AtomicUsize>,
    ) -> Option<Body> {
        let body = Pieces { pieces: pieces.into(), is_ready: false, dropped: Arc::clone(dropped) };
        let call = |landing| async move {
            // As a recorder does: until its end.
            let body = body.map_frame(move |frame| {
                let _held = &landing;
                frame
            });
            Some(Response::new(Body::new(body)))
        };
        let flight = match flights.board([0; 32], 8, call) {
            Boarding::Leads(flight) | Boarding::Joins(flight, _) => flight,
        };
        flight.answer().now_or_never().expect("an answer at once").map(Response::into_body)
    }

    use http_body_util::BodyExt;

    proptest! {
        /// Whoever joins, whenever, and whoever leaves: all get all of the answer, in order, from one call.
        #[test]
        fn every_reader_gets_the_whole_answer(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..6),
            steps in prop::collection::vec((0usize..4, 0u8..8), 0..60),
            is_cut: bool,
        ) {
            let whole: Vec<u8> = pieces.concat();
            let mut sent: Vec<_> = pieces.into_iter().map(|piece| Ok(Bytes::from(piece))).collect();
            if is_cut {
                sent.push(Err("cut"));
            }
            let (flights, dropped) = (Arc::new(Flights::default()), Arc::new(AtomicUsize::new(0)));
            let mut readers: Vec<(Body, Got)> = Vec::new();
            let mut calls = 0;
            for (who, what) in steps {
                let is_new = flights.get(&[0; 32]).is_none();
                match what {
                    0 => {
                        calls += usize::from(is_new);
                        let body = board(&flights, sent.clone(), &dropped).expect("an answer");
                        readers.push((body, Got::default()));
                    }
                    1 if who < readers.len() => drop(readers.remove(who)),
                    _ => if let Some((body, got)) = readers.get_mut(who) { poll(body, got) },
                }
            }
            for (body, got) in &mut readers {
                for _ in 0..40 {
                    if got.1.is_none() { poll(body, got) }
                }
                prop_assert_eq!(&got.0, &whole);
                prop_assert_eq!(got.1, Some(!is_cut));
            }
            drop(readers);
            prop_assert!(flights.is_empty());
            // Calls that were not made never had a body that was asked for.
            prop_assert!(dropped.load(Ordering::SeqCst) >= calls);
        }
    }

    #[test]
    fn an_answer_too_long_to_keep_is_not_joined_and_not_held() {
        let (flights, dropped) = (Arc::new(Flights::default()), Arc::new(AtomicUsize::new(0)));
        let pieces = (0..4).map(|_| Ok(Bytes::from_static(b"four"))).collect();
        let mut body = board(&flights, pieces, &dropped).expect("an answer");
        let mut got = Got::default();
        while got.0.len() <= 8 {
            assert!(flights.get(&[0; 32]).is_some(), "{} bytes", got.0.len());
            poll(&mut body, &mut got);
        }
        assert!(flights.get(&[0; 32]).is_none());
        while got.1.is_none() {
            poll(&mut body, &mut got);
        }
        assert_eq!((got.0.len(), got.1), (16, Some(true)));
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_call_that_panics_is_no_answer_and_nobody_elses_panic() {
        let flights = Arc::new(Flights::default());
        let call = |_| async { panic!("on purpose") };
        let Boarding::Leads(flight) = flights.board([1; 32], 8, call) else { panic!("nobody else is there") };
        let joins = flights.get(&[1; 32]).expect("it is on its way");
        assert!(flight.answer().now_or_never().expect("at once").is_none());
        assert!(joins.answer().now_or_never().expect("at once").is_none());
        assert!(flights.is_empty());
    }
}
