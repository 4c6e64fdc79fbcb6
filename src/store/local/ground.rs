//! What the store is made of, as everybody but the committer sees it.
//!
//! Only the committer changes it, one group at a time. Rows, keys and vectors are the ground state; the live entries and
//! the index are derived from them at every start.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};

use super::folder::Folder;
use super::index::{Fate, Index};
use super::keys::Keys;
use super::labels;
use super::live::Live;
use super::rows::Rows;
use super::seal::Sealer;
use super::vectors::{Slot, Vectors};
use crate::decision::{Candidate, Embedding, Entry, EntryId, Partition};
use crate::store::{Filter, Health, Owner, StoreError, Which};

pub(super) struct Ground {
    pub(super) folder: Folder,
    rows: RwLock<Arc<Rows>>,
    pub(super) keys: Keys,
    pub(super) vectors: Arc<Vectors>,
    pub(super) index: Index,
    pub(super) live: Live,
    pub(super) sealer: Sealer,
    /// Answers that were read lately, with the sequence number of their rows.
    bodies: quick_cache::sync::Cache<EntryId, (u64, Arc<Entry>), ByBytes>,
    free: Mutex<Vec<Slot>>,
    /// Slots from here on were added since the store was opened.
    pub(super) first_new: usize,
    pub(super) health: Mutex<Health>,
    loaded: AtomicBool,
    loading: (Mutex<()>, Condvar),
}

/// An entry with where its rows are.
pub(super) struct Stored {
    pub(super) slot: Slot,
    pub(super) seq: u64,
    pub(super) entry: Arc<Entry>,
}

impl Ground {
    pub(super) fn new(folder: Folder, rows: Rows, keys: Keys, vectors: Arc<Vectors>, index: Index) -> Self {
        Self {
            first_new: keys.count(),
            folder,
            rows: RwLock::new(Arc::new(rows)),
            keys,
            vectors,
            index,
            live: Live::new(),
            sealer: Sealer::default(),
            bodies: quick_cache::sync::Cache::with_weighter(BODIES, BODY_BYTES, ByBytes),
            free: Mutex::default(),
            health: Mutex::default(),
            loaded: AtomicBool::new(false),
            loading: (Mutex::new(()), Condvar::new()),
        }
    }

    pub(super) fn rows(&self) -> Arc<Rows> {
        Arc::clone(&self.rows.read())
    }

