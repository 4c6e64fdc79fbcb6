//! A vector as signed bytes with one scale, stored shifted up by 128, and what a search needs of its query.
//!
//! Rows are padded to whole cache lines with the shifted zero, so no kernel meets an odd end and no row shares a line.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::decision::Embedding;
use crate::store::local::kernel::Kernel;

/// A row of an int8 copy.
pub(super) struct Row {
    pub(super) bytes: Vec<u8>,
    pub(super) scale: f32,
}

impl Row {
    pub(super) fn of(values: &[f16]) -> Self {
        let values = values.to_f32_vec();
        let mut bytes = vec![ZERO; stride(values.len())];
        let scale = quantise(&values, |i, value| bytes[i] = (i32::from(value) + i32::from(ZERO)) as u8);
        Self { bytes, scale }
    }
}

/// What rows are compared with; made once a search.
pub(super) struct Query {
    bytes: Vec<i8>,
    /// What the rows' shift adds to every product.
    shift: i32,
    kernel: Kernel,
}

impl Default for Query {
    fn default() -> Self {
        Self::from_bytes(Vec::new())
    }
}

impl Query {
    pub(super) fn of(embedding: &Embedding) -> Self {
        let mut bytes = vec![0; stride(embedding.dimensions())];
        quantise(embedding.as_slice(), |i, value| bytes[i] = value);
        Self::from_bytes(bytes)
    }

    /// A stored row as a query.
    pub(super) fn of_row(row: &[u8]) -> Self {
        Self::from_bytes(row.iter().map(|byte| (byte ^ ZERO) as i8).collect())
    }

    fn from_bytes(bytes: Vec<i8>) -> Self {
        let shift = i32::from(ZERO) * bytes.iter().map(|byte| i32::from(*byte)).sum::<i32>();
        Self { bytes, shift, kernel: Kernel::choose() }
    }

    pub(super) fn signs(&self) -> Vec<u64> {
        let sign = |byte: &i8| *byte > 0;
        self.bytes.chunks(64).map(|bytes| word(bytes.iter().map(sign))).collect()
    }

    /// How many signs of each row differ from the query's `signs`; rows in groups of eight.
    pub(super) fn differing(&self, groups: &[[u64; 8]], signs: &[u64], counts: &mut [u16]) {
        self.kernel.differing(groups, signs, counts);
    }

    /// Grows with the cosine; comparable between rows, for this query only.
    #[inline(always)]
    pub(super) fn score(&self, row: &[u8], scale: f32) -> f32 {
        (self.kernel.dot_u8_i8(row, &self.bytes) - self.shift) as f32 * scale
    }
}

/// Which values of a row are above zero, 64 a word.
pub(super) fn signs(row: &[u8]) -> impl Iterator<Item = u64> {
    row.chunks(64).map(|bytes| word(bytes.iter().map(|byte| *byte > ZERO)))
}

fn word(bits: impl Iterator<Item = bool>) -> u64 {
    bits.enumerate().fold(0, |word, (i, bit)| word | u64::from(bit) << i)
}

/// Bytes of a row.
pub(super) fn stride(dims: usize) -> usize {
    dims.next_multiple_of(64)
}

/// Gives every value's byte, and returns what a byte's unit is worth.
fn quantise(values: &[f32], mut put: impl FnMut(usize, i8)) -> f32 {
    let most = values.iter().fold(0f32, |most, value| most.max(value.abs()));
    let scale = most / f32::from(i8::MAX);
    let units = if scale > 0.0 { scale.recip() } else { 0.0 };
    values.iter().enumerate().for_each(|(i, value)| put(i, (value * units).round() as i8));
    scale
}

const ZERO: u8 = 128;
