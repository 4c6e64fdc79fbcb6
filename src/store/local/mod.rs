//! Entries in sled, found by hnsw_rs: one process, one folder, no other server.
//!
//! sled holds the ground state; the index is derived from it at every start and holds nothing that sled does not.
//! A call that stores returns only once its rows are as durable as the store was asked to make them.

mod commit;
mod graph;
mod ground;
mod index;
mod rows;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use self::commit::{Change, Committer};
use self::ground::Ground;
use self::index::Index;
use self::rows::Rows;
use super::{Filter, Owner, Removed, Store, StoreError, Usage, Which};
use crate::decision::{Candidate, Embedding, Entry, EntryId, Partition};

pub use self::commit::Durability;
pub use self::rows::OpenStoreError;

/// The durable store of one process.
pub struct LocalStore {
    ground: Arc<Ground>,
    committer: Committer,
}

impl LocalStore {
    /// Opens the folder, creating it if need be, and reads every entry's place into the index.
    ///
    /// # Errors
    /// The folder cannot be created, another process has it open, it was written in another format, or it is damaged.
    pub fn open(folder: &Path, durability: Durability) -> Result<Self, OpenStoreError> {
        let failed = |source| OpenStoreError::Io { folder: folder.to_owned(), source };
        let rows = Rows::open(folder)?;
        let index = Index::start().map_err(failed)?;
        let ground = Arc::new(Ground::new(rows, index));
        let (mut entries, mut damaged) = (0u64, 0u64);
        for entry in ground.rows.entries() {
            match entry {
                Ok(entry) => {
                    entries += 1;
                    ground.publish(None, Some(&entry));
                }
                Err(error) => {
                    damaged += 1;
                    tracing::warn!(%error, "skipped a row that could not be read");
                }
            }
        }
        tracing::info!(entries, damaged, "opened the store");
        let committer = Committer::start(Arc::clone(&ground), durability).map_err(failed)?;
        Ok(Self { ground, committer })
    }
}

#[async_trait]
impl Store for LocalStore {
    /// Reads on the calling thread: sled answers from its page cache in microseconds, less than a hand-over costs.
    async fn get(&self, id: EntryId) -> Result<Option<Arc<Entry>>, StoreError> {
        Ok(self.ground.rows.get(id)?.map(Arc::new))
    }

    async fn nearest(
        &self,
        partition: Partition,
        embedding: &Embedding,
        k: usize,
    ) -> Result<Vec<Candidate>, StoreError> {
        let found = if self.ground.index.answers_at_once(partition) {
            self.ground.index.nearest(partition, embedding, k)
        } else {
            let (ground, embedding) = (Arc::clone(&self.ground), embedding.clone());
            off_thread(move || ground.index.nearest(partition, &embedding, k)).await?
        };
        let mut candidates = Vec::with_capacity(found.len());
        for (id, similarity) in found {
            if let Some(entry) = self.ground.rows.get(id)? {
                candidates.push(Candidate { entry: Arc::new(entry), similarity });
            }
        }
        Ok(candidates)
    }

    async fn put(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        let changes = entries.into_iter().map(Change::put).collect::<Result<_, _>>()?;
        self.committer.commit(changes).await
    }

    async fn remove(&self, filter: &Filter) -> Result<Removed, StoreError> {
        let matched = matching(&self.ground, filter).await?;
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
            let entries = ground.rows.entries_after(cursor).filter_map(Result::ok);
            entries.filter(|entry| Owner::of(entry) == owner).take(limit).map(Arc::new).collect()
        })
        .await
    }

    fn usage(&self) -> Vec<(Owner, Usage)> {
        self.ground.usage()
    }
}

/// Ids of the matching entries. By id this reads one row; otherwise it reads every row.
async fn matching(ground: &Arc<Ground>, filter: &Filter) -> Result<Vec<EntryId>, StoreError> {
    if let Which::Id(id) = filter.which {
        return Ok(ground
            .rows
            .get(id)?
            .filter(|entry| filter.matches(entry))
            .map(|entry| entry.id)
            .into_iter()
            .collect());
    }
    let (ground, filter) = (Arc::clone(ground), filter.clone());
    off_thread(move || {
        let entries = ground.rows.entries().filter_map(Result::ok);
        entries.filter(|entry| filter.matches(entry)).map(|entry| entry.id).collect()
    })
    .await
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Unavailable(error.to_string()))
}

/// Entries that one batch removes.
const REMOVED_AT_ONCE: usize = 512;
