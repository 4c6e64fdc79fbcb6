//! Tests of the bound: simulated traffic whose truth is known, and properties.

use proptest::prelude::*;

use super::super::calibration::Point;
use super::*;

/// Traffic: even scores in [0.5, 1), wrong with a chance that falls in a straight line from `wrong` at 0.5 to 0.
struct Traffic {
    chance: fastrand::Rng,
    wrong: f64,
}

impl Traffic {
    fn new(seed: u64, wrong: f64) -> Self {
        Self { chance: fastrand::Rng::with_seed(seed), wrong }
    }

    fn request(&mut self) -> (f64, bool) {
        let score = 0.5 + 0.5 * self.chance.f64();
        (score, self.chance.f64() >= self.wrong * (1.0 - score) / 0.5)
    }

    fn draws(&mut self) -> [f64; 2] {
        [self.chance.f64(), self.chance.f64()]
    }
}

/// What a bound made of its traffic.
#[derive(Debug, Default)]
struct Served {
    hits: usize,
    wrong: usize,
}

fn run(bound: &mut Bound, traffic: &mut Traffic, requests: usize) -> Served {
    let mut served = Served::default();
    for _ in 0..requests {
        let (score, is_right) = traffic.request();
        let decision = bound.decide(Some(score), traffic.draws());
        bound.record(decision);
        served.hits += usize::from(decision.action.is_hit());
        served.wrong += usize::from(decision.action.is_hit() && !is_right);
        if bound.labels != Labels::None && decision.action != Action::Serve {
            bound.learn(decision, is_right);
        }
    }
    served
}

fn calibration(wrong: f64) -> Calibration {
    Calibration::new(vec![Point { score: 0.5, wrong }, Point { score: 1.0, wrong: 0.01 }]).unwrap()
}

fn bound(labels: Labels, max_error: f64, max_error_per_hit: f64) -> Bound {
    Bound::new(Budget { max_error, max_error_per_hit }, labels, calibration(0.6), Settings::default())
}

#[test]
fn both_budgets_hold_and_are_used() {
    let check = |labels, max_error: f64, max_error_per_hit: f64| {
        let within = (0..6).filter(|seed| {
            let mut bound = bound(labels, max_error, max_error_per_hit);
            let Served { hits, wrong } = run(&mut bound, &mut Traffic::new(*seed, 0.9), 4_000);
            assert!(wrong as f64 >= 0.2 * (max_error * 4_000.0).min(max_error_per_hit * hits as f64), "{wrong} {hits}");
            wrong as f64 <= max_error * 4_000.0 && wrong as f64 <= max_error_per_hit * hits as f64
        });
        let within = within.count();
        assert!(within >= 5, "{labels:?} {max_error} {max_error_per_hit}: {within} of 6");
    };
    check(Labels::Misses, 0.02, 1.0);
    check(Labels::Misses, 0.05, 1.0);
    check(Labels::Misses, 1.0, 0.1);
    check(Labels::Audit(0.1), 0.02, 0.1);
}

#[test]
fn the_estimate_covers_the_truth() {
    let covered = (0..12).filter(|seed| {
        let mut bound = bound(Labels::Misses, 0.03, 1.0);
        let Served { wrong, hits } = run(&mut bound, &mut Traffic::new(*seed, 0.9), 4_000);
        let report = bound.report();
        assert!(report.error <= report.error_upper && report.hits <= hits as f64);
        report.error_upper >= wrong as f64 / 4_000.0
    });
    assert!(covered.count() >= 10);
}

#[test]
fn where_nothing_is_right_nothing_is_served() {
    let mut bound = bound(Labels::Misses, 0.01, 0.05);
    let mut chance = fastrand::Rng::with_seed(1);
    let mut hits = 0;
    for _ in 0..3_000 {
        let decision = bound.decide(Some(0.5 + 0.5 * chance.f64()), [chance.f64(), chance.f64()]);
        bound.record(decision);
        bound.learn(decision, false);
        hits += usize::from(decision.action.is_hit());
    }
    assert!(hits <= 15, "{hits}");
    assert_eq!(bound.lowest(), Bin::NONE);
}

#[test]
fn without_labels_the_shipped_start_decides() {
    let mut bound = bound(Labels::None, 0.05, 1.0);
    let before = bound.lowest();
    let Served { hits, .. } = run(&mut bound, &mut Traffic::new(5, 0.6), 4_000);
    assert!(hits > 500, "{hits}");
    assert_eq!((bound.lowest(), bound.report().samples), (before, 0.0));
}

#[test]
fn complaints_beyond_the_budget_raise_the_bound_of_a_cache_without_labels() {
    let mut bound = bound(Labels::None, 0.01, 1.0);
    run(&mut bound, &mut Traffic::new(5, 0.6), 1_000);
    let before = bound.lowest();
    let hit = Decision { bin: Bin::of(0.95), action: Action::Serve };
    for _ in 0..9 {
        bound.hear(hit, false);
    }
    assert_eq!((bound.lowest(), bound.report().is_over_budget), (before, false));
    for _ in 0..9 {
        bound.hear(hit, false);
    }
    assert!(bound.lowest() > before && bound.report().is_over_budget);
    for _ in 0..90 {
        bound.hear(hit, false);
    }
    assert_eq!(bound.lowest(), Bin::NONE);
}

