//! Which configuration is in force, and what became of others.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// The counters of one process.
#[derive(Debug, Clone)]
pub struct ConfigMetrics {
    reloads: Family<ReloadLabels, Counter>,
    in_force: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    result: &'static str,
}

impl ConfigMetrics {
    /// The metrics, registered under `nearhit_config_`.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("nearhit_config");
        let metrics = Self { reloads: Family::default(), in_force: Gauge::default() };
        let Self { reloads, in_force } = &metrics;
        registry.register(
            "reloads",
            "Configurations that were read again: applied, unchanged, or refused",
            reloads.clone(),
        );
        registry.register_with_unit(
            "in_force_since",
            "When the configuration in force was put in force, since 1970",
            Unit::Seconds,
            in_force.clone(),
        );
        metrics.is_in_force();
        metrics
    }

    /// Another configuration is in force from now on.
    pub fn is_in_force(&self) {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        self.in_force.set(i64::try_from(now_s).unwrap_or(i64::MAX));
    }

    /// `result` is one of a fixed set of words.
    pub fn reloaded(&self, result: &'static str) {
        self.reloads.get_or_create(&ReloadLabels { result }).inc();
    }
}
