//! What a kernel needs from a processor: registers of floats, and a dot product in units of four bytes.
//!
//! Every kernel of the forward is written once, over these two traits; an instruction set is a page of one-line
//! methods. Everything here is `inline(always)`, because it must become part of the entry function that carries the
//! instruction set: compiled by itself it would have none. A unit is four bytes of one row along the depth: one f32,
//! two bf16 or four bytes, so that the loops, the packing and the prefetching are the same in every precision.

/// Registers of floats.
///
/// # Safety
/// Methods may be called only where the processor has the instructions, from a function compiled for them; addresses
/// have `N` floats behind them, and need no alignment.
pub(super) trait Lanes: Copy {
    /// Floats in a register.
    const N: usize;
    type Floats: Copy;

    unsafe fn splat(value: f32) -> Self::Floats;
    unsafe fn load(from: *const f32) -> Self::Floats;
    unsafe fn store(to: *mut f32, value: Self::Floats);
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn sub(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`, rounded once where the processor can.
    unsafe fn fma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    unsafe fn min(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn max(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// To the nearest integer.
    unsafe fn round(value: Self::Floats) -> Self::Floats;
    /// `value * 2^power` for integral powers from -126 to 127.
    unsafe fn scale(value: Self::Floats, power: Self::Floats) -> Self::Floats;
    /// One over a value from 1 to 2^60, within two units in the last place.
    unsafe fn reciprocal(value: Self::Floats) -> Self::Floats;
    unsafe fn sum(value: Self::Floats) -> f32;
    unsafe fn largest(value: Self::Floats) -> f32;
    /// Asks for the cache line at any address whatever, into the first cache or into the second.
    unsafe fn prefetch_first(line: *const u32);
    unsafe fn prefetch_second(line: *const u32);
}

/// A dot product in units of four bytes, one sum a lane.
///
/// # Safety
/// As for [`Lanes`]; an address has one unit behind it for `broadcast`, `Lanes::N` for the others.
pub(super) trait Dot: Copy {
    type Lanes: Lanes;
    type Units: Copy;
    type Sums: Copy;
    /// Rows whose sums fit in the registers, two registers of sums a row.
    const ROWS: usize;

    unsafe fn broadcast(unit: *const u32) -> Self::Units;
    unsafe fn load(units: *const u32) -> Self::Units;
    /// What the sums start from: nothing, or with integers a correction for the shift of the left side.
    unsafe fn start(from: Option<*const i32>) -> Self::Sums;
    unsafe fn dot(sums: Self::Sums, left: Self::Units, right: Self::Units) -> Self::Sums;
    unsafe fn floats(sums: Self::Sums) -> <Self::Lanes as Lanes>::Floats;
}

/// `e^x` for `x <= 0`, within 2e-7 relative; below -87 it stays at the smallest normal number, which no sum notices.
///
/// The argument is split into a power of two and a remainder up to `ln 2 / 2` (Cody and Waite's two-step constant, so
/// that the remainder is exact); the remainder goes through the polynomial of Cephes' `expf`.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(super) unsafe fn exp<L: Lanes>(x: L::Floats) -> L::Floats {
    // SAFETY: the caller's promise.
    unsafe {
        let x = L::max(x, L::splat(-87.0));
        let power = L::round(L::mul(x, L::splat(std::f32::consts::LOG2_E)));
        let rest = L::fma(power, L::splat(-0.693_359_4), x);
        let rest = L::fma(power, L::splat(2.121_944_4e-4), rest);
        let tail = polynomial::<L, 6>(rest, &EXP);
        L::scale(L::add(L::fma(tail, L::mul(rest, rest), rest), L::splat(1.0)), power)
    }
}

/// `x * Phi(x)`, the GELU of BERT with the exact erf: within 2e-7 of `|x|`.
///
/// `Phi(x) - 1/2` is odd and flat beyond 5.4, so it is `x` times a rational function of `x * x` there, cut to its
/// range. The coefficients are a Lawson-weighted least-squares fit in f64 whose own error is 6e-9; what is seen is the
/// rounding of f32. One division, no exponential: half of what the usual formula costs.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(super) unsafe fn gelu<L: Lanes>(x: L::Floats) -> L::Floats {
    // SAFETY: the caller's promise.
    unsafe {
        let near = L::max(L::min(x, L::splat(GELU_FLAT)), L::splat(-GELU_FLAT));
        let square = L::mul(near, near);
        let above = L::mul(near, polynomial::<L, 6>(square, &GELU_ABOVE));
        let below = polynomial::<L, 6>(square, &GELU_BELOW);
        let half = L::mul(above, L::reciprocal(below));
        let half = L::max(L::min(half, L::splat(0.5)), L::splat(-0.5));
        L::fma(x, half, L::mul(x, L::splat(0.5)))
    }
}

/// Horner's rule, highest power first.
#[inline(always)]
unsafe fn polynomial<L: Lanes, const N: usize>(x: L::Floats, coefficients: &[f32; N]) -> L::Floats {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sum = L::splat(coefficients[0]);
        let mut i = 1;
        while i < N {
            sum = L::fma(sum, x, L::splat(coefficients[i]));
            i += 1;
        }
        sum
    }
}

const EXP: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];
const GELU_FLAT: f32 = 5.4;
const GELU_ABOVE: [f32; 6] = [2.338_683_2e-8, 6.359_76e-6, 1.643_061_7e-4, 4.650_755e-3, 3.337_087_5e-2, 0.398_942_23];
const GELU_BELOW: [f32; 6] = [1.216_574_6e-6, 7.239_44e-5, 1.858_894_2e-3, 2.837_787_8e-2, 0.250_314_47, 1.0];

/// Methods of [`Lanes`], [`Dot`] and their like, one expression each.
macro_rules! methods {
    ($($name:ident($($argument:ident: $type:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name($($argument: $type),*) -> $out {
            // SAFETY: the trait's promise: the instructions are there, and so is the memory.
            unsafe { $body }
        }
    )*};
}

pub(super) use methods;
