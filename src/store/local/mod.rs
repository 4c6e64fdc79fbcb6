//! Entries on the local disk, found by meaning: one process, one folder, no other server.
//!
//! Rows in sled are the ground state, a log is their second copy, and everything an entry says is sealed under a key
//! of its own. The index is derived and holds nothing that the rows do not. A call that stores returns only once the
//! disk has it, unless the operator asked for less.

mod commit;
mod folder;
mod generation;
mod ground;
pub mod index;
#[expect(unsafe_code, reason = "vector instructions, each kernel with a portable twin that it agrees with")]
mod kernel;
mod keys;
mod labels;
mod limits;
mod live;
mod load;
mod log;
mod queue;
mod room;
mod rows;
mod seal;
#[cfg(test)]
mod tests;
#[expect(unsafe_code, reason = "maps files of a fixed length into memory")]
pub mod vectors;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::commit::{Committer, Settings};
use self::folder::Folder;
use self::ground::Ground;
use self::index::{Index, IndexSettings};
use self::keys::Keys;
use self::queue::{Change, Put};
use self::vectors::Vectors;
use super::{Filter, Health, Limits, OpenStoreError, Owner, Removed, Store, StoreError, Usage, Which, seconds};
use crate::clock::Clock;
use crate::decision::{Candidate, Embedding, Entry, EntryId, Partition};

pub use self::queue::Durability;

/// The durable store of one process.
pub struct LocalStore {
    ground: Arc<Ground>,
    committer: Committer,
}

impl LocalStore {
    /// Opens the folder, creating it if need be. What is in it is read in by a thread of the store's own, and damage
    /// repaired; a small store is ready on return, and of a large one the exact keys answer at once. [`Health`] says
    /// how far it is, and what was found.
    ///
    /// # Errors
    /// The folder cannot be written, another process has it open, or another version wrote it.
    pub fn open(
        path: &Path,
        durability: Durability,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenStoreError> {
        let failed = |source| OpenStoreError::Io { folder: path.to_owned(), source };
        let folder = Folder::take(path)?;
        let (keys, healed) = Keys::open(path).map_err(failed)?;
        let vectors = Arc::new(Vectors::open(&folder.vectors()).map_err(failed)?);
        let opened = load::open_rows(&folder)?;
        let (queue, requests) = queue::queue();
        let index = IndexSettings { folder: Some(folder.segments()), ..IndexSettings::default() };
        let teller = queue.clone();
        let index = Index::start(Arc::clone(&vectors), index, move |news| teller.tell(news)).map_err(failed)?;
        let ground = Arc::new(Ground::new(folder, opened.rows, keys, vectors, index));
        ground.health.lock().damaged += healed.healed + healed.lost;
        let generations = (opened.generation, opened.broken);
        let at_load = Arc::clone(&clock);
        let settings = Settings { durability, limits, clock };
        let load = move |ground: &Ground| load::load(ground, &generations, at_load.as_ref());
        let committer = Committer::start(Arc::clone(&ground), settings, (queue, requests), load).map_err(failed)?;
        ground.wait_until_loaded(SHORT);
        Ok(Self { ground, committer })
    }

    /// Whether there is an entry with this id, expired or not, as far as the store is loaded. Reads nothing from disk.
    pub fn contains(&self, id: EntryId) -> bool {
        self.ground.live.find(id).is_some()
    }
}

/// The entries of a folder that cannot be written to.
///
/// # Errors
/// It cannot be read either.
pub fn read_only(path: &Path) -> std::io::Result<Vec<Entry>> {
    load::read_only(path)
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        self.committer.stop();
    }
}

#[async_trait]
impl Store for LocalStore {
    /// Reads on the calling thread: sled answers from its page cache in microseconds, less than a hand-over costs.
    async fn get(&self, id: EntryId) -> Result<Option<Arc<Entry>>, StoreError> {
        Ok(self.ground.entry(id)?.map(|stored| stored.entry))
    }

    async fn nearest(
        &self,
        partition: Partition,
        embedding: &Embedding,
        k: usize,
        now_ms: u64,
    ) -> Result<Vec<Candidate>, StoreError> {
        if !self.ground.is_loaded() {
            return Err(StoreError::Unavailable("the store is still reading in".into()));
        }
        if self.ground.index.is_small(partition) {
            return Ok(self.ground.nearest(partition, embedding, k, now_ms));
        }
        let (ground, embedding) = (Arc::clone(&self.ground), embedding.clone());
        off_thread(move || ground.nearest(partition, &embedding, k, now_ms)).await
    }

