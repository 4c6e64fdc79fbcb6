//! The scale on which scores are told apart: bins of equal width in the log-odds of the score.
//!
//! Scores crowd just below 1, whatever made them. On this scale a bin is 0.0045 wide at 0.90 and 0.0005 at 0.99. A
//! score on the edge of two bins belongs to the lower one, so "above this bound" is strict. The highest bin is of no score:
//! what is equal but for values that say nothing is nearer than anything that has one.

use serde::{Deserialize, Serialize};

/// Bins of the scale.
pub const BINS: usize = 256;

/// Number of a bin, 0 the lowest; [`BINS`] stands for "above every score".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bin(u16);

impl Bin {
    /// Above every score.
    pub const NONE: Self = Self(BINS as u16);

    /// Of what was found by its template.
    pub const TEMPLATE: Self = Self(BINS as u16 - 1);

    /// The bin of a score; what is not a number, or below 0, counts as 0.
    pub fn of(score: f64) -> Self {
        let place = (log_odds(score) - LOWEST) / WIDTH;
        Self((place.ceil() - 1.0).clamp(0.0, (BINS - 2) as f64) as u16)
    }

    /// The bin with this number, [`Bin::NONE`] if there is none.
    pub fn at(index: usize) -> Self {
        Self(index.min(BINS) as u16)
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The score above which the bin begins; 1 where no score is above.
    pub fn edge(self) -> f64 {
        match self.index() {
            0 => 0.0,
            index if index >= Self::TEMPLATE.index() => 1.0,
            index => from_log_odds(LOWEST + WIDTH * index as f64),
        }
    }

    /// The score in the middle of the bin.
    pub fn middle(self) -> f64 {
        from_log_odds(LOWEST + WIDTH * (self.index() as f64 + 0.5))
    }
}

/// Log-odds of a score, bounded so that 0 and 1 have one.
pub fn log_odds(score: f64) -> f64 {
    let score = if score.is_nan() { 0.0 } else { score.clamp(SCORE_MIN, 1.0 - SCORE_MIN) };
    (score / (1.0 - score)).ln()
}

/// The score with these log-odds.
pub fn from_log_odds(value: f64) -> f64 {
    1.0 / (1.0 + (-value).exp())
}

/// Log-odds where bin 0 ends in effect: 0.018.
const LOWEST: f64 = -4.0;

/// Width of a bin; the last of a score begins at 0.9998.
const WIDTH: f64 = 0.05;

/// Nearest that a score comes to 0 or 1.
const SCORE_MIN: f64 = 1e-5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scores_fall_into_bins() {
        let check = |score: f64, bin: usize| assert_eq!(Bin::of(score).index(), bin, "{score}");
        check(-1.0, 0);
        check(0.0, 0);
        check(f64::NAN, 0);
        check(0.5, 79);
        check(0.500_001, 80);
        check(1.0, BINS - 2);
        check(7.0, BINS - 2);
    }

    proptest! {
        #[test]
        fn order_is_kept(a in 0.0f64..=1.0, b in 0.0f64..=1.0) {
            let (low, high) = if a <= b { (a, b) } else { (b, a) };
            prop_assert!(Bin::of(low) <= Bin::of(high));
        }

        #[test]
        fn a_bin_holds_its_middle_and_not_its_edge(index in 1..BINS - 1) {
            let bin = Bin::at(index);
            prop_assert_eq!(Bin::of(bin.middle()), bin);
            prop_assert!(Bin::of(bin.edge() - 1e-9) < bin);
        }
    }
}
