//! Which vector a slot holds: unit vectors as halves, a row per slot and vector length, in mapped files.
//!
//! A row carries a check over its owner, its place and its bytes, so a row that was cut, flipped or never finished
//! reads as absent. Rows are read through a shared mapping and written by positioned writes: a full disk is an error
//! of the write, not a signal at a store. It does not know which slots are in use.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use parking_lot::{Mutex, RwLock};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::kernel::{Kernel, halves};
use crate::decision::{Embedding, EntryId};

/// The number of a live entry: chosen by the caller, dense from 0, used again after its release.
pub type Slot = u32;

/// The vector rows of a store.
pub struct Vectors {
    folder: PathBuf,
    lengths: RwLock<Vec<std::sync::Arc<Length>>>,
    kernel: Kernel,
}

/// The rows of one vector length.
pub(crate) struct Length {
    folder: PathBuf,
    dims: usize,
    groups: Box<[OnceLock<Group>]>,
    /// Held while a chunk is made, and when the folder's entries are synced.
    making: Mutex<()>,
    grown: AtomicBool,
    kernel: Kernel,
}

type Group = Box<[OnceLock<Chunk>]>;

struct Chunk {
    file: File,
    map: Mmap,
    written: AtomicBool,
    #[cfg(not(unix))]
    seeking: Mutex<()>,
}

impl Vectors {
    /// Opens the rows kept in `folder`, making it where there is none. Chunk files that were cut short are given their
    /// full length again: what was lost reads as absent. Files of other names are left alone.
    ///
    /// # Errors
    /// A folder or file cannot be made, read or mapped.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let vectors = Self { folder: folder.to_owned(), lengths: RwLock::default(), kernel: Kernel::choose() };
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Some(dims) = number(&entry.file_name()).filter(|dims| (1..=DIMS_MAX).contains(dims)) else { continue };
            if !entry.file_type()?.is_dir() {
                continue;
            }
            let length = vectors.length_or_new(dims)?;
            for file in fs::read_dir(entry.path())? {
                let file = file?;
                let name = file.file_name();
                let Some(chunk) = number(&name).filter(|chunk| *chunk < CHUNKS_MAX) else { continue };
                if file.file_type()?.is_file() && *name == *format!("{chunk:05}") {
                    length.chunk_or_new(chunk)?;
                }
            }
        }
        Ok(vectors)
    }

    /// Writes the slot's row of this length; durable after [`Vectors::sync`].
    ///
    /// # Errors
    /// The file cannot be made or written, or the length or slot is beyond what the files can number.
    pub fn write(&self, slot: Slot, id: EntryId, vector: &[f32]) -> io::Result<()> {
        let dims = vector.len();
        if !(1..=DIMS_MAX).contains(&dims) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a vector has 1 to 65535 values"));
        }
        let length = self.length_or_new(dims)?;
        let chunk = length.chunk_or_new(slot as usize / CHUNK_ROWS)?;
        let mut row = vec![0u8; length.stride()];
        let mut values = vec![f16::ZERO; dims];
        values.convert_from_f32_slice(vector);
        for (bytes, value) in row[CHECK_BYTES..].chunks_exact_mut(2).zip(&values) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        let check = check(slot, id, dims, &row[CHECK_BYTES..]);
        row[..CHECK_BYTES].copy_from_slice(&check.to_le_bytes());
        chunk.write(&row, length.offset(slot))
    }

    /// The slot's vector; `None` where the row is not the one that was written for `id`.
    pub fn read(&self, slot: Slot, id: EntryId, dims: usize) -> Option<Vec<f32>> {
        let length = self.length(dims)?;
        length.holds(slot, id).then(|| length.values(slot).map(|values| values.to_f32_vec()))?
    }

    /// Whether the slot's row is the one that was written for `id`.
    pub fn holds(&self, slot: Slot, id: EntryId, dims: usize) -> bool {
        self.length(dims).is_some_and(|length| length.holds(slot, id))
    }

    /// Cosine of the slot's row with the query, unchecked; 0.0 where there is no row.
    pub fn similarity(&self, slot: Slot, query: &Embedding) -> f32 {
        self.length(query.dimensions()).map_or(0.0, |length| length.similarity(slot, query.as_slice()))
    }

    /// Zeroes the slots' rows of every length.
    ///
    /// # Errors
    /// A file cannot be written; rows before it are zeroed.
    pub fn erase(&self, slots: &[Slot]) -> io::Result<()> {
        let lengths = self.lengths.read().clone();
        for length in lengths {
            let zeros = vec![0u8; length.stride()];
            for slot in slots {
                let Some(chunk) = length.chunk(*slot as usize / CHUNK_ROWS) else { continue };
                let there = length.row(*slot).is_some_and(|row| row.iter().any(|byte| *byte != 0));
                if there {
                    chunk.write(&zeros, length.offset(*slot))?;
                }
            }
        }
        Ok(())
    }

    /// Makes everything written so far survive a power loss.
    ///
    /// # Errors
    /// A file cannot be synced; it is tried again at the next call.
    pub fn sync(&self) -> io::Result<()> {
        let lengths = self.lengths.read().clone();
        for length in &lengths {
            length.sync(&self.folder)?;
        }
        Ok(())
    }

    /// The rows of one length, for many reads in a row.
    pub(crate) fn length(&self, dims: usize) -> Option<std::sync::Arc<Length>> {
        self.lengths.read().iter().find(|length| length.dims == dims).cloned()
    }

    fn length_or_new(&self, dims: usize) -> io::Result<std::sync::Arc<Length>> {
        if let Some(length) = self.length(dims) {
            return Ok(length);
        }
        let mut lengths = self.lengths.write();
        if let Some(length) = lengths.iter().find(|length| length.dims == dims) {
            return Ok(length.clone());
        }
        let folder = self.folder.join(dims.to_string());
        fs::create_dir_all(&folder)?;
        let groups = (0..CHUNKS_MAX / GROUP_CHUNKS).map(|_| OnceLock::new()).collect();
        let (making, grown) = (Mutex::new(()), AtomicBool::new(true));
        let length = std::sync::Arc::new(Length { folder, dims, groups, making, grown, kernel: self.kernel });
        lengths.push(length.clone());
        Ok(length)
    }
}

