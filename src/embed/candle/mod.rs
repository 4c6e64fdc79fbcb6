//! A BERT on this machine's processor or accelerator, through candle.
//!
//! Worker threads of its own take one text at a time: at batch size one nothing is padded, and a text costs what its own
//! length costs. What was embedded lately is not embedded again, and a model that fails is left alone for a moment.

mod bert;
mod breaker;
mod choice;
pub mod fused;
mod memo;
mod queue;
pub mod stock;
pub mod tensors;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use async_trait::async_trait;
use parking_lot::Mutex;

use self::bert::Bert;
use self::breaker::Breaker;
pub use self::choice::{Wanted, WantedEngine};
use self::memo::Memo;
use self::queue::{Outcome, Queue, TextKey, Ticket};
use super::model::{ModelError, ModelFiles};
use super::{Asker, EmbedError, Embedder};

/// How the model runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandleSettings {
    pub hardware: Hardware,
    pub wanted: Wanted,
    pub workers: usize,
    /// Texts that may wait in each of the two queues before more are refused.
    pub queue_length: usize,
    /// Bytes of vectors kept for texts that come again.
    pub memo_bytes: usize,
}

/// What the model runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardware {
    Cpu,
    /// The first CUDA device; needs the `cuda` feature.
    Cuda,
    /// The first Metal device; needs the `metal` feature.
    Metal,
}

impl Hardware {
    fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Metal => "metal",
        }
    }
}

/// A model and its workers.
pub struct CandleEmbedder {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// What callers and workers share.
struct Shared {
    bert: Bert,
    queue: Queue,
    memo: Memo,
    breaker: Mutex<Breaker>,
}

/// How a text gets its vector.
enum Way<'a> {
    Known(Outcome),
    Asked(Ticket<'a>),
}

impl CandleEmbedder {
    /// # Errors
    /// The files are no BERT that candle can load, or the hardware or engine is not there.
    pub fn start(files: &ModelFiles, settings: &CandleSettings) -> Result<Self, ModelError> {
        let CandleSettings { hardware, wanted, workers, queue_length, memo_bytes } = settings;
        let unusable = |cause: String| ModelError::Unusable { name: files.name.clone(), cause };
        let bert = Bert::load(files, *hardware, *wanted).map_err(|error| unusable(error.to_string()))?;
        let memo = Memo::new(*memo_bytes, bert.dimensions());
        let shared = Arc::new(Shared { bert, queue: Queue::new(*queue_length), memo, breaker: Mutex::default() });
        let mut embedder = Self { shared, workers: Vec::with_capacity(*workers) };
        for n in 0..*workers {
            let shared = Arc::clone(&embedder.shared);
            let worker = std::thread::Builder::new().name(format!("nearhit-embed-{n}"));
            embedder.workers.push(worker.spawn(move || work(&shared)).map_err(|error| unusable(error.to_string()))?);
        }
        Ok(embedder)
    }

    /// The longest text that has a vector, in tokens, the two special ones included.
    pub fn window(&self) -> usize {
        self.shared.bert.window()
    }
}

#[async_trait]
impl Embedder for CandleEmbedder {
    fn model(&self) -> &str {
        self.shared.bert.fingerprint()
    }

    fn engine(&self) -> &str {
        self.shared.bert.engine()
    }

    fn dimensions(&self) -> usize {
        self.shared.bert.dimensions()
    }

    async fn embed(&self, texts: &[&str], asker: Asker<'_>) -> Vec<Outcome> {
        let ways: Vec<Way<'_>> = texts.iter().map(|text| self.shared.way(text, asker)).collect();
        let mut outcomes = Vec::with_capacity(texts.len());
        for way in ways {
            outcomes.push(match way {
                Way::Known(outcome) => outcome,
                Way::Asked(ticket) => ticket.outcome().await,
            });
        }
        outcomes
    }
}

impl Drop for CandleEmbedder {
    fn drop(&mut self) {
        self.shared.queue.close();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("an embedding worker had panicked");
            }
        }
    }
}

impl Shared {
    fn way(&self, text: &str, asker: Asker<'_>) -> Way<'_> {
        let key = queue::key(asker.tenant, text);
        if let Some(embedding) = self.memo.get(&key) {
            return Way::Known(Ok(embedding));
        }
        if !self.breaker.lock().admits(Instant::now()) {
            return Way::Known(Err(resting()));
        }
        match self.queue.ask(key, text, asker.haste) {
            Ok(ticket) => Way::Asked(ticket),
            Err(error) => Way::Known(Err(error)),
        }
    }

    /// Keeps what came out, and tells whoever waits.
    fn settle(&self, key: TextKey, outcome: &Outcome) {
        match outcome {
            Ok(embedding) => {
                self.memo.keep(key, embedding);
                if self.breaker.lock().worked() {
                    tracing::info!("the embedding model works again");
                }
            }
            Err(EmbedError::Failed(error)) => {
                if self.breaker.lock().failed(key, Instant::now()) {
                    tracing::error!(error, "the embedding model fails: nothing is asked of it for a moment");
                    self.queue.refuse_all(&Err(resting()));
                }
            }
            Err(EmbedError::TooLong { .. } | EmbedError::Overloaded) => {}
        }
        self.queue.finish(&key, outcome);
    }
}

fn work(shared: &Shared) {
    // candle splits a matrix product over the rayon pool that it is called in. One thread a worker: two texts on two
    // cores beat one text on both, and workers do not wait for each other.
    let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(1).build() else {
        tracing::error!("an embedding worker could not start its thread");
        return;
    };
    let mut desk = shared.bert.desk();
    while let Some((key, text)) = shared.queue.take() {
        let embed = AssertUnwindSafe(|| match desk.is_needed() {
            true => shared.bert.embed(&mut desk, &text),
            false => pool.install(|| shared.bert.embed(&mut desk, &text)),
        });
        let outcome = catch_unwind(embed).unwrap_or_else(|_| Err(EmbedError::Failed("the model panicked".into())));
        shared.settle(key, &outcome);
    }
}

fn resting() -> EmbedError {
    EmbedError::Failed("the model failed too often; it is left alone for a moment".into())
}
