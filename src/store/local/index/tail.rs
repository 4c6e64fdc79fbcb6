//! The rows of a large partition that no graph holds yet: blocks that are scanned.
//!
//! Each block has its own lock, so an insert waits at most for a scan of the block it writes to. A cleared row names
//! no slot and is written again before the block grows.

use parking_lot::RwLock;

use super::Slot;
use super::best::Best;
use super::places::{BLOCK_ROWS, NOWHERE};
use super::quantised::{Query, Row};

#[derive(Default)]
pub(super) struct Block {
    rows: RwLock<Rows>,
}

#[derive(Default)]
struct Rows {
    slots: Vec<Slot>,
    scales: Vec<f32>,
    bytes: Vec<u8>,
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
        }
        rows.slots.push(slot);
        rows.scales.push(row.scale);
        rows.bytes.extend_from_slice(&row.bytes);
        Some(number as u32)
    }

    /// Writes a row that was cleared.
    pub(super) fn put(&self, number: u32, slot: Slot, row: &Row) {
        let mut rows = self.rows.write();
        let (number, stride) = (number as usize, row.bytes.len());
        rows.slots[number] = slot;
        rows.scales[number] = row.scale;
        rows.bytes[number * stride..][..stride].copy_from_slice(&row.bytes);
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

    pub(super) fn scan(&self, query: &Query, best: &mut Best) {
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
        rows.slots.capacity() * 4 + rows.scales.capacity() * 4 + rows.bytes.capacity() + size_of::<Self>() + 16
    }
}
