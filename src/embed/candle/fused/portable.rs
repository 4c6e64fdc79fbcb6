//! The kernels for every processor: arrays of four floats, which compilers turn into whatever registers there are.
//!
//! It is the fallback, and what the other instruction sets are tested against. Integers give exactly the sums that the
//! dot-product instructions give.

use half::bf16;

use super::kernels::Kernels;
use super::lanes::{Dot, Lanes};
use super::rows::{Narrower, STEP_LEAST, STEPS, magnitude};
use super::{attention, engine::Precision, product, rows};

pub(super) fn kernels(precision: Precision) -> Kernels {
    let floats = Kernels {
        panel: 2 * Four::N,
        rows_multiple: 1,
        product: product::multiply::<Floats>,
        attention: attention::attend::<Floats>,
        norm: rows::norm::<Four>,
        narrow: None,
    };
    match precision {
        Precision::F32 => floats,
        Precision::Bf16 => {
            Kernels { product: product::multiply::<Halves>, narrow: Some(rows::narrow::<Halves>), ..floats }
        }
        Precision::Int8 => {
            Kernels { product: product::multiply::<Bytes>, narrow: Some(rows::narrow::<Bytes>), ..floats }
        }
    }
}

#[derive(Clone, Copy)]
struct Four;

impl Lanes for Four {
    const N: usize = 4;
    type Floats = [f32; 4];

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 4] {
        [value; 4]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        // SAFETY: the trait's promise.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, value: [f32; 4]) {
        // SAFETY: the trait's promise.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(value) };
    }

    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]]
    }

    #[inline(always)]
    unsafe fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        [a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3]]
    }

    #[inline(always)]
    unsafe fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        [a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]]
    }

    /// In two steps: `f32::mul_add` is a function call where the processor has no instruction for it.
    #[inline(always)]
    unsafe fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        [a[0] * b[0] + c[0], a[1] * b[1] + c[1], a[2] * b[2] + c[2], a[3] * b[3] + c[3]]
    }

    #[inline(always)]
    unsafe fn min(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    unsafe fn max(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    /// Adding and taking away 1.5 * 2^23 leaves no room for a fraction; `f32::round_ties_even` may be a call.
    #[inline(always)]
    unsafe fn round(value: [f32; 4]) -> [f32; 4] {
        value.map(|value| (value + 12_582_912.0) - 12_582_912.0)
    }

    #[inline(always)]
    unsafe fn scale(value: [f32; 4], power: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| value[i] * f32::from_bits(((power[i] as i32 + 127) << 23) as u32))
    }

    #[inline(always)]
    unsafe fn reciprocal(value: [f32; 4]) -> [f32; 4] {
        value.map(|value| 1.0 / value)
    }

    #[inline(always)]
    unsafe fn sum(value: [f32; 4]) -> f32 {
        (value[0] + value[1]) + (value[2] + value[3])
    }

    #[inline(always)]
    unsafe fn largest(value: [f32; 4]) -> f32 {
        value[0].max(value[1]).max(value[2].max(value[3]))
    }

    #[inline(always)]
    unsafe fn prefetch_first(_: *const u32) {}

    #[inline(always)]
    unsafe fn prefetch_second(_: *const u32) {}
}

/// A unit is one float.
#[derive(Clone, Copy)]
struct Floats;

impl Dot for Floats {
    type Lanes = Four;
    type Units = [f32; 4];
    type Sums = [f32; 4];
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn broadcast(unit: *const u32) -> [f32; 4] {
        // SAFETY: the trait's promise.
        unsafe { [unit.cast::<f32>().read(); 4] }
    }

    #[inline(always)]
    unsafe fn load(units: *const u32) -> [f32; 4] {
        // SAFETY: the trait's promise.
        unsafe { Four::load(units.cast()) }
    }

    #[inline(always)]
    unsafe fn start(_: Option<*const i32>) -> [f32; 4] {
        [0.0; 4]
    }

    #[inline(always)]
    unsafe fn dot(sums: [f32; 4], left: [f32; 4], right: [f32; 4]) -> [f32; 4] {
        // SAFETY: plain arithmetic.
        unsafe { Four::fma(left, right, sums) }
    }

    #[inline(always)]
    unsafe fn floats(sums: [f32; 4]) -> [f32; 4] {
        sums
    }
}

/// A unit is two bf16, the earlier one in the low half.
#[derive(Clone, Copy)]
struct Halves;

impl Dot for Halves {
    type Lanes = Four;
    type Units = [u32; 4];
    type Sums = [f32; 4];
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn broadcast(unit: *const u32) -> [u32; 4] {
        // SAFETY: the trait's promise.
        unsafe { [unit.read(); 4] }
    }

