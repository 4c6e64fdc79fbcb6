//! Where entries are kept and found, as a seam.

#[cfg(test)]
mod conformance;
#[cfg(feature = "local")]
pub(crate) mod eviction;
#[cfg(feature = "local")]
pub mod local;
pub mod memory;
#[cfg(feature = "local")]
mod open;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;

use crate::decision::{Attributes, CacheName, Candidate, Embedding, Entry, EntryId, Partition, Source, Tenant};

#[cfg(feature = "local")]
pub use local::Durability;
#[cfg(feature = "local")]
pub use open::{StoreSettings, open, open_in_memory};

/// Keeps entries. Every call may be made concurrently with every other.
#[async_trait]
pub trait Store: Send + Sync {
    /// The entry with this id, expired or not.
    async fn get(&self, id: EntryId) -> Result<Option<Arc<Entry>>, StoreError>;

    /// The entries of `partition` nearest to `embedding`, most similar first: `k` that have not expired at `now_ms`,
    /// and perhaps expired ones among them.
    async fn nearest(
        &self,
        partition: Partition,
        embedding: &Embedding,
        k: usize,
        now_ms: u64,
    ) -> Result<Vec<Candidate>, StoreError>;

    /// Stores the entries, each replacing the one with its id. All or none; on return they can be found, and they
    /// are as durable as the store was configured to make them.
    async fn put(&self, entries: Vec<Entry>) -> Result<(), StoreError>;

    /// Stores `new` in place of `old`, which has the same id; false if the entry is not `old` any more.
    async fn replace(&self, old: &Arc<Entry>, new: Entry) -> Result<bool, StoreError>;

    /// Removes what the filter matches. On return none of it can be found.
    async fn remove(&self, filter: &Filter) -> Result<Removed, StoreError>;

    /// Up to `limit` entries in the order of their ids, after `cursor`.
    async fn scan(&self, owner: &Owner, cursor: Option<EntryId>, limit: usize) -> Result<Vec<Arc<Entry>>, StoreError>;

    /// The entry answered somebody at `now_ms`: it is worth more when room has to be made.
    fn used(&self, id: EntryId, now_ms: u64);

    /// What each cache of each tenant holds.
    fn usage(&self) -> Vec<(Owner, Usage)>;

    /// How the store is.
    fn health(&self) -> Health;
}

/// How a store is, and what befell it since it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Still reading in or repairing: not every entry is found yet.
    pub loading: bool,
    /// Everything is being copied into a new generation: one of the copies had lost something, or too much in them is
    /// dead.
    pub rewriting: bool,
    /// Why nothing can be stored, where that is so. What is there is served.
    pub failing: Option<String>,
    /// The disk has no room for more.
    pub full: bool,
    /// Acknowledged entries that could not be had from any copy; counted over all starts.
    pub lost: u64,
    /// Entries that one copy had lost and another gave back.
    pub restored: u64,
    /// Entries whose vector was lost: only their exact key finds them.
    pub lost_vectors: u64,
    /// Vectors that were given back.
    pub restored_vectors: u64,
    /// Rows, records and vectors that were not what was written.
    pub damaged: u64,
    /// Parts of the index that had to be built again.
    pub damaged_segments: u64,
    /// Vectors that wait for a graph: every search of their cache looks through them.
    pub unindexed: u64,
    /// Damaged folders that are kept for whoever wants to look.
    pub set_aside: u64,
    pub expired: u64,
    pub evicted: u64,
}

impl Health {
    /// As numbers, by name; what is or is not so is 1 or 0.
    pub fn figures(&self) -> [(&'static str, u64); 14] {
        [
            ("loading", u64::from(self.loading)),
            ("rewriting", u64::from(self.rewriting)),
            ("failing", u64::from(self.failing.is_some())),
            ("full", u64::from(self.full)),
            ("lost", self.lost),
            ("restored", self.restored),
            ("lost_vectors", self.lost_vectors),
            ("restored_vectors", self.restored_vectors),
            ("damaged", self.damaged),
            ("damaged_segments", self.damaged_segments),
            ("unindexed", self.unindexed),
            ("set_aside", self.set_aside),
            ("expired", self.expired),
            ("evicted", self.evicted),
        ]
    }
}

/// How much may be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of all caches of all tenants together.
    pub total: Limit,
    /// Of each cache of each tenant that has none of its own.
    pub each: Limit,
    /// By name, of each tenant's.
    pub caches: HashMap<CacheName, Limit>,
}

/// A limit; none where nothing is set. Bytes are uncompressed: prompts, answers and vectors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limit {
    pub entries: Option<u64>,
    pub bytes: Option<u64>,
}

impl Limits {
    /// The limit of a cache of that name.
    pub fn of(&self, cache: &CacheName) -> Limit {
        self.caches.get(cache).copied().unwrap_or(self.each)
    }

    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A wall-clock time, coarse enough for 32 bits.
#[cfg(feature = "local")]
pub(crate) fn seconds(now_ms: u64) -> u32 {
    u32::try_from(now_ms / 1000).unwrap_or(u32::MAX)
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
    /// Any of these sources.
    Sources(BTreeSet<WantedSource>),
    Writer(String),
    /// Created at or before this wall-clock time in milliseconds.
    CreatedUntil(u64),
}

/// A document in one version, or in any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedSource {
    pub id: String,
    pub version: Option<String>,
}

impl WantedSource {
    pub fn is(&self, source: &Source) -> bool {
        let Source { id, version } = source;
        self.id == *id && self.version.as_ref().is_none_or(|wanted| wanted == version)
    }
}

impl Filter {
    pub fn matches(&self, entry: &Entry) -> bool {
        let which = match &self.which {
            Which::All => true,
            Which::Id(id) => entry.id == *id,
            Which::Attributes(wanted) => wanted.iter().all(|(name, value)| entry.attributes.get(name) == Some(value)),
            Which::Tags(tags) => !tags.is_disjoint(&entry.tags),
            Which::Sources(wanted) => wanted.iter().any(|wanted| entry.sources.iter().any(|own| wanted.is(own))),
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

impl From<&std::io::Error> for StoreError {
    fn from(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge => {
                Self::Full
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// Why a store did not open.
#[cfg(feature = "local")]
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    #[error("data folder {} is in use by another process", folder.display())]
    Locked { folder: std::path::PathBuf },
    #[error("data folder {} holds format {found:?}; this version reads {known:?}", folder.display())]
    Format { folder: std::path::PathBuf, found: String, known: String },
    #[error("data folder {}: {source}", folder.display())]
    Io { folder: std::path::PathBuf, source: std::io::Error },
}
