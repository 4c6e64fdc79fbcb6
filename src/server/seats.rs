//! How many connections a listener holds, and which of them has to go.
//!
//! Whoever has a call under way keeps its connection. Of the others, those that did nothing for the longest time make
//! room when there is none, and everybody who does nothing for too long has to go.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The places of a listener.
pub(super) struct Seats {
    seats_max: usize,
    taken: Mutex<Taken>,
    /// Somebody waits for a place.
    is_full: AtomicBool,
    freed: Notify,
}

#[derive(Default)]
struct Taken {
    places: HashMap<u64, Arc<Place>>,
    next: u64,
}

/// What is known of a connection.
struct Place {
    state: Mutex<State>,
    /// It has to go: somebody else needs the place.
    leave: Notify,
}

#[derive(Clone, Copy)]
struct State {
    /// Calls whose answers are not at their end.
    calls: usize,
    /// When the last call ended, something was last sent, or the connection was opened.
    idle_since: Instant,
    /// When something was last sent, if ever.
    sent_at: Option<Instant>,
    /// Since when there is something to send that the client does not take.
    blocked_since: Option<Instant>,
    is_leaving: bool,
}

impl State {
    /// All calls are answered, and all that was answered is sent.
    fn is_idle(&self) -> bool {
        self.calls == 0 && self.blocked_since.is_none()
    }
}

/// A connection's place, until it is dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    place: Arc<Place>,
}

/// A call under way, until its answer is dropped.
pub(super) struct Busy {
    seats: Arc<Seats>,
    place: Arc<Place>,
}

impl Seats {
    pub(super) fn new(seats_max: usize) -> Arc<Self> {
        let is_full = AtomicBool::new(false);
        Arc::new(Self { seats_max, taken: Mutex::default(), is_full, freed: Notify::new() })
    }

