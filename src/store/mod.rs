//! Where entries are kept and found, as a seam.

#[cfg(test)]
mod conformance;
#[cfg(feature = "local")]
pub mod local;
pub mod memory;
#[cfg(feature = "local")]
mod open;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use crate::decision::{Attributes, CacheName, Candidate, Embedding, Entry, EntryId, Partition, Source, Tenant};

#[cfg(feature = "local")]
pub use local::{Durability, OpenStoreError};
#[cfg(feature = "local")]
pub use open::{StoreSettings, open};

/// Keeps entries. Every call may be made concurrently with every other.
#[async_trait]
pub trait Store: Send + Sync {
    /// The entry with this id, expired or not.
    async fn get(&self, id: EntryId) -> Result<Option<Arc<Entry>>, StoreError>;

    /// The `k` entries of `partition` nearest to `embedding`, most similar first, expired ones included.
    async fn nearest(
        &self,
        partition: Partition,
        embedding: &Embedding,
        k: usize,
    ) -> Result<Vec<Candidate>, StoreError>;

    /// Stores the entries, each replacing the one with its id. All or none; on return they can be found, and they
    /// are as durable as the store was configured to make them.
    async fn put(&self, entries: Vec<Entry>) -> Result<(), StoreError>;

    /// Removes what the filter matches. On return none of it can be found.
    async fn remove(&self, filter: &Filter) -> Result<Removed, StoreError>;

    /// Up to `limit` entries in the order of their ids, after `cursor`.
    async fn scan(&self, owner: &Owner, cursor: Option<EntryId>, limit: usize) -> Result<Vec<Arc<Entry>>, StoreError>;

    /// What each cache of each tenant holds.
    fn usage(&self) -> Vec<(Owner, Usage)>;
}

/// Whose cache: nothing reaches past it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    pub tenant: Tenant,
    pub cache: CacheName,
}

impl Owner {
    pub fn of(entry: &Entry) -> Self {
        Self { tenant: entry.tenant.clone(), cache: entry.cache.clone() }
    }
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub entries: u64,
    /// Bytes of prompts, answers and vectors, uncompressed.
    pub bytes: u64,
}

/// Which entries of one cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    pub owner: Owner,
    pub which: Which,
    /// Counts without removing.
    pub dry_run: bool,
}

/// Which entries, within a cache.
#[derive(Debug, Clone, PartialEq)]
pub enum Which {
    All,
    Id(EntryId),
    /// Every given attribute is equal.
    Attributes(Attributes),
    /// Any of these tags.
    Tags(BTreeSet<String>),
    /// Any of these sources, in the given version.
    Sources(BTreeSet<Source>),
    Writer(String),
    /// Created at or before this wall-clock time in milliseconds.
    CreatedUntil(u64),
}

impl Filter {
    pub fn matches(&self, entry: &Entry) -> bool {
        let which = match &self.which {
            Which::All => true,
            Which::Id(id) => entry.id == *id,
            Which::Attributes(wanted) => wanted.iter().all(|(name, value)| entry.attributes.get(name) == Some(value)),
            Which::Tags(tags) => !tags.is_disjoint(&entry.tags),
            Which::Sources(sources) => !sources.is_disjoint(&entry.sources),
            Which::Writer(writer) => entry.writer == *writer,
            Which::CreatedUntil(ms) => entry.life.created_ms <= *ms,
        };
        which && entry.tenant == self.owner.tenant && entry.cache == self.owner.cache
    }
}

/// What a removal did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub matched: u64,
    pub deleted: u64,
}

/// Uncompressed bytes of an entry: text, origin, answer and vector.
pub(crate) fn entry_bytes(entry: &Entry) -> u64 {
    let origin = match &entry.origin {
        crate::decision::Origin::Prompt { context } => context.as_deref().map_or(0, str::len),
        crate::decision::Origin::Request { body, .. } => body.len(),
    };
    let vector = entry.place.as_ref().map_or(0, |(_, embedding)| 4 * embedding.dimensions());
    (entry.text.len() + origin + entry.answer.body.len() + vector) as u64
}

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk has no room: reads go on, writes do not.
    #[error("the disk is full")]
    Full,
    /// The store cannot be read or written now.
    #[error("the store failed: {0}")]
    Unavailable(String),
}
