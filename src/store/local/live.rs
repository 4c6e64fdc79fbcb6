//! The live entries in memory: the exact tier's map, and a record per slot with what searches, limits and deletions
//! need to know without reading the entry.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::seal::Head;
use super::vectors::Slot;
use crate::decision::{EntryId, Life, Partition};
use crate::store::eviction::{Heat, Pace};
use crate::store::{Owner, Usage};

/// What is known of a live entry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) id: EntryId,
    pub(super) seq: u64,
    pub(super) owner: u32,
    pub(super) life: Life,
    /// With the length of the vector.
    pub(super) place: Option<(Partition, u32)>,
    pub(super) labels: u64,
    pub(super) bytes: u64,
    pub(super) tokens: u32,
    /// Rows that the entry has.
    pub(super) pieces: u16,
    /// Bytes of its rows and vector, sealed.
    pub(super) stored: u32,
    pub(super) heat: Heat,
    /// Position among its owner's slots.
    position: u32,
}

/// How an entry was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) seq: u64,
    pub(super) pieces: u16,
    pub(super) stored: u32,
}

/// Every live entry.
pub(super) struct Live {
    /// By id, in shards of their own lock.
    slots: Vec<RwLock<Shard>>,
    records: RwLock<Vec<RwLock<Chunk>>>,
    owners: RwLock<Owners>,
    /// Of all entries together.
    stored: AtomicU64,
    /// Of the limit that all share.
    pace: Mutex<Pace>,
    hasher: IdHasher,
}

/// Slot and sequence number by id.
type Shard = HashMap<EntryId, (Slot, u64), IdHasher>;

type Chunk = Box<[Option<Record>]>;

#[derive(Default)]
struct Owners {
    numbers: HashMap<Owner, u32>,
    all: Vec<Mutex<Owned>>,
}

struct Owned {
    owner: Owner,
    usage: Usage,
    slots: Vec<Slot>,
    /// Of the cache's own limit.
    pace: Pace,
}

impl Live {
    pub(super) fn new() -> Self {
        let hasher = IdHasher(RandomState::new().hash_one(0));
        let shard = |_| RwLock::new(HashMap::with_hasher(hasher));
        Self {
            slots: (0..SHARDS).map(shard).collect(),
            records: RwLock::default(),
            owners: RwLock::default(),
            stored: AtomicU64::new(0),
            pace: Mutex::default(),
            hasher,
        }
    }

    /// Slot and sequence number of an entry.
    pub(super) fn find(&self, id: EntryId) -> Option<(Slot, u64)> {
        self.shard(id).read().get(&id).copied()
    }

    pub(super) fn count(&self) -> u64 {
        self.slots.iter().map(|shard| shard.read().len() as u64).sum()
    }

    pub(super) fn read<T>(&self, slot: Slot, read: impl FnOnce(&Record) -> T) -> Option<T> {
        let records = self.records.read();
        let chunk = records.get(slot as usize / CHUNK)?.read();
        chunk[slot as usize % CHUNK].as_ref().map(read)
    }

    pub(super) fn record(&self, id: EntryId) -> Option<(Slot, Record)> {
        let (slot, _) = self.find(id)?;
        self.read(slot, Record::clone).filter(|record| record.id == id).map(|record| (slot, record))
    }

    pub(super) fn change(&self, slot: Slot, change: impl FnOnce(&mut Record)) {
        let records = self.records.read();
        let Some(chunk) = records.get(slot as usize / CHUNK) else { return };
        if let Some(record) = chunk.write()[slot as usize % CHUNK].as_mut() {
            change(record);
        }
    }

