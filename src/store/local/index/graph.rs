//! Rows in, a frozen graph out, with its nodes numbered for the search.
//!
//! Few rows are linked by hnsw_rs, many by [`link`]: they get their layers by chance, are linked, and then stand in the order in which a search meets them. The build
//! stops within some milliseconds of being told to. A node that a search for its own row does not find is given back
//! to the caller, who keeps it in the tail.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::hnsw;
use super::link::{self, Layer};
use super::places::NOWHERE;
use super::quantised::Query;
use super::segment::{LINKS, Level, Links, Rows, Scratch, Segment};

/// A graph over gathered rows; `order[node]` is the row that the node was made from.
pub(super) struct Graph {
    pub(super) rows: Rows,
    pub(super) links: Links,
    pub(super) order: Vec<u32>,
}

/// Links the first `count` rows; `None` if told to stop. hnsw_rs does it while that takes seconds; it links 100,000 rows
/// in 160 s where [`link`] takes 54 s (two threads, ef_construction 200 both), and finds no more.
pub(super) fn build(rows: Rows, count: usize, builders: usize, stop: &AtomicBool) -> Option<Graph> {
    if count <= HNSW_RS_MAX {
        return hnsw::build(rows, count, builders, stop);
    }
    linked(rows, count, builders, stop)
}

/// The graph by the linker of our own.
pub(super) fn linked(rows: Rows, count: usize, builders: usize, stop: &AtomicBool) -> Option<Graph> {
    let (ranked, counts) = ranks(count);
    let rows = rows.reordered(&ranked);
    let layers = link::layers(&rows, &counts, builders, stop)?;
    let (links, walked) = number(&layers);
    drop(layers);
    let rows = rows.reordered(&walked);
    let order = walked.iter().map(|rank| ranked[*rank as usize]).collect();
    (!stop.load(Ordering::Relaxed)).then_some(Graph { rows, links, order })
}

/// The rows by falling level, and how many each layer has of them, lowest first. A row's level is drawn from its
/// number, so that the same rows make the same graph.
fn ranks(count: usize) -> (Vec<u32>, Vec<usize>) {
    let level = |row: u32| (xxhash_rust::xxh3::xxh3_64(&row.to_le_bytes()).trailing_zeros() / LEVEL_BITS) as usize;
    let mut rows: Vec<u32> = (0..count as u32).collect();
    rows.sort_by_cached_key(|row| Reverse(level(*row)));
    let of_layer = |least| rows.partition_point(|row| level(*row) >= least);
    let counts = (0..).map(of_layer).take_while(|count| *count > 0).collect();
    (rows, counts)
}

/// Numbers the nodes of the lowest layer alone in the order of a walk; gives the old number of each, too.
fn number(layers: &[Layer]) -> (Links, Vec<u32>) {
    let lowest = layers.first().map_or(&[][..], Vec::as_slice);
    let count = lowest.len() / LINKS;
    let mut order: Vec<u32> = Vec::with_capacity(count);
    let mut node_of = vec![NOWHERE; count];
    let mut number = |node: u32, order: &mut Vec<u32>| {
        if node_of[node as usize] == NOWHERE {
            node_of[node as usize] = order.len() as u32;
            order.push(node);
        }
    };
    let upper = layers.get(1).map_or(0, |layer| layer.len() / LINKS) as u32;
    (0..upper).for_each(|node| number(node, &mut order));
    let mut walked = 0;
    for node in 0..count as u32 {
        // More than one start only where the graph has more than one part.
        number(node, &mut order);
        while walked < order.len() {
            link::of(lowest, order[walked]).iter().for_each(|link| number(*link, &mut order));
            walked += 1;
        }
    }
    let renumbered = order.iter().flat_map(|node| &lowest[*node as usize * LINKS..][..LINKS]);
    let lowest = renumbered.map(|link| node_of.get(*link as usize).copied().unwrap_or(NOWHERE)).collect();
    let levels = layers.iter().skip(1).map(|layer| {
        let mut flat = Level { starts: vec![0], links: Vec::new() };
        for node in 0..(layer.len() / LINKS) as u32 {
            flat.links.extend(link::of(layer, node));
            flat.starts.push(flat.links.len() as u32);
        }
        flat
    });
    (Links { lowest, levels: levels.collect() }, order)
}

/// The nodes that a search for their own rows does not find.
pub(super) fn unreachable(segment: &Segment, builders: usize, stop: &AtomicBool) -> Vec<u32> {
    let next = AtomicUsize::new(0);
    let missed = parking_lot::Mutex::new(Vec::new());
    share(builders, || {
        let mut scratch = Scratch::default();
        while !stop.load(Ordering::Relaxed) {
            let node = next.fetch_add(1, Ordering::Relaxed);
            if node >= segment.len() {
                break;
            }
            let query = Query::of_row(segment.rows().row(node as u32));
            let found = |ef, scratch: &mut Scratch| {
                segment.search(&query, ef, scratch);
                scratch.beam.iter().any(|found| found.node() == node as u32)
            };
            // Nearly all are found by the narrow search; the wide one is what a search by others does.
            if !found(EF_NARROW, &mut scratch) && !found(EF_WIDE, &mut scratch) {
                missed.lock().push(node as u32);
            }
        }
    });
    missed.into_inner()
}

/// Runs `work` on `builders` threads, this one among them.
pub(super) fn share(builders: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 1..builders {
            let helper = std::thread::Builder::new().name("nearhit-graph".into()).spawn_scoped(scope, &work);
            if let Err(error) = helper {
                tracing::warn!(%error, "a graph is built with one thread less");
            }
        }
        work();
    });
}

/// Rows that hnsw_rs links: the first graphs of a partition, and all that most partitions ever have.
const HNSW_RS_MAX: usize = 16_384;

/// A layer has a sixteenth of the nodes of the one below.
const LEVEL_BITS: u32 = 4;

const EF_NARROW: usize = 16;
const EF_WIDE: usize = 64;
