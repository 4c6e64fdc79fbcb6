//! When and of what a large partition's graphs are made, by a thread of its own.
//!
//! A build takes the full blocks of the tail and the segments that are not much larger than it, so sizes grow
//! geometrically, and a partition at rest has one large segment and at most two small. Nobody waits for a build: what
//! it takes stays searchable where it was until the new segment is shown in its place.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::few::Table;
use super::large::{Build, Large, View, is_dying};
use super::places::{HELD, NODES_MAX, NOWHERE, Place, Places, TAGS};
use super::quantised::Row;
use super::segment::{Rows, Segment};
use super::tail::Block;
use super::{News, SegmentFile, Slot, graph, snapshot};

/// What the builder's thread needs of the index.
pub(super) struct Builder {
    pub(super) table: Arc<Table>,
    pub(super) places: Arc<Places>,
    pub(super) folder: Option<std::path::PathBuf>,
    pub(super) builders: usize,
    pub(super) flat_max: usize,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) news: Box<dyn Fn(News) + Send + Sync>,
}

/// How much of a partition goes into a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// As much as pays.
    Due,
    /// Everything, the last block too.
    All,
}

/// What a build takes.
struct Plan {
    /// The number of the first block.
    first: u32,
    blocks: Vec<Arc<Block>>,
    taken: Vec<Arc<Segment>>,
    tag: u32,
}

/// Rows on their way into a graph, with their slots and the places that they come from.
struct Gathered {
    rows: Rows,
    slots: Vec<Slot>,
    origins: Vec<u32>,
}

