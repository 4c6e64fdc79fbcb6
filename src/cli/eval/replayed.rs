//! What would each acceptance score serve, if a row were stored only where nothing was served for it?
//!
//! Pure, like curve.rs, but the scores depend on what is accepted (protocol B): each threshold has a replay of its own.

use super::curve::{Point, Scored, Step, ratio};

/// The replays of some thresholds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Replayed {
    /// Strictest first: the threshold, and the rows with the scores of what was served.
    replays: Vec<(f32, Vec<Scored>)>,
}

impl Replayed {
    pub(super) fn new(mut replays: Vec<(f32, Vec<Scored>)>) -> Self {
        replays.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        Self { replays }
    }

    /// Every threshold.
    pub(super) fn points(&self, is_labelled: bool) -> Vec<Point> {
        self.replays.iter().map(|(score, rows)| Step::at(*score, rows).point(rows.len(), is_labelled)).collect()
    }

    /// C at the loosest threshold that keeps E at or below `error_max`, as does every stricter one.
    pub(super) fn right_at(&self, error_max: f64) -> f64 {
        let chosen = self.within(error_max, usize::MAX);
        chosen.map_or(0.0, |(score, rows)| ratio(Step::at(score, rows).right, rows.len()))
    }

    /// That threshold on the first rows only, and all rows of its replay.
    pub(super) fn within(&self, error_max: f64, first: usize) -> Option<(f32, &[Scored])> {
        let keeps = |score: f32, rows: &[Scored]| {
            let first = &rows[..rows.len().min(first)];
            ratio(Step::at(score, first).wrong, first.len()) <= error_max
        };
        let within = self.replays.iter().take_while(|(score, rows)| keeps(*score, rows));
        within.last().map(|(score, rows)| (*score, rows.as_slice()))
    }
}

/// Thresholds to replay: at most [`REPLAYS_MAX`] of the curve's, the first and the last among them.
pub(super) fn thresholds(curve: &[Point]) -> Vec<f32> {
    let wanted = curve.len().min(REPLAYS_MAX);
    let at = |i: usize| if wanted < 2 { 0 } else { i * (curve.len() - 1) / (wanted - 1) };
    (0..wanted).map(|i| curve[at(i)].score).collect()
}

/// Each takes about as long as the service at one budget.
const REPLAYS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[(f32, bool)]) -> Vec<Scored> {
        let scored = |(score, is_right): &(f32, bool)| Scored {
            score: (*score > 0.0).then_some(*score),
            is_right: (*score > 0.0).then_some(*is_right),
        };
        rows.iter().map(scored).collect()
    }

    #[test]
    fn each_threshold_has_its_own_rows() {
        // With the looser threshold the second row is served, so the third finds nothing of its own.
        let strict = rows(&[(0.0, true), (0.0, true), (0.9, true), (0.95, true)]);
        let loose = rows(&[(0.0, true), (0.7, true), (0.6, false), (0.95, true)]);
        let replayed = Replayed::new(vec![(0.6, loose), (0.9, strict)]);
        let points: Vec<_> = replayed.points(true).iter().map(|p| (p.score, p.hit_rate, p.error_rate)).collect();
        assert_eq!(points, [(0.9, 0.5, Some(0.0)), (0.6, 0.75, Some(0.25))]);
        assert_eq!(replayed.points(false)[0].error_rate, None);
        assert_eq!([0.0, 0.2, 0.25].map(|error_max| replayed.right_at(error_max)), [0.5, 0.5, 0.5]);
        let chosen = |error_max, first| replayed.within(error_max, first).map(|(score, _)| score);
        assert_eq!([chosen(0.0, 4), chosen(0.25, 4), chosen(0.0, 2)], [Some(0.9), Some(0.6), Some(0.6)]);
        assert_eq!(Replayed::new(Vec::new()).right_at(0.5), 0.0);
    }

    #[test]
    fn thresholds_are_those_of_the_curve() {
        let curve = |n: usize| -> Vec<Point> {
            (0..n).map(|i| Point { score: 1.0 - i as f32 / 1000.0, hit_rate: 0.0, error_rate: None }).collect()
        };
        for n in [0, 1, 2, 39, 40, 41, 300] {
            let (curve, chosen) = (curve(n), thresholds(&curve(n)));
            assert_eq!(chosen.len(), n.min(REPLAYS_MAX));
            assert!(chosen.is_sorted_by(|a, b| a > b), "{n}");
            assert_eq!(chosen.first(), curve.first().map(|point| &point.score));
            assert_eq!(chosen.last(), curve.last().map(|point| &point.score));
        }
    }
}
