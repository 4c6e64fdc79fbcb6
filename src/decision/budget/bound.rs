//! Which scores does a cache serve, so that its errors stay within its budget?
//!
//! One per cache. It adds up the wrong hits served so far (known where compared, estimated elsewhere), adds what the
//! next stretch of requests would serve wrongly, and takes the loosest bound at which the upper confidence bound of
//! that sum stays within both budgets. Nothing is promised beyond the next stretch, which is why a growing cache, whose
//! requests find nearer and nearer candidates, does not outgrow its bound. A share of what lies above the bound is
//! asked upstream nevertheless; without it nothing would be learned there.
//!
//! After an alarm the shipped chances are taken for worse than they are, until as many labels as that takes show that the
//! bound without this would keep the budget again.
//!
//! A cache without labels serves from a shipped score on, and from a higher one where users complain; one with labels looks
//! at some requests first.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::calibration::{Calibration, WRONG_MIN, start};
use super::drift::Drift;
use super::estimate::wilson_upper;
use super::evidence::{Evidence, Rates};
use super::ledger::{Ledger, Sum};
use super::scale::{BINS, Bin};
use super::{Budget, Labels, Settings};

/// What was decided about a request. It is kept until its label comes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub bin: Bin,
    pub action: Action,
}

/// Serve the best candidate or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// At or below the bound.
    Refuse,
    /// Above it, and asked upstream to learn.
    Explore,
    /// A hit.
    Serve,
    /// A hit that is compared with a fresh answer in the background.
    ServeAndAudit,
}

impl Action {
    pub fn is_hit(self) -> bool {
        matches!(self, Self::Serve | Self::ServeAndAudit)
    }
}

/// The bound of one cache and what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    budget: Budget,
    labels: Labels,
    settings: Settings,
    calibration: Calibration,
    evidence: Evidence,
    ledger: Ledger,
    drift: Drift,
    /// Requests since the bound was last worked out.
    since: u32,
    /// Multiplies the shipped chances; above 1 after an alarm.
    tightened: f64,
    /// The last labels since the alarm, and whether they were right; empty without one.
    #[serde(default)]
    since_alarm: VecDeque<(Bin, bool)>,
    lowest: Bin,
    /// As of when the bound was last worked out.
    rates: Rates,
}

/// For stats and logs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Scores above this are served; 1 if none is.
    pub bound: f64,
    /// Requests and hits that the estimates are shares of.
    pub requests: f64,
    pub hits: f64,
    /// Wrong hits / requests, estimated, with the upper bound of a confidence of 95 %.
    pub error: f64,
    pub error_upper: f64,
    /// Wrong hits / hits, likewise.
    pub error_per_hit: f64,
    pub error_per_hit_upper: f64,
    /// Labels remembered.
    pub samples: f64,
    /// Whether the estimate is over a budget.
    pub is_over_budget: bool,
    /// Times that the labels were worse than expected for long.
    pub alarms: u32,
}

/// A bin's hits of which nothing is known, and the requests that the next stretch will bring it.
#[derive(Debug, Clone, Copy)]
struct Tally {
    bin: Bin,
    unknown: f64,
    asked: f64,
}

impl Tally {
    fn counts(&self) -> bool {
        self.unknown + self.asked > NEGLIGIBLE
    }
}

/// Sums at the end of the next stretch.
#[derive(Debug, Clone, Copy)]
struct Outlook {
    hits: f64,
    wrong: f64,
    upper: f64,
}

impl Bound {
    pub fn new(budget: Budget, labels: Labels, calibration: Calibration, settings: Settings) -> Self {
        let evidence = Evidence::default();
        let rates = evidence.rates(&calibration, 1.0, settings.pooling);
        Self {
            budget,
            labels,
            settings,
            calibration,
            evidence,
            ledger: Ledger::default(),
            drift: Drift::default(),
            since: 0,
            tightened: 1.0,
            since_alarm: VecDeque::new(),
            lowest: if labels == Labels::None { start(budget) } else { Bin::NONE },
            rates,
        }
    }

    /// With what the program knows of scores.
    pub fn shipped(budget: Budget, labels: Labels) -> Self {
        Self::new(budget, labels, Calibration::shipped(), Settings::default())
    }

