//! The forward: token ids to unit vectors.
//!
//! Texts of a batch stand one behind the other without padding; the matrix products see only tokens, attention sees one
//! text at a time. A text's vector does not depend on what else is in its batch, to the bit.

use super::attention::{Attention, Desk, words};
use super::linear::{Linear, Steps};
use super::memory::Aligned;
use super::product::{Distance, Finish, Panels, Product, Scales};
use super::rows::{self, Narrow};
use super::shape::InputError;
use super::weights::{Layer, Norm, Weights};
use crate::embed::model::Pooling;

/// What a worker computes in, for one model: made once, so that an embedding allocates only its result.
pub struct Scratch {
    /// Tokens that fit.
    tokens: usize,
    /// `[tokens, hidden]`: what goes into a layer, and what comes out before LayerNorm.
    hidden: Aligned<f32>,
    sums: Aligned<f32>,
    /// `[tokens, 3 * hidden]`.
    qkv: Aligned<f32>,
    /// `[tokens, inner]`; attention's output uses its front.
    inner: Aligned<f32>,
    narrowed: Narrowed,
    desk: Desk,
}

/// Activations in the engine's precision, and what a step of each row is worth.
struct Narrowed {
    units: Aligned<u32>,
    steps: Aligned<f32>,
}

impl Scratch {
    pub fn new(weights: &Weights) -> Self {
        let shape = weights.shape();
        let tokens = shape.positions.max(BATCH_TOKENS);
        let widest = shape.hidden.max(shape.inner);
        let precision = weights.engine().precision();
        // Room for one tile more than there are tokens: kernels that multiply whole tiles read beyond the last row.
        let rows =
            if weights.kernels.narrow.is_some() { tokens.next_multiple_of(weights.kernels.rows_multiple) } else { 0 };
        Self {
            tokens,
            hidden: Aligned::new(tokens * shape.hidden),
            sums: Aligned::new(tokens * shape.hidden),
            qkv: Aligned::new(tokens * 3 * shape.hidden),
            inner: Aligned::new(tokens * widest),
            narrowed: Narrowed { units: Aligned::new(rows * widest / precision.per_unit()), steps: Aligned::new(rows) },
            desk: Desk::new(shape.positions, shape.width()),
        }
    }
}

impl Weights {
    /// The unit vector `[hidden]` of one text.
    ///
    /// # Errors
    /// The text is empty or too long, a token is not in the vocabulary, or the model's sums overflow.
    pub fn embed(&self, scratch: &mut Scratch, ids: &[u32]) -> Result<Vec<f32>, InputError> {
        self.shape.check_text(ids)?;
        let mut vector = None;
        self.forward(scratch, &[ids], &mut |pooled| vector = Some(pooled));
        vector.unwrap_or(Err(InputError::NoDirection))
    }

    /// One result a text, in order. Short texts share a pass over the weights.
    pub fn embed_batch(&self, scratch: &mut Scratch, texts: &[&[u32]]) -> Vec<Result<Vec<f32>, InputError>> {
        let mut results: Vec<_> = texts.iter().map(|ids| self.shape.check_text(ids).map(|()| Vec::new())).collect();
        let good: Vec<usize> = (0..texts.len()).filter(|n| results[*n].is_ok()).collect();
        let mut rest = good.as_slice();
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = |n: &&usize| {
                tokens += texts[**n].len();
                tokens <= BATCH_TOKENS
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at(count);
            let together: Vec<&[u32]> = now.iter().map(|n| texts[*n]).collect();
            let mut order = now.iter();
            self.forward(scratch, &together, &mut |pooled| {
                if let Some(n) = order.next() {
                    results[*n] = pooled;
                }
            });
            rest = later;
        }
        results
    }

    /// Checked texts, whose tokens fit the scratch together.
    fn forward(&self, scratch: &mut Scratch, texts: &[&[u32]], result: &mut dyn FnMut(Result<Vec<f32>, InputError>)) {
        let width = self.shape.hidden;
        let tokens: usize = texts.iter().map(|ids| ids.len()).sum();
        assert!(tokens <= scratch.tokens, "a batch is cut to what fits");
        let sums = &mut scratch.sums[..tokens * width];
        let placed = texts.iter().flat_map(|ids| ids.iter().zip(self.positions.chunks_exact(width)));
        for ((id, position), row) in placed.zip(sums.chunks_exact_mut(width)) {
            self.words.add(*id as usize, position, row);
        }
        self.normalise(sums, &self.norm, &mut scratch.hidden[..tokens * width]);
        for layer in &self.layers {
            self.layer(layer, scratch, texts, tokens);
        }
        let mut rest = &scratch.hidden[..tokens * width];
        for ids in texts {
            let (own, others) = rest.split_at(ids.len() * width);
            result(self.pool(own));
            rest = others;
        }
    }