    /// A place, as soon as there is one.
    pub(super) async fn take(self: &Arc<Self>) -> Seat {
        loop {
            let freed = self.freed.notified();
            if let Some(seat) = self.try_take() {
                self.is_full.store(false, Ordering::SeqCst);
                return seat;
            }
            // Once more, now that every call that ends says so.
            if self.is_full.swap(true, Ordering::SeqCst) {
                freed.await;
            }
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<Seat> {
        let mut taken = self.taken.lock();
        if taken.places.len() >= self.seats_max {
            taken.send_one_away();
            return None;
        }
        let state =
            State { calls: 0, idle_since: Instant::now(), sent_at: None, blocked_since: None, is_leaving: false };
        let place = Arc::new(Place { state: Mutex::new(state), leave: Notify::new() });
        let number = taken.next;
        taken.next += 1;
        taken.places.insert(number, Arc::clone(&place));
        Some(Seat { seats: Arc::clone(self), number, place })
    }

    /// Whoever waits for a place looks again.
    fn say_idle(&self, is_idle: bool) {
        if is_idle && self.is_full.load(Ordering::SeqCst) {
            self.freed.notify_waiters();
        }
    }
}

impl Taken {
    /// Asks whoever did nothing for the longest time, unless somebody is on the way out already.
    fn send_one_away(&self) {
        let states = self.places.values().map(|place| (place, *place.state.lock()));
        let mut idle: Option<(&Arc<Place>, State)> = None;
        for (place, state) in states.filter(|(_, state)| state.is_idle()) {
            if state.is_leaving {
                return;
            }
            if idle.is_none_or(|(_, longest)| state.idle_since < longest.idle_since) {
                idle = Some((place, state));
            }
        }
        if let Some((place, _)) = idle {
            place.state.lock().is_leaving = true;
            place.leave.notify_one();
        }
    }
}

impl Seat {
    pub(super) fn begin(&self) -> Busy {
        self.place.state.lock().calls += 1;
        Busy { seats: Arc::clone(&self.seats), place: Arc::clone(&self.place) }
    }

    /// Done when somebody else needs the place.
    pub(super) async fn needed(&self) {
        loop {
            self.place.leave.notified().await;
            let mut state = self.place.state.lock();
            if state.is_idle() {
                return;
            }
            // It was faster; somebody else will go.
            state.is_leaving = false;
            drop(state);
            self.seats.freed.notify_waiters();
        }
    }

    /// Done when no call was under way for so long, and nothing was to be sent.
    pub(super) async fn idle_for(&self, limit: Duration) {
        loop {
            let state = *self.place.state.lock();
            let now = Instant::now();
            if state.is_idle() && state.idle_since + limit <= now {
                return;
            }
            sleep_until(if state.is_idle() { state.idle_since } else { now } + limit).await;
        }
    }

    /// Done when everything was sent, and the last of it so long ago.
    pub(super) async fn settled_for(&self, limit: Duration) {
        loop {
            let state = *self.place.state.lock();
            let now = Instant::now();
            let is_settled = state.sent_at.is_none_or(|sent| sent + limit <= now);
            if state.is_idle() && is_settled {
                return;
            }
            sleep_until(state.sent_at.filter(|_| state.is_idle()).unwrap_or(now) + limit).await;
        }
    }

    /// Done when the client has taken nothing for so long of what there is to send.
    pub(super) async fn stuck_for(&self, limit: Duration) {
        loop {
            let State { blocked_since, .. } = *self.place.state.lock();
            let now = Instant::now();
            if blocked_since.is_some_and(|since| since + limit <= now) {
                return;
            }
            sleep_until(blocked_since.unwrap_or(now) + limit).await;
        }
    }

    /// Something was sent.
    pub(super) fn sent(&self) {
        let mut state = self.place.state.lock();
        state.idle_since = Instant::now();
        state.sent_at = Some(state.idle_since);
        state.blocked_since = None;
        let is_idle = state.is_idle();
        drop(state);
        self.seats.say_idle(is_idle);
    }

    /// The client takes nothing for now.
    pub(super) fn blocked(&self) {
        self.place.state.lock().blocked_since.get_or_insert_with(Instant::now);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.lock().places.remove(&self.number);
        self.seats.freed.notify_waiters();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.place.state.lock();
        state.calls -= 1;
        state.idle_since = Instant::now();
        let is_idle = state.is_idle();
        drop(state);
        self.seats.say_idle(is_idle);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_did_nothing_for_the_longest_time_makes_room() {
        let seats = Seats::new(3);
        let take = || seats.take().now_or_never();
        let second = Duration::from_secs(1);
        let first = take().expect("room");
        tokio::time::advance(second).await;
        let (busy, last) = (take().expect("room"), take().expect("room"));
        let call = first.begin();
        let long_call = busy.begin();
        tokio::time::advance(second).await;
        drop(call);
        assert!(take().is_none());
        let needed = [&first, &busy, &last].map(|seat| seat.needed().now_or_never().is_some());
        assert_eq!(needed, [false, false, true], "a call that just ended counts");
        assert!(take().is_none(), "one is on the way out, and nobody else is asked");
        assert_eq!([&first, &busy].map(|seat| seat.needed().now_or_never().is_some()), [false; 2]);
        drop(last);
        let other = take().expect("room");
        let more = [first.begin(), other.begin()];
        assert!(take().is_none(), "all have calls under way");
        assert_eq!([&first, &busy, &other].map(|seat| seat.needed().now_or_never().is_some()), [false; 3]);
        drop((more, long_call));
        drop(busy);
        assert!(take().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_nothing_is_not_idle_and_has_to_go_all_the_same() {
        let seats = Seats::new(1);
        let seat = seats.take().await;
        let minute = Duration::from_secs(60);
        assert!(seat.settled_for(minute).now_or_never().is_some(), "nothing was ever sent");
        drop(seat.begin());
        seat.blocked();
        assert!(tokio::time::timeout(minute / 2, seat.stuck_for(minute)).await.is_err());
        assert!(seat.idle_for(minute).now_or_never().is_none() && seats.take().now_or_never().is_none());
        assert!(seat.needed().now_or_never().is_none(), "its answer is still on its way");
        seat.sent();
        assert!(tokio::time::timeout(10 * minute, seat.stuck_for(minute)).await.is_err(), "it took all");
        seat.idle_for(minute).await;
        assert!(seat.settled_for(minute).now_or_never().is_some());
        seat.sent();
        assert!(seat.settled_for(minute).now_or_never().is_none(), "it may still be on its way");
        seat.settled_for(minute).await;
        seat.blocked();
        let blocked = Instant::now();
        seat.stuck_for(minute).await;
        assert!(blocked.elapsed() >= minute, "{:?}", blocked.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_no_idleness() {
        let seats = Seats::new(1);
        let seat = seats.take().await;
        let minute = Duration::from_secs(60);
        let call = seat.begin();
        let idle = seat.idle_for(minute);
        tokio::pin!(idle);
        assert!(tokio::time::timeout(10 * minute, &mut idle).await.is_err());
        drop(call);
        let ended = Instant::now();
        idle.await;
        assert!(ended.elapsed() >= minute, "{:?}", ended.elapsed());
    }
}