    /// What to do with a request whose best candidate has this score. `draws` are two even chances in [0, 1): whether
    /// to explore, whether to audit.
    pub fn decide(&self, score: Option<f64>, draws: [f64; 2]) -> Decision {
        self.decide_bin(score.map_or(Bin::NONE, Bin::of), draws)
    }

    /// The same for a candidate that was found by its template. It is served wherever any score is.
    pub fn decide_template(&self, draws: [f64; 2]) -> Decision {
        self.decide_bin(Bin::TEMPLATE, draws)
    }

    fn decide_bin(&self, bin: Bin, draws: [f64; 2]) -> Decision {
        let [explore, audit] = draws;
        let action = if bin < self.lowest || bin == Bin::NONE {
            Action::Refuse
        } else if explore < self.explored(bin, self.lowest) {
            Action::Explore
        } else if matches!(self.labels, Labels::Audit(share) if audit < share) {
            Action::ServeAndAudit
        } else {
            Action::Serve
        };
        Decision { bin, action }
    }

    /// Counts a request and what was decided, and works the bound out anew every [`STEP`] requests.
    pub fn record(&mut self, decision: Decision) {
        let Decision { bin, action } = decision;
        self.evidence.ask(bin);
        if action.is_hit() {
            self.ledger.add_hit(bin);
        } else {
            self.ledger.add_miss();
        }
        self.since += 1;
        if self.since >= STEP {
            let requests = f64::from(std::mem::take(&mut self.since));
            self.evidence.fade(requests, self.settings.half_lives);
            self.ledger.fade(0.5f64.powf(requests / self.settings.ledger_half_life));
            self.settle();
        }
    }

    /// Learns whether the candidate of an earlier decision was right. Only for labels that came as planned: of every
    /// miss and explore, or of hits drawn for an audit.
    pub fn learn(&mut self, decision: Decision, is_right: bool) {
        let Decision { bin, action } = decision;
        let expected = self.rates.wrong(bin);
        self.evidence.label(bin, is_right);
        if action.is_hit() {
            self.ledger.resolve(bin, is_right);
        }
        let surprise = f64::from(u8::from(!is_right)) - expected;
        if bin == Bin::NONE || expected >= EXPECTED_LOST {
            return;
        }
        if self.tightened > 1.0 {
            self.since_alarm.push_back((bin, is_right));
            if self.since_alarm.len() > WINDOW {
                self.since_alarm.pop_front();
            }
        }
        if self.drift.observe(surprise, self.settings.drift) {
            self.evidence.keep_labels(KEPT_ON_ALARM);
            self.tightened = TIGHTENED_ON_ALARM;
            self.since_alarm.clear();
            self.settle();
        }
    }

    /// Takes a user's word on a hit. It is counted, but says nothing of other hits: who complains is no sample.
    pub fn hear(&mut self, decision: Decision, is_right: bool) {
        let Decision { bin, action } = decision;
        if action.is_hit() {
            self.ledger.resolve(bin, is_right);
            if !is_right {
                self.settle();
            }
        }
    }

    /// The budget that it keeps, and where labels come from.
    pub fn terms(&self) -> (Budget, Labels) {
        (self.budget, self.labels)
    }

    /// Works the bound out under another budget, or for other labels, with all that was learned.
    pub fn set_terms(&mut self, budget: Budget, labels: Labels) {
        (self.budget, self.labels) = (budget, labels);
        (self.settings, self.calibration) = (Settings::default(), Calibration::shipped());
        self.settle();
    }

    /// Chance that a candidate of which this was decided is compared with a fresh answer.
    pub fn chance(&self, decision: Decision) -> f64 {
        let Decision { bin, action } = decision;
        let explored = self.explored(bin, self.lowest);
        match (action, self.labels) {
            (Action::Refuse, _) => 1.0,
            (Action::Explore, _) => explored,
            (Action::ServeAndAudit, Labels::Audit(share)) => share * (1.0 - explored),
            (Action::ServeAndAudit, Labels::None | Labels::Misses) | (Action::Serve, _) => 0.0,
        }
    }

    /// Forgets what is known of a bin. The bound stays until it is worked out anew.
    pub fn forget(&mut self, bin: Bin) {
        self.evidence.forget(bin);
        self.ledger.forget(bin);
        self.since_alarm.retain(|(of, _)| *of != bin);
    }

