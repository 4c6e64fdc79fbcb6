//! What a cache has seen of its scores: how often each is asked for, and how often a reuse would have been wrong.
//!
//! The two are kept apart because they age apart. How often a score turns up changes as the cache grows and is known
//! for every request, so it is forgotten soon. How often a score is wrong hardly changes and is known only for what was
//! labelled, so it is kept long. Labels are missing at random within a bin (whether a score is labelled depends on the
//! score alone), which is why shares are taken bin by bin and then weighed by what was asked.
//!
//! The shipped calibration gives the shape; labels correct it. From the lowest score up, bins are joined into cells of
//! enough labels, and the correction of a cell starts from that of the cell below it. There are two corrections, one
//! from the wrong reuses that were seen against those expected, one from the right ones, and the worse is believed:
//! where nothing is ever right the first alone would be slow to see it. A label that turns from right to wrong never
//! makes any score look better.

use serde::{Deserialize, Serialize};

use super::calibration::Calibration;
use super::scale::{BINS, Bin};

/// Counts by bin, old ones fading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    asked: Vec<f64>,
    asked_total: f64,
    labelled: Vec<f64>,
    wrong: Vec<f64>,
}

/// How fast counts fade: requests after which one is worth half.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HalfLives {
    pub asked: f64,
    pub labelled: f64,
}

/// How bins lend each other their labels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pooling {
    /// Labels that make a cell.
    pub cell_labels: f64,
    /// Wrong reuses that the shipped calibration must expect among a cell's labels.
    pub cell_wrong: f64,
    /// Weight of the correction below, in wrong reuses expected.
    pub prior: f64,
    /// The same in right reuses expected.
    pub prior_right: f64,
}

/// Bins being joined.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    labelled: f64,
    wrong: f64,
    wrong_expected: f64,
}

impl Cell {
    fn add(&mut self, labelled: f64, wrong: f64, shipped: f64) {
        self.labelled += labelled;
        self.wrong += wrong;
        self.wrong_expected += labelled * shipped;
    }
}

/// Chance of a wrong reuse, by bin, and how well it is known, by cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    wrong: Vec<f64>,
    /// The part of it that wrong reuses alone bear witness to.
    witnessed: Vec<f64>,
    cell: Vec<u16>,
    spread: Vec<f64>,
}

impl Default for Evidence {
    fn default() -> Self {
        Self { asked: vec![0.0; BINS], asked_total: 0.0, labelled: vec![0.0; BINS], wrong: vec![0.0; BINS] }
    }
}

impl Evidence {
    pub(super) fn is_whole(&self) -> bool {
        [&self.asked, &self.labelled, &self.wrong].iter().all(|counts| counts.len() == BINS)
    }

    /// A request whose best candidate fell into this bin, [`Bin::NONE`] if it had none.
    pub fn ask(&mut self, bin: Bin) {
        self.asked_total += 1.0;
        if let Some(count) = self.asked.get_mut(bin.index()) {
            *count += 1.0;
        }
    }

    /// A candidate whose answer was compared with a fresh one.
    pub fn label(&mut self, bin: Bin, is_right: bool) {
        if let (Some(labelled), Some(wrong)) = (self.labelled.get_mut(bin.index()), self.wrong.get_mut(bin.index())) {
            *labelled += 1.0;
            *wrong += f64::from(u8::from(!is_right));
        }
    }

    pub(super) fn forget(&mut self, bin: Bin) {
        let Self { asked, asked_total, labelled, wrong } = self;
        if let Some(count) = asked.get_mut(bin.index()) {
            *asked_total = (*asked_total - std::mem::take(count)).max(0.0);
        }
        for counts in [labelled, wrong] {
            counts.get_mut(bin.index()).into_iter().for_each(|count| *count = 0.0);
        }
    }

    /// Lets counts fade as after so many requests.
    pub fn fade(&mut self, requests: f64, half_lives: HalfLives) {
        let HalfLives { asked, labelled } = half_lives;
        let by = |half_life: f64| 0.5f64.powf(requests / half_life);
        self.scale_asked(by(asked));
        self.keep_labels(by(labelled));
    }

    /// Keeps this share of every label's weight.
    pub fn keep_labels(&mut self, share: f64) {
        for count in self.labelled.iter_mut().chain(&mut self.wrong) {
            *count *= share;
        }
    }

    fn scale_asked(&mut self, by: f64) {
        self.asked_total *= by;
        for count in &mut self.asked {
            *count *= by;
        }
    }

    /// Share of recent requests whose best candidate fell into the bin.
    pub fn density(&self, bin: Bin) -> f64 {
        match self.asked.get(bin.index()) {
            Some(count) if self.asked_total > 0.0 => count / self.asked_total,
            _ => 0.0,
        }
    }

    /// Labels remembered, each by the weight that it still has.
    pub fn labels(&self) -> f64 {
        self.labelled.iter().sum()
    }

