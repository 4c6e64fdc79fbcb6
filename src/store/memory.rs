//! Entries in this process's memory, found by a plain scan of their partition. Nothing outlives the process.
//!
//! The store of a gateway that wants no disk, and the yardstick for the other stores: its search is exact.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;

use super::{Filter, Health, Owner, Removed, Store, StoreError, Usage, entry_bytes};
use crate::decision::{Candidate, Embedding, Entry, EntryId, Partition};

/// A store without a disk.
#[derive(Debug, Default)]
pub struct MemoryStore {
    shelves: RwLock<Shelves>,
}

#[derive(Debug, Default)]
struct Shelves {
    entries: BTreeMap<EntryId, Arc<Entry>>,
    partitions: HashMap<Partition, Vec<EntryId>>,
}

impl Shelves {
    fn insert(&mut self, entry: Entry) {
        self.take(entry.id);
        if let Some((partition, _)) = &entry.place {
            self.partitions.entry(*partition).or_default().push(entry.id);
        }
        self.entries.insert(entry.id, Arc::new(entry));
    }

    fn take(&mut self, id: EntryId) {
        let Some(old) = self.entries.remove(&id) else { return };
        let Some((partition, _)) = &old.place else { return };
        if let Some(ids) = self.partitions.get_mut(partition) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.partitions.remove(partition);
            }
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, id: EntryId) -> Result<Option<Arc<Entry>>, StoreError> {
        Ok(self.shelves.read().entries.get(&id).cloned())
    }

    async fn nearest(
        &self,
        partition: Partition,
        embedding: &Embedding,
        k: usize,
        now_ms: u64,
    ) -> Result<Vec<Candidate>, StoreError> {
        let shelves = self.shelves.read();
        let ids = shelves.partitions.get(&partition).map_or(&[][..], Vec::as_slice);
        let mut candidates: Vec<Candidate> = ids
            .iter()
            .filter_map(|id| {
                let entry = shelves.entries.get(id)?;
                let (_, own) = entry.place.as_ref()?;
                Some(Candidate { similarity: own.similarity(embedding), entry: Arc::clone(entry) })
            })
            .collect();
        candidates.sort_by(|a, b| b.similarity.get().total_cmp(&a.similarity.get()).then(a.entry.id.cmp(&b.entry.id)));
        let mut live = 0;
        candidates.retain(|candidate| {
            let wanted = live < k;
            live += usize::from(!candidate.entry.life.is_over(now_ms));
            wanted
        });
        Ok(candidates)
    }

    async fn put(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        let mut shelves = self.shelves.write();
        entries.into_iter().for_each(|entry| shelves.insert(entry));
        Ok(())
    }

    async fn replace(&self, old: &Arc<Entry>, new: Entry) -> Result<bool, StoreError> {
        let mut shelves = self.shelves.write();
        let same = shelves.entries.get(&old.id).is_some_and(|found| found == old);
        if same {
            shelves.insert(new);
        }
        Ok(same)
    }

    async fn remove(&self, filter: &Filter) -> Result<Removed, StoreError> {
        let mut shelves = self.shelves.write();
        let ids: Vec<EntryId> =
            shelves.entries.values().filter(|entry| filter.matches(entry)).map(|entry| entry.id).collect();
        let matched = ids.len() as u64;
        if filter.dry_run {
            return Ok(Removed { matched, deleted: 0 });
        }
        ids.into_iter().for_each(|id| shelves.take(id));
        Ok(Removed { matched, deleted: matched })
    }

    async fn scan(&self, owner: &Owner, cursor: Option<EntryId>, limit: usize) -> Result<Vec<Arc<Entry>>, StoreError> {
        let shelves = self.shelves.read();
        let after = cursor.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let of_owner = shelves
            .entries
            .range((after, std::ops::Bound::Unbounded))
            .map(|(_, entry)| entry)
            .filter(|entry| entry.tenant == owner.tenant && entry.cache == owner.cache);
        Ok(of_owner.take(limit).cloned().collect())
    }

    /// Nothing is ever thrown out to make room.
    fn used(&self, _: EntryId, _: u64) {}

    fn health(&self) -> Health {
        Health::default()
    }

    fn usage(&self) -> Vec<(Owner, Usage)> {
        let mut usage: HashMap<Owner, Usage> = HashMap::new();
        for entry in self.shelves.read().entries.values() {
            let of_owner = usage.entry(Owner::of(entry)).or_default();
            of_owner.entries += 1;
            of_owner.bytes += entry_bytes(entry);
        }
        usage.into_iter().collect()
    }
}
