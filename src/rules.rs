//! What a cache makes of a question before it is compared with any other: does its answer depend on now or here?
//!
//! The operator's rules are here as values; what they mean is decided in `decision`.

use std::time::Duration;

use crate::cache::Cache;
use crate::decision::{Perishable, Prompt, Reason};

/// What an operator set for a cache beside its policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheRules {
    /// Questions whose answers depend on now or here.
    pub perishable: Perishable,
    /// Longest life of their answers, with [`Perishable::Ttl`].
    pub perishable_ttl: Duration,
}

impl Default for CacheRules {
    /// Five minutes: a burst of one question is served, and yesterday's forecast is not.
    fn default() -> Self {
        Self { perishable: Perishable::Ttl, perishable_ttl: Duration::from_secs(300) }
    }
}

impl Cache {
    /// Time to live of an answer to the prompt for which `asked` was asked for, if anything was.
    pub(crate) fn ttl(&self, prompt: &Prompt, asked: Option<Duration>) -> Duration {
        let ttl = asked.unwrap_or(self.settings().ttl);
        let CacheRules { perishable, perishable_ttl } = *self.rules(&prompt.scope.cache);
        let is_shorter = perishable == Perishable::Ttl && perishable_ttl < ttl;
        if is_shorter && self.is_perishable(&prompt.text) { perishable_ttl } else { ttl }
    }

    /// Why nothing is looked for by meaning, and nothing recorded, where the rules say so.
    pub(crate) fn refuses(&self, prompt: &Prompt) -> Option<Reason> {
        let refuses = self.rules(&prompt.scope.cache).perishable == Perishable::Miss;
        (refuses && self.is_perishable(&prompt.text)).then_some(Reason::Perishable)
    }

    /// Whether an answer of this age to `stored` is too old for the prompt. A question of now that was stored says by
    /// its own time to live how long its answer holds.
    pub(crate) fn is_stale(&self, prompt: &Prompt, stored: &str, age_ms: u64) -> bool {
        let CacheRules { perishable, perishable_ttl } = *self.rules(&prompt.scope.cache);
        let is_old = perishable == Perishable::Ttl && u128::from(age_ms) > perishable_ttl.as_millis();
        is_old && self.is_perishable(&prompt.text) && !self.is_perishable(stored)
    }

    fn is_perishable(&self, text: &str) -> bool {
        self.freshness().is_perishable(&self.guards().read(text))
    }
}
