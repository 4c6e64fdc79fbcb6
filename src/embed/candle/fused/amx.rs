//! Products in the tile registers of x86 processors with AMX, in bf16 and in bytes; the rest is AVX-512.
//!
//! A tile is 16 rows of 16 units. Panels are packed as for the other kernels, two tiles wide, so a tile of weights is
//! sixteen rows with the stride of a panel, and both precisions are one loop with two names for its one instruction. Two
//! by two tiles of sums use each tile loaded twice; with up to 16 rows one by two. Sums go to memory first and are
//! finished from there with the AVX-512 epilogue.
//!
//! The intrinsics are not stable, so this is assembly; it was written on a machine without tiles.

use std::arch::asm;
use std::arch::x86_64::*;

use super::avx512::{self, Sixteen};
use super::engine::Precision;
use super::kernels::Kernels;
use super::lanes::methods;
use super::product::{Place, Product, finish};
use super::system;

pub(super) fn kernels(precision: Precision) -> Option<Kernels> {
    // The same table with the product replaced: an AMX processor has all of these.
    let vectors = avx512::kernels(precision)?;
    let product: unsafe fn(Product<'_>) = match precision {
        Precision::F32 => return None,
        Precision::Bf16 => multiply::<Halves>,
        Precision::Int8 => multiply::<Bytes>,
    };
    (has_tiles(precision) && system::allow_tiles()).then_some(Kernels {
        rows_multiple: 2 * TILE_ROWS,
        product,
        ..vectors
    })
}

/// What `is_x86_feature_detected` would say if its names were stable: leaf 7, edx bits 22 (bf16), 24 (tiles), 25 (bytes).
/// That the system saves tiles is what the permission call answers.
fn has_tiles(precision: Precision) -> bool {
    let [tiles, kind] = [1 << 24, if precision == Precision::Bf16 { 1 << 22 } else { 1 << 25 }];
    let leaf = __cpuid_count(7, 0);
    leaf.edx & tiles != 0 && leaf.edx & kind != 0
}

/// Sums of two by two tiles, as bits: floats, or integers.
#[repr(C, align(64))]
struct Sums([u32; 2 * TILE_ROWS * PANEL]);

/// How tiles are shaped: all eight of them 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    const FULL: Self = Self {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };
}

