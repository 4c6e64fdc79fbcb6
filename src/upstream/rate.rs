//! PURE: how much a provider takes in a minute. Times are since any fixed moment.

use std::time::Duration;

use super::settings::RateLimit;

/// What may be sent now, in requests and in tokens.
#[derive(Debug)]
pub(super) struct Rate {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

impl Rate {
    pub(super) fn new(limit: RateLimit, now: Duration) -> Self {
        let bucket = |per_minute: Option<u32>| per_minute.map(|per_minute| Bucket::new(per_minute, now));
        Self { requests: bucket(limit.requests), tokens: bucket(limit.tokens) }
    }

    /// So many tokens, or what goes at once if that is less.
    pub(super) fn capped(&self, tokens: u64) -> u64 {
        self.tokens.as_ref().map_or(tokens, |bucket| tokens.min(bucket.burst))
    }

    /// How long until a request of so many tokens may be sent; zero for now. What is larger than the limit itself waits
    /// until nothing else is owed.
    pub(super) fn ready_in(&mut self, tokens: u64, now: Duration) -> Duration {
        let least = |bucket: &mut Option<Bucket>, cost: u64| {
            bucket.as_mut().map_or(Duration::ZERO, |bucket| bucket.holds_in(bucket.most.min(units(cost)), now))
        };
        least(&mut self.requests, 1).max(least(&mut self.tokens, tokens))
    }

    /// How long until so much has been taken, by whoever waits.
    pub(super) fn clears_in(&mut self, requests: u64, tokens: u64, now: Duration) -> Duration {
        let wait = |bucket: &mut Option<Bucket>, cost: u64| {
            bucket.as_mut().map_or(Duration::ZERO, |bucket| bucket.holds_in(units(cost), now))
        };
        wait(&mut self.requests, requests).max(wait(&mut self.tokens, tokens))
    }

    /// A request of so many tokens is sent.
    pub(super) fn take(&mut self, tokens: u64) {
        for (bucket, cost) in [(&mut self.requests, 1), (&mut self.tokens, tokens)] {
            if let Some(bucket) = bucket {
                bucket.level -= units(cost);
            }
        }
    }

    /// A request that was taken for `estimated` tokens had `counted`.
    pub(super) fn correct(&mut self, estimated: u64, counted: u64) {
        if let Some(bucket) = &mut self.tokens {
            bucket.level = (bucket.level + units(estimated) - units(counted)).min(bucket.most);
        }
    }

    /// Whether nothing is owed: a new one would be the same.
    pub(super) fn is_full(&mut self, now: Duration) -> bool {
        [&mut self.requests, &mut self.tokens].into_iter().flatten().all(|bucket| bucket.refilled(now) == bucket.most)
    }
}

/// A token bucket in whole numbers. It holds a sixth of a minute's worth, so that a burst is spread, and is filled so
/// slowly that with a full one spent no minute sees more than its limit.
#[derive(Debug)]
struct Bucket {
    burst: u64,
    /// The burst in units.
    most: i128,
    level: i128,
    /// Units a nanosecond.
    rate: i128,
    at: Duration,
}

impl Bucket {
    fn new(per_minute: u32, now: Duration) -> Self {
        let per_minute = u64::from(per_minute.max(1));
        let burst = (per_minute / 6).max(1);
        Self { burst, most: units(burst), level: units(burst), rate: i128::from(per_minute - burst + 1), at: now }
    }

    fn refilled(&mut self, now: Duration) -> i128 {
        let elapsed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let gained = i128::try_from(elapsed.as_nanos()).unwrap_or(i128::MAX).saturating_mul(self.rate);
        self.level = self.level.saturating_add(gained).min(self.most);
        self.level
    }

