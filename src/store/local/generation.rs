//! A new generation: everything that lives is copied into fresh rows and a fresh log, which leaves what is dead behind.
//!
//! The committer copies a slice between groups, so nobody waits for more than a slice. What changes meanwhile goes to
//! both generations where it has been copied already, and is copied later where it has not.

use std::sync::Arc;

use super::folder::Folder;
use super::ground::Ground;
use super::load::{LOST, SEGMENT, new_rows};
use super::log::{self, Log, Record};
use super::rows::{RowChange, Rows, Totals};
use super::seal::Sealed;
use crate::decision::EntryId;
use crate::store::StoreError;

pub(super) struct Next {
    number: u32,
    rows: Rows,
    log: Log,
    /// The last entry that was copied.
    copied: Option<EntryId>,
}

impl Next {
    pub(super) fn begin(folder: &Folder) -> Result<Self, StoreError> {
        let failed = |error: std::io::Error| StoreError::from(&error);
        let number = folder.next().map_err(failed)?;
        let rows = new_rows(folder, number).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let log = Log::open(&folder.generation(number).log()).map_err(failed)?;
        Ok(Self { number, rows, log, copied: None })
    }

    /// Repeats changes that were made to the current generation.
    pub(super) fn follow(&mut self, changes: &[RowChange<'_>], totals: Totals) -> Result<(), StoreError> {
        let Some(copied) = self.copied else { return Ok(()) };
        let changes = changes.iter().filter(|change| change.id() <= copied).cloned().collect::<Vec<_>>();
        self.write(&changes, totals)
    }

    pub(super) fn follow_notes(&self, put: &[(String, Vec<u8>)], remove: &[String]) -> Result<(), StoreError> {
        self.rows.change_notes(put, remove)
    }

    /// Copies the next slice; true when there was none.
    pub(super) fn step(&mut self, ground: &Ground, totals: Totals) -> Result<bool, StoreError> {
        let rows = ground.rows();
        let mut copies = Vec::with_capacity(SLICE);
        let mut last = None;
        for row in rows.firsts(self.copied).take(SLICE) {
            let (id, _) = row?;
            last = Some(id);
            copies.extend(copy(ground, &rows, id)?);
        }
        let Some(last) = last else { return Ok(true) };
        let changes = copies.iter().map(|(sealed, seq)| RowChange::Put { sealed, seq: *seq, replaced: 0 });
        self.write(&changes.collect::<Vec<_>>(), totals)?;
        self.copied = Some(last);
        Ok(false)
    }

    /// Makes this generation the current one. Returns its number and log.
    pub(super) fn finish(self, ground: &Ground, totals: Totals) -> Result<(u32, Log), StoreError> {
        let Self { number, rows, mut log, .. } = self;
        let current = ground.rows();
        let notes = current.notes(SEGMENT)?.into_iter().chain(current.notes(LOST)?);
        let notes: Vec<_> = notes.map(|(name, note)| (name, note.to_vec())).collect();
        rows.change_notes(&notes, &[])?;
        rows.apply(&[], totals)?;
        let mut closing = Vec::new();
        log::write(&mut closing, &Record::Commit(totals));
        let failed = |error: std::io::Error| StoreError::from(&error);
        log.append(&closing).map_err(failed)?;
        log.sync_all().map_err(failed)?;
        rows.sync()?;
        ground.folder.generation(number).complete().map_err(failed)?;
        drop(ground.switch(Arc::new(rows)));
        Ok((number, log))
    }

    fn write(&mut self, changes: &[RowChange<'_>], totals: Totals) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut records = Vec::new();
        for change in changes {
            match change {
                RowChange::Put { sealed, seq, .. } => log::write_put_record(&mut records, *seq, sealed),
                RowChange::Remove { id, .. } => log::write(&mut records, &Record::Remove { seq: totals.seq, id: *id }),
            }
        }
        log::write(&mut records, &Record::Commit(totals));
        self.log.append(&records).map_err(|error| StoreError::from(&error))?;
        self.rows.apply(changes, totals)
    }
}

/// The entry as it is to be written again. One that is damaged stays behind.
fn copy(ground: &Ground, rows: &Rows, id: EntryId) -> Result<Option<(Sealed, u64)>, StoreError> {
    let Ok(Some(pieces)) = rows.pieces(id) else {
        drop(ground.damaged(id));
        return Ok(None);
    };
    let (slot, seq) = (pieces[0].slot, pieces[0].seq);
    let place = ground.live.read(slot, |record| (record.id == id).then_some(record.place?.1)).flatten();
    let vector = place.and_then(|dimensions| ground.vectors.read(slot, id, dimensions as usize));
    let vector = match (vector, ground.keys.of(slot)) {
        (Some(vector), Some(key)) => Some(ground.sealer.seal_vector(&key, id, slot, &vector)?),
        _ => None,
    };
    let pieces = pieces.iter().map(|piece| piece.as_ref().to_vec()).collect();
    Ok(Some((Sealed { id, slot, pieces, vector }, seq)))
}

/// Entries copied at a time: some milliseconds.
const SLICE: usize = 256;
