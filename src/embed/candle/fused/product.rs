//! The matrix product, in every precision: rows of tokens times packed panels of weights, finished in registers.
//!
//! A panel holds as many outputs as two registers, unit after unit along the depth, so one tile of rows reads it as a
//! stream. A tile holds its sums in registers over the whole depth; an output therefore sums in the same order however
//! many rows are computed at once, and a text has the same vector alone and in a batch, to the bit.
//!
//! With few tokens the product is bound by how fast the weights arrive: each tile asks for what lies ahead of it, over
//! the end of its own panel and of its own matrix, since the weights of a model are packed in the order of their use.

use std::arch::asm;

use super::lanes::{Dot, Lanes, gelu};

/// `out[rows][columns] = finish(left[rows][units] * right[units][columns])`.
pub(super) struct Product<'a> {
    pub(super) rows: usize,
    /// Along the depth, four bytes each.
    pub(super) units: usize,
    pub(super) left: &'a [u32],
    pub(super) left_stride: usize,
    pub(super) right: Panels<'a>,
    /// A whole number of panels.
    pub(super) columns: usize,
    pub(super) out: &'a mut [f32],
    pub(super) out_stride: usize,
    /// For integers: what turns their sums into floats.
    pub(super) scales: Option<Scales<'a>>,
    pub(super) finish: Finish<'a>,
}

/// The right side. Packed weights have `unit_stride` of one panel; the values of an attention head are used where they
/// lie, a token after the other.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub(super) units: &'a [u32],
    /// From a unit of a panel to its next.
    pub(super) unit_stride: usize,
    pub(super) panel_stride: usize,
    pub(super) distance: Distance,
}

/// Where the right side is likely to be.
#[derive(Clone, Copy)]
pub(super) enum Distance {
    /// Written a moment ago, so in a cache.
    Near,
    /// Weights, packed one behind the other and larger than the caches.
    Far,
}

/// Integer sums to floats: `(sum + start[column]) * row * column`.
#[derive(Clone, Copy)]
pub(super) struct Scales<'a> {
    pub(super) start: &'a [i32],
    pub(super) rows: &'a [f32],
    pub(super) columns: &'a [f32],
}

