//! Which nodes of a graph link to which: layers of near neighbours, made in batches that need no lock.
//!
//! A layer starts as a copy of the one above it and takes the other nodes in batches. A batch first searches the layer
//! as it was, each node for itself, and then every node that is newly linked to takes the links back. Each step reads
//! what no one writes, so the threads share nothing but the next piece of work, and the graph is the same whatever
//! their number. Of the near ones a node keeps those that no kept one is nearer to than the node itself is: they lie
//! in all directions, and the way to a small cluster is not given up for the twentieth neighbour in a large one.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::graph::share;
use super::places::NOWHERE;
use super::quantised::Query;
use super::segment::{Found, LINKS, Rows, Scratch, walk};

/// The links of one layer, [`LINKS`] a node, the rest filled with [`NOWHERE`].
pub(super) type Layer = Vec<u32>;

/// Every layer, lowest first; the nodes of a layer are the first `counts` of all. `None` if told to stop.
pub(super) fn layers(rows: &Rows, counts: &[usize], builders: usize, stop: &AtomicBool) -> Option<Vec<Layer>> {
    // Highest first, as they are made and as a search goes through them.
    let mut layers: Vec<Layer> = Vec::with_capacity(counts.len());
    for (level, count) in counts.iter().enumerate().rev() {
        let mut links = layers.last().cloned().unwrap_or_default();
        // Who is first has no one to link to.
        let mut done = (links.len() / LINKS).max(1);
        links.resize(count * LINKS, NOWHERE);
        let most = if level == 0 { LINKS } else { LINKS / 2 };
        let mut growing = Growing { links, rows, above: &layers, most, builders, stop };
        while done < *count {
            let batch = (done / GROWTH).clamp(1, (count / BATCHES).max(BATCH_MIN)).min(count - done);
            growing.add(done, batch);
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            done += batch;
        }
        growing.join();
        let Growing { links, .. } = growing;
        layers.push(links);
    }
    layers.reverse();
    Some(layers)
}

/// The links of a node.
pub(super) fn of(links: &[u32], node: u32) -> &[u32] {
    let links = &links[node as usize * LINKS..][..LINKS];
    &links[..links.iter().position(|link| *link == NOWHERE).unwrap_or(LINKS)]
}

/// A layer that is being made.
struct Growing<'a> {
    links: Layer,
    rows: &'a Rows,
    above: &'a [Layer],
    /// Links a node keeps.
    most: usize,
    builders: usize,
    stop: &'a AtomicBool,
}

