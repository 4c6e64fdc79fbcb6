//! The rows of a large partition that no graph holds yet: blocks that are scanned.
//!
//! Each block has its own lock, so an insert waits at most for a scan of the block it writes to. A cleared row names
//! no slot and is written again before the block grows. While rows come in faster than graphs are built the tail is
//! long: then the signs of a row's values, an eighth of its bytes, sift what is worth comparing.

use std::sync::Arc;

use parking_lot::RwLock;

use super::Slot;
use super::best::Best;
use super::places::{BLOCK_ROWS, NOWHERE};
use super::quantised::{Query, Row, signs};

#[derive(Default)]
pub(super) struct Block {
    rows: RwLock<Rows>,
}

#[derive(Default)]
struct Rows {
    slots: Vec<Slot>,
    scales: Vec<f32>,
    bytes: Vec<u8>,
    /// Of eight rows together, a word of each after the other.
    signs: Vec<[u64; 8]>,
}

/// The `wanted` rows nearest to the query, by the rows themselves where there are few, else of those with the most signs in
/// common.
pub(super) fn search(blocks: &[Arc<Block>], query: &Query, wanted: usize, best: &mut Best) {
    let signs = query.signs();
    if blocks.len() <= SCANNED || signs.len() < WORDS_MIN {
        blocks.iter().for_each(|block| block.scan(query, best));
        return;
    }
    let mut sieve = Sieve::new(SIFTED.max(blocks.len() * SIFTED_OF_BLOCK).max(wanted * 4));
    for (number, block) in blocks.iter().enumerate() {
        block.sift(query, &signs, (number * BLOCK_ROWS) as u32, &mut sieve);
    }
    for rows in sieve.into_rows().chunk_by(|a, b| *a as usize / BLOCK_ROWS == *b as usize / BLOCK_ROWS) {
        blocks[rows[0] as usize / BLOCK_ROWS].compare(query, rows, best);
    }
}

/// Rows with the fewest differing signs.
struct Sieve {
    most: usize,
    /// More signs than this differ in no row that is kept.
    limit: u16,
    kept: Vec<(u16, u32)>,
}

impl Sieve {
    fn new(most: usize) -> Self {
        Self { most, limit: u16::MAX, kept: Vec::with_capacity(most * 4) }
    }

    fn add(&mut self, differing: &[u16], first: u32) {
        for (chunk, counts) in differing.chunks(32).enumerate() {
            if !counts.iter().fold(false, |any, count| any | (*count < self.limit)) {
                continue;
            }
            for (i, count) in counts.iter().enumerate().filter(|(_, count)| **count < self.limit) {
                self.kept.push((*count, first + (chunk * 32 + i) as u32));
            }
            if self.kept.len() >= self.most * 3 {
                self.cut();
            }
        }
    }

    fn cut(&mut self) {
        if self.kept.len() > self.most {
            let (_, last, _) = self.kept.select_nth_unstable(self.most - 1);
            self.limit = last.0;
            self.kept.truncate(self.most);
        }
    }

    /// In their order.
    fn into_rows(mut self) -> Vec<u32> {
        self.cut();
        let mut rows: Vec<u32> = self.kept.into_iter().map(|(_, row)| row).collect();
        rows.sort_unstable();
        rows
    }
}

impl Block {
    /// Adds a row and returns its number; `None` where the block is full.
    pub(super) fn push(&self, slot: Slot, row: &Row) -> Option<u32> {
        let mut rows = self.rows.write();
        let number = rows.slots.len();
        if number >= BLOCK_ROWS {
            return None;
        }
        if number == rows.slots.capacity() {
            // Doubled up to a whole block, never beyond it.
            let more = number.clamp(64, BLOCK_ROWS - number);
            rows.slots.reserve_exact(more);
            rows.scales.reserve_exact(more);
            rows.bytes.reserve_exact(more * row.bytes.len());
            rows.signs.reserve_exact(more * row.bytes.len() / 512);
        }
        rows.slots.push(slot);
        rows.scales.push(row.scale);
        rows.bytes.extend_from_slice(&row.bytes);
        if number.is_multiple_of(8) {
            let length = rows.signs.len() + row.bytes.len() / 64;
            rows.signs.resize(length, [0; 8]);
        }
        rows.sign(number, row);
        Some(number as u32)
    }

