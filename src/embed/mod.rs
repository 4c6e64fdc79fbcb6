//! Text to vector, as a seam.

#[cfg(feature = "candle")]
pub mod candle;
#[cfg(feature = "candle")]
pub mod model;
#[cfg(feature = "candle")]
mod open;

use async_trait::async_trait;

use crate::decision::{Embedding, Tenant};

#[cfg(feature = "candle")]
pub use open::{EmbedSettings, OpenEmbedderError, open};

/// Turns texts into unit vectors.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// The model's fingerprint: model, weights and precision. Two embedders with one fingerprint give one text
    /// the same vector, up to a rounding that no score shows (a cosine of 0.9999).
    fn model(&self) -> &str;

    /// What computes, for people to read: `candle-fused f32 avx512`.
    fn engine(&self) -> &str;

    /// Length of every vector.
    fn dimensions(&self) -> usize;

    /// One result a text, in order. What one tenant asks for makes nothing faster for another. Dropping the future withdraws what has not been started.
    async fn embed(&self, texts: &[&str], asker: Asker<'_>) -> Vec<Result<Embedding, EmbedError>>;
}

/// For whom texts are embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker<'a> {
    pub tenant: &'a Tenant,
    pub haste: Haste,
}

impl<'a> Asker<'a> {
    pub fn lookup(tenant: &'a Tenant) -> Self {
        Self { tenant, haste: Haste::Lookup }
    }

    pub fn background(tenant: &'a Tenant) -> Self {
        Self { tenant, haste: Haste::Background }
    }
}

/// Who goes first where texts have to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    /// Somebody waits for the answer to a question.
    Lookup,
    /// What is stored, imported or embedded again.
    Background,
}

/// Why a text has no vector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// The text does not fit the model's window. Asking again will not help.
    #[error("the text is longer than the model's window of {window} tokens")]
    TooLong { window: usize },
    /// Too many texts wait already. Ask again later.
    #[error("the embedder's queue is full")]
    Overloaded,
    /// The model failed on this text, or does not run.
    #[error("the embedder failed: {0}")]
    Failed(String),
}
