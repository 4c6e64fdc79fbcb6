//! From what is on disk to a store that serves: opening, comparing the copies, repairing, reading in.
//!
//! Rows and log each hold every entry. Whatever one of them has lost comes from the other, whichever is newer counts,
//! and rows that sled cannot read at all are set aside and made again from the log. What neither has is lost, and
//! counted. No start fails because of what is in the folder, unless another version wrote it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use super::folder::{FORMAT, Folder};
use super::ground::Ground;
use super::index::SegmentFile;
use super::keys::Keys;
use super::live::Written;
use super::log::{self, Contents, Last, Log, Record};
use super::rows::{Row, RowChange, Rows, Totals};
use super::seal::{Head, Piece, Sealed, Sealer};
use super::vectors::Slot;
use crate::clock::Clock;
use crate::decision::{Embedding, Entry, EntryId};
use crate::store::eviction::Heat;
use crate::store::{OpenStoreError, StoreError, seconds};

/// The rows that a start found or made.
pub(super) struct Opened {
    pub(super) rows: Rows,
    /// Their generation.
    pub(super) generation: u32,
    /// The generation whose rows could not be read; these rows are to be made from its log.
    pub(super) broken: Option<u32>,
}

/// What the committer goes on from.
pub(super) struct Loaded {
    pub(super) generation: u32,
    pub(super) log: Log,
    pub(super) totals: Totals,
    /// The log misses something that the rows have: it is to be written anew.
    pub(super) rewrite: bool,
}

