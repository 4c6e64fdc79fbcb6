//! Which entries of a partition are nearest to a vector.
//!
//! Derived state: it holds ids and vectors, and everything in it can be made again from the rows. A partition is a
//! flat list, scanned exactly; what outgrows [`FLAT_MAX`] is moved into a graph by a thread of its own: linking a
//! vector in takes a millisecond, and neither an insert nor a search waits for it. A vector is found in the list until its block is in
//! the graph, and a result names it once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};

use super::graph::Graph;
use crate::decision::{Embedding, EntryId, Partition, Similarity, dot};

pub(super) struct Index {
    shelves: RwLock<HashMap<Partition, Arc<Shelf>>>,
    overfull: Mutex<Option<Sender<Arc<Shelf>>>>,
    builder: Option<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
}

#[derive(Default)]
struct Shelf {
    flat: RwLock<Flat>,
    graph: RwLock<Option<Arc<Graph>>>,
}

/// Vectors in rows of one length; a removed row keeps its place, without an id, until its block moves on.
#[derive(Default)]
struct Flat {
    ids: Vec<Option<EntryId>>,
    vectors: Vec<f32>,
}

impl Index {
    /// An empty index, and the thread that builds its graphs.
    pub(super) fn start() -> std::io::Result<Self> {
        let (overfull, shelves) = channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let builder = std::thread::Builder::new().name("nearhit-graph".into()).spawn({
            let stopping = Arc::clone(&stopping);
            move || build(&shelves, &stopping)
        })?;
        let overfull = Mutex::new(Some(overfull));
        Ok(Self { shelves: RwLock::default(), overfull, builder: Some(builder), stopping })
    }

    pub(super) fn insert(&self, partition: Partition, id: EntryId, embedding: &Embedding) {
        let shelf = Arc::clone(self.shelves.write().entry(partition).or_default());
        let mut flat = shelf.flat.write();
        flat.ids.push(Some(id));
        flat.vectors.extend_from_slice(embedding.as_slice());
        // Once a block, not once a row: the builder takes all there is.
        let block_is_full = flat.ids.len() >= FLAT_MAX && flat.ids.len().is_multiple_of(BLOCK);
        drop(flat);
        if block_is_full && let Some(overfull) = self.overfull.lock().as_ref() {
            // Without its builder the index still works, by scanning.
            if overfull.send(shelf).is_err() {
                tracing::error!("the graph builder is gone");
            }
        }
    }

    pub(super) fn remove(&self, partition: Partition, id: EntryId) {
        let Some(shelf) = self.shelves.read().get(&partition).cloned() else { return };
        let mut flat = shelf.flat.write();
        if let Some(row) = flat.ids.iter().position(|other| *other == Some(id)) {
            flat.ids[row] = None;
        }
        if let Some(graph) = shelf.graph.read().as_ref() {
            graph.remove(id);
        }
        let empty =
            flat.ids.iter().all(Option::is_none) && shelf.graph.read().as_ref().is_none_or(|graph| graph.is_empty());
        drop(flat);
        if empty {
            self.shelves.write().remove(&partition);
        }
    }

    /// The `k` nearest, most similar first.
    pub(super) fn nearest(&self, partition: Partition, to: &Embedding, k: usize) -> Vec<(EntryId, Similarity)> {
        let Some(shelf) = self.shelves.read().get(&partition).cloned() else { return Vec::new() };
        let mut found = shelf.flat.read().scan(to.as_slice(), k);
        // Cloned first: the builder must not wait for a search to give the lock back.
        let graph = shelf.graph.read().clone();
        if let Some(graph) = graph {
            found.extend(graph.nearest(to, k));
        }
        found.sort_by(|a, b| b.1.get().total_cmp(&a.1.get()).then(a.0.cmp(&b.0)));
        let mut seen: Vec<EntryId> = Vec::with_capacity(k);
        found.retain(|(id, _)| {
            let new = seen.len() < k && !seen.contains(id);
            if new {
                seen.push(*id);
            }
            new
        });
        found
    }

    /// Whether a search takes less than handing it to another thread would be worth.
    pub(super) fn answers_at_once(&self, partition: Partition) -> bool {
        let shelf = self.shelves.read().get(&partition).cloned();
        shelf.is_none_or(|shelf| shelf.graph.read().is_none() && shelf.flat.read().ids.len() <= BLOCK)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        drop(self.overfull.lock().take());
        if let Some(builder) = self.builder.take()
            && builder.join().is_err()
        {
            tracing::error!("the graph builder had panicked");
        }
    }
}

