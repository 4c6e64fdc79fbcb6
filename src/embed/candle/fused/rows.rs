//! What is done to one token at a time between two matrix products: LayerNorm, and narrowing for the next product.

use super::lanes::Lanes;

/// LayerNorm of each row of `rows` into `out`, both `[tokens, weight.len()]`.
pub(super) struct Norm<'a> {
    pub(super) rows: &'a [f32],
    pub(super) weight: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) epsilon: f32,
    pub(super) out: &'a mut [f32],
}

/// Rows of `width` floats into units of four bytes, and for integers the scale of each row.
pub(super) struct Narrow<'a> {
    pub(super) rows: &'a [f32],
    pub(super) width: usize,
    pub(super) units: &'a mut [u32],
    pub(super) scales: &'a mut [f32],
}

/// # Safety
/// The processor has the instructions of `L`, and the caller is compiled for them.
#[inline(always)]
pub(super) unsafe fn norm<L: Lanes>(norm: Norm<'_>) {
    let Norm { rows, weight, bias, epsilon, out } = norm;
    let width = weight.len();
    assert!(width > 0 && width.is_multiple_of(L::N) && bias.len() == width && rows.len() == out.len(), "norm");
    for (row, out) in rows.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let (row, out) = (row.as_ptr(), out.as_mut_ptr());
        // SAFETY: four slices of `width` floats, a whole number of registers.
        unsafe {
            let mut sum = L::splat(0.0);
            let mut at = 0;
            while at < width {
                sum = L::add(sum, L::load(row.add(at)));
                at += L::N;
            }
            // The mean first: the shorter formula, mean of squares less square of mean, loses the digits that count.
            let mean = L::splat(L::sum(sum) / width as f32);
            let mut squares = L::splat(0.0);
            at = 0;
            while at < width {
                let apart = L::sub(L::load(row.add(at)), mean);
                squares = L::fma(apart, apart, squares);
                at += L::N;
            }
            let factor = L::splat(1.0 / (L::sum(squares) / width as f32 + epsilon).sqrt());
            at = 0;
            while at < width {
                let apart = L::mul(L::sub(L::load(row.add(at)), mean), factor);
                L::store(out.add(at), L::fma(apart, L::load(weight.as_ptr().add(at)), L::load(bias.as_ptr().add(at))));
                at += L::N;
            }
        }
    }
}

/// One row into units.
///
/// # Safety
/// As for [`Lanes`]; `width` floats are behind `row`, and room for their units behind `units`.
pub(super) trait Narrower {
    type Lanes: Lanes;
    /// Floats in a unit.
    const PER_UNIT: usize;
    /// Returns what a unit step of the result is worth.
    unsafe fn row(row: *const f32, width: usize, units: *mut u32) -> f32;
}

/// # Safety
/// The processor has the instructions of `N`, and the caller is compiled for them.
#[inline(always)]
pub(super) unsafe fn narrow<N: Narrower>(narrow: Narrow<'_>) {
    let Narrow { rows, width, units, scales } = narrow;
    assert!(width > 0 && width.is_multiple_of(64), "a width that every register divides");
    assert!(units.len() * N::PER_UNIT >= rows.len() && scales.len() * width >= rows.len(), "narrow");
    let units = units.chunks_exact_mut(width / N::PER_UNIT);
    for ((row, units), scale) in rows.chunks_exact(width).zip(units).zip(scales) {
        // SAFETY: both rows have the length that the loop cut them to.
        *scale = unsafe { N::row(row.as_ptr(), width, units.as_mut_ptr()) };
    }
}

/// The largest magnitude of a row: the scale of its integers.
///
/// # Safety
/// As for [`Narrower::row`].
#[inline(always)]
pub(super) unsafe fn magnitude<L: Lanes>(row: *const f32, width: usize) -> f32 {
    // SAFETY: the caller's promise; every register divides the width.
    unsafe {
        let mut largest = L::splat(0.0);
        let mut at = 0;
        while at < width {
            let value = L::load(row.add(at));
            largest = L::max(largest, L::max(value, L::sub(L::splat(0.0), value)));
            at += L::N;
        }
        L::largest(largest)
    }
}

/// Activations are rounded to whole steps of this many either side of zero; the least step keeps a row of zeroes finite.
pub(super) const STEPS: f32 = 127.0;
pub(super) const STEP_LEAST: f32 = 1e-30;
