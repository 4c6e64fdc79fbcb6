//! The second copy: every change as a framed record of append-only files, synced before it is acknowledged.
//!
//! What sled or the disk destroys in the rows comes back from here, and the other way round. A reader trusts a record
//! only if its check holds, and goes on behind a damaged stretch at the next record that does.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::rows::Totals;
use super::seal::Sealed;
use crate::decision::EntryId;

/// The files of one generation, open for appending.
pub(super) struct Log {
    folder: PathBuf,
    number: u32,
    file: File,
    length: u64,
    /// Bytes of the files before this one.
    before: u64,
}

/// Where a record begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    file: u32,
    offset: u32,
}

/// The last that the log says about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) seq: u64,
    /// Where its record is; `None` if the entry was removed.
    pub(super) put: Option<Position>,
}

/// What all the files say.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) last: HashMap<EntryId, Last>,
    pub(super) totals: Option<Totals>,
    /// Stretches that are no record.
    pub(super) gaps: u64,
    pub(super) records: u64,
    /// The greatest sequence number of all, of groups that were never closed too: none is used twice.
    pub(super) seq_max: u64,
    /// Records of a group that is not closed yet: until it is, nobody was told of them.
    open: Vec<(EntryId, Last)>,
}

pub(super) enum Record {
    Put {
        seq: u64,
        sealed: Sealed,
    },
    Remove {
        seq: u64,
        id: EntryId,
    },
    /// Closes a group.
    Commit(Totals),
}

impl Log {
    /// Opens a folder's log for appending, in a new file unless the last one ends with a closed group.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let numbers = numbers(folder)?;
        let size = |number: u32| std::fs::metadata(path(folder, number)).map_or(0, |found| found.len());
        let number = match numbers.last() {
            None => 1,
            Some(last) if size(*last) < FILE_BYTES_MAX && ends_closed(&std::fs::read(path(folder, *last))?) => *last,
            Some(last) => last + 1,
        };
        let file = OpenOptions::new().create(true).append(true).open(path(folder, number))?;
        File::open(folder)?.sync_all()?;
        let length = file.metadata()?.len();
        let before = numbers.iter().filter(|other| **other != number).map(|other| size(*other)).sum();
        Ok(Self { folder: folder.to_owned(), number, file, length, before })
    }

    /// Appends whole records, all or none.
    pub(super) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        if self.length >= FILE_BYTES_MAX {
            let next = OpenOptions::new().create_new(true).append(true).open(path(&self.folder, self.number + 1))?;
            File::open(&self.folder)?.sync_all()?;
            self.before += self.length;
            (self.number, self.file, self.length) = (self.number + 1, next, 0);
        }
        match self.file.write_all(records) {
            Ok(()) => {
                self.length += records.len() as u64;
                Ok(())
            }
            Err(error) => {
                // What was written of them must not precede the next records.
                self.file.set_len(self.length)?;
                Err(error)
            }
        }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Syncs every file, for a log that was written without waiting.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        for number in numbers(&self.folder)? {
            File::open(path(&self.folder, number))?.sync_all()?;
        }
        File::open(&self.folder)?.sync_all()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.before + self.length
    }
}

/// Reads all files of a folder.
pub(super) fn read(folder: &Path) -> io::Result<Contents> {
    let mut read = Contents::default();
    let numbers = if folder.is_dir() { numbers(folder)? } else { Vec::new() };
    for (number, next) in numbers.iter().zip(numbers.iter().skip(1).map(Some).chain([None])) {
        // A file in the middle that is gone is a gap.
        read.gaps += next.map_or(0, |next| u64::from(next - number - 1));
        let mut bytes = Vec::new();
        File::open(path(folder, *number))?.read_to_end(&mut bytes)?;
        let mut at = 0;
        while at < bytes.len() {
            let Some(length) = whole_record(&bytes[at..]) else {
                // A kill in the middle of an append leaves a piece at the end of a file: nobody was told of it.
                match next_record(&bytes, at + 1) {
                    Some(next) => at = next,
                    None => {
                        read.torn(&bytes[at..]);
                        break;
                    }
                }
                read.gaps += 1;
                continue;
            };
            read.add(&bytes[at..at + length], Position { file: *number, offset: at as u32 });
            at += length;
        }
        // A group does not go on in the next file: this one was never closed, and nobody was told of it.
        read.open.clear();
    }
    read.gaps += numbers.first().map_or(0, |first| u64::from(first - 1));
    Ok(read)
}

/// The record at a position.
pub(super) fn at(folder: &Path, position: Position) -> io::Result<Option<Record>> {
    let mut file = File::open(path(folder, position.file))?;
    file.seek(SeekFrom::Start(u64::from(position.offset)))?;
    let mut head = [0; HEADER_BYTES];
    file.read_exact(&mut head)?;
    let Some(length) = length_of(&head) else { return Ok(None) };
    let mut bytes = head.to_vec();
    file.take((length - HEADER_BYTES) as u64).read_to_end(&mut bytes)?;
    Ok(whole_record(&bytes).and_then(|length| parse(&bytes[..length])))
}