/// Opens the rows of the current generation, or new ones.
pub(super) fn open_rows(folder: &Folder) -> Result<Opened, OpenStoreError> {
    let failed = |source| OpenStoreError::Io { folder: folder.path().to_owned(), source };
    let Some(current) = folder.current().map_err(failed)? else {
        let generation = folder.next().map_err(failed)?;
        let rows = new_rows(folder, generation)?;
        folder.generation(generation).complete().map_err(failed)?;
        return Ok(Opened { rows, generation, broken: None });
    };
    folder.tidy(current).map_err(failed)?;
    let path = folder.generation(current).sled();
    let cause = match open_in_time(&path) {
        Ok(rows) => match rows.note("format") {
            Ok(Some(format)) if format.as_ref() == FORMAT.as_bytes() => {
                return Ok(Opened { rows, generation: current, broken: None });
            }
            Ok(Some(format)) if format.starts_with(b"nearhit-store-") => {
                let (found, known) = (String::from_utf8_lossy(&format).into_owned(), FORMAT.to_owned());
                return Err(OpenStoreError::Format { folder: folder.path().to_owned(), found, known });
            }
            Ok(_) => "its format is not noted".to_owned(),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    tracing::error!(generation = current, cause, "the rows cannot be read; making them again from the log");
    let generation = folder.next().map_err(failed)?;
    Ok(Opened { rows: new_rows(folder, generation)?, generation, broken: Some(current) })
}

/// What a folder that cannot be written to holds, as far as its log says: without the rows, which cannot be opened there.
pub(super) fn read_only(path: &Path) -> std::io::Result<Vec<Entry>> {
    let keys = Keys::read_only(path)?;
    let folder = Folder::look(path);
    let Some(generation) = folder.current()? else { return Ok(Vec::new()) };
    let source = folder.generation(generation).log();
    let contents = log::read(&source)?;
    let sealer = Sealer::default();
    let mut entries = Vec::with_capacity(contents.last.len());
    for position in contents.last.into_values().filter_map(|last| last.put) {
        let Some(Record::Put { sealed, .. }) = log::at(&source, position)? else { continue };
        let Sealed { id, slot, pieces, vector } = sealed;
        let Some(key) = keys.get(slot as usize).copied().flatten() else { continue };
        // Erased since: the key is another.
        let Ok((head, mut entry)) = sealer.entry(&key, id, slot, &pieces) else { continue };
        entry.place = head.place.zip(vector).and_then(|((partition, dimensions), vector)| {
            let vector = sealer.vector(&key, id, slot, dimensions as usize, &vector).ok()?;
            Some((partition, Embedding::new(vector).ok()?))
        });
        entries.push(entry);
    }
    Ok(entries)
}

/// The rows of a generation that is not complete yet.
pub(super) fn new_rows(folder: &Folder, generation: u32) -> Result<Rows, OpenStoreError> {
    let failed = |source| OpenStoreError::Io { folder: folder.path().to_owned(), source };
    let place = folder.generation(generation);
    place.create().map_err(failed)?;
    let rows = Rows::open(&place.sled()).and_then(|rows| {
        rows.change_notes(&[("format".to_owned(), FORMAT.as_bytes().to_vec())], &[])?;
        rows.sync()?;
        Ok(rows)
    });
    rows.map_err(|error| failed(std::io::Error::other(error)))
}

/// sled may hang on damage: it is given a while, on a thread that is left behind if it does.
fn open_in_time(path: &Path) -> Result<Rows, StoreError> {
    let (send, opened) = sync_channel(1);
    let owned = path.to_owned();
    let thread = std::thread::Builder::new().name("nearhit-open".into());
    let open = move || {
        let started = Instant::now();
        loop {
            match Rows::open(&owned) {
                // The folder is ours alone: this is what an earlier use of it in this process has not let go of yet.
                Err(StoreError::Unavailable(cause))
                    if cause.contains("acquire lock") && started.elapsed() < LOCK_TIME =>
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
                opened => return drop(send.send(opened)),
            }
        }
    };
    thread.spawn(open).map_err(|error| StoreError::from(&error))?;
    match opened.recv_timeout(PATIENCE) {
        Ok(rows) => rows,
        Err(RecvTimeoutError::Timeout) => Err(StoreError::Unavailable("sled does not come to an end".into())),
        Err(RecvTimeoutError::Disconnected) => Err(StoreError::Unavailable("sled panicked".into())),
    }
}

/// Reads everything in and repairs it.
pub(super) fn load(ground: &Ground, opened: &(u32, Option<u32>), clock: &dyn Clock) -> Result<Loaded, StoreError> {
    let (mut generation, mut broken) = *opened;
    let now_s = seconds(clock.now_ms());
    let source = ground.log_folder(broken.unwrap_or(generation));
    let mut merge =
        Merge { ground, source: &source, log: Contents::default(), missing: 0, restored: 0, dropped: 0, now_s };
    // Each takes some seconds for a million entries.
    let (contents, scanned) = std::thread::scope(|scope| {
        let reading = scope.spawn(|| log::read(&source));
        let scanned = if broken.is_none() { merge.rows() } else { Ok(Vec::new()) };
        (reading.join(), scanned)
    });
    merge.log = match contents {
        Ok(Ok(contents)) => contents,
        Ok(Err(error)) => {
            tracing::error!(%error, "the log cannot be read");
            Contents::unreadable()
        }
        Err(_) => Contents::unreadable(),
    };
    if let Err(error) = scanned.and_then(|bad| merge.compare(bad)) {
        tracing::error!(generation, %error, "the rows cannot be read; making them again from the log");
        ground.live.clear();
        merge.restored = 0;
        broken = Some(generation);
        generation = ground.folder.next().map_err(|error| StoreError::from(&error))?;
        let rows = new_rows(&ground.folder, generation).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        drop(ground.switch(rows.into()));
    }
    let known = ground.rows().totals().unwrap_or(None).into_iter().chain(merge.log.totals);
    let totals = known.max_by_key(|totals| totals.seq).unwrap_or_default();
    merge.rest()?;
    let Merge { log, missing, restored, dropped, .. } = merge;
    let count = ground.live.count();
    let newest = log.seq_max;
    let totals = Totals { seq: totals.seq.max(newest), entries: totals.entries, now_ms: totals.now_ms };
    let lost = totals.entries.saturating_sub(count).max(dropped);
    // What is lost is reported once: from here on the totals are those of what there is.
    let now = Totals { entries: count, seq: totals.seq + u64::from(count != totals.entries), now_ms: totals.now_ms };
    clock.at_least(totals.now_ms);
    let lost_before =
        ground.rows().note(LOST)?.and_then(|note| Some(u64::from_le_bytes(note.as_ref().try_into().ok()?)));
    let lost_ever = lost_before.unwrap_or(0) + lost;
    ground.rows().change_notes(&[(LOST.to_owned(), lost_ever.to_le_bytes().to_vec())], &[])?;
    ground.rows().apply(&[], now)?;
    ground.rows().sync()?;
    let lost_vectors = vectors(ground, &source, &log.last)?;
    index(ground)?;
    sweep(ground).map_err(|error| StoreError::from(&error))?;
    let rewrite = missing > 0 || log.gaps > 0 || lost > 0 || broken.is_some();
    {
        let mut health = ground.health.lock();
        (health.lost, health.restored, health.lost_vectors) = (lost_ever, restored, lost_vectors);
        health.damaged += log.gaps + missing;
    }
    tracing::info!(entries = count, restored, lost, lost_vectors, log_gaps = log.gaps, missing, "loaded the store");
    if let Some(broken) = broken {
        // The new rows count from here on; the log that they were made from is set aside with the old ones, and the
        // committer writes theirs anew.
        let append = |error: std::io::Error| StoreError::from(&error);
        let place = ground.folder.generation(generation);
        copy_log(&source, &place.log()).map_err(append)?;
        place.complete().map_err(append)?;
        let aside = ground.folder.set_aside(broken).map_err(append)?;
        tracing::error!(folder = %aside.display(), "set the damaged rows aside");
    }
    ground.health.lock().set_aside = ground.folder.aside().unwrap_or(0);
    let log = Log::open(&ground.log_folder(generation)).map_err(|error| StoreError::from(&error))?;
    Ok(Loaded { generation, log, totals: now, rewrite })
}

fn copy_log(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    if !from.is_dir() {
        return Ok(());
    }
    for file in std::fs::read_dir(from)? {
        let file = file?;
        let target = to.join(file.file_name());
        std::fs::copy(file.path(), &target)?;
        std::fs::File::open(&target)?.sync_all()?;
    }
    Ok(())
}

/// Rows and log, being compared.
struct Merge<'a> {
    ground: &'a Ground,
    source: &'a Path,
    log: Contents,
    /// Entries whose newest state the log does not have.
    missing: u64,
    /// Entries that the rows had lost.
    restored: u64,
    /// Entries that can be found nowhere any more.
    dropped: u64,
    now_s: u32,
}

/// A row, as the scanning thread hands it over.
enum Scanned {
    First(EntryId, Option<Row>),
    Rest(EntryId, Option<Row>),
}

impl Merge<'_> {
    /// Reads the rows in. Returns the entries that are damaged.
    fn rows(&self) -> Result<Vec<EntryId>, StoreError> {
        let (send, scanned) = sync_channel(4096);
        let rows = self.ground.rows();
        let scan = move || {
            let firsts = rows.firsts(None).map(|row| row.map(|(id, row)| Scanned::First(id, row)));
            let rests = rows.rests().map(|row| row.map(|(id, row)| Scanned::Rest(id, row)));
            for row in firsts.chain(rests) {
                let failed = row.is_err();
                if send.send(row).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("nearhit-scan".into());
        thread.spawn(scan).map_err(|error| StoreError::from(&error))?;
        let mut rests: HashMap<EntryId, u16> = HashMap::new();
        let mut bad: Vec<EntryId> = Vec::new();
        loop {
            match scanned.recv_timeout(PATIENCE) {
                Ok(Ok(Scanned::First(id, row))) => match row.and_then(|row| Some((self.head(id, &row)?, row))) {
                    Some((head, row)) => self.live(id, &row, &head),
                    None => bad.push(id),
                },
                Ok(Ok(Scanned::Rest(id, row))) => {
                    if let Some(row) = row
                        && self.is_whole(id, &row)
                    {
                        *rests.entry(id).or_default() += 1;
                    }
                }
                Ok(Err(error)) => return Err(error),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(StoreError::Unavailable("sled does not come to an end".into()));
                }
            }
        }
        bad.extend(
            self.ground.live.ids_where(|record| {
                record.pieces > 1 && rests.get(&record.id).copied().unwrap_or(0) + 1 != record.pieces
            }),
        );
        Ok(bad)
    }

    /// What the log knows better is put right, and so is what is damaged. What the log alone has is left to
    /// [`Self::rest`].
    fn compare(&mut self, bad: Vec<EntryId>) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        for id in bad {
            self.bad(id, &mut changes)?;
        }
        let mut removed = Vec::new();
        self.ground.live.each(|_, record| match self.log.last.get(&record.id) {
            Some(Last { seq, put: None }) if *seq > record.seq => removed.push((record.id, record.pieces)),
            // Restored with the rest; until then the old row stands in for it.
            Some(last) if last.seq >= record.seq => {}
            _ => self.missing += 1,
        });
        for (id, pieces) in removed {
            self.ground.live.remove(id);
            changes.removals.push((id, pieces));
        }
        changes.apply(self.ground)
    }

    fn head(&self, id: EntryId, row: &Row) -> Option<Head> {
        let key = self.ground.keys.of(row.slot)?;
        self.ground.sealer.head(&key, row.piece(id)).ok()
    }

    fn is_whole(&self, id: EntryId, row: &Row) -> bool {
        let Some((slot, seq)) = self.ground.live.find(id) else { return false };
        let Some(key) = self.ground.keys.of(slot) else { return false };
        (row.slot, row.seq) == (slot, seq) && self.ground.sealer.is_whole(&key, row.piece(id))
    }

    /// A row that is well.
    fn live(&self, id: EntryId, row: &Row, head: &Head) {
        let stored =
            u32::from(row.count) * row.as_ref().len() as u32 + head.place.map_or(0, |(_, dimensions)| 2 * dimensions);
        let written = Written { seq: row.seq, pieces: row.count, stored };
        self.ground.live.insert(id, row.slot, head, written, Heat::new(self.now_s));
    }

    /// A row that is damaged: the log may have it.
    fn bad(&mut self, id: EntryId, changes: &mut Changes) -> Result<(), StoreError> {
        self.ground.live.remove(id);
        match self.log.last.get(&id).copied() {
            // Restored with the rest.
            Some(Last { put: Some(_), .. }) => Ok(()),
            last => {
                self.dropped += u64::from(last.is_none());
                changes.removals.push((id, u16::MAX));
                if changes.removals.len() >= AT_ONCE { changes.apply(self.ground) } else { Ok(()) }
            }
        }
    }

    /// Whatever the log has that the rows do not.
    fn rest(&mut self) -> Result<(), StoreError> {
        let is_newer = |id: EntryId, last: &Last| self.ground.live.find(id).is_none_or(|(_, seq)| last.seq > seq);
        let mut wanted: Vec<_> = self.log.last.iter().filter_map(|(id, last)| Some((*id, last.put?, *last))).collect();
        wanted.retain(|(id, _, last)| is_newer(*id, last));
        wanted.sort_by_key(|(_, position, _)| *position);
        let mut changes = Changes::default();
        for (id, position, _) in wanted {
            match log::at(self.source, position).map_err(|error| StoreError::from(&error))? {
                Some(Record::Put { seq, sealed }) => self.restore(id, seq, sealed, &mut changes)?,
                _ => self.dropped += 1,
            }
        }
        changes.apply(self.ground)
    }

    fn restore(&mut self, id: EntryId, seq: u64, sealed: Sealed, changes: &mut Changes) -> Result<(), StoreError> {
        let key = self.ground.keys.of(sealed.slot);
        let head = key.as_ref().and_then(|key| {
            let count = u16::try_from(sealed.pieces.len()).ok()?;
            let first = Piece { id, slot: sealed.slot, number: 0, count, bytes: sealed.pieces.first()? };
            self.ground.sealer.head(key, first).ok()
        });
        // Erased since, or the key is lost: nobody can open it.
        let (Some(key), Some(head)) = (key, head) else {
            if self.ground.live.find(id).is_none() {
                changes.removals.push((id, REPLACED_MAX));
            }
            return Ok(());
        };
        if let (Some((_, dimensions)), Some(vector)) = (head.place, &sealed.vector)
            && let Ok(vector) = self.ground.sealer.vector(&key, id, sealed.slot, dimensions as usize, vector)
        {
            self.ground.vectors.write(sealed.slot, id, &vector).map_err(|error| StoreError::from(&error))?;
        }
        let written = Written { seq, pieces: sealed.pieces.len() as u16, stored: sealed.bytes() };
        self.ground.live.insert(id, sealed.slot, &head, written, Heat::new(self.now_s));
        self.restored += 1;
        changes.puts.push((sealed, seq));
        if changes.puts.len() >= AT_ONCE { changes.apply(self.ground) } else { Ok(()) }
    }
}

