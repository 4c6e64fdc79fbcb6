//! The time, as a seam: tests and replays move it by hand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Tells the wall-clock time.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970, UTC; never less than before.
    fn now_ms(&self) -> u64;

    /// From now on it is at least `ms`: a time that was seen before a restart.
    fn at_least(&self, ms: u64);
}

/// The machine's clock, which goes on when it is set back: what has expired stays expired. Set forward, it follows.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    /// The time at `started`, raised whenever the machine's clock is ahead of what has passed since.
    start_ms: AtomicU64,
}

impl SystemClock {
    pub fn start() -> Self {
        Self { started: Instant::now(), start_ms: AtomicU64::new(wall_ms()) }
    }

    fn tell(&self, wall_ms: u64, passed_ms: u64) -> u64 {
        let start_ms = wall_ms.saturating_sub(passed_ms);
        start_ms.max(self.start_ms.fetch_max(start_ms, Ordering::Relaxed)) + passed_ms
    }

    fn passed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        self.tell(wall_ms(), self.passed_ms())
    }

    fn at_least(&self, ms: u64) {
        self.tell(ms, self.passed_ms());
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    pub fn at(now_ms: u64) -> Self {
        Self(AtomicU64::new(now_ms))
    }

    pub fn advance_ms(&self, by_ms: u64) {
        self.0.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn at_least(&self, ms: u64) {
        self.0.fetch_max(ms, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_goes_on() {
        let clock = SystemClock { started: Instant::now(), start_ms: AtomicU64::new(1_000_000) };
        // (the machine's clock, milliseconds since the start) and what is told.
        for (wall_ms, passed_ms, told) in [
            (1_000_000, 0, 1_000_000),
            (1_000_050, 50, 1_000_050),
            (900_000, 60, 1_000_060),
            (0, 70, 1_000_070),
            (2_000_000, 80, 2_000_000),
            (1_000_090, 90, 2_000_010),
            (u64::MAX / 2, 100, u64::MAX / 2),
        ] {
            assert_eq!(clock.tell(wall_ms, passed_ms), told, "{wall_ms} after {passed_ms}");
        }
        let clock = SystemClock::start();
        let later = clock.now_ms() + 1_000_000;
        clock.at_least(later);
        assert!(clock.now_ms() >= later, "a time that was seen is not gone back behind");
    }
}
