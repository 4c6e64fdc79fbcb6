//! Which bound would have kept a budget, judged by logged decisions whose rightness became known?
//!
//! For shadow mode, where every candidate is compared and none is served, and for logs with a share of audits. It
//! recommends; it serves nothing and remembers nothing.

use serde::{Deserialize, Serialize};

use super::Budget;
use super::calibration::{Calibration, CalibrationError, Point};
use super::estimate::{wilson_lower, wilson_upper};

/// A candidate that was compared with a fresh answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub score: f64,
    pub is_right: bool,
    /// Chance that this candidate had of being compared; 1 where all are.
    pub chance: f64,
}

/// Serve what scores above `bound`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// Loosest bound that keeps the budget with the finite-sample correction; 1 if none does.
    pub bound: f64,
    /// Loosest bounds at which the budget lies at the lower and at the upper confidence bound of the error.
    pub bound_low: f64,
    pub bound_high: f64,
    /// Of the recommended bound: hits / requests, wrong hits / requests and that with its upper confidence bound.
    pub hit_rate: f64,
    pub error: f64,
    pub error_upper: f64,
    /// Wrong hits / hits.
    pub error_per_hit: f64,
    pub samples: usize,
}

/// What serving everything above a score would have done.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    bound: f64,
    hits: f64,
    wrong: f64,
    hits_squared: f64,
}

/// Recommends a bound for a budget. `requests` counts all, those without a candidate included; intervals are
/// `deviations` standard errors wide on each side.
///
/// The bound is that of conformal risk control (A. Angelopoulos et al., ICLR 2024): wrong hits, and one more, among
/// the requests, and one more. It holds for requests like those logged.
pub fn recommend(samples: &[Sample], requests: u64, budget: Budget, deviations: f64) -> Recommendation {
    let requests = (requests as f64).max(1.0);
    let Budget { max_error, max_error_per_hit } = budget;
    let steps = steps(samples);
    let loosest = |fits: &dyn Fn(&Step) -> bool| steps.iter().rev().find(|step| fits(step)).copied();
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    // Weighted checks are worth fewer equally weighted ones.
    let checks = |step: &Step, of: f64| of * share(step.hits, step.hits_squared);
    let interval = |step: &Step, of: f64, side: fn(f64, f64, f64) -> f64| {
        let checks = checks(step, of);
        side(share(step.wrong, of) * checks, checks, deviations)
    };
    let chosen = loosest(&|step| {
        let correction = step.hits_squared / step.hits;
        step.wrong + correction <= max_error * (requests + 1.0)
            && step.wrong + correction <= max_error_per_hit * (step.hits + 1.0)
    });
    let at = |side: fn(f64, f64, f64) -> f64| {
        let fits = |step: &Step| {
            interval(step, requests, side) <= max_error && interval(step, step.hits, side) <= max_error_per_hit
        };
        loosest(&fits).map_or(1.0, |step| step.bound)
    };
    let (bound, step) = chosen.map_or((1.0, Step::default()), |step| (step.bound, step));
    Recommendation {
        bound,
        bound_low: at(wilson_lower).min(bound),
        bound_high: at(wilson_upper).max(bound),
        hit_rate: share(step.hits, requests),
        error: share(step.wrong, requests),
        error_upper: if step.hits > 0.0 { interval(&step, requests, wilson_upper) } else { 0.0 },
        error_per_hit: share(step.wrong, step.hits),
        samples: samples.len(),
    }
}

/// What is recommended where nothing was logged.
pub fn nothing() -> Recommendation {
    recommend(&[], 0, Budget { max_error: 0.0, max_error_per_hit: 0.0 }, 1.0)
}

/// Every bound that makes a difference, strictest first. Equal scores are served together, above the next lower one.
fn steps(samples: &[Sample]) -> Vec<Step> {
    let mut sorted: Vec<Sample> =
        samples.iter().filter(|sample| sample.chance > 0.0 && sample.score.is_finite()).copied().collect();
    sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut steps = Vec::new();
    let mut sum = Step::default();
    for (index, sample) in sorted.iter().enumerate() {
        let weight = 1.0 / sample.chance.min(1.0);
        sum.hits += weight;
        sum.hits_squared += weight * weight;
        sum.wrong += if sample.is_right { 0.0 } else { weight };
        let next = sorted.get(index + 1).map_or(0.0, |next| next.score);
        if next < sample.score {
            steps.push(Step { bound: next, ..sum });
        }
    }
    steps
}