/// Repairs that are made together.
#[derive(Default)]
struct Changes {
    puts: Vec<(Sealed, u64)>,
    removals: Vec<(EntryId, u16)>,
}

impl Changes {
    fn apply(&mut self, ground: &Ground) -> Result<(), StoreError> {
        let (puts, removals) = (std::mem::take(&mut self.puts), std::mem::take(&mut self.removals));
        if puts.is_empty() && removals.is_empty() {
            return Ok(());
        }
        let puts = puts.iter().map(|(sealed, seq)| RowChange::Put { sealed, seq: *seq, replaced: 0 });
        let removals =
            removals.iter().map(|(id, count)| RowChange::Remove { id: *id, count: (*count).min(REPLACED_MAX) });
        let changes: Vec<RowChange<'_>> = puts.chain(removals).collect();
        let rows = ground.rows();
        rows.apply(&changes, rows.totals()?.unwrap_or_default())
    }
}

/// Sees that every entry's vector is there, from the log if need be. Returns how many could not be had.
fn vectors(ground: &Ground, source: &Path, last: &HashMap<EntryId, Last>) -> Result<u64, StoreError> {
    let absent = ground.live.slots_where(|slot, record| {
        record.place.is_some_and(|(_, dimensions)| !ground.vectors.holds(slot, record.id, dimensions as usize))
    });
    let mut lost = 0;
    for slot in absent {
        let Some((id, seq, dimensions)) =
            ground.live.read(slot, |record| (record.id, record.seq, record.place.map_or(0, |(_, length)| length)))
        else {
            continue;
        };
        let position = last.get(&id).filter(|last| last.seq == seq).and_then(|last| last.put);
        let record = match position {
            Some(position) => log::at(source, position).map_err(|error| StoreError::from(&error))?,
            None => None,
        };
        let vector = match (record, ground.keys.of(slot)) {
            (Some(Record::Put { sealed: Sealed { vector: Some(vector), .. }, .. }), Some(key)) => {
                ground.sealer.vector(&key, id, slot, dimensions as usize, &vector).ok()
            }
            _ => None,
        };
        match vector {
            Some(vector) => {
                ground.vectors.write(slot, id, &vector).map_err(|error| StoreError::from(&error))?;
                ground.health.lock().restored_vectors += 1;
            }
            // Its exact key answers on.
            None => {
                ground.live.change(slot, |record| record.place = None);
                lost += 1;
            }
        }
    }
    ground.vectors.sync().map_err(|error| StoreError::from(&error))?;
    Ok(lost)
}

