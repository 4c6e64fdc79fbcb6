//! What came of it, in the words of WIRE.md.
//!
//! E = wrong hits / rows, C = right hits / rows. Only labelled hits are right or wrong; every hit is a hit. It knows
//! no layout.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::args::{Context, EvalArgs, Insert, Labels, Shape};
use super::curve::{CONFIDENCE, Point, Scored, Sweep, interval, ratio};
use super::held_out::{self, HeldOut};
use super::memo::MemoEmbedder;
use super::replay::Decision;
use super::replayed::Replayed;
use super::rows::{Balance, Row};
use crate::decision::{Outcome, Reason};

/// Everything measured of a dataset.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    pub(super) dataset: String,
    pub(super) n: usize,
    pub(super) positives: usize,
    pub(super) negatives: usize,
    /// Area under the ROC curve; of pairs and conversations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) auc: Option<f64>,
    /// Of pairs and conversations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) served: Option<ServedAt>,
    /// C by the most E allowed; of streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) c_at: Option<BTreeMap<&'static str, f64>>,
    /// Of every interval: the chance that it holds the rate of which a sample was measured.
    pub(super) confidence: f64,
    pub(super) chosen: Vec<Chosen>,
    /// If it was asked for and anything is labelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) held_out: Option<Vec<HeldOut>>,
    pub(super) by_kind: BTreeMap<String, KindReport>,
    /// Misses and bypasses of the service by reason.
    pub(super) misses: BTreeMap<&'static str, usize>,
    /// Of a whole lookup, embedding included, in microseconds.
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    /// If more than one was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) orders: Vec<OrderReport>,
    pub(super) config: Config,
    pub(super) curve: Vec<Point>,
}

/// Share of the rows labelled 1 that is served where at most 1 % or 5 % of those labelled 0 are.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct ServedAt {
    pub(super) at_1: f64,
    pub(super) at_5: f64,
}

/// What the service did at a budget.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Chosen {
    pub(super) max_error: f64,
    pub(super) hits: usize,
    pub(super) correct: usize,
    pub(super) wrong: usize,
    pub(super) hit_rate: f64,
    /// Absent if nothing is labelled.
    pub(super) error_rate: Option<f64>,
    /// Lower and upper bound of it.
    pub(super) error_rate_interval: Option<[f64; 2]>,
    pub(super) explored: usize,
    pub(super) audited: usize,
}

/// What the service did with one kind of row.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct KindReport {
    pub(super) n: usize,
    pub(super) hits: usize,
    pub(super) correct: usize,
    pub(super) wrong: usize,
    /// Absent if nothing is labelled.
    pub(super) error_rate: Option<f64>,
    /// Lower and upper bound of it.
    pub(super) error_rate_interval: Option<[f64; 2]>,
}

/// What the service did in one order of the rows.
#[derive(Debug, Clone, Serialize)]
pub(super) struct OrderReport {
    pub(super) order: u32,
    /// Of the shuffle; null for the file's order.
    pub(super) seed: Option<u64>,
    pub(super) chosen: Vec<Chosen>,
}

/// How it was measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Config {
    pub(super) nearhit: &'static str,
    pub(super) shape: Shape,
    #[serde(skip)]
    pub(super) dataset: String,
    /// The embedder's fingerprint.
    pub(super) model: String,
    pub(super) dimensions: usize,
    /// Of wrong hits / hits.
    pub(super) max_error_per_hit: f64,
    /// Least similarity.
    pub(super) threshold: f32,
    pub(super) context: Context,
    /// Least similarity of contexts, where they are matched by meaning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) context_threshold: Option<f32>,
    pub(super) labels: Labels,
    pub(super) insert: Insert,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tune_share: Option<f64>,
    pub(super) store: &'static str,
    pub(super) orders: u32,
    pub(super) seed: u64,
    pub(super) limit: Option<usize>,
    pub(super) workers: usize,
    /// Distinct texts; how many were over the model's window, and how many it failed on.
    pub(super) texts: usize,
    pub(super) texts_too_long: usize,
    pub(super) texts_failed: usize,
}

/// What became of one row.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RowReport<'a> {
    id: &'a Value,
    /// Acceptance score of the nearest of all earlier rows, and that row's id.
    score: Option<f32>,
    candidate: Option<&'a Value>,
    chosen: Vec<RowChosen<'a>>,
}

#[derive(Debug, Clone, Serialize)]
struct RowChosen<'a> {
    max_error: f64,
    outcome: Outcome,
    reason: Option<Reason>,
    served: Option<&'a Value>,
}

