//! The local store by itself: what an exact answer, an insert, a search beside inserts, a restart and churn cost.
//!
//! `cargo bench --bench store -- [PART…] [--entries N] [--folder DIR]`, with the parts `exact insert beside restart churn
//! partitions` (all of them where none is named). Without arguments, and under `cargo test`, everything runs small. Times
//! stand beside a limit that is measured in the same run: one `fdatasync`, one scan, the same search when idle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use nearhit::clock::{Clock, SystemClock};
use nearhit::decision::{
    Answer, AnswerKind, CacheName, Embedding, Entry, EntryId, Fingerprint, Life, Origin, Partition, Prompt, Scope,
    Tenant,
};
use nearhit::store::local::index::{Index, IndexSettings};
use nearhit::store::local::vectors::{Slot, Vectors};
use nearhit::store::local::{Durability, LocalStore};
use nearhit::store::{Filter, Limits, Owner, Store, Which};
use tokio::runtime::Runtime;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let entries = value("--entries").map_or(SMALL, |count| count.parse().expect("--entries: a number"));
    let parts: Vec<&str> = arguments.iter().map(String::as_str).filter(|part| PARTS.contains(part)).collect();
    let parts = if parts.is_empty() { PARTS.to_vec() } else { parts };
    let folder = tempfile::tempdir().expect("a folder");
    let folder = value("--folder").map_or_else(|| folder.path().to_owned(), PathBuf::from);
    let runtime = Runtime::new().expect("a runtime");
    println!("{entries} entries of {DIMENSIONS} dimensions, answers of {ANSWER_BYTES} bytes, in {}", folder.display());
    if parts != ["partitions"] {
        Bench { runtime, folder, entries }.run(&parts);
    }
    if parts.contains(&"partitions") {
        partitions(entries.min(500_000));
    }
}

struct Bench {
    runtime: Runtime,
    folder: PathBuf,
    entries: u64,
}

impl Bench {
    fn run(&self, parts: &[&str]) {
        let mut store = self.open();
        while store.health().loading {
            std::thread::sleep(Duration::from_millis(10));
        }
        if store.usage().is_empty() {
            self.fill(&store);
        }
        for part in parts {
            match *part {
                "exact" => self.exact(&store),
                "insert" => self.insert(&store),
                "beside" => self.beside(&store),
                "restart" => {
                    drop(store);
                    store = self.restart();
                }
                "churn" => self.churn(&store),
                _ => {}
            }
        }
    }

    fn open(&self) -> LocalStore {
        let clock = Arc::new(SystemClock::start());
        LocalStore::open(&self.folder, Durability::Group, Limits::default(), clock).expect("open")
    }

    fn fill(&self, store: &LocalStore) {
        let started = Instant::now();
        for from in (0..self.entries).step_by(500) {
            let some = (from..(from + 500).min(self.entries)).map(|n| entry(n, 0)).collect();
            self.runtime.block_on(store.put(some)).expect("put");
        }
        let took = started.elapsed();
        println!("fill       {:.0} entries/s durable, {}", self.entries as f64 / took.as_secs_f64(), self.on_disk());
    }

    fn exact(&self, store: &LocalStore) {
        let mut random = fastrand::Rng::with_seed(1);
        let ids: Vec<EntryId> = (0..100_000).map(|_| id(random.u64(..self.entries))).collect();
        let mut rates: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let started = Instant::now();
                let found = ids.iter().filter(|id| store.contains(**id)).count();
                assert_eq!(found, ids.len());
                ids.len() as f64 / started.elapsed().as_secs_f64() / 1e6
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        println!("exact      {:.1} M/s in the exact tier, one thread (median of {ROUNDS})", rates[ROUNDS / 2]);
        let hot = &ids[..1000];
        let mut took = Vec::new();
        for _ in 0..ROUNDS {
            for id in hot {
                let started = Instant::now();
                let got = self.runtime.block_on(store.get(*id)).expect("read");
                took.push(started.elapsed());
                assert!(got.is_some());
            }
        }
        println!("           whole entry, asked before: {}", quantiles(&mut took));
        let mut took: Vec<Duration> = Vec::new();
        for id in ids[ids.len() / 2..].iter().take(2000) {
            let started = Instant::now();
            assert!(self.runtime.block_on(store.get(*id)).expect("read").is_some());
            took.push(started.elapsed());
        }
        println!("           whole entry, from its rows: {}", quantiles(&mut took));
    }

