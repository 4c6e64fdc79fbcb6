//! The index against an exact scan, in every phase of a partition's life.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use super::*;
use crate::decision::EntryId;

/// An index with its vectors, and what its news said.
struct Bench {
    vectors: Arc<Vectors>,
    index: Index,
    news: Arc<Mutex<Vec<News>>>,
    folder: Arc<tempfile::TempDir>,
}

impl Bench {
    fn new(flat_max: usize) -> Self {
        Self::over(Arc::new(tempfile::tempdir().expect("a folder")), flat_max)
    }

    fn over(folder: Arc<tempfile::TempDir>, flat_max: usize) -> Self {
        let vectors = Arc::new(Vectors::open(&folder.path().join("vectors")).expect("vectors"));
        let settings = IndexSettings { folder: Some(folder.path().join("segments")), builders: 2, flat_max };
        let news: Arc<Mutex<Vec<News>>> = Arc::default();
        let told = Arc::clone(&news);
        let index = Index::start(Arc::clone(&vectors), settings, move |news| told.lock().push(news)).expect("an index");
        Self { vectors, index, news, folder }
    }

    fn insert(&self, partition: Partition, slot: Slot, vector: &Embedding) {
        self.vectors.write(slot, id(slot), vector.as_slice()).expect("a row");
        self.index.insert(partition, slot, vector.dimensions());
    }

    /// The manifest as the store would have it.
    fn manifest(&self) -> Vec<SegmentFile> {
        let mut files: Vec<SegmentFile> = Vec::new();
        for news in self.news.lock().iter() {
            files.retain(|file| !news.replaced.contains(file));
            files.extend(news.built.clone());
        }
        files
    }

    fn released(&self) -> Vec<Slot> {
        self.news.lock().iter().flat_map(|news| news.released.clone()).collect()
    }

    /// The share of queries whose nearest is the exact nearest; fails on anything that is not live or not sorted.
    fn recall(&self, live: &BTreeMap<Slot, Embedding>, queries: &[Embedding], phase: &str) -> f64 {
        let mut right = 0;
        for query in queries {
            let found = self.index.nearest(partition(1), query, 5, &|_| Fate::Live);
            assert_eq!(found.len(), live.len().min(5), "{phase}");
            assert!(found.windows(2).all(|pair| pair[0].1 >= pair[1].1), "{phase}: not sorted");
            assert!(found.iter().all(|(slot, _)| live.contains_key(slot)), "{phase}: a slot that is not live");
            assert_eq!(found.iter().map(|(slot, _)| slot).collect::<HashSet<_>>().len(), found.len(), "{phase}: twice");
            let most = live.values().map(|v| crate::decision::dot(v.as_slice(), query.as_slice())).fold(-1.0, f32::max);
            // Rows are kept as halves: what is as near as the nearest within their rounding is the nearest.
            let first = crate::decision::dot(live[&found[0].0].as_slice(), query.as_slice());
            assert!((found[0].1.get() - first).abs() < 1e-3, "{phase}: another row's similarity");
            right += usize::from(most - first < 3e-4);
        }
        right as f64 / queries.len() as f64
    }
}

fn partition(n: u8) -> Partition {
    partition_of([n; 16])
}

fn id(n: u32) -> EntryId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    EntryId::from_bytes(bytes)
}

/// Numbers that look drawn, the same at every run.
struct Draw(u64);

impl Draw {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Roughly normal.
    fn value(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| (self.bits() >> 40) as f32 / (1u64 << 24) as f32 - 0.5).sum();
        sum * 1.73
    }
}

/// A point of a mixture of clusters, few of them large.
fn point(n: u64, dims: usize) -> Embedding {
    let mut draw = Draw(n.wrapping_mul(0x1234_5677));
    let share = (draw.bits() >> 11) as f64 / (1u64 << 53) as f64;
    let mut centre = Draw((200.0 * share * share) as u64 + 99);
    Embedding::new((0..dims).map(|_| centre.value() + 0.7 * draw.value()).collect()).expect("a vector that is not zero")
}

fn points(range: std::ops::Range<u32>, dims: usize) -> BTreeMap<Slot, Embedding> {
    range.map(|n| (n, point(u64::from(n), dims))).collect()
}

fn queries(count: u64, dims: usize) -> Vec<Embedding> {
    (0..count).map(|n| point(n + 50_000_000, dims)).collect()
}

