//! One text through tokenizer, BERT, pooling and normalisation.
//!
//! Nothing is padded and nothing is cut: a text that does not fit the window is an error, not a shorter text.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use tokenizers::Tokenizer;

use super::Hardware;
use crate::decision::Embedding;
use crate::embed::EmbedError;
use crate::embed::model::{ModelFiles, Pooling};

pub(super) struct Bert {
    model: BertModel,
    tokenizer: Tokenizer,
    device: Device,
    pooling: Pooling,
    window: usize,
    dimensions: usize,
    fingerprint: String,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

impl Bert {
    pub(super) fn load(files: &ModelFiles, hardware: Hardware) -> Result<Self, AnyError> {
        let device = match hardware {
            Hardware::Cpu => Device::Cpu,
            Hardware::Cuda => Device::new_cuda(0)?,
            Hardware::Metal => Device::new_metal(0)?,
        };
        let config: Config = serde_json::from_slice(&files.config).map_err(|error| format!("config.json: {error}"))?;
        let weights = VarBuilder::from_slice_safetensors(&files.weights, DType::F32, &device)
            .map_err(|error| format!("model.safetensors: {error}"))?;
        let model = BertModel::load(weights, &config).map_err(|error| format!("model.safetensors: {error}"))?;
        let mut tokenizer =
            Tokenizer::from_bytes(&files.tokenizer).map_err(|error| format!("tokenizer.json: {error}"))?;
        tokenizer.with_padding(None).with_truncation(None)?;
        let window = files.window.unwrap_or(usize::MAX).min(config.max_position_embeddings);
        let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..16].to_owned();
        let shape = format!("{:?} {window} {}", files.pooling, hash(&files.config));
        let parts = [hash(&files.weights), hash(&files.tokenizer), hash(shape.as_bytes())];
        Ok(Self {
            fingerprint: format!("{}/{}/f32", files.name, &hash(parts.concat().as_bytes())),
            model,
            tokenizer,
            device,
            pooling: files.pooling,
            window,
            dimensions: config.hidden_size,
        })
    }

    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(super) fn dimensions(&self) -> usize {
        self.dimensions
    }

    pub(super) fn window(&self) -> usize {
        self.window
    }

    pub(super) fn embed(&self, text: &str) -> Result<Embedding, EmbedError> {
        let too_long = EmbedError::TooLong { window: self.window };
        if text.len() > self.window.saturating_mul(BYTES_PER_TOKEN_MAX) {
            return Err(too_long);
        }
        let failed = |error: AnyError| EmbedError::Failed(error.to_string());
        let tokens = self.tokenizer.encode_fast(text, true).map_err(failed)?;
        if tokens.len() > self.window {
            return Err(too_long);
        }
        let pooled = self.forward(tokens.get_ids()).map_err(|error| failed(error.into()))?;
        Embedding::new(pooled).map_err(|error| failed(error.into()))
    }

    /// `[tokens]` ids to a pooled vector `[dimensions]`, not yet normalised.
    fn forward(&self, ids: &[u32]) -> candle_core::Result<Vec<f32>> {
        let ids = Tensor::new(ids, &self.device)?.unsqueeze(0)?;
        let types = ids.zeros_like()?;
        let hidden = self.model.forward(&ids, &types, None)?.squeeze(0)?;
        let pooled = match self.pooling {
            Pooling::Mean => hidden.mean(0)?,
            Pooling::Cls => hidden.get(0)?,
        };
        pooled.to_vec1()
    }
}

/// Texts longer than this many bytes a token of the window are not even tokenised: tokenising costs microseconds a
/// token, and a megabyte of text would hold a worker for seconds. Ordinary text has four to five bytes a token.
const BYTES_PER_TOKEN_MAX: usize = 64;