    /// Whether it is of the size that this version works with.
    pub fn is_whole(&self) -> bool {
        self.evidence.is_whole() && self.ledger.is_whole()
    }

    /// Where its labels come from.
    pub fn labels(&self) -> Labels {
        self.labels
    }

    /// The least bin that is served; [`Bin::NONE`] if none is.
    pub fn lowest(&self) -> Bin {
        self.lowest
    }

    /// Chance that a reuse with this score is right.
    pub fn right(&self, score: f64) -> f64 {
        1.0 - self.rates.wrong(Bin::of(score))
    }

    /// Chance that a reuse that was found by its template is right.
    pub fn right_by_template(&self) -> f64 {
        1.0 - self.rates.wrong(Bin::TEMPLATE)
    }

    pub fn report(&self) -> Report {
        let rates = self.fresh_rates();
        let mut sum = Sum::new(&rates, self.has_spread());
        for bin in (0..BINS).map(Bin::at) {
            sum.add(bin, self.ledger.unknown(bin));
        }
        let (requests, hits, known) = (self.ledger.requests(), self.ledger.hits(), self.ledger.wrong());
        let (error, upper) = (known + sum.wrong(), known + sum.upper(DEVIATIONS_REPORTED));
        let share = |part: f64, whole: f64| if whole > 0.0 { (part / whole).min(1.0) } else { 0.0 };
        let Budget { max_error, max_error_per_hit } = self.budget;
        let is_over_budget = match self.labels {
            Labels::None => self.complained() > 1.0,
            Labels::Misses | Labels::Audit(_) => error > max_error * requests || error > max_error_per_hit * hits,
        };
        Report {
            bound: self.lowest.edge(),
            requests,
            hits,
            error: share(error, requests),
            error_upper: share(upper, requests),
            error_per_hit: share(error, hits),
            error_per_hit_upper: share(upper, hits),
            samples: self.evidence.labels(),
            is_over_budget,
            alarms: self.drift.alarms(),
        }
    }

    /// Takes the loosest bound that stays within both budgets.
    fn settle(&mut self) {
        if self.labels == Labels::None || self.evidence.labels() <= 0.0 {
            let Budget { max_error, max_error_per_hit } = self.budget;
            let share = 1.0 / self.complained().max(1.0);
            self.rates = self.fresh_rates();
            self.lowest = start(Budget { max_error: max_error * share, max_error_per_hit: max_error_per_hit * share });
            return;
        }
        let rates = self.rates_at(1.0);
        let loosest = self.loosest(&rates);
        if self.tightened > 1.0 && self.has_recovered(loosest) {
            self.tightened = 1.0;
            self.since_alarm.clear();
        }
        self.rates = if self.tightened > 1.0 { self.fresh_rates() } else { rates };
        // What is believed to be worse may be better known, and so allow more: never here.
        self.lowest = if self.tightened > 1.0 { loosest.max(self.loosest(&self.rates)) } else { loosest };
    }

    /// Whether the labels since the alarm show that this bound would keep the budget: of what it would serve at most so
    /// many were wrong, with a confidence of 95 %. What the bound of now refuses is compared more often than what it
    /// serves, so the sample looks worse than the traffic, never better.
    fn has_recovered(&self, lowest: Bin) -> bool {
        let served = || self.since_alarm.iter().filter(|(bin, _)| *bin >= lowest);
        let (count, wrong) = (served().count(), served().filter(|(_, is_right)| !is_right).count());
        let share: f64 = (lowest.index()..BINS).map(|index| self.evidence.density(Bin::at(index))).sum();
        let upper = wilson_upper(wrong as f64, count as f64, DEVIATIONS_REPORTED);
        let Budget { max_error, max_error_per_hit } = self.budget;
        count >= WINDOW_MIN && upper <= max_error_per_hit && upper * share <= max_error
    }

