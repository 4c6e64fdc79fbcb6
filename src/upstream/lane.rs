//! The queue of one key of one provider: whose turn it is, and when.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::rate::Rate;
use super::settings::{QueueSettings, RateLimit};
use super::turns::Turns;
use crate::route::Priority;

/// The requests of one key of one provider.
pub(super) struct Lane {
    waiting: Mutex<Waiting>,
    queue: QueueSettings,
    started: Instant,
}

struct Waiting {
    rate: Rate,
    turns: Turns<Waiter>,
    last_id: u64,
}

struct Waiter {
    id: u64,
    tokens: u64,
    wake: Arc<Notify>,
}

/// What the next look at the queue gave.
enum Step {
    Go,
    Sleep(Duration),
    Wait,
    /// Another has its place.
    Leave,
}

impl Lane {
    pub(super) fn new(limit: RateLimit, queue: QueueSettings, started: Instant) -> Self {
        let waiting = Waiting { rate: Rate::new(limit, started.elapsed()), turns: Turns::new(), last_id: 0 };
        Self { waiting: Mutex::new(waiting), queue, started }
    }

    /// What a request of so many tokens is charged at most before they are counted: no more than goes at once.
    pub(super) fn capped(&self, tokens: u64) -> u64 {
        self.waiting.lock().rate.capped(tokens)
    }

    /// Returns when it is the request's turn; the error is when to come again.
    pub(super) async fn turn(&self, priority: Priority, caller: &str, tokens: u64) -> Result<(), Duration> {
        let wake = Arc::new(Notify::new());
        let id = {
            let mut waiting = self.waiting.lock();
            if waiting.turns.iter().count() >= self.queue.length {
                let Some(leaving) = waiting.turns.make_room(priority, caller) else {
                    drop(waiting);
                    return Err(self.clears_in(tokens));
                };
                leaving.wake.notify_one();
            }
            waiting.last_id += 1;
            let id = waiting.last_id;
            waiting.turns.push(priority, caller, Waiter { id, tokens, wake: Arc::clone(&wake) });
            id
        };
        // Whoever stops waiting leaves the queue.
        let place = Place { lane: self, id };
        let until_turn = async {
            loop {
                match self.step(id) {
                    Step::Go => return true,
                    Step::Leave => return false,
                    Step::Wait => wake.notified().await,
                    Step::Sleep(time) => tokio::select! {
                        () = tokio::time::sleep(time) => {}
                        () = wake.notified() => {}
                    },
                }
            }
        };
        let result = tokio::time::timeout(self.queue.wait, until_turn).await;
        drop(place);
        if result == Ok(true) { Ok(()) } else { Err(self.clears_in(tokens)) }
    }

    fn step(&self, id: u64) -> Step {
        let now = self.started.elapsed();
        let Waiting { rate, turns, last_id: _ } = &mut *self.waiting.lock();
        match turns.next() {
            Some(next) if next.id == id => match rate.ready_in(next.tokens, now) {
                Duration::ZERO => {
                    rate.take(next.tokens);
                    turns.pop();
                    Step::Go
                }
                time => Step::Sleep(time),
            },
            _ if turns.iter().any(|waiter| waiter.id == id) => Step::Wait,
            _ => Step::Leave,
        }
    }

    /// How long until everybody who waits has gone, and one more.
    fn clears_in(&self, tokens: u64) -> Duration {
        let now = self.started.elapsed();
        let Waiting { rate, turns, last_id: _ } = &mut *self.waiting.lock();
        let requests = turns.iter().count() as u64 + 1;
        let all = turns.iter().fold(tokens, |sum, waiter| sum.saturating_add(waiter.tokens));
        rate.clears_in(requests, all, now)
    }

    /// A request that was charged so much took so much.
    pub(super) fn correct(&self, charged: u64, counted: u64) {
        let mut waiting = self.waiting.lock();
        waiting.rate.correct(charged, counted);
        // What was charged too high is there for whoever waits.
        if let Some(next) = waiting.turns.next() {
            next.wake.notify_one();
        }
    }

    pub(super) fn owes_nothing(&self) -> bool {
        self.waiting.lock().rate.is_full(self.started.elapsed())
    }
}

/// A place in the queue. Dropped, it is free, and whoever is next looks whether it may go.
struct Place<'a> {
    lane: &'a Lane,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.lane.waiting.lock();
        waiting.turns.remove(|waiter| waiter.id == self.id);
        if let Some(next) = waiting.turns.next() {
            next.wake.notify_one();
        }
    }
}