    /// Makes an entry live; returns the slot and record of the one that it replaces.
    pub(super) fn insert(
        &self,
        id: EntryId,
        slot: Slot,
        head: &Head,
        written: Written,
        heat: Heat,
    ) -> Option<(Slot, Record)> {
        let owner = self.number(&Owner { tenant: head.tenant.clone(), cache: head.cache.clone() });
        let position = {
            let owners = self.owners.read();
            let mut owned = owners.all[owner as usize].lock();
            owned.usage.entries += 1;
            owned.usage.bytes += head.bytes;
            owned.slots.push(slot);
            owned.slots.len() as u32 - 1
        };
        let Head { life, place, labels, bytes, tokens, .. } = *head;
        let Written { seq, pieces, stored } = written;
        self.stored.fetch_add(u64::from(stored), Ordering::Relaxed);
        let record = Record { id, seq, owner, life, place, labels, bytes, tokens, pieces, stored, heat, position };
        self.store(slot, Some(record));
        let old = self.shard(id).write().insert(id, (slot, seq));
        old.and_then(|(slot, _)| self.forget(slot))
    }

    /// Returns the slot and record of what was removed.
    pub(super) fn remove(&self, id: EntryId) -> Option<(Slot, Record)> {
        let (slot, _) = self.shard(id).write().remove(&id)?;
        self.forget(slot)
    }

    /// What each cache holds that holds anything.
    pub(super) fn usage(&self) -> Vec<(Owner, Usage)> {
        let owners = self.owners.read();
        let all = owners.all.iter().map(|owned| owned.lock());
        all.filter(|owned| owned.usage.entries > 0).map(|owned| (owned.owner.clone(), owned.usage)).collect()
    }

    pub(super) fn usage_of(&self, owner: &Owner) -> Usage {
        let owners = self.owners.read();
        owners.numbers.get(owner).map_or(Usage::default(), |number| owners.all[*number as usize].lock().usage)
    }

    /// The slots of a cache.
    pub(super) fn slots_of(&self, owner: &Owner) -> Vec<Slot> {
        let owners = self.owners.read();
        owners.numbers.get(owner).map_or(Vec::new(), |number| owners.all[*number as usize].lock().slots.clone())
    }

    /// A slot of a cache or of any; `None` where there is none near the draw.
    pub(super) fn one_of(&self, owner: Option<&Owner>, random: u64) -> Option<Slot> {
        let Some(owner) = owner else {
            let bound = self.bound() as u64;
            let mut from = (0..bound.min(CHUNK as u64)).map(|step| (random.wrapping_add(step) % bound) as Slot);
            // Few of many slots may be in use.
            return from.find(|slot| self.read(*slot, |_| ()).is_some());
        };
        let owners = self.owners.read();
        let owned = owners.all[*owners.numbers.get(owner)? as usize].lock();
        let among = owned.slots.len() as u64;
        (among > 0).then(|| owned.slots[(random % among) as usize])
    }

    pub(super) fn usage_of_all(&self) -> Usage {
        let owners = self.owners.read();
        owners.all.iter().map(|owned| owned.lock().usage).fold(Usage::default(), |all, one| Usage {
            entries: all.entries + one.entries,
            bytes: all.bytes + one.bytes,
        })
    }

    /// Bytes that all entries take, sealed and once.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Works with the pace of a cache's own limit, or of the one that all share.
    pub(super) fn with_pace<T>(&self, owner: Option<&Owner>, work: impl FnOnce(&mut Pace) -> T) -> T {
        let owners = self.owners.read();
        match owner.and_then(|owner| owners.numbers.get(owner)) {
            Some(number) => work(&mut owners.all[*number as usize].lock().pace),
            None => work(&mut self.pace.lock()),
        }
    }

    /// Counts a hit on an entry.
    pub(super) fn hit(&self, id: EntryId, now_s: u32) {
        let Some((slot, owner)) = self.record(id).map(|(slot, record)| (slot, record.owner)) else { return };
        let own = self.owners.read().all[owner as usize].lock().pace.clone();
        let pace = if own.has_measured() { own } else { self.pace.lock().clone() };
        self.change(slot, |record| record.heat.hit(now_s, &pace));
    }

    pub(super) fn ids_in(&self, from: usize, count: usize, wanted: impl Fn(&Record) -> bool) -> Vec<EntryId> {
        let all = (from..from + count)
            .filter_map(|slot| self.read(slot as Slot, |record| wanted(record).then_some(record.id)));
        all.flatten().collect()
    }

