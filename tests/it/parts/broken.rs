//! An embedder and a store that work, but for the calls that fail in a chosen way, drawn with a seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use nearhit::decision::{Candidate, Embedding, Entry, EntryId, Partition};
use nearhit::embed::{Asker, EmbedError, Embedder};
use nearhit::store::memory::MemoryStore;
use nearhit::store::{Filter, Health, Owner, Removed, Store, StoreError, Usage};
use parking_lot::Mutex;

/// Draws which calls fail.
pub struct Dice {
    percent: AtomicU32,
    random: Mutex<fastrand::Rng>,
}

impl Dice {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { percent: AtomicU32::new(0), random: Mutex::new(fastrand::Rng::with_seed(seed)) })
    }

    /// From now on so many calls of a hundred fail.
    pub fn set(&self, percent: u32) {
        self.percent.store(percent, Ordering::SeqCst);
    }

    fn fails(&self) -> bool {
        self.random.lock().u32(0..100) < self.percent.load(Ordering::SeqCst)
    }
}

/// What an embedder does instead of embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    Error,
    /// A vector that no model should give, as the real embedder refuses it.
    NotANumber,
    Infinite,
    Zero,
    WrongLength,
    /// Nothing for a text.
    Nothing,
    Panic,
    Hang,
    Slow,
}

/// Words by their hashes: texts of other words are far apart.
pub struct BrokenEmbedder {
    pub dice: Arc<Dice>,
    pub lapse: Lapse,
}

#[async_trait]
impl Embedder for BrokenEmbedder {
    fn model(&self) -> &str {
        "words by their hashes"
    }

    fn engine(&self) -> &str {
        "none"
    }

    fn dimensions(&self) -> usize {
        DIMENSIONS
    }

    async fn embed(&self, texts: &[&str], _: Asker<'_>) -> Vec<Result<Embedding, EmbedError>> {
        if !self.dice.fails() {
            return texts.iter().map(|text| vector(of_words(text))).collect();
        }
        let all = |values: Vec<f32>| texts.iter().map(|_| vector(values.clone())).collect();
        match self.lapse {
            Lapse::Error => texts.iter().map(|_| Err(EmbedError::Failed("on purpose".into()))).collect(),
            Lapse::NotANumber => all(vec![f32::NAN; DIMENSIONS]),
            Lapse::Infinite => all(vec![f32::INFINITY; DIMENSIONS]),
            Lapse::Zero => all(vec![0.0; DIMENSIONS]),
            Lapse::WrongLength => all(vec![1.0; DIMENSIONS / 2]),
            Lapse::Nothing => Vec::new(),
            Lapse::Panic => panic!("on purpose"),
            Lapse::Hang => std::future::pending().await,
            Lapse::Slow => {
                tokio::time::sleep(Duration::from_millis(80)).await;
                texts.iter().map(|text| vector(of_words(text))).collect()
            }
        }
    }
}

fn of_words(text: &str) -> Vec<f32> {
    let mut values = vec![0.0; DIMENSIONS];
    for word in text.split_whitespace() {
        for (place, byte) in blake3::hash(word.as_bytes()).as_bytes().iter().enumerate() {
            values[place] += f32::from(*byte) - 127.5;
        }
    }
    values
}

fn vector(values: Vec<f32>) -> Result<Embedding, EmbedError> {
    Embedding::new(values).map_err(|error| EmbedError::Failed(error.to_string()))
}

pub const DIMENSIONS: usize = 32;

/// What a store does instead of what it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Read,
    Write,
    Full,
    Panic,
    Hang,
    /// Gives entries that nobody asked for.
    Mixup,
}

pub struct BrokenStore {
    pub inner: MemoryStore,
    pub dice: Arc<Dice>,
    pub failure: Failure,
    /// Given in place of others.
    pub last: Mutex<Option<Arc<Entry>>>,
}

impl BrokenStore {
    pub fn new(dice: &Arc<Dice>, failure: Failure) -> Self {
        Self { inner: MemoryStore::default(), dice: Arc::clone(dice), failure, last: Mutex::default() }
    }

    async fn fail(&self, is_read: bool) -> Result<(), StoreError> {
        let is_its_turn = match self.failure {
            Failure::Read => is_read,
            Failure::Write | Failure::Full => !is_read,
            Failure::Panic | Failure::Hang => true,
            Failure::Mixup => false,
        };
        if !is_its_turn || !self.dice.fails() {
            return Ok(());
        }
        match self.failure {
            Failure::Full => Err(StoreError::Full),
            Failure::Panic => panic!("on purpose"),
            Failure::Hang => std::future::pending().await,
            _ => Err(StoreError::Unavailable("on purpose".into())),
        }
    }

    fn mixes_up(&self) -> bool {
        self.failure == Failure::Mixup && self.dice.fails()
    }
}

#[async_trait]
impl Store for BrokenStore {
    async fn get(&self, id: EntryId) -> Result<Option<Arc<Entry>>, StoreError> {
        self.fail(true).await?;
        if self.mixes_up() {
            return Ok(self.last.lock().clone());
        }
        let found = self.inner.get(id).await?;
        if found.is_some() {
            self.last.lock().clone_from(&found);
        }
        Ok(found)
    }

    async fn nearest(
        &self,
        partition: Partition,
        embedding: &Embedding,
        k: usize,
        now_ms: u64,
    ) -> Result<Vec<Candidate>, StoreError> {
        self.fail(true).await?;
        self.inner.nearest(partition, embedding, k, now_ms).await
    }

    async fn put(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        self.fail(false).await?;
        self.inner.put(entries).await
    }

    async fn replace(&self, old: &Arc<Entry>, new: Entry) -> Result<bool, StoreError> {
        self.fail(false).await?;
        self.inner.replace(old, new).await
    }

    async fn remove(&self, filter: &Filter) -> Result<Removed, StoreError> {
        self.fail(false).await?;
        self.inner.remove(filter).await
    }

    async fn scan(&self, owner: &Owner, cursor: Option<EntryId>, limit: usize) -> Result<Vec<Arc<Entry>>, StoreError> {
        self.fail(true).await?;
        self.inner.scan(owner, cursor, limit).await
    }

    fn used(&self, id: EntryId, now_ms: u64) {
        assert!(self.failure != Failure::Panic || !self.dice.fails(), "on purpose");
        self.inner.used(id, now_ms);
    }

    fn usage(&self) -> Vec<(Owner, Usage)> {
        self.inner.usage()
    }

    fn health(&self) -> Health {
        self.inner.health()
    }
}