    /// Writes a row that was cleared.
    pub(super) fn put(&self, number: u32, slot: Slot, row: &Row) {
        let mut rows = self.rows.write();
        let (number, stride) = (number as usize, row.bytes.len());
        rows.slots[number] = slot;
        rows.scales[number] = row.scale;
        rows.bytes[number * stride..][..stride].copy_from_slice(&row.bytes);
        rows.sign(number, row);
    }

    /// Clears the row if it is the slot's.
    pub(super) fn clear(&self, number: u32, slot: Slot) -> bool {
        let mut rows = self.rows.write();
        match rows.slots.get_mut(number as usize) {
            Some(held) if *held == slot => {
                *held = NOWHERE;
                true
            }
            _ => false,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() == BLOCK_ROWS
    }

    pub(super) fn len(&self) -> usize {
        self.rows.read().slots.len()
    }

    /// Puts the block's rows into the sieve, counted from `first`.
    fn sift(&self, query: &Query, signs: &[u64], first: u32, sieve: &mut Sieve) {
        let mut counts = [0; BLOCK_ROWS];
        let rows = self.rows.read();
        query.differing(&rows.signs, signs, &mut counts);
        let counts = &mut counts[..rows.slots.len()];
        for (count, _) in counts.iter_mut().zip(&rows.slots).filter(|(_, slot)| **slot == NOWHERE) {
            *count = u16::MAX;
        }
        drop(rows);
        sieve.add(counts, first);
    }

    /// Compares these rows of a whole tail, all of them of this block.
    fn compare(&self, query: &Query, wanted: &[u32], best: &mut Best) {
        let rows = self.rows.read();
        let Some(stride) = rows.bytes.len().checked_div(rows.slots.len()) else { return };
        let row = |number: &u32| {
            let row = *number as usize % BLOCK_ROWS;
            (row, &rows.bytes[row * stride..][..stride])
        };
        wanted.iter().for_each(|number| crate::store::local::kernel::prefetch(row(number).1));
        for (row, bytes) in wanted.iter().map(row) {
            let score = query.score(bytes, rows.scales[row]);
            if best.admits(score) && rows.slots[row] != NOWHERE {
                best.add(score, rows.slots[row]);
            }
        }
    }

    fn scan(&self, query: &Query, best: &mut Best) {
        let rows = self.rows.read();
        let Some(stride) = rows.bytes.len().checked_div(rows.slots.len()) else { return };
        for ((slot, scale), row) in rows.slots.iter().zip(&rows.scales).zip(rows.bytes.chunks_exact(stride)) {
            let score = query.score(row, *scale);
            if best.admits(score) && *slot != NOWHERE {
                best.add(score, *slot);
            }
        }
    }

    /// Gives number, slot, scale and bytes of every row that names a slot.
    pub(super) fn each(&self, mut give: impl FnMut(u32, Slot, f32, &[u8])) {
        let rows = self.rows.read();
        let Some(stride) = rows.bytes.len().checked_div(rows.slots.len()) else { return };
        for (number, slot) in rows.slots.iter().enumerate().filter(|(_, slot)| **slot != NOWHERE) {
            give(number as u32, *slot, rows.scales[number], &rows.bytes[number * stride..][..stride]);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let rows = self.rows.read();
        rows.slots.capacity() * 4
            + rows.scales.capacity() * 4
            + rows.bytes.capacity()
            + rows.signs.capacity() * 64
            + size_of::<Self>()
            + 16
    }
}

impl Rows {
    fn sign(&mut self, number: usize, row: &Row) {
        let words = row.bytes.len() / 64;
        let group = &mut self.signs[number / 8 * words..][..words];
        group.iter_mut().zip(signs(&row.bytes)).for_each(|(words, word)| words[number % 8] = word);
    }
}

/// Shorter vectors have too few signs to tell rows apart by them.
const WORDS_MIN: usize = 4;

/// Blocks that are scanned whole.
const SCANNED: usize = 4;

/// Rows that are left to compare: of 8,000 real sentence vectors the nearest was among so many but for one search in a
/// thousand, and always if its cosine was above 0.6.
const SIFTED: usize = 256;

/// In a long tail, of each of its blocks.
const SIFTED_OF_BLOCK: usize = 8;
