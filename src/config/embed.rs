//! How texts become vectors: `[embed]`.

use std::time::Duration;

use super::{Reader, whole};

/// How texts become vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedConfig {
    pub model: EmbedModel,
    pub hardware: String,
    /// A word each: what computes, as far as it was asked for.
    pub precision: String,
    pub engine: String,
    pub workers: usize,
    pub queue_length: usize,
    /// Bytes of vectors kept for texts that come again.
    pub memo_bytes: usize,
    pub proxy_patience: Duration,
    pub api_patience: Duration,
}

/// Where vectors come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbedModel {
    /// A model of this name, or in this folder.
    Local(String),
    /// The callers, who bring vectors of this length.
    External { dimensions: usize },
}

impl EmbedConfig {
    pub(super) fn read(from: &mut Reader<'_>) -> Self {
        let model = from.text("embed.model").unwrap_or_else(|| "all-MiniLM-L6-v2".to_owned());
        let dimensions = from
            .read("embed.dimensions", "a whole number from 1 to 8192", |v| whole(v).filter(|d| (1..=8192).contains(d)));
        if dimensions.is_some() && model != "external" {
            from.problem("embed.dimensions", "goes with embed.model = \"external\" only");
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = from.read("embed.workers", "a whole number from 0 to 1024", |v| whole(v).filter(|w| *w <= 1024));
        Self {
            model: if model == "external" {
                EmbedModel::External { dimensions: dimensions.unwrap_or(384) }
            } else {
                EmbedModel::Local(model)
            },
            hardware: from.one_of("embed.hardware", &["cpu", "cuda", "metal"]),
            precision: from.one_of("embed.precision", &["auto", "f32", "bf16", "int8"]),
            engine: from.one_of("embed.engine", &["auto", "amx", "avx512", "avx2", "neon", "portable", "candle"]),
            workers: workers.filter(|w| *w > 0).unwrap_or(cores),
            queue_length: from.size("embed.queue_length", 1024),
            memo_bytes: from.read("embed.memo_bytes", "a whole number", whole).unwrap_or(32 << 20),
            proxy_patience: from.milliseconds("embed.proxy_patience_ms", 250),
            api_patience: from.milliseconds("embed.api_patience_ms", 2000),
        }
    }
}
