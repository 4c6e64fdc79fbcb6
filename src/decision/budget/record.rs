//! What an entry's own past says of its next reuse, in 16 bytes that lie beside it.
//!
//! Entries differ: some questions have many near neighbours that ask something else, some have none. Each entry's
//! scores are therefore shifted by an offset, in log-odds, that its labels pull away from 0: the cache's calibration
//! says what was expected, the record adds up the surprises, and few labels move it little (an offset is normally
//! distributed around 0 before any label). The shifted score is what the cache's bound is learned on, so a record that
//! misleads costs hits and never the budget. Entries verified to have the same answer share a record.

use serde::{Deserialize, Serialize};

use super::scale::{from_log_odds, log_odds};

/// Labels of one entry, summed up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct EntryRecord {
    /// Most likely offset, in log-odds.
    offset: f32,
    /// Sum of the expectations' variances.
    information: f32,
    /// Scores up to this are refused: one of them was wrong.
    floor: f32,
    right: u16,
    wrong: u16,
}

/// How a record judges. The defaults are measured, on streams of support questions and of questions about tables.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RecordSettings {
    /// Standard deviation of the entries' offsets, in log-odds.
    pub deviation: f64,
    /// What a wrong reuse adds to its score, in log-odds, for the floor.
    pub floor_margin: f64,
    /// Wrong reuses, without a right one, that make an answer bad.
    pub quarantine: u16,
}

impl Default for RecordSettings {
    fn default() -> Self {
        Self { deviation: 0.9, floor_margin: 0.0, quarantine: 3 }
    }
}

impl EntryRecord {
    /// The score as this entry's past corrects it; `None` if the entry is barred or the score at or below its floor.
    pub fn judge(&self, score: f64, settings: RecordSettings) -> Option<f64> {
        let passes = !self.is_quarantined(settings) && score > f64::from(self.floor);
        passes.then(|| self.shift(score))
    }

    /// The score as this entry's past corrects it, floor and quarantine left aside.
    pub fn shift(&self, score: f64) -> f64 {
        from_log_odds(log_odds(score) + f64::from(self.offset))
    }

    /// Learns whether the entry's answer was right for a request with this score (as it came, not shifted), where the
    /// cache expected it to be right with the chance `expected`.
    pub fn learn(&mut self, score: f64, expected: f64, is_right: bool, settings: RecordSettings) {
        let expected = expected.clamp(EXPECTED_MIN, 1.0 - EXPECTED_MIN);
        self.information += (expected * (1.0 - expected)) as f32;
        let precision = settings.deviation.powi(-2) + f64::from(self.information);
        self.offset += ((f64::from(u8::from(is_right)) - expected) / precision) as f32;
        if is_right {
            self.right = self.right.saturating_add(1);
            if score < f64::from(self.floor) && self.floor < BARRED_FROM_OTHERS {
                self.floor = score as f32;
            }
        } else {
            self.wrong = self.wrong.saturating_add(1);
            if expected >= FLOOR_EXPECTED {
                let raised = from_log_odds(log_odds(score) + settings.floor_margin);
                self.floor = self.floor.max((raised as f32).next_up());
            }
        }
    }

    /// Whether the answer is kept from other questions: barred, or never right and at least once wrong where that was
    /// not expected.
    pub fn is_quarantined(&self, settings: RecordSettings) -> bool {
        self.is_barred() || self.right == 0 && self.floor > 0.0 && self.wrong >= settings.quarantine
    }

    /// Keeps the answer from every other question, by its values or by its meaning, whatever was right before.
    pub fn bar_from_others(&mut self) {
        self.wrong = self.wrong.saturating_add(1);
        self.floor = self.floor.max(BARRED_FROM_OTHERS);
    }

    /// Bars the answer, also from the question that it was stored for.
    pub fn bar(&mut self) {
        self.wrong = self.wrong.saturating_add(1);
        self.floor = BARRED;
    }

