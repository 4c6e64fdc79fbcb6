//! How near are two rows: dot products in the widest instructions that this processor has.
//!
//! Invariant: on integers every kernel gives exactly the same sum; on halves they agree within rounding. It knows
//! nothing of vectors, scales or graphs, only bytes. A row of the index holds signed bytes shifted up by 128, because
//! the dot-product instructions take one unsigned and one signed operand; the caller subtracts `128 * sum(query)`.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// The kernels chosen for this processor. Choosing reads a cached CPUID, so it is cheap, but not free: choose once a
/// search, not once a row.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    signed: unsafe fn(&[u8], &[i8]) -> i32,
    rows: unsafe fn(&[u8], &[u8]) -> i32,
    halves: unsafe fn(&[f16], &[f32]) -> f32,
    differing: unsafe fn(&[[u64; 8]], &[u64], &mut [u16]),
}

impl Kernel {
    pub(crate) fn choose() -> Self {
        Self { differing: Self::choose_differing(), ..Self::choose_products() }
    }

    fn choose_products() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
            {
                return Self {
                    signed: x86::signed_512,
                    rows: x86::rows_512,
                    halves: x86::halves_512,
                    ..Self::PORTABLE
                };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") && is_x86_feature_detected!("fma") {
                return Self {
                    signed: x86::signed_256,
                    rows: x86::rows_256,
                    halves: x86::halves_256,
                    ..Self::PORTABLE
                };
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            return Self { signed: neon::signed, rows: neon::rows, ..Self::PORTABLE };
        }
        Self::PORTABLE
    }

    fn choose_differing() -> unsafe fn(&[[u64; 8]], &[u64], &mut [u16]) {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vpopcntdq") {
                return x86::differing_512;
            }
            if is_x86_feature_detected!("avx2") {
                return x86::differing_256;
            }
        }
        portable::differing
    }

    /// Sum of `row[i] * query[i]` over the shorter length.
    #[inline(always)]
    pub(crate) fn dot_u8_i8(&self, row: &[u8], query: &[i8]) -> i32 {
        // SAFETY: a kernel gets into `self` only after its instructions were found, and stays within both slices.
        unsafe { (self.signed)(row, query) }
    }

    /// Sum of `(a[i] - 128) * (b[i] - 128)` over the shorter length: two stored rows, while a graph is built.
    #[inline(always)]
    pub(crate) fn dot_rows(&self, a: &[u8], b: &[u8]) -> i32 {
        // SAFETY: as above.
        unsafe { (self.rows)(a, b) }
    }

    /// Sum of `row[i] * query[i]` over the shorter length.
    #[inline(always)]
    pub(crate) fn dot_f16(&self, row: &[f16], query: &[f32]) -> f32 {
        // SAFETY: as above.
        unsafe { (self.halves)(row, query) }
    }

    /// How many bits of each row differ from the query's. A row is as many words as the query; rows lie in eights, a
    /// word of all eight after the other, and each eight of `counts` is for one such group.
    pub(crate) fn differing(&self, groups: &[[u64; 8]], query: &[u64], counts: &mut [u16]) {
        // SAFETY: as above.
        unsafe { (self.differing)(groups, query, counts) }
    }

    const PORTABLE: Self = Self {
        signed: portable::signed,
        rows: portable::rows,
        halves: portable::halves,
        differing: portable::differing,
    };
}

/// Asks for a row of small values before it is needed; a row is a few cache lines.
#[inline(always)]
pub(crate) fn prefetch<T>(row: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in row.chunks(64 / size_of::<T>().clamp(1, 64)) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program could see; the address is inside `row` besides.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    // Other processors prefetch by themselves: the intrinsic for it is not stable.
    #[cfg(not(target_arch = "x86_64"))]
    drop::<&[T]>(row);
}

/// Bytes as halves, as they lie in a file; bytes that are not aligned for it give an empty slice.
pub(crate) fn halves(bytes: &[u8]) -> &[f16] {
    // SAFETY: every two bytes are a valid half, and the middle part is aligned by `align_to` itself.
    let (before, halves, _) = unsafe { bytes.align_to::<f16>() };
    if before.is_empty() { halves } else { &[] }
}

/// Bytes as words; bytes that are not aligned for it give an empty slice.
pub(crate) fn words(bytes: &[u8]) -> &[u32] {
    // SAFETY: every four bytes are a valid word, and the middle part is aligned by `align_to` itself.
    let (before, words, _) = unsafe { bytes.align_to::<u32>() };
    if before.is_empty() { words } else { &[] }
}

