//! A frozen graph over rows of its own: found fast, never changed, except that a node may die.
//!
//! Nodes are numbered by falling level, so the nodes of a layer are the first so many of all, and those of the lowest
//! alone in the order in which a walk meets them. Dead nodes are ways through the graph; who searches skips them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::arena::Arena;
use super::places::NOWHERE;
use super::quantised::{Query, stride};
use super::{SegmentFile, Slot};
use crate::store::local::kernel::{prefetch, words};

pub(super) struct Segment {
    pub(super) tag: u32,
    rows: Rows,
    links: Arena,
    levels: Vec<Level>,
    slots: Vec<Slot>,
    dead: Vec<AtomicU64>,
    dead_count: AtomicUsize,
    /// The snapshot of this segment, or of those it was made from while its own could not be written.
    pub(super) files: Mutex<Vec<SegmentFile>>,
}

/// The int8 rows of a segment, by node.
pub(super) struct Rows {
    bytes: Arena,
    scales: Vec<f32>,
    stride: usize,
}

/// The links of one layer above the lowest: those of node `n` are `links[starts[n]..starts[n + 1]]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Level {
    pub(super) starts: Vec<u32>,
    pub(super) links: Vec<u32>,
}

/// A graph without its rows, as it is built and as it is kept in a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Links {
    /// [`LINKS`] a node, the rest filled with [`NOWHERE`].
    pub(super) lowest: Vec<u32>,
    /// From the second lowest up.
    pub(super) levels: Vec<Level>,
}

/// What a search needs besides the graph; used again by the next one.
#[derive(Default)]
pub(super) struct Scratch {
    visited: Vec<u8>,
    epoch: u8,
    pub(super) beam: Vec<Found>,
}

#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) score: f32,
    node: u32,
}

impl Found {
    pub(super) fn new(score: f32, node: u32) -> Self {
        Self { score, node }
    }

    pub(super) fn node(self) -> u32 {
        self.node & !EXPANDED
    }
}

impl Rows {
    pub(super) fn zeroed(count: usize, dims: usize) -> Self {
        let stride = stride(dims);
        Self { bytes: Arena::zeroed(count * stride), scales: vec![0.0; count], stride }
    }

    pub(super) fn set(&mut self, node: usize, scale: f32, bytes: &[u8]) {
        self.scales[node] = scale;
        self.bytes.bytes_mut()[node * self.stride..][..self.stride].copy_from_slice(bytes);
    }

    /// The rows that `order` names, as it names them.
    pub(super) fn reordered(&self, order: &[u32]) -> Self {
        let mut ordered = Self::zeroed(order.len(), self.stride);
        for (node, row) in order.iter().enumerate() {
            ordered.set(node, self.scale(*row), self.row(*row));
        }
        ordered
    }

    #[inline(always)]
    pub(super) fn row(&self, node: u32) -> &[u8] {
        &self.bytes.bytes()[node as usize * self.stride..][..self.stride]
    }

    #[inline(always)]
    pub(super) fn scale(&self, node: u32) -> f32 {
        self.scales[node as usize]
    }
}