    pub(super) fn owner(&self, number: u32) -> Option<Owner> {
        Some(self.owners.read().all.get(number as usize)?.lock().owner.clone())
    }

    /// How many slots there is room for; every slot in use is below.
    pub(super) fn bound(&self) -> usize {
        self.records.read().len() * CHUNK
    }

    pub(super) fn each(&self, mut visit: impl FnMut(Slot, &Record)) {
        for (number, chunk) in self.records.read().iter().enumerate() {
            for (place, record) in chunk.read().iter().enumerate() {
                if let Some(record) = record {
                    visit((number * CHUNK + place) as Slot, record);
                }
            }
        }
    }

    pub(super) fn slots_where(&self, mut wanted: impl FnMut(Slot, &Record) -> bool) -> Vec<Slot> {
        let mut slots = Vec::new();
        self.each(|slot, record| {
            if wanted(slot, record) {
                slots.push(slot);
            }
        });
        slots
    }

    pub(super) fn ids_where(&self, wanted: impl Fn(&Record) -> bool) -> Vec<EntryId> {
        let mut ids = Vec::new();
        self.each(|_, record| {
            if wanted(record) {
                ids.push(record.id);
            }
        });
        ids
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        for id in self.ids_where(|_| true) {
            self.remove(id);
        }
    }

    fn number(&self, owner: &Owner) -> u32 {
        if let Some(number) = self.owners.read().numbers.get(owner) {
            return *number;
        }
        let mut owners = self.owners.write();
        if let Some(number) = owners.numbers.get(owner) {
            return *number;
        }
        let number = owners.all.len() as u32;
        owners.all.push(Mutex::new(Owned {
            owner: owner.clone(),
            usage: Usage::default(),
            slots: Vec::new(),
            pace: Pace::default(),
        }));
        owners.numbers.insert(owner.clone(), number);
        number
    }

    fn forget(&self, slot: Slot) -> Option<(Slot, Record)> {
        let record = self.store(slot, None)?;
        self.stored.fetch_sub(u64::from(record.stored), Ordering::Relaxed);
        let owners = self.owners.read();
        let mut owned = owners.all[record.owner as usize].lock();
        owned.usage.entries = owned.usage.entries.saturating_sub(1);
        owned.usage.bytes = owned.usage.bytes.saturating_sub(record.bytes);
        owned.slots.swap_remove(record.position as usize);
        let moved = owned.slots.get(record.position as usize).copied();
        drop(owned);
        if let Some(moved) = moved {
            self.change(moved, |moved| moved.position = record.position);
        }
        Some((slot, record))
    }

    fn store(&self, slot: Slot, record: Option<Record>) -> Option<Record> {
        let (chunk, place) = (slot as usize / CHUNK, slot as usize % CHUNK);
        if self.records.read().len() <= chunk {
            let mut records = self.records.write();
            while records.len() <= chunk {
                records.push(RwLock::new(vec![None; CHUNK].into()));
            }
        }
        std::mem::replace(&mut self.records.read()[chunk].write()[place], record)
    }

    fn shard(&self, id: EntryId) -> &RwLock<Shard> {
        // The top bits: the map itself uses the others.
        &self.slots[(self.hasher.hash_one(id) >> (64 - SHARDS.ilog2())) as usize]
    }
}

/// Ids are hashes already; mixed with a number that nobody outside knows, so that nobody can choose prompts that meet
/// in one bucket.
#[derive(Debug, Clone, Copy)]
struct IdHasher(u64);

struct IdHash {
    secret: u64,
    hash: u64,
}

impl BuildHasher for IdHasher {
    type Hasher = IdHash;

    fn build_hasher(&self) -> IdHash {
        IdHash { secret: self.0, hash: 0 }
    }
}

impl Hasher for IdHash {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.hash = fold(self.hash ^ u64::from_le_bytes(word), self.secret | 1);
        }
    }

    /// A length: all ids have the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.hash
    }
}

/// Both halves of the product.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

const SHARDS: usize = 64;

/// Records in a chunk.
const CHUNK: usize = 4096;
