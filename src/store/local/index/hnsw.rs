//! hnsw_rs's links, copied into flat arrays.
//!
//! hnsw_rs keeps an Arc per link and searches through hash tables; its graph is good, so only the graph is kept. The
//! build stops within one insertion of being told to.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hnsw_rs::anndists::dist::distances::Distance;
use hnsw_rs::hnsw::Hnsw;

use super::graph::{Graph, share};
use super::places::NOWHERE;
use super::segment::{LINKS, Level, Links, Rows};
use crate::store::local::kernel::Kernel;

/// Links the rows; `None` if told to stop.
pub(super) fn build(rows: Rows, count: usize, builders: usize, stop: &AtomicBool) -> Option<Graph> {
    let rows = Arc::new(rows);
    let hnsw = Hnsw::new(
        CONNECTIONS,
        count,
        LAYERS,
        EF_CONSTRUCTION,
        Apart { rows: Arc::clone(&rows), kernel: Kernel::choose() },
    );
    // Alone first: two inserts into an empty graph would both find no entry and miss each other for good.
    hnsw.insert((&[0], 0));
    let next = AtomicUsize::new(1);
    let insert = || {
        while !stop.load(Ordering::Relaxed) {
            let row = next.fetch_add(1, Ordering::Relaxed);
            if row >= count {
                break;
            }
            hnsw.insert((&[row as u32], row));
        }
    };
    share(builders, insert);
    let flat = (!stop.load(Ordering::Relaxed)).then(|| flatten(&hnsw, count));
    if flat.is_none() {
        // Freeing a large graph takes seconds that whoever stops the index should not wait for.
        let freeing = std::thread::Builder::new().name("nearhit-graph-end".into()).spawn(move || drop(hnsw));
        if let Err(error) = freeing {
            tracing::warn!(%error, "an unfinished graph was freed on the builder's thread");
        }
    }
    let (links, order) = flat?;
    Some(Graph { rows: rows.reordered(&order), links, order })
}

/// Numbers the nodes by falling level, those of the lowest layer in the order of a walk, and copies their links.
fn flatten(hnsw: &Hnsw<'static, u32, Apart>, count: usize) -> (Links, Vec<u32>) {
    let mut levels = vec![0u8; count];
    let mut lowest = vec![NOWHERE; count * LINKS];
    let mut upper: Vec<(u32, Vec<Vec<u32>>)> = Vec::new();
    for point in hnsw.get_point_indexation() {
        let (row, level) = (point.get_origin_id(), point.get_point_id().0);
        let near = point.get_neighborhood_id();
        levels[row] = level;
        for (link, other) in lowest[row * LINKS..][..LINKS].iter_mut().zip(&near[0]) {
            *link = other.d_id as u32;
        }
        if level > 0 {
            let links = near[1..=usize::from(level)].iter();
            upper
                .push((row as u32, links.map(|layer| layer.iter().map(|other| other.d_id as u32).collect()).collect()));
        }
    }
    upper.sort_by_key(|(row, _)| (Reverse(levels[*row as usize]), *row));
    let mut order: Vec<u32> = Vec::with_capacity(count);
    let mut node_of = vec![NOWHERE; count];
    let mut number = |row: u32, order: &mut Vec<u32>| {
        if node_of[row as usize] == NOWHERE {
            node_of[row as usize] = order.len() as u32;
            order.push(row);
        }
    };
    upper.iter().for_each(|(row, _)| number(*row, &mut order));
    let mut walked = 0;
    for row in 0..count as u32 {
        // More than one start only where the graph has more than one part.
        number(row, &mut order);
        while walked < order.len() {
            let links = &lowest[order[walked] as usize * LINKS..][..LINKS];
            links.iter().take_while(|link| **link != NOWHERE).for_each(|link| number(*link, &mut order));
            walked += 1;
        }
    }
    let renumbered = order.iter().flat_map(|row| &lowest[*row as usize * LINKS..][..LINKS]);
    let lowest = renumbered.map(|link| node_of.get(*link as usize).copied().unwrap_or(NOWHERE)).collect();
    let top = upper.first().map_or(0, |(row, _)| levels[*row as usize]);
    let levels = (1..=usize::from(top)).map(|level| {
        let layer: Vec<&[u32]> = upper.iter().map_while(|(_, links)| links.get(level - 1).map(Vec::as_slice)).collect();
        let mut flat = Level { starts: vec![0], links: Vec::new() };
        for links in &layer {
            // A link to a node that is not of this layer would be none.
            let nodes = links.iter().map(|row| node_of[*row as usize]).filter(|node| (*node as usize) < layer.len());
            flat.links.extend(nodes);
            flat.starts.push(flat.links.len() as u32);
        }
        flat
    });
    (Links { lowest, levels: levels.collect() }, order)
}

/// 1 - cosine of two rows named by their numbers, so that hnsw_rs copies four bytes a point and not a row. Never below
/// zero: hnsw_rs asserts it, and rounding takes the cosine of a row with itself above one.
struct Apart {
    rows: Arc<Rows>,
    kernel: Kernel,
}

impl Distance<u32> for Apart {
    #[inline]
    fn eval(&self, a: &[u32], b: &[u32]) -> f32 {
        let (a, b) = (a[0], b[0]);
        let product = self.kernel.dot_rows(self.rows.row(a), self.rows.row(b)) as f32;
        (1.0 - product * self.rows.scale(a) * self.rows.scale(b)).max(0.0)
    }
}

/// Links a point keeps in each layer (twice as many in the lowest). 16 is the usual choice for some hundred dimensions.
const CONNECTIONS: usize = LINKS / 2;

const LAYERS: usize = 16;

/// Candidates considered when a point is linked; below 200 some points cannot be reached from others.
const EF_CONSTRUCTION: usize = 200;
