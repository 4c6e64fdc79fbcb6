//! What the operator set, as it is in force; other settings can take its place while the cache is in use.

use std::sync::Arc;

use super::{Cache, CacheSettings};
use crate::decision::{CacheName, Policy};
use crate::rules::CacheRules;

impl Cache {
    /// The settings in force.
    pub fn settings(&self) -> Arc<CacheSettings> {
        Arc::clone(&self.settings.read())
    }

    /// What the operator set for caches of this name.
    pub fn policy(&self, cache: &CacheName) -> Policy {
        let settings = self.settings.read();
        *settings.policies.get(cache).unwrap_or(&settings.policy)
    }

    pub(crate) fn rules(&self, cache: &CacheName) -> CacheRules {
        let settings = self.settings.read();
        *settings.own_rules.get(cache).unwrap_or(&settings.rules)
    }

    /// Puts other settings in force. What was learned is kept, and held to the new budgets. What the entries' vectors and
    /// the template tier's keys are made by stays as it was: of `settings`, `external_dimensions` and `templates` do not
    /// count.
    pub fn set(&self, settings: CacheSettings) {
        let before = self.settings();
        let (external_dimensions, templates) = (before.external_dimensions, before.templates.clone());
        *self.settings.write() = Arc::new(CacheSettings { external_dimensions, templates, ..settings });
        for owner in self.learning.owners() {
            // It holds the cache to the policy that it is given.
            self.learning.create(&owner, &self.policy(&owner.cache));
        }
    }
}
