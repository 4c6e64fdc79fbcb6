//! The index by itself. `engine` makes it a peer in `benches/compare`; without arguments, and under `cargo test`, a small
//! index is built and searched.
//!
//! The engine reads commands from its input, a line each, and answers a line each; files are rows of little-endian f32:
//! `build BASE COUNT DIMS THREADS`, `search QUERIES DIMS EF K THREADS OUT` (results as rows of K u32), `bytes`, `rss`,
//! `quit`.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use nearhit::decision::{Embedding, EntryId, Fingerprint, Partition};
use nearhit::store::local::index::{Fate, Index, IndexSettings};
use nearhit::store::local::vectors::{Slot, Vectors};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    match std::env::args().nth(1).as_deref() {
        Some("engine") => engine(std::io::stdin().lock(), &mut std::io::stdout()),
        _ => small(),
    }
}

/// What the last `build` made.
struct Built {
    vectors: Arc<Vectors>,
    index: Index,
    folder: PathBuf,
}

fn engine(commands: impl BufRead, out: &mut impl Write) -> Result<(), Failure> {
    let mut built: Option<Built> = None;
    for line in commands.lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match (words.as_slice(), &built) {
            (["build", base, count, dims, threads], _) => {
                // One index at a time is in memory.
                built = None;
                let made = Built::new(base, count.parse()?, dims.parse()?, threads.parse()?);
                made.map(|(made, seconds)| {
                    built = Some(made);
                    seconds.to_string()
                })
            }
            (["search", queries, dims, ef, k, threads, found], Some(built)) => {
                let (queries, k) = (rows(queries, dims.parse()?)?, k.parse()?);
                let (results, seconds) = built.search(&queries, ef.parse()?, k, threads.parse()?);
                std::fs::write(found, results.iter().flat_map(|slot| slot.to_le_bytes()).collect::<Vec<u8>>())?;
                Ok(seconds.to_string())
            }
            (["bytes"], Some(built)) => built.bytes(),
            (["rss"], _) => resident(),
            (["quit"], _) => break,
            _ => Err("no such command, or nothing is built yet".into()),
        };
        match answer {
            Ok(answer) => writeln!(out, "ok {answer}")?,
            Err(error) => writeln!(out, "error {error}")?,
        }
        out.flush()?;
    }
    Ok(())
}

impl Built {
    fn new(base: &str, count: usize, dims: usize, threads: usize) -> Result<(Self, f64), Failure> {
        Self::of(&rows(base, dims)?[..count], threads)
    }

    /// The index over the rows, all of it in one segment, and the seconds that took.
    fn of(base: &[Embedding], threads: usize) -> Result<(Self, f64), Failure> {
        let folder = std::env::temp_dir().join(format!("nearhit-index-{}", std::process::id()));
        let vectors = Arc::new(Vectors::open(&folder.join("vectors"))?);
        for (slot, row) in base.iter().enumerate() {
            vectors.write(slot as Slot, id(slot), row.as_slice())?;
        }
        let settings = IndexSettings { builders: threads, ..IndexSettings::default() };
        let index = Index::start(Arc::clone(&vectors), settings, |_| {})?;
        let started = Instant::now();
        for (slot, row) in base.iter().enumerate() {
            index.insert(partition(), slot as Slot, row.dimensions());
        }
        index.freeze(partition());
        let seconds = started.elapsed().as_secs_f64();
        Ok((Self { vectors, index, folder }, seconds))
    }

    fn search(&self, queries: &[Embedding], ef: usize, k: usize, threads: usize) -> (Vec<u32>, f64) {
        self.index.set_ef(ef);
        let mut results = vec![u32::MAX; queries.len() * k];
        let shared: Vec<parking_lot::Mutex<&mut [u32]>> = results.chunks_mut(k).map(parking_lot::Mutex::new).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(query) = queries.get(number) else { break };
                let nearest = self.index.nearest(partition(), query, k, &|_| Fate::Live);
                shared[number].lock().iter_mut().zip(nearest).for_each(|(cell, (slot, _))| *cell = slot);
            }
        };
        let started = Instant::now();
        std::thread::scope(|scope| (0..threads.max(1)).for_each(|_| drop(scope.spawn(work))));
        let seconds = started.elapsed().as_secs_f64();
        drop(shared);
        (results, seconds)
    }

    fn bytes(&self) -> Result<String, Failure> {
        let bytes = self.index.bytes();
        let files = length_of(&self.folder.join("vectors"))?;
        Ok(format!("{} {files}", bytes.few + bytes.tails + bytes.segments + bytes.scratch))
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        if let Err(error) = self.vectors.sync().and_then(|()| std::fs::remove_dir_all(&self.folder)) {
            eprintln!("the vector files stay in {}: {error}", self.folder.display());
        }
    }
}

/// Builds over made-up vectors and searches for each of them.
fn small() -> Result<(), Failure> {
    let base: Vec<Embedding> = (0..SMALL).map(made_up).collect();
    let (built, seconds) = Built::of(&base, 2)?;
    let (found, searched) = built.search(&base, 64, 1, 1);
    let right = found.iter().enumerate().filter(|(slot, found)| **found == *slot as u32).count();
    println!(
        "{SMALL} vectors: built in {seconds:.1} s, {right} found again, {:.0} searches/s",
        SMALL as f64 / searched
    );
    println!("bytes of the index and of the vectors' files: {}", built.bytes()?);
    assert!(right as u64 * 1000 >= SMALL * 995, "{right} of {SMALL} found");
    Ok(())
}

fn made_up(n: u64) -> Embedding {
    let mut random = fastrand::Rng::with_seed(n);
    Embedding::new((0..384).map(|_| random.f32() - 0.5).collect()).expect("not zero")
}

fn rows(path: &str, dims: usize) -> Result<Vec<Embedding>, Failure> {
    let bytes = std::fs::read(path)?;
    let row = |bytes: &[u8]| {
        let values = bytes.chunks_exact(4).map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]]));
        Embedding::new(values.collect())
    };
    Ok(bytes.chunks_exact(dims * 4).map(row).collect::<Result<_, _>>()?)
}

fn partition() -> Partition {
    Partition::new(&Fingerprint { scope: [0; 32], exact: [0; 32], template: [0; 32] }, "bench")
}

fn id(slot: usize) -> EntryId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(slot as u64).to_le_bytes());
    EntryId::from_bytes(id)
}

fn length_of(folder: &Path) -> std::io::Result<u64> {
    let mut length = 0;
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        length += if file.file_type()?.is_dir() { length_of(&file.path())? } else { file.metadata()?.len() };
    }
    Ok(length)
}

/// Resident kilobytes of this process, where the system tells.
fn resident() -> Result<String, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().next().ok_or("no VmRSS")?.to_owned())
}

/// Enough for a graph.
const SMALL: u64 = 6000;
