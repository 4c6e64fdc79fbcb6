//! A model's files as the fused forward takes them: candle reads the tensors and the configuration.

use candle_core::safetensors::SliceSafetensors;
use candle_core::{DType, Device};
use candle_transformers::models::bert::{Config, HiddenAct, PositionEmbeddingType};

use super::fused::{Engine, Shape, Weights, WeightsError};
use crate::embed::model::Pooling;

/// `weights` is a safetensors file; it is not needed any more once it is packed.
///
/// # Errors
/// The file is no safetensors file, or not a model that the fused forward knows.
pub fn pack(weights: &[u8], config: &Config, pooling: Pooling, engine: Engine) -> Result<Weights, PackError> {
    let file = SliceSafetensors::new(weights)?;
    let shape = shape(config)?;
    let kind = config.model_type.as_deref().unwrap_or("bert");
    let read = |name: &str| -> Option<(Vec<usize>, Vec<f32>)> {
        // Some models were saved with their kind before every name, older ones with other words for LayerNorm's.
        let older = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        let names = [name.to_owned(), format!("{kind}.{name}"), format!("{kind}.{older}"), older];
        let tensor = names.iter().find_map(|name| file.load(name, &Device::Cpu).ok())?;
        let values = tensor.to_dtype(DType::F32).ok()?.flatten_all().ok()?.to_vec1().ok()?;
        Some((tensor.dims().to_vec(), values))
    };
    Ok(Weights::pack(shape, pooling, engine, &read)?)
}

fn shape(config: &Config) -> Result<Shape, WeightsError> {
    if config.hidden_act != HiddenAct::Gelu {
        return Err(WeightsError::Unsupported("the activation is not the exact GELU"));
    }
    let PositionEmbeddingType::Absolute = config.position_embedding_type;
    Ok(Shape {
        vocabulary: config.vocab_size,
        positions: config.max_position_embeddings,
        hidden: config.hidden_size,
        heads: config.num_attention_heads,
        inner: config.intermediate_size,
        layers: config.num_hidden_layers,
        norm_epsilon: config.layer_norm_eps as f32,
    })
}

/// Why a model is not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error(transparent)]
    File(#[from] candle_core::Error),
    #[error(transparent)]
    Weights(#[from] WeightsError),
}
