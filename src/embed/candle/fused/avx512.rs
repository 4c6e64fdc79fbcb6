//! Kernels for x86 processors with AVX-512: sixteen floats a register, thirty-two registers.
//!
//! Tiles are 12 rows by 32 outputs: 24 registers of sums keep both multipliers busy, and a step loads 14 values for its
//! 24 multiplications. Texts of up to 12 tokens then read every weight exactly once.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::attention::{Attention, attend};
use super::engine::Precision;
use super::kernels::Kernels;
use super::lanes::{Dot, Lanes, methods};
use super::product::{Product, multiply};
use super::rows::{self, Narrow, Narrower, Norm, STEP_LEAST, STEPS, magnitude};

pub(super) fn kernels(precision: Precision) -> Option<Kernels> {
    if !is_x86_feature_detected!("avx512f") || !is_x86_feature_detected!("fma") {
        return None;
    }
    let floats =
        Kernels { panel: 2 * Sixteen::N, rows_multiple: 1, product: product_f32, attention, norm, narrow: None };
    match precision {
        Precision::F32 => Some(floats),
        Precision::Bf16 => is_x86_feature_detected!("avx512bf16").then_some(Kernels {
            product: product_bf16,
            narrow: Some(narrow_bf16),
            ..floats
        }),
        Precision::Int8 => is_x86_feature_detected!("avx512vnni").then_some(Kernels {
            product: product_int8,
            narrow: Some(narrow_int8),
            ..floats
        }),
    }
}

#[target_feature(enable = "avx512f,fma")]
fn product_f32(product: Product<'_>) {
    // SAFETY: compiled for the instructions of `Floats`.
    unsafe { multiply::<Floats>(product) }
}

#[target_feature(enable = "avx512f,fma,avx512bf16")]
fn product_bf16(product: Product<'_>) {
    // SAFETY: compiled for the instructions of `Halves`.
    unsafe { multiply::<Halves>(product) }
}

#[target_feature(enable = "avx512f,fma,avx512vnni")]
fn product_int8(product: Product<'_>) {
    // SAFETY: compiled for the instructions of `Bytes`.
    unsafe { multiply::<Bytes>(product) }
}

#[target_feature(enable = "avx512f,fma")]
pub(super) fn attention(attention: Attention<'_>) {
    // SAFETY: compiled for the instructions of `Floats`, whose unit is a float.
    unsafe { attend::<Floats>(attention) }
}

#[target_feature(enable = "avx512f,fma")]
pub(super) fn norm(norm: Norm<'_>) {
    // SAFETY: compiled for the instructions of `Sixteen`.
    unsafe { rows::norm::<Sixteen>(norm) }
}

#[target_feature(enable = "avx512f,fma,avx512bf16")]
pub(super) fn narrow_bf16(narrow: Narrow<'_>) {
    // SAFETY: compiled for the instructions of `Halves`.
    unsafe { rows::narrow::<Halves>(narrow) }
}

#[target_feature(enable = "avx512f,fma,avx512vnni")]
pub(super) fn narrow_int8(narrow: Narrow<'_>) {
    // SAFETY: compiled for the instructions of `Bytes`.
    unsafe { rows::narrow::<Bytes>(narrow) }
}

#[derive(Clone, Copy)]
pub(super) struct Sixteen;

impl Lanes for Sixteen {
    const N: usize = 16;
    type Floats = __m512;

    methods! {
        splat(value: f32) -> __m512 = _mm512_set1_ps(value);
        load(from: *const f32) -> __m512 = _mm512_loadu_ps(from);
        store(to: *mut f32, value: __m512) -> () = _mm512_storeu_ps(to, value);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        round(value: __m512) -> __m512 = _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(value);
        scale(value: __m512, power: __m512) -> __m512 = _mm512_scalef_ps(value, power);
        reciprocal(value: __m512) -> __m512 = {
            // Fourteen bits, and one step of Newton doubles them.
            let near = _mm512_rcp14_ps(value);
            _mm512_mul_ps(near, _mm512_fnmadd_ps(value, near, _mm512_set1_ps(2.0)))
        };
        sum(value: __m512) -> f32 = _mm512_reduce_add_ps(value);
        largest(value: __m512) -> f32 = _mm512_reduce_max_ps(value);
        prefetch_first(line: *const u32) -> () = _mm_prefetch::<_MM_HINT_T0>(line.cast());
        prefetch_second(line: *const u32) -> () = _mm_prefetch::<_MM_HINT_T1>(line.cast());
    }
}

