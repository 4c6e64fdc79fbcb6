//! Halves a model: reads f32 safetensors, writes the same tensors as f16, and prints both checksums.
//!
//! `cargo run --release --example convert_weights -- SOURCE.safetensors RESULT.safetensors`
//!
//! This is how `models/all-MiniLM-L6-v2/model.safetensors` was made from the published file; `models/manifest.toml`
//! holds both checksums. Tensors of other types are copied as they are.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, result] = arguments.as_slice() else { bail!("usage: convert_weights SOURCE RESULT") };
    let bytes = std::fs::read(source).with_context(|| source.clone())?;
    println!("{source}: {} bytes, sha256 {}", bytes.len(), sha256(&bytes));

    let tensors = SafeTensors::deserialize(&bytes)?;
    let mut converted: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (name, tensor) in tensors.tensors() {
        let (dtype, data) = match tensor.dtype() {
            Dtype::F32 => (Dtype::F16, halve(tensor.data())),
            other => (other, tensor.data().to_vec()),
        };
        converted.insert(name, (dtype, tensor.shape().to_vec(), data));
    }
    let views: BTreeMap<&str, TensorView<'_>> = converted
        .iter()
        .map(|(name, (dtype, shape, data))| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), data)?)))
        .collect::<anyhow::Result<_>>()?;
    let halved = safetensors::serialize(views, None)?;
    std::fs::write(result, &halved).with_context(|| result.clone())?;
    println!("{result}: {} bytes, sha256 {}", halved.len(), sha256(&halved));
    Ok(())
}

fn halve(f32s: &[u8]) -> Vec<u8> {
    let values = f32s.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
