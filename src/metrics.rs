//! Every metric's name, in one place. Labels are the words of [`crate::decision`], so their number is bounded.

mod config;
mod flight;
mod savings;
mod upstream;

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Unit;

use crate::decision::{Outcome, Reason, Tier};

/// Where metrics are registered, and read from.
pub use prometheus_client::registry::Registry;

pub use self::config::ConfigMetrics;
pub(crate) use self::flight::FlightMetrics;
pub use self::savings::SavingsMetrics;
pub use self::upstream::{QueueLength, UpstreamMetrics};

/// The counters of one process.
#[derive(Debug)]
pub struct Metrics {
    lookups: Family<LookupLabels, Counter>,
    lookup_seconds: Histogram,
    embed_seconds: Histogram,
    stored: Family<StoredLabels, Counter>,
    entries: Gauge,
    bytes: Gauge,
    tokens_saved: Counter,
    /// What the store says of itself, by the name of what it counts.
    store: Family<StoreLabels, Gauge>,
    /// How far the caches keep their budgets, by the name of what it counts.
    budget: Family<StoreLabels, Gauge>,
    /// Hits that were to be compared with a fresh answer.
    audits: Family<StoredLabels, Counter>,
    /// What a model said of two answers.
    judged: Family<StoredLabels, Counter>,
    flights: FlightMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LookupLabels {
    outcome: Word,
    tier: Word,
    reason: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoredLabels {
    result: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabels {
    what: Word,
}

/// A label value from a fixed vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.0.encode(encoder)
    }
}

impl Metrics {
    /// The metrics, registered under `nearhit_`.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("nearhit");
        // 10 us to 5 s, by factors of two: an exact hit and a slow embedding are told apart.
        let seconds = || Histogram::new(exponential_buckets(10e-6, 2.0, 20));
        let metrics = Self {
            lookups: Family::default(),
            lookup_seconds: seconds(),
            embed_seconds: seconds(),
            stored: Family::default(),
            entries: Gauge::default(),
            bytes: Gauge::default(),
            tokens_saved: Counter::default(),
            store: Family::default(),
            budget: Family::default(),
            audits: Family::default(),
            judged: Family::default(),
            flights: FlightMetrics::register(registry),
        };
        let Self {
            lookups,
            lookup_seconds,
            embed_seconds,
            stored,
            entries,
            bytes,
            tokens_saved,
            store,
            budget,
            audits,
            judged,
            flights: _,
        } = &metrics;
        registry.register(
            "lookups",
            "Requests by outcome, tier of a hit, and reason of a miss or bypass",
            lookups.clone(),
        );
        registry.register_with_unit("lookup", "Time from prompt to verdict", Unit::Seconds, lookup_seconds.clone());
        registry.register_with_unit(
            "embed",
            "Time a lookup waited for its embedding",
            Unit::Seconds,
            embed_seconds.clone(),
        );
        registry.register(
            "answers",
            "Fresh answers by what became of them: kept, or the rule that dropped them",
            stored.clone(),
        );
        registry.register("entries", "Entries in the store, expired ones included", entries.clone());
        registry.register_with_unit(
            "stored",
            "Prompts, answers and vectors in the store, uncompressed",
            Unit::Bytes,
            bytes.clone(),
        );
        registry.register("tokens_saved", "Provider tokens of the answers that hits served", tokens_saved.clone());
        registry.register(
            "store",
            "What befell the store: entries lost, restored, damaged, expired, evicted; full and failing are 0 or 1",
            store.clone(),
        );
        registry.register(
            "budget",
            "How the caches keep their error budgets: caches over theirs, alarms, comparisons by verdict, entries barred",
            budget.clone(),
        );
        registry.register(
            "audits",
            "Hits whose answer was to be asked for again: begun, or left out because too many were on their way",
            audits.clone(),
        );
        registry.register(
            "judged",
            "Answers that a model was to compare: same, different, or why there is no verdict",
            judged.clone(),
        );
        metrics
    }

    pub(crate) fn hit(&self, tier: Tier, took: Duration, tokens: u64) {
        self.count(Outcome::Hit, tier.as_str(), "");
        self.lookup_seconds.observe(took.as_secs_f64());
        self.tokens_saved.inc_by(tokens);
    }

    pub(crate) fn miss(&self, reason: Reason, took: Duration) {
        self.count(Outcome::Miss, "", reason.as_str());
        self.lookup_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn bypass(&self, reason: Reason) {
        self.count(Outcome::Bypass, "", reason.as_str());
    }

    pub(crate) fn embedded(&self, took: Duration) {
        self.embed_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn kept(&self) {
        self.stored.get_or_create(&StoredLabels { result: Word("kept") }).inc();
    }

    /// `rule` is one of a fixed set of words.
    pub(crate) fn dropped(&self, rule: &'static str) {
        self.stored.get_or_create(&StoredLabels { result: Word(rule) }).inc();
    }

    /// `result` is one of a fixed set of words, as in [`judged`](Self::judged).
    pub(crate) fn audited(&self, result: &'static str) {
        self.audits.get_or_create(&StoredLabels { result: Word(result) }).inc();
    }

    pub(crate) fn judged(&self, result: &'static str) {
        self.judged.get_or_create(&StoredLabels { result: Word(result) }).inc();
    }

    pub(crate) fn holds(&self, entries: u64, bytes: u64) {
        self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Figures of the store by name, from a fixed set of names.
    pub(crate) fn store_is(&self, figures: &[(&'static str, u64)]) {
        for (what, figure) in figures {
            let labels = StoreLabels { what: Word(what) };
            self.store.get_or_create(&labels).set(i64::try_from(*figure).unwrap_or(i64::MAX));
        }
    }

    /// Figures of the budgets by name, from a fixed set of names.
    pub(crate) fn budgets_are(&self, figures: &[(&'static str, u64)]) {
        for (what, figure) in figures {
            let labels = StoreLabels { what: Word(what) };
            self.budget.get_or_create(&labels).set(i64::try_from(*figure).unwrap_or(i64::MAX));
        }
    }

    /// Of calls that requests share.
    pub(crate) fn flights(&self) -> FlightMetrics {
        self.flights.clone()
    }

    pub(crate) fn shadow(&self, tier: Tier, took: Duration) {
        self.count(Outcome::Shadow, tier.as_str(), "");
        self.lookup_seconds.observe(took.as_secs_f64());
    }

    fn count(&self, outcome: Outcome, tier: &'static str, reason: &'static str) {
        let labels = LookupLabels { outcome: Word(outcome.as_str()), tier: Word(tier), reason: Word(reason) };
        self.lookups.get_or_create(&labels).inc();
    }
}