/// What a build cannot keep up with is found too.
#[test]
fn a_long_tail_is_sifted() {
    const COUNT: u32 = 12_000;
    for dims in [384, 300] {
        let bench = Bench::new(usize::MAX);
        let mut live = points(0..COUNT, dims);
        for (slot, vector) in &live {
            bench.insert(partition(1), *slot, vector);
        }
        // A cluster of these holds hundreds of points as near as each other: nothing that is embedded lies so badly.
        let recall = bench.recall(&live, &queries(300, dims), "whole");
        assert!(recall >= 0.97, "{dims} values: recall {recall}");
        // Half of it goes, a cluster's worth at a time, and some comes back in its rows.
        for slot in (0..COUNT).filter(|slot| slot % 2 == 0) {
            assert!(bench.index.remove(partition(1), slot));
            live.remove(&slot);
        }
        for (slot, vector) in points(COUNT..COUNT + 1000, dims) {
            bench.insert(partition(1), slot, &vector);
            live.insert(slot, vector);
        }
        let recall = bench.recall(&live, &queries(300, dims), "half");
        assert!(recall >= 0.97, "{dims} values: recall {recall} of half");
        for (slot, vector) in live.iter().step_by(50) {
            let found = bench.index.nearest(partition(1), vector, 1, &|_| Fate::Live);
            assert_eq!(found.first().map(|(slot, _)| slot), Some(slot), "finds itself");
        }
    }
}

#[test]
fn every_phase_finds_what_an_exact_scan_finds() {
    const COUNT: u32 = 20_000;
    let bench = Bench::new(4096);
    let queries = queries(400, 64);
    let all = points(0..COUNT, 64);
    let mut live: BTreeMap<Slot, Embedding> = BTreeMap::new();
    let check = |bench: &Bench, live: &BTreeMap<Slot, Embedding>, phase: &str| {
        let recall = bench.recall(live, &queries, phase);
        assert!(recall >= 0.995, "{phase}: recall {recall}");
    };
    for (slot, vector) in &all {
        bench.insert(partition(1), *slot, vector);
        live.insert(*slot, vector.clone());
        match live.len() {
            3 | 64 => check(&bench, &live, "few"),
            65 | 2000 => check(&bench, &live, "flat"),
            _ => {}
        }
    }
    assert_eq!(bench.index.bytes().partitions, 1);
    check(&bench, &live, "while a graph is built");
    bench.index.freeze(partition(1));
    assert_eq!(bench.index.bytes().segment_count, 1);
    check(&bench, &live, "frozen");
    let mut held = 0;
    for slot in (0..COUNT).step_by(10) {
        held += u32::from(!bench.index.remove(partition(1), slot));
        live.remove(&slot);
    }
    assert!(held * 10 >= COUNT - COUNT / 50, "{held}: all but the few that stayed in the tail are the segment's");
    check(&bench, &live, "with a tenth removed");
    for (slot, vector) in points(COUNT..COUNT + 500, 64) {
        bench.insert(partition(1), slot, &vector);
        live.insert(slot, vector);
    }
    check(&bench, &live, "with a new tail");

    let manifest = bench.manifest();
    assert_eq!(manifest.len(), 1);
    let folder = Arc::clone(&bench.folder);
    drop(bench);
    let bench = Bench::over(folder, 4096);
    let owner = |slot| live.contains_key(&slot).then(|| (partition(1), id(slot)));
    let loaded = bench.index.load(manifest, &owner);
    assert!(loaded.damaged.is_empty());
    assert!(loaded.covered.count() >= 17_900, "{} covered", loaded.covered.count());
    live.keys()
        .filter(|slot| !loaded.covered.contains(**slot))
        .for_each(|slot| bench.index.insert(partition(1), *slot, 64));
    assert_eq!(bench.index.bytes().segment_count, 1);
    check(&bench, &live, "read again");
    for slot in (1..COUNT).step_by(7) {
        if live.remove(&slot).is_some() {
            bench.index.remove(partition(1), slot);
        }
    }
    bench.index.settle();
    check(&bench, &live, "built again because many had died");
    let released: HashSet<Slot> = bench.released().into_iter().collect();
    assert!(released.contains(&1) && released.iter().all(|slot| !live.contains_key(slot)));
}

