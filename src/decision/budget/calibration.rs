//! What is believed about a score before a cache has labels of its own: the shipped chance that a reuse is wrong.
//!
//! A table of points, straight lines between them. The chance never rises with the score; a table that says otherwise
//! is refused.

use serde::{Deserialize, Serialize};

use super::Budget;
use super::scale::{BINS, Bin};

/// Shipped chance of a wrong reuse, by score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Point>", into = "Vec<Point>")]
pub struct Calibration {
    points: Vec<Point>,
    by_bin: Vec<f64>,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub score: f64,
    /// Chance that a reuse with this score is wrong.
    pub wrong: f64,
}

/// Why a table is no calibration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CalibrationError {
    #[error("the table has no row")]
    Empty,
    #[error("row {0}: score and chance must lie between 0 and 1, scores must rise and chances must not")]
    Row(usize),
}

impl Calibration {
    /// From rows in rising order of score.
    ///
    /// # Errors
    /// There is no row, or one is out of range or out of order.
    pub fn new(points: Vec<Point>) -> Result<Self, CalibrationError> {
        let in_range = |point: &Point| (0.0..=1.0).contains(&point.score) && (0.0..=1.0).contains(&point.wrong);
        if points.is_empty() {
            return Err(CalibrationError::Empty);
        }
        for (row, point) in points.iter().enumerate() {
            let follows = row == 0 || (points[row - 1].score < point.score && points[row - 1].wrong >= point.wrong);
            if !in_range(point) || !follows {
                return Err(CalibrationError::Row(row));
            }
        }
        Ok(Self::of(points))
    }

    /// For the score of [`EMBEDDER`](crate::decision::EMBEDDER)'s cosines.
    pub fn shipped() -> Self {
        Self::of(SHIPPED.iter().map(|&(score, wrong)| Point { score, wrong }).collect())
    }

    fn of(points: Vec<Point>) -> Self {
        let chance = |index: usize| match Bin::at(index) {
            Bin::TEMPLATE => TEMPLATE_WRONG,
            bin => interpolate(&points, bin.middle()).max(WRONG_MIN),
        };
        let by_bin = (0..BINS).map(chance).collect();
        Self { points, by_bin }
    }

    /// Chance of a wrong reuse in a bin, at least [`WRONG_MIN`]; 0 for [`Bin::NONE`].
    pub fn wrong(&self, bin: Bin) -> f64 {
        self.by_bin.get(bin.index()).copied().unwrap_or(0.0)
    }
}

impl TryFrom<Vec<Point>> for Calibration {
    type Error = CalibrationError;

    fn try_from(points: Vec<Point>) -> Result<Self, CalibrationError> {
        Self::new(points)
    }
}

impl From<Calibration> for Vec<Point> {
    fn from(calibration: Calibration) -> Self {
        let Calibration { points, by_bin: _ } = calibration;
        points
    }
}

fn interpolate(points: &[Point], score: f64) -> f64 {
    let above = points.partition_point(|point| point.score < score);
    match (above.checked_sub(1).and_then(|below| points.get(below)), points.get(above)) {
        (Some(low), Some(high)) => {
            low.wrong + (high.wrong - low.wrong) * (score - low.score) / (high.score - low.score)
        }
        (Some(only), None) | (None, Some(only)) => only.wrong,
        (None, None) => 1.0,
    }
}

/// No score is believed to be surer than this: identical texts of different meaning exist.
pub const WRONG_MIN: f64 = 0.002;

/// Of what was found by its template: an assumption, half of what the default budget allows.
pub const TEMPLATE_WRONG: f64 = 0.005;

/// The least score that is served before a cache has labels of its own; [`Bin::NONE`] where nothing can be promised.
pub fn start(budget: Budget) -> Bin {
    let Budget { max_error, max_error_per_hit } = budget;
    match (on_line(&START, max_error), on_line(&START_PER_HIT, max_error_per_hit)) {
        (Some(score), Some(per_hit)) => Bin::of(score.max(per_hit)),
        _ => Bin::NONE,
    }
}

/// On the straight lines between the points; `None` before the first, the last one's value after it.
fn on_line(points: &[(f64, f64)], at: f64) -> Option<f64> {
    let above = points.partition_point(|(known, _)| *known <= at);
    let low = points.get(above.checked_sub(1)?)?;
    let Some(high) = points.get(above) else { return Some(low.1) };
    Some(low.1 + (high.1 - low.1) * (at - low.0) / (high.0 - low.0))
}