/// The loop along the depth, with the instruction that multiplies. `$two`: with a second tile of rows.
macro_rules! tiles {
    ($multiply:literal, one, $place:expr) => {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "2:",
            "tileloadd tmm4, [{left} + {left_stride}*1]",
            "tileloadd tmm6, [{right} + {right_stride}*1]",
            concat!($multiply, " tmm0, tmm4, tmm6"),
            "tileloadd tmm7, [{right} + {right_stride}*1 + 64]",
            concat!($multiply, " tmm1, tmm4, tmm7"),
            "add {left}, 64",
            "add {right}, {turn}",
            "dec {turns}",
            "jnz 2b",
            "tilestored [{sums} + {right_stride}*1], tmm0",
            "tilestored [{sums} + {right_stride}*1 + 64], tmm1",
            left = inout(reg) $place.left => _,
            left_stride = in(reg) $place.left_stride,
            right = inout(reg) $place.right => _,
            right_stride = in(reg) ROW_BYTES,
            turn = const TILE_ROWS * ROW_BYTES,
            turns = inout(reg) $place.turns => _,
            sums = in(reg) $place.sums,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
    ($multiply:literal, two, $place:expr) => {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{left} + {left_stride}*1]",
            "tileloadd tmm6, [{right} + {right_stride}*1]",
            concat!($multiply, " tmm0, tmm4, tmm6"),
            "tileloadd tmm7, [{right} + {right_stride}*1 + 64]",
            concat!($multiply, " tmm1, tmm4, tmm7"),
            "tileloadd tmm5, [{below} + {left_stride}*1]",
            concat!($multiply, " tmm2, tmm5, tmm6"),
            concat!($multiply, " tmm3, tmm5, tmm7"),
            "add {left}, 64",
            "add {below}, 64",
            "add {right}, {turn}",
            "dec {turns}",
            "jnz 2b",
            "tilestored [{sums} + {right_stride}*1], tmm0",
            "tilestored [{sums} + {right_stride}*1 + 64], tmm1",
            "tilestored [{sums} + {right_stride}*1 + {turn}], tmm2",
            "tilestored [{sums} + {right_stride}*1 + {turn} + 64], tmm3",
            left = inout(reg) $place.left => _,
            below = inout(reg) $place.left.wrapping_add(TILE_ROWS * $place.left_stride) => _,
            left_stride = in(reg) $place.left_stride,
            right = inout(reg) $place.right => _,
            right_stride = in(reg) ROW_BYTES,
            turn = const TILE_ROWS * ROW_BYTES,
            turns = inout(reg) $place.turns => _,
            sums = in(reg) $place.sums,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// What a run of tiles works on; strides in bytes.
struct Run {
    left: *const u8,
    left_stride: usize,
    right: *const u8,
    turns: usize,
    sums: *mut u32,
}

/// The two precisions.
///
/// # Safety
/// Tiles of the precision are there, allowed and shaped; memory is as a run says.
trait Tiles {
    /// Shapes this thread's tiles; released again when a product is done, so that a switch of threads saves nothing.
    #[inline(always)]
    unsafe fn shape() {
        let shapes = Shapes::FULL;
        // SAFETY: the trait's promise; sixty-four bytes are read.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly)) };
    }

    #[inline(always)]
    unsafe fn release() {
        // SAFETY: the trait's promise.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }

    unsafe fn one(run: &Run) -> ();
    unsafe fn two(run: &Run) -> ();
    /// A register of sums as floats, corrected where there is a correction.
    unsafe fn floats(sums: *const u32, start: Option<*const i32>) -> __m512;
}

struct Halves;

impl Tiles for Halves {
    methods! {
        one(run: &Run) -> () = tiles!("tdpbf16ps", one, run);
        two(run: &Run) -> () = tiles!("tdpbf16ps", two, run);
        floats(sums: *const u32, _start: Option<*const i32>) -> __m512 = _mm512_loadu_ps(sums.cast());
    }
}

struct Bytes;

impl Tiles for Bytes {
    methods! {
        one(run: &Run) -> () = tiles!("tdpbusd", one, run);
        two(run: &Run) -> () = tiles!("tdpbusd", two, run);
        floats(sums: *const u32, start: Option<*const i32>) -> __m512 = {
            let sums = _mm512_loadu_si512(sums.cast());
            _mm512_cvtepi32_ps(match start {
                Some(start) => _mm512_add_epi32(sums, _mm512_loadu_si512(start.cast())),
                None => sums,
            })
        };
    }
}

#[target_feature(enable = "avx512f,fma")]
fn multiply<T: Tiles>(product: Product<'_>) {
    product.check(PANEL);
    let Product { rows, units, left, left_stride, right, columns, .. } = product;
    // Whole tiles are read, whatever of them is used.
    let read = rows.next_multiple_of(2 * TILE_ROWS);
    assert!(units.is_multiple_of(TILE_UNITS) && left.len() >= (read - 1) * left_stride + units, "whole tiles");
    assert!(right.unit_stride == PANEL, "packed panels");
    let out = product.out.as_mut_ptr();
    let mut sums = Sums([0; 2 * TILE_ROWS * PANEL]);
    // SAFETY: tiles were found and allowed before this could be called, and the sizes were checked above: a run reads
    // whole tiles inside both sides, and writes at most all of `sums`.
    unsafe {
        T::shape();
        for panel in 0..columns / PANEL {
            let mut row = 0;
            while row < rows {
                let run = Run {
                    left: left.as_ptr().add(row * left_stride).cast(),
                    left_stride: left_stride * size_of::<u32>(),
                    right: right.units.as_ptr().add(panel * right.panel_stride).cast(),
                    turns: units / TILE_UNITS,
                    sums: sums.0.as_mut_ptr(),
                };
                let here = if rows - row > TILE_ROWS {
                    T::two(&run);
                    2 * TILE_ROWS
                } else {
                    T::one(&run);
                    TILE_ROWS
                };
                for i in 0..here.min(rows - row) {
                    for half in [0, TILE_UNITS] {
                        let column = panel * PANEL + half;
                        let start = product.scales.map(|scales| scales.start.as_ptr().add(column));
                        let floats = T::floats(sums.0.as_ptr().add(i * PANEL + half), start);
                        finish::<Sixteen>(&product, Place::new(row + i, column, out), floats);
                    }
                }
                row += here;
            }
        }
        T::release();
    }
}

const TILE_ROWS: usize = 16;
/// Units in a row of a tile.
const TILE_UNITS: usize = 16;
/// Outputs in a panel: two tiles side by side.
const PANEL: usize = 2 * TILE_UNITS;
const ROW_BYTES: usize = PANEL * size_of::<u32>();

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::memory::Aligned;
    use super::super::portable;
    use super::super::product::{Distance, Finish, Panels, Scales};
    use super::*;

    /// What the instructions do, in words of the manual: for each of 16 rows, turn by turn and unit by unit.
    struct Spelled<const INTEGERS: bool>;

    impl<const INTEGERS: bool> Spelled<INTEGERS> {
        unsafe fn tiles(run: &Run, tiles: usize) {
            for row in 0..tiles * TILE_ROWS {
                for column in 0..PANEL {
                    let (mut float, mut integer) = (0f32, 0i32);
                    for unit in 0..run.turns * TILE_UNITS {
                        // SAFETY: what a run says.
                        let (left, right) = unsafe {
                            let left = run.left.add(row * run.left_stride).cast::<u32>().add(unit).read();
                            (left, run.right.cast::<u32>().add(unit * PANEL + column).read())
                        };
                        for (left, right) in left.to_le_bytes().into_iter().zip(right.to_le_bytes()) {
                            integer += i32::from(left) * i32::from(right as i8);
                        }
                        for shift in [0, 16] {
                            let half = |unit: u32| bf16::from_bits((unit >> shift) as u16).to_f32();
                            float += half(left) * half(right);
                        }
                    }
                    let sum = if INTEGERS { integer as u32 } else { float.to_bits() };
                    // SAFETY: what a run says.
                    unsafe { run.sums.add(row * PANEL + column).write(sum) };
                }
            }
        }
    }

    impl<const INTEGERS: bool> Tiles for Spelled<INTEGERS> {
        unsafe fn shape() {}

        unsafe fn release() {}

        unsafe fn one(run: &Run) {
            // SAFETY: the trait's promise.
            unsafe { Self::tiles(run, 1) }
        }

        unsafe fn two(run: &Run) {
            // SAFETY: the trait's promise.
            unsafe { Self::tiles(run, 2) }
        }

        #[inline(always)]
        unsafe fn floats(sums: *const u32, start: Option<*const i32>) -> __m512 {
            // SAFETY: the trait's promise.
            unsafe { if INTEGERS { Bytes::floats(sums, start) } else { Halves::floats(sums, start) } }
        }
    }

    /// The tile instructions themselves are tested wherever there are any: through the engines.
    #[test]
    fn the_loops_around_the_tiles_agree_with_the_portable_product() {
        if avx512::kernels(Precision::F32).is_none() {
            return;
        }
        for rows in [1, 2, 15, 16, 17, 31, 32, 33, 48, 50, 64, 65] {
            check(rows, Precision::Bf16, multiply::<Spelled<false>>);
            check(rows, Precision::Int8, multiply::<Spelled<true>>);
        }
    }

    fn check(rows: usize, precision: Precision, tiles: unsafe fn(Product<'_>)) {
        let (units, columns) = (32, 3 * PANEL);
        let mut state = rows as u32 + 1;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Halves of about one, which are also bytes of every size.
            (state >> 3) & 0xbfff_bfff
        };
        let mut left = Aligned::<u32>::new(rows.next_multiple_of(32) * units);
        left.iter_mut().for_each(|unit| *unit = random() & 0x3fff_3fff);
        let wide: Vec<u32> = (0..units * columns).map(|_| random() & 0xbf7f_bf7f).collect();
        // The same weights in panels of each width.
        let packed = |panel: usize| -> Vec<u32> {
            let places =
                (0..columns / panel).flat_map(|p| (0..units).flat_map(move |u| (0..panel).map(move |c| (p, u, c))));
            places.map(|(p, u, c)| wide[u * columns + p * panel + c]).collect()
        };
        let start: Vec<i32> = (0..columns as i32).map(|column| 1000 * column).collect();
        let bias: Vec<f32> = start.iter().map(|start| *start as f32 / 7.0).collect();
        let steps = vec![0.25; rows.max(columns)];
        let run = |kernel: unsafe fn(Product<'_>), panel: usize| {
            let (units_of, mut out) = (packed(panel), vec![0.0; rows * columns]);
            let right =
                Panels { units: &units_of, unit_stride: panel, panel_stride: panel * units, distance: Distance::Far };
            let scales = Scales { start: &start, rows: &steps, columns: &steps };
            let product = Product {
                rows,
                units,
                left: &left,
                left_stride: units,
                right,
                columns,
                out: &mut out,
                out_stride: columns,
                scales: (precision == Precision::Int8).then_some(scales),
                finish: Finish::Bias(&bias),
            };
            // SAFETY: the caller asked for the instructions.
            unsafe { kernel(product) };
            out
        };
        let portable = portable::kernels(precision);
        let (ours, theirs) = (run(tiles, PANEL), run(portable.product, portable.panel));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!((ours - theirs).abs() <= 1e-4 * theirs.abs().max(1.0), "{rows} rows: {ours} and {theirs}");
        }
    }
}
