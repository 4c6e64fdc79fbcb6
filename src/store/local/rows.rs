//! Entries as framed rows of one sled tree.
//!
//! A row is a version byte, a 16-byte BLAKE3 checksum and a postcard body. The checksum is verified on every read:
//! a damaged row is an error, never an answer. One tree holds everything, so a batch over it is atomic.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::decision::{Entry, EntryId};
use crate::store::StoreError;

pub(super) struct Rows {
    db: sled::Db,
    tree: sled::Tree,
    data_file: PathBuf,
}

impl Rows {
    pub(super) fn open(folder: &Path) -> Result<Self, OpenStoreError> {
        std::fs::create_dir_all(folder).map_err(|source| OpenStoreError::Io { folder: folder.to_owned(), source })?;
        let path = folder.join(SLED_FOLDER);
        let db = sled::Config::new()
            .path(&path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .open()
            .map_err(|error| open_error(folder, error))?;
        let rows = Self {
            tree: db.open_tree("entries").map_err(|error| open_error(folder, error))?,
            data_file: path.join("db"),
            db,
        };
        rows.check_format(folder)?;
        Ok(rows)
    }

    pub(super) fn get(&self, id: EntryId) -> Result<Option<Entry>, StoreError> {
        match self.tree.get(id.as_bytes()).map_err(unavailable)? {
            Some(row) => decode(id, &row).map(Some),
            None => Ok(None),
        }
    }

    /// Every entry, in the order of ids; an `Err` for each damaged row.
    pub(super) fn entries(&self) -> impl Iterator<Item = Result<Entry, StoreError>> {
        self.entries_after(None)
    }

    pub(super) fn entries_after(&self, cursor: Option<EntryId>) -> impl Iterator<Item = Result<Entry, StoreError>> {
        let rows = match cursor {
            Some(id) => {
                self.tree.range((std::ops::Bound::Excluded(id.as_bytes().to_vec()), std::ops::Bound::Unbounded))
            }
            None => self.tree.iter(),
        };
        rows.map(|row| {
            let (key, row) = row.map_err(unavailable)?;
            let id = <[u8; 16]>::try_from(key.as_ref())
                .map_err(|_| StoreError::Unavailable(format!("a key of {} bytes is no entry id", key.len())))?;
            decode(EntryId::from_bytes(id), &row)
        })
    }

    pub(super) fn apply(&self, batch: sled::Batch) -> Result<(), StoreError> {
        self.tree.apply_batch(batch).map_err(unavailable)
    }

    /// Hands everything applied so far to the disk, and waits until the disk has it.
    ///
    /// sled's own flush ends in `sync_file_range`, which does not survive a power cut; the data file is synced here.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(unavailable)?;
        File::open(&self.data_file).and_then(|file| file.sync_data()).map_err(|error| io_error(&error))
    }

    fn check_format(&self, folder: &Path) -> Result<(), OpenStoreError> {
        let written = self.db.get(FORMAT_KEY).map_err(|error| open_error(folder, error))?;
        match written {
            Some(format) if format.as_ref() == FORMAT => Ok(()),
            Some(format) => Err(OpenStoreError::Format {
                folder: folder.to_owned(),
                found: String::from_utf8_lossy(&format).into_owned(),
                known: String::from_utf8_lossy(FORMAT).into_owned(),
            }),
            None => {
                self.db.insert(FORMAT_KEY, FORMAT).map_err(|error| open_error(folder, error))?;
                self.sync()
                    .map_err(|error| OpenStoreError::Damaged { folder: folder.to_owned(), cause: error.to_string() })
            }
        }
    }
}

/// The entry as a row.
pub(super) fn encode(entry: &Entry) -> Result<Vec<u8>, StoreError> {
    let body = postcard::to_stdvec(entry).map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let mut row = Vec::with_capacity(HEADER_BYTES + body.len());
    row.push(ROW_VERSION);
    row.extend_from_slice(&checksum(entry.id, &body));
    row.extend_from_slice(&body);
    Ok(row)
}

fn decode(id: EntryId, row: &[u8]) -> Result<Entry, StoreError> {
    let damaged = |what: &str| StoreError::Unavailable(format!("the row of entry {id} {what}"));
    let (header, body) = row.split_at_checked(HEADER_BYTES).ok_or_else(|| damaged("is cut short"))?;
    if header[0] != ROW_VERSION {
        return Err(damaged("has an unknown version"));
    }
    if header[1..] != checksum(id, body) {
        return Err(damaged("does not match its checksum"));
    }
    postcard::from_bytes(body).map_err(|error| damaged(&format!("cannot be decoded: {error}")))
}

/// Over the id too: a row under another entry's key is damage.
fn checksum(id: EntryId, body: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id.as_bytes()).update(body);
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}

fn open_error(folder: &Path, error: sled::Error) -> OpenStoreError {
    match error {
        sled::Error::Io(io) if io.to_string().contains("could not acquire lock") => {
            OpenStoreError::Locked { folder: folder.to_owned() }
        }
        sled::Error::Io(source) => OpenStoreError::Io { folder: folder.to_owned(), source },
        other => OpenStoreError::Damaged { folder: folder.to_owned(), cause: other.to_string() },
    }
}

fn unavailable(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(io) => io_error(&io),
        other => StoreError::Unavailable(other.to_string()),
    }
}

fn io_error(error: &std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull => StoreError::Full,
        _ => StoreError::Unavailable(error.to_string()),
    }
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    #[error("data folder {} is in use by another process", folder.display())]
    Locked { folder: PathBuf },
    #[error("data folder {} holds format {found:?}; this version reads {known:?}", folder.display())]
    Format { folder: PathBuf, found: String, known: String },
    #[error("data folder {} is damaged: {cause}", folder.display())]
    Damaged { folder: PathBuf, cause: String },
    #[error("data folder {}: {source}", folder.display())]
    Io { folder: PathBuf, source: std::io::Error },
}

const SLED_FOLDER: &str = "store";

/// sled's resident memory reaches about three times its cache; the operating system caches the file anyway.
const CACHE_BYTES: u64 = 64 << 20;

const FORMAT_KEY: &[u8] = b"format";
const FORMAT: &[u8] = b"nearhit-store-1";

const ROW_VERSION: u8 = 1;
const HEADER_BYTES: usize = 17;