    fn layer(&self, layer: &Layer, scratch: &mut Scratch, texts: &[&[u32]], tokens: usize) {
        let Scratch { hidden, sums, qkv, inner, narrowed, desk, .. } = scratch;
        let width = self.shape.hidden;
        let (hidden, sums) = (&mut hidden[..tokens * width], &mut sums[..tokens * width]);
        let qkv = &mut qkv[..tokens * 3 * width];

        self.linear(&layer.qkv, hidden, Finish::Bias(&layer.qkv.bias), narrowed, qkv);
        let mut first = 0;
        for ids in texts {
            let own = first..first + ids.len();
            self.kernels.attention(Attention {
                qkv: &qkv[own.start * 3 * width..own.end * 3 * width],
                tokens: ids.len(),
                heads: self.shape.heads,
                width: self.shape.width(),
                out: &mut inner[own.start * width..own.end * width],
                desk,
            });
            first = own.end;
        }
        let finish = Finish::Residual(&layer.attended.bias, hidden);
        self.linear(&layer.attended, &inner[..tokens * width], finish, narrowed, sums);
        self.normalise(sums, &layer.attended_norm, hidden);

        let inner = &mut inner[..tokens * self.shape.inner];
        self.linear(&layer.inner, hidden, Finish::Gelu(&layer.inner.bias), narrowed, inner);
        self.linear(&layer.outer, inner, Finish::Residual(&layer.outer.bias, hidden), narrowed, sums);
        self.normalise(sums, &layer.outer_norm, hidden);
    }

    /// `rows` times the matrix, finished, into `out`.
    fn linear(&self, linear: &Linear, rows: &[f32], finish: Finish<'_>, narrowed: &mut Narrowed, out: &mut [f32]) {
        let Linear { inputs, outputs, panels, bias: _, steps } = linear;
        let count = rows.len() / inputs;
        let units = inputs / self.engine.precision().per_unit();
        let (left, row_steps) = if self.kernels.narrow.is_some() {
            let Narrowed { units, steps } = narrowed;
            self.kernels.narrow(Narrow { rows, width: *inputs, units, scales: steps });
            (&units[..], &steps[..])
        } else {
            (words(rows), [].as_slice())
        };
        let scales = steps.as_ref().map(|Steps { size, start }| Scales { start, rows: row_steps, columns: size });
        let width = self.kernels.panel;
        let right = Panels {
            units: &self.packed[panels.clone()],
            unit_stride: width,
            panel_stride: width * units,
            distance: Distance::Far,
        };
        self.kernels.product(Product {
            rows: count,
            units,
            left,
            left_stride: units,
            right,
            columns: *outputs,
            out,
            out_stride: *outputs,
            scales,
            finish,
        });
    }

    fn normalise(&self, rows: &[f32], norm: &Norm, out: &mut [f32]) {
        let Norm { weight, bias } = norm;
        self.kernels.norm(rows::Norm { rows, weight, bias, epsilon: self.shape.norm_epsilon, out });
    }

    /// Token vectors `[tokens, hidden]` to one unit vector.
    fn pool(&self, rows: &[f32]) -> Result<Vec<f32>, InputError> {
        let width = self.shape.hidden;
        let mut pooled = rows[..width].to_vec();
        if self.pooling == Pooling::Mean {
            // The sum has the direction of the mean, and only the direction is kept.
            for row in rows[width..].chunks_exact(width) {
                pooled.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        }
        let norm = pooled.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt();
        if !norm.is_finite() || norm < NORM_LEAST {
            return Err(InputError::NoDirection);
        }
        pooled.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
        Ok(pooled)
    }
}

/// Tokens in one pass of a batch. Here the weights are no longer what is waited for, so more brings nothing, while the
/// activations begin to push each other out of the second cache: a token cost 4 % more in passes of 128.
const BATCH_TOKENS: usize = 64;
/// Below this a vector is rounding error without a direction.
const NORM_LEAST: f64 = 1e-20;