/// Score and chance of a wrong reuse: support questions (Bitext) and questions about tables (text2sql, wikisql), best
/// of five candidates that no guard refuses.
const SHIPPED: [(f64, f64); 16] = [
    (0.0, 0.99),
    (0.03, 0.98),
    (0.075, 0.93),
    (0.15, 0.78),
    (0.25, 0.56),
    (0.35, 0.44),
    (0.45, 0.35),
    (0.55, 0.26),
    (0.65, 0.20),
    (0.72, 0.17),
    (0.79, 0.145),
    (0.83, 0.10),
    (0.87, 0.085),
    (0.89, 0.065),
    (0.91, 0.05),
    (1.0, 0.05),
];

/// Budget of wrong hits / requests, and the score from which on it is served: there, questions about tables, the harder
/// of the two streams, would have spent a quarter of it.
const START: [(f64, f64); 9] = [
    (0.002, 0.9260),
    (0.005, 0.9104),
    (0.01, 0.8934),
    (0.02, 0.8665),
    (0.05, 0.8066),
    (0.1, 0.7293),
    (0.2, 0.5692),
    (0.4, 0.3114),
    (1.0, 0.0),
];

/// The same for wrong hits / hits: about what both streams together came to. Below the first nothing can be promised.
const START_PER_HIT: [(f64, f64); 6] =
    [(0.02, 0.9104), (0.05, 0.8934), (0.1, 0.77), (0.15, 0.58), (0.2, 0.34), (0.6, 0.0)];

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(f64, f64)]) -> Vec<Point> {
        rows.iter().map(|&(score, wrong)| Point { score, wrong }).collect()
    }

    #[test]
    fn tables_out_of_order_are_refused() {
        let check = |rows: &[(f64, f64)], error: Option<CalibrationError>| {
            assert_eq!(Calibration::new(table(rows)).err(), error, "{rows:?}");
        };
        check(&[], Some(CalibrationError::Empty));
        check(&[(0.5, 0.5)], None);
        check(&[(0.5, 0.5), (0.9, 0.1)], None);
        check(&[(0.9, 0.1), (0.5, 0.5)], Some(CalibrationError::Row(1)));
        check(&[(0.5, 0.1), (0.9, 0.5)], Some(CalibrationError::Row(1)));
        check(&[(0.5, 1.5)], Some(CalibrationError::Row(0)));
        check(&[(f64::NAN, 0.5)], Some(CalibrationError::Row(0)));
        check(&SHIPPED, None);
    }

    #[test]
    fn between_rows_the_chance_is_a_straight_line() {
        let calibration = Calibration::new(table(&[(0.5, 0.8), (0.9, 0.4)])).unwrap();
        let check = |score: f64, wrong: f64| {
            assert!((calibration.wrong(Bin::of(score)) - wrong).abs() < 0.01, "{score}");
        };
        check(0.1, 0.8);
        check(0.7, 0.6);
        check(0.99, 0.4);
        assert_eq!(calibration.wrong(Bin::NONE), 0.0);
    }

    #[test]
    fn a_tighter_budget_starts_higher() {
        let at = |max_error, max_error_per_hit| start(Budget { max_error, max_error_per_hit });
        let check = |max_error, score: f64| assert_eq!(at(max_error, 0.05), Bin::of(score), "{max_error}");
        check(0.01, 0.8934);
        check(0.005, 0.9104);
        assert_eq!(at(0.02, 1.0), Bin::of(0.8665));
        assert_eq!(at(0.015, 1.0), Bin::of(0.88));
        assert_eq!(at(1.0, 1.0), Bin::of(0.0));
        assert_eq!(at(1.0, 0.1), Bin::of(0.77));
        assert_eq!(at(0.001, 0.05), Bin::NONE);
        assert_eq!(at(0.01, 0.01), Bin::NONE);
        let rising: Vec<Bin> = (0..=100).map(|percent| at(f64::from(percent) / 100.0, 1.0)).collect();
        assert!(rising.windows(2).all(|two| two[1] <= two[0]));
    }

    #[test]
    fn it_survives_being_stored() {
        let calibration = Calibration::shipped();
        let stored = serde_json::to_string(&calibration).unwrap();
        assert_eq!(serde_json::from_str::<Calibration>(&stored).unwrap(), calibration);
    }
}
