//! A segment in a file: which slots a graph is over and how they are linked, never a vector.
//!
//! The file is a header, a table of block checks, and words in blocks. Its name, length and the hash of header and
//! table stand in the store's manifest, so nothing in the file is believed before the manifest agrees, and no number
//! in it before it was checked against the file's length. A file that does not agree is reported, never used.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::places::{NODES_MAX, NOWHERE};
use super::segment::{LINKS, Level, Links, Segment};
use super::{SegmentFile, Slot};
use crate::decision::Partition;
use crate::store::local::vectors::{DIMS_MAX, Length, sync_folder};

/// What a file holds.
#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    pub(super) dims: usize,
    pub(super) slots: Vec<Slot>,
    /// Whose row, and which, each slot held when the file was written; 0 for a node that was dead.
    pub(super) tags: Vec<u32>,
    pub(super) links: Links,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("the file cannot be read")]
    Unreadable(#[from] io::Error),
    #[error("the file is not the one that was written: {0}")]
    Damaged(&'static str),
}

/// Writes the segment so that it is there in whole, under its name, or not at all.
///
/// # Errors
/// The folder or file cannot be written or synced.
pub(super) fn write(folder: &Path, partition: Partition, rows: &Length, segment: &Segment) -> io::Result<SegmentFile> {
    let tag = |(node, slot): (usize, &Slot)| if segment.is_dead(node as u32) { 0 } else { rows.tag(*slot) };
    let tags: Vec<u32> = segment.slots().iter().enumerate().map(tag).collect();
    let mut payload = Vec::with_capacity((segment.len() * (LINKS + 3)) * 4);
    let mut put = |words: &[u32]| words.iter().for_each(|word| payload.extend_from_slice(&word.to_le_bytes()));
    put(segment.slots());
    put(&tags);
    put(segment.lowest());
    for level in segment.levels() {
        put(&[level.starts.len() as u32 - 1, level.links.len() as u32]);
        put(&level.starts);
        put(&level.links);
    }
    let mut head = Vec::with_capacity(HEADER + payload.len() / BLOCK * 8 + 8);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(partition.as_bytes());
    for word in [rows.dims(), segment.len(), segment.levels().len(), payload.len()] {
        head.extend_from_slice(&(word as u64).to_le_bytes());
    }
    payload.chunks(BLOCK).for_each(|block| head.extend_from_slice(&xxh3_64(block).to_le_bytes()));
    let hash = *blake3::hash(&head).as_bytes();
    let name = format!("{}.seg", hex(&hash[..16]));
    fs::create_dir_all(folder)?;
    let unfinished = folder.join(format!("{name}.tmp"));
    let written = File::create(&unfinished).and_then(|mut file| {
        file.write_all(&head)?;
        file.write_all(&payload)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&unfinished, folder.join(&name))) {
        // Half a file is of no use, and the disk may be full.
        if let Err(error) = fs::remove_file(&unfinished) {
            tracing::debug!(%error, "an unfinished segment file stays");
        }
        return Err(error);
    }
    sync_folder(folder)?;
    Ok(SegmentFile { partition, name, bytes: (head.len() + payload.len()) as u64, hash })
}

/// Reads and checks a file of the manifest.
///
/// # Errors
/// The file is not there, not whole, or not consistent.
pub(super) fn read(folder: &Path, file: &SegmentFile) -> Result<Snapshot, Unusable> {
    if !is_name(&file.name) {
        return Err(Unusable::Damaged("its name"));
    }
    let mut open = File::open(folder.join(&file.name))?;
    if open.metadata()?.len() != file.bytes {
        return Err(Unusable::Damaged("its length"));
    }
    let mut header = [0u8; HEADER];
    open.read_exact(&mut header)?;
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[24 + 8 * at..32 + 8 * at]);
        u64::from_le_bytes(bytes)
    };
    let (dims, count, levels, payload) = (number(0), number(1), number(2), number(3));
    if header[..8] != *MAGIC || header[8..24] != *file.partition.as_bytes() {
        return Err(Unusable::Damaged("its header"));
    }
    let blocks = payload.div_ceil(BLOCK as u64);
    // The length on disk bounds what is allocated: it is what the manifest says, and the file has it.
    if payload > file.bytes || HEADER as u64 + blocks * 8 + payload != file.bytes {
        return Err(Unusable::Damaged("its header's length"));
    }
    if dims == 0 || dims > DIMS_MAX as u64 || count > NODES_MAX as u64 || levels > LEVELS_MAX {
        return Err(Unusable::Damaged("its header's numbers"));
    }
    let mut table = vec![0u8; (blocks * 8) as usize];
    open.read_exact(&mut table)?;
    let mut hasher = blake3::Hasher::new();
    if *hasher.update(&header).update(&table).finalize().as_bytes() != file.hash {
        return Err(Unusable::Damaged("its hash"));
    }
    let mut words = Vec::with_capacity(payload as usize / 4);
    let mut block = vec![0u8; BLOCK];
    let mut left = payload as usize;
    for check in table.chunks_exact(8) {
        let block = &mut block[..left.min(BLOCK)];
        open.read_exact(block)?;
        if xxh3_64(block).to_le_bytes() != *check {
            return Err(Unusable::Damaged("a block"));
        }
        words.extend(block.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])));
        left -= block.len();
    }
    parse(&words, dims as usize, count as usize, levels as usize).ok_or(Unusable::Damaged("its contents"))
}

/// Whether a file of this name is one of ours.
pub(super) fn is_name(name: &str) -> bool {
    name.strip_suffix(".seg").is_some_and(|hash| {
        hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// `None` where anything would lead a search out of bounds.
fn parse(words: &[u32], dims: usize, count: usize, levels: usize) -> Option<Snapshot> {
    let mut rest = words;
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at_checked(count)?;
        rest = left;
        Some(taken.to_vec())
    };
    let (slots, tags, lowest) = (take(count)?, take(count)?, take(count * LINKS)?);
    if lowest.iter().any(|link| *link != NOWHERE && *link as usize >= count) {
        return None;
    }
    let mut layers: Vec<Level> = Vec::with_capacity(levels);
    let mut below = count;
    for _ in 0..levels {
        let sizes = take(2)?;
        let (nodes, links) = (sizes[0] as usize, sizes[1] as usize);
        if nodes == 0 || nodes > below {
            return None;
        }
        below = nodes;
        let level = Level { starts: take(nodes + 1)?, links: take(links)? };
        let rising = level.starts.is_sorted() && level.starts[0] == 0 && level.starts[nodes] as usize == links;
        if !rising || level.links.iter().any(|link| *link as usize >= nodes) {
            return None;
        }
        layers.push(level);
    }
    rest.is_empty().then_some(Snapshot { dims, slots, tags, links: Links { lowest, levels: layers } })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const MAGIC: &[u8; 8] = b"NHSEG\0\0\x01";
const HEADER: usize = 8 + 16 + 4 * 8;
/// A flipped bit costs one check of so much.
const BLOCK: usize = 64 << 10;
const LEVELS_MAX: u64 = 16;
