//! What requests share at the moment.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// The gauges of the calls that requests share.
#[derive(Debug, Clone, Default)]
pub(crate) struct FlightMetrics {
    calls: Gauge,
    readers: Gauge,
    bytes: Gauge,
}

impl FlightMetrics {
    /// The metrics, registered under `nearhit_shared_` in a registry of `nearhit`'s.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("shared");
        let metrics = Self::default();
        let Self { calls, readers, bytes } = &metrics;
        registry.register(
            "calls",
            "Calls upstream that identical requests would share, until their answers are stored",
            calls.clone(),
        );
        registry.register(
            "readers",
            "Requests that read the answer of such a call, its first one included",
            readers.clone(),
        );
        registry.register_with_unit("held", "Answers of such calls in memory", Unit::Bytes, bytes.clone());
        metrics
    }

    pub(crate) fn took_off(&self) {
        self.calls.inc();
    }

    pub(crate) fn landed(&self) {
        self.calls.dec();
    }

    pub(crate) fn began_to_read(&self) {
        self.readers.inc();
    }

    pub(crate) fn ceased_to_read(&self) {
        self.readers.dec();
    }

    pub(crate) fn holds_more(&self, bytes: usize) {
        self.bytes.inc_by(whole(bytes));
    }

    pub(crate) fn holds_less(&self, bytes: usize) {
        self.bytes.dec_by(whole(bytes));
    }

    /// Calls, readers and bytes.
    #[cfg(test)]
    pub(crate) fn read(&self) -> (i64, i64, i64) {
        (self.calls.get(), self.readers.get(), self.bytes.get())
    }
}

fn whole(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