    fn insert(&self, store: &LocalStore) {
        let mut syncs = Vec::new();
        let mut took = Vec::new();
        let file = std::fs::File::create(self.folder.join("fdatasync")).expect("a file");
        for n in 0..self.entries.min(300) {
            std::io::Write::write_all(&mut &file, &[7; 4096]).expect("write");
            let started = Instant::now();
            file.sync_data().expect("sync");
            syncs.push(started.elapsed());
            let one = vec![entry(self.entries + n, 0)];
            let started = Instant::now();
            self.runtime.block_on(store.put(one)).expect("put");
            took.push(started.elapsed());
        }
        std::fs::remove_file(self.folder.join("fdatasync")).expect("remove");
        syncs.sort();
        let sync = syncs[syncs.len() / 2];
        let limit = Duration::from_millis(10) + sync.mul_f64(1.5);
        took.sort();
        let ratio = took[took.len() / 2].as_secs_f64() / limit.as_secs_f64();
        println!("insert     durable, one at a time: {}", quantiles(&mut took));
        println!("           p50 is {ratio:.2} of a group and 1.5 fdatasync ({limit:.1?}; one fdatasync {sync:.2?})");
    }

    /// Searches, when nothing else happens and beside inserts at full rate into the same partition.
    fn beside(&self, store: &LocalStore) {
        let rounds = if self.entries > SMALL { 5 } else { 1 };
        let mut ratios = Vec::new();
        for round in 0..rounds {
            // What was inserted before belongs into graphs first: idle is when nothing is built either.
            let patience = Instant::now() + Duration::from_secs(600);
            while store.health().unindexed > 0 && Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(100));
            }
            let mut idle = self.searches(store, round);
            let stop = AtomicBool::new(false);
            let inserted = AtomicU64::new(0);
            let (mut busy, seconds) = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let runtime = Runtime::new().expect("a runtime");
                    let mut n = 2 * self.entries + 1_000_000 * (round + 1);
                    while !stop.load(Ordering::Relaxed) {
                        runtime.block_on(store.put((n..n + 100).map(|n| entry(n, 0)).collect())).expect("put");
                        n += 100;
                        inserted.fetch_add(100, Ordering::Relaxed);
                    }
                });
                let started = Instant::now();
                let busy = self.searches(store, round);
                stop.store(true, Ordering::Relaxed);
                (busy, started.elapsed().as_secs_f64())
            });
            idle.sort();
            busy.sort();
            let p99 = |took: &[Duration]| took[took.len() * 99 / 100];
            ratios.push(p99(&busy).as_secs_f64() / p99(&idle).as_secs_f64());
            println!("beside     idle: {}", quantiles(&mut idle));
            let rate = inserted.load(Ordering::Relaxed) as f64 / seconds;
            let unindexed = store.health().unindexed;
            println!("           beside {rate:.0} inserts/s: {}; {unindexed} wait for a graph", quantiles(&mut busy));
        }
        ratios.sort_by(f64::total_cmp);
        println!("           p99 beside inserts / p99 idle: {:.2} (median of {rounds})", ratios[ratios.len() / 2]);
    }

    fn searches(&self, store: &LocalStore, round: u64) -> Vec<Duration> {
        let mut random = fastrand::Rng::with_seed(round);
        let count = if self.entries > SMALL { 5000 } else { 300 };
        let mut right = 0;
        let took = (0..count)
            .map(|_| {
                let wanted = random.u64(..self.entries);
                let to = vector(wanted);
                let started = Instant::now();
                let found = self.runtime.block_on(store.nearest(partition(), &to, 1, 0)).expect("search");
                let took = started.elapsed();
                right += usize::from(found.first().is_some_and(|found| found.similarity.get() > 0.99));
                took
            })
            .collect();
        assert!(right * 1000 >= count * 995, "{right} of {count} found themselves");
        took
    }

    fn restart(&self) -> LocalStore {
        let started = Instant::now();
        let store = self.open();
        let opened = started.elapsed();
        let got = self.runtime.block_on(store.get(id(self.entries / 2))).expect("read").expect("an entry");
        assert_eq!(got.text, entry(self.entries / 2, 0).text);
        let first = started.elapsed();
        while store.health().loading {
            std::thread::sleep(Duration::from_millis(2));
        }
        let loaded = started.elapsed();
        println!(
            "restart    opened {opened:.2?}, first right exact answer {first:.2?}, loaded and verified {loaded:.2?}"
        );
        let entries: u64 = store.usage().iter().map(|(_, usage)| usage.entries).sum();
        println!("           {entries} entries; {:?}", store.health());
        store
    }

    /// Five rounds of replacing half, deleting three tenths and inserting as many.
    fn churn(&self, store: &LocalStore) {
        let owner = Owner { tenant: Tenant::new("t"), cache: CacheName::parse("c").expect("a name") };
        for round in 1..=5u64 {
            let started = Instant::now();
            let part = self.entries * 3 / 10;
            let from = self.entries * 10 + round * part;
            let mut some: Vec<Entry> =
                (0..self.entries).filter(|n| (n + round) % 2 == 0).map(|n| entry(n, round)).collect();
            some.extend((from..from + part).map(|n| entry(n, round)));
            let gone = if round == 1 { 0..0 } else { from - part..from };
            while !some.is_empty() {
                let batch = some.split_off(some.len().saturating_sub(500));
                self.runtime.block_on(store.put(batch)).expect("put");
            }
            for n in gone {
                let filter = Filter { owner: owner.clone(), which: Which::Id(id(n)), dry_run: false };
                // Two hundred at a time would be one group; one by one would measure the disk's latency only.
                if n % 200 == 0 {
                    let all = (n..(n + 200).min(from)).map(|n| Filter { which: Which::Id(id(n)), ..filter.clone() });
                    let all: Vec<Filter> = all.collect();
                    self.runtime
                        .block_on(async {
                            futures_util::future::try_join_all(all.iter().map(|filter| store.remove(filter))).await
                        })
                        .expect("remove");
                }
            }
            println!("churn      round {round} in {:.1?}, {}", started.elapsed(), self.on_disk());
        }
        // The committer looks once a second whether there is too much that is dead.
        std::thread::sleep(Duration::from_secs(3));
        let patience = Instant::now() + Duration::from_secs(300);
        while store.health().rewriting && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(10));
        }
        let live: u64 = store.usage().iter().map(|(_, usage)| usage.bytes).sum();
        let disk = allocated(&self.folder);
        println!(
            "           at the end {} on disk for {} live: {:.2}",
            megabytes(disk),
            megabytes(live),
            disk as f64 / live as f64
        );
    }

    fn on_disk(&self) -> String {
        format!("{} on disk", megabytes(allocated(&self.folder)))
    }
}

