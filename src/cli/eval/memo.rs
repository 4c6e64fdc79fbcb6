//! One embedding pass, and an embedder that repeats what came of it.
//!
//! A budget, an order or the curve then costs no embedding. What the model refused (a text over its window) is
//! refused again. It does not know what the texts are for.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::stream::{StreamExt, iter};
use indicatif::ProgressBar;

use crate::decision::{Embedding, Tenant};
use crate::embed::{Asker, EmbedError, Embedder};

/// An embedder that has embedded everything beforehand.
pub(super) struct MemoEmbedder {
    model: String,
    engine: String,
    dimensions: usize,
    embedded: HashMap<String, Embedded>,
}

struct Embedded {
    result: Result<Embedding, EmbedError>,
    took: Duration,
}

impl MemoEmbedder {
    /// Embeds the texts, as many at a time as `embedder` has workers: all of them are busy, and a text does not wait
    /// in the queue, so that the time taken is its own.
    pub(super) async fn embed_all(
        embedder: &dyn Embedder,
        texts: Vec<String>,
        workers: usize,
        bar: &ProgressBar,
    ) -> Self {
        let tenant = &Tenant::new("eval");
        let embedding = iter(texts).map(|text| async move {
            let started = Instant::now();
            let result =
                embedder.embed(&[&text], Asker::background(tenant)).await.pop().unwrap_or_else(|| Err(no_result()));
            let took = started.elapsed();
            bar.inc(1);
            (text, Embedded { result, took })
        });
        let embedded = embedding.buffer_unordered(workers).collect().await;
        bar.finish_and_clear();
        Self {
            model: embedder.model().to_owned(),
            engine: embedder.engine().to_owned(),
            dimensions: embedder.dimensions(),
            embedded,
        }
    }

    /// How long the text took to embed.
    pub(super) fn took(&self, text: &str) -> Duration {
        self.embedded.get(text).map_or(Duration::ZERO, |embedded| embedded.took)
    }

    /// Distinct texts embedded, or refused.
    pub(super) fn texts(&self) -> usize {
        self.embedded.len()
    }

    /// Texts over the model's window.
    pub(super) fn too_long(&self) -> usize {
        self.count(|error| matches!(error, EmbedError::TooLong { .. }))
    }

    /// Texts that the model failed on.
    pub(super) fn failed(&self) -> usize {
        self.count(|error| !matches!(error, EmbedError::TooLong { .. }))
    }

    fn count(&self, which: impl Fn(&EmbedError) -> bool) -> usize {
        self.embedded.values().filter(|embedded| embedded.result.as_ref().is_err_and(&which)).count()
    }
}

#[async_trait]
impl Embedder for MemoEmbedder {
    fn model(&self) -> &str {
        &self.model
    }

    fn engine(&self) -> &str {
        &self.engine
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    async fn embed(&self, texts: &[&str], _: Asker<'_>) -> Vec<Result<Embedding, EmbedError>> {
        texts
            .iter()
            .map(|text| self.embedded.get(*text).map_or_else(|| Err(no_result()), |e| e.result.clone()))
            .collect()
    }
}

fn no_result() -> EmbedError {
    EmbedError::Failed("the text was not embedded".into())
}