    /// From now on entries are read from these rows.
    pub(super) fn switch(&self, rows: Arc<Rows>) -> Arc<Rows> {
        std::mem::replace(&mut self.rows.write(), rows)
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn log_folder(&self, generation: u32) -> PathBuf {
        self.folder.generation(generation).log()
    }

    /// Whether the live entries and the index are complete.
    pub(super) fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    pub(super) fn set_loaded(&self) {
        let _guard = self.loading.0.lock();
        self.loaded.store(true, Ordering::Release);
        self.loading.1.notify_all();
    }

    pub(super) fn wait_until_loaded(&self, patience: std::time::Duration) {
        let mut guard = self.loading.0.lock();
        let until = std::time::Instant::now() + patience;
        while !self.is_loaded() {
            if self.loading.1.wait_until(&mut guard, until).timed_out() {
                return;
            }
        }
    }

    /// The entry with this id. While the store loads, it comes straight from the rows.
    pub(super) fn entry(&self, id: EntryId) -> Result<Option<Stored>, StoreError> {
        let known = self.live.find(id);
        if known.is_none() && self.is_loaded() {
            return Ok(None);
        }
        if let Some((slot, seq)) = known
            && let Some((cached, entry)) = self.bodies.get(&id)
            && cached == seq
        {
            return Ok(Some(Stored { slot, seq, entry }));
        }
        let Some(stored) = self.read(id)? else {
            return match self.live.find(id) {
                Some(_) if self.is_loaded() => Err(self.damaged(id)),
                _ => Ok(None),
            };
        };
        if self.live.find(id).is_some_and(|(_, seq)| seq == stored.seq) {
            self.bodies.insert(id, (stored.seq, Arc::clone(&stored.entry)));
        }
        Ok(Some(stored))
    }

    /// The entry as its rows have it.
    pub(super) fn read(&self, id: EntryId) -> Result<Option<Stored>, StoreError> {
        let Some(pieces) = self.rows().pieces(id)? else { return Ok(None) };
        let (slot, seq) = (pieces[0].slot, pieces[0].seq);
        let key = self.keys.of(slot).ok_or_else(|| self.damaged(id))?;
        let (head, mut entry) = self.sealer.entry(&key, id, slot, &pieces).map_err(|_| self.damaged(id))?;
        entry.place = head.place.and_then(|(partition, dimensions)| {
            let vector = self.vectors.read(slot, id, dimensions as usize)?;
            Some((partition, Embedding::new(vector).ok()?))
        });
        Ok(Some(Stored { slot, seq, entry: Arc::new(entry) }))
    }

    /// The `k` nearest that have not expired, and the expired ones among them.
    pub(super) fn nearest(&self, partition: Partition, to: &Embedding, k: usize, now_ms: u64) -> Vec<Candidate> {
        let fate = |slot: Slot| {
            let fate = self.live.read(slot, |record| match record.place {
                Some((own, _)) if own == partition && record.life.is_over(now_ms) => Fate::Expired,
                Some((own, _)) if own == partition => Fate::Live,
                _ => Fate::Dead,
            });
            fate.unwrap_or(Fate::Dead)
        };
        let found = self.index.nearest(partition, to, k, &fate);
        let candidates = found.into_iter().filter_map(|(slot, similarity)| {
            let id = self.live.read(slot, |record| record.id)?;
            if !self.vectors.holds(slot, id, to.dimensions()) {
                self.count_damage(id, "vector");
                return None;
            }
            let stored = self.entry(id).ok()??;
            // The slot may have changed hands since the search.
            let same = stored.slot == slot && stored.entry.place.as_ref().is_some_and(|(own, _)| *own == partition);
            same.then_some(Candidate { entry: stored.entry, similarity })
        });
        candidates.collect()
    }

    /// Entries of the filter's cache that may be meant; reads none of them.
    pub(super) fn candidates(&self, filter: &Filter) -> Vec<EntryId> {
        let created = |ms: u64| match filter.which {
            Which::CreatedUntil(until) => ms <= until,
            _ => true,
        };
        let slots = self.live.slots_of(&filter.owner).into_iter();
        let meant = slots.filter_map(|slot| {
            self.live.read(slot, |record| {
                let may = created(record.life.created_ms) && labels::may_match(&filter.which, record.labels);
                may.then_some(record.id)
            })?
        });
        meant.collect()
    }

    /// Those that the filter matches. What cannot be read is not deleted by what it says.
    pub(super) fn matching(
        &self,
        filter: &Filter,
        candidates: impl IntoIterator<Item = EntryId>,
    ) -> Result<Vec<EntryId>, StoreError> {
        let mut matching = Vec::new();
        for id in candidates {
            let Some((_, record)) = self.live.record(id) else {
                if !self.is_loaded() {
                    return Err(StoreError::Unavailable("the store is still reading in".into()));
                }
                continue;
            };
            let matches = match filter.which {
                Which::All | Which::Id(_) | Which::CreatedUntil(_) => {
                    self.live.owner(record.owner).is_some_and(|owner| owner == filter.owner)
                }
                _ => self.entry(id)?.is_some_and(|stored| filter.matches(&stored.entry)),
            };
            if matches {
                matching.push(id);
            }
        }
        Ok(matching)
    }

    /// Up to `limit` ids of a cache after `cursor`, in order.
    pub(super) fn ids_after(&self, owner: &Owner, cursor: Option<EntryId>, limit: usize) -> Vec<EntryId> {
        let slots = self.live.slots_of(owner).into_iter();
        let mut ids: Vec<EntryId> = slots.filter_map(|slot| self.live.read(slot, |record| record.id)).collect();
        ids.retain(|id| cursor.is_none_or(|cursor| *id > cursor));
        if ids.len() > limit && limit > 0 {
            ids.select_nth_unstable(limit - 1);
            ids.truncate(limit);
        }
        ids.sort_unstable();
        ids
    }

    /// Takes `count` slots, each with a key that has sealed nothing yet.
    pub(super) fn take_slots(&self, count: usize) -> Result<Vec<Slot>, StoreError> {
        let mut free = self.free.lock();
        while free.len() < count {
            let first = self.keys.count();
            self.keys.extend(KEYS_AT_ONCE).map_err(|error| StoreError::from(&error))?;
            free.extend((first..first + KEYS_AT_ONCE).rev().map(|slot| slot as Slot));
        }
        let left = free.len() - count;
        Ok(free.split_off(left))
    }

    /// Slots that nothing refers to, with fresh keys.
    pub(super) fn give_slots(&self, slots: impl IntoIterator<Item = Slot>) {
        self.free.lock().extend(slots);
    }

    /// An entry's rows have changed.
    pub(super) fn forget(&self, id: EntryId) {
        self.bodies.remove(&id);
    }

    /// A row or vector is not what was written: reported, and a miss for whoever asked.
    pub(super) fn damaged(&self, id: EntryId) -> StoreError {
        self.count_damage(id, "row");
        StoreError::Unavailable(format!("entry {id} is damaged"))
    }

    fn count_damage(&self, id: EntryId, what: &'static str) {
        self.health.lock().damaged += 1;
        tracing::warn!(entry = %id, what, "met damage");
    }
}

/// Weighs an answer by its bytes.
#[derive(Clone)]
struct ByBytes;

impl quick_cache::Weighter<EntryId, (u64, Arc<Entry>)> for ByBytes {
    fn weight(&self, _: &EntryId, (_, entry): &(u64, Arc<Entry>)) -> u64 {
        crate::store::entry_bytes(entry) + 512
    }
}

/// Answers kept in memory: enough for what is asked again and again.
const BODY_BYTES: u64 = 64 << 20;

/// A hint for the number of them.
const BODIES: usize = 16_384;

/// Keys are drawn this many at a time: one write and sync for as many inserts.
const KEYS_AT_ONCE: usize = 4096;
