//! Who has to make room for what is about to be stored.
//!
//! A cache over its limit loses its own entries; over the limit of all, whoever is worth least loses. What is being
//! stored is not looked at: a group that exceeds a limit by itself is stored, and the next one makes room again.

use std::collections::{HashMap, HashSet};

use super::live::Live;
use super::seal::Head;
use super::vectors::Slot;
use crate::decision::EntryId;
use crate::store::eviction::{Holding, SAMPLES};
use crate::store::{Limit, Limits, Owner, Usage};

impl Limits {
    /// The entries that make room for `puts`.
    pub(super) fn evict(&self, live: &Live, puts: &[(&Head, EntryId)], now_s: u32) -> HashSet<EntryId> {
        let mut victims = HashSet::new();
        if self.is_none() || puts.is_empty() {
            return victims;
        }
        let kept: HashSet<EntryId> = puts.iter().map(|(_, id)| *id).collect();
        let mut growth: HashMap<Owner, Usage> = HashMap::new();
        let mut all = live.usage_of_all();
        for (head, id) in puts {
            let old = live.record(*id).map_or((0, 0), |(_, record)| (1, record.bytes));
            let grown = growth.entry(Owner { tenant: head.tenant.clone(), cache: head.cache.clone() }).or_default();
            for usage in [grown, &mut all] {
                usage.entries = (usage.entries + 1).wrapping_sub(old.0);
                usage.bytes = usage.bytes.wrapping_add(head.bytes).wrapping_sub(old.1);
            }
        }
        for (owner, grown) in growth {
            let limit = self.of(&owner.cache);
            let held = live.usage_of(&owner);
            let mut after = Usage {
                entries: held.entries.wrapping_add(grown.entries),
                bytes: held.bytes.wrapping_add(grown.bytes),
            };
            while limit.is_exceeded(after) {
                let Some((id, bytes)) = live.least_worthy(Some(&owner), SAMPLES, &kept, &victims, now_s) else { break };
                after = Usage { entries: after.entries.saturating_sub(1), bytes: after.bytes.saturating_sub(bytes) };
                all = Usage { entries: all.entries.saturating_sub(1), bytes: all.bytes.saturating_sub(bytes) };
                victims.insert(id);
            }
        }
        while self.total.is_exceeded(all) {
            let Some((id, bytes)) = live.least_worthy(None, SAMPLES, &kept, &victims, now_s) else { break };
            all = Usage { entries: all.entries.saturating_sub(1), bytes: all.bytes.saturating_sub(bytes) };
            victims.insert(id);
        }
        victims
    }
}

impl Limit {
    fn is_exceeded(&self, usage: Usage) -> bool {
        self.entries.is_some_and(|most| usage.entries > most) || self.bytes.is_some_and(|most| usage.bytes > most)
    }
}

impl Live {
    /// One of some entries chosen by chance, of one cache or of all.
    fn least_worthy(
        &self,
        owner: Option<&Owner>,
        samples: usize,
        kept: &HashSet<EntryId>,
        gone: &HashSet<EntryId>,
        now_s: u32,
    ) -> Option<(EntryId, u64)> {
        let holding = |slot: Slot| {
            self.read(slot, |record| {
                let bytes = u32::try_from(record.bytes).unwrap_or(u32::MAX);
                ((record.id, record.bytes), Holding { heat: record.heat, saved_tokens: record.tokens, bytes })
            })
        };
        // Most of what is drawn may be kept or gone already, so there are some tries more than samples.
        let drawn = (0..TRIES * samples).filter_map(|_| self.one_of(owner, fastrand::u64(..)));
        let usable = drawn.filter_map(holding).filter(|((id, _), _)| !kept.contains(id) && !gone.contains(id));
        let samples: Vec<_> = usable.take(samples).collect();
        self.with_pace(owner, |pace| pace.victim(samples, now_s))
    }
}

/// Draws a sample.
const TRIES: usize = 4;
