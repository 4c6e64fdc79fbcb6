//! Kernels for aarch64: four floats a register, thirty-two registers.
//!
//! Tiles are 12 rows by 8 outputs, as with AVX-512 in registers. Prefetching is left to the processor: the intrinsic
//! for it is not stable, and these processors follow a stream by themselves.

use std::arch::aarch64::*;

use super::attention::{Attention, attend};
use super::kernels::Kernels;
use super::lanes::{Dot, Lanes, methods};
use super::product::{Product, multiply};
use super::rows::{self, Norm};

pub(super) fn kernels() -> Option<Kernels> {
    let floats = Kernels { panel: 2 * Four::N, rows_multiple: 1, product, attention, norm, narrow: None };
    std::arch::is_aarch64_feature_detected!("neon").then_some(floats)
}

#[target_feature(enable = "neon")]
fn product(product: Product<'_>) {
    // SAFETY: compiled for the instructions of `Floats`.
    unsafe { multiply::<Floats>(product) }
}

#[target_feature(enable = "neon")]
fn attention(attention: Attention<'_>) {
    // SAFETY: compiled for the instructions of `Floats`, whose unit is a float.
    unsafe { attend::<Floats>(attention) }
}

#[target_feature(enable = "neon")]
fn norm(norm: Norm<'_>) {
    // SAFETY: compiled for the instructions of `Four`.
    unsafe { rows::norm::<Four>(norm) }
}

#[derive(Clone, Copy)]
struct Four;

impl Lanes for Four {
    const N: usize = 4;
    type Floats = float32x4_t;

    methods! {
        splat(value: f32) -> float32x4_t = vdupq_n_f32(value);
        load(from: *const f32) -> float32x4_t = vld1q_f32(from);
        store(to: *mut f32, value: float32x4_t) -> () = vst1q_f32(to, value);
        add(a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
        sub(a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
        mul(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
        fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
        min(a: float32x4_t, b: float32x4_t) -> float32x4_t = vminq_f32(a, b);
        max(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmaxq_f32(a, b);
        round(value: float32x4_t) -> float32x4_t = vrndnq_f32(value);
        scale(value: float32x4_t, power: float32x4_t) -> float32x4_t = {
            // The power goes straight into the exponent.
            let exponent = vaddq_s32(vcvtq_s32_f32(power), vdupq_n_s32(127));
            vmulq_f32(value, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
        };
        reciprocal(value: float32x4_t) -> float32x4_t = vdivq_f32(vdupq_n_f32(1.0), value);
        sum(value: float32x4_t) -> f32 = vaddvq_f32(value);
        largest(value: float32x4_t) -> f32 = vmaxvq_f32(value);
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
    type Units = float32x4_t;
    type Sums = float32x4_t;
    const ROWS: usize = 12;

    methods! {
        broadcast(unit: *const u32) -> float32x4_t = vld1q_dup_f32(unit.cast());
        load(units: *const u32) -> float32x4_t = vld1q_f32(units.cast());
        start(_from: Option<*const i32>) -> float32x4_t = vdupq_n_f32(0.0);
        dot(sums: float32x4_t, left: float32x4_t, right: float32x4_t) -> float32x4_t = vfmaq_f32(sums, left, right);
    }

    #[inline(always)]
    unsafe fn floats(sums: float32x4_t) -> float32x4_t {
        sums
    }
}