/// What happens to a sum before it is stored.
#[derive(Clone, Copy)]
pub(super) enum Finish<'a> {
    Plain,
    Bias(&'a [f32]),
    Gelu(&'a [f32]),
    /// Bias, then what went around the layer, laid out as `out`.
    Residual(&'a [f32], &'a [f32]),
    /// A factor a row.
    Rows(&'a [f32]),
}

impl Product<'_> {
    /// # Panics
    /// A slice is shorter than the shape says: a mistake of the caller that must not become a stray read.
    #[inline(always)]
    pub(super) fn check(&self, panel: usize) {
        let Self { rows, units, left, left_stride, right, columns, out, out_stride, scales, finish } = self;
        let (rows, units, columns) = (*rows, *units, *columns);
        assert!(rows > 0 && units > 0 && columns > 0 && columns.is_multiple_of(panel), "no whole panels");
        assert!(left.len() >= (rows - 1) * left_stride + units, "left");
        let panels = columns / panel;
        let end = (panels - 1) * right.panel_stride + (units - 1) * right.unit_stride + panel;
        assert!(right.units.len() >= end, "right");
        // Streams are read as if there were nothing between two units.
        assert!(matches!(right.distance, Distance::Near) || right.unit_stride == panel, "weights are packed");
        let laid_out = (rows - 1) * out_stride + columns;
        assert!(out.len() >= laid_out, "out");
        if let Some(Scales { start, rows: by_row, columns: by_column }) = scales {
            assert!(start.len() >= columns && by_row.len() >= rows && by_column.len() >= columns, "scales");
        }
        match finish {
            Finish::Plain => {}
            Finish::Bias(bias) | Finish::Gelu(bias) => assert!(bias.len() >= columns, "bias"),
            Finish::Residual(bias, around) => {
                assert!(bias.len() >= columns && around.len() >= laid_out, "residual");
            }
            Finish::Rows(factors) => assert!(factors.len() >= rows, "factors"),
        }
    }
}

/// # Safety
/// The processor has the instructions of `D`, and the caller is compiled for them.
#[inline(always)]
pub(super) unsafe fn multiply<D: Dot>(product: Product<'_>) {
    let panel = 2 * D::Lanes::N;
    product.check(panel);
    let blocks = product.rows.div_ceil(D::ROWS);
    let out = product.out.as_mut_ptr();
    let mut place = Place { row: 0, column: 0, right: 0, out, ahead: Ahead::Nothing };
    while place.column < product.columns {
        place.row = 0;
        for block in 0..blocks {
            // As even as possible: a last tile of one row would keep the multipliers waiting for each other.
            let rows = (product.rows - place.row).div_ceil(blocks - block);
            place.ahead = Ahead::of::<D>(&product, place.right, blocks, block);
            // SAFETY: the caller's promise; the shape was checked above, and the place is inside it.
            unsafe { tile_of_rows::<D>(&product, place, rows) };
            place.row += rows;
        }
        place.column += panel;
        place.right += product.right.panel_stride;
    }
}

/// Where a tile begins: its first row and column, and its panel as an index into the right side. `out` is the start of
/// the whole output, taken from the product once, while it was borrowed for writing.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) row: usize,
    pub(super) column: usize,
    right: usize,
    pub(super) out: *mut f32,
    ahead: Ahead,
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
impl Place {
    /// For kernels that find their panels themselves.
    pub(super) fn new(row: usize, column: usize, out: *mut f32) -> Self {
        Self { row, column, right: 0, out, ahead: Ahead::Nothing }
    }
}

/// What a tile asks for while it computes.
#[derive(Clone, Copy)]
enum Ahead {
    Nothing,
    /// Two registers' worth a unit, into the first cache: its own stream, a fixed distance ahead.
    Stream(*const u32),
    /// A line a unit, into the second cache, so that what this tile is using stays in the first.
    Panel(*const u32),
}

impl Ahead {
    /// A single tile runs at the speed of the memory. Several tiles share a panel that is near after the first one: the
    /// first ones ask for the next panel, a part each.
    #[inline(always)]
    fn of<D: Dot>(product: &Product<'_>, right: usize, blocks: usize, block: usize) -> Self {
        let panel = 2 * D::Lanes::N;
        let base = product.right.units.as_ptr().wrapping_add(right);
        let skipped = block * product.units * LINE_UNITS;
        match product.right.distance {
            Distance::Near => Self::Nothing,
            Distance::Far if blocks == 1 => Self::Stream(base.wrapping_add(AHEAD_UNITS * panel)),
            Distance::Far if skipped >= product.right.panel_stride => Self::Nothing,
            Distance::Far => Self::Panel(base.wrapping_add(product.right.panel_stride + skipped)),
        }
    }
}

/// # Safety
/// As for [`multiply`]; the tile is inside the checked shape, and `rows` is at most `D::ROWS`.
#[inline(always)]
unsafe fn tile_of_rows<D: Dot>(product: &Product<'_>, place: Place, rows: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match rows {
            1 => tile::<D, 1>(product, place),
            2 => tile::<D, 2>(product, place),
            3 => tile::<D, 3>(product, place),
            4 => tile::<D, 4>(product, place),
            5 => tile::<D, 5>(product, place),
            6 => tile::<D, 6>(product, place),
            7 => tile::<D, 7>(product, place),
            8 => tile::<D, 8>(product, place),
            9 => tile::<D, 9>(product, place),
            10 => tile::<D, 10>(product, place),
            11 => tile::<D, 11>(product, place),
            _ => tile::<D, 12>(product, place),
        }
    }
}

/// # Safety
/// As for [`tile_of_rows`].
#[inline(always)]
unsafe fn tile<D: Dot, const R: usize>(product: &Product<'_>, place: Place) {
    if R > D::ROWS {
        // Never asked for; said so that it is not compiled either.
        return;
    }
    let n = D::Lanes::N;
    // SAFETY: every address is inside the slices that `check` measured; what is only prefetched may lie anywhere.
    unsafe {
        let start = product.scales.map(|scales| scales.start.as_ptr().add(place.column));
        let first = [D::start(start), D::start(start.map(|start| start.add(n)))];
        let mut sums = [first; R];
        let left = product.left.as_ptr().add(place.row * product.left_stride);
        let right = product.right.units.as_ptr().add(place.right);
        let mut groups = [left; GROUPS];
        let mut group = 1;
        while group < R.div_ceil(GROUP_ROWS) {
            groups[group] = left.add(group * GROUP_ROWS * product.left_stride);
            group += 1;
        }
        let stride = product.right.unit_stride;
        let whole = product.units / UNROLL * UNROLL;
        let mut unit = 0;
        match place.ahead {
            Ahead::Nothing => {
                while unit < whole {
                    apart(&mut groups);
                    steps::<D, R, UNROLL>(&mut sums, &groups, product.left_stride, right.add(unit * stride), stride);
                    advance(&mut groups);
                    unit += UNROLL;
                }
            }
            Ahead::Stream(line) => {
                while unit < whole {
                    let mut at = 0;
                    while at < UNROLL * 2 * n {
                        D::Lanes::prefetch_first(line.wrapping_add(unit * 2 * n + at));
                        at += LINE_UNITS;
                    }
                    apart(&mut groups);
                    steps::<D, R, UNROLL>(&mut sums, &groups, product.left_stride, right.add(unit * 2 * n), 2 * n);
                    advance(&mut groups);
                    unit += UNROLL;
                }
            }
            Ahead::Panel(line) => {
                while unit < whole {
                    let mut at = 0;
                    while at < UNROLL {
                        D::Lanes::prefetch_second(line.wrapping_add((unit + at) * LINE_UNITS));
                        at += 1;
                    }
                    apart(&mut groups);
                    steps::<D, R, UNROLL>(&mut sums, &groups, product.left_stride, right.add(unit * 2 * n), 2 * n);
                    advance(&mut groups);
                    unit += UNROLL;
                }
            }
        }
        while unit < product.units {
            steps::<D, R, 1>(&mut sums, &groups, product.left_stride, right.add(unit * stride), stride);
            groups = groups.map(|group| group.wrapping_add(1));
            unit += 1;
        }
        let mut i = 0;
        while i < R {
            let here = Place { row: place.row + i, ..place };
            finish::<D::Lanes>(product, here, D::floats(sums[i][0]));
            finish::<D::Lanes>(product, Place { column: place.column + n, ..here }, D::floats(sums[i][1]));
            i += 1;
        }
    }
}

