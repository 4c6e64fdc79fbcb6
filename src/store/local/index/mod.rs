//! Which slots of a partition are nearest to a vector.
//!
//! Derived state: everything here can be made again from the vector rows. A partition starts as a list of slots whose
//! rows are scanned; past a few dozen it gets an int8 copy that is scanned, and past some thousands a thread of its own
//! freezes that copy into graphs. No insert waits for a search or a build. It does not know entries, expiry or tenants:
//! the caller says what fate a slot has.
//!
//! A search that runs while a slot is removed may still name it, so whoever hands a slot out again checks what a search
//! found against the entry it belongs to, as it must anyway to read the entry.

mod arena;
mod best;
mod builder;
mod few;
mod graph;
mod hnsw;
mod large;
mod link;
mod load;
mod places;
mod quantised;
mod segment;
mod snapshot;
mod tail;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use self::builder::{Builder, Extent};
use self::few::{Few, Table};
use self::large::{Large, Search};
pub use self::load::{Covered, Loaded};
use self::places::{HELD, Places, SLOTS_MAX};
use self::quantised::Row;
use self::segment::Scratch;
use crate::decision::{Embedding, Partition, Similarity};
pub use crate::store::local::vectors::Slot;
use crate::store::local::vectors::{DIMS_MAX, Length, Vectors};

/// The nearest-neighbour index of a store.
pub struct Index {
    vectors: Arc<Vectors>,
    table: Arc<Table>,
    places: Arc<Places>,
    requests: Mutex<Option<Sender<Request>>>,
    builder: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    scratches: Mutex<Vec<Scratch>>,
    folder: Option<PathBuf>,
    flat_max: usize,
    ef: AtomicUsize,
}

#[derive(Debug, Clone)]
pub struct IndexSettings {
    /// Where segment files go; without it a restart builds every graph again.
    pub folder: Option<PathBuf>,
    /// Threads of a graph's build.
    pub builders: usize,
    /// Rows that a partition scans before a graph is worth its build.
    pub flat_max: usize,
}

/// What becomes of a found slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Live,
    /// Returned, but does not count towards `k`.
    Expired,
    /// Skipped.
    Dead,
}

/// A segment's file as the store's manifest names it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SegmentFile {
    pub partition: Partition,
    pub name: String,
    pub bytes: u64,
    /// BLAKE3 of the header and of the checks of all blocks.
    pub hash: [u8; 32],
}

/// Told by the builder's thread after a partition's graphs changed.
#[derive(Debug)]
pub struct News {
    pub partition: Partition,
    /// Written and durable; belongs in the manifest.
    pub built: Option<SegmentFile>,
    /// To be taken out of the manifest, and then handed to [`Index::discard`].
    pub replaced: Vec<SegmentFile>,
    /// Removed slots that nothing refers to any more.
    pub released: Vec<Slot>,
}

/// Counted heap bytes, without the vector files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bytes {
    /// The table of partitions and the slots' places.
    pub few: usize,
    pub tails: usize,
    pub segments: usize,
    /// What searches use, kept for the next ones.
    pub scratch: usize,
    pub partitions: usize,
    pub segment_count: usize,
}

enum Request {
    Look(Arc<Large>),
    Build(Arc<Large>),
    Report(SyncSender<()>),
}

impl Index {
    /// An empty index over the vectors, and the thread that builds its graphs. `news` is called on that thread.
    ///
    /// # Errors
    /// The thread cannot be started, or the folder cannot be made.
    pub fn start(
        vectors: Arc<Vectors>,
        settings: IndexSettings,
        news: impl Fn(News) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let IndexSettings { folder, builders, flat_max } = settings;
        if let Some(folder) = &folder {
            std::fs::create_dir_all(folder)?;
        }
        let (table, places, stop) = (Arc::new(Table::default()), Arc::new(Places::default()), Arc::default());
        let builder = Builder {
            table: Arc::clone(&table),
            places: Arc::clone(&places),
            folder: folder.clone(),
            builders: builders.max(1),
            flat_max,
            stop: Arc::clone(&stop),
            news: Box::new(news),
        };
        let (requests, asked) = channel();
        let builder = std::thread::Builder::new().name("nearhit-graph".into()).spawn(move || {
            step_back();
            for request in asked {
                match request {
                    Request::Look(large) => builder.look(&large, Extent::Due),
                    Request::Build(large) => builder.look(&large, Extent::All),
                    Request::Report(done) => {
                        // Who asked may have gone.
                        done.try_send(()).unwrap_or_default();
                    }
                }
            }
        })?;
        Ok(Self {
            vectors,
            table,
            places,
            requests: Mutex::new(Some(requests)),
            builder: Some(builder),
            stop,
            scratches: Mutex::default(),
            folder,
            flat_max,
            ef: AtomicUsize::new(EF_SEARCH),
        })
    }

