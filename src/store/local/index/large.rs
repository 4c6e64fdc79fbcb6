//! A partition of more than a few slots: a tail of scanned blocks and up to three frozen graphs.
//!
//! What a search goes over is one immutable view, so it sees every live slot once, whatever is built meanwhile. Places,
//! the tail's rows and the view change under the desk's lock, which is held for one row's work, never for a search or
//! a build.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::best::Best;
use super::places::{BLOCK_NUMBERS, BLOCK_ROWS, HELD, NOWHERE, Place, Places};
use super::quantised::{Query, Row};
use super::segment::{Scratch, Segment};
use super::tail::{self, Block};
use super::{Fate, Slot};
use crate::decision::{Embedding, Partition, Similarity};
use crate::store::local::vectors::Length;

pub(super) struct Large {
    pub(super) partition: Partition,
    pub(super) rows: Arc<Length>,
    view: RwLock<Arc<View>>,
    pub(super) desk: Mutex<Desk>,
}

/// What a search goes over.
#[derive(Clone, Default)]
pub(super) struct View {
    pub(super) segments: Vec<Arc<Segment>>,
    /// The number of the first block.
    pub(super) first: u32,
    pub(super) blocks: Vec<Arc<Block>>,
}

/// What writers of a partition agree on.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) live: usize,
    /// Taken out of the table: a writer that still has it looks again.
    pub(super) gone: bool,
    /// The builder was told, and has not looked yet.
    pub(super) queued: bool,
    /// A build came to little, as it would again: none is tried before the partition holds so many.
    pub(super) barren_until: usize,
    /// Cleared rows, to be written again.
    free: Vec<u32>,
    pub(super) build: Option<Build>,
}

/// A build that is under way.
pub(super) struct Build {
    /// So many leading blocks go into the graph.
    pub(super) blocks: usize,
    /// What comes of it, once its nodes are being put in the places of their rows, and those rows' places by node.
    pub(super) made: Option<(Arc<Segment>, Vec<u32>)>,
    /// Slots of the blocks that were removed since.
    pub(super) removed: Vec<Slot>,
}

/// What came of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Removed {
    /// Nothing refers to the slot any more.
    pub(super) released: bool,
    /// The partition is empty, or has so many dead nodes that the builder should look.
    pub(super) look: bool,
}

impl Large {
    pub(super) fn new(partition: Partition, rows: Arc<Length>) -> Self {
        Self { partition, rows, view: RwLock::default(), desk: Mutex::default() }
    }

    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// For who holds the desk.
    pub(super) fn show(&self, view: View) {
        let old = std::mem::replace(&mut *self.view.write(), Arc::new(view));
        // Outside the lock: it may be the last holder of a graph.
        drop(old);
    }

    /// Adds the slot's row to the tail and says whether the builder should look.
    pub(super) fn insert(&self, desk: &mut Desk, places: &Places, slot: Slot, row: &Row, flat_max: usize) -> bool {
        desk.live += 1;
        if let Some(word) = desk.free.pop()
            && let Some(Place::Tail { block, row: number }) = Place::of(word)
            && let Some(block) = self.view().block(block)
        {
            block.put(number, slot, row);
            places.set(slot, word);
            return false;
        }
        let view = self.view();
        // Blocks of a build take no more rows.
        let built = desk.build.as_ref().map_or(0, |build| build.blocks);
        let last = view.blocks.last().filter(|_| view.blocks.len() > built);
        let (number, pushed, block) = match last.and_then(|block| Some((block.push(slot, row)?, Arc::clone(block)))) {
            Some((pushed, block)) => (view.blocks.len() - 1, pushed, block),
            None => {
                let block = Arc::new(Block::default());
                let pushed = block.push(slot, row).unwrap_or(0);
                let mut longer = View::clone(&view);
                longer.blocks.push(Arc::clone(&block));
                self.show(longer);
                (view.blocks.len(), pushed, block)
            }
        };
        places.set(slot, Place::Tail { block: view.first.wrapping_add(number as u32), row: pushed }.word());
        let look = block.is_full() && (number + 1 - built) * BLOCK_ROWS >= flat_max && !desk.queued;
        desk.queued |= look;
        look
    }

    pub(super) fn remove(&self, desk: &mut Desk, places: &Places, slot: Slot) -> Removed {
        let word = places.get(slot);
        let view = self.view();
        let building = desk.build.as_ref().map_or(0, |build| build.blocks);
        let mut released = true;
        match Place::of(word) {
            None => return Removed { released: word != HELD, look: false },
            Some(Place::Tail { block, row }) => {
                if !view.block(block).is_some_and(|block| block.clear(row, slot)) {
                    return Removed { released: true, look: false };
                }
                match &mut desk.build {
                    Some(build) if view.index(block) < building => {
                        build.removed.push(slot);
                        released = false;
                    }
                    _ => desk.free.push(word),
                }
            }
            Some(Place::Segment { tag, node }) => {
                let made = desk.build.as_ref().and_then(|build| build.made.as_ref());
                let made = made.filter(|(segment, _)| segment.tag == tag);
                let Some(segment) = made.map(|(segment, _)| segment).or_else(|| view.segment(tag)) else {
                    return Removed { released: true, look: false };
                };
                if segment.slots().get(node as usize) != Some(&slot) {
                    return Removed { released: true, look: false };
                }
                segment.kill(node);
                // The view that is still searched has it where it came from.
                if let Some((_, origins)) = made {
                    view.kill(origins[node as usize], slot);
                }
                released = false;
            }
        }
        places.set(slot, if released { NOWHERE } else { HELD });
        desk.live -= 1;
        let dying = view.segments.iter().any(|segment| is_dying(segment));
        let look =
            !desk.queued && desk.build.is_none() && (desk.live == 0 || (dying && desk.live >= desk.barren_until));
        desk.queued |= look;
        Removed { released, look }
    }

