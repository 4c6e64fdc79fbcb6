//! How sure is a share that a sample shows?

/// Wilson's upper bound of a share of which `wrong` of `count` were seen, `deviations` standard errors away.
///
/// E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
pub fn wilson_upper(wrong: f64, count: f64, deviations: f64) -> f64 {
    wilson(wrong, count, deviations)
}

/// Wilson's lower bound.
pub fn wilson_lower(wrong: f64, count: f64, deviations: f64) -> f64 {
    wilson(wrong, count, -deviations)
}

fn wilson(wrong: f64, count: f64, deviations: f64) -> f64 {
    if count <= 0.0 {
        return if deviations > 0.0 { 1.0 } else { 0.0 };
    }
    let (share, squared) = (wrong / count, deviations * deviations);
    let centre = share + squared / (2.0 * count);
    let reach = deviations * (share * (1.0 - share) / count + squared / (4.0 * count * count)).max(0.0).sqrt();
    ((centre + reach) / (1.0 + squared / count)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_tables() {
        let check = |value: f64, expected: f64| assert!((value - expected).abs() < 5e-4, "{value} {expected}");
        check(wilson_upper(0.0, 10.0, 1.96), 0.2775);
        check(wilson_upper(5.0, 100.0, 1.96), 0.1118);
        check(wilson_lower(5.0, 100.0, 1.96), 0.0215);
        check(wilson_upper(0.0, 0.0, 1.96), 1.0);
        check(wilson_lower(0.0, 0.0, 1.96), 0.0);
    }
}