/// A calibration that fits the samples: the chance of a wrong reuse never rises with the score and is estimated with
/// one right and one wrong reuse more than were seen.
///
/// # Errors
/// There is no sample.
pub fn calibrate(samples: &[Sample]) -> Result<Calibration, CalibrationError> {
    let mut sorted: Vec<&Sample> = samples.iter().filter(|sample| (0.0..=1.0).contains(&sample.score)).collect();
    sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
    let mut blocks: Vec<Block> = Vec::new();
    for sample in sorted {
        let is_wrong = f64::from(u8::from(!sample.is_right));
        let mut block = Block { score: sample.score, wrong: is_wrong, count: 1.0 };
        while let Some(last) = blocks.pop_if(|last| last.share() <= block.share()) {
            block = last.join(block);
        }
        blocks.push(block);
    }
    let mut points: Vec<Point> = Vec::new();
    for Block { score, wrong, count } in blocks {
        let wrong = (wrong + 1.0) / (count + 2.0);
        let last = points.last().copied();
        if last.is_none_or(|last| last.score < score) {
            points.push(Point { score, wrong: last.map_or(wrong, |last| wrong.min(last.wrong)) });
        }
    }
    Calibration::new(points)
}

/// Samples of neighbouring scores with one share of wrong ones.
#[derive(Debug, Clone, Copy)]
struct Block {
    /// Mean score.
    score: f64,
    wrong: f64,
    count: f64,
}

impl Block {
    fn share(&self) -> f64 {
        self.wrong / self.count
    }

    fn join(self, other: Self) -> Self {
        let count = self.count + other.count;
        let score = (self.score * self.count + other.score * other.count) / count;
        Self { score, wrong: self.wrong + other.wrong, count }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::scale::Bin;
    use super::*;

    fn samples(rows: &[(f64, bool)]) -> Vec<Sample> {
        rows.iter().map(|&(score, is_right)| Sample { score, is_right, chance: 1.0 }).collect()
    }

    /// Scores evenly over [0, 1), wrong with the chance 1 - score.
    fn logged(count: usize, seed: u64) -> Vec<Sample> {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut sample = |index: usize| {
            let score = index as f64 / count as f64;
            Sample { score, is_right: chance.f64() < score, chance: 1.0 }
        };
        (0..count).map(&mut sample).collect()
    }

    #[test]
    fn the_bound_is_the_loosest_that_fits() {
        let rows: Vec<(f64, bool)> = (1..=100).map(|i| (f64::from(i) / 100.0, i > 40)).collect();
        let check = |max_error, max_error_per_hit, bound: f64| {
            let budget = Budget { max_error, max_error_per_hit };
            let recommended = recommend(&samples(&rows), 1_000, budget, 1.645);
            assert!((recommended.bound - bound).abs() < 1e-9, "{max_error} {max_error_per_hit} {recommended:?}");
        };
        check(0.001, 1.0, 0.40);
        check(0.006, 1.0, 0.35);
        check(0.006, 0.05, 0.38);
        check(0.0, 1.0, 1.0);
    }

    #[test]
    fn the_true_bound_lies_within_the_interval() {
        // Above a bound b the error per request is (1 - b)^2 / 2: 0.02 at 0.8.
        let budget = Budget { max_error: 0.02, max_error_per_hit: 1.0 };
        let within = (0..200).filter(|seed| {
            let recommended = recommend(&logged(2_000, *seed), 2_000, budget, 1.645);
            (recommended.bound_low..=recommended.bound_high).contains(&0.8)
        });
        assert!(within.count() >= 174);
    }

    #[test]
    fn a_calibration_follows_its_samples() {
        let calibration = calibrate(&logged(20_000, 3)).unwrap();
        let check = |score: f64| {
            let wrong = calibration.wrong(Bin::of(score));
            assert!((wrong - (1.0 - score)).abs() < 0.06, "{score} {wrong}");
        };
        check(0.2);
        check(0.5);
        check(0.8);
        check(0.95);
        assert_eq!(calibrate(&[]), Err(CalibrationError::Empty));
    }

    proptest! {
        #[test]
        fn a_tighter_budget_is_a_tighter_bound(
            rows in prop::collection::vec((0.0f64..1.0, any::<bool>()), 1..200),
            (small, large) in (0.0f64..0.3, 0.0f64..0.3).prop_map(|(a, b)| (a.min(b), a.max(b))),
        ) {
            let of = |max_error| {
                recommend(&samples(&rows), 300, Budget { max_error, max_error_per_hit: 0.5 }, 1.645)
            };
            let (tight, loose) = (of(small), of(large));
            prop_assert!(tight.bound >= loose.bound);
            prop_assert!(tight.bound_low <= tight.bound && tight.bound <= tight.bound_high);
        }

        #[test]
        fn any_samples_make_a_calibration(rows in prop::collection::vec((0.0f64..=1.0, any::<bool>()), 1..200)) {
            prop_assert!(calibrate(&samples(&rows)).is_ok());
        }
    }
}
