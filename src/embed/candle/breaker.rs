//! After failures in a row nothing is asked of the model for a while: callers hear so at once instead of queueing.
//!
//! Failures count by text: one that makes the model fail again and again must not take it from everybody else. Time comes
//! in as a value.

use std::time::{Duration, Instant};

use super::queue::TextKey;

/// Closed while the model works; open after `FAILURES_MAX` texts in a row for which it did not.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failed: Vec<TextKey>,
    open_until: Option<Instant>,
}

impl Breaker {
    /// Whether the model may be asked. Once the pause is over, one caller may try.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        match self.open_until {
            Some(until) if now < until => false,
            Some(_) => {
                // If this one fails as well, or never comes back, the next pause is on already.
                self.open_until = Some(now + PAUSE);
                true
            }
            None => true,
        }
    }

    /// Returns whether the breaker has just opened.
    pub(super) fn failed(&mut self, key: TextKey, now: Instant) -> bool {
        if self.open_until.is_some() {
            self.open_until = Some(now + PAUSE);
            return false;
        }
        if !self.failed.contains(&key) {
            self.failed.push(key);
        }
        let opens = self.failed.len() >= FAILURES_MAX;
        self.open_until = opens.then(|| now + PAUSE);
        opens
    }

    /// Returns whether the breaker has just closed.
    pub(super) fn worked(&mut self) -> bool {
        self.failed.clear();
        self.open_until.take().is_some()
    }
}

/// A model that works fails at no text: five different ones in a row are no accident.
const FAILURES_MAX: usize = 5;

const PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_try() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        let key = |n: usize| [n as u8; 32];
        assert!((0..FAILURES_MAX - 1).all(|n| !breaker.failed(key(n), start)));
        assert!(!breaker.worked(), "it was not open");
        assert!((0..100).all(|_| !breaker.failed(key(1), start)), "one text alone does not open it");
        assert!((2..FAILURES_MAX).all(|n| !breaker.failed(key(n), start)));
        assert!(breaker.admits(start));
        assert!(breaker.failed(key(9), start), "the fifth text");
        let just_before = start + PAUSE - Duration::from_millis(1);
        assert!(!breaker.admits(start) && !breaker.admits(just_before));
        assert!(breaker.admits(start + PAUSE), "one may try");
        assert!(!breaker.admits(start + PAUSE), "and no other");
        assert!(!breaker.failed(key(1), start + PAUSE), "it was open before");
        assert!(!breaker.admits(start + PAUSE));
        assert!(breaker.admits(start + 2 * PAUSE));
        assert!(breaker.worked());
        assert!(breaker.admits(start + 2 * PAUSE) && breaker.admits(start + 2 * PAUSE));
    }
}
