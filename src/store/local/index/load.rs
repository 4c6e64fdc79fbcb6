//! Segments from their files at a start: what a node still stands for is asked of the rows and of the owner.
//!
//! A file that does not check is reported and not used; a node whose row or owner is another by now is dead. The slots
//! that no segment covers are inserted by the caller, so damage costs time, never an entry.

use std::collections::HashSet;
use std::sync::Arc;

use super::large::{Large, View, is_dying};
use super::places::{NOWHERE, Place, SLOTS_MAX, TAGS};
use super::quantised::Row;
use super::segment::{Rows, Segment};
use super::snapshot::{self, Snapshot};
use super::{Index, Request, SegmentFile, Slot};
use crate::decision::{EntryId, Partition};
use crate::store::local::vectors::Length;

/// What a start found in the segment files.
#[derive(Debug)]
pub struct Loaded {
    /// Slots that a segment holds live; the caller inserts the others.
    pub covered: Covered,
    /// Files that are not used; the caller takes them out of the manifest and discards them.
    pub damaged: Vec<SegmentFile>,
    /// Files that stand for nothing that lives any more; to be discarded likewise.
    pub stale: Vec<SegmentFile>,
}

/// A set of slots.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Covered {
    words: Vec<u64>,
}

impl Covered {
    pub fn contains(&self, slot: Slot) -> bool {
        self.words.get(slot as usize / 64).is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    fn insert(&mut self, slot: Slot) {
        let word = slot as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (slot % 64);
    }
}

impl Index {
    /// Reads the manifest's segment files into an index that is still empty. `owner` tells whose a slot is now.
    /// Segment files that the manifest does not name are deleted: a crash left them before they were entered.
    pub fn load(&self, files: Vec<SegmentFile>, owner: &dyn Fn(Slot) -> Option<(Partition, EntryId)>) -> Loaded {
        let mut loaded = Loaded { covered: Covered::default(), damaged: Vec::new(), stale: Vec::new() };
        let Some(folder) = self.folder.clone() else {
            loaded.damaged = files;
            return loaded;
        };
        let named: HashSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
        if let Err(error) = sweep(&folder, &named) {
            tracing::warn!(%error, "the folder of segment files could not be tidied");
        }
        for file in files {
            match snapshot::read(&folder, &file) {
                Ok(snapshot) => {
                    if !self.take_in(&file, snapshot, owner, &mut loaded.covered) {
                        loaded.stale.push(file);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, name = file.name, "a segment file is not used");
                    loaded.damaged.push(file);
                }
            }
        }
        loaded
    }

    /// Whether the segment is of any use.
    fn take_in(
        &self,
        file: &SegmentFile,
        snapshot: Snapshot,
        owner: &dyn Fn(Slot) -> Option<(Partition, EntryId)>,
        covered: &mut Covered,
    ) -> bool {
        let Snapshot { dims, mut slots, tags, links } = snapshot;
        let Some(lengths) = self.vectors.length(dims) else { return false };
        let mut rows = Rows::zeroed(slots.len(), dims);
        for (node, (slot, tag)) in slots.iter_mut().zip(&tags).enumerate() {
            let owned = (*slot as usize) < SLOTS_MAX
                && !covered.contains(*slot)
                && lengths.tag(*slot) == *tag
                && owner(*slot).is_some_and(|(partition, id)| partition == file.partition && lengths.holds(*slot, id));
            match lengths.values(*slot).filter(|_| owned).map(Row::of) {
                Some(row) => {
                    rows.set(node, row.scale, &row.bytes);
                    covered.insert(*slot);
                }
                // Another's row by now, or none: the node is a way through the graph no longer.
                None => *slot = NOWHERE,
            }
        }
        if slots.iter().all(|slot| *slot == NOWHERE) {
            return false;
        }
        let taken = self.show(file, lengths, |tag| Segment::new(tag, rows, links, slots.clone()));
        if !taken {
            slots.iter().filter(|slot| **slot != NOWHERE).for_each(|slot| covered.remove(*slot));
        }
        taken
    }

    /// Adds the segment to its partition; `false` where that has another vector length or segments enough.
    fn show(&self, file: &SegmentFile, lengths: Arc<Length>, make: impl FnOnce(u32) -> Segment) -> bool {
        let mut shard = self.table.write(file.partition);
        let dims = lengths.dims();
        let large = shard.large.entry(file.partition);
        let large = Arc::clone(large.or_insert_with(|| Arc::new(Large::new(file.partition, lengths))));
        drop(shard);
        let mut desk = large.desk.lock();
        let mut view = View::clone(&large.view());
        if large.rows.dims() != dims || desk.build.is_some() || view.segments.len() + 1 >= TAGS as usize {
            return false;
        }
        let Some(tag) = (0..TAGS).find(|tag| view.segments.iter().all(|segment| segment.tag != *tag)) else {
            return false;
        };
        let segment = make(tag);
        segment.files.lock().push(file.clone());
        for (node, slot) in segment.slots().iter().enumerate().filter(|(_, slot)| **slot != NOWHERE) {
            self.places.set(*slot, Place::Segment { tag, node: node as u32 }.word());
        }
        desk.live += segment.live();
        let dying = is_dying(&segment);
        view.segments.push(Arc::new(segment));
        large.show(view);
        desk.queued = dying;
        drop(desk);
        if dying {
            self.ask(Request::Look(large));
        }
        true
    }
}

impl Covered {
    fn remove(&mut self, slot: Slot) {
        if let Some(word) = self.words.get_mut(slot as usize / 64) {
            *word &= !(1 << (slot % 64));
        }
    }
}

/// Deletes segment files that nobody names, finished or not.
fn sweep(folder: &std::path::Path, named: &HashSet<&str>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let ours = snapshot::is_name(name.strip_suffix(".tmp").unwrap_or(name));
        if ours && !named.contains(name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
