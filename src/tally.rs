//! What each cache did since the process started.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::decision::{Reason, Tier, TokenUsage};
use crate::store::Owner;

/// Counts by cache. Only caches that exist are counted: a name that somebody merely asked for costs no memory.
#[derive(Debug, Default)]
pub(crate) struct Tallies(RwLock<HashMap<Owner, Arc<Tally>>>);

/// One cache's counts.
#[derive(Debug)]
pub(crate) struct Tally {
    hits: [AtomicU64; Tier::ALL.len()],
    misses: [AtomicU64; Reason::ALL.len()],
    inserts: AtomicU64,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
}

/// A reading of one cache's counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// By tier, those that occurred.
    pub hits: Vec<(Tier, u64)>,
    /// By reason, those that occurred.
    pub misses: Vec<(Reason, u64)>,
    pub inserts: u64,
    /// Provider tokens of the answers that hits served.
    pub saved: TokenUsage,
}

impl Tallies {
    pub(crate) fn of(&self, owner: &Owner) -> Option<Arc<Tally>> {
        self.0.read().get(owner).cloned()
    }

    pub(crate) fn create(&self, owner: &Owner) -> Arc<Tally> {
        if let Some(tally) = self.of(owner) {
            return tally;
        }
        Arc::clone(self.0.write().entry(owner.clone()).or_default())
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            hits: std::array::from_fn(|_| AtomicU64::new(0)),
            misses: std::array::from_fn(|_| AtomicU64::new(0)),
            inserts: AtomicU64::new(0),
            input_tokens: AtomicU64::new(0),
            output_tokens: AtomicU64::new(0),
        }
    }
}

impl Tally {
    pub(crate) fn hit(&self, tier: Tier, usage: TokenUsage) {
        add(&self.hits[tier as usize], 1);
        add(&self.input_tokens, usage.input);
        add(&self.output_tokens, usage.output);
    }

    pub(crate) fn miss(&self, reason: Reason) {
        add(&self.misses[reason as usize], 1);
    }

    pub(crate) fn insert(&self) {
        add(&self.inserts, 1);
    }

    pub(crate) fn read(&self) -> Counts {
        Counts {
            hits: occurred(Tier::ALL, &self.hits),
            misses: occurred(Reason::ALL, &self.misses),
            inserts: load(&self.inserts),
            saved: TokenUsage { input: load(&self.input_tokens), output: load(&self.output_tokens) },
        }
    }
}

fn occurred<W: Copy>(words: &[W], counts: &[AtomicU64]) -> Vec<(W, u64)> {
    words.iter().zip(counts).map(|(word, count)| (*word, load(count))).filter(|(_, count)| *count > 0).collect()
}

fn add(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed);
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
