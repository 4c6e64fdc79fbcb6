//! The weights of a model, read once and packed for one engine.
//!
//! What never changes between texts is folded in: query, key and value are one matrix with the root of the head's width
//! divided out of the queries, and the row of the first token type is part of the positions.

use half::f16;

use super::engine::{Engine, Precision};
use super::kernels::Kernels;
use super::linear::{Linear, Packer, whole_steps};
use super::memory::Aligned;
use super::shape::{Shape, WeightsError};
use crate::embed::model::Pooling;

/// A model, ready to embed. It is shared by all workers; each has a `Scratch` of its own.
pub struct Weights {
    pub(super) shape: Shape,
    pub(super) pooling: Pooling,
    pub(super) engine: Engine,
    pub(super) kernels: Kernels,
    pub(super) words: Table,
    /// `[positions, hidden]`, token type included.
    pub(super) positions: Aligned<f32>,
    pub(super) norm: Norm,
    pub(super) layers: Vec<Layer>,
    /// The panels of every [`Linear`].
    pub(super) packed: Aligned<u32>,
}

/// Where tensors come from: the name of one to its shape and values.
pub type Tensors<'a> = &'a dyn Fn(&str) -> Option<(Vec<usize>, Vec<f32>)>;

pub(super) struct Layer {
    pub(super) qkv: Linear,
    pub(super) attended: Linear,
    pub(super) attended_norm: Norm,
    pub(super) inner: Linear,
    pub(super) outer: Linear,
    pub(super) outer_norm: Norm,
}

pub(super) struct Norm {
    pub(super) weight: Aligned<f32>,
    pub(super) bias: Aligned<f32>,
}

/// The vectors of the vocabulary. It is half of a small model's memory, and one row a token is all that is read of it.
pub(super) enum Table {
    Full(Vec<f32>),
    /// f16 is what weights are published in, or loses three bits less than bf16 would.
    Half(Vec<f16>),
    /// Whole steps, and the size of a step for each row.
    Bytes(Vec<i8>, Vec<f32>),
}

impl Weights {
    /// # Errors
    /// The shape is not one that this forward knows, the processor not one for the engine, or a tensor is missing or
    /// misshapen.
    pub fn pack(shape: Shape, pooling: Pooling, engine: Engine, tensors: Tensors<'_>) -> Result<Self, WeightsError> {
        shape.check()?;
        let kernels = Kernels::of(engine).ok_or(WeightsError::Unavailable(engine.as_str()))?;
        let read = Reader { tensors };
        let Shape { vocabulary, positions: window, hidden, inner, .. } = shape;
        let words = read.tensor("embeddings.word_embeddings.weight", &[vocabulary, hidden])?;
        let words = match engine.precision() {
            Precision::F32 => Table::Full(words),
            Precision::Bf16 => Table::Half(words.into_iter().map(f16::from_f32).collect()),
            Precision::Int8 => Table::bytes(&words, hidden),
        };
        let mut positions = read.tensor("embeddings.position_embeddings.weight", &[window, hidden])?;
        let types = read.first_row("embeddings.token_type_embeddings.weight", hidden)?;
        for row in positions.chunks_exact_mut(hidden) {
            row.iter_mut().zip(&types).for_each(|(position, kind)| *position += kind);
        }
        let a_layer = 4 * hidden * hidden + 2 * hidden * inner;
        let mut packer = Packer::new(engine.precision(), kernels.panel, shape.layers * a_layer);
        let layers = (0..shape.layers).map(|n| read.layer(n, &shape, &mut packer)).collect::<Result<_, _>>()?;
        Ok(Self {
            shape,
            pooling,
            engine,
            kernels,
            words,
            positions: Aligned::copy(&positions),
            norm: read.norm("embeddings.LayerNorm", hidden)?,
            layers,
            packed: packer.finish(),
        })
    }

    pub fn engine(&self) -> Engine {
        self.engine
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }
}

impl Table {
    fn bytes(words: &[f32], width: usize) -> Self {
        let largest = |row: &[f32]| row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let steps: Vec<f32> =
            words.chunks_exact(width).map(|row| (largest(row) / 127.0).max(f32::MIN_POSITIVE)).collect();
        let rows = words.chunks_exact(width).zip(&steps);
        let values = rows.flat_map(|(row, step)| row.iter().map(move |value| whole_steps(*value, 1.0 / step) as i8));
        Self::Bytes(values.collect(), steps)
    }

