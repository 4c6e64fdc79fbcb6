use super::*;

const R: Option<bool> = Some(true);
const W: Option<bool> = Some(false);

fn sweep(rows: &[(Option<f32>, Option<bool>)]) -> Sweep {
    let rows: Vec<Scored> =
        rows.iter().map(|(score, is_right)| Scored { score: *score, is_right: *is_right }).collect();
    Sweep::of(&rows)
}

/// `n` rows with scores from high to low, the numbered ones wrong.
fn ladder(n: usize, wrong: &[usize]) -> Sweep {
    let rows: Vec<_> = (0..n).map(|i| (Some(1.0 - i as f32 / n as f32), Some(!wrong.contains(&i)))).collect();
    sweep(&rows)
}

#[test]
fn exact_points() {
    fn check(sweep: &Sweep, expected: &[(f32, f64, f64)]) {
        let points: Vec<_> =
            sweep.points(true).iter().map(|p| (p.score, p.hit_rate, p.error_rate.expect("labelled"))).collect();
        assert_eq!(points, expected);
    }
    // The loosest point with no wrong hit, and with one; the order of the rows does not matter.
    let rows = [(Some(0.5), R), (Some(0.9), R), (Some(0.8), R), (Some(0.7), W), (Some(0.6), R)];
    let padded: Vec<_> = rows.into_iter().chain([(None, None); 5]).collect();
    check(&sweep(&padded), &[(0.8, 0.2, 0.0), (0.5, 0.5, 0.1)]);
    // The first is wrong: no threshold that accepts anything has no wrong hit.
    check(&sweep(&[&[(Some(0.9), W), (Some(0.8), R)][..], &[(None, R); 8][..]].concat()), &[(0.8, 0.2, 0.1)]);
    // Two wrong hits of one score: no threshold has exactly one.
    let tied =
        [&[(Some(0.9), R), (Some(0.8), W), (Some(0.8), R), (Some(0.8), W), (Some(0.7), R)][..], &[(None, R); 15][..]]
            .concat();
    check(&sweep(&tied), &[(0.9, 0.05, 0.0), (0.7, 0.25, 0.1)]);
    // No score at all.
    check(&sweep(&[(None, R), (None, W)]), &[]);
    check(&sweep(&[]), &[]);
    // An unlabelled hit is a hit and no error.
    check(&sweep(&[(Some(0.9), None), (Some(0.8), R)]), &[(0.8, 1.0, 0.0)]);
}

#[test]
fn beyond_a_tenth_points_are_even_in_hit_rate() {
    let wrong: Vec<usize> = (0..1000).filter(|i| i % 2 == 1).collect();
    let points = ladder(1000, &wrong).points(true);
    assert_eq!(points.len(), 101 + 200);
    let (fine, coarse) = points.split_at(101);
    for (k, point) in fine.iter().enumerate() {
        assert_eq!(point.error_rate, Some(k as f64 / 1000.0));
    }
    assert_eq!(fine[100].hit_rate, 0.201);
    for (i, point) in coarse.iter().enumerate() {
        let even = 0.201 + 0.799 * (i + 1) as f64 / 200.0;
        assert!((point.hit_rate - even).abs() <= 0.001, "point {i}: {} for {even}", point.hit_rate);
    }
    assert_eq!(coarse[199].hit_rate, 1.0);
    // Fewer thresholds than points: each once.
    let few = ladder(10, &[0, 1, 2, 3]).points(true);
    assert_eq!(few.iter().map(|p| p.hit_rate).collect::<Vec<_>>(), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]);
}

#[test]
fn without_labels_there_is_no_error_rate() {
    let rows: Vec<_> = (0..1000).map(|i| (Some(i as f32 / 1000.0), None)).chain([(None, None); 1000]).collect();
    let points = sweep(&rows).points(false);
    assert_eq!(points.len(), 200);
    assert!(points.iter().all(|point| point.error_rate.is_none()));
    assert_eq!((points[0].hit_rate, points[199].hit_rate), (0.0025, 0.5));
    assert_eq!(points[199].score, 0.0);
}

#[test]
fn right_hits_within_a_budget() {
    fn check(error_max: f64, expected: f64) {
        assert_eq!(ladder(100, &[10, 20, 21]).right_at(error_max), expected, "E <= {error_max}");
    }
    check(0.0, 0.10);
    check(0.01, 0.19);
    check(0.02, 0.19);
    check(0.03, 0.97);
    check(1.0, 0.97);
    assert_eq!(ladder(2, &[0]).right_at(0.01), 0.0);
}

#[test]
fn areas() {
    fn check(rows: &[(Option<f32>, Option<bool>)], expected: Option<f64>) {
        assert_eq!(sweep(rows).auc(), expected, "{rows:?}");
    }
    check(&[(Some(0.9), R), (Some(0.1), W)], Some(1.0));
    check(&[(Some(0.1), R), (Some(0.9), W)], Some(0.0));
    check(&[(Some(0.5), R), (Some(0.5), W)], Some(0.5));
    check(&[(None, R), (None, W)], Some(0.5));
    check(&[(Some(-0.9), R), (None, W)], Some(1.0));
    check(&[(None, R), (Some(0.1), W), (Some(0.2), R)], Some(0.5));
    check(&[(Some(0.9), R), (Some(0.8), W), (Some(0.8), R), (Some(0.7), W), (Some(0.6), None)], Some(0.875));
    check(&[(Some(0.9), R)], None);
    check(&[(Some(0.9), None)], None);
    check(&[], None);
}

#[test]
fn served_while_few_wrong_ones_are() {
    // 100 wrong, scores 0.00 to 0.99; right ones between them.
    let wrong = (0..100).map(|i| (Some(i as f32 / 100.0), W));
    let right = [0.995, 0.985, 0.975, 0.945, 0.5].map(|score| (Some(score), R));
    let rows: Vec<_> = wrong.chain(right).chain([(None, R), (Some(0.999), None)]).collect();
    let sweep_all = sweep(&rows);
    let check = |x: f64, expected: f64| assert_eq!(sweep_all.served_at(x), Some(expected), "at {x}");
    check(0.0, 1.0 / 6.0);
    check(0.01, 2.0 / 6.0);
    check(0.05, 4.0 / 6.0);
    check(1.0, 5.0 / 6.0);
    // A right one tied with one wrong too many is not served.
    assert_eq!(sweep(&[(Some(0.9), R), (Some(0.9), W)]).served_at(0.05), Some(0.0));
    assert_eq!(sweep(&[(Some(0.9), R)]).served_at(0.05), None);
}
