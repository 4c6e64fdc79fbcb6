//! A report for a human to read.
//!
//! A few lines of the curve stand for all of it; the JSON has the rest. It computes nothing but percentages.

use std::fmt::{self, Display, Formatter};

use super::args::{Insert, Shape};
use super::curve::Point;
use super::held_out::HeldOut;
use super::report::{Chosen, KindReport, Report};

/// The report as text.
pub(super) fn of(report: &Report) -> String {
    Table(report).to_string()
}

struct Table<'a>(&'a Report);

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        head(f, self.0)?;
        quality(f, self.0)?;
        curve(f, self.0)?;
        service(f, self.0)?;
        held_out(f, self.0)?;
        kinds(f, self.0)
    }
}

fn head(f: &mut Formatter<'_>, report: &Report) -> fmt::Result {
    let Report { dataset, n, positives, negatives, config, .. } = report;
    let answerable = match config.shape {
        Shape::Stream => "of a class seen before",
        Shape::Pairs | Shape::Conversations => "labelled 1",
    };
    writeln!(f, "{dataset}: {n} rows, {positives} {answerable}, {negatives} not")?;
    let unembedded = [(config.texts_too_long, "over the window"), (config.texts_failed, "failed")];
    write!(f, "{} texts embedded by {}", config.texts, config.model)?;
    for (count, what) in unembedded.iter().filter(|(count, _)| *count > 0) {
        write!(f, ", {count} {what}")?;
    }
    let ms = |us: u64| us as f64 / 1000.0;
    writeln!(
        f,
        "\nlookup p50 {:.1} ms, p99 {:.1} ms with {} workers",
        ms(report.p50_us),
        ms(report.p99_us),
        config.workers
    )
}

fn quality(f: &mut Formatter<'_>, report: &Report) -> fmt::Result {
    if let (Some(auc), Some(served)) = (report.auc, report.served) {
        let (at_1, at_5) = (percent(served.at_1), percent(served.at_5));
        writeln!(f, "AUC {auc:.3}, served {at_1} at 1 % of the 0-labelled served, {at_5} at 5 %")?;
    }
    for (error_max, right) in report.c_at.iter().flatten() {
        writeln!(f, "C {} at E <= {error_max}", percent(*right))?;
    }
    Ok(())
}

fn curve(f: &mut Formatter<'_>, report: &Report) -> fmt::Result {
    let points: &[Point] = &report.curve;
    let stored = match (report.config.insert, report.config.shape) {
        (Insert::Representatives, Shape::Stream) => "what was not served is stored",
        _ => "every row stored",
    };
    writeln!(f, "\ncurve ({stored}, the nearest served from a score up)")?;
    if points.is_empty() {
        return writeln!(f, "no row has a candidate");
    }
    writeln!(f, "{:>12}{:>12}{:>12}", "score", "hit rate", "error rate")?;
    let step = points.len().div_ceil(CURVE_LINES).max(1);
    let is_shown = |i: usize| i.is_multiple_of(step) || i + 1 == points.len();
    for (_, point) in points.iter().enumerate().filter(|(i, _)| is_shown(*i)) {
        writeln!(f, "{:>12.4}{:>12}{:>12}", point.score, percent(point.hit_rate), rate(point.error_rate))?;
    }
    Ok(())
}

fn service(f: &mut Formatter<'_>, report: &Report) -> fmt::Result {
    writeln!(f, "\nservice (labels {})", report.config.labels)?;
    let interval = interval_head(report);
    writeln!(
        f,
        "{:>12}{:>8}{:>8}{:>8}{:>12}{:>12}{interval:>18}{:>10}{:>10}",
        "max error", "hits", "right", "wrong", "hit rate", "error rate", "explored", "audited"
    )?;
    for chosen in &report.chosen {
        chosen_line(f, chosen)?;
    }
    for order in report.orders.iter().skip(1) {
        writeln!(f, "order {}, seed {}", order.order, order.seed.unwrap_or_default())?;
        for chosen in &order.chosen {
            chosen_line(f, chosen)?;
        }
    }
    let misses: Vec<String> = report.misses.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    if misses.is_empty() { Ok(()) } else { writeln!(f, "not served: {}", misses.join(", ")) }
}

fn chosen_line(f: &mut Formatter<'_>, chosen: &Chosen) -> fmt::Result {
    let Chosen { max_error, hits, correct, wrong, hit_rate, error_rate, error_rate_interval, explored, audited } =
        chosen;
    let (error_rate, interval) = (rate(*error_rate), bounds(*error_rate_interval));
    let hit_rate = percent(*hit_rate);
    writeln!(
        f,
        "{max_error:>12}{hits:>8}{correct:>8}{wrong:>8}{hit_rate:>12}{error_rate:>12}{interval:>18}{explored:>10}{audited:>10}"
    )
}

fn held_out(f: &mut Formatter<'_>, report: &Report) -> fmt::Result {
    let (Some(lines), Some(share)) = (&report.held_out, report.config.tune_share) else { return Ok(()) };
    writeln!(f, "\nheld out (thresholds chosen on the first {}, scored on the rest)", percent(share))?;
    let interval = interval_head(report);
    writeln!(
        f,
        "{:>12}{:>10}{:>8}{:>8}{:>8}{:>8}{:>12}{interval:>18}{:>12}{interval:>18}{:>12}{interval:>18}",
        "max error", "score", "rows", "hits", "right", "wrong", "hit rate", "C", "error rate"
    )?;
    for line in lines {
        let HeldOut { max_error, score, n, hits, correct, wrong, .. } = line;
        let score = score.map_or_else(|| "-".to_owned(), |score| format!("{score:.4}"));
        write!(f, "{max_error:>12}{score:>10}{n:>8}{hits:>8}{correct:>8}{wrong:>8}")?;
        for (rate, interval) in [
            (line.hit_rate, line.hit_rate_interval),
            (line.correct_rate, line.correct_rate_interval),
            (line.error_rate, line.error_rate_interval),
        ] {
            write!(f, "{:>12}{:>18}", percent(rate), bounds(Some(interval)))?;
        }
        writeln!(f)?;
    }
    Ok(())
}

fn kinds(f: &mut Formatter<'_>, report: &Report) -> fmt::Result {
    if report.by_kind.is_empty() {
        return Ok(());
    }
    let interval = interval_head(report);
    writeln!(f, "\n{:>8}{:>8}{:>8}{:>8}{:>12}{interval:>18}  kind", "rows", "hits", "right", "wrong", "error rate")?;
    for (kind, KindReport { n, hits, correct, wrong, error_rate, error_rate_interval }) in &report.by_kind {
        let (error_rate, interval) = (rate(*error_rate), bounds(*error_rate_interval));
        writeln!(f, "{n:>8}{hits:>8}{correct:>8}{wrong:>8}{error_rate:>12}{interval:>18}  {kind}")?;
    }
    Ok(())
}

fn interval_head(report: &Report) -> String {
    format!("{:.0} % interval", 100.0 * report.confidence)
}

fn bounds(interval: Option<[f64; 2]>) -> String {
    let shown = |[lower, upper]: [f64; 2]| format!("{:.2} - {}", 100.0 * lower, percent(upper));
    interval.map_or_else(|| "-".to_owned(), shown)
}

fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), percent)
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// Lines that the curve gets, about.
const CURVE_LINES: usize = 20;