#[test]
fn a_turn_for_the_worse_raises_an_alarm_and_the_bound() {
    let mut bound = bound(Labels::Audit(0.2), 0.05, 1.0);
    run(&mut bound, &mut Traffic::new(1, 0.3), 6_000);
    let before = bound.lowest();
    assert_eq!(bound.report().alarms, 0);
    run(&mut bound, &mut Traffic::new(2, 2.0), 2_000);
    assert!(bound.report().alarms > 0);
    assert!(bound.lowest() > before);
}

#[test]
fn after_an_alarm_the_bound_relaxes_once_the_labels_are_within_the_budget_again() {
    let mut bound = bound(Labels::Audit(0.2), 0.05, 0.1);
    run(&mut bound, &mut Traffic::new(1, 0.3), 6_000);
    run(&mut bound, &mut Traffic::new(2, 2.0), 2_000);
    assert!(bound.tightened > 1.0);
    run(&mut bound, &mut Traffic::new(3, 2.0), 2_000);
    assert!(bound.tightened > 1.0, "nothing got better");
    let alarms = bound.report().alarms;
    run(&mut bound, &mut Traffic::new(4, 0.2), 60_000);
    assert_eq!((bound.tightened, bound.report().alarms), (1.0, alarms));
    assert!(bound.since_alarm.is_empty());
}

#[test]
fn only_labels_of_what_would_be_served_relax_the_bound() {
    let check = |labels: &[(f64, usize, bool)], is_recovered: bool| {
        let rows: Vec<(f64, bool)> = (0..4_000).map(|row| (0.5 + f64::from(row) / 8_000.0, row % 10 != 0)).collect();
        let mut bound = filled(&rows, Budget { max_error: 0.05, max_error_per_hit: 0.1 });
        let lowest = Bin::of(0.9);
        bound.tightened = TIGHTENED_ON_ALARM;
        for &(score, count, is_right) in labels {
            bound.since_alarm.extend(std::iter::repeat_n((Bin::of(score), is_right), count));
        }
        assert_eq!(bound.has_recovered(lowest), is_recovered, "{labels:?}");
    };
    check(&[], false);
    check(&[(0.95, WINDOW_MIN - 1, true)], false);
    check(&[(0.95, WINDOW_MIN, true)], true);
    check(&[(0.85, 1_000, true)], false);
    check(&[(0.95, 100, true), (0.95, 20, false)], false);
    check(&[(0.95, 400, true), (0.95, 20, false)], true);
    check(&[(0.95, 400, true), (0.85, 400, false)], true);
}

#[test]
fn what_is_found_by_its_template_is_weighed_too() {
    let served = |wrong_every: usize, wrong_from: usize| {
        let mut bound = bound(Labels::Misses, 0.05, 0.1);
        let mut chance = fastrand::Rng::with_seed(7);
        let mut hits = [0, 0];
        for request in 0..6_000 {
            let decision = bound.decide_template([chance.f64(), chance.f64()]);
            bound.record(decision);
            hits[usize::from(request >= 4_000)] += usize::from(decision.action.is_hit());
            if decision.action != Action::Serve {
                bound.learn(decision, request < wrong_from || request % wrong_every != 0);
            }
        }
        (hits, bound.report())
    };
    let ([before, after], report) = served(1_000, 0);
    assert!(before > 3_000 && after > 1_500 && report.error < 0.05, "{before} {after} {report:?}");
    let ([before, after], report) = served(2, 2_000);
    assert!(before > 1_000 && after == 0 && report.bound == 1.0, "{before} {after} {report:?}");
}

#[test]
fn without_labels_a_template_is_served_where_anything_is() {
    let is_hit = |max_error| bound(Labels::None, max_error, 1.0).decide_template([0.0, 0.0]).action.is_hit();
    assert!(is_hit(0.01) && !is_hit(0.0));
}

#[test]
fn a_complaint_is_counted_and_is_no_sample() {
    let mut bound = bound(Labels::Misses, 0.05, 1.0);
    run(&mut bound, &mut Traffic::new(1, 0.3), 2_000);
    let before = bound.report();
    let hit = Decision { bin: Bin::of(0.99), action: Action::Serve };
    bound.hear(hit, false);
    let after = bound.report();
    assert!(after.error > before.error);
    assert_eq!(after.samples, before.samples);
}

#[test]
fn it_survives_being_stored() {
    let mut bound = bound(Labels::Misses, 0.05, 1.0);
    run(&mut bound, &mut Traffic::new(1, 0.3), 500);
    let stored = serde_json::to_string(&bound).unwrap();
    let mut again: Bound = serde_json::from_str(&stored).unwrap();
    let same = |a: &Bound, b: &Bound| {
        (0..BINS).all(|bin| (a.rates.wrong(Bin::at(bin)) - b.rates.wrong(Bin::at(bin))).abs() < 1e-9)
    };
    assert!(same(&again, &bound));
    run(&mut again, &mut Traffic::new(2, 0.3), 500);
    run(&mut bound, &mut Traffic::new(2, 0.3), 500);
    assert_eq!(again.lowest(), bound.lowest());
}