impl Length {
    pub(crate) fn dims(&self) -> usize {
        self.dims
    }

    /// Cosine of the slot's row with a query of this length, unchecked; 0.0 where there is no row.
    #[inline]
    pub(crate) fn similarity(&self, slot: Slot, query: &[f32]) -> f32 {
        self.values(slot).map_or(0.0, |values| self.kernel.dot_f16(values, query))
    }

    /// The slot's row, unchecked.
    pub(crate) fn values(&self, slot: Slot) -> Option<&[f16]> {
        let row = self.row(slot)?;
        Some(halves(&row[CHECK_BYTES..CHECK_BYTES + 2 * self.dims]))
    }

    /// The slot's row as it lies in memory, to be asked for before it is needed.
    #[inline]
    pub(crate) fn row(&self, slot: Slot) -> Option<&[u8]> {
        let chunk = self.chunk(slot as usize / CHUNK_ROWS)?;
        let at = slot as usize % CHUNK_ROWS * self.stride();
        chunk.map.get(at..at + self.stride())
    }

    /// A short name of the owner and the values that the slot's row holds now; 0 where there is no row.
    pub(crate) fn tag(&self, slot: Slot) -> u32 {
        self.row(slot).map_or(0, |row| u32::from_le_bytes([row[0], row[1], row[2], row[3]]))
    }

    pub(crate) fn holds(&self, slot: Slot, id: EntryId) -> bool {
        self.row(slot).is_some_and(|row| {
            let (written, values) = row.split_at(CHECK_BYTES);
            written == check(slot, id, self.dims, values).to_le_bytes()
        })
    }

    fn chunk(&self, chunk: usize) -> Option<&Chunk> {
        self.groups.get(chunk / GROUP_CHUNKS)?.get()?[chunk % GROUP_CHUNKS].get()
    }

    fn chunk_or_new(&self, chunk: usize) -> io::Result<&Chunk> {
        if let Some(chunk) = self.chunk(chunk) {
            return Ok(chunk);
        }
        let group = self.groups.get(chunk / GROUP_CHUNKS).ok_or(io::ErrorKind::InvalidInput)?;
        let group = group.get_or_init(|| (0..GROUP_CHUNKS).map(|_| OnceLock::new()).collect());
        let cell = &group[chunk % GROUP_CHUNKS];
        let making = self.making.lock();
        if cell.get().is_none() {
            let made = Chunk::open(&self.folder.join(format!("{chunk:05}")), (CHUNK_ROWS * self.stride()) as u64)?;
            self.grown.store(true, Ordering::Release);
            // Made under the lock, so never twice.
            return Ok(cell.get_or_init(|| made));
        }
        drop(making);
        cell.get().ok_or_else(|| io::Error::other("a chunk vanished"))
    }

    fn sync(&self, parent: &Path) -> io::Result<()> {
        for chunk in
            self.groups.iter().filter_map(OnceLock::get).flat_map(|group| group.iter().filter_map(OnceLock::get))
        {
            // Taken before the sync: a write during it is synced by the next call.
            if chunk.written.swap(false, Ordering::AcqRel)
                && let Err(error) = chunk.file.sync_data()
            {
                chunk.written.store(true, Ordering::Release);
                return Err(error);
            }
        }
        let making = self.making.lock();
        if self.grown.load(Ordering::Acquire) {
            sync_folder(&self.folder)?;
            sync_folder(parent)?;
            self.grown.store(false, Ordering::Release);
        }
        drop(making);
        Ok(())
    }

    fn stride(&self) -> usize {
        (CHECK_BYTES + 2 * self.dims).next_multiple_of(8)
    }

    fn offset(&self, slot: Slot) -> u64 {
        (slot as usize % CHUNK_ROWS * self.stride()) as u64
    }
}