/// Reads the segments in, and everything that is in none.
fn index(ground: &Ground) -> Result<(), StoreError> {
    let notes = ground.rows().notes(SEGMENT)?;
    let files = notes.iter().filter_map(|(_, note)| postcard::from_bytes::<SegmentFile>(note).ok()).collect();
    let owner = |slot: Slot| {
        let found = ground.live.read(slot, |record| Some((record.place?.0, record.id)));
        found.flatten()
    };
    let loaded = ground.index.load(files, &owner);
    ground.health.lock().damaged_segments += loaded.damaged.len() as u64;
    let gone: Vec<&SegmentFile> = loaded.damaged.iter().chain(&loaded.stale).collect();
    let notes: Vec<String> = gone.iter().map(|file| segment_note(&file.name)).collect();
    ground.rows().change_notes(&[], &notes)?;
    for file in gone {
        if let Err(error) = ground.index.discard(file) {
            tracing::warn!(%error, file = file.name, "could not delete a segment file");
        }
    }
    ground.live.each(|slot, record| {
        if let Some((partition, dimensions)) = record.place
            && !loaded.covered.contains(slot)
        {
            ground.index.insert(partition, slot, dimensions as usize);
        }
    });
    Ok(())
}

/// Slots of no live entry get new keys, and their vectors are cleared: whatever was erased when the process was killed
/// is erased for good now. Slots that were added since are left alone: something may be sealed under their keys that
/// waits to be stored.
pub(super) fn sweep(ground: &Ground) -> std::io::Result<()> {
    let mut used = vec![false; ground.first_new];
    ground.live.each(|slot, _| {
        if let Some(used) = used.get_mut(slot as usize) {
            *used = true;
        }
    });
    let unused: Vec<Slot> = (0..used.len()).filter(|slot| !used[*slot]).map(|slot| slot as Slot).collect();
    ground.vectors.erase(&unused)?;
    ground.vectors.sync()?;
    ground.keys.renew(&unused)?;
    ground.give_slots(unused.into_iter().rev());
    Ok(())
}

/// The name of a segment's note.
pub(super) fn segment_note(name: &str) -> String {
    format!("{SEGMENT}{name}")
}

pub(super) const SEGMENT: &str = "segment/";

/// The note of how many entries were lost, ever.
pub(super) const LOST: &str = "lost";

/// sled opens a million entries in two seconds; what takes this long does not come to an end.
const PATIENCE: Duration = Duration::from_secs(60);

/// sled's threads end some milliseconds after it is dropped, on a busy machine later.
const LOCK_TIME: Duration = Duration::from_secs(20);

/// Repairs in a batch.
const AT_ONCE: usize = 512;

/// Rows that are removed with a damaged one, whose count is unknown. A piece left over belongs to no entry, and is
/// never read.
const REPLACED_MAX: u16 = 64;
