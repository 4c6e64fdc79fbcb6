//! The partitions, and the slots of those that have only a few.
//!
//! Half a million conversations of two entries must cost next to nothing, so a small partition is a list through the
//! slots' places: a table entry of 24 bytes and four bytes a slot. The table is sharded; keys are compared whole, so
//! no two partitions are ever one.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::Slot;
use super::large::Large;
use super::places::{END, NOWHERE, Places};
use crate::decision::Partition;

/// All partitions.
pub(super) struct Table {
    shards: Box<[RwLock<Shard>]>,
    hashing: RandomState,
}

#[derive(Default)]
pub(super) struct Shard {
    pub(super) few: HashMap<Partition, Few>,
    pub(super) large: HashMap<Partition, Arc<Large>>,
}

/// A list of up to [`FEW_MAX`] slots, the newest first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Few {
    head: Slot,
    pub(super) dims: u16,
    pub(super) count: u8,
}

/// The slots of a small partition, copied out of its list.
pub(super) struct Listed {
    slots: [Slot; FEW_MAX],
    count: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), hashing: RandomState::new() }
    }
}

impl Table {
    pub(super) fn read(&self, partition: Partition) -> RwLockReadGuard<'_, Shard> {
        self.shard(partition).read()
    }

    pub(super) fn write(&self, partition: Partition) -> RwLockWriteGuard<'_, Shard> {
        self.shard(partition).write()
    }

    /// Every shard in turn.
    pub(super) fn each(&self, mut look: impl FnMut(&Shard)) {
        self.shards.iter().for_each(|shard| look(&shard.read()));
    }

    pub(super) fn forget(&self, large: &Arc<Large>) {
        let mut shard = self.write(large.partition);
        if shard.large.get(&large.partition).is_some_and(|other| Arc::ptr_eq(other, large)) {
            shard.large.remove(&large.partition);
        }
    }

    fn shard(&self, partition: Partition) -> &RwLock<Shard> {
        &self.shards[self.hashing.hash_one(partition) as usize % SHARDS]
    }
}

impl Shard {
    pub(super) fn bytes(&self) -> usize {
        // A table of n buckets holds seven eighths of n entries and keeps a control byte for each.
        let buckets = self.few.capacity() * 8 / 7;
        buckets * (size_of::<(Partition, Few)>() + 1)
            + self.large.capacity() * 8 / 7 * (size_of::<(Partition, usize)>() + 1)
    }
}

impl Few {
    pub(super) fn new(dims: u16) -> Self {
        Self { head: END, dims, count: 0 }
    }

    /// Adds the slot unless it is there; `None` where the list is full.
    pub(super) fn add(&mut self, places: &Places, slot: Slot) -> Option<()> {
        // A slot stands in one place: here already, or wrongly elsewhere.
        if places.get(slot) != NOWHERE {
            return Some(());
        }
        if usize::from(self.count) == FEW_MAX {
            return None;
        }
        places.set(slot, self.head);
        self.head = slot;
        self.count += 1;
        Some(())
    }

    pub(super) fn remove(&mut self, places: &Places, slot: Slot) {
        let list = self.list(places);
        let Some(at) = list.slots().iter().position(|other| *other == slot) else { return };
        let next = places.get(slot);
        match at.checked_sub(1) {
            Some(before) => places.set(list.slots[before], next),
            None => self.head = next,
        }
        places.set(slot, NOWHERE);
        self.count -= 1;
    }

    pub(super) fn list(&self, places: &Places) -> Listed {
        let mut listed = Listed { slots: [END; FEW_MAX], count: 0 };
        let mut slot = self.head;
        while slot < END && listed.count < usize::from(self.count) {
            listed.slots[listed.count] = slot;
            listed.count += 1;
            slot = places.get(slot);
        }
        listed
    }
}

impl Listed {
    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots[..self.count]
    }
}

/// Slots of a partition that needs no copy of its rows: a scan of so many takes about five microseconds.
pub(super) const FEW_MAX: usize = 64;

const SHARDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_gives_back_what_was_added() {
        let places = Places::default();
        let mut few = Few::new(3);
        (0..64).for_each(|slot| few.add(&places, slot * 3).expect("room"));
        assert!(few.add(&places, 6).is_some(), "there already");
        assert!(few.add(&places, 1).is_none(), "full");
        for slot in [0, 189, 90, 91] {
            few.remove(&places, slot);
        }
        let mut listed = few.list(&places).slots().to_vec();
        listed.sort_unstable();
        let expected: Vec<u32> = (1..63).map(|n| n * 3).filter(|n| *n != 90).collect();
        assert_eq!(listed, expected);
        assert_eq!(usize::from(few.count), expected.len());
    }

    #[test]
    fn a_table_entry_is_small() {
        assert_eq!(size_of::<(Partition, Few)>(), 24);
    }
}
