//! What the machine could do at best: multiply, and read.

use std::hint::black_box;

/// Nanoseconds that this thread has run.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub fn thread_ns() -> u64 {
    const CLOCK_GETTIME: usize = 228;
    const THREAD: usize = 3;
    let mut time = [0u64; 2];
    // SAFETY: the system call writes two words of time; it keeps all registers but those that are named.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") CLOCK_GETTIME => _, in("rdi") THREAD, in("rsi") time.as_mut_ptr(),
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    time[0] * 1_000_000_000 + time[1]
}

/// Elsewhere the time that passes has to do.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub fn thread_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}

/// GFLOP/s of fused f32 multiply-adds that wait for nothing.
#[cfg(target_arch = "x86_64")]
pub fn peak() -> f64 {
    const STEPS: u64 = 400_000;
    let started = thread_ns();
    let done = if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has just said that it has the instructions.
        unsafe { x86::multiply_wide(STEPS) }
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: as above.
        unsafe { x86::multiply(STEPS) }
    } else {
        return f64::NAN;
    };
    done as f64 / (thread_ns() - started) as f64
}

/// GB/s of reading `words` from end to end, the second time: what is left in the caches by the first counts, as it does
/// for weights.
#[cfg(target_arch = "x86_64")]
pub fn stream(words: &[u32]) -> f64 {
    if !is_x86_feature_detected!("avx512f") {
        return plain_stream(words);
    }
    // SAFETY: the processor has just said that it has the instructions.
    unsafe { x86::read(words) };
    let started = thread_ns();
    // SAFETY: as above.
    unsafe { x86::read(words) };
    size_of_val(words) as f64 / (thread_ns() - started) as f64
}

#[cfg(not(target_arch = "x86_64"))]
pub fn peak() -> f64 {
    f64::NAN
}

#[cfg(not(target_arch = "x86_64"))]
pub fn stream(words: &[u32]) -> f64 {
    plain_stream(words)
}

fn plain_stream(words: &[u32]) -> f64 {
    let sum = || black_box(words.iter().fold(0u32, |sum, word| sum | word));
    sum();
    let started = thread_ns();
    sum();
    size_of_val(words) as f64 / (thread_ns() - started) as f64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    #[target_feature(enable = "avx512f")]
    pub fn multiply_wide(steps: u64) -> u64 {
        let mut sums = [_mm512_set1_ps(1.0); 24];
        let (a, b) = (black_box(_mm512_set1_ps(0.999)), black_box(_mm512_set1_ps(1e-3)));
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
        steps * 24 * 32
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn multiply(steps: u64) -> u64 {
        let mut sums = [_mm256_set1_ps(1.0); 12];
        let (a, b) = (black_box(_mm256_set1_ps(0.999)), black_box(_mm256_set1_ps(1e-3)));
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
        steps * 12 * 16
    }

    #[target_feature(enable = "avx512f")]
    pub fn read(words: &[u32]) {
        let mut sums = [_mm512_setzero_si512(); 4];
        for words in words.chunks_exact(64) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: four registers are in a chunk; what is prefetched may lie anywhere.
                unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(words.as_ptr().wrapping_add(1024 + 16 * i).cast());
                    *sum = _mm512_or_si512(*sum, _mm512_loadu_si512(words.as_ptr().add(16 * i).cast()));
                }
            }
        }
        black_box(sums);
    }
}
