//! Kernels for x86 processors with AVX2 and FMA: eight floats a register, sixteen registers.
//!
//! Tiles are 6 rows by 16 outputs: twelve registers of sums, two of weights, and one to spread a left unit over.

use std::arch::x86_64::*;

use super::attention::{Attention, attend};
use super::engine::Precision;
use super::kernels::Kernels;
use super::lanes::{Dot, Lanes, methods};
use super::product::{Product, multiply};
use super::rows::{self, Narrow, Narrower, Norm, STEP_LEAST, STEPS, magnitude};

pub(super) fn kernels(precision: Precision) -> Option<Kernels> {
    if !is_x86_feature_detected!("avx2") || !is_x86_feature_detected!("fma") {
        return None;
    }
    let floats = Kernels { panel: 2 * Eight::N, rows_multiple: 1, product: product_f32, attention, norm, narrow: None };
    match precision {
        Precision::F32 => Some(floats),
        Precision::Bf16 => None,
        Precision::Int8 => is_x86_feature_detected!("avxvnni").then_some(Kernels {
            product: product_int8,
            narrow: Some(narrow_int8),
            ..floats
        }),
    }
}

#[target_feature(enable = "avx2,fma")]
fn product_f32(product: Product<'_>) {
    // SAFETY: compiled for the instructions of `Floats`.
    unsafe { multiply::<Floats>(product) }
}

#[target_feature(enable = "avx2,fma,avxvnni")]
fn product_int8(product: Product<'_>) {
    // SAFETY: compiled for the instructions of `Bytes`.
    unsafe { multiply::<Bytes>(product) }
}

#[target_feature(enable = "avx2,fma")]
fn attention(attention: Attention<'_>) {
    // SAFETY: compiled for the instructions of `Floats`, whose unit is a float.
    unsafe { attend::<Floats>(attention) }
}

#[target_feature(enable = "avx2,fma")]
fn norm(norm: Norm<'_>) {
    // SAFETY: compiled for the instructions of `Eight`.
    unsafe { rows::norm::<Eight>(norm) }
}

#[target_feature(enable = "avx2,fma,avxvnni")]
fn narrow_int8(narrow: Narrow<'_>) {
    // SAFETY: compiled for the instructions of `Bytes`.
    unsafe { rows::narrow::<Bytes>(narrow) }
}

#[derive(Clone, Copy)]
struct Eight;

impl Lanes for Eight {
    const N: usize = 8;
    type Floats = __m256;

    methods! {
        splat(value: f32) -> __m256 = _mm256_set1_ps(value);
        load(from: *const f32) -> __m256 = _mm256_loadu_ps(from);
        store(to: *mut f32, value: __m256) -> () = _mm256_storeu_ps(to, value);
        add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        min(a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        max(a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        round(value: __m256) -> __m256 =
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(value);
        scale(value: __m256, power: __m256) -> __m256 = {
            // The power goes straight into the exponent.
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(power), _mm256_set1_epi32(127));
            _mm256_mul_ps(value, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        };
        reciprocal(value: __m256) -> __m256 = _mm256_div_ps(_mm256_set1_ps(1.0), value);
        sum(value: __m256) -> f32 = {
            let four = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps::<1>(value));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        };
        largest(value: __m256) -> f32 = {
            let four = _mm_max_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps::<1>(value));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        };
        prefetch_first(line: *const u32) -> () = _mm_prefetch::<_MM_HINT_T0>(line.cast());
        prefetch_second(line: *const u32) -> () = _mm_prefetch::<_MM_HINT_T1>(line.cast());
    }
}

/// A unit is one float.
#[derive(Clone, Copy)]
struct Floats;

impl Dot for Floats {
    type Lanes = Eight;
    type Units = __m256;
    type Sums = __m256;
    const ROWS: usize = 6;

    methods! {
        broadcast(unit: *const u32) -> __m256 = _mm256_set1_ps(unit.cast::<f32>().read());
        load(units: *const u32) -> __m256 = _mm256_loadu_ps(units.cast());
        start(_from: Option<*const i32>) -> __m256 = _mm256_setzero_ps();
        dot(sums: __m256, left: __m256, right: __m256) -> __m256 = _mm256_fmadd_ps(left, right, sums);
    }

    #[inline(always)]
    unsafe fn floats(sums: __m256) -> __m256 {
        sums
    }
}

/// A unit is four bytes: unsigned on the left, shifted up by 128, and signed on the right.
#[derive(Clone, Copy)]
struct Bytes;

impl Dot for Bytes {
    type Lanes = Eight;
    type Units = __m256i;
    type Sums = __m256i;
    const ROWS: usize = 6;

    methods! {
        broadcast(unit: *const u32) -> __m256i = _mm256_set1_epi32(unit.cast::<i32>().read());
        load(units: *const u32) -> __m256i = _mm256_loadu_si256(units.cast());
        start(from: Option<*const i32>) -> __m256i = match from {
            Some(from) => _mm256_loadu_si256(from.cast()),
            None => _mm256_setzero_si256(),
        };
        dot(sums: __m256i, left: __m256i, right: __m256i) -> __m256i = _mm256_dpbusd_avx_epi32(sums, left, right);
        floats(sums: __m256i) -> __m256 = _mm256_cvtepi32_ps(sums);
    }
}

impl Narrower for Bytes {
    type Lanes = Eight;
    const PER_UNIT: usize = 4;

    methods! {
        row(row: *const f32, width: usize, units: *mut u32) -> f32 = {
            let step = (magnitude::<Eight>(row, width) / STEPS).max(STEP_LEAST);
            let factor = _mm256_set1_ps(1.0 / step);
            let mut at = 0;
            while at < width {
                let mut shifted = [_mm256_setzero_si256(); 4];
                let mut i = 0;
                while i < 4 {
                    let steps = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(row.add(at + 8 * i)), factor));
                    shifted[i] = _mm256_add_epi32(steps, _mm256_set1_epi32(128));
                    i += 1;
                }
                // Packing works within half registers: the last step puts groups of four back in order.
                let early = _mm256_packs_epi32(shifted[0], shifted[1]);
                let late = _mm256_packs_epi32(shifted[2], shifted[3]);
                let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
                let bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(early, late), order);
                _mm256_storeu_si256(units.cast::<u8>().add(at).cast(), bytes);
                at += 32;
            }
            step
        };
    }
}