impl Growing<'_> {
    /// Links the `batch` nodes from `first` on with those before them.
    fn add(&mut self, first: usize, batch: usize) {
        let there = self.each(batch, |work, i, links| {
            let node = (first + i) as u32;
            work.query = Query::of_row(self.rows.row(node));
            let entry = self.descend(&work.query);
            walk(self.rows, &self.links, &work.query, entry, EF_CONSTRUCTION, &mut work.scratch);
            work.near.clear();
            let own = self.rows.scale(node);
            work.near.extend(work.scratch.beam.iter().map(|found| (1.0 - found.score * own, found.node())));
            work.select(self.rows, self.most, links);
        });
        self.links[first * LINKS..][..there.len()].copy_from_slice(&there);
        let from = |i: usize| of(&there, i as u32).iter().map(move |to| (*to, (first + i) as u32));
        let mut back: Vec<(u32, u32)> = (0..batch).flat_map(from).collect();
        back.sort_unstable();
        let back: Vec<&[(u32, u32)]> = back.chunk_by(|a, b| a.0 == b.0).collect();
        let changed = self.each(back.len(), |work, i, links| {
            let node = back[i][0].0;
            work.query = Query::of_row(self.rows.row(node));
            work.near.clear();
            for other in of(&self.links, node).iter().chain(back[i].iter().map(|(_, from)| from)) {
                let score = work.query.score(self.rows.row(*other), self.rows.scale(*other));
                work.near.push((1.0 - score * self.rows.scale(node), *other));
            }
            work.select(self.rows, self.most, links);
        });
        for (back, links) in back.iter().zip(changed.chunks_exact(LINKS)) {
            self.links[back[0].0 as usize * LINKS..][..LINKS].copy_from_slice(links);
        }
    }

    /// Leads a link to every part of the layer that there is no way to from the first node: a tight cluster whose
    /// members hide one another from all others would be lost as a whole.
    fn join(&mut self) {
        let mut seen = vec![false; self.links.len() / LINKS];
        let mut scratch = Scratch::default();
        for node in 0..seen.len() as u32 {
            if std::mem::replace(&mut seen[node as usize], true) {
                continue;
            }
            if node > 0 {
                let query = Query::of_row(self.rows.row(node));
                let first = Found::new(query.score(self.rows.row(0), self.rows.scale(0)), 0);
                walk(self.rows, &self.links, &query, first, EF_CONSTRUCTION, &mut scratch);
                let mut near = scratch.beam.iter().map(|found| found.node());
                let Some(from) = near.find(|near| of(&self.links, *near).len() < self.most) else { continue };
                let place = from as usize * LINKS + of(&self.links, from).len();
                self.links[place] = node;
            }
            let mut ahead = vec![node];
            while let Some(node) = ahead.pop() {
                let fresh =
                    of(&self.links, node).iter().filter(|link| !std::mem::replace(&mut seen[**link as usize], true));
                ahead.extend(fresh);
            }
        }
    }

    /// Down through the layers above to where the last of them gets no nearer.
    fn descend(&self, query: &Query) -> Found {
        let found = |node| Found::new(query.score(self.rows.row(node), self.rows.scale(node)), node);
        let mut best = found(0);
        for layer in self.above {
            loop {
                let from = best;
                for other in of(layer, from.node()).iter().map(|link| found(*link)) {
                    if other.score > best.score {
                        best = other;
                    }
                }
                if best.node() == from.node() {
                    break;
                }
            }
        }
        best
    }

    /// The links that `work` gives each of `count` nodes.
    fn each(&self, count: usize, work: impl Fn(&mut Work, usize, &mut [u32]) + Sync) -> Vec<u32> {
        let mut made = vec![NOWHERE; count * LINKS];
        let pieces = Mutex::new(made.chunks_mut(PIECE * LINKS).enumerate());
        share(self.builders.min(count.div_ceil(PIECE)), || {
            let mut own = Work::default();
            while !self.stop.load(Ordering::Relaxed) {
                let Some((number, piece)) = pieces.lock().next() else { break };
                for (i, links) in piece.chunks_exact_mut(LINKS).enumerate() {
                    work(&mut own, number * PIECE + i, links);
                }
            }
        });
        made
    }
}

/// What linking a node needs; used again for the next one.
#[derive(Default)]
struct Work {
    query: Query,
    scratch: Scratch,
    /// How far from the node, and who.
    near: Vec<(f32, u32)>,
    kept: Vec<Kept>,
}

struct Kept {
    node: u32,
    scale: f32,
    query: Query,
}

impl Work {
    /// Chooses `most` of the near ones.
    fn select(&mut self, rows: &Rows, most: usize, links: &mut [u32]) {
        if self.near.len() <= most {
            // The first nodes have few to choose from, and a graph that is thin at its root falls apart.
            links.iter_mut().zip(&self.near).for_each(|(link, (_, other))| *link = *other);
            return;
        }
        self.near.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        self.kept.clear();
        for (apart, node) in &self.near {
            let (row, scale) = (rows.row(*node), rows.scale(*node));
            // Equal rows are no way around one another: none of them hides what is as far from all.
            let hides = |kept: &Kept| SLACK * (1.0 - kept.query.score(row, scale) * kept.scale) < *apart;
            if !self.kept.iter().any(hides) {
                self.kept.push(Kept { node: *node, scale, query: Query::of_row(row) });
                if self.kept.len() == most {
                    break;
                }
            }
        }
        links.iter_mut().zip(&self.kept).for_each(|(link, kept)| *link = kept.node);
    }
}