/// Fills a bound with labels and requests without deciding anything.
fn filled(labels: &[(f64, bool)], budget: Budget) -> Bound {
    let mut bound = Bound::new(budget, Labels::Misses, calibration(0.6), Settings::default());
    for &(score, is_right) in labels {
        let bin = Bin::of(score);
        bound.evidence.ask(bin);
        bound.evidence.label(bin, is_right);
        bound.ledger.add_miss();
    }
    bound.settle();
    bound
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn tightening_never_adds_hits(
        rows in prop::collection::vec((0.5f64..1.0, prop::bool::weighted(0.9)), 100..300),
        (small, large) in (0.0f64..0.2, 0.0f64..0.2).prop_map(|(a, b)| (a.min(b), a.max(b))),
        (few, many) in (0.0f64..0.3, 0.0f64..0.3).prop_map(|(a, b)| (a.min(b), a.max(b))),
        score in 0.5f64..1.0,
        draw in 0.0f64..1.0,
    ) {
        let mut bound = filled(&rows, Budget { max_error: large, max_error_per_hit: many });
        let loose = bound.decide(Some(score), [draw, 0.0]).action;
        let lowest = bound.lowest();
        bound.set_terms(Budget { max_error: small, max_error_per_hit: few }, Labels::Misses);
        prop_assert!(bound.lowest() >= lowest);
        prop_assert!(loose.is_hit() || !bound.decide(Some(score), [draw, 0.0]).action.is_hit());
    }

    #[test]
    fn an_alarm_never_adds_hits(
        rows in prop::collection::vec((0.5f64..1.0, prop::bool::weighted(0.9)), 100..1_000),
        max_error in 0.0f64..0.2,
        max_error_per_hit in 0.0f64..0.3,
        tightened in 1.0f64..20.0,
        score in prop::option::of(0.5f64..1.0),
        draw in 0.0f64..1.0,
    ) {
        let mut bound = filled(&rows, Budget { max_error, max_error_per_hit });
        let decide = |bound: &Bound| match score {
            Some(score) => bound.decide(Some(score), [draw, 0.0]).action,
            None => bound.decide_template([draw, 0.0]).action,
        };
        let (loose, lowest, rates) = (decide(&bound), bound.lowest(), bound.rates.clone());
        bound.tightened = tightened;
        bound.settle();
        prop_assert!(bound.lowest() >= lowest);
        prop_assert!(loose.is_hit() || !decide(&bound).is_hit());
        for bin in (0..BINS).map(Bin::at) {
            prop_assert!(bound.rates.wrong(bin) >= rates.wrong(bin));
        }
    }

    #[test]
    fn nothing_relaxes_without_evidence(
        labels in prop::collection::vec((0.5f64..1.0, prop::bool::weighted(0.97)), 0..400),
        max_error in 0.0f64..0.2,
        max_error_per_hit in 0.0f64..0.3,
    ) {
        let rows: Vec<(f64, bool)> = (0..400).map(|row| (0.5 + f64::from(row) / 800.0, row % 20 != 0)).collect();
        let mut bound = filled(&rows, Budget { max_error, max_error_per_hit });
        bound.tightened = TIGHTENED_ON_ALARM;
        bound.settle();
        prop_assert!(bound.tightened > 1.0, "no label came since");
        bound.since_alarm = labels.iter().map(|&(score, is_right)| (Bin::of(score), is_right)).collect();
        let loosest = bound.loosest(&bound.rates_at(1.0));
        let served: Vec<bool> =
            bound.since_alarm.iter().filter(|(bin, _)| *bin >= loosest).map(|(_, is_right)| *is_right).collect();
        bound.settle();
        if bound.tightened <= 1.0 {
            let wrong = served.iter().filter(|is_right| !**is_right).count();
            prop_assert!(served.len() >= WINDOW_MIN);
            prop_assert!(wrong as f64 <= max_error_per_hit * served.len() as f64);
            prop_assert_eq!(bound.lowest(), loosest);
        }
    }

    #[test]
    fn a_label_turned_wrong_never_lowers_the_bound(
        rows in prop::collection::vec((0.5f64..1.0, prop::bool::weighted(0.9)), 100..300),
        turned in any::<prop::sample::Index>(),
        max_error in 0.0f64..0.2,
        max_error_per_hit in 0.0f64..0.3,
    ) {
        let budget = Budget { max_error, max_error_per_hit };
        let mut worse = rows.clone();
        turned.get_mut(&mut worse).1 = false;
        let (before, after) = (filled(&rows, budget), filled(&worse, budget));
        prop_assert!(after.lowest() >= before.lowest());
        for bin in (0..BINS).map(Bin::at) {
            prop_assert!(after.rates.wrong(bin) >= before.rates.wrong(bin) - 1e-12);
        }
    }
}
