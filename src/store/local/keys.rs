//! One secret key per slot: what an entry holds is sealed under its slot's key, and to forget the key is to erase the
//! entry, in every file that has a copy of it.
//!
//! A key is drawn before its slot is used and replaced once the slot is freed, so storing an entry writes no key. The
//! keys are written twice (`keys.a`, `keys.b`): each copy heals the other, and only the loss of both loses an entry.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use parking_lot::{Mutex, RwLock};
use ring::rand::{SecureRandom, SystemRandom};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::vectors::Slot;

pub(super) type Key = [u8; KEY_BYTES];

/// The keys of all slots that were ever used.
pub(super) struct Keys {
    keys: RwLock<Vec<Key>>,
    files: Mutex<[File; 2]>,
    random: SystemRandom,
}

/// What was found when the keys were read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Healed {
    /// Records that one copy had lost.
    pub(super) healed: u64,
    /// Slots whose key is gone: whatever they held cannot be read again.
    pub(super) lost: u64,
}

impl Keys {
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Healed)> {
        let open =
            |name: &str| OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join(name));
        let mut files = [open("keys.a")?, open("keys.b")?];
        let copies = [read(&mut files[0])?, read(&mut files[1])?];
        let records = copies.iter().map(|copy| copy.len().div_ceil(RECORD_BYTES)).max().unwrap_or(0);
        let random = SystemRandom::new();
        let mut keys = Vec::with_capacity(records);
        let mut healed = Healed::default();
        let mut bad = false;
        for slot in 0..records {
            let [a, b] = [&copies[0], &copies[1]].map(|copy| parse(copy, slot));
            if a.is_none() || b.is_none() {
                bad = true;
                match a.or(b) {
                    Some(_) => healed.healed += 1,
                    None => healed.lost += 1,
                }
            }
            keys.push(match a.or(b) {
                Some(key) => key,
                None => draw(&random)?,
            });
        }
        let opened = Self { keys: RwLock::new(keys), files: Mutex::new(files), random };
        if bad {
            opened.rewrite()?;
        }
        Ok((opened, healed))
    }

    /// The keys of a folder that nothing may be written to.
    pub(super) fn read_only(folder: &Path) -> io::Result<Vec<Option<Key>>> {
        let copies = [std::fs::read(folder.join("keys.a"))?, std::fs::read(folder.join("keys.b"))?];
        let records = copies.iter().map(|copy| copy.len() / RECORD_BYTES).max().unwrap_or(0);
        Ok((0..records).map(|slot| parse(&copies[0], slot).or(parse(&copies[1], slot))).collect())
    }

    /// Number of slots that have a key.
    pub(super) fn count(&self) -> usize {
        self.keys.read().len()
    }

    pub(super) fn of(&self, slot: Slot) -> Option<Key> {
        self.keys.read().get(slot as usize).copied()
    }

    /// Adds keys for `more` slots; on return the disk has them.
    pub(super) fn extend(&self, more: usize) -> io::Result<()> {
        let fresh = (0..more).map(|_| draw(&self.random)).collect::<io::Result<Vec<Key>>>()?;
        let first = self.count();
        let bytes: Vec<u8> = fresh.iter().enumerate().flat_map(|(n, key)| record(first + n, key)).collect();
        self.write(&[(first, bytes)])?;
        self.keys.write().extend(fresh);
        Ok(())
    }

    /// Replaces the keys of these slots; on return nothing can open what was sealed under the old ones.
    pub(super) fn renew(&self, slots: &[Slot]) -> io::Result<()> {
        let mut writes = Vec::with_capacity(slots.len());
        for slot in slots {
            let key = draw(&self.random)?;
            if let Some(old) = self.keys.write().get_mut(*slot as usize) {
                *old = key;
                writes.push((*slot as usize, record(*slot as usize, &key).to_vec()));
            }
        }
        self.write(&writes)
    }

    fn rewrite(&self) -> io::Result<()> {
        let keys = self.keys.read().clone();
        let bytes: Vec<u8> = keys.iter().enumerate().flat_map(|(slot, key)| record(slot, key)).collect();
        self.write(&[(0, bytes)])
    }

    fn write(&self, records: &[(usize, Vec<u8>)]) -> io::Result<()> {
        for file in self.files.lock().iter_mut() {
            for (first, bytes) in records {
                file.seek(SeekFrom::Start((first * RECORD_BYTES) as u64))?;
                file.write_all(bytes)?;
            }
            file.sync_data()?;
        }
        Ok(())
    }
}