    fn loosest(&self, rates: &Rates) -> Bin {
        let Budget { max_error, max_error_per_hit } = self.budget;
        let ahead = (self.ledger.requests() * self.settings.horizon).max(self.settings.horizon_min);
        let requests = self.ledger.requests() + ahead;
        let tally =
            |bin: Bin| Tally { bin, unknown: self.ledger.unknown(bin), asked: ahead * self.evidence.density(bin) };
        let tallies: Vec<Tally> = (0..BINS).rev().map(Bin::at).map(tally).filter(Tally::counts).collect();
        let served_before = tallies.iter().rposition(|tally| tally.unknown > 0.0).map_or(0, |last| last + 1);
        let mut loosest = Bin::NONE;
        for (index, Tally { bin: lowest, .. }) in tallies.iter().enumerate() {
            let Outlook { hits, wrong, upper } = self.outlook(rates, &tallies[..served_before.max(index + 1)], *lowest);
            if upper <= max_error * requests && upper <= max_error_per_hit * hits {
                loosest = *lowest;
            }
            if wrong > max_error * requests {
                break;
            }
        }
        loosest
    }

    /// What the hits so far and those to come would add up to under a bound.
    fn outlook(&self, rates: &Rates, tallies: &[Tally], lowest: Bin) -> Outlook {
        let mut sum = Sum::new(rates, self.has_spread());
        let mut hits = self.ledger.hits();
        for Tally { bin, unknown, asked } in tallies {
            let served = if *bin < lowest { 0.0 } else { asked * (1.0 - self.explored(*bin, lowest)) };
            hits += served;
            sum.add(*bin, unknown + served);
        }
        let known = self.ledger.wrong();
        Outlook { hits, wrong: known + sum.wrong(), upper: known + sum.upper(self.settings.deviations) }
    }

    /// Wrong hits that are known over those that the budget allows.
    fn complained(&self) -> f64 {
        let Budget { max_error, max_error_per_hit } = self.budget;
        let requests = self.ledger.requests().max(self.settings.horizon_min);
        let hits = self.ledger.hits().max(COMPLAINTS_HITS_MIN);
        self.ledger.wrong() / (max_error * requests).min(max_error_per_hit * hits).max(f64::MIN_POSITIVE)
    }

    /// After an alarm nothing is believed to be better than it would be without.
    fn fresh_rates(&self) -> Rates {
        let rates = self.rates_at(1.0);
        if self.tightened > 1.0 { self.rates_at(self.tightened).at_least(&rates) } else { rates }
    }

    fn rates_at(&self, tightened: f64) -> Rates {
        self.evidence.rates(&self.calibration, tightened, self.settings.pooling)
    }

    /// Without labels the calibration is taken at its word.
    fn has_spread(&self) -> bool {
        self.labels != Labels::None
    }

    /// Share of a bin that is asked upstream although it lies above the bound: most at the bound, where an error is
    /// likeliest and a right answer is worth least, and never less under a tighter bound.
    fn explored(&self, bin: Bin, lowest: Bin) -> f64 {
        let audited = match self.labels {
            Labels::None => return 0.0,
            Labels::Misses => 0.0,
            Labels::Audit(share) => share,
        };
        let relative = self.calibration.wrong(bin) / self.calibration.wrong(lowest).max(WRONG_MIN);
        let wanted = (self.settings.explore * relative).clamp(self.settings.explore_min, EXPLORE_MAX);
        (wanted - audited).max(0.0)
    }
}

/// Requests between two looks at the bound.
const STEP: u32 = 32;

/// Hits below which a complaint says little of their share.
const COMPLAINTS_HITS_MIN: f64 = 60.0;

/// Most that is explored anywhere.
const EXPLORE_MAX: f64 = 0.5;

/// Requests that are not worth counting.
const NEGLIGIBLE: f64 = 1e-3;

/// One-sided 95 %.
const DEVIATIONS_REPORTED: f64 = 1.645;

/// A reuse that is likelier wrong than this is nobody's loss, whatever comes of it.
const EXPECTED_LOST: f64 = 0.5;

/// Weight that labels from before an alarm keep.
const KEPT_ON_ALARM: f64 = 0.1;

/// What an alarm makes of the shipped chances.
const TIGHTENED_ON_ALARM: f64 = 1.5;

/// Labels since an alarm that are looked back on.
const WINDOW: usize = 2_000;

/// Labels of what would be served below which nothing is recovered from: as many as show 5 % where none was wrong.
const WINDOW_MIN: usize = 52;

#[cfg(test)]
mod tests;