    /// What calibration and labels say together. `tightened` multiplies the shipped chances.
    pub fn rates(&self, calibration: &Calibration, tightened: f64, pooling: Pooling) -> Rates {
        let shipped = |index: usize| (calibration.wrong(Bin::at(index)) * tightened).min(1.0);
        let Pooling { cell_labels, cell_wrong, prior, prior_right } = pooling;
        let mut rates =
            Rates { wrong: vec![0.0; BINS], witnessed: vec![0.0; BINS], cell: vec![0; BINS], spread: Vec::new() };
        let mut open = Cell::default();
        let (mut begin, mut wrong_ratio, mut right_ratio) = (0, 1.0, 1.0);
        for index in 0..BINS {
            open.add(self.labelled[index], self.wrong[index], shipped(index));
            let is_full = open.labelled >= cell_labels && open.wrong_expected >= cell_wrong;
            // What was found by its template says nothing of scores, nor they of it.
            let is_last = [Bin::TEMPLATE.index(), BINS].contains(&(index + 1));
            if !is_full && !is_last {
                continue;
            }
            let Cell { labelled, wrong, wrong_expected } = std::mem::take(&mut open);
            let known = wrong + prior * wrong_ratio;
            wrong_ratio = known / (wrong_expected + prior);
            right_ratio = (labelled - wrong + prior_right * right_ratio) / (labelled - wrong_expected + prior_right);
            let cell = rates.spread.len() as u16;
            rates.spread.push(1.0 / known.max(f64::MIN_POSITIVE));
            for member in begin..=index {
                let by_wrong = shipped(member) * wrong_ratio;
                let by_right = 1.0 - (1.0 - shipped(member)) * right_ratio;
                rates.witnessed[member] = by_wrong;
                rates.wrong[member] = by_wrong.max(by_right).clamp(0.0, 1.0);
                rates.cell[member] = cell;
            }
            begin = index + 1;
            if is_last {
                (wrong_ratio, right_ratio) = (1.0, 1.0);
            }
        }
        rates
    }
}

impl Rates {
    /// Chance that a reuse in this bin is wrong.
    pub fn wrong(&self, bin: Bin) -> f64 {
        self.wrong.get(bin.index()).copied().unwrap_or(0.0)
    }

    /// These, but nowhere lower than `other`.
    pub fn at_least(mut self, other: &Self) -> Self {
        for (wrong, other) in self.wrong.iter_mut().zip(&other.wrong) {
            *wrong = wrong.max(*other);
        }
        self
    }

    /// What the spread of the cell is relative to.
    pub fn witnessed(&self, bin: Bin) -> f64 {
        self.witnessed.get(bin.index()).copied().unwrap_or(0.0)
    }

    /// The cell of a bin.
    pub fn cell(&self, bin: Bin) -> usize {
        self.cell.get(bin.index()).copied().map_or(0, usize::from)
    }

    /// Variance of the relative error of a cell's witnessed chances.
    pub fn spread(&self, cell: usize) -> f64 {
        self.spread.get(cell).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::calibration::Point;
    use super::*;

    const POOLING: Pooling = Pooling { cell_labels: 20.0, cell_wrong: 1.0, prior: 5.0, prior_right: 5.0 };

    fn calibration() -> Calibration {
        Calibration::new(vec![Point { score: 0.5, wrong: 0.5 }, Point { score: 1.0, wrong: 0.1 }]).unwrap()
    }

    /// Chance at a score after so many labels at another, of which so many were wrong.
    fn wrong_at(score: f64, labelled_at: f64, labels: usize, wrong: usize) -> f64 {
        let mut evidence = Evidence::default();
        for number in 0..labels {
            evidence.label(Bin::of(labelled_at), number >= wrong);
        }
        evidence.rates(&calibration(), 1.0, POOLING).wrong(Bin::of(score))
    }

    #[test]
    fn labels_correct_the_calibration() {
        let check = |(score, labelled_at, labels, wrong), low: f64, high: f64| {
            let chance = wrong_at(score, labelled_at, labels, wrong);
            assert!((low..high).contains(&chance), "{score} {labelled_at} {labels} {wrong}: {chance}");
        };
        // None: what is shipped.
        check((0.7, 0.7, 0, 0), 0.32, 0.36);
        // Many: what was seen.
        check((0.7, 0.7, 10_000, 100), 0.009, 0.012);
        check((0.7, 0.7, 10_000, 9_000), 0.89, 0.91);
        // Higher scores inherit what was seen below.
        check((0.9, 0.7, 10_000, 6_000), 0.3, 0.6);
        check((0.9, 0.7, 10_000, 10_000), 0.99, 1.01);
    }

    #[test]
    fn templates_and_scores_say_nothing_of_each_other() {
        let mut evidence = Evidence::default();
        for _ in 0..1_000 {
            evidence.label(Bin::of(0.999), false);
            evidence.label(Bin::TEMPLATE, true);
        }
        let rates = evidence.rates(&calibration(), 1.0, POOLING);
        assert!(rates.wrong(Bin::of(0.999)) > 0.9 && rates.wrong(Bin::of(1.0)) > 0.9);
        assert!(rates.wrong(Bin::TEMPLATE) < 0.005);
        assert_ne!(rates.cell(Bin::of(1.0)), rates.cell(Bin::TEMPLATE));
    }

    #[test]
    fn density_is_of_recent_requests() {
        let mut evidence = Evidence::default();
        let (old, new) = (Bin::of(0.6), Bin::of(0.9));
        for _ in 0..100 {
            evidence.ask(old);
        }
        evidence.label(old, true);
        evidence.fade(100.0, HalfLives { asked: 10.0, labelled: 100.0 });
        for _ in 0..50 {
            evidence.ask(new);
            evidence.ask(Bin::NONE);
        }
        assert!(evidence.density(old) < 0.01 && (evidence.density(new) - 0.5).abs() < 0.01);
        assert!((evidence.labels() - 0.5).abs() < 1e-9);
    }
}
