//! candle's own BERT: for accelerators, and for what the fused forward does not know. It is also what that is tested
//! against.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};

use super::Hardware;
use crate::embed::model::Pooling;

/// A model on a device.
pub struct Stock {
    model: BertModel,
    device: Device,
    pooling: Pooling,
}

impl Stock {
    /// `weights` is a safetensors file.
    ///
    /// # Errors
    /// The hardware is not there, or a tensor is missing or misshapen.
    pub fn load(weights: &[u8], config: &Config, pooling: Pooling, hardware: Hardware) -> candle_core::Result<Self> {
        let device = match hardware {
            Hardware::Cpu => Device::Cpu,
            Hardware::Cuda => Device::new_cuda(0)?,
            Hardware::Metal => Device::new_metal(0)?,
        };
        let tensors = VarBuilder::from_slice_safetensors(weights, DType::F32, &device)?;
        Ok(Self { model: BertModel::load(tensors, config)?, device, pooling })
    }

    /// `[tokens]` ids to a pooled vector `[dimensions]`, not yet normalised.
    ///
    /// # Errors
    /// candle's.
    pub fn forward(&self, ids: &[u32]) -> candle_core::Result<Vec<f32>> {
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