    #[inline(always)]
    unsafe fn load(units: *const u32) -> [u32; 4] {
        // SAFETY: the trait's promise.
        unsafe { units.cast::<[u32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn start(_: Option<*const i32>) -> [f32; 4] {
        [0.0; 4]
    }

    #[inline(always)]
    unsafe fn dot(sums: [f32; 4], left: [u32; 4], right: [u32; 4]) -> [f32; 4] {
        let (early, late) = (|pair: u32| f32::from_bits(pair << 16), |pair: u32| f32::from_bits(pair & 0xffff_0000));
        std::array::from_fn(|i| sums[i] + early(left[i]) * early(right[i]) + late(left[i]) * late(right[i]))
    }

    #[inline(always)]
    unsafe fn floats(sums: [f32; 4]) -> [f32; 4] {
        sums
    }
}

impl Narrower for Halves {
    type Lanes = Four;
    const PER_UNIT: usize = 2;

    #[inline(always)]
    unsafe fn row(row: *const f32, width: usize, units: *mut u32) -> f32 {
        for unit in 0..width / 2 {
            // SAFETY: the trait's promise.
            unsafe {
                let pair = [bf16::from_f32(*row.add(2 * unit)), bf16::from_f32(*row.add(2 * unit + 1))];
                *units.add(unit) = u32::from(pair[0].to_bits()) | u32::from(pair[1].to_bits()) << 16;
            }
        }
        1.0
    }
}

/// A unit is four bytes: unsigned on the left, shifted up by 128, and signed on the right.
#[derive(Clone, Copy)]
struct Bytes;

impl Dot for Bytes {
    type Lanes = Four;
    type Units = [u32; 4];
    type Sums = [i32; 4];
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn broadcast(unit: *const u32) -> [u32; 4] {
        // SAFETY: the trait's promise.
        unsafe { [unit.read(); 4] }
    }

    #[inline(always)]
    unsafe fn load(units: *const u32) -> [u32; 4] {
        // SAFETY: the trait's promise.
        unsafe { units.cast::<[u32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn start(from: Option<*const i32>) -> [i32; 4] {
        // SAFETY: the trait's promise.
        from.map_or([0; 4], |from| unsafe { from.cast::<[i32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn dot(sums: [i32; 4], left: [u32; 4], right: [u32; 4]) -> [i32; 4] {
        std::array::from_fn(|i| {
            let pairs = left[i].to_le_bytes().into_iter().zip(right[i].to_le_bytes());
            pairs.fold(sums[i], |sum, (left, right)| sum + i32::from(left) * i32::from(right as i8))
        })
    }

    #[inline(always)]
    unsafe fn floats(sums: [i32; 4]) -> [f32; 4] {
        sums.map(|sum| sum as f32)
    }
}

impl Narrower for Bytes {
    type Lanes = Four;
    const PER_UNIT: usize = 4;

    #[inline(always)]
    unsafe fn row(row: *const f32, width: usize, units: *mut u32) -> f32 {
        // SAFETY: the trait's promise; a byte needs no alignment.
        unsafe {
            let step = (magnitude::<Four>(row, width) / STEPS).max(STEP_LEAST);
            let factor = 1.0 / step;
            for at in 0..width {
                let steps = (*row.add(at) * factor + 12_582_912.0) - 12_582_912.0;
                *units.cast::<u8>().add(at) = (steps as i32 + 128).clamp(0, 255) as u8;
            }
            step
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{exp, gelu};
    use super::*;

    #[test]
    fn gelu_is_within_a_rounding_of_the_formula() {
        for step in -120_000..=120_000 {
            let x = step as f32 / 10_000.0;
            // SAFETY: plain arithmetic.
            let found = f64::from(unsafe { gelu::<Four>([x; 4]) }[0]);
            let expected = 0.5 * f64::from(x) * (1.0 + erf(f64::from(x) / 2f64.sqrt()));
            assert!((found - expected).abs() <= 2.5e-7 * f64::from(x.abs()).max(1e-3), "{x}: {found} and {expected}");
        }
    }

    #[test]
    fn exp_is_within_a_rounding_of_the_formula() {
        for step in 0..=87_000 {
            let x = step as f32 / -1000.0;
            // SAFETY: plain arithmetic.
            let found = f64::from(unsafe { exp::<Four>([x; 4]) }[0]);
            assert!((found / f64::from(x).exp() - 1.0).abs() <= 3e-7, "{x}: {found}");
        }
        for least in [f32::NEG_INFINITY, -1e30, -88.0] {
            // SAFETY: plain arithmetic.
            let found = unsafe { exp::<Four>([least; 4]) }[0];
            assert!((0.0..2e-38).contains(&found), "{least}: {found}");
        }
    }

    /// By its power series near zero and its continued fraction elsewhere.
    fn erf(x: f64) -> f64 {
        if x.abs() < 3.0 {
            let (mut term, mut sum, mut n) = (x, x, 0.0);
            while term.abs() > 1e-17 * sum.abs() {
                n += 1.0;
                term *= -x * x / n;
                sum += term / (2.0 * n + 1.0);
            }
            return sum * std::f64::consts::FRAC_2_SQRT_PI;
        }
        let tail = (1..=60).rev().fold(0.0, |tail, n| f64::from(n) / 2.0 / (x.abs() + tail));
        x.signum() * (1.0 - (-x * x).exp() / std::f64::consts::PI.sqrt() / (x.abs() + tail))
    }
}
