//! The ground state: entries as framed rows of one sled tree.
//!
//! An entry is a row under its id, and one more for each further piece. A row is framed with version, check, slot and
//! sequence number, and stays under 4.1 KB: sled writes leaves over 128 KiB to files that it never syncs. Every call
//! into sled is guarded: it panics on some kinds of damage, and that is an error here.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::seal::{Piece, Sealed};
use super::vectors::Slot;
use crate::decision::EntryId;
use crate::store::StoreError;

/// The rows of one generation.
pub(super) struct Rows {
    db: sled::Db,
    tree: sled::Tree,
    data_file: PathBuf,
}

/// A piece of an entry, as read.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) slot: Slot,
    pub(super) seq: u64,
    pub(super) number: u16,
    pub(super) count: u16,
    row: sled::IVec,
}

impl AsRef<[u8]> for Row {
    /// The sealed bytes.
    fn as_ref(&self) -> &[u8] {
        &self.row[FRAME_BYTES..]
    }
}

impl Row {
    pub(super) fn piece(&self, id: EntryId) -> Piece<'_> {
        Piece { id, slot: self.slot, number: self.number, count: self.count, bytes: self.as_ref() }
    }
}

/// One change to the rows.
#[derive(Clone)]
pub(super) enum RowChange<'a> {
    Put {
        sealed: &'a Sealed,
        seq: u64,
        replaced: u16,
    },
    /// With the number of its pieces.
    Remove {
        id: EntryId,
        count: u16,
    },
}

impl RowChange<'_> {
    pub(super) fn id(&self) -> EntryId {
        match self {
            Self::Put { sealed, .. } => sealed.id,
            Self::Remove { id, .. } => *id,
        }
    }
}

/// What the rows amount to after a commit: what is there must add up to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) seq: u64,
    pub(super) entries: u64,
    /// The clock at that time, so that it never runs backwards.
    pub(super) now_ms: u64,
}

impl Totals {
    pub(super) fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.seq.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.entries.to_le_bytes());
        bytes[16..].copy_from_slice(&self.now_ms.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        Some(Self { seq: number(0)?, entries: number(8)?, now_ms: number(16)? })
    }
}

impl Rows {
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        guarded(|| {
            let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).flush_every_ms(None);
            let db = config.open()?;
            Ok(Self { tree: db.open_tree("entries")?, data_file: folder.join("db"), db })
        })
    }

    pub(super) fn first(&self, id: EntryId) -> Result<Option<Row>, StoreError> {
        match guarded(|| self.tree.get(first_key(id)))? {
            Some(row) => parse(row, 0).map(Some).ok_or_else(|| damaged(id)),
            None => Ok(None),
        }
    }

    /// All pieces of an entry, in order.
    pub(super) fn pieces(&self, id: EntryId) -> Result<Option<Vec<Row>>, StoreError> {
        let Some(first) = self.first(id)? else { return Ok(None) };
        let mut pieces = vec![first];
        for number in 1..pieces[0].count {
            let row = guarded(|| self.tree.get(rest_key(id, number)))?.and_then(|row| parse(row, number));
            let row =
                row.filter(|row| (row.slot, row.seq, row.count) == (pieces[0].slot, pieces[0].seq, pieces[0].count));
            pieces.push(row.ok_or_else(|| damaged(id))?);
        }
        Ok(Some(pieces))
    }

    /// The first pieces of all entries, in the order of their ids; without a row where it is damaged.
    pub(super) fn firsts(
        &self,
        after: Option<EntryId>,
    ) -> impl Iterator<Item = Result<(EntryId, Option<Row>), StoreError>> {
        let from = after.map_or([&[FIRST][..], &[0; 16]].concat(), |id| [&first_key(id)[..], &[0]].concat());
        let mut rows = self.tree.range(from..vec![FIRST + 1]);
        let next = move || guarded(|| rows.next().transpose()).transpose();
        std::iter::from_fn(next).filter_map(|row| match row {
            Ok((key, row)) => Some(Ok((id_of(&key)?, parse(row, 0)))),
            Err(error) => Some(Err(error)),
        })
    }

    /// Every further piece; without a row where it is damaged.
    pub(super) fn rests(&self) -> impl Iterator<Item = Result<(EntryId, Option<Row>), StoreError>> {
        let mut rows = self.tree.range(vec![REST]..vec![REST + 1]);
        let next = move || guarded(|| rows.next().transpose()).transpose();
        std::iter::from_fn(next).filter_map(|row| match row {
            Ok((key, row)) => {
                let number = u16::from_be_bytes(key.get(17..19)?.try_into().ok()?);
                Some(Ok((id_of(&key)?, parse(row, number))))
            }
            Err(error) => Some(Err(error)),
        })
    }

    /// Applies the changes and the totals that they lead to, all or none.
    pub(super) fn apply(&self, changes: &[RowChange<'_>], totals: Totals) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        let remove = |batch: &mut sled::Batch, id: EntryId, from: u16, to: u16| {
            (from..to).for_each(|number| batch.remove(&rest_key(id, number)[..]));
        };
        for change in changes {
            match change {
                RowChange::Put { sealed, seq, replaced } => {
                    let count = sealed.pieces.len() as u16;
                    for (piece, number) in sealed.pieces.iter().zip(0..count) {
                        let row = frame(sealed.slot, *seq, number, count, piece);
                        match number {
                            0 => batch.insert(&first_key(sealed.id)[..], row),
                            _ => batch.insert(&rest_key(sealed.id, number)[..], row),
                        }
                    }
                    remove(&mut batch, sealed.id, count.max(1), *replaced);
                }
                RowChange::Remove { id, count } => {
                    batch.remove(&first_key(*id)[..]);
                    remove(&mut batch, *id, 1, *count);
                }
            }
        }
        batch.insert(note_key(TOTALS), &totals.to_bytes()[..]);
        guarded(|| self.tree.apply_batch(batch))
    }

    pub(super) fn totals(&self) -> Result<Option<Totals>, StoreError> {
        Ok(self.note(TOTALS)?.and_then(|bytes| Totals::from_bytes(&bytes)))
    }

    /// A small row of the store's own.
    pub(super) fn note(&self, name: &str) -> Result<Option<sled::IVec>, StoreError> {
        guarded(|| self.tree.get(note_key(name)))
    }

    /// Writes and removes notes, all or none.
    pub(super) fn change_notes(&self, put: &[(String, Vec<u8>)], remove: &[String]) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        put.iter().for_each(|(name, value)| batch.insert(note_key(name), value.as_slice()));
        remove.iter().for_each(|name| batch.remove(note_key(name)));
        guarded(|| self.tree.apply_batch(batch))
    }

    /// The notes whose names begin so.
    pub(super) fn notes(&self, prefix: &str) -> Result<Vec<(String, sled::IVec)>, StoreError> {
        guarded(|| {
            let notes = self.tree.scan_prefix(note_key(prefix));
            notes
                .map(|note| note.map(|(key, value)| (String::from_utf8_lossy(&key[1..]).into_owned(), value)))
                .collect()
        })
    }

    /// Hands everything applied so far to the disk, and waits until the disk has it.
    ///
    /// sled's own flush ends in `sync_file_range`, which does not survive a power cut; the data file is synced here.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        guarded(|| self.db.flush())?;
        File::open(&self.data_file).and_then(|file| file.sync_data()).map_err(|error| StoreError::from(&error))
    }

    pub(super) fn bytes(&self) -> u64 {
        guarded(|| self.db.size_on_disk()).unwrap_or(0)
    }
}

fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(sled::Error::Io(error))) => Err(StoreError::from(&error)),
        Ok(Err(error)) => Err(StoreError::Unavailable(error.to_string())),
        Err(_) => Err(StoreError::Unavailable("sled panicked".into())),
    }
}

fn frame(slot: Slot, seq: u64, number: u16, count: u16, sealed: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(FRAME_BYTES + sealed.len());
    row.push(ROW_VERSION);
    row.extend_from_slice(&[0; 8]);
    row.extend_from_slice(&slot.to_le_bytes());
    row.extend_from_slice(&seq.to_le_bytes());
    row.extend_from_slice(&number.to_le_bytes());
    row.extend_from_slice(&count.to_le_bytes());
    row.extend_from_slice(sealed);
    let check = xxh3_64(&row[9..]);
    row[1..9].copy_from_slice(&check.to_le_bytes());
    row
}

fn parse(row: sled::IVec, expected: u16) -> Option<Row> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(row.get(at..at + 2)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(row.get(at..at + 8)?.try_into().ok()?));
    let slot = u32::from_le_bytes(row.get(9..13)?.try_into().ok()?);
    let (seq, number, count) = (u64_at(13)?, u16_at(21)?, u16_at(23)?);
    let whole = row[0] == ROW_VERSION && u64_at(1)? == xxh3_64(&row[9..]) && number == expected && number < count;
    whole.then_some(Row { slot, seq, number, count, row })
}

fn damaged(id: EntryId) -> StoreError {
    StoreError::Unavailable(format!("a row of entry {id} is damaged"))
}

fn id_of(key: &[u8]) -> Option<EntryId> {
    Some(EntryId::from_bytes(key.get(1..17)?.try_into().ok()?))
}

fn first_key(id: EntryId) -> [u8; 17] {
    let mut key = [FIRST; 17];
    key[1..].copy_from_slice(id.as_bytes());
    key
}

fn rest_key(id: EntryId, number: u16) -> [u8; 19] {
    let mut key = [REST; 19];
    key[1..17].copy_from_slice(id.as_bytes());
    key[17..].copy_from_slice(&number.to_be_bytes());
    key
}

fn note_key(name: &str) -> Vec<u8> {
    [&[NOTE][..], name.as_bytes()].concat()
}

/// What the keys of first pieces, of further pieces and of notes begin with.
const FIRST: u8 = b'e';
const REST: u8 = b'r';
const NOTE: u8 = b'n';

const TOTALS: &str = "totals";

/// sled's resident memory reaches about three times its cache; the operating system caches the file anyway.
const CACHE_BYTES: u64 = 64 << 20;

const ROW_VERSION: u8 = 2;

/// Version, check, slot, sequence number, number and count of the piece.
const FRAME_BYTES: usize = 1 + 8 + 4 + 8 + 2 + 2;