impl Chunk {
    fn open(path: &Path, bytes: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if file.metadata()?.len() < bytes {
            file.set_len(bytes)?;
        }
        // SAFETY: the file belongs to the store and is never made shorter. Its bytes change under the mapping only by
        // our own writes, and a row read during one fails its check or is a similarity that the caller checks again.
        let map = unsafe { memmap2::MmapOptions::new().len(bytes as usize).map(&file)? };
        Ok(Self {
            file,
            map,
            written: AtomicBool::new(false),
            #[cfg(not(unix))]
            seeking: Mutex::new(()),
        })
    }

    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_at(bytes, at)?;
        self.written.store(true, Ordering::Release);
        Ok(())
    }

    #[cfg(unix)]
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, bytes, at)
    }

    #[cfg(not(unix))]
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        use std::io::{Seek, SeekFrom, Write};
        let seeking = self.seeking.lock();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(bytes)?;
        drop(seeking);
        Ok(())
    }
}

/// Makes new names in a folder survive a power loss.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened as a file, and its entries are durable with their files.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    drop::<&Path>(folder);
    Ok(())
}

fn check(slot: Slot, id: EntryId, dims: usize, values: &[u8]) -> u64 {
    let mut owner = [0u8; 24];
    owner[..16].copy_from_slice(id.as_bytes());
    owner[16..20].copy_from_slice(&slot.to_le_bytes());
    owner[20..].copy_from_slice(&(dims as u32).to_le_bytes());
    // Never zero: zeros are what a hole in the file reads as.
    xxh3_64_with_seed(values, xxh3_64(&owner)).max(1)
}

fn number(name: &std::ffi::OsStr) -> Option<usize> {
    name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// Rows of a file: 12 MB at 384 values, sparse until they are written.
const CHUNK_ROWS: usize = 16_384;
const CHUNKS_MAX: usize = 1 << 16;
const GROUP_CHUNKS: usize = 256;
const CHECK_BYTES: usize = 8;

/// Values of a vector: a partition keeps its length in sixteen bits.
pub(crate) const DIMS_MAX: usize = u16::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> EntryId {
        let mut bytes = [7; 16];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        EntryId::from_bytes(bytes)
    }

    fn vector(n: u32, dims: usize) -> Embedding {
        let values = (0..dims).map(|i| ((n as usize * 31 + i * 17) % 101) as f32 - 50.0);
        Embedding::new(values.collect()).expect("a vector that is not zero")
    }

    #[test]
    fn rows_come_back_after_opening_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let slots = [0, 1, 77, CHUNK_ROWS as u32 - 1, CHUNK_ROWS as u32, 3 * CHUNK_ROWS as u32 + 5];
        {
            let vectors = Vectors::open(folder.path()).expect("open");
            for (slot, dims) in slots.iter().flat_map(|slot| [(*slot, 5), (*slot, 384)]) {
                vectors.write(slot, id(slot), vector(slot, dims).as_slice()).expect("write");
            }
            vectors.sync().expect("sync");
        }
        fs::write(folder.path().join("384/notes.txt"), "foreign").expect("a foreign file");
        fs::write(folder.path().join("384/7"), "foreign").expect("a foreign file");
        let vectors = Vectors::open(folder.path()).expect("open");
        for (slot, dims) in slots.iter().flat_map(|slot| [(*slot, 5), (*slot, 384)]) {
            let wrote = vector(slot, dims);
            let read = vectors.read(slot, id(slot), dims).expect("the row");
            assert!(wrote.as_slice().iter().zip(&read).all(|(a, b)| (a - b).abs() < 1e-3));
            assert!((vectors.similarity(slot, &wrote) - 1.0).abs() < 2e-3);
            assert!(vectors.read(slot, id(slot + 1), dims).is_none(), "another owner");
        }
        assert!(vectors.read(2, id(2), 384).is_none(), "never written");
        assert_eq!(vectors.similarity(2, &vector(2, 384)), 0.0);
        assert_eq!(vectors.similarity(9_999_999, &vector(2, 384)), 0.0);
        vectors.erase(&[77, 78, 9_999_999]).expect("erase");
        assert!(!vectors.holds(77, id(77), 384) && !vectors.holds(77, id(77), 5));
        assert!(vectors.holds(1, id(1), 384));
    }

    #[test]
    fn a_damaged_or_lost_row_reads_as_absent() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("24/00000");
        {
            let vectors = Vectors::open(folder.path()).expect("open");
            (0..100).for_each(|slot| vectors.write(slot, id(slot), vector(slot, 24).as_slice()).expect("write"));
        }
        let mut bytes = fs::read(&file).expect("the file");
        let row = CHECK_BYTES + 48;
        for slot in 0..50 {
            bytes[slot * row + slot] ^= 1 << (slot % 8);
        }
        bytes.truncate(90 * row + 9);
        fs::write(&file, bytes).expect("the damaged file");
        let vectors = Vectors::open(folder.path()).expect("open");
        let there = |slot: u32| vectors.holds(slot, id(slot), 24);
        assert!((0..50).all(|slot| !there(slot)));
        assert!((50..90).all(there));
        assert!((90..100).all(|slot| !there(slot)));
        vectors.write(95, id(95), vector(95, 24).as_slice()).expect("a row of the part that was lost");
        assert!(there(95));
    }
}
