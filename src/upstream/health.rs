//! PURE: an upstream that fails again and again is left alone for a while. This says so; nobody is refused here.

use std::time::Duration;

use super::settings::BreakerSettings;

/// What an upstream's last calls say of it. Times are since any fixed moment.
#[derive(Debug)]
pub(super) struct Breaker {
    settings: BreakerSettings,
    /// In a row.
    failures: u32,
    /// When it was opened, or last tried since then.
    rests_since: Option<Duration>,
}

impl Breaker {
    pub(super) fn new(settings: BreakerSettings) -> Self {
        Self { settings, failures: 0, rests_since: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.rests_since.is_some()
    }

    /// Whether the upstream may be the first that is asked. Of an open one, one call in each pause may ask: a call that
    /// never reports back costs a pause and no more.
    pub(super) fn admits(&mut self, now: Duration) -> bool {
        match self.rests_since {
            None => true,
            Some(since) if now.saturating_sub(since) >= self.settings.pause => {
                self.rests_since = Some(now);
                true
            }
            Some(_) => false,
        }
    }

    /// How a call ended.
    pub(super) fn record(&mut self, succeeded: bool, now: Duration) {
        if succeeded {
            (self.failures, self.rests_since) = (0, None);
        } else {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.settings.failures {
                self.rests_since = Some(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: BreakerSettings = BreakerSettings { failures: 3, pause: Duration::from_secs(30) };

    fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn it_opens_tries_and_closes() {
        let mut breaker = Breaker::new(SETTINGS);
        for now in [1, 2] {
            breaker.record(false, at(now));
        }
        breaker.record(true, at(3));
        for now in [4, 5] {
            breaker.record(false, at(now));
            assert!(breaker.admits(at(now)) && !breaker.is_open(), "only failures in a row count");
        }
        breaker.record(false, at(6));
        assert!(breaker.is_open() && !breaker.admits(at(35)));
        assert!(breaker.admits(at(36)), "one call tries it");
        assert!(!breaker.admits(at(36)) && !breaker.admits(at(65)), "and only one");
        breaker.record(false, at(40));
        assert!(!breaker.admits(at(69)) && breaker.admits(at(70)));
        breaker.record(true, at(71));
        assert!(!breaker.is_open() && breaker.admits(at(71)));
    }

    proptest! {
        #[test]
        fn an_open_one_is_tried_once_a_pause(calls in prop::collection::vec((0_u64..20, any::<bool>()), 0..60)) {
            let mut breaker = Breaker::new(SETTINGS);
            let (mut now, mut failures, mut last_probe) = (0, 0, None::<u64>);
            for (after, succeeds) in calls {
                now += after;
                let was_open = breaker.is_open();
                prop_assert_eq!(was_open, failures >= SETTINGS.failures);
                if breaker.admits(at(now)) {
                    if was_open {
                        prop_assert!(last_probe.is_none_or(|last| now - last >= 30));
                        last_probe = Some(now);
                    }
                    breaker.record(succeeds, at(now));
                    failures = if succeeds { 0 } else { failures + 1 };
                    last_probe = last_probe.filter(|_| !succeeds);
                }
            }
        }
    }
}
