//! A part behind a seam whose panics, silence and nonsense end here, as errors that the path of a request knows.
//!
//! The parts take care of themselves where they can; this is for what they did not foresee.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;

use crate::cache::Parts;
use crate::decision::{Candidate, Embedding, Entry, EntryId, Partition};
use crate::embed::{Asker, EmbedError, Embedder, Haste};
use crate::store::{Filter, Health, Owner, Removed, Store, StoreError, Usage};

/// A store or an embedder that fails in known ways only.
pub struct Contained<P: ?Sized> {
    part: Arc<P>,
    patience: Patience,
}

/// How long a part may take before it counts as failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The store, to find something.
    pub read: Duration,
    /// The store, to store something.
    pub write: Duration,
    /// The embedder, for what is stored. Whoever looks something up brings a patience of its own.
    pub embed: Duration,
}

impl Default for Patience {
    /// A lookup waits for a disk that stalls, not for one that is gone; whoever stores waits for others that do.
    fn default() -> Self {
        let (read, write) = (Duration::from_secs(2), Duration::from_secs(60));
        Self { read, write, embed: write }
    }
}

impl<P: ?Sized> Contained<P> {
    pub fn new(part: Arc<P>, patience: Patience) -> Self {
        Self { part, patience }
    }
}

impl Parts {
    /// The same, none of whose failures takes a caller along.
    pub(crate) fn contained(self) -> Self {
        let Self { store, embedder, clock } = self;
        let patience = Patience::default();
        let embedder = embedder.map(|part| Arc::new(Contained::new(part, patience)) as Arc<dyn Embedder>);
        Self { store: Arc::new(Contained::new(store, patience)), embedder, clock }
    }
}

#[async_trait]
impl Embedder for Contained<dyn Embedder> {
    fn model(&self) -> &str {
        self.part.model()
    }

    fn engine(&self) -> &str {
        self.part.engine()
    }

    fn dimensions(&self) -> usize {
        self.part.dimensions()
    }

    async fn embed(&self, texts: &[&str], asker: Asker<'_>) -> Vec<Result<Embedding, EmbedError>> {
        let limit = match asker.haste {
            Haste::Lookup => None,
            Haste::Background => Some(self.patience.embed),
        };
        let failed = |why: String| vec![Err(EmbedError::Failed(why)); texts.len()];
        match contained(limit, async { self.part.embed(texts, asker).await }).await {
            Ok(results) if results.len() != texts.len() => {
                failed(format!("{} vectors for {} texts", results.len(), texts.len()))
            }
            Ok(results) => results.into_iter().map(|result| result.and_then(|vector| self.checked(vector))).collect(),
            Err(broken) => failed(broken.to_string()),
        }
    }
}

impl Contained<dyn Embedder> {
    fn checked(&self, vector: Embedding) -> Result<Embedding, EmbedError> {
        let (found, wanted) = (vector.dimensions(), self.part.dimensions());
        if found == wanted {
            return Ok(vector);
        }
        Err(EmbedError::Failed(format!("a vector of length {found}, not {wanted}")))
    }
}

#[async_trait]
impl Store for Contained<dyn Store> {
    async fn get(&self, id: EntryId) -> Result<Option<Arc<Entry>>, StoreError> {
        let found = contained(Some(self.patience.read), async { self.part.get(id).await }).await??;
        Ok(found.filter(|entry| entry.id == id))
    }

    async fn nearest(
        &self,
        partition: Partition,
        embedding: &Embedding,
        k: usize,
        now_ms: u64,
    ) -> Result<Vec<Candidate>, StoreError> {
        let search = async { self.part.nearest(partition, embedding, k, now_ms).await };
        let mut found = contained(Some(self.patience.read), search).await??;
        // What is another's is never served, wherever it came from.
        found.retain(|candidate| candidate.entry.place.as_ref().is_some_and(|(own, _)| *own == partition));
        Ok(found)
    }

    async fn put(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        contained(Some(self.patience.write), async { self.part.put(entries).await }).await?
    }

    async fn replace(&self, old: &Arc<Entry>, new: Entry) -> Result<bool, StoreError> {
        contained(Some(self.patience.write), async { self.part.replace(old, new).await }).await?
    }

    async fn remove(&self, filter: &Filter) -> Result<Removed, StoreError> {
        // As long as it takes: it may be everything.
        contained(None, async { self.part.remove(filter).await }).await?
    }

    async fn scan(&self, owner: &Owner, cursor: Option<EntryId>, limit: usize) -> Result<Vec<Arc<Entry>>, StoreError> {
        contained(None, async { self.part.scan(owner, cursor, limit).await }).await?
    }

    fn used(&self, id: EntryId, now_ms: u64) {
        calmly(|| self.part.used(id, now_ms)).unwrap_or_default();
    }

    fn usage(&self) -> Vec<(Owner, Usage)> {
        calmly(|| self.part.usage()).unwrap_or_default()
    }

    fn health(&self) -> Health {
        calmly(|| self.part.health())
            .unwrap_or_else(|broken| Health { failing: Some(broken.to_string()), ..Health::default() })
    }
}

/// What a part did instead of answering.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("it panicked")]
    Panicked,
    #[error("it said nothing for {} ms", .0.as_millis())]
    Silent(Duration),
}

impl From<Broken> for StoreError {
    fn from(broken: Broken) -> Self {
        Self::Unavailable(broken.to_string())
    }
}

/// What a part answers within the limit.
async fn contained<T>(limit: Option<Duration>, call: impl Future<Output = T>) -> Result<T, Broken> {
    let mut call = pin!(AssertUnwindSafe(call).catch_unwind());
    // Mostly it answers at once, and no timer is needed.
    let outcome = match (poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await, limit) {
        (Poll::Ready(outcome), _) => outcome,
        (Poll::Pending, None) => call.await,
        (Poll::Pending, Some(limit)) => tokio::time::timeout(limit, call).await.map_err(|_| Broken::Silent(limit))?,
    };
    outcome.map_err(|_| Broken::Panicked)
}

fn calmly<T>(call: impl FnOnce() -> T) -> Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| {
        tracing::error!("the store panicked");
        Broken::Panicked
    })
}
