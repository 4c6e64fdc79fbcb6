//! So many requests a second, and so many at once. Pure: the time comes in.
//!
//! The generic cell rate algorithm (ITU-T I.371): one number a caller, the time at which what it spent is earned again.

use std::time::Duration;

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Between two, in the long run.
    interval: Duration,
    /// What may be spent before it is earned.
    credit: Duration,
}

impl Rate {
    /// `None` unless `per_second` is above 0 and at most a million, and `burst` above 0.
    pub fn new(per_second: f64, burst: u32) -> Option<Self> {
        let is_rate = per_second > 0.0 && per_second <= 1e6 && burst > 0;
        let interval = Duration::try_from_secs_f64(is_rate.then(|| per_second.recip())?).ok()?;
        Some(Self { interval, credit: interval.checked_mul(burst)? })
    }
}

/// When all that a caller spent is earned again, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spent(Duration);

impl Spent {
    /// One more at `now`.
    ///
    /// # Errors
    /// It is one too many; how long until it is not.
    pub(super) fn and_one(self, rate: Rate, now: Duration) -> Result<Self, Duration> {
        let earned_again = self.0.max(now).saturating_add(rate.interval);
        match earned_again.checked_sub(now.saturating_add(rate.credit)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(Self(earned_again)),
        }
    }

    /// No more than this rate lends at all: under another one it may have been more.
    pub(super) fn at_most(self, rate: Rate, now: Duration) -> Self {
        Self(self.0.min(now.saturating_add(rate.credit)))
    }

    pub(super) fn is_over(self, now: Duration) -> bool {
        self.0 <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates() {
        for (per_second, burst, is_rate) in [
            (1.0, 1, true),
            (0.5, 100, true),
            (1e6, u32::MAX, true),
            (0.0, 1, false),
            (-1.0, 1, false),
            (f64::NAN, 1, false),
            (f64::INFINITY, 1, false),
            (1e-300, 1, false),
            (1.0, 0, false),
        ] {
            assert_eq!(Rate::new(per_second, burst).is_some(), is_rate, "{per_second} {burst}");
        }
    }

    /// When the requests that come after these pauses are let in.
    fn admitted(rate: Rate, pauses: &[u64]) -> Vec<Duration> {
        let (mut now, mut spent, mut admitted) = (Duration::ZERO, Spent::default(), Vec::new());
        for pause in pauses {
            now += Duration::from_millis(*pause);
            match spent.and_one(rate, now) {
                Ok(more) => {
                    spent = more;
                    admitted.push(now);
                }
                Err(wait) => {
                    assert!(spent.and_one(rate, now + wait).is_ok(), "after the wait there is room");
                    assert!(spent.and_one(rate, now + wait - Duration::from_nanos(1)).is_err(), "and not before");
                }
            }
        }
        admitted
    }

    #[test]
    fn nobody_pays_a_higher_rate_with_what_a_lower_one_lent() {
        let slow = Rate::new(1.0, 3600).expect("a rate");
        let fast = Rate::new(100.0, 100).expect("a rate");
        let now = Duration::from_secs(5);
        let spent = (0..3600).try_fold(Spent::default(), |spent, _| spent.and_one(slow, now)).expect("the burst");
        assert_eq!(spent.and_one(slow, now), Err(Duration::from_secs(1)));
        assert_eq!(spent.at_most(slow, now), spent);
        let spent = spent.at_most(fast, now);
        assert_eq!(spent.and_one(fast, now), Err(Duration::from_millis(10)));
        assert!(spent.and_one(fast, now + Duration::from_millis(10)).is_ok());
    }

    proptest! {
        /// However requests come, in no stretch of time more are let in than the burst and what is earned meanwhile.
        #[test]
        fn no_stretch_of_time_has_more(
            per_second in 0.1..50.0f64, burst in 1u32..20, pauses in prop::collection::vec(0u64..300, 1..200),
        ) {
            let rate = Rate::new(per_second, burst).expect("a rate");
            let times = admitted(rate, &pauses);
            for (from, start) in times.iter().enumerate() {
                for (to, end) in times.iter().enumerate().skip(from) {
                    let most = f64::from(burst) + (*end - *start).as_secs_f64() * per_second;
                    prop_assert!((to - from + 1) as f64 <= most + 1e-6);
                }
            }
        }

        /// Whoever keeps to the rate is always let in, and whoever was away has the whole burst.
        #[test]
        fn whoever_keeps_to_it_is_let_in(interval_ms in 1u64..2000, burst in 1u32..20, count in 1usize..50) {
            let rate = Rate::new(1000.0 / interval_ms as f64, burst).expect("a rate");
            // A duration counts whole nanoseconds.
            prop_assert_eq!(admitted(rate, &vec![interval_ms + 1; count]).len(), count);
            let at_once = admitted(rate, &vec![0; count]);
            prop_assert_eq!(at_once.len(), count.min(burst as usize));
        }
    }
}