    /// The blocks' free rows are no longer to be written.
    pub(super) fn forget_free(&self, desk: &mut Desk, view: &View, blocks: usize) {
        desk.free.retain(|word| match Place::of(*word) {
            Some(Place::Tail { block, .. }) => view.index(block) >= blocks,
            _ => false,
        });
    }

    pub(super) fn nearest(&self, search: &Search<'_>, scratch: &mut Scratch) -> Vec<(Slot, Similarity)> {
        if search.query.dimensions() != self.rows.dims() {
            return Vec::new();
        }
        let view = self.view();
        let query = Query::of(search.query);
        let mut wanted = RESCORED.max(search.k + RESCORED / 2);
        loop {
            let scored = view.candidates(&query, wanted, search.ef, scratch);
            let all = scored.len() < wanted || wanted >= RESCORED_MAX;
            let (found, enough) = walk(rescore(&self.rows, search.query, &scored), search.k, search.fate);
            if enough || all {
                return found;
            }
            // Many of the nearest are dead or expired.
            wanted = (wanted * 8).min(RESCORED_MAX);
        }
    }
}

/// One search, whatever the partition.
pub(super) struct Search<'a> {
    pub(super) query: &'a Embedding,
    pub(super) k: usize,
    pub(super) ef: usize,
    pub(super) fate: &'a dyn Fn(Slot) -> Fate,
}

impl View {
    fn index(&self, block: u32) -> usize {
        (block.wrapping_sub(self.first) % BLOCK_NUMBERS) as usize
    }

    fn block(&self, number: u32) -> Option<&Arc<Block>> {
        self.blocks.get(self.index(number))
    }

    fn segment(&self, tag: u32) -> Option<&Arc<Segment>> {
        self.segments.iter().find(|segment| segment.tag == tag)
    }

    /// Makes what stands at the place unfindable.
    fn kill(&self, word: u32, slot: Slot) {
        match Place::of(word) {
            Some(Place::Tail { block, row }) => {
                self.block(block).map(|block| block.clear(row, slot));
            }
            Some(Place::Segment { tag, node }) => {
                self.segment(tag).map(|segment| segment.kill(node));
            }
            None => {}
        }
    }

    /// The `wanted` best by their int8 rows.
    fn candidates(&self, query: &Query, wanted: usize, ef: usize, scratch: &mut Scratch) -> Vec<Slot> {
        let mut best = Best::new(wanted);
        tail::search(&self.blocks, query, wanted, &mut best);
        for segment in &self.segments {
            let live = segment.live().max(1) as f32 / segment.len().max(1) as f32;
            let wide = (ef.max(wanted) as f32 / live).ceil() as usize;
            segment.search(query, wide.min(segment.len()), scratch);
            for found in &scratch.beam {
                if !best.admits(found.score) {
                    break;
                }
                if !segment.is_dead(found.node()) {
                    best.add(found.score, segment.slot(found.node()));
                }
            }
        }
        best.into_sorted().into_iter().map(|(_, slot)| slot).collect()
    }
}

/// Most similar first, by the rows themselves.
pub(super) fn rescore(rows: &Length, query: &Embedding, slots: &[Slot]) -> Vec<(Slot, Similarity)> {
    slots.iter().filter_map(|slot| rows.row(*slot)).for_each(crate::store::local::kernel::prefetch);
    let exact = |slot: &Slot| (*slot, Similarity::new(rows.similarity(*slot, query.as_slice())));
    let mut found: Vec<(Slot, Similarity)> = slots.iter().map(exact).collect();
    found.sort_by(|a, b| b.1.get().total_cmp(&a.1.get()).then(a.0.cmp(&b.0)));
    found
}

/// What is left of the found when `k` that live are among it, and whether so many are.
pub(super) fn walk(
    found: Vec<(Slot, Similarity)>,
    k: usize,
    fate: &dyn Fn(Slot) -> Fate,
) -> (Vec<(Slot, Similarity)>, bool) {
    let mut kept = Vec::with_capacity(k);
    let mut live = 0;
    for (slot, similarity) in found {
        if live == k {
            break;
        }
        match fate(slot) {
            Fate::Live => live += 1,
            Fate::Expired => {}
            Fate::Dead => continue,
        }
        kept.push((slot, similarity));
    }
    (kept, live == k)
}

/// More than a fifth of its nodes are dead.
pub(super) fn is_dying(segment: &Segment) -> bool {
    segment.live() * 5 < segment.len() * 4
}

/// Candidates that are compared exactly: with int8 rows the nearest is among the best 16 but for one search in some
/// thousands.
const RESCORED: usize = 16;
/// Beyond so many dead or expired entries around the query a search gives up.
const RESCORED_MAX: usize = 4096;