impl Builder {
    /// Builds until nothing is due.
    pub(super) fn look(&self, large: &Arc<Large>, extent: Extent) {
        let mut extent = extent;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(plan) = self.plan(large, extent) else { return };
            extent = Extent::Due;
            let built = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.build(large, &plan)));
            match built {
                Ok(Some((segment, missed, origins))) => {
                    let hopeless = missed.len() * 2 >= self.flat_max;
                    self.put_in(large, &plan, segment, &missed, origins);
                    if hopeless {
                        // They would ask for the next build at once, and come out of it as they are. Among more rows
                        // they may be reached.
                        tracing::warn!(partition = ?large.partition, missed = missed.len(), "many rows stay scanned");
                        let mut desk = large.desk.lock();
                        desk.barren_until = desk.live * 2;
                    }
                }
                Ok(None) => return self.give_up(large),
                Err(_) => {
                    tracing::error!(partition = ?large.partition, "a graph could not be built; the partition is scanned");
                    large.desk.lock().barren_until = usize::MAX;
                    return self.give_up(large);
                }
            }
        }
    }

    fn plan(&self, large: &Arc<Large>, extent: Extent) -> Option<Plan> {
        let mut desk = large.desk.lock();
        desk.queued = false;
        if desk.gone || desk.build.is_some() {
            return None;
        }
        let view = large.view();
        if desk.live == 0 {
            desk.gone = true;
            drop(desk);
            self.end(large, view);
            return None;
        }
        if desk.live < desk.barren_until {
            return None;
        }
        let full = view.blocks.iter().take_while(|block| block.is_full()).count();
        let blocks = match extent {
            Extent::All => view.blocks.len(),
            Extent::Due if full * super::places::BLOCK_ROWS >= self.flat_max => full,
            Extent::Due => 0,
        };
        let mut taken = Vec::new();
        let mut size: usize = view.blocks[..blocks].iter().map(|block| block.len()).sum();
        let mut left = view.segments.len();
        let mut by_size = view.segments.clone();
        by_size.sort_by_key(|segment| segment.live());
        for segment in by_size {
            let comparable = size > 0 && (size * GROWTH >= segment.live() || left >= SEGMENTS_MAX);
            let everything = extent == Extent::All && (view.segments.len() > 1 || blocks > 0);
            if is_dying(&segment) || comparable || everything {
                size += segment.live();
                left -= 1;
                taken.push(segment);
            }
        }
        if (blocks == 0 && taken.is_empty()) || size > NODES_MAX {
            return None;
        }
        let tag = (0..TAGS).find(|tag| view.segments.iter().all(|segment| segment.tag != *tag))?;
        large.forget_free(&mut desk, &view, blocks);
        desk.build = Some(Build { blocks, made: None, removed: Vec::new() });
        Some(Plan { first: view.first, blocks: view.blocks[..blocks].to_vec(), taken, tag })
    }

    /// The segment, the nodes that stay in the tail, and every node's origin; `None` if told to stop.
    fn build(&self, large: &Large, plan: &Plan) -> Option<(Option<Segment>, Vec<Missed>, Vec<u32>)> {
        let Gathered { rows, slots, origins } = plan.gather(large.rows.dims());
        if slots.is_empty() {
            return Some((None, Vec::new(), Vec::new()));
        }
        let graph = graph::build(rows, slots.len(), self.builders, &self.stop)?;
        let pick = |from: &[u32]| graph.order.iter().map(|row| from[*row as usize]).collect::<Vec<u32>>();
        let (slots, origins) = (pick(&slots), pick(&origins));
        let mut segment = Segment::new(plan.tag, graph.rows, graph.links, slots);
        let missed = graph::unreachable(&segment, self.builders, &self.stop);
        let missed = missed.into_iter().map(|node| Missed::take(&mut segment, node, &origins)).collect();
        (!self.stop.load(Ordering::Relaxed)).then_some((Some(segment), missed, origins))
    }

    /// Shows the segment in place of what it was built from, keeps it, and says so.
    fn put_in(&self, large: &Arc<Large>, plan: &Plan, made: Option<Segment>, missed: &[Missed], origins: Vec<u32>) {
        let made = made.map(Arc::new);
        let mut stillborn = HashSet::new();
        if let Some(segment) = &made {
            if let Some(build) = &mut large.desk.lock().build {
                build.made = Some((Arc::clone(segment), origins.clone()));
            }
            for (chunk, nodes) in origins.chunks(RELABELLED).enumerate() {
                // A few at a time: an insert waits for this lock.
                let desk = large.desk.lock();
                for (i, origin) in nodes.iter().enumerate() {
                    let node = (chunk * RELABELLED + i) as u32;
                    let slot = segment.slot(node);
                    if slot == NOWHERE {
                        continue;
                    }
                    if self.places.get(slot) == *origin {
                        self.places.set(slot, Place::Segment { tag: segment.tag, node }.word());
                    } else {
                        segment.kill(node);
                        stillborn.insert(slot);
                    }
                }
                drop(desk);
            }
        }
        let removed = {
            let mut desk = large.desk.lock();
            let removed = desk.build.take().map_or_else(Vec::new, |build| build.removed);
            let mut view = View::clone(&large.view());
            view.segments.retain(|segment| plan.taken.iter().all(|taken| taken.tag != segment.tag));
            view.segments.extend(made.clone());
            view.blocks.drain(..plan.blocks.len());
            view.first = view.first.wrapping_add(plan.blocks.len() as u32);
            large.show(view);
            for missed in missed.iter().filter(|missed| self.places.get(missed.slot) == missed.origin) {
                desk.live -= 1;
                large.insert(&mut desk, &self.places, missed.slot, &missed.row, usize::MAX);
            }
            removed
        };
        // A removed slot that the new segment names is released with that segment.
        let carried: HashSet<Slot> = match &made {
            Some(segment) => {
                let dead = (0..segment.len() as u32).filter(|node| segment.is_dead(*node));
                dead.map(|node| segment.slot(node)).chain(stillborn).collect()
            }
            None => stillborn,
        };
        let dead = plan.taken.iter().flat_map(|segment| dead_slots(segment)).chain(removed);
        let released: HashSet<Slot> = dead.filter(|slot| !carried.contains(slot)).collect();
        let released = self.release(large, &plan.blocks, &plan.taken, released.into_iter().collect());
        let mut replaced: Vec<SegmentFile> =
            plan.taken.iter().flat_map(|segment| segment.files.lock().clone()).collect();
        let built = made.as_ref().and_then(|segment| self.keep(large, segment));
        match (&made, &built) {
            (Some(segment), Some(file)) => segment.files.lock().push(file.clone()),
            // The old files still tell most of it; they go when their successor is written.
            (Some(segment), None) => segment.files.lock().append(&mut replaced),
            (None, _) => {}
        }
        (self.news)(News { partition: large.partition, built, replaced, released });
    }

    fn keep(&self, large: &Large, segment: &Segment) -> Option<SegmentFile> {
        let folder = self.folder.as_ref()?;
        match snapshot::write(folder, large.partition, &large.rows, segment) {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::error!(%error, "a segment could not be written; it will be built again after a restart");
                None
            }
        }
    }

    /// Waits until no search goes over what was taken out of the view, then frees the slots that only it named.
    fn release(&self, large: &Large, blocks: &[Arc<Block>], taken: &[Arc<Segment>], slots: Vec<Slot>) -> Vec<Slot> {
        // Whoever searches it holds a view that holds it; the caller holds it once.
        let searched = || {
            blocks.iter().any(|block| Arc::strong_count(block) > 1)
                || taken.iter().any(|segment| Arc::strong_count(segment) > 1)
        };
        while searched() && !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        for slots in slots.chunks(RELABELLED) {
            let desk = large.desk.lock();
            slots
                .iter()
                .filter(|slot| self.places.get(**slot) == HELD)
                .for_each(|slot| self.places.set(*slot, NOWHERE));
            drop(desk);
        }
        slots
    }

    /// The build came to nothing; what it took stays where it is.
    fn give_up(&self, large: &Arc<Large>) {
        let removed = large.desk.lock().build.take().map_or_else(Vec::new, |build| build.removed);
        if removed.is_empty() {
            return;
        }
        let released = self.release(large, &[], &[], removed);
        (self.news)(News { partition: large.partition, built: None, replaced: Vec::new(), released });
    }

    /// Forgets a partition without a live slot.
    fn end(&self, large: &Arc<Large>, view: Arc<View>) {
        self.table.forget(large);
        let replaced: Vec<SegmentFile> =
            view.segments.iter().flat_map(|segment| segment.files.lock().clone()).collect();
        let dead: Vec<Slot> = view.segments.iter().flat_map(|segment| dead_slots(segment)).collect();
        large.show(View::default());
        // The last holder of a view frees it: what is left is held by searches, and by these two.
        let View { blocks, segments, .. } = Arc::unwrap_or_clone(view);
        let released = self.release(large, &blocks, &segments, dead);
        if !replaced.is_empty() || !released.is_empty() {
            (self.news)(News { partition: large.partition, built: None, replaced, released });
        }
    }
}