/// A unit is one float.
#[derive(Clone, Copy)]
struct Floats;

impl Dot for Floats {
    type Lanes = Sixteen;
    type Units = __m512;
    type Sums = __m512;
    const ROWS: usize = 12;

    methods! {
        broadcast(unit: *const u32) -> __m512 = _mm512_set1_ps(unit.cast::<f32>().read());
        load(units: *const u32) -> __m512 = _mm512_loadu_ps(units.cast());
        start(_from: Option<*const i32>) -> __m512 = _mm512_setzero_ps();
        dot(sums: __m512, left: __m512, right: __m512) -> __m512 = _mm512_fmadd_ps(left, right, sums);
    }

    #[inline(always)]
    unsafe fn floats(sums: __m512) -> __m512 {
        sums
    }
}

/// A unit is two bf16, the earlier one in the low half.
#[derive(Clone, Copy)]
struct Halves;

impl Dot for Halves {
    type Lanes = Sixteen;
    type Units = __m512i;
    type Sums = __m512;
    const ROWS: usize = 12;

    methods! {
        broadcast(unit: *const u32) -> __m512i = _mm512_set1_epi32(unit.cast::<i32>().read());
        load(units: *const u32) -> __m512i = _mm512_loadu_si512(units.cast());
        start(_from: Option<*const i32>) -> __m512 = _mm512_setzero_ps();
        dot(sums: __m512, left: __m512i, right: __m512i) -> __m512 = {
            // The type of packed bf16 is a register like any other.
            _mm512_dpbf16_ps(sums, transmute::<__m512i, __m512bh>(left), transmute::<__m512i, __m512bh>(right))
        };
    }

    #[inline(always)]
    unsafe fn floats(sums: __m512) -> __m512 {
        sums
    }
}

impl Narrower for Halves {
    type Lanes = Sixteen;
    const PER_UNIT: usize = 2;

    methods! {
        row(row: *const f32, width: usize, units: *mut u32) -> f32 = {
            let mut at = 0;
            while at < width {
                let halves = transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(row.add(at))));
                _mm256_storeu_si256(units.add(at / 2).cast(), halves);
                at += 16;
            }
            1.0
        };
    }
}

/// A unit is four bytes: unsigned on the left, shifted up by 128, and signed on the right.
#[derive(Clone, Copy)]
struct Bytes;

impl Dot for Bytes {
    type Lanes = Sixteen;
    type Units = __m512i;
    type Sums = __m512i;
    const ROWS: usize = 12;

    methods! {
        broadcast(unit: *const u32) -> __m512i = _mm512_set1_epi32(unit.cast::<i32>().read());
        load(units: *const u32) -> __m512i = _mm512_loadu_si512(units.cast());
        start(from: Option<*const i32>) -> __m512i = match from {
            Some(from) => _mm512_loadu_si512(from.cast()),
            None => _mm512_setzero_si512(),
        };
        dot(sums: __m512i, left: __m512i, right: __m512i) -> __m512i = _mm512_dpbusd_epi32(sums, left, right);
        floats(sums: __m512i) -> __m512 = _mm512_cvtepi32_ps(sums);
    }
}

impl Narrower for Bytes {
    type Lanes = Sixteen;
    const PER_UNIT: usize = 4;

    methods! {
        row(row: *const f32, width: usize, units: *mut u32) -> f32 = {
            let step = (magnitude::<Sixteen>(row, width) / STEPS).max(STEP_LEAST);
            let factor = _mm512_set1_ps(1.0 / step);
            let mut at = 0;
            while at < width {
                let steps = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(row.add(at)), factor));
                let shifted = _mm512_add_epi32(steps, _mm512_set1_epi32(128));
                let bytes = _mm512_cvtusepi32_epi8(_mm512_max_epi32(shifted, _mm512_setzero_si512()));
                _mm_storeu_si128(units.cast::<u8>().add(at).cast(), bytes);
                at += 16;
            }
            step
        };
    }
}