/// What a partition of two entries costs beyond their vectors.
fn partitions(count: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let vectors = Arc::new(Vectors::open(folder.path()).expect("open"));
    let index = Index::start(Arc::clone(&vectors), IndexSettings::default(), |_| {}).expect("start");
    let before = resident();
    for n in 0..count {
        let mut scope = [0; 32];
        scope[..8].copy_from_slice(&n.to_le_bytes());
        let partition = Partition::new(&Fingerprint { scope, exact: [0; 32], template: [0; 32] }, "bench");
        for slot in [2 * n, 2 * n + 1] {
            vectors.write(slot as Slot, id(slot), &[0.6, 0.8]).expect("write");
            index.insert(partition, slot as Slot, 2);
        }
    }
    let bytes = index.bytes();
    let mapped = 2 * count * 16;
    let grown = resident().saturating_sub(before);
    println!(
        "partitions {count} of 2 entries: {:.1} bytes each beyond their vectors by count; {:.1} by resident memory",
        bytes.few as f64 / count as f64,
        grown.saturating_sub(mapped) as f64 / count as f64,
    );
    assert_eq!(bytes.partitions as u64, count);
}

/// A thousand clusters in a space of few dimensions, with a little noise in all of them: so do the vectors of real
/// questions lie.
fn vector(n: u64) -> Embedding {
    let mut centre = fastrand::Rng::with_seed(n % 1000);
    let mut own = fastrand::Rng::with_seed(n ^ 0x5DEE_CE66);
    let mut values: Vec<f32> = (0..DIMENSIONS).map(|_| 0.2 * (own.f32() - 0.5)).collect();
    for direction in DIRECTIONS.iter() {
        let along = centre.f32() - 0.5 + 0.5 * (own.f32() - 0.5);
        values.iter_mut().zip(direction).for_each(|(value, part)| *value += along * part);
    }
    Embedding::new(values).expect("not zero")
}