impl Report {
    /// `nearest` is what the curve's replay decided, `replayed` what each threshold's own replay did where only misses
    /// were stored, `service` what the service did in the file's order.
    pub(super) fn of(
        config: Config,
        rows: &[Row],
        nearest: &[Decision],
        replayed: Option<&Replayed>,
        service: &[Decision],
        orders: Vec<OrderReport>,
    ) -> Self {
        let balance = Balance::of(rows);
        let scored = scored(rows, nearest);
        let sweep = Sweep::of(&scored);
        let is_stream = config.shape == Shape::Stream;
        let served = || Some(ServedAt { at_1: sweep.served_at(0.01)?, at_5: sweep.served_at(0.05)? });
        let right_at = |error_max| match replayed {
            Some(replayed) => replayed.right_at(error_max),
            None => sweep.right_at(error_max),
        };
        let c_at = || BUDGETS.iter().map(|(name, error_max)| (*name, right_at(*error_max))).collect();
        let chosen = orders.first().map(|order| order.chosen.clone()).unwrap_or_default();
        let held_out = |share| {
            let first = held_out::first(rows.len(), share);
            let budgets = chosen.iter().map(|chosen| chosen.max_error);
            let held_out = budgets.map(|max_error| match replayed {
                Some(replayed) => HeldOut::of_replayed(max_error, replayed, rows.len(), first),
                None => HeldOut::of(max_error, &scored, first),
            });
            held_out.collect()
        };
        let mut took: Vec<Duration> = service.iter().filter_map(|decision| decision.took).collect();
        took.sort_unstable();
        Self {
            dataset: config.dataset.clone(),
            n: rows.len(),
            positives: balance.positives,
            negatives: balance.negatives,
            auc: if is_stream { None } else { sweep.auc() },
            served: if is_stream { None } else { served() },
            c_at: (is_stream && balance.is_known()).then(c_at),
            confidence: CONFIDENCE,
            held_out: config.tune_share.filter(|_| balance.is_known()).map(held_out),
            chosen,
            by_kind: by_kind(rows, service),
            misses: misses(service),
            p50_us: percentile_us(&took, 50),
            p99_us: percentile_us(&took, 99),
            orders: if orders.len() > 1 { orders } else { Vec::new() },
            config,
            curve: replayed
                .map_or_else(|| sweep.points(balance.is_known()), |replayed| replayed.points(balance.is_known())),
        }
    }
}

impl Chosen {
    pub(super) fn of(max_error: f64, rows: &[Row], decisions: &[Decision]) -> Self {
        let mut total = KindReport::default();
        rows.iter().zip(decisions).for_each(|(row, decision)| total.count(row, rows, decision));
        let is_labelled = Balance::of(rows).is_known();
        let KindReport { n, hits, correct, wrong, error_rate, error_rate_interval } = total.with_rates(is_labelled);
        let explored = decisions.iter().filter(|decision| decision.reason == Some(Reason::Explore)).count();
        let audited = decisions.iter().filter(|decision| decision.is_audited).count();
        let hit_rate = ratio(hits, n);
        Self { max_error, hits, correct, wrong, hit_rate, error_rate, error_rate_interval, explored, audited }
    }
}

impl KindReport {
    fn count(&mut self, row: &Row, rows: &[Row], decision: &Decision) {
        self.n += 1;
        let Some(served) = decision.served else { return };
        let is_right = row.is_right(Some(&rows[served]));
        self.hits += 1;
        self.correct += usize::from(is_right == Some(true));
        self.wrong += usize::from(is_right == Some(false));
    }

    fn with_rates(self, is_labelled: bool) -> Self {
        let Self { n, wrong, .. } = self;
        let error_rate = is_labelled.then(|| ratio(wrong, n));
        Self { error_rate, error_rate_interval: is_labelled.then(|| interval(wrong, n)), ..self }
    }
}

impl Config {
    pub(super) fn of(args: &EvalArgs, workers: usize, embedder: &MemoEmbedder) -> Self {
        use crate::embed::Embedder;

        Self {
            nearhit: env!("CARGO_PKG_VERSION"),
            shape: args.shape,
            dataset: dataset(&args.file),
            model: embedder.model().to_owned(),
            dimensions: embedder.dimensions(),
            max_error_per_hit: args.max_error_per_hit,
            threshold: args.threshold,
            context: args.context,
            context_threshold: (args.context == Context::Semantic).then_some(args.context_threshold),
            labels: args.labels,
            insert: args.insert,
            tune_share: args.tune_share,
            store: "local",
            orders: args.orders,
            seed: args.seed,
            limit: args.limit,
            workers,
            texts: embedder.texts(),
            texts_too_long: embedder.too_long(),
            texts_failed: embedder.failed(),
        }
    }
}

impl<'a> RowReport<'a> {
    /// `service` is what the service did at each budget.
    pub(super) fn of<'d>(
        row: &'a Row,
        rows: &'a [Row],
        nearest: &Decision,
        service: impl Iterator<Item = (f64, &'d Decision)>,
    ) -> Self {
        let id = |decision: &Decision| decision.served.map(|number| &rows[number].id);
        let chosen = |(max_error, decision): (f64, &Decision)| {
            let Decision { outcome, reason, .. } = *decision;
            RowChosen { max_error, outcome, reason, served: id(decision) }
        };
        Self { id: &row.id, score: nearest.score, candidate: id(nearest), chosen: service.map(chosen).collect() }
    }
}