#[test]
fn a_released_slot_serves_another_partition() {
    let bench = Bench::new(1024);
    let vectors = points(0..3000, 16);
    vectors.iter().for_each(|(slot, vector)| bench.insert(partition(1), *slot, vector));
    bench.index.freeze(partition(1));
    let held: Vec<Slot> = (0..1500).filter(|slot| !bench.index.remove(partition(1), *slot)).collect();
    assert!(!bench.index.remove(partition(1), held[0]), "removed twice, and held still");
    bench.index.settle();
    let released: HashSet<Slot> = bench.released().into_iter().collect();
    // Those that died before the last build are out; later ones may be held by it.
    assert!(released.len() >= 600, "{} of {} released", released.len(), held.len());
    assert!(released.iter().all(|slot| *slot < 1500));
    for slot in &released {
        bench.insert(partition(2), *slot, &vectors[slot]);
    }
    for slot in (0..1500).step_by(10) {
        let found = bench.index.nearest(partition(1), &vectors[&slot], 20, &|_| Fate::Live);
        assert!(found.len() == 20 && found.iter().all(|(slot, _)| *slot >= 1500));
        let found = bench.index.nearest(partition(2), &vectors[&slot], 1, &|_| Fate::Live);
        assert_eq!(found.first().map(|(found, _)| *found == slot), Some(released.contains(&slot)), "{slot}");
    }
}

#[test]
fn an_emptied_partition_is_forgotten() {
    for count in [2u32, 64, 65, 2000] {
        let bench = Bench::new(1024);
        let vectors = points(0..count, 16);
        vectors.iter().for_each(|(slot, vector)| bench.insert(partition(1), *slot, vector));
        bench.index.settle();
        let free: Vec<bool> = (0..count).map(|slot| bench.index.remove(partition(1), slot)).collect();
        assert!(bench.index.nearest(partition(1), &vectors[&0], 3, &|_| Fate::Live).is_empty());
        bench.index.settle();
        assert_eq!(bench.index.bytes().partitions, 0, "{count}");
        let mut released = bench.released();
        released.extend((0..count).filter(|slot| free[*slot as usize]));
        released.sort_unstable();
        assert_eq!(released, (0..count).collect::<Vec<_>>(), "each slot comes back once");
        assert!(bench.manifest().is_empty());
        bench.insert(partition(1), 0, &vectors[&0]);
        assert_eq!(bench.index.nearest(partition(1), &vectors[&0], 3, &|_| Fate::Live).len(), 1);
    }
}

#[test]
fn fate_and_length_are_respected() {
    for count in [10u32, 1000, 3000] {
        let bench = Bench::new(1024);
        let vectors = points(0..count, 16);
        vectors.iter().for_each(|(slot, vector)| bench.insert(partition(1), *slot, vector));
        bench.index.settle();
        let fate = |slot: Slot| match slot % 4 {
            0 => Fate::Live,
            1 => Fate::Expired,
            _ => Fate::Dead,
        };
        let found = bench.index.nearest(partition(1), &vectors[&3], 2, &fate);
        assert!(found.iter().all(|(slot, _)| slot % 4 < 2));
        assert_eq!(found.iter().filter(|(slot, _)| slot % 4 == 0).count(), 2);
        assert_eq!(found.last().map(|(slot, _)| slot % 4), Some(0), "ends with the last one wanted");
        let only = |slot: Slot| if slot == count - 1 { Fate::Live } else { Fate::Dead };
        assert_eq!(bench.index.nearest(partition(1), &vectors[&3], 1, &only).len(), 1, "{count}");
        assert!(bench.index.nearest(partition(1), &point(1, 8), 3, &|_| Fate::Live).is_empty());
        bench.insert(partition(1), count, &point(1, 8));
        assert_eq!(bench.index.nearest(partition(1), &vectors[&3], 4000, &|_| Fate::Live).len(), count as usize);
        assert!(bench.index.nearest(partition(2), &vectors[&3], 3, &|_| Fate::Live).is_empty());
    }
}

#[test]
fn a_damaged_file_is_reported_or_the_same() {
    let bench = Bench::new(1024);
    points(0..1100, 16).iter().for_each(|(slot, vector)| bench.insert(partition(1), *slot, vector));
    bench.index.freeze(partition(1));
    let file = bench.manifest().pop().expect("a segment file");
    let folder = bench.folder.path().join("segments");
    let path = folder.join(&file.name);
    let whole = std::fs::read(&path).expect("the file");
    let original = snapshot::read(&folder, &file).expect("a whole file");
    let check = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).expect("the damaged file");
        if let Ok(read) = snapshot::read(&folder, &file) {
            assert_eq!(read, original, "{what}");
        }
    };
    (0..whole.len()).step_by(1024).for_each(|length| check(&whole[..length], "cut"));
    let mut draw = Draw(5);
    for _ in 0..500 {
        let bit = draw.bits() as usize % (whole.len() * 8);
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        check(&bytes, "a flipped bit");
    }
    let owner = |slot| Some((partition(1), id(slot)));
    std::fs::write(&path, &whole[..whole.len() - 1]).expect("the damaged file");
    let other = Bench::over(Arc::clone(&bench.folder), 1024);
    let loaded = other.index.load(vec![file.clone()], &owner);
    assert_eq!((loaded.damaged, loaded.covered.count()), (vec![file.clone()], 0));
    std::fs::write(&path, &whole).expect("the file");
    let mut foreign = file.clone();
    foreign.partition = partition(2);
    assert_eq!(other.index.load(vec![foreign.clone()], &owner).damaged, [foreign]);
    let loaded = other.index.load(vec![file], &|slot| (slot % 2 == 0).then(|| (partition(1), id(slot))));
    assert!(loaded.damaged.is_empty() && (0..1100).all(|slot| loaded.covered.contains(slot) == (slot % 2 == 0)));
}