/// What every processor can do; also what the others are tested against.
mod portable {
    use super::*;

    pub(super) fn signed(row: &[u8], query: &[i8]) -> i32 {
        row.iter().zip(query).map(|(r, q)| i32::from(*r) * i32::from(*q)).sum()
    }

    pub(super) fn rows(a: &[u8], b: &[u8]) -> i32 {
        a.iter().zip(b).map(|(a, b)| (i32::from(*a) - 128) * (i32::from(*b) - 128)).sum()
    }

    /// Written so that the compiler uses whatever counts bits in whole registers.
    #[inline(always)]
    pub(super) fn differing(groups: &[[u64; 8]], query: &[u64], counts: &mut [u16]) {
        let groups = groups.chunks_exact(query.len().max(1));
        for (group, counts) in groups.zip(counts.chunks_exact_mut(8)) {
            let mut sums = [0u64; 8];
            for (words, query) in group.iter().zip(query) {
                for (sum, word) in sums.iter_mut().zip(words) {
                    *sum += u64::from((word ^ query).count_ones());
                }
            }
            counts.iter_mut().zip(sums).for_each(|(count, sum)| *count = sum as u16);
        }
    }

    /// A block at a time, so that the conversion may use whole registers where the processor converts halves.
    pub(super) fn halves(row: &[f16], query: &[f32]) -> f32 {
        let mut wide = [0f32; 64];
        let blocks = row.chunks(64).zip(query.chunks(64));
        blocks
            .map(|(row, query)| {
                let wide = &mut wide[..row.len()];
                row.convert_to_f32_slice(wide);
                crate::decision::dot(wide, query)
            })
            .sum()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn signed_512(row: &[u8], query: &[i8]) -> i32 {
        let length = row.len().min(query.len());
        let (r, q) = (row.as_ptr(), query.as_ptr());
        let (mut even, mut odd) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        let mut i = 0;
        // SAFETY: whole loads end at or before `length`; the last one is masked to what is left.
        unsafe {
            while i + 128 <= length {
                even = _mm512_dpbusd_epi32(even, load(r, i), load(q.cast(), i));
                odd = _mm512_dpbusd_epi32(odd, load(r, i + 64), load(q.cast(), i + 64));
                i += 128;
            }
            while i < length {
                let mask = mask(length - i);
                let (r, q) = (_mm512_maskz_loadu_epi8(mask, r.add(i).cast()), _mm512_maskz_loadu_epi8(mask, q.add(i)));
                even = _mm512_dpbusd_epi32(even, r, q);
                i += 64;
            }
        }
        _mm512_reduce_add_epi32(_mm512_add_epi32(even, odd))
    }

    /// One side is turned into signed bytes on the way; what the shift of the other adds is summed up beside it.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn rows_512(a: &[u8], b: &[u8]) -> i32 {
        let length = a.len().min(b.len());
        let (a, b) = (a.as_ptr(), b.as_ptr());
        let shift = _mm512_set1_epi8(-128);
        let (mut product, mut shifted) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        let mut i = 0;
        while i < length {
            let mask = mask(length - i);
            // SAFETY: loads are masked to what is left of both slices.
            let (x, y) = unsafe {
                (_mm512_maskz_loadu_epi8(mask, a.add(i).cast()), _mm512_maskz_loadu_epi8(mask, b.add(i).cast()))
            };
            let y = _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(y, shift));
            product = _mm512_dpbusd_epi32(product, x, y);
            shifted = _mm512_dpbusd_epi32(shifted, shift, y);
            i += 64;
        }
        _mm512_reduce_add_epi32(_mm512_sub_epi32(product, shifted))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn halves_512(row: &[f16], query: &[f32]) -> f32 {
        let length = row.len().min(query.len());
        let (r, q) = (row.as_ptr(), query.as_ptr());
        let (mut even, mut odd) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        let mut i = 0;
        // SAFETY: whole loads end at or before `length`.
        unsafe {
            while i + 32 <= length {
                let (low, high) = (_mm256_loadu_si256(r.add(i).cast()), _mm256_loadu_si256(r.add(i + 16).cast()));
                even = _mm512_fmadd_ps(_mm512_cvtph_ps(low), _mm512_loadu_ps(q.add(i)), even);
                odd = _mm512_fmadd_ps(_mm512_cvtph_ps(high), _mm512_loadu_ps(q.add(i + 16)), odd);
                i += 32;
            }
        }
        _mm512_reduce_add_ps(_mm512_add_ps(even, odd)) + portable::halves(&row[i..length], &query[i..length])
    }

