//! Where each slot stands: a word per slot, whatever the partition it belongs to.
//!
//! In a small partition the word is the next slot of its list; in a large one it is a row of the tail or a node of a
//! segment. Words are read without a lock and written under the lock of the partition that owns the slot.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Slot;

pub(super) struct Places {
    chunks: Box<[OnceLock<Box<[AtomicU32]>>]>,
}

impl Default for Places {
    fn default() -> Self {
        Self { chunks: (0..SLOTS_MAX / CHUNK).map(|_| OnceLock::new()).collect() }
    }
}

impl Places {
    pub(super) fn get(&self, slot: Slot) -> u32 {
        let chunk = self.chunks.get(slot as usize / CHUNK).and_then(OnceLock::get);
        chunk.map_or(NOWHERE, |chunk| chunk[slot as usize % CHUNK].load(Ordering::Acquire))
    }

    pub(super) fn set(&self, slot: Slot, place: u32) {
        if let Some(chunk) = self.chunks.get(slot as usize / CHUNK) {
            let chunk = chunk.get_or_init(|| (0..CHUNK).map(|_| AtomicU32::new(NOWHERE)).collect());
            chunk[slot as usize % CHUNK].store(place, Ordering::Release);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let made = self.chunks.iter().filter(|chunk| chunk.get().is_some()).count();
        made * CHUNK * 4 + size_of_val(&*self.chunks)
    }
}

/// A word of [`Places`] in a large partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A row of the tail: its block's number, modulo [`BLOCK_NUMBERS`], and its row there.
    Tail { block: u32, row: u32 },
    /// A node of the segment with this tag.
    Segment { tag: u32, node: u32 },
}

impl Place {
    pub(super) fn word(self) -> u32 {
        match self {
            Self::Tail { block, row } => (block % BLOCK_NUMBERS) * BLOCK_ROWS as u32 + row,
            Self::Segment { tag, node } => IN_SEGMENT | (tag << NODE_BITS) | node,
        }
    }

    /// `None` for the words that are no place.
    pub(super) fn of(word: u32) -> Option<Self> {
        match word {
            END | HELD | NOWHERE => None,
            word if word & IN_SEGMENT != 0 => {
                Some(Self::Segment { tag: (word >> NODE_BITS) & (TAGS - 1), node: word & ((1 << NODE_BITS) - 1) })
            }
            word => Some(Self::Tail { block: word / BLOCK_ROWS as u32, row: word % BLOCK_ROWS as u32 }),
        }
    }
}

/// The slot is in no partition.
pub(super) const NOWHERE: u32 = u32::MAX;
/// The slot was removed, and something that is still searched or built names it.
pub(super) const HELD: u32 = u32::MAX - 1;
/// The last slot of a small partition's list.
pub(super) const END: u32 = u32::MAX - 2;

/// Slots beyond this are refused: the words above, and a place's bits, must stay free.
pub(super) const SLOTS_MAX: usize = 1 << 30;

/// Rows of a tail block.
pub(super) const BLOCK_ROWS: usize = 1024;
/// Block numbers wrap round; a tail never holds that many blocks.
pub(super) const BLOCK_NUMBERS: u32 = 1 << 21;

/// Segments that a partition may have at a time, with the one being put in.
pub(super) const TAGS: u32 = 4;
const NODE_BITS: u32 = 29;
const IN_SEGMENT: u32 = 1 << 31;
/// Nodes of a segment: the last few numbers are taken by the words that are no place.
pub(super) const NODES_MAX: usize = (1 << NODE_BITS) - 8;

const CHUNK: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_its_word() {
        for place in [
            Place::Tail { block: 0, row: 0 },
            Place::Tail { block: BLOCK_NUMBERS - 1, row: 1023 },
            Place::Segment { tag: 0, node: 0 },
            Place::Segment { tag: 3, node: NODES_MAX as u32 - 1 },
            Place::Segment { tag: 2, node: 7 },
        ] {
            assert_eq!(Place::of(place.word()), Some(place));
        }
        assert!([NOWHERE, HELD, END].into_iter().all(|word| Place::of(word).is_none()));
    }
}