impl Contents {
    /// Of a log that cannot be read at all.
    pub(super) fn unreadable() -> Self {
        Self { gaps: 1, ..Self::default() }
    }

    fn add(&mut self, bytes: &[u8], position: Position) {
        self.records += 1;
        let body = &bytes[HEADER_BYTES..];
        let Some((seq, kind, id)) = parse_head(body) else { return };
        self.seq_max = self.seq_max.max(seq);
        match kind {
            COMMIT => {
                self.totals = Totals::from_bytes(&body[HEAD_BYTES..]).or(self.totals);
                for (id, new) in self.open.drain(..) {
                    let last = self.last.entry(id).or_insert(new);
                    if new.seq >= last.seq {
                        *last = new;
                    }
                }
            }
            _ => self.open.push((id, Last { seq, put: (kind == PUT).then_some(position) })),
        }
    }

    /// A piece at the end counts as damage only if it is no beginning of a record.
    fn torn(&mut self, piece: &[u8]) {
        let begins = piece.len() < 4 && MAGIC.starts_with(piece) || piece.starts_with(&MAGIC);
        self.gaps += u64::from(!begins);
    }
}

/// Appends a record to `bytes`.
pub(super) fn write(bytes: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Put { seq, sealed } => write_put_record(bytes, *seq, sealed),
        Record::Remove { seq, id } => framed(bytes, |bytes| write_head(bytes, *seq, REMOVE, *id)),
        Record::Commit(totals) => framed(bytes, |bytes| {
            write_head(bytes, totals.seq, COMMIT, EntryId::from_bytes([0; 16]));
            bytes.extend_from_slice(&totals.to_bytes());
        }),
    }
}

/// Appends the record of a stored entry to `bytes`.
pub(super) fn write_put_record(bytes: &mut Vec<u8>, seq: u64, sealed: &Sealed) {
    framed(bytes, |bytes| write_put(bytes, seq, sealed));
}

fn framed(bytes: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[0; 12]);
    body(bytes);
    let length = (bytes.len() - start - HEADER_BYTES) as u32;
    let check = xxh3_64(&bytes[start + HEADER_BYTES..]);
    bytes[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    bytes[start + 8..start + 16].copy_from_slice(&check.to_le_bytes());
}

fn write_put(bytes: &mut Vec<u8>, seq: u64, sealed: &Sealed) {
    write_head(bytes, seq, PUT, sealed.id);
    bytes.extend_from_slice(&sealed.slot.to_le_bytes());
    let vector = sealed.vector.as_deref().unwrap_or_default();
    bytes.extend_from_slice(&(vector.len() as u32).to_le_bytes());
    bytes.extend_from_slice(vector);
    for piece in &sealed.pieces {
        bytes.extend_from_slice(&(piece.len() as u32).to_le_bytes());
        bytes.extend_from_slice(piece);
    }
}

fn write_head(bytes: &mut Vec<u8>, seq: u64, kind: u8, id: EntryId) {
    bytes.extend_from_slice(&seq.to_le_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(id.as_bytes());
}

fn parse(bytes: &[u8]) -> Option<Record> {
    let body = bytes.get(HEADER_BYTES..)?;
    let (seq, kind, id) = parse_head(body)?;
    let mut rest = &body[HEAD_BYTES..];
    let mut take = |length: usize| -> Option<&[u8]> {
        let (taken, left) = rest.split_at_checked(length)?;
        rest = left;
        Some(taken)
    };
    match kind {
        REMOVE => Some(Record::Remove { seq, id }),
        COMMIT => Totals::from_bytes(rest).map(Record::Commit),
        PUT => {
            let slot = u32::from_le_bytes(take(4)?.try_into().ok()?);
            let length = u32::from_le_bytes(take(4)?.try_into().ok()?) as usize;
            let vector = take(length)?.to_vec();
            let mut pieces = Vec::new();
            while let Some(length) = take(4) {
                let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
                pieces.push(take(length)?.to_vec());
            }
            let vector = (!vector.is_empty()).then_some(vector);
            Some(Record::Put { seq, sealed: Sealed { id, slot, pieces, vector } })
        }
        _ => None,
    }
}

fn parse_head(body: &[u8]) -> Option<(u64, u8, EntryId)> {
    let seq = u64::from_le_bytes(body.get(..8)?.try_into().ok()?);
    Some((seq, *body.get(8)?, EntryId::from_bytes(body.get(9..HEAD_BYTES)?.try_into().ok()?)))
}

/// Length of the record that these bytes begin with, if it is whole.
fn whole_record(bytes: &[u8]) -> Option<usize> {
    let length = length_of(bytes)?;
    let check = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
    (xxh3_64(bytes.get(HEADER_BYTES..length)?) == check).then_some(length)
}

fn length_of(bytes: &[u8]) -> Option<usize> {
    let header = bytes.get(..HEADER_BYTES).filter(|header| header.starts_with(&MAGIC))?;
    let length = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
    (HEAD_BYTES..=RECORD_BYTES_MAX).contains(&length).then_some(HEADER_BYTES + length)
}

fn next_record(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = bytes.get(at..)?.windows(MAGIC.len()).position(|window| window == MAGIC) {
        at += found;
        if whole_record(&bytes[at..]).is_some() {
            return Some(at);
        }
        at += 1;
    }
    None
}

fn ends_closed(bytes: &[u8]) -> bool {
    let (mut at, mut closed) = (0, true);
    while at < bytes.len() {
        let Some(length) = whole_record(&bytes[at..]) else { return false };
        closed = parse_head(&bytes[at + HEADER_BYTES..]).is_some_and(|(_, kind, _)| kind == COMMIT);
        at += length;
    }
    closed
}

fn path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("log-{number:06}"))
}