    /// Adds a slot whose row of this length is in the vectors. Takes microseconds; waits for no search and no build.
    pub fn insert(&self, partition: Partition, slot: Slot, dims: usize) {
        let rows =
            self.vectors.length(dims).filter(|rows| (1..=DIMS_MAX).contains(&dims) && rows.values(slot).is_some());
        let Some(rows) = rows.filter(|_| (slot as usize) < SLOTS_MAX) else {
            tracing::error!(slot, dims, "a slot without a vector was not indexed");
            return;
        };
        loop {
            let large = self.table.read(partition).large.get(&partition).cloned();
            match large.or_else(|| self.insert_into_few(partition, slot, &rows)) {
                Some(large) if large.rows.dims() != dims => {
                    tracing::error!(slot, dims, "a vector of another length was not indexed");
                    return;
                }
                Some(large) if self.insert_into_large(&large, slot, &rows) => return,
                // Emptied and being forgotten, by who holds it.
                Some(large) => self.table.forget(&large),
                None => return,
            }
        }
    }

    /// Removes a slot. `true`: nothing here refers to it any more, and it may be used again. `false`: it is held, and a
    /// later [`News`] releases it.
    pub fn remove(&self, partition: Partition, slot: Slot) -> bool {
        let large = self.table.read(partition).large.get(&partition).cloned();
        let Some(large) = large else {
            let mut shard = self.table.write(partition);
            if let Some(large) = shard.large.get(&partition).cloned() {
                drop(shard);
                return self.remove_from_large(&large, slot);
            }
            if let Some(few) = shard.few.get_mut(&partition) {
                few.remove(&self.places, slot);
                if few.count == 0 {
                    shard.few.remove(&partition);
                }
            }
            return self.places.get(slot) != HELD;
        };
        self.remove_from_large(&large, slot)
    }

    /// The nearest slots, most similar first, until `k` of them are live. The similarity is that of the stored row.
    pub fn nearest(
        &self,
        partition: Partition,
        query: &Embedding,
        k: usize,
        fate: &dyn Fn(Slot) -> Fate,
    ) -> Vec<(Slot, Similarity)> {
        if k == 0 {
            return Vec::new();
        }
        let shard = self.table.read(partition);
        if let Some(few) = shard.few.get(&partition) {
            if usize::from(few.dims) != query.dimensions() {
                return Vec::new();
            }
            let listed = few.list(&self.places);
            drop(shard);
            let Some(rows) = self.vectors.length(query.dimensions()) else { return Vec::new() };
            return large::walk(large::rescore(&rows, query, listed.slots()), k, fate).0;
        }
        let Some(large) = shard.large.get(&partition).cloned() else { return Vec::new() };
        drop(shard);
        let mut scratch = self.scratches.lock().pop().unwrap_or_default();
        let search = Search { query, k, ef: self.ef.load(Ordering::Relaxed), fate };
        let found = large.nearest(&search, &mut scratch);
        self.scratches.lock().push(scratch);
        found
    }

    /// Whether a search takes well under 200 us: it may run where nothing may block.
    pub fn is_small(&self, partition: Partition) -> bool {
        let large = self.table.read(partition).large.get(&partition).cloned();
        large.is_none_or(|large| {
            let view = large.view();
            view.segments.is_empty() && view.blocks.len() * places::BLOCK_ROWS <= FLAT_SMALL
        })
    }

    /// Rows that wait for a graph: those of every tail that is long enough for one.
    pub fn unindexed(&self) -> u64 {
        let mut waiting = 0;
        self.table.each(|shard| {
            for large in shard.large.values() {
                let rows = large.view().blocks.iter().map(|block| block.len()).sum::<usize>();
                waiting += if rows >= self.flat_max { rows as u64 } else { 0 };
            }
        });
        waiting
    }

    pub fn bytes(&self) -> Bytes {
        let mut bytes = Bytes { few: self.places.bytes(), ..Bytes::default() };
        self.table.each(|shard| {
            bytes.few += shard.bytes();
            bytes.partitions += shard.few.len() + shard.large.len();
            for large in shard.large.values() {
                let view = large.view();
                bytes.tails += size_of::<Large>() + view.blocks.iter().map(|block| block.bytes()).sum::<usize>();
                bytes.segments += view.segments.iter().map(|segment| segment.bytes()).sum::<usize>();
                bytes.segment_count += view.segments.len();
            }
        });
        bytes.scratch = self.scratches.lock().iter().map(Scratch::bytes).sum();
        bytes
    }