    /// Widened to sixteen bits before the product: the instruction that multiplies bytes saturates.
    #[target_feature(enable = "avx2")]
    pub(super) fn signed_256(row: &[u8], query: &[i8]) -> i32 {
        let length = row.len().min(query.len());
        let mut sum = _mm256_setzero_si256();
        let mut i = 0;
        while i + 16 <= length {
            // SAFETY: sixteen bytes from `i` are inside both slices.
            let (r, q) =
                unsafe { (_mm_loadu_si128(row.as_ptr().add(i).cast()), _mm_loadu_si128(query.as_ptr().add(i).cast())) };
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_cvtepu8_epi16(r), _mm256_cvtepi8_epi16(q)));
            i += 16;
        }
        sum_256(sum) + portable::signed(&row[i..length], &query[i..length])
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn rows_256(a: &[u8], b: &[u8]) -> i32 {
        let length = a.len().min(b.len());
        let shift = _mm256_set1_epi16(128);
        let mut sum = _mm256_setzero_si256();
        let mut i = 0;
        while i + 16 <= length {
            // SAFETY: sixteen bytes from `i` are inside both slices.
            let (x, y) =
                unsafe { (_mm_loadu_si128(a.as_ptr().add(i).cast()), _mm_loadu_si128(b.as_ptr().add(i).cast())) };
            let x = _mm256_sub_epi16(_mm256_cvtepu8_epi16(x), shift);
            let y = _mm256_sub_epi16(_mm256_cvtepu8_epi16(y), shift);
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(x, y));
            i += 16;
        }
        sum_256(sum) + portable::rows(&a[i..length], &b[i..length])
    }

    #[target_feature(enable = "avx2,f16c,fma")]
    pub(super) fn halves_256(row: &[f16], query: &[f32]) -> f32 {
        let length = row.len().min(query.len());
        let (r, q) = (row.as_ptr(), query.as_ptr());
        let (mut even, mut odd) = (_mm256_setzero_ps(), _mm256_setzero_ps());
        let mut i = 0;
        // SAFETY: whole loads end at or before `length`.
        unsafe {
            while i + 16 <= length {
                let (low, high) = (_mm_loadu_si128(r.add(i).cast()), _mm_loadu_si128(r.add(i + 8).cast()));
                even = _mm256_fmadd_ps(_mm256_cvtph_ps(low), _mm256_loadu_ps(q.add(i)), even);
                odd = _mm256_fmadd_ps(_mm256_cvtph_ps(high), _mm256_loadu_ps(q.add(i + 8)), odd);
                i += 16;
            }
        }
        let mut lanes = [0f32; 8];
        // SAFETY: eight floats fit eight lanes.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_add_ps(even, odd)) };
        lanes.iter().sum::<f32>() + portable::halves(&row[i..length], &query[i..length])
    }

    #[target_feature(enable = "avx512f,avx512vpopcntdq")]
    pub(super) fn differing_512(groups: &[[u64; 8]], query: &[u64], counts: &mut [u16]) {
        portable::differing(groups, query, counts);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn differing_256(groups: &[[u64; 8]], query: &[u64], counts: &mut [u16]) {
        portable::differing(groups, query, counts);
    }

    #[target_feature(enable = "avx2")]
    fn sum_256(sums: __m256i) -> i32 {
        let mut lanes = [0i32; 8];
        // SAFETY: eight integers fit eight lanes.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums) };
        lanes.iter().sum()
    }

    /// # Safety
    /// Sixty-four bytes from `at` are readable.
    #[target_feature(enable = "avx512f")]
    unsafe fn load(bytes: *const u8, at: usize) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_si512(bytes.add(at).cast()) }
    }

    fn mask(left: usize) -> u64 {
        if left >= 64 { u64::MAX } else { (1 << left) - 1 }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    use super::*;

    #[target_feature(enable = "neon")]
    pub(super) fn signed(row: &[u8], query: &[i8]) -> i32 {
        let length = row.len().min(query.len());
        let mut sum = vdupq_n_s32(0);
        let mut i = 0;
        while i + 8 <= length {
            // SAFETY: eight bytes from `i` are inside both slices.
            let (r, q) = unsafe { (vld1_u8(row.as_ptr().add(i)), vld1_s8(query.as_ptr().add(i))) };
            let (r, q) = (vreinterpretq_s16_u16(vmovl_u8(r)), vmovl_s8(q));
            sum = vmlal_s16(vmlal_high_s16(sum, r, q), vget_low_s16(r), vget_low_s16(q));
            i += 8;
        }
        vaddvq_s32(sum) + portable::signed(&row[i..length], &query[i..length])
    }

    #[target_feature(enable = "neon")]
    pub(super) fn rows(a: &[u8], b: &[u8]) -> i32 {
        let length = a.len().min(b.len());
        let shift = vdupq_n_s16(128);
        let mut sum = vdupq_n_s32(0);
        let mut i = 0;
        while i + 8 <= length {
            // SAFETY: eight bytes from `i` are inside both slices.
            let (x, y) = unsafe { (vld1_u8(a.as_ptr().add(i)), vld1_u8(b.as_ptr().add(i))) };
            let x = vsubq_s16(vreinterpretq_s16_u16(vmovl_u8(x)), shift);
            let y = vsubq_s16(vreinterpretq_s16_u16(vmovl_u8(y)), shift);
            sum = vmlal_s16(vmlal_high_s16(sum, x, y), vget_low_s16(x), vget_low_s16(y));
            i += 8;
        }
        vaddvq_s32(sum) + portable::rows(&a[i..length], &b[i..length])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every kernel that this processor can run.
    fn kernels() -> Vec<Kernel> {
        let mut all = vec![Kernel::PORTABLE, Kernel::choose()];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") && is_x86_feature_detected!("fma") {
            all.push(Kernel {
                signed: x86::signed_256,
                rows: x86::rows_256,
                halves: x86::halves_256,
                differing: x86::differing_256,
            });
        }
        all
    }

    #[test]
    fn extreme_bytes_give_the_same_sum_at_every_length() {
        for length in 1..=1024 {
            for (high, low) in [(255u8, -128i8), (255, 127), (0, -128), (128, 1)] {
                let (row, query) = (vec![high; length], vec![low; length]);
                let other = vec![low as u8; length];
                for kernel in kernels() {
                    assert_eq!(kernel.dot_u8_i8(&row, &query), portable::signed(&row, &query), "{length}");
                    assert_eq!(kernel.dot_rows(&row, &other), portable::rows(&row, &other), "{length}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn kernels_agree(pairs in prop::collection::vec((any::<u8>(), any::<i8>()), 0..1100)) {
            let (row, query): (Vec<u8>, Vec<i8>) = pairs.into_iter().unzip();
            let other: Vec<u8> = query.iter().map(|q| *q as u8).collect();
            for kernel in kernels() {
                prop_assert_eq!(kernel.dot_u8_i8(&row, &query), portable::signed(&row, &query));
                prop_assert_eq!(kernel.dot_rows(&row, &other), portable::rows(&row, &other));
            }
        }

        #[test]
        fn differing_bits_are_counted(query in prop::collection::vec(any::<u64>(), 1..9), seed in any::<u64>()) {
            let mut random = fastrand::Rng::with_seed(seed);
            let groups: Vec<[u64; 8]> =
                (0..3 * query.len()).map(|_| std::array::from_fn(|_| random.u64(..))).collect();
            for kernel in kernels() {
                let mut counts = [0; 24];
                kernel.differing(&groups, &query, &mut counts);
                for (row, count) in counts.iter().enumerate() {
                    let group = &groups[row / 8 * query.len()..];
                    let plain: u32 = query.iter().zip(group).map(|(q, words)| (q ^ words[row % 8]).count_ones()).sum();
                    prop_assert_eq!(u32::from(*count), plain);
                }
            }
        }

        #[test]
        fn halves_agree_with_the_plain_sum(pairs in prop::collection::vec((-1f32..1.0, -1f32..1.0), 1..1100)) {
            let (mut row, mut query): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            for side in [&mut row, &mut query] {
                let norm = side.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6);
                side.iter_mut().for_each(|x| *x /= norm);
            }
            let row: Vec<f16> = row.into_iter().map(f16::from_f32).collect();
            let plain: f64 = row.iter().zip(&query).map(|(r, q)| f64::from(r.to_f32()) * f64::from(*q)).sum();
            for kernel in kernels() {
                prop_assert!((f64::from(kernel.dot_f16(&row, &query)) - plain).abs() < 1e-5);
            }
        }
    }
}