fn read(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn draw(random: &SystemRandom) -> io::Result<Key> {
    let mut key = [0; KEY_BYTES];
    random.fill(&mut key).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(key)
}

fn record(slot: usize, key: &Key) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[..KEY_BYTES].copy_from_slice(key);
    bytes[KEY_BYTES..].copy_from_slice(&xxh3_64_with_seed(key, slot as u64).to_le_bytes());
    bytes
}

fn parse(copy: &[u8], slot: usize) -> Option<Key> {
    let bytes = copy.get(slot * RECORD_BYTES..(slot + 1) * RECORD_BYTES)?;
    let key: Key = bytes[..KEY_BYTES].try_into().ok()?;
    (record(slot, &key) == bytes).then_some(key)
}

/// AES-128.
const KEY_BYTES: usize = 16;

/// A key and its check.
const RECORD_BYTES: usize = KEY_BYTES + 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_copy_heals_the_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let (keys, found) = Keys::open(folder.path()).expect("open");
        assert_eq!((keys.count(), found), (0, Healed::default()));
        keys.extend(100).expect("extend");
        keys.renew(&[7]).expect("renew");
        let all: Vec<Key> = (0..100).map(|slot| keys.of(slot).expect("a key")).collect();
        drop(keys);
        let check = |damage: &dyn Fn(), expected: Healed| {
            damage();
            let (keys, found) = Keys::open(folder.path()).expect("open");
            assert_eq!(found, expected);
            let same = (0..100).filter(|slot| keys.of(*slot) == Some(all[*slot as usize])).count();
            assert_eq!(same as u64, 100 - found.lost);
            drop(keys);
            assert_eq!(Keys::open(folder.path()).expect("open").1, Healed::default(), "healed for good");
        };
        let flip = |name: &str, at: usize| {
            let path = folder.path().join(name);
            let mut bytes = std::fs::read(&path).expect("read");
            bytes[at] ^= 4;
            std::fs::write(path, bytes).expect("write");
        };
        let cut = |name: &str, at: u64| {
            let file = OpenOptions::new().write(true).open(folder.path().join(name)).expect("open");
            file.set_len(at).expect("cut");
        };
        check(&|| {}, Healed::default());
        check(&|| flip("keys.a", 50), Healed { healed: 1, lost: 0 });
        check(&|| flip("keys.b", 2399), Healed { healed: 1, lost: 0 });
        check(&|| cut("keys.a", 0), Healed { healed: 100, lost: 0 });
        check(&|| cut("keys.b", 2390), Healed { healed: 1, lost: 0 });
        check(
            &|| {
                flip("keys.a", 0);
                flip("keys.b", 0);
            },
            Healed { healed: 0, lost: 1 },
        );
    }

    #[test]
    fn a_renewed_key_is_another_on_disk_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let (keys, _) = Keys::open(folder.path()).expect("open");
        keys.extend(3).expect("extend");
        let old = keys.of(1).expect("a key");
        keys.renew(&[1]).expect("renew");
        assert_ne!(keys.of(1).expect("a key"), old);
        for name in ["keys.a", "keys.b"] {
            let bytes = std::fs::read(folder.path().join(name)).expect("read");
            assert!(!bytes.windows(old.len()).any(|window| window == old), "{name} still has it");
        }
    }
}
