//! One matrix of the model, packed for the product kernels.
//!
//! The published layout is `[outputs, inputs]`. Packed, the outputs of a panel stand side by side for each unit of
//! inputs, in the precision of the engine, all matrices of the model in one stretch of memory in the order of use.

use std::ops::Range;

use half::bf16;

use super::engine::Precision;
use super::memory::Aligned;

pub(super) struct Linear {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Where its panels are in the stretch of all.
    pub(super) panels: Range<usize>,
    pub(super) bias: Aligned<f32>,
    /// For integers.
    pub(super) steps: Option<Steps>,
}

/// How the integers of a matrix become floats again, an entry an output.
pub(super) struct Steps {
    pub(super) size: Aligned<f32>,
    /// Left sides are shifted up by 128 to be unsigned; this takes away what the shift adds.
    pub(super) start: Aligned<i32>,
}

/// A stretch of memory that is filled from the front.
pub(super) struct Packer {
    precision: Precision,
    /// Outputs in a panel.
    panel: usize,
    memory: Aligned<u32>,
    filled: usize,
}

impl Packer {
    /// For `weights` weights in all.
    pub(super) fn new(precision: Precision, panel: usize, weights: usize) -> Self {
        Self { precision, panel, memory: Aligned::huge(weights / precision.per_unit()), filled: 0 }
    }

    pub(super) fn finish(self) -> Aligned<u32> {
        self.memory
    }

    /// `weights` is `[outputs, inputs]`; both are multiples of 64, so that panels and units come out even.
    pub(super) fn pack(&mut self, weights: &[f32], bias: &[f32]) -> Linear {
        let (outputs, inputs) = (bias.len(), weights.len() / bias.len());
        let units = inputs / self.precision.per_unit();
        let panels = self.filled..self.filled + outputs * units;
        self.filled = panels.end;
        let steps = (self.precision == Precision::Int8).then(|| Steps::of(weights, inputs));
        let panel_units = self.panel * units;
        let to = self.memory[panels.clone()].chunks_exact_mut(panel_units);
        for (first, (to, rows)) in to.zip(weights.chunks_exact(self.panel * inputs)).enumerate() {
            for (column, row) in rows.chunks_exact(inputs).enumerate() {
                let to = to.iter_mut().skip(column).step_by(self.panel);
                match (self.precision, &steps) {
                    (Precision::F32, _) => to.zip(row).for_each(|(to, weight)| *to = weight.to_bits()),
                    (Precision::Int8, Some(steps)) => {
                        let factor = 1.0 / steps.size[first * self.panel + column];
                        to.zip(row.as_chunks::<4>().0).for_each(|(to, four)| *to = bytes(four, factor));
                    }
                    _ => to.zip(row.as_chunks::<2>().0).for_each(|(to, two)| *to = halves(two)),
                }
            }
        }
        Linear { inputs, outputs, panels, bias: Aligned::copy(bias), steps }
    }
}

impl Steps {
    fn of(weights: &[f32], inputs: usize) -> Self {
        let rows = || weights.chunks_exact(inputs);
        let largest = |row: &[f32]| row.iter().fold(0f32, |largest, weight| largest.max(weight.abs()));
        let size: Vec<f32> = rows().map(|row| (largest(row) / 127.0).max(f32::MIN_POSITIVE)).collect();
        let sum = |(row, size): (&[f32], &f32)| row.iter().map(|weight| whole_steps(*weight, 1.0 / size)).sum::<i32>();
        let start: Vec<i32> = rows().zip(&size).map(|pair| -128 * sum(pair)).collect();
        Self { size: Aligned::copy(&size), start: Aligned::copy(&start) }
    }
}

/// A weight in steps, from -127 to 127.
pub(super) fn whole_steps(weight: f32, factor: f32) -> i32 {
    // Adding and taking away 1.5 * 2^23 rounds to whole numbers without the call that `round_ties_even` may be.
    ((weight * factor + 12_582_912.0) - 12_582_912.0).clamp(-127.0, 127.0) as i32
}

fn bytes(four: &[f32; 4], factor: f32) -> u32 {
    u32::from_le_bytes(four.map(|weight| whole_steps(weight, factor) as i8 as u8))
}

fn halves(two: &[f32; 2]) -> u32 {
    let [early, late] = two.map(|weight| u32::from(bf16::from_f32(weight).to_bits()));
    early | late << 16
}
