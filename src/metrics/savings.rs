//! What was saved on requests. Labels are from a fixed set of words.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The counters of one process.
#[derive(Debug, Clone)]
pub struct SavingsMetrics {
    saved: Family<SavedLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SavedLabels {
    kind: &'static str,
}

impl SavingsMetrics {
    /// The metrics, registered under `nearhit_`.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("nearhit");
        let metrics = Self { saved: Family::default() };
        let Self { saved } = &metrics;
        registry.register(
            "saved",
            "Requests by what the rules for savings did to them or their answers, and system prompts that no provider's \
             cache finds again",
            saved.clone(),
        );
        metrics
    }

    /// `kind` is one of a fixed set of words.
    pub fn saved(&self, kind: &'static str) {
        self.saved.get_or_create(&SavedLabels { kind }).inc();
    }
}
