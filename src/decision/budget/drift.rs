//! Have the labels left what was expected of them?
//!
//! Page-Hinkley on label minus expectation: the sum of excesses since it was last at its lowest. It knows only that
//! things got worse; better is learned without hurry.

use serde::{Deserialize, Serialize};

/// What counts as worse.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DriftSettings {
    /// Excess a label that is put up with.
    pub tolerance: f64,
    /// Sum of excesses that raises the alarm.
    pub threshold: f64,
}

impl Default for DriftSettings {
    fn default() -> Self {
        Self { tolerance: 0.05, threshold: 12.0 }
    }
}

/// The running sum of one cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    excess: f64,
    alarms: u32,
}

impl Drift {
    /// Takes a label (1 = wrong) minus its expectation. True raises the alarm and starts anew.
    pub fn observe(&mut self, surprise: f64, settings: DriftSettings) -> bool {
        let DriftSettings { tolerance, threshold } = settings;
        self.excess = (self.excess + surprise - tolerance).max(0.0);
        let is_alarm = self.excess > threshold;
        if is_alarm {
            self.excess = 0.0;
            self.alarms = self.alarms.saturating_add(1);
        }
        is_alarm
    }

    /// Alarms so far.
    pub fn alarms(self) -> u32 {
        self.alarms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Labels until the alarm, of at most `count` with this chance of being wrong where 0.1 is expected.
    fn labels_until_alarm(wrong: f64, count: u32, seed: u64) -> Option<u32> {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut drift = Drift::default();
        (0..count).find(|_| {
            let label = f64::from(u8::from(chance.f64() < wrong));
            drift.observe(label - 0.1, DriftSettings::default())
        })
    }

    #[test]
    fn worse_is_noticed_and_the_same_is_not() {
        let check = |wrong: f64, count: u32, is_alarm: bool| {
            for seed in 0..10 {
                assert_eq!(labels_until_alarm(wrong, count, seed).is_some(), is_alarm, "{wrong} {seed}");
            }
        };
        check(0.05, 10_000, false);
        check(0.1, 10_000, false);
        check(0.3, 200, true);
        check(0.8, 40, true);
    }

    #[test]
    fn an_alarm_starts_anew() {
        let mut drift = Drift::default();
        let settings = DriftSettings { tolerance: 0.0, threshold: 1.5 };
        let seen: Vec<bool> = (0..4).map(|_| drift.observe(1.0, settings)).collect();
        assert_eq!((seen, drift.alarms()), (vec![false, true, false, true], 2));
    }
}
