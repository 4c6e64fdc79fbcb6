//! Identical questions on their way upstream at one time share one call and its live answer.
//!
//! The first that misses leads; whoever asks the same until the answer is stored joins and reads along. The call belongs to
//! all of them: whichever is polled drives it, so it goes on when its leader leaves, and is cancelled when the last one does.

mod live;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use http::Response;
use parking_lot::Mutex;

use self::live::{Live, Reader};
use crate::body::Body;
use crate::metrics::FlightMetrics;

/// The calls on their way, by what they ask.
#[derive(Default)]
pub(crate) struct Flights {
    open: Mutex<HashMap<FlightKey, Weak<Flight>>>,
    metrics: FlightMetrics,
}

/// What two requests must have in common to share a call: the question with its scope, the bytes that ask it, the caller's
/// keys and priority, and what is kept with the answer.
pub(crate) type FlightKey = [u8; 32];

/// A call that requests share.
pub(crate) struct Flight {
    head: Shared<BoxFuture<'static, Option<Arc<Live>>>>,
    /// Requests that have yet to begin to read.
    awaited: AtomicUsize,
    metrics: FlightMetrics,
}

/// A request's place in a flight, until it has the answer's head.
pub(crate) struct Seat(Arc<Flight>);

/// What became of a request that wanted to call upstream.
pub(crate) enum Boarding<C> {
    /// It made the call.
    Leads(Seat),
    /// The same is on its way already; the call that was not made is handed back.
    Joins(Seat, C),
}

/// Ends a flight when it is dropped: nobody joins after that.
pub(crate) struct Landing {
    flights: Arc<Flights>,
    key: FlightKey,
    flight: Weak<Flight>,
}

impl Flights {
    pub(crate) fn new(metrics: FlightMetrics) -> Self {
        Self { open: Mutex::default(), metrics }
    }

    /// Nothing is on its way: no key need be made.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.lock().is_empty()
    }

    /// A place in the flight with this key, if the answer can still be had from its beginning.
    pub(crate) fn get(&self, key: &FlightKey) -> Option<Seat> {
        // Under the lock: whoever is awaited is counted before anything is dropped.
        let open = self.open.lock();
        let flight = open.get(key).and_then(Weak::upgrade)?;
        let seat = flight.is_open().then(|| Seat::new(&flight));
        // What is dropped may take the lock.
        drop(open);
        seat
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
        let mut open = self.open.lock();
        match open.get(&key).and_then(Weak::upgrade) {
            Some(flight) if flight.is_open() => {
                let seat = Seat::new(&flight);
                _closed = Some(flight);
                return Boarding::Joins(seat, call);
            }
            other => _closed = other,
        }
        let metrics = self.metrics.clone();
        metrics.took_off();
        let flight = Arc::new_cyclic(|flight| {
            let landing = Landing { flights: Arc::clone(self), key, flight: Weak::clone(flight) };
            // Not before it is polled: what it drops may take the lock.
            let answer = async move { call(Some(landing)).await };
            // Of many that wait, one polls: its panic must not be theirs.
            let answer = AssertUnwindSafe(answer).catch_unwind();
            let held = metrics.clone();
            let head = answer.map(move |answer| Some(Arc::new(Live::new(answer.ok()??, answer_bytes_max, held))));
            Flight { head: head.boxed().shared(), awaited: AtomicUsize::new(0), metrics }
        });
        open.insert(key, Arc::downgrade(&flight));
        Boarding::Leads(Seat::new(&flight))
    }
}

impl Flight {
    fn is_open(&self) -> bool {
        self.head.peek().is_none_or(|live| live.as_ref().is_some_and(|live| live.is_open()))
    }

    /// Whether somebody has yet to begin to read.
    fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.metrics.landed();
    }
}

impl Seat {
    fn new(flight: &Arc<Flight>) -> Self {
        flight.awaited.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(flight))
    }

    /// The answer from its beginning, when its head is there; `None` if there is none, or its beginning is gone.
    pub(crate) async fn answer(self) -> Option<Response<Body>> {
        let live = self.0.head.clone().await?;
        let reader = Reader::new(Arc::clone(&live), Arc::clone(&self.0))?;
        drop(self);
        let mut response = Response::new(Body::new(reader));
        *response.status_mut() = live.status;
        live.headers.clone_into(response.headers_mut());
        live.extensions.clone_into(response.extensions_mut());
        Some(response)
    }

    /// Whether more of the answer is to come. What came to its end is about to be in the cache, or is there.
    pub(crate) fn is_live(&self) -> bool {
        self.0.head.peek().is_none_or(|live| live.as_ref().is_some_and(|live| live.goes_on()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.awaited.fetch_sub(1, Ordering::SeqCst);
        if let Some(Some(live)) = self.0.head.peek() {
            live.wake_readers();
        }
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
        let mut open = self.flights.open.lock();
        if open.get(&self.key).is_some_and(|flight| flight.ptr_eq(&self.flight)) {
            open.remove(&self.key);
        }
    }
}