    /// Row `token` plus `position` into `out`.
    pub(super) fn add(&self, token: usize, position: &[f32], out: &mut [f32]) {
        let row = token * out.len()..(token + 1) * out.len();
        match self {
            Self::Full(values) => out.copy_from_slice(&values[row]),
            Self::Half(values) => {
                use half::slice::HalfFloatSliceExt;
                values[row].convert_to_f32_slice(out);
            }
            Self::Bytes(values, steps) => {
                let step = steps[token];
                out.iter_mut().zip(&values[row]).for_each(|(out, value)| *out = f32::from(*value) * step);
            }
        }
        out.iter_mut().zip(position).for_each(|(out, position)| *out += position);
    }
}

struct Reader<'a> {
    tensors: Tensors<'a>,
}

impl Reader<'_> {
    fn layer(&self, n: usize, shape: &Shape, packer: &mut Packer) -> Result<Layer, WeightsError> {
        let Shape { hidden, inner, .. } = *shape;
        let name = |part: &str| format!("encoder.layer.{n}.{part}");
        let mut weights = Vec::with_capacity(3 * hidden * hidden);
        let mut bias = Vec::with_capacity(3 * hidden);
        for part in ["query", "key", "value"] {
            let (part_weights, part_bias) = self.linear(&name(&format!("attention.self.{part}")), hidden, hidden)?;
            weights.extend(part_weights);
            bias.extend(part_bias);
        }
        let root = 1.0 / (shape.width() as f32).sqrt();
        let queries = weights[..hidden * hidden].iter_mut().chain(&mut bias[..hidden]);
        queries.for_each(|value| *value *= root);
        let qkv = packer.pack(&weights, &bias);
        let mut pack = |part: &str, outputs: usize, inputs: usize| {
            let (weights, bias) = self.linear(&name(part), outputs, inputs)?;
            Ok::<_, WeightsError>(packer.pack(&weights, &bias))
        };
        Ok(Layer {
            qkv,
            attended: pack("attention.output.dense", hidden, hidden)?,
            attended_norm: self.norm(&name("attention.output.LayerNorm"), hidden)?,
            inner: pack("intermediate.dense", inner, hidden)?,
            outer: pack("output.dense", hidden, inner)?,
            outer_norm: self.norm(&name("output.LayerNorm"), hidden)?,
        })
    }

    fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<(Vec<f32>, Vec<f32>), WeightsError> {
        let weights = self.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok((weights, self.tensor(&format!("{name}.bias"), &[outputs])?))
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm, WeightsError> {
        let tensor = |part: &str| self.tensor(&format!("{name}.{part}"), &[width]);
        Ok(Norm { weight: Aligned::copy(&tensor("weight")?), bias: Aligned::copy(&tensor("bias")?) })
    }

    fn tensor(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, WeightsError> {
        self.of_shape(name, |found| if found == expected { Ok(()) } else { Err(expected.to_vec()) })
    }

    /// Texts here are of the first type; how many types a model knows does not matter.
    fn first_row(&self, name: &str, width: usize) -> Result<Vec<f32>, WeightsError> {
        let fits = |found: &[usize]| match found {
            [types, found] if *types > 0 && *found == width => Ok(()),
            _ => Err(vec![1, width]),
        };
        let mut values = self.of_shape(name, fits)?;
        values.truncate(width);
        Ok(values)
    }

    fn of_shape(
        &self,
        name: &str,
        fits: impl Fn(&[usize]) -> Result<(), Vec<usize>>,
    ) -> Result<Vec<f32>, WeightsError> {
        let (found, values) = (self.tensors)(name).ok_or_else(|| WeightsError::Missing(name.to_owned()))?;
        let counted = found.iter().product::<usize>() == values.len();
        match fits(&found) {
            Ok(()) if counted => {}
            Ok(()) => {
                let (tensor, found) = (name.to_owned(), vec![values.len()]);
                return Err(WeightsError::Misshapen { tensor, expected: vec![values.len()], found });
            }
            Err(expected) => return Err(WeightsError::Misshapen { tensor: name.to_owned(), expected, found }),
        }
        if values.iter().all(|value| value.is_finite()) {
            Ok(values)
        } else {
            Err(WeightsError::NotFinite(name.to_owned()))
        }
    }
}