static DIRECTIONS: LazyLock<Vec<Vec<f32>>> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(64);
    (0..64).map(|_| (0..DIMENSIONS).map(|_| random.f32() - 0.5).collect()).collect()
});

/// English-like text, so that it is compressed as much as an answer is.
fn answer(n: u64, version: u64) -> String {
    let mut random = fastrand::Rng::with_seed(n * 31 + version);
    let mut text = String::with_capacity(ANSWER_BYTES + 16);
    while text.len() < ANSWER_BYTES {
        text.push_str(WORDS[(random.f32() * random.f32() * WORDS.len() as f32) as usize]);
        text.push(if random.u8(..) < 20 { '.' } else { ' ' });
    }
    text
}

fn entry(n: u64, version: u64) -> Entry {
    let scope = Scope::bare(Tenant::new("t"), CacheName::parse("c").expect("a name"));
    let prompt =
        Prompt::new(scope, &format!("What should one know about subject number {n} before asking?"), BTreeMap::new());
    let (fingerprint, _, slots) = Fingerprint::split(&prompt);
    let now_ms = SystemClock::start().now_ms();
    Entry {
        id: id(n),
        fingerprint,
        tenant: prompt.scope.tenant,
        cache: prompt.scope.cache,
        text: prompt.text,
        slots,
        vars: BTreeMap::new(),
        origin: Origin::Prompt { context: None },
        attributes: BTreeMap::new(),
        tags: BTreeSet::new(),
        sources: BTreeSet::new(),
        writer: "bench".into(),
        answer: Answer { kind: AnswerKind::Text, body: answer(n, version), usage: None },
        life: Life { created_ms: now_ms, expires_ms: now_ms + 1_000_000_000 },
        place: Some((partition(), vector(n))),
    }
}

/// As evenly spread as fingerprints are.
fn id(n: u64) -> EntryId {
    let mut random = fastrand::Rng::with_seed(n);
    EntryId::from_bytes(random.u128(..).to_le_bytes())
}

fn partition() -> Partition {
    Partition::new(&Fingerprint { scope: [0; 32], exact: [0; 32], template: [0; 32] }, "bench")
}

fn quantiles(took: &mut [Duration]) -> String {
    took.sort();
    let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)];
    format!("p50 {:.1?}, p99 {:.1?}", at(50), at(99))
}

/// Bytes that a folder's files take on the disk: holes take none.
fn allocated(folder: &Path) -> u64 {
    let mut bytes = 0;
    for file in std::fs::read_dir(folder).expect("list").flatten() {
        // Files come and go.
        let Ok(metadata) = file.metadata() else { continue };
        bytes += if metadata.is_dir() { allocated(&file.path()) } else { blocks(&metadata) };
    }
    bytes
}

#[cfg(unix)]
fn blocks(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn blocks(metadata: &std::fs::Metadata) -> u64 {
    metadata.len()
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Resident bytes of this process; 0 where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or(0) * 1024
}

const PARTS: [&str; 6] = ["exact", "insert", "beside", "restart", "churn", "partitions"];

/// Entries where nothing is said.
const SMALL: u64 = 2000;

const DIMENSIONS: usize = 384;
const ANSWER_BYTES: usize = 800;
const ROUNDS: usize = 9;

const WORDS: &[&str] = &[
    "the",
    "to",
    "you",
    "a",
    "and",
    "of",
    "your",
    "in",
    "is",
    "it",
    "can",
    "for",
    "that",
    "this",
    "with",
    "on",
    "if",
    "are",
    "be",
    "as",
    "or",
    "from",
    "not",
    "account",
    "will",
    "please",
    "have",
    "we",
    "by",
    "at",
    "order",
    "our",
    "settings",
    "password",
    "email",
    "click",
    "page",
    "within",
    "days",
    "payment",
    "reset",
    "number",
    "delivery",
    "address",
    "refund",
    "contact",
    "support",
    "select",
    "choose",
    "before",
    "after",
    "change",
    "update",
    "item",
    "available",
    "information",
    "customer",
    "request",
    "confirm",
    "receive",
    "return",
    "shipping",
    "price",
    "amount",
];