    /// Puts all of a partition into one graph and waits for it, and for whatever was due before.
    pub fn freeze(&self, partition: Partition) {
        let large = self.table.read(partition).large.get(&partition).cloned();
        if let Some(large) = large {
            self.ask(Request::Build(large));
        }
        self.settle();
    }

    /// Waits until the builder has done what it was asked so far.
    pub fn settle(&self) {
        let (done, report) = sync_channel(1);
        self.ask(Request::Report(done));
        if report.recv().is_err() {
            tracing::error!("the graph builder is gone");
        }
    }

    /// Candidates that a graph's search keeps: recall against time.
    pub fn set_ef(&self, ef: usize) {
        self.ef.store(ef.max(1), Ordering::Relaxed);
    }

    /// Deletes the file of a replaced or damaged segment. One that is gone already is no error.
    ///
    /// # Errors
    /// The file is there and cannot be deleted.
    pub fn discard(&self, file: &SegmentFile) -> io::Result<()> {
        let Some(folder) = self.folder.as_ref().filter(|_| snapshot::is_name(&file.name)) else { return Ok(()) };
        match std::fs::remove_file(folder.join(&file.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The partition, if the slot did not go into its list: it is large, or was made so.
    fn insert_into_few(&self, partition: Partition, slot: Slot, rows: &Arc<Length>) -> Option<Arc<Large>> {
        let mut shard = self.table.write(partition);
        if let Some(large) = shard.large.get(&partition) {
            return Some(Arc::clone(large));
        }
        let few = shard.few.entry(partition).or_insert_with(|| Few::new(rows.dims() as u16));
        if usize::from(few.dims) != rows.dims() {
            tracing::error!(slot, dims = rows.dims(), "a vector of another length was not indexed");
            return None;
        }
        if few.add(&self.places, slot).is_some() {
            return None;
        }
        let listed = few.list(&self.places);
        let large = Arc::new(Large::new(partition, Arc::clone(rows)));
        for listed in listed.slots() {
            // Whatever the list named has its new place before the table shows the partition.
            self.places.set(*listed, places::NOWHERE);
            self.insert_into_large(&large, *listed, rows);
        }
        shard.few.remove(&partition);
        shard.large.insert(partition, Arc::clone(&large));
        Some(large)
    }

    /// `false` where the partition was forgotten meanwhile.
    fn insert_into_large(&self, large: &Arc<Large>, slot: Slot, rows: &Length) -> bool {
        let Some(row) = rows.values(slot).map(Row::of) else { return true };
        let mut desk = large.desk.lock();
        if desk.gone {
            return false;
        }
        if self.places.get(slot) != places::NOWHERE {
            tracing::error!(slot, "a slot that is in use was not indexed again");
            return true;
        }
        let look = large.insert(&mut desk, &self.places, slot, &row, self.flat_max);
        drop(desk);
        if look {
            self.ask(Request::Look(Arc::clone(large)));
        }
        true
    }

    fn remove_from_large(&self, large: &Arc<Large>, slot: Slot) -> bool {
        let removed = large.remove(&mut large.desk.lock(), &self.places, slot);
        if removed.look {
            self.ask(Request::Look(Arc::clone(large)));
        }
        removed.released
    }

    fn ask(&self, request: Request) {
        if let Some(requests) = self.requests.lock().as_ref()
            && requests.send(request).is_err()
        {
            // Without its builder the index still works, by scanning.
            tracing::error!("the graph builder is gone");
        }
    }
}

/// Lets other threads go first, so that searches and inserts hardly wait for graphs, and keeps a tenth of a busy core, so
/// that graphs come about at all. Threads that this one starts do the same. Only Linux lets a single thread step back.
fn step_back() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};

        let lower = getpriority_process(None).and_then(|own| setpriority_process(None, (own + NICENESS).min(19)));
        if let Err(error) = lower {
            tracing::warn!(%error, "graphs are built at the priority of everything else");
        }
    }
}

#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

impl Default for IndexSettings {
    fn default() -> Self {
        Self { folder: None, builders: 1, flat_max: FLAT_MAX }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.requests.lock().take());
        if let Some(builder) = self.builder.take()
            && builder.join().is_err()
        {
            tracing::error!("the graph builder had panicked");
        }
    }
}

/// A scan of so many int8 rows takes about as long as a search of a frozen graph .
const FLAT_MAX: usize = 4096;

/// Rows of a scan that takes well under 200 us.
const FLAT_SMALL: usize = 4096;

/// Candidates kept in a search: recall@1 of .999 and above on 20,000 real sentence vectors .
const EF_SEARCH: usize = 64;

#[cfg(test)]
mod tests;