impl Flat {
    fn scan(&self, to: &[f32], k: usize) -> Vec<(EntryId, Similarity)> {
        let mut best: Vec<(EntryId, Similarity)> = Vec::with_capacity(k + 1);
        for (id, vector) in self.ids.iter().zip(self.vectors.chunks_exact(to.len())) {
            let Some(id) = id else { continue };
            let similarity = Similarity::new(dot(vector, to));
            if best.len() == k && best.last().is_some_and(|(_, least)| similarity <= *least) {
                continue;
            }
            let place = best.partition_point(|(_, other)| *other >= similarity);
            best.insert(place, (*id, similarity));
            best.truncate(k);
        }
        best
    }

    fn dimensions(&self) -> usize {
        self.vectors.len().checked_div(self.ids.len()).unwrap_or(0)
    }
}

/// Moves blocks of overfull shelves into their graphs, until the index is dropped.
fn build(shelves: &Receiver<Arc<Shelf>>, stopping: &AtomicBool) {
    for shelf in shelves {
        while shelf.flat.read().ids.len() >= FLAT_MAX {
            let (ids, vectors, dimensions) = {
                let flat = shelf.flat.read();
                let dimensions = flat.dimensions();
                (flat.ids[..BLOCK].to_vec(), flat.vectors[..BLOCK * dimensions].to_vec(), dimensions)
            };
            let graph = Arc::clone(shelf.graph.write().get_or_insert_default());
            let mut points: Vec<Option<usize>> = Vec::with_capacity(BLOCK);
            for (id, vector) in ids.iter().zip(vectors.chunks_exact(dimensions)) {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                points.push(id.map(|_| graph.add(vector)));
            }
            // What was removed meanwhile has lost its id here, and never gets one in the graph.
            let mut flat = shelf.flat.write();
            for (point, id) in points.into_iter().zip(&flat.ids) {
                if let (Some(point), Some(id)) = (point, id) {
                    graph.name(point, *id);
                }
            }
            flat.ids.drain(..BLOCK);
            flat.vectors.drain(..BLOCK * dimensions);
        }
    }
}

/// Vectors that a partition keeps in its flat list before a graph is worth its memory. A scan of this many takes
/// about as long as hnsw_rs takes to search.
const FLAT_MAX: usize = 4096;

/// Vectors that move into the graph at a time.
const BLOCK: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::decision::Fingerprint;

    fn partition() -> Partition {
        Partition::new(&Fingerprint { scope: [0; 32], exact: [0; 32], template: [0; 32] }, "m")
    }

    fn id(n: u32) -> EntryId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        EntryId::from_bytes(bytes)
    }

    /// Vectors all over the sphere, the same at every run.
    fn vector(n: u32) -> Embedding {
        let mut state = u64::from(n) + 1;
        let values = (0..32).map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        });
        Embedding::new(values.collect()).expect("a vector that is not zero")
    }

    fn exact(live: &[u32], to: &Embedding) -> EntryId {
        let nearest =
            live.iter().max_by(|a, b| vector(**a).similarity(to).get().total_cmp(&vector(**b).similarity(to).get()));
        id(*nearest.expect("at least one live vector"))
    }

    #[test]
    fn flat_and_graph_find_what_an_exact_scan_finds() {
        let index = Index::start().expect("a thread");
        let count = FLAT_MAX as u32 + 2 * BLOCK as u32;
        (0..count).for_each(|n| index.insert(partition(), id(n), &vector(n)));
        let gone: Vec<u32> = (0..count).filter(|n| n % 10 == 0).collect();
        gone.iter().for_each(|n| index.remove(partition(), id(*n)));
        let live: Vec<u32> = (0..count).filter(|n| n % 10 != 0).collect();
        let check = |phase: &str| {
            let mut right = 0;
            for n in 0..200 {
                let query = vector(n * 61 + 7_000_000);
                let found = index.nearest(partition(), &query, 5);
                assert_eq!(found.len(), 5);
                assert!(found.windows(2).all(|pair| pair[0].1 >= pair[1].1), "{phase}: not sorted");
                assert!(
                    found.iter().all(|(found, _)| !gone.iter().any(|n| id(*n) == *found)),
                    "{phase}: a removed entry"
                );
                right += usize::from(found[0].0 == exact(&live, &query));
            }
            assert!(right >= 196, "{phase}: {right} of 200 nearest found");
        };
        check("while the graph is built");
        let shelf = Arc::clone(&index.shelves.read()[&partition()]);
        let patience = Instant::now() + Duration::from_secs(120);
        while shelf.flat.read().ids.len() >= FLAT_MAX {
            assert!(Instant::now() < patience, "the graph was not built");
            std::thread::yield_now();
        }
        check("after the graph is built");
    }

    #[test]
    fn an_emptied_partition_is_forgotten() {
        let index = Index::start().expect("a thread");
        index.insert(partition(), id(1), &vector(1));
        assert_eq!(index.nearest(partition(), &vector(1), 3).len(), 1);
        index.remove(partition(), id(1));
        assert_eq!(index.nearest(partition(), &vector(1), 3).len(), 0);
        assert!(index.shelves.read().is_empty());
    }
}