/// What a replay found for each row.
pub(super) fn scored(rows: &[Row], found: &[Decision]) -> Vec<Scored> {
    let scored = |(row, found): (&Row, &Decision)| Scored {
        score: found.score,
        is_right: row.is_right(found.served.map(|number| &rows[number])),
    };
    rows.iter().zip(found).map(scored).collect()
}

fn by_kind(rows: &[Row], decisions: &[Decision]) -> BTreeMap<String, KindReport> {
    let mut kinds: BTreeMap<String, KindReport> = BTreeMap::new();
    for (row, decision) in rows.iter().zip(decisions) {
        if let Some(kind) = &row.kind {
            kinds.entry(kind.clone()).or_default().count(row, rows, decision);
        }
    }
    let is_labelled = Balance::of(rows).is_known();
    kinds.values_mut().for_each(|kind| *kind = kind.with_rates(is_labelled));
    kinds
}

fn misses(decisions: &[Decision]) -> BTreeMap<&'static str, usize> {
    let mut misses = BTreeMap::new();
    for reason in decisions.iter().filter_map(|decision| decision.reason) {
        *misses.entry(reason.as_str()).or_default() += 1;
    }
    misses
}

/// The file's name without `.jsonl.gz` and the like.
fn dataset(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut stem = name.as_str();
    for extension in [".gz", ".zst", ".jsonl", ".json"] {
        stem = stem.strip_suffix(extension).unwrap_or(stem);
    }
    stem.to_owned()
}

/// By nearest rank, of sorted durations; 0 of none.
fn percentile_us(sorted: &[Duration], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map_or(0, |took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX))
}

/// The budgets of `c_at`, as written and as numbers.
const BUDGETS: [(&str, f64); 4] = [("0.005", 0.005), ("0.01", 0.01), ("0.02", 0.02), ("0.05", 0.05)];

#[cfg(test)]
mod tests {
    use super::super::rows::Content;
    use super::*;

    #[test]
    fn percentiles() {
        let sorted: Vec<Duration> = (1..=200).map(Duration::from_micros).collect();
        let check = |sorted: &[Duration], percent, expected| assert_eq!(percentile_us(sorted, percent), expected);
        check(&sorted, 50, 100);
        check(&sorted, 99, 198);
        check(&sorted[..1], 50, 1);
        check(&[], 99, 0);
    }

    #[test]
    fn names() {
        let check = |path: &str, expected: &str| assert_eq!(dataset(Path::new(path)), expected);
        check("/a/pairs_fow.jsonl.gz", "pairs_fow");
        check("stream.v2.jsonl.zst", "stream.v2");
        check("plain", "plain");
    }

    #[test]
    fn counts() {
        let row = |class: Option<&str>, kind: &str| Row {
            id: Value::from(kind),
            kind: Some(kind.into()),
            content: Content::Arrival { text: String::new(), context: None, class: class.map(Into::into) },
        };
        let rows = [row(Some("c"), "k"), row(Some("c"), "k"), row(Some("d"), "l"), row(None, "l")];
        let miss = Decision {
            outcome: Outcome::Miss,
            reason: Some(Reason::Empty),
            score: None,
            served: None,
            took: None,
            is_audited: false,
        };
        let hit = Decision { outcome: Outcome::Hit, reason: None, score: Some(0.9), served: Some(0), ..miss };
        let decisions = [miss, hit, hit, hit];
        let chosen = Chosen::of(0.01, &rows, &decisions);
        assert_eq!((chosen.hits, chosen.correct, chosen.wrong), (3, 1, 1));
        assert_eq!((chosen.hit_rate, chosen.error_rate), (0.75, Some(0.25)));
        let bounds = chosen.error_rate_interval.map(|bounds| bounds.map(|bound| (bound * 1000.0).round()));
        assert_eq!(bounds, Some([58.0, 644.0]));
        let kinds = by_kind(&rows, &decisions);
        let seen: Vec<_> = kinds.iter().map(|(kind, k)| (kind.as_str(), k.n, k.hits, k.correct, k.wrong)).collect();
        assert_eq!(seen, [("k", 2, 1, 1, 0), ("l", 2, 2, 0, 1)]);
        assert_eq!(kinds["l"].error_rate, Some(0.5));
        assert!(kinds["k"].error_rate_interval.is_some_and(|[lower, upper]| lower < 1e-9 && upper > 0.5));
        let unlabelled = Chosen::of(0.01, &rows[3..], &decisions[..1]);
        assert_eq!((unlabelled.error_rate, unlabelled.error_rate_interval), (None, None));
        assert_eq!(misses(&decisions), [("empty", 1)].into());
        let line =
            serde_json::to_string(&RowReport::of(&rows[2], &rows, &hit, [(0.01, &miss)].into_iter())).expect("JSON");
        let chosen = r#"[{"max_error":0.01,"outcome":"miss","reason":"empty","served":null}]"#;
        assert_eq!(line, format!(r#"{{"id":"l","score":0.9,"candidate":"k","chosen":{chosen}}}"#));
    }
}
