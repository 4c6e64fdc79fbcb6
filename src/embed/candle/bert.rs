//! One text through tokenizer, BERT, pooling and normalisation.
//!
//! Nothing is padded and nothing is cut: a text that does not fit the window is an error, not a shorter text.

use candle_transformers::models::bert::Config;
use tokenizers::Tokenizer;

use super::choice::Choice;
use super::fused::{Engine, Scratch, Weights, WeightsError};
use super::stock::Stock;
use super::tensors::{PackError, pack};
use super::{Hardware, Wanted};
use crate::decision::Embedding;
use crate::embed::EmbedError;
use crate::embed::model::ModelFiles;

pub(super) struct Bert {
    forward: Forward,
    tokenizer: Tokenizer,
    window: usize,
    dimensions: usize,
    fingerprint: String,
    engine: String,
}

enum Forward {
    Fused(Box<Weights>),
    Stock(Box<Stock>),
}

/// What a worker computes in, where the forward needs it.
pub(super) struct Desk(Option<Scratch>);

impl Desk {
    /// Whether the forward is one that computes on the caller's thread, at a desk.
    pub(super) fn is_needed(&self) -> bool {
        self.0.is_some()
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

impl Bert {
    pub(super) fn load(files: &ModelFiles, hardware: Hardware, wanted: Wanted) -> Result<Self, AnyError> {
        let config: Config = serde_json::from_slice(&files.config).map_err(|error| format!("config.json: {error}"))?;
        let (forward, engine) = open(files, &config, hardware, wanted)?;
        let mut tokenizer =
            Tokenizer::from_bytes(&files.tokenizer).map_err(|error| format!("tokenizer.json: {error}"))?;
        tokenizer.with_padding(None).with_truncation(None)?;
        let window = files.window.unwrap_or(usize::MAX).min(config.max_position_embeddings);
        let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..16].to_owned();
        let shape = format!("{:?} {window} {}", files.pooling, hash(&files.config));
        let parts = [hash(&files.weights), hash(&files.tokenizer), hash(shape.as_bytes())];
        let precision = match &forward {
            Forward::Fused(weights) => weights.engine().precision().space(),
            Forward::Stock(_) => "f32",
        };
        Ok(Self {
            fingerprint: format!("{}/{}/{precision}", files.name, &hash(parts.concat().as_bytes())),
            forward,
            tokenizer,
            window,
            dimensions: config.hidden_size,
            engine,
        })
    }

    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(super) fn engine(&self) -> &str {
        &self.engine
    }

    pub(super) fn dimensions(&self) -> usize {
        self.dimensions
    }

    pub(super) fn window(&self) -> usize {
        self.window
    }

    pub(super) fn desk(&self) -> Desk {
        Desk(match &self.forward {
            Forward::Fused(weights) => Some(Scratch::new(weights)),
            Forward::Stock(_) => None,
        })
    }

    pub(super) fn embed(&self, desk: &mut Desk, text: &str) -> Result<Embedding, EmbedError> {
        let too_long = EmbedError::TooLong { window: self.window };
        if text.len() > self.window.saturating_mul(BYTES_PER_TOKEN_MAX) {
            return Err(too_long);
        }
        let failed = |error: AnyError| EmbedError::Failed(error.to_string());
        let tokens = self.tokenizer.encode_fast(text, true).map_err(failed)?;
        if tokens.len() > self.window {
            return Err(too_long);
        }
        let pooled = match (&self.forward, desk) {
            (Forward::Fused(weights), Desk(scratch)) => {
                let scratch = scratch.get_or_insert_with(|| Scratch::new(weights));
                weights.embed(scratch, tokens.get_ids()).map_err(|error| failed(error.into()))?
            }
            (Forward::Stock(stock), _) => stock.forward(tokens.get_ids()).map_err(|error| failed(error.into()))?,
        };
        Embedding::new(pooled).map_err(|error| failed(error.into()))
    }
}

/// The forward, and what it is called.
fn open(
    files: &ModelFiles,
    config: &Config,
    hardware: Hardware,
    wanted: Wanted,
) -> Result<(Forward, String), AnyError> {
    let choice = Choice::of(wanted, hardware)?;
    let fused = |engine: Engine| {
        let weights = pack(&files.weights, config, files.pooling, engine)?;
        Ok::<_, PackError>((Forward::Fused(Box::new(weights)), format!("candle-fused {}", engine.as_str())))
    };
    let stock = || {
        let stock = Stock::load(&files.weights, config, files.pooling, hardware);
        let stock = stock.map_err(|error| format!("model.safetensors: {error}"))?;
        Ok::<_, AnyError>((Forward::Stock(Box::new(stock)), format!("candle f32 {}", hardware.as_str())))
    };
    match choice {
        Choice::Candle => stock(),
        Choice::Fused(engine) => Ok(fused(engine).map_err(|error| format!("model.safetensors: {error}"))?),
        Choice::FusedOrCandle(engine) => match fused(engine) {
            // No forward could make vectors of it.
            Err(error @ PackError::Weights(WeightsError::NotFinite(_))) => {
                Err(format!("model.safetensors: {error}").into())
            }
            Err(why) => {
                let (forward, name) = stock()?;
                tracing::warn!(%why, "the fused forward does not know this model: candle's own, slower one runs");
                Ok((forward, format!("{name} (not fused: {why})")))
            }
            Ok(forward) => Ok(forward),
        },
    }
}

/// Texts longer than this many bytes a token of the window are not even tokenised: tokenising costs microseconds a
/// token, and a megabyte of text would hold a worker for seconds. Ordinary text has four to five bytes a token.
const BYTES_PER_TOKEN_MAX: usize = 64;
