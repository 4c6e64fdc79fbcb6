//! The wrong hits of a cache so far, known and estimated, and their sum with those to come.
//!
//! A hit that nobody compared is kept by the bin of its score, not by what it was believed to be when it was served:
//! later labels also correct what is believed of earlier hits.

use serde::{Deserialize, Serialize};

use super::evidence::Rates;
use super::scale::{BINS, Bin};

/// Sums over the requests so far, old ones fading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    requests: f64,
    hits: f64,
    unknown: Vec<f64>,
    wrong: f64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { requests: 0.0, hits: 0.0, unknown: vec![0.0; BINS], wrong: 0.0 }
    }
}

impl Ledger {
    pub(super) fn is_whole(&self) -> bool {
        self.unknown.len() == BINS
    }

    /// A request that was not a hit.
    pub fn add_miss(&mut self) {
        self.requests += 1.0;
    }

    /// A hit of which nothing is known yet.
    pub fn add_hit(&mut self, bin: Bin) {
        self.requests += 1.0;
        self.hits += 1.0;
        if let Some(count) = self.unknown.get_mut(bin.index()) {
            *count += 1.0;
        }
    }

    /// A hit that was added before was compared.
    pub fn resolve(&mut self, bin: Bin, is_right: bool) {
        if let Some(count) = self.unknown.get_mut(bin.index()) {
            *count = (*count - 1.0).max(0.0);
        }
        self.wrong += f64::from(u8::from(!is_right));
    }

    pub(super) fn forget(&mut self, bin: Bin) {
        self.unknown.get_mut(bin.index()).into_iter().for_each(|count| *count = 0.0);
    }

    /// Multiplies every sum.
    pub fn fade(&mut self, by: f64) {
        let Self { requests, hits, unknown, wrong } = self;
        for sum in [requests, hits, wrong].into_iter().chain(unknown) {
            *sum *= by;
        }
    }

    pub fn requests(&self) -> f64 {
        self.requests
    }

    pub fn hits(&self) -> f64 {
        self.hits
    }

    /// Hits known to be wrong.
    pub fn wrong(&self) -> f64 {
        self.wrong
    }

    /// Hits of a bin of which nothing is known.
    pub fn unknown(&self, bin: Bin) -> f64 {
        self.unknown.get(bin.index()).copied().unwrap_or(0.0)
    }
}

/// Estimated wrong hits, added up bin by bin, with their variance cell by cell.
pub(super) struct Sum<'a> {
    rates: &'a Rates,
    has_spread: bool,
    wrong: f64,
    variance: f64,
    cell: usize,
    in_cell: f64,
}

impl<'a> Sum<'a> {
    /// Without spread the rates are taken at their word.
    pub(super) fn new(rates: &'a Rates, has_spread: bool) -> Self {
        Self { rates, has_spread, wrong: 0.0, variance: 0.0, cell: 0, in_cell: 0.0 }
    }

    /// Adds hits of a bin. Bins come in order, up or down.
    pub(super) fn add(&mut self, bin: Bin, hits: f64) {
        let cell = self.rates.cell(bin);
        if cell != self.cell {
            self.close();
            self.cell = cell;
        }
        self.wrong += hits * self.rates.wrong(bin);
        self.in_cell += hits * self.rates.witnessed(bin);
    }

    pub(super) fn wrong(&self) -> f64 {
        self.wrong
    }

    /// The sum and so many standard errors: what the rates may be off by, and what chance adds.
    pub(super) fn upper(&mut self, deviations: f64) -> f64 {
        self.close();
        self.wrong + deviations * (self.wrong + self.variance).sqrt()
    }

    fn close(&mut self) {
        let witnessed = std::mem::take(&mut self.in_cell);
        let spread = if self.has_spread { self.rates.spread(self.cell) } else { 0.0 };
        self.variance += witnessed * witnessed * spread;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::super::calibration::{Calibration, Point};
    use super::super::evidence::Evidence;
    use super::*;

    #[test]
    fn known_and_unknown_hits_add_up() {
        let mut ledger = Ledger::default();
        let (low, high) = (Bin::of(0.8), Bin::of(0.9));
        ledger.add_miss();
        for bin in [low, low, high] {
            ledger.add_hit(bin);
        }
        ledger.resolve(low, false);
        ledger.resolve(high, true);
        assert_eq!((ledger.requests(), ledger.hits(), ledger.wrong()), (4.0, 3.0, 1.0));
        assert_eq!((ledger.unknown(low), ledger.unknown(high)), (1.0, 0.0));
        ledger.fade(0.5);
        assert_eq!((ledger.requests(), ledger.hits(), ledger.wrong(), ledger.unknown(low)), (2.0, 1.5, 0.5, 0.5));
    }

    #[test]
    fn chance_alone_is_a_count() {
        let calibration = Calibration::new(vec![Point { score: 0.5, wrong: 0.04 }]).unwrap();
        let rates = Evidence::default().rates(&calibration, 1.0, Settings::default().pooling);
        let mut sum = Sum::new(&rates, false);
        sum.add(Bin::of(0.9), 50.0);
        sum.add(Bin::of(0.8), 50.0);
        assert!((sum.wrong() - 4.0).abs() < 1e-9);
        assert!((sum.upper(1.5) - 7.0).abs() < 1e-9);
        let mut wide = Sum::new(&rates, true);
        wide.add(Bin::of(0.9), 100.0);
        assert!(wide.upper(1.5) > 7.0);
    }
}
