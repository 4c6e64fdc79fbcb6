//! The rows, and what is derived from them.
//!
//! Once the store is open only the committer changes it, one change at a time: what the index and the counts say is
//! what some committed state of the rows was.

use std::collections::HashMap;

use parking_lot::RwLock;

use super::index::Index;
use super::rows::Rows;
use crate::decision::Entry;
use crate::store::{Owner, Usage, entry_bytes};

pub(super) struct Ground {
    pub(super) rows: Rows,
    pub(super) index: Index,
    usage: RwLock<HashMap<Owner, Usage>>,
}

impl Ground {
    pub(super) fn new(rows: Rows, index: Index) -> Self {
        Self { rows, index, usage: RwLock::default() }
    }

    /// What each cache holds that holds anything.
    pub(super) fn usage(&self) -> Vec<(Owner, Usage)> {
        let usage = self.usage.read();
        usage.iter().filter(|(_, usage)| usage.entries > 0).map(|(owner, usage)| (owner.clone(), *usage)).collect()
    }

    /// Makes a committed change visible: `old` is gone, `new` is there.
    pub(super) fn publish(&self, old: Option<&Entry>, new: Option<&Entry>) {
        let mut usage = self.usage.write();
        if let Some(old) = old {
            let of_owner = usage.entry(Owner::of(old)).or_default();
            of_owner.entries = of_owner.entries.saturating_sub(1);
            of_owner.bytes = of_owner.bytes.saturating_sub(entry_bytes(old));
        }
        if let Some(new) = new {
            let of_owner = usage.entry(Owner::of(new)).or_default();
            of_owner.entries += 1;
            of_owner.bytes += entry_bytes(new);
        }
        drop(usage);
        let place = |entry: Option<&Entry>| entry.and_then(|entry| entry.place.clone().map(|place| (entry.id, place)));
        let (old, new) = (place(old), place(new));
        if old == new {
            return;
        }
        if let Some((id, (partition, _))) = old {
            self.index.remove(partition, id);
        }
        if let Some((id, (partition, embedding))) = new {
            self.index.insert(partition, id, &embedding);
        }
    }
}
