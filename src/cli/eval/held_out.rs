//! Thresholds that are chosen on the first part of a stream, and what they do on the rest.
//!
//! Pure. The curve shows the best threshold with hindsight; this is what somebody would have got who had set it by what
//! came before. Rates are of the rows of the rest, with their intervals.

use serde::Serialize;

use super::curve::{Scored, Step, Sweep, interval, ratio};
use super::replayed::Replayed;

/// The loosest threshold that kept a budget on the first part, on the rest.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct HeldOut {
    pub(super) max_error: f64,
    /// Least score accepted; absent if none kept the budget: nothing is served then.
    pub(super) score: Option<f32>,
    /// Rows of the rest.
    pub(super) n: usize,
    pub(super) hits: usize,
    pub(super) correct: usize,
    pub(super) wrong: usize,
    pub(super) hit_rate: f64,
    pub(super) hit_rate_interval: [f64; 2],
    /// C.
    pub(super) correct_rate: f64,
    pub(super) correct_rate_interval: [f64; 2],
    /// E.
    pub(super) error_rate: f64,
    pub(super) error_rate_interval: [f64; 2],
}

impl HeldOut {
    /// Every row stored: the scores do not depend on the threshold.
    pub(super) fn of(max_error: f64, rows: &[Scored], first: usize) -> Self {
        let (first, rest) = rows.split_at(first.min(rows.len()));
        Self::at(max_error, Sweep::of(first).loosest(max_error), rest)
    }

    /// Only misses stored: each threshold has rows of its own, `all` in number.
    pub(super) fn of_replayed(max_error: f64, replayed: &Replayed, all: usize, first: usize) -> Self {
        match replayed.within(max_error, first) {
            Some((score, rows)) => Self::at(max_error, Some(score), rows.get(first..).unwrap_or_default()),
            None => Self::counted(max_error, None, all.saturating_sub(first)),
        }
    }

    fn at(max_error: f64, score: Option<f32>, rest: &[Scored]) -> Self {
        Self::counted(max_error, score.map(|score| Step::at(score, rest)), rest.len())
    }

    fn counted(max_error: f64, step: Option<Step>, n: usize) -> Self {
        let (hits, correct, wrong) =
            step.map_or((0, 0, 0), |Step { score: _, hits, right, wrong }| (hits, right, wrong));
        Self {
            max_error,
            score: step.map(|step| step.score),
            n,
            hits,
            correct,
            wrong,
            hit_rate: ratio(hits, n),
            hit_rate_interval: interval(hits, n),
            correct_rate: ratio(correct, n),
            correct_rate_interval: interval(correct, n),
            error_rate: ratio(wrong, n),
            error_rate_interval: interval(wrong, n),
        }
    }
}

/// How many rows are the first part.
pub(super) fn first(rows: usize, share: f64) -> usize {
    (rows as f64 * share) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[(f32, bool)]) -> Vec<Scored> {
        rows.iter().map(|(score, is_right)| Scored { score: Some(*score), is_right: Some(*is_right) }).collect()
    }

    /// The first four choose, the last four are counted: with hindsight 0.8 would have been best.
    const ROWS: [(f32, bool); 8] =
        [(0.9, true), (0.7, true), (0.6, false), (0.5, true), (0.75, false), (0.8, true), (0.65, false), (0.95, true)];

    #[test]
    fn what_was_chosen_before_is_scored_after() {
        fn check(max_error: f64, score: Option<f32>, hits: usize, correct: usize, wrong: usize) {
            let held_out = HeldOut::of(max_error, &rows(&ROWS), 4);
            let HeldOut { score: own, n, hits: h, correct: c, wrong: w, error_rate, correct_rate, hit_rate, .. } =
                held_out;
            assert_eq!((own, n, h, c, w), (score, 4, hits, correct, wrong), "{max_error}");
            let rates = [hits, correct, wrong].map(|count| count as f64 / 4.0);
            assert_eq!([hit_rate, correct_rate, error_rate], rates);
            let [lower, upper] = held_out.error_rate_interval;
            assert!(lower <= error_rate && error_rate <= upper && upper - lower > 0.1, "{lower} {upper}");
        }
        check(0.0, Some(0.7), 3, 2, 1);
        check(0.24, Some(0.7), 3, 2, 1);
        check(0.25, Some(0.5), 4, 2, 2);
        let none = HeldOut::of(0.0, &rows(&[(0.9, false), (0.8, true), (0.7, true)]), 2);
        assert_eq!((none.score, none.n, none.hits, none.error_rate), (None, 1, 0, 0.0));
        assert_eq!(HeldOut::of(0.0, &rows(&ROWS), 0).score, None);
    }

    #[test]
    fn replays_are_chosen_by_their_own_first_part() {
        let strict = rows(&[(0.9, true), (0.9, true), (0.9, true), (0.9, false)]);
        let loose = rows(&[(0.6, true), (0.6, false), (0.6, true), (0.6, true)]);
        let replayed = Replayed::new(vec![(0.9, strict), (0.6, loose)]);
        let of = |max_error| HeldOut::of_replayed(max_error, &replayed, 4, 2);
        let seen = [0.0, 0.5].map(|max_error| (of(max_error).score, of(max_error).correct, of(max_error).wrong));
        assert_eq!(seen, [(Some(0.9), 1, 1), (Some(0.6), 2, 0)]);
        let none = HeldOut::of_replayed(0.0, &Replayed::new(Vec::new()), 4, 1);
        assert_eq!((none.score, none.n, none.hits), (None, 3, 0));
    }

    #[test]
    fn parts() {
        assert_eq!([first(10, 0.5), first(3, 0.5), first(1, 0.9)], [5, 1, 0]);
    }
}