/// Candidates a new node chooses its links from.
const EF_CONSTRUCTION: usize = 200;

/// How much nearer than the node another must be to hide a third from it.
const SLACK: f32 = 1.05;

/// A batch is at most this part of the nodes before it, whose searches do not see one another,
const GROWTH: usize = 4;
/// and of the whole layer.
const BATCHES: usize = 50;
const BATCH_MIN: usize = 64;

/// Nodes a thread links between two looks at the stop flag: some milliseconds.
const PIECE: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::graph;
    use super::super::segment::Segment;
    use super::*;

    const COUNT: usize = 3000;
    const DIMS: usize = 64;

    /// Forty clusters, the last of them of a few rows only.
    fn rows() -> Rows {
        let mut bits = 7u64;
        let mut draw = || {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (bits >> 56) as i32 - 128
        };
        let centres: Vec<i32> = (0..40 * DIMS).map(|_| draw() / 4).collect();
        let mut rows = Rows::zeroed(COUNT, DIMS);
        for row in 0..COUNT {
            let cluster = row * row * 40 / (COUNT * COUNT);
            let values: Vec<i32> = centres[cluster * DIMS..][..DIMS].iter().map(|value| value + draw() / 2).collect();
            let length = values.iter().map(|value| (value * value) as f32).sum::<f32>().sqrt();
            let bytes: Vec<u8> = values.iter().map(|value| (value + 128) as u8).collect();
            rows.set(row, length.recip(), &bytes);
        }
        rows
    }

    #[test]
    fn every_node_is_found_and_so_is_its_nearest() {
        let stop = AtomicBool::new(false);
        let graph = graph::linked(rows(), COUNT, 2, &stop).expect("a graph");
        let segment = Segment::new(0, graph.rows, graph.links, (0..COUNT as u32).collect());
        let missed = graph::unreachable(&segment, 2, &stop);
        assert!(missed.len() <= 1, "{} nodes are not found", missed.len());
        let mut scratch = Scratch::default();
        let mut right = 0;
        for node in (0..COUNT as u32).step_by(10) {
            let query = Query::of_row(segment.rows().row(node));
            let score = |other: u32| query.score(segment.rows().row(other), segment.rows().scale(other));
            segment.search(&query, 128, &mut scratch);
            let most =
                |nodes: &mut dyn Iterator<Item = u32>| nodes.filter(|n| *n != node).map(score).fold(0.0, f32::max);
            let found = most(&mut scratch.beam.iter().map(|found| found.node()));
            right += u32::from(found >= most(&mut (0..COUNT as u32)));
        }
        assert!(right >= 294, "{right} of 300");
    }

    #[test]
    fn the_graph_does_not_depend_on_the_threads_and_a_stopped_one_is_none() {
        let stop = AtomicBool::new(false);
        let one = graph::linked(rows(), COUNT, 1, &stop).expect("a graph");
        let three = graph::linked(rows(), COUNT, 3, &stop).expect("a graph");
        assert!(one.links == three.links && one.order == three.order);
        stop.store(true, Ordering::Relaxed);
        assert!(graph::linked(rows(), COUNT, 1, &stop).is_none());
    }

    #[test]
    fn a_few_rows_and_equal_rows_make_a_graph() {
        let stop = AtomicBool::new(false);
        for count in [0, 1, 2, 40, 500] {
            let mut rows = Rows::zeroed(count, DIMS);
            (0..count).for_each(|row| rows.set(row, 0.01, &[200; DIMS]));
            let graph = graph::linked(rows, count, 2, &stop).expect("a graph");
            assert_eq!((graph.order.len(), graph.links.lowest.len()), (count, count * LINKS));
        }
    }
}