/// `U` units along the depth: `R` rows of the left side, two registers of the right.
///
/// # Safety
/// As for [`tile`]: both sides have `U` more units.
#[inline(always)]
unsafe fn steps<D: Dot, const R: usize, const U: usize>(
    sums: &mut [[D::Sums; 2]; R],
    groups: &[*const u32; GROUPS],
    left_stride: usize,
    right: *const u32,
    right_stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut unit = 0;
        while unit < U {
            let right = right.add(unit * right_stride);
            let right = [D::load(right), D::load(right.add(D::Lanes::N))];
            let mut i = 0;
            while i < R {
                let left = D::broadcast(groups[i / GROUP_ROWS].add(i % GROUP_ROWS * left_stride + unit));
                sums[i] = [D::dot(sums[i][0], left, right[0]), D::dot(sums[i][1], left, right[1])];
                i += 1;
            }
            unit += 1;
        }
    }
}

/// Hides from the compiler how the groups lie to each other. Knowing it, it computes every row's address from the one
/// before, an instruction a row and unit; not knowing it, it has three rows a pointer for nothing, as addresses of base,
/// stride and twice the stride. That took the product from 63 to 72 % of the multipliers' peak on a shared core.
#[inline(always)]
fn apart(groups: &mut [*const u32; GROUPS]) {
    let [a, b, c, d] = groups;
    // SAFETY: no instruction at all.
    unsafe {
        asm!(
            "/* {0} {1} {2} {3} */",
            inout(reg) * a,
            inout(reg) * b,
            inout(reg) * c,
            inout(reg) * d,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
}

#[inline(always)]
fn advance(groups: &mut [*const u32; GROUPS]) {
    *groups = groups.map(|group| group.wrapping_add(UNROLL));
}

/// # Safety
/// As for [`tile`]: one register of columns from `place` is inside the checked shape.
#[inline(always)]
pub(super) unsafe fn finish<L: Lanes>(product: &Product<'_>, place: Place, sum: L::Floats) {
    let Place { row, column, out, .. } = place;
    let at = row * product.out_stride + column;
    // SAFETY: the caller's promise; every slice was measured by `check`.
    unsafe {
        let mut value = sum;
        if let Some(scales) = product.scales {
            let columns = L::load(scales.columns.as_ptr().add(column));
            value = L::mul(value, L::mul(L::splat(*scales.rows.as_ptr().add(row)), columns));
        }
        value = match product.finish {
            Finish::Plain => value,
            Finish::Bias(bias) => L::add(value, L::load(bias.as_ptr().add(column))),
            Finish::Gelu(bias) => gelu::<L>(L::add(value, L::load(bias.as_ptr().add(column)))),
            Finish::Residual(bias, around) => {
                let around = L::load(around.as_ptr().add(at));
                L::add(L::add(value, L::load(bias.as_ptr().add(column))), around)
            }
            Finish::Rows(factors) => L::mul(value, L::splat(*factors.as_ptr().add(row))),
        };
        L::store(out.add(at), value);
    }
}

/// Rows whose addresses come from one pointer, and the pointers of the tallest tile.
const GROUP_ROWS: usize = 3;
const GROUPS: usize = 4;
/// Units a turn of the loop.
const UNROLL: usize = 4;
/// Units in a cache line.
const LINE_UNITS: usize = 16;
/// How far ahead of itself a single tile asks, in units along the depth.
const AHEAD_UNITS: usize = 24;