    fn holds_in(&mut self, units: i128, now: Duration) -> Duration {
        let missing = (units - self.refilled(now)).max(0);
        let nanos = (missing + self.rate - 1) / self.rate;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A request or token, in what is filled a nanosecond at a limit of one a minute.
fn units(count: u64) -> i128 {
    i128::from(count) * 60_000_000_000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn limit(requests: Option<u32>, tokens: Option<u32>) -> RateLimit {
        RateLimit { requests, tokens }
    }

    #[test]
    fn a_burst_is_spread() {
        let mut rate = Rate::new(limit(Some(60), None), Duration::ZERO);
        for _ in 0..10 {
            assert_eq!(rate.ready_in(0, Duration::ZERO), Duration::ZERO);
            rate.take(0);
        }
        let next = rate.ready_in(0, Duration::ZERO);
        assert!(next > Duration::from_secs(1) && next < Duration::from_millis(1_200), "{next:?}");
        assert_eq!(rate.ready_in(0, next), Duration::ZERO);
        assert_eq!(rate.clears_in(52, 0, next), MINUTE, "one is there already");
    }

    #[test]
    fn estimates_are_corrected() {
        let mut rate = Rate::new(limit(None, Some(600)), Duration::ZERO);
        rate.take(100);
        assert!(rate.ready_in(1, Duration::ZERO) > Duration::ZERO);
        rate.correct(100, 40);
        assert_eq!(rate.ready_in(60, Duration::ZERO), Duration::ZERO);
        assert!(rate.ready_in(61, Duration::ZERO) > Duration::ZERO);
        rate.correct(0, 1_060);
        let owed = rate.ready_in(1, Duration::ZERO);
        assert!(owed > MINUTE, "what was not foreseen is waited for: {owed:?}");
        rate.correct(1_000_000, 0);
        assert!(rate.is_full(Duration::ZERO), "and never more than full");
        // Larger than what there ever is: alone, and then everybody waits for it.
        assert_eq!(rate.ready_in(10_000, Duration::ZERO), Duration::ZERO);
        rate.take(10_000);
        assert!(rate.ready_in(1, Duration::ZERO) > 10 * MINUTE);
    }

    #[test]
    fn a_charge_is_what_goes_at_once_at_most() {
        let rate = Rate::new(limit(None, Some(600)), Duration::ZERO);
        assert_eq!((rate.capped(99), rate.capped(101), rate.capped(u64::MAX)), (99, 100, 100));
        let tiny = Rate::new(limit(None, Some(1)), Duration::ZERO);
        assert_eq!(tiny.capped(7), 1);
        let unlimited = Rate::new(limit(Some(1), None), Duration::ZERO);
        assert_eq!(unlimited.capped(7), 7);
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut rate = Rate::new(RateLimit::default(), Duration::ZERO);
        (0..10_000).for_each(|_| rate.take(u64::MAX));
        assert_eq!(rate.ready_in(u64::MAX, Duration::ZERO), Duration::ZERO);
    }

    proptest! {
        /// However requests come, no minute sees more than its limit, and nobody waits for ever.
        #[test]
        fn no_minute_sees_more_than_its_limit(
            requests in 1_u32..40, arrivals in prop::collection::vec(0_u64..20_000, 1..120),
        ) {
            let mut rate = Rate::new(limit(Some(requests), None), Duration::ZERO);
            let mut sent: Vec<Duration> = Vec::new();
            let (mut arrived, mut now) = (Duration::ZERO, Duration::ZERO);
            for gap_ms in arrivals {
                arrived += Duration::from_millis(gap_ms);
                now = now.max(arrived);
                let wait = rate.ready_in(0, now);
                prop_assert!(wait <= MINUTE);
                now += wait;
                prop_assert_eq!(rate.ready_in(0, now), Duration::ZERO);
                rate.take(0);
                sent.push(now);
                let minute = sent.iter().filter(|at| now - **at < MINUTE).count();
                prop_assert!(minute <= requests as usize, "{} in a minute, of {}", minute, requests);
            }
        }

        #[test]
        fn no_minute_sees_more_tokens_than_its_limit(
            tokens in 60_u32..6_000, costs in prop::collection::vec((0_u64..10_000, 1_u64..10), 1..120),
        ) {
            let mut rate = Rate::new(limit(None, Some(tokens)), Duration::ZERO);
            let mut sent: Vec<(Duration, u64)> = Vec::new();
            let (mut arrived, mut now) = (Duration::ZERO, Duration::ZERO);
            for (gap_ms, cost) in costs {
                arrived += Duration::from_millis(gap_ms);
                now = now.max(arrived);
                now += rate.ready_in(cost, now);
                rate.take(cost);
                sent.push((now, cost));
                let minute: u64 = sent.iter().filter(|(at, _)| now - *at < MINUTE).map(|(_, cost)| cost).sum();
                prop_assert!(minute <= u64::from(tokens), "{} in a minute, of {}", minute, tokens);
            }
        }
    }
}