impl Plan {
    fn gather(&self, dims: usize) -> Gathered {
        let most = self.blocks.iter().map(|block| block.len()).sum::<usize>()
            + self.taken.iter().map(|segment| segment.len()).sum::<usize>();
        let mut gathered = Gathered {
            rows: Rows::zeroed(most, dims),
            slots: Vec::with_capacity(most),
            origins: Vec::with_capacity(most),
        };
        let mut add = |slot, scale, bytes: &[u8], origin: Place| {
            gathered.rows.set(gathered.slots.len(), scale, bytes);
            gathered.slots.push(slot);
            gathered.origins.push(origin.word());
        };
        for segment in &self.taken {
            for node in (0..segment.len() as u32).filter(|node| !segment.is_dead(*node)) {
                let rows = segment.rows();
                add(segment.slot(node), rows.scale(node), rows.row(node), Place::Segment { tag: segment.tag, node });
            }
        }
        for (number, block) in self.blocks.iter().enumerate() {
            let block_number = self.first.wrapping_add(number as u32);
            block.each(|row, slot, scale, bytes| add(slot, scale, bytes, Place::Tail { block: block_number, row }));
        }
        gathered
    }
}

/// A row that the graph does not find: its node is given up, and it stays in the tail.
struct Missed {
    slot: Slot,
    origin: u32,
    row: Row,
}

impl Missed {
    fn take(segment: &mut Segment, node: u32, origins: &[u32]) -> Self {
        let row = Row { bytes: segment.rows().row(node).to_vec(), scale: segment.rows().scale(node) };
        Self { slot: segment.disown(node), origin: origins[node as usize], row }
    }
}

fn dead_slots(segment: &Segment) -> impl Iterator<Item = Slot> + '_ {
    let dead = (0..segment.len() as u32).filter(|node| segment.is_dead(*node));
    dead.map(|node| segment.slot(node)).filter(|slot| *slot != NOWHERE)
}

/// A segment joins a build of at least a third of its size: each row is linked a few times for each tenfold growth.
const GROWTH: usize = 3;

/// Every segment is searched in turn; beyond three that shows.
const SEGMENTS_MAX: usize = 3;

/// Places changed under one hold of the lock: some ten microseconds.
const RELABELLED: usize = 256;