#[test]
fn writers_and_searches_run_while_a_graph_is_built() {
    let bench = Bench::new(1024);
    let vectors = points(0..9000, 32);
    let until = Instant::now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        for writer in 0..3u32 {
            let (bench, vectors) = (&bench, &vectors);
            scope.spawn(move || {
                for slot in (writer * 3000)..(writer * 3000 + 3000) {
                    bench.insert(partition(1), slot, &vectors[&slot]);
                    if slot % 3 == 0 {
                        bench.index.remove(partition(1), slot - slot % 100);
                    }
                }
            });
        }
        let (bench, vectors) = (&bench, &vectors);
        scope.spawn(move || {
            for slot in (0..9000).cycle().step_by(37).take(3000) {
                assert!(Instant::now() < until, "searches came to a stop");
                let found = bench.index.nearest(partition(1), &vectors[&slot], 3, &|_| Fate::Live);
                assert!(found.windows(2).all(|pair| pair[0].1 >= pair[1].1));
            }
        });
    });
    bench.index.freeze(partition(1));
    // Every hundredth slot was inserted, and removed at least once after.
    let live: BTreeMap<Slot, Embedding> = vectors.into_iter().filter(|(slot, _)| slot % 100 != 0).collect();
    assert!(bench.recall(&live, &queries(300, 32), "after the race") >= 0.995);
    assert_eq!(bench.index.bytes().segment_count, 1);
}

#[test]
fn dropping_the_index_stops_a_build() {
    let bench = Bench::new(1024);
    points(0..12_000, 32).iter().for_each(|(slot, vector)| bench.insert(partition(1), *slot, vector));
    let started = Instant::now();
    drop(bench.index);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn small_partitions_cost_little() {
    const COUNT: u32 = 100_000;
    let bench = Bench::new(4096);
    let rows = bench.vectors.as_ref();
    // A row makes its whole chunk readable, and here one chunk in each 16,384 slots is all that an insert asks for.
    (0..=2 * COUNT).step_by(16_384).for_each(|slot| rows.write(slot, id(slot), &[1.0, 0.0]).expect("a row"));
    for slot in 0..2 * COUNT {
        let mut bytes = [0; 16];
        bytes[3..7].copy_from_slice(&(slot / 2).to_le_bytes());
        bench.index.insert(partition_of(bytes), slot, 2);
    }
    let bytes = bench.index.bytes();
    assert_eq!(bytes.partitions, COUNT as usize);
    assert!(bytes.few <= 64 * COUNT as usize + (2 << 20), "{} bytes a partition", bytes.few / COUNT as usize);
}

fn partition_of(bytes: [u8; 16]) -> Partition {
    let mut scope = [0; 32];
    scope[..16].copy_from_slice(&bytes);
    Partition::new(&crate::decision::Fingerprint { scope, exact: [0; 32], template: [0; 32] }, "m")
}

/// However many that expired lie nearer, also in a long tail.
#[test]
fn the_expired_do_not_hide_the_living_in_a_long_tail() {
    let bench = Bench::new(usize::MAX);
    let near = point(7, 384);
    let away = |n: u32, by: f32| {
        let other = point(u64::from(n) + 900_000, 384);
        let values = near.as_slice().iter().zip(other.as_slice()).map(|(x, y)| x + by * y);
        Embedding::new(values.collect()).expect("a vector")
    };
    for slot in 0..6000 {
        bench.insert(partition(1), slot, &if slot < 700 { away(slot, 0.2) } else { point(u64::from(slot), 384) });
    }
    bench.insert(partition(1), 6000, &away(6000, 0.5));
    let fate = |slot: Slot| if slot < 700 { Fate::Expired } else { Fate::Live };
    let found = bench.index.nearest(partition(1), &near, 1, &fate);
    assert_eq!(found.last().map(|(slot, _)| *slot), Some(6000), "of {}", found.len());
}
