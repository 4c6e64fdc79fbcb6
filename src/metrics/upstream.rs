//! What the upstreams do. Labels are names from the configuration, so their number is bounded.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The counters of all upstreams of one process.
#[derive(Debug, Clone)]
pub struct UpstreamMetrics {
    tries: Family<TryLabels, Counter>,
    open: Family<UpstreamLabels, Gauge>,
    waiting: Family<UpstreamLabels, Gauge>,
}

/// How many calls wait for one upstream's limit.
#[derive(Debug, Clone, Default)]
pub struct QueueLength(Gauge);

/// One that waits, until it is dropped.
pub struct Queued<'a>(&'a QueueLength);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TryLabels {
    upstream: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    upstream: String,
}

impl UpstreamMetrics {
    /// The metrics, registered under `nearhit_upstream_`.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("nearhit_upstream");
        let metrics = Self { tries: Family::default(), open: Family::default(), waiting: Family::default() };
        let Self { tries, open, waiting } = &metrics;
        registry.register(
            "tries",
            "Calls by upstream and how they ended, retries and fallbacks included",
            tries.clone(),
        );
        registry.register("open", "Whether an upstream failed so often that it is asked last: 0 or 1", open.clone());
        registry.register("waiting", "Calls that wait for an upstream's limit", waiting.clone());
        metrics
    }

    /// `result` is one of a fixed set of words.
    pub fn tried(&self, upstream: &str, result: &'static str) {
        self.tries.get_or_create(&TryLabels { upstream: upstream.to_owned(), result }).inc();
    }

    /// It is asked no more.
    pub fn is_gone(&self, upstream: &str) {
        self.open.remove(&UpstreamLabels { upstream: upstream.to_owned() });
    }

    pub fn is_open(&self, upstream: &str, is_open: bool) {
        self.open.get_or_create(&UpstreamLabels { upstream: upstream.to_owned() }).set(i64::from(is_open));
    }

    /// The length of an upstream's queue.
    pub fn queue(&self, upstream: &str) -> QueueLength {
        QueueLength(self.waiting.get_or_create(&UpstreamLabels { upstream: upstream.to_owned() }).clone())
    }
}

impl QueueLength {
    pub fn join(&self) -> Queued<'_> {
        self.0.inc();
        Queued(self)
    }

    /// How many wait now.
    pub fn read(&self) -> i64 {
        self.0.get()
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let Self(QueueLength(length)) = self;
        length.dec();
    }
}
