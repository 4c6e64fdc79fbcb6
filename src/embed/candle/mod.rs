//! A BERT on this machine's processor or accelerator, through candle.
//!
//! Worker threads of its own take texts from one bounded queue, one text at a time: at batch size one nothing is
//! padded, and a text costs what its own length costs. A text whose caller has gone is skipped.

mod bert;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::bert::Bert;
use super::model::{ModelError, ModelFiles};
use super::{EmbedError, Embedder};
use crate::decision::Embedding;

/// How the model runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandleSettings {
    pub hardware: Hardware,
    pub workers: usize,
    pub queue_length: usize,
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

/// A model, its workers and their queue.
pub struct CandleEmbedder {
    bert: Arc<Bert>,
    queue: Option<SyncSender<Job>>,
    workers: Vec<JoinHandle<()>>,
}

struct Job {
    text: String,
    done: oneshot::Sender<Result<Embedding, EmbedError>>,
}

impl CandleEmbedder {
    /// # Errors
    /// The files are no BERT that candle can load, or the hardware is not there.
    pub fn start(files: &ModelFiles, settings: &CandleSettings) -> Result<Self, ModelError> {
        let unusable = |cause: String| ModelError::Unusable { name: files.name.clone(), cause };
        let bert = Arc::new(Bert::load(files, settings.hardware).map_err(|error| unusable(error.to_string()))?);
        let (queue, jobs) = sync_channel(settings.queue_length);
        let jobs = Arc::new(Mutex::new(jobs));
        let workers = (0..settings.workers)
            .map(|n| {
                let (bert, jobs) = (Arc::clone(&bert), Arc::clone(&jobs));
                std::thread::Builder::new().name(format!("nearhit-embed-{n}")).spawn(move || work(&bert, &jobs))
            })
            .collect::<Result<_, _>>()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { bert, queue: Some(queue), workers })
    }

    /// The longest text that has a vector, in tokens, the two special ones included.
    pub fn window(&self) -> usize {
        self.bert.window()
    }

    fn enqueue(&self, text: &str) -> Result<oneshot::Receiver<Result<Embedding, EmbedError>>, EmbedError> {
        let (done, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        match queue.try_send(Job { text: text.to_owned(), done }) {
            Ok(()) => Ok(answer),
            Err(TrySendError::Full(_)) => Err(EmbedError::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(stopped()),
        }
    }
}

#[async_trait]
impl Embedder for CandleEmbedder {
    fn model(&self) -> &str {
        self.bert.fingerprint()
    }

    fn dimensions(&self) -> usize {
        self.bert.dimensions()
    }

    async fn embed(&self, texts: &[&str]) -> Vec<Result<Embedding, EmbedError>> {
        let waiting: Vec<_> = texts.iter().map(|text| self.enqueue(text)).collect();
        let mut results = Vec::with_capacity(texts.len());
        for answer in waiting {
            results.push(match answer {
                Ok(answer) => answer.await.unwrap_or_else(|_| Err(stopped())),
                Err(error) => Err(error),
            });
        }
        results
    }
}

impl Drop for CandleEmbedder {
    fn drop(&mut self) {
        drop(self.queue.take());
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("an embedding worker had panicked");
            }
        }
    }
}

fn work(bert: &Bert, jobs: &Mutex<Receiver<Job>>) {
    // candle splits a matrix product over the rayon pool that it is called in. One thread a worker: two texts on two
    // cores beat one text on both, and workers do not wait for each other.
    let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(1).build() else {
        tracing::error!("an embedding worker could not start its thread");
        return;
    };
    loop {
        let job = jobs.lock().recv();
        let Ok(Job { text, done }) = job else { return };
        if done.is_closed() {
            continue;
        }
        let result = catch_unwind(AssertUnwindSafe(|| pool.install(|| bert.embed(&text))))
            .unwrap_or_else(|_| Err(EmbedError::Failed("the model panicked".into())));
        // The caller may have gone while the model ran.
        drop(done.send(result));
    }
}

fn stopped() -> EmbedError {
    EmbedError::Failed("the embedder has stopped".into())
}