    async fn put(&self, mut entries: Vec<Entry>) -> Result<(), StoreError> {
        let ground = Arc::clone(&self.ground);
        let changes = if entries.len() > SEALED_AT_ONCE {
            off_thread(move || seal(&ground, &mut entries)).await??
        } else {
            seal(&ground, &mut entries)?
        };
        self.committer.commit(changes).await
    }

    async fn replace(&self, old: &Arc<Entry>, new: Entry) -> Result<bool, StoreError> {
        let Some(stored) = self.ground.entry(old.id)?.filter(|stored| stored.entry == *old) else { return Ok(false) };
        let mut changes = seal(&self.ground, &mut [new])?;
        let mut own = None;
        if let Some(Change::Put(put)) = changes.first_mut() {
            put.expects = Some(stored.seq);
            own = Some(put.sealed.slot);
        }
        self.committer.commit(changes).await?;
        Ok(self.ground.live.find(old.id).map(|(slot, _)| slot) == own)
    }

    async fn remove(&self, filter: &Filter) -> Result<Removed, StoreError> {
        let matched = match filter.which {
            Which::Id(id) => self.ground.matching(filter, [id])?,
            _ => {
                let (ground, filter) = (Arc::clone(&self.ground), filter.clone());
                off_thread(move || {
                    let candidates = ground.candidates(&filter);
                    ground.matching(&filter, candidates)
                })
                .await??
            }
        };
        let count = matched.len() as u64;
        if filter.dry_run || matched.is_empty() {
            return Ok(Removed { matched: count, deleted: 0 });
        }
        // A slice at a time: readers of sled wait while a batch is applied.
        for slice in matched.chunks(REMOVED_AT_ONCE) {
            self.committer.commit(slice.iter().copied().map(Change::Remove).collect()).await?;
        }
        Ok(Removed { matched: count, deleted: count })
    }

    async fn scan(&self, owner: &Owner, cursor: Option<EntryId>, limit: usize) -> Result<Vec<Arc<Entry>>, StoreError> {
        let (ground, owner) = (Arc::clone(&self.ground), owner.clone());
        off_thread(move || {
            let entries = ground.ids_after(&owner, cursor, limit).into_iter();
            entries.filter_map(|id| ground.entry(id).transpose()).map(|stored| Ok(stored?.entry)).collect()
        })
        .await?
    }

    fn used(&self, id: EntryId, now_ms: u64) {
        self.ground.live.hit(id, seconds(now_ms));
    }

    fn usage(&self) -> Vec<(Owner, Usage)> {
        self.ground.live.usage()
    }

    fn health(&self) -> Health {
        let mut health = self.ground.health.lock().clone();
        health.unindexed = self.ground.index.unindexed();
        health.loading = !self.ground.is_loaded() && health.failing.is_none();
        health
    }
}

/// The entries, each sealed into a slot of its own.
fn seal(ground: &Ground, entries: &mut [Entry]) -> Result<Vec<Change>, StoreError> {
    let slots = ground.take_slots(entries.len())?;
    let mut changes = Vec::with_capacity(entries.len());
    for (entry, slot) in entries.iter_mut().zip(slots.iter().copied()) {
        let key = ground.keys.of(slot).ok_or_else(|| StoreError::Unavailable("a slot has no key".into()))?;
        let labels = labels::of(entry);
        let sealed = ground.sealer.seal(&key, slot, entry, labels);
        let (head, sealed) = sealed.inspect_err(|_| ground.give_slots(slots.iter().copied()))?;
        let vector = entry.place.as_ref().map(|(_, vector)| vector.as_slice().to_vec());
        changes.push(Change::Put(Box::new(Put { head, sealed, vector, expects: None })));
    }
    Ok(changes)
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Unavailable(error.to_string()))
}

/// How long opening waits for a store to be read in: some ten thousand entries.
const SHORT: Duration = Duration::from_millis(500);

/// More entries than this are sealed on another thread: one takes some 20 us.
const SEALED_AT_ONCE: usize = 8;

/// Entries that one batch removes.
const REMOVED_AT_ONCE: usize = 512;