/// The numbers of the files, ascending.
fn numbers(folder: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let name = file?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix("log-"));
        numbers.extend(digits.and_then(|digits| digits.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

const MAGIC: [u8; 4] = *b"nhL2";

/// Magic, length of the body, check of the body.
const HEADER_BYTES: usize = 4 + 4 + 8;

/// Sequence number, kind, id.
const HEAD_BYTES: usize = 8 + 1 + 16;

const PUT: u8 = 1;
const REMOVE: u8 = 2;
const COMMIT: u8 = 3;

/// A file this long is followed by a new one. One file is read into memory at a time.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// No length is believed beyond this.
const RECORD_BYTES_MAX: usize = 512 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> EntryId {
        EntryId::from_bytes([n; 16])
    }

    fn put(n: u8, seq: u64) -> Record {
        let sealed = Sealed { id: id(n), slot: 7, pieces: vec![vec![n; 100], vec![n; 50]], vector: Some(vec![n; 32]) };
        Record::Put { seq, sealed }
    }

    fn group(records: &[Record], totals: Option<Totals>) -> Vec<u8> {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| write(&mut bytes, record));
        totals.into_iter().for_each(|totals| write(&mut bytes, &Record::Commit(totals)));
        bytes
    }

    fn totals(seq: u64) -> Option<Totals> {
        Some(Totals { seq, entries: seq, now_ms: 5 })
    }

    fn open(folder: &Path) -> Log {
        Log::open(folder).expect("open")
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = open(folder.path());
        log.append(&group(&[put(1, 1), put(2, 2)], totals(2))).expect("append");
        log.append(&group(&[put(1, 3), Record::Remove { seq: 4, id: id(2) }], totals(4))).expect("append");
        let contents = read(folder.path()).expect("read");
        assert_eq!((contents.gaps, contents.records, contents.seq_max), (0, 6, 4));
        assert_eq!(contents.totals, totals(4));
        assert_eq!(contents.last[&id(2)], Last { seq: 4, put: None });
        let position = contents.last[&id(1)].put.expect("a position");
        match at(folder.path(), position).expect("read") {
            Some(Record::Put { seq: 3, sealed }) => assert_eq!((sealed.id, sealed.pieces.len()), (id(1), 2)),
            _ => panic!("another record"),
        }
    }

    /// A kill in the middle of an append: at every byte.
    #[test]
    fn a_group_that_was_not_closed_never_happened() {
        let torn = group(&[put(1, 8), Record::Remove { seq: 9, id: id(2) }], totals(9));
        for cut in 0..torn.len() {
            let folder = tempfile::tempdir().expect("a folder");
            open(folder.path()).append(&group(&[put(1, 1), put(2, 2)], totals(2))).expect("append");
            open(folder.path()).append(&torn[..cut]).expect("append");
            // The next process goes on.
            open(folder.path()).append(&group(&[put(3, 3), put(2, 4)], totals(4))).expect("append");
            let contents = read(folder.path()).expect("read");
            let seqs = [1, 2, 3].map(|n| contents.last[&id(n)].seq);
            assert_eq!(seqs, [1, 4, 3], "cut at {cut}");
            assert_eq!(contents.gaps, 0, "nothing was damaged: cut at {cut}");
            assert_eq!(contents.totals, totals(4));
        }
    }

    /// Behind a damaged stretch everything is read again.
    #[test]
    fn damage_costs_what_it_hits() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = open(folder.path());
        for n in 0..20 {
            log.append(&group(&[put(n, u64::from(n) + 1)], totals(u64::from(n) + 1))).expect("append");
        }
        let file = path(folder.path(), 1);
        let whole = std::fs::read(&file).expect("read");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 8;
            std::fs::write(&file, &bytes).expect("write");
            let contents = read(folder.path()).expect("read");
            assert!(contents.last.len() >= 19, "{} left after a flip at {at}", contents.last.len());
            assert!(contents.records < 40, "and it is seen: {at}");
        }
    }
}
