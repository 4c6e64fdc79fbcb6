//! What a cache knows about its own errors, and what it therefore serves.
//!
//! An operator sets a [`Budget`]. A [`Bound`] says which scores are served so that it holds, from a shipped calibration
//! and from labels: later knowledge of whether an answer was right. An [`EntryRecord`] says what an entry's own past
//! adds. [`tune`] recommends a budget from what was logged.

mod bound;
mod calibration;
mod drift;
mod estimate;
mod evidence;
mod ledger;
mod record;
mod scale;
pub mod tune;

pub use bound::{Action, Bound, Decision, Report};
pub use estimate::{wilson_lower, wilson_upper};
pub use record::{EntryRecord, RecordSettings};
pub use scale::Bin;

use serde::{Deserialize, Serialize};

use drift::DriftSettings;
use evidence::{HalfLives, Pooling};

/// How often a cache may be wrong. Both hold at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Wrong hits / requests.
    pub max_error: f64,
    /// Wrong hits / hits.
    pub max_error_per_hit: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { max_error: 0.01, max_error_per_hit: 0.05 }
    }
}

/// Where labels come from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Labels {
    /// From nowhere: the shipped calibration decides and nothing is explored.
    None,
    /// Candidates of misses and explores are compared with the fresh answer.
    Misses,
    /// That, and this share of hits is checked in the background.
    Audit(f64),
}

/// What does not change with the traffic. The defaults are those of the measured run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Standard errors that the estimate of wrong hits must stay below the budget.
    pub deviations: f64,
    /// Next stretch, in requests, as a share of those so far.
    pub horizon: f64,
    /// Least stretch in requests.
    pub horizon_min: f64,
    /// Share explored at the bound.
    pub explore: f64,
    /// Share explored of the surest candidates.
    pub explore_min: f64,
    pub half_lives: HalfLives,
    pub pooling: Pooling,
    /// Requests after which the sums of the ledger count half.
    pub ledger_half_life: f64,
    pub drift: DriftSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deviations: 1.3,
            horizon: 0.25,
            horizon_min: 500.0,
            explore: 0.05,
            explore_min: 0.02,
            half_lives: HalfLives { asked: 1_000.0, labelled: 8_000.0 },
            pooling: Pooling { cell_labels: 20.0, cell_wrong: 1.0, prior: 5.0, prior_right: 5.0 },
            ledger_half_life: 50_000.0,
            drift: DriftSettings::default(),
        }
    }
}