    /// Takes that back.
    pub fn pardon(&mut self) {
        if self.is_barred() {
            *self = Self::default();
        }
    }

    pub fn is_barred(&self) -> bool {
        self.floor >= BARRED
    }

    /// What remains of it where scores are worth something else; `None` if it refuses some scores only, or none.
    pub fn without_scores(&self) -> Option<Self> {
        (self.floor >= 1.0).then_some(Self { offset: 0.0, information: 0.0, ..*self })
    }

    /// Whether it refuses anything.
    pub fn refuses(&self) -> bool {
        self.floor > 0.0
    }
}

/// A floor above every score.
const BARRED: f32 = 2.0;

/// The floor of what is served to its own question only.
const BARRED_FROM_OTHERS: f32 = 1.5;

/// Nothing is expected more surely than this.
const EXPECTED_MIN: f64 = 0.01;

/// A wrong reuse that was expected to be right at least this often raises the floor: the others tell nothing that the
/// bound does not know.
const FLOOR_EXPECTED: f64 = 0.8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings() -> RecordSettings {
        RecordSettings::default()
    }

    fn after(labels: &[(f64, f64, bool)]) -> EntryRecord {
        let mut record = EntryRecord::default();
        for &(score, expected, is_right) in labels {
            record.learn(score, expected, is_right, settings());
        }
        record
    }

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<EntryRecord>(), 16);
    }

    #[test]
    fn labels_move_the_score() {
        let check = |labels: &[(f64, f64, bool)], is_higher: bool, is_lower: bool| {
            let shifted = after(labels).shift(0.8);
            assert_eq!((shifted > 0.8 + 1e-9, shifted < 0.8 - 1e-9), (is_higher, is_lower), "{labels:?} {shifted}");
        };
        check(&[], false, false);
        check(&[(0.7, 0.3, true)], true, false);
        check(&[(0.7, 0.3, false)], false, true);
        check(&[(0.7, 0.5, true), (0.7, 0.9, false), (0.7, 0.9, false)], false, true);
    }

    #[test]
    fn an_unexpected_error_raises_the_floor_and_a_right_reuse_lowers_it() {
        let check = |labels: &[(f64, f64, bool)], score: f64, passes: bool| {
            assert_eq!(after(labels).judge(score, settings()).is_some(), passes, "{labels:?} {score}");
        };
        check(&[(0.9, 0.9, false)], 0.9, false);
        check(&[(0.9, 0.9, false)], 0.91, true);
        check(&[(0.9, 0.4, false)], 0.9, true);
        check(&[(0.9, 0.9, false), (0.85, 0.8, true)], 0.9, true);
    }

    #[test]
    fn an_answer_that_is_always_wrong_is_barred() {
        let wrong = (0.9, 0.9, false);
        assert!(!after(&[wrong, wrong]).is_quarantined(settings()));
        assert!(after(&[wrong, wrong, wrong]).is_quarantined(settings()));
        assert!(!after(&[wrong, wrong, wrong, (0.9, 0.5, true)]).is_quarantined(settings()));
    }

    proptest! {
        #[test]
        fn a_wrong_label_never_raises_a_score(
            labels in prop::collection::vec((0.1f64..1.0, 0.01f64..0.99, any::<bool>()), 0..40),
            (score, expected) in (0.1f64..1.0, 0.01f64..0.99),
        ) {
            let before = after(&labels);
            let mut worse = before;
            worse.learn(score, expected, false, settings());
            prop_assert!(worse.shift(0.8) <= before.shift(0.8));
            prop_assert!(worse.floor >= before.floor);
        }

        #[test]
        fn more_of_the_same_score_keeps_the_order(
            labels in prop::collection::vec((0.1f64..1.0, 0.01f64..0.99, any::<bool>()), 0..40),
            (a, b) in (0.01f64..0.99, 0.01f64..0.99),
        ) {
            let record = after(&labels);
            prop_assert_eq!(a < b, record.shift(a) < record.shift(b));
        }
    }
}
