//! Self-attention of one sequence, a head at a time and a tile of queries at a time.
//!
//! Queries arrive divided by the root of the head's width. A tile's scores go over all keys, become weights and are used
//! while they are in the first cache; nothing of the size of tokens times tokens is ever written. Nothing is masked,
//! because nothing is padded: only whole registers are, and what stands there weighs nothing.

use super::lanes::{Dot, Lanes, exp};
use super::product::{Distance, Finish, Panels, Product, multiply};

/// `qkv` is `[tokens, 3 * hidden]`, `out` is `[tokens, hidden]`.
pub(super) struct Attention<'a> {
    pub(super) qkv: &'a [f32],
    pub(super) tokens: usize,
    pub(super) heads: usize,
    /// The width of a head.
    pub(super) width: usize,
    pub(super) out: &'a mut [f32],
    pub(super) desk: &'a mut Desk,
}

/// Scratch for one head: its keys as panels, and a tile's scores.
pub(super) struct Desk {
    keys: Vec<u32>,
    scores: Vec<f32>,
}

impl Desk {
    /// For sequences of up to `tokens`.
    pub(super) fn new(tokens: usize, width: usize) -> Self {
        let padded = tokens.next_multiple_of(PANEL_MAX);
        Self { keys: vec![0; padded * width], scores: vec![0.0; padded * ROWS_MAX] }
    }
}

/// # Safety
/// The processor has the instructions of `D`, whose unit is one float, and the caller is compiled for them.
#[inline(always)]
pub(super) unsafe fn attend<D: Dot>(attention: Attention<'_>) {
    let Attention { qkv, tokens, heads, width, out, desk } = attention;
    let hidden = heads * width;
    let padded = tokens.next_multiple_of(2 * D::Lanes::N);
    assert!(2 * D::Lanes::N <= PANEL_MAX && D::ROWS <= ROWS_MAX && tokens > 0, "attention");
    assert!(qkv.len() >= tokens * 3 * hidden && out.len() >= tokens * hidden, "attention");
    let qkv = words(qkv);
    let (keys, scores) = (&mut desk.keys[..padded * width], &mut desk.scores[..padded * D::ROWS]);
    let blocks = tokens.div_ceil(D::ROWS);
    for head in 0..heads {
        pack_keys(&qkv[hidden + head * width..], 3 * hidden, (tokens, width), 2 * D::Lanes::N, keys);
        let mut row = 0;
        for block in 0..blocks {
            let rows = (tokens - row).div_ceil(blocks - block);
            let mut factors = [0f32; ROWS_MAX];
            // SAFETY: the caller's promise; each product checks its own shape, and a row of scores is `padded` long.
            unsafe {
                multiply::<D>(Product {
                    rows,
                    units: width,
                    left: &qkv[row * 3 * hidden + head * width..],
                    left_stride: 3 * hidden,
                    right: Panels {
                        units: keys,
                        unit_stride: 2 * D::Lanes::N,
                        panel_stride: 2 * D::Lanes::N * width,
                        distance: Distance::Near,
                    },
                    columns: padded,
                    out: scores,
                    out_stride: padded,
                    scales: None,
                    finish: Finish::Plain,
                });
                for (factor, scores) in factors[..rows].iter_mut().zip(scores.chunks_exact_mut(padded)) {
                    *factor = weigh::<D::Lanes>(scores, tokens);
                }
                multiply::<D>(Product {
                    rows,
                    units: tokens,
                    left: words(scores),
                    left_stride: padded,
                    right: Panels {
                        units: &qkv[2 * hidden + head * width..],
                        unit_stride: 3 * hidden,
                        panel_stride: 2 * D::Lanes::N,
                        distance: Distance::Near,
                    },
                    columns: width,
                    out: &mut out[row * hidden + head * width..],
                    out_stride: hidden,
                    scales: None,
                    finish: Finish::Rows(&factors),
                });
            }
            row += rows;
        }
    }
}

/// Scores to weights that are not yet divided by their sum; returns one over the sum.
///
/// # Safety
/// As for [`Lanes`]; the row is a whole number of registers long.
#[inline(always)]
unsafe fn weigh<L: Lanes>(scores: &mut [f32], tokens: usize) -> f32 {
    scores[tokens..].fill(f32::NEG_INFINITY);
    let (row, length) = (scores.as_mut_ptr(), scores.len());
    // SAFETY: the caller's promise; every register is inside the row.
    unsafe {
        let mut largest = L::load(row);
        let mut at = L::N;
        while at < length {
            largest = L::max(largest, L::load(row.add(at)));
            at += L::N;
        }
        let largest = L::splat(L::largest(largest));
        let mut sum = L::splat(0.0);
        at = 0;
        while at < length {
            let weight = exp::<L>(L::sub(L::load(row.add(at)), largest));
            L::store(row.add(at), weight);
            sum = L::add(sum, weight);
            at += L::N;
        }
        1.0 / L::sum(sum)
    }
}

/// The keys of a head, `[tokens, width]` with a stride, turned into panels of `panel` tokens. What is left of the last
/// panel keeps keys of an earlier head: finite, and overwritten as scores.
#[inline(always)]
fn pack_keys(from: &[u32], stride: usize, (tokens, width): (usize, usize), panel: usize, keys: &mut [u32]) {
    for token in 0..tokens {
        let key = &from[token * stride..][..width];
        let column = token / panel * panel * width + token % panel;
        for (value, to) in key.iter().zip(keys[column..].iter_mut().step_by(panel)) {
            *to = *value;
        }
    }
}

/// Floats as the words they are stored in.
pub(super) fn words(floats: &[f32]) -> &[u32] {
    // SAFETY: a float and a word have the same size and alignment, and every float is a valid word.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), floats.len()) }
}

/// The widest panel and the tallest tile of any instruction set.
const PANEL_MAX: usize = 32;
const ROWS_MAX: usize = 12;