impl Segment {
    /// `slots` names the slot of every node; a node that names none is dead.
    pub(super) fn new(tag: u32, rows: Rows, links: Links, slots: Vec<Slot>) -> Self {
        let mut lowest = Arena::zeroed(links.lowest.len() * 4);
        for (bytes, link) in lowest.bytes_mut().chunks_exact_mut(4).zip(&links.lowest) {
            bytes.copy_from_slice(&link.to_ne_bytes());
        }
        let dead = (0..slots.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let segment = Self {
            tag,
            rows,
            links: lowest,
            levels: links.levels,
            slots,
            dead,
            dead_count: AtomicUsize::new(0),
            files: Mutex::default(),
        };
        for (node, _) in segment.slots.iter().enumerate().filter(|(_, slot)| **slot == NOWHERE) {
            segment.kill(node as u32);
        }
        segment
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn live(&self) -> usize {
        self.len() - self.dead_count.load(Ordering::Relaxed)
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn slot(&self, node: u32) -> Slot {
        self.slots[node as usize]
    }

    pub(super) fn rows(&self) -> &Rows {
        &self.rows
    }

    pub(super) fn levels(&self) -> &[Level] {
        &self.levels
    }

    pub(super) fn lowest(&self) -> &[u32] {
        &words(self.links.bytes())[..self.len() * LINKS]
    }

    pub(super) fn is_dead(&self, node: u32) -> bool {
        self.dead[node as usize / 64].load(Ordering::Acquire) & (1 << (node % 64)) != 0
    }

    /// Whether the node lived until now.
    pub(super) fn kill(&self, node: u32) -> bool {
        let bit = 1 << (node % 64);
        let lived = self.dead[node as usize / 64].fetch_or(bit, Ordering::AcqRel) & bit == 0;
        if lived {
            self.dead_count.fetch_add(1, Ordering::Relaxed);
        }
        lived
    }

    /// Gives the node up for good: it names no slot any more, and its slot stands elsewhere.
    pub(super) fn disown(&mut self, node: u32) -> Slot {
        self.kill(node);
        std::mem::replace(&mut self.slots[node as usize], NOWHERE)
    }

    /// Leaves the best `ef` nodes, dead ones too, in the scratch's beam, best first.
    pub(super) fn search(&self, query: &Query, ef: usize, scratch: &mut Scratch) {
        if self.slots.is_empty() {
            scratch.beam.clear();
            return;
        }
        let (node, score) = self.descend(query);
        walk(&self.rows, words(self.links.bytes()), query, Found { score, node }, ef, scratch);
    }

    /// From the top to where the second lowest layer gets no nearer.
    fn descend(&self, query: &Query) -> (u32, f32) {
        let mut node = 0;
        let mut score = query.score(self.rows.row(node), self.rows.scale(node));
        for level in self.levels.iter().rev() {
            loop {
                let from = node;
                let links =
                    &level.links[level.starts[from as usize] as usize..level.starts[from as usize + 1] as usize];
                links.iter().for_each(|link| prefetch(self.rows.row(*link)));
                for link in links {
                    let other = query.score(self.rows.row(*link), self.rows.scale(*link));
                    if other > score {
                        (node, score) = (*link, other);
                    }
                }
                if node == from {
                    break;
                }
            }
        }
        (node, score)
    }

    pub(super) fn bytes(&self) -> usize {
        let levels: usize = self.levels.iter().map(|level| level.starts.capacity() + level.links.capacity()).sum();
        self.rows.bytes.bytes().len()
            + self.links.bytes().len()
            + 4 * (self.rows.scales.capacity() + self.slots.capacity() + levels)
            + 8 * self.dead.capacity()
            + size_of::<Self>()
    }
}

/// Follows links from a node of the layer; leaves the best `ef` nodes met in the scratch's beam, best first. To end it
/// once the best few have stood still for a while was tried: it saves no more time than a smaller `ef` that finds as much.
#[inline(always)]
pub(super) fn walk(rows: &Rows, links: &[u32], query: &Query, entry: Found, ef: usize, scratch: &mut Scratch) {
    scratch.start(links.len() / LINKS);
    scratch.visit(entry.node);
    scratch.beam.push(entry);
    let mut at = 0;
    while let Some(found) = scratch.beam.get_mut(at) {
        if found.node & EXPANDED != 0 {
            at += 1;
            continue;
        }
        let node = found.node as usize;
        found.node |= EXPANDED;
        let mut fresh = [0u32; LINKS];
        let mut count = 0;
        for link in &links[node * LINKS..][..LINKS] {
            if *link == NOWHERE {
                break;
            }
            if scratch.visit(*link) {
                prefetch(rows.row(*link));
                fresh[count] = *link;
                count += 1;
            }
        }
        let mut next = at + 1;
        for node in &fresh[..count] {
            let score = query.score(rows.row(*node), rows.scale(*node));
            let place = scratch.admit(Found { score, node: *node }, ef);
            if place <= at + 1 {
                // Its links come next, or soon.
                prefetch(&links[*node as usize * LINKS..][..LINKS]);
            }
            next = next.min(place);
        }
        at = next;
    }
}

impl Scratch {
    pub(super) fn bytes(&self) -> usize {
        self.visited.capacity() + self.beam.capacity() * size_of::<Found>()
    }

    fn start(&mut self, nodes: usize) {
        self.beam.clear();
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 || self.visited.len() < nodes {
            self.visited.fill(0);
            self.visited.resize(self.visited.len().max(nodes), 0);
            self.epoch = 1;
        }
    }

    /// Whether this is the first visit.
    #[inline(always)]
    fn visit(&mut self, node: u32) -> bool {
        std::mem::replace(&mut self.visited[node as usize], self.epoch) != self.epoch
    }

    /// Where the node stands in the beam now; beyond its end if it is too far away.
    #[inline(always)]
    fn admit(&mut self, found: Found, ef: usize) -> usize {
        if self.beam.len() >= ef {
            if self.beam.last().is_none_or(|least| found.score <= least.score) {
                return usize::MAX;
            }
            self.beam.pop();
        }
        let place = self.beam.partition_point(|other| other.score >= found.score);
        self.beam.insert(place, found);
        place
    }
}

/// Links of a node in the lowest layer: two cache lines.
pub(super) const LINKS: usize = 32;

/// In a beam: its links were followed.
const EXPANDED: u32 = 1 << 31;
