//! What would each acceptance score serve, and how much of it wrongly?
//!
//! Pure: scored rows in, points out. Rows of one score are accepted together, and a row without a score never is.
//! Protocol A: the scores do not depend on what is accepted, because every row was stored. E = wrong hits / rows,
//! C = right hits / rows.

use serde::Serialize;

use crate::decision::budget::{wilson_lower, wilson_upper};

/// A row, reduced to what a threshold decides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scored {
    /// Acceptance score of its candidate; absent if it has none.
    pub(super) score: Option<f32>,
    /// Whether serving the candidate is right, where that is known.
    pub(super) is_right: Option<bool>,
}

/// What accepting every score from `score` up does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Point {
    /// The least score accepted.
    pub(super) score: f32,
    pub(super) hit_rate: f64,
    /// Absent if nothing is labelled.
    pub(super) error_rate: Option<f64>,
}

/// Every threshold that makes a difference, strictest first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sweep {
    rows: usize,
    positives: usize,
    negatives: usize,
    steps: Vec<Step>,
}

/// Rows at or above a score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    pub(super) score: f32,
    pub(super) hits: usize,
    pub(super) right: usize,
    pub(super) wrong: usize,
}

impl Step {
    /// Those of the rows that are at or above the score.
    pub(super) fn at(score: f32, rows: &[Scored]) -> Self {
        let accepted = || rows.iter().filter(|row| row.score.is_some_and(|own| own >= score));
        let count = |truth| accepted().filter(|row| row.is_right == Some(truth)).count();
        Self { score, hits: accepted().count(), right: count(true), wrong: count(false) }
    }

    pub(super) fn point(&self, rows: usize, is_labelled: bool) -> Point {
        let error_rate = is_labelled.then(|| ratio(self.wrong, rows));
        Point { score: self.score, hit_rate: ratio(self.hits, rows), error_rate }
    }
}

impl Sweep {
    pub(super) fn of(rows: &[Scored]) -> Self {
        let mut accepted: Vec<(f32, Option<bool>)> =
            rows.iter().filter_map(|row| row.score.map(|score| (score, row.is_right))).collect();
        accepted.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut steps: Vec<Step> = Vec::new();
        let (mut right, mut wrong) = (0, 0);
        for (index, (score, is_right)) in accepted.into_iter().enumerate() {
            right += usize::from(is_right == Some(true));
            wrong += usize::from(is_right == Some(false));
            let step = Step { score, hits: index + 1, right, wrong };
            match steps.last_mut() {
                Some(last) if last.score == score => *last = step,
                _ => steps.push(step),
            }
        }
        let count = |truth| rows.iter().filter(|row| row.is_right == Some(truth)).count();
        Self { rows: rows.len(), positives: count(true), negatives: count(false), steps }
    }

    /// For every k = 0, 1, 2 … wrong hits up to E = 0.10 the loosest threshold with exactly k, where ties leave one
    /// and it accepts anything; beyond that 200 points even in hit rate. If nothing is labelled, the 200 points alone.
    pub(super) fn points(&self, is_labelled: bool) -> Vec<Point> {
        let mut chosen: Vec<usize> = Vec::new();
        if is_labelled {
            let is_loosest = |i: &usize| self.steps.get(i + 1).is_none_or(|next| next.wrong > self.steps[*i].wrong);
            let in_range = self.steps.iter().take_while(|step| self.share(step.wrong) <= ERROR_RATE_FINE).count();
            chosen.extend((0..in_range).filter(is_loosest));
        }
        chosen.extend(self.evenly(chosen.last().map(|i| self.steps[*i].hits).unwrap_or(0)));
        chosen.into_iter().map(|i| self.steps[i].point(self.rows, is_labelled)).collect()
    }

    /// The least score of the loosest threshold with E of at most `error_max`; `None` if there is none.
    pub(super) fn loosest(&self, error_max: f64) -> Option<f32> {
        self.within(error_max).map(|step| step.score)
    }

    /// C at the loosest threshold with E of at most `error_max`.
    pub(super) fn right_at(&self, error_max: f64) -> f64 {
        self.share(self.within(error_max).map_or(0, |step| step.right))
    }

    /// Share of the rows labelled right that is served where at most the share `x` of those labelled wrong is;
    /// `None` if either kind is missing.
    pub(super) fn served_at(&self, x: f64) -> Option<f64> {
        self.has_both().then(|| {
            let within = self.steps.iter().take_while(|step| ratio(step.wrong, self.negatives) <= x);
            ratio(within.last().map_or(0, |step| step.right), self.positives)
        })
    }

    /// Chance that a row labelled right scores above one labelled wrong, ties half, no score lowest; `None` if either
    /// kind is missing.
    pub(super) fn auc(&self) -> Option<f64> {
        let end = Step { score: f32::NEG_INFINITY, hits: self.rows, right: self.positives, wrong: self.negatives };
        let mut above = Step { right: 0, wrong: 0, ..end };
        let mut ordered = 0.0;
        for step in self.steps.iter().chain([&end]) {
            let (right, wrong) = (step.right - above.right, step.wrong - above.wrong);
            ordered += right as f64 * ((self.negatives - step.wrong) as f64 + wrong as f64 / 2.0);
            above = *step;
        }
        self.has_both().then(|| ordered / (self.positives as f64 * self.negatives as f64))
    }

    /// Up to [`POINTS_COARSE`] steps, even in hits, from more than `hits` to the last.
    fn evenly(&self, hits: usize) -> Vec<usize> {
        let most = self.steps.last().map_or(0, |step| step.hits);
        let wanted = (1..=POINTS_COARSE).map(|i| hits + ((most - hits) * i).div_ceil(POINTS_COARSE));
        let mut steps: Vec<usize> =
            wanted.filter(|w| *w > hits).map(|w| self.steps.partition_point(|step| step.hits < w)).collect();
        steps.dedup();
        steps
    }

    fn within(&self, error_max: f64) -> Option<&Step> {
        self.steps.iter().take_while(|step| self.share(step.wrong) <= error_max).last()
    }

    fn share(&self, rows: usize) -> f64 {
        ratio(rows, self.rows)
    }

    fn has_both(&self) -> bool {
        self.positives > 0 && self.negatives > 0
    }
}

/// 0 of nothing.
pub(super) fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Wilson's bounds of such a share, lower and upper, that hold it with a confidence of [`CONFIDENCE`].
pub(super) fn interval(part: usize, whole: usize) -> [f64; 2] {
    [wilson_lower, wilson_upper].map(|bound| bound(part as f64, whole as f64, DEVIATIONS))
}

pub(super) const CONFIDENCE: f64 = 0.90;

/// Standard errors on each side.
const DEVIATIONS: f64 = 1.645;

/// E up to which every count of wrong hits has a point.
const ERROR_RATE_FINE: f64 = 0.10;

/// Points beyond that.
const POINTS_COARSE: usize = 200;

#[cfg(test)]
mod tests;
