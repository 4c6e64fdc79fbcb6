//! What the steps of a lookup cost, in process.
//!
//! `cargo bench --bench micro` measures; under `cargo test` every benchmark runs once, on fewer entries.

use std::sync::{Arc, LazyLock};

use divan::{Bencher, black_box};
use nearhit::cache::{Cache, CacheSettings, Lookup, NewEntry, Parts, Query, Tiers};
use nearhit::clock::SystemClock;
use nearhit::decision::{
    Answer, AnswerKind, CacheName, Embedding, Fingerprint, Origin, Partition, Prompt, Scope, Tenant, Tier,
};
use nearhit::embed::candle::{Hardware, Wanted};
use nearhit::embed::{Asker, EmbedSettings, Embedder};
use nearhit::store::{Durability, Limits, Store, StoreSettings};
use nearhit::templates::TemplateSettings;
use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;

fn main() {
    divan::main();
}

#[divan::bench]
fn fingerprint(bencher: Bencher) {
    let prompt = prompt(0);
    bencher.bench(|| Fingerprint::split(black_box(&prompt)));
}

#[divan::bench]
fn exact_hit(bencher: Bencher) {
    let (bench, query) = (&*BENCH, Query::new(prompt(7)));
    bencher.bench(|| bench.lookup(black_box(&query)));
}

#[divan::bench]
fn template_hit(bencher: Bencher) {
    let (bench, query) =
        (&*BENCH, Query::new(new_prompt("Hi Bob, how do I change the delivery address of order number 7?")));
    assert!(matches!(bench.lookup(&query), Lookup::Hit(found) if found[0].tier == Tier::Template));
    bencher.bench(|| bench.lookup(black_box(&query)));
}

#[divan::bench]
fn refilled_hit(bencher: Bencher) {
    let (bench, query) = (&*BENCH, Query::new(new_prompt("Where is parcel #K-99999 now?")));
    assert!(matches!(bench.lookup(&query), Lookup::Hit(found) if found[0].tier == Tier::Template));
    bencher.bench(|| bench.lookup(black_box(&query)));
}

/// What looking for a template adds to a miss.
#[divan::bench]
fn no_template(bencher: Bencher) {
    let prompt = new_prompt("How do I change the delivery address of order number 7000000?");
    let query = Query { tiers: Tiers { exact: false, template: true, semantic: false }, ..Query::new(prompt) };
    let bench = &*BENCH;
    bencher.bench(|| bench.lookup(black_box(&query)));
}

#[divan::bench(args = [8, 32, 64, 128])]
fn embed(bencher: Bencher, tokens: usize) {
    // One word is one token; two more mark the ends.
    let text = vec!["question"; tokens - 2].join(" ");
    bencher.bench(|| RUNTIME.block_on(EMBEDDER.embed(&[black_box(&text)], Asker::lookup(&me()))));
}

#[divan::bench]
fn nearest(bencher: Bencher) {
    let (fingerprint, ..) = Fingerprint::split(&prompt(0));
    let partition = Partition::new(&fingerprint, EMBEDDER.model());
    let (bench, vector) = (&*BENCH, vector(1_000_003));
    bencher.bench(|| RUNTIME.block_on(bench.store.nearest(partition, black_box(&vector), 5, 0)));
}

#[divan::bench]
fn semantic_search(bencher: Bencher) {
    let bench = &*BENCH;
    let prompt = new_prompt("Where can I find the invoice for the order that I placed last month?");
    let query = Query { tiers: Tiers { exact: false, ..Tiers::ALL }, ..Query::new(prompt) };
    bencher.bench(|| bench.lookup(black_box(&query)));
}

/// A cache that holds many entries in one partition: vectors all over the sphere.
struct Bench {
    cache: Cache,
    store: Arc<dyn Store>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn lookup(&self, query: &Query) -> Lookup {
        RUNTIME.block_on(self.cache.lookup(query))
    }
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

static EMBEDDER: LazyLock<Arc<dyn Embedder>> = LazyLock::new(|| {
    let settings = EmbedSettings {
        model: "all-MiniLM-L6-v2".into(),
        models_folder: "models".into(),
        hardware: Hardware::Cpu,
        wanted: Wanted::default(),
        workers: 1,
        queue_length: 16,
        memo_bytes: 0,
    };
    nearhit::embed::open(&settings).expect("the bundled model")
});

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let entries = if measuring { 10_000 } else { 100 };
    let folder = tempfile::tempdir().expect("a folder");
    let settings = StoreSettings::Local {
        folder: folder.path().to_owned(),
        durability: Durability::Async,
        limits: Limits::default(),
    };
    let store = nearhit::store::open(&settings, Arc::new(SystemClock::start())).expect("a store");
    let parts = Parts {
        store: Arc::clone(&store),
        embedder: Some(Arc::clone(&EMBEDDER)),
        clock: Arc::new(SystemClock::start()),
    };
    let templates = TemplateSettings { refill: true, ..TemplateSettings::default() };
    let settings = CacheSettings { templates, ..CacheSettings::default() };
    let cache = Cache::new(parts, settings, &mut Registry::default());
    let numbered = (0..entries).map(|n| new_entry(prompt(n), format!("answer {n}"), n));
    let greeting = new_prompt("Hi Ada, how do I change the delivery address of order number 7?");
    let parcels = ["#K-20418", "#K-20419"].map(|id| {
        new_entry(new_prompt(&format!("Where is parcel {id} now?")), format!("Parcel {id} is on its way."), 1)
    });
    let new = numbered.chain([new_entry(greeting, "In the settings.".into(), 1)]).chain(parcels);
    RUNTIME.block_on(cache.insert_all(new.collect())).expect("stored");
    if measuring {
        // The graph is built beside the first searches; measure what comes after.
        std::thread::sleep(std::time::Duration::from_secs(30));
    }
    Bench { cache, store, _folder: folder }
});

fn new_entry(prompt: Prompt, answer: String, n: u64) -> NewEntry {
    NewEntry {
        prompt,
        origin: Origin::Prompt { context: None },
        answer: Answer { kind: AnswerKind::Text, body: answer, usage: None },
        tags: Default::default(),
        sources: Default::default(),
        writer: String::new(),
        created_ms: None,
        ttl: None,
        vector: Some(vector(n)),
    }
}

fn prompt(n: u64) -> Prompt {
    new_prompt(&format!("How do I change the delivery address of order number {n}?"))
}

fn new_prompt(text: &str) -> Prompt {
    let scope = Scope::bare(Tenant::new("bench"), CacheName::default());
    Prompt::new(scope, text, Default::default())
}

fn vector(n: u64) -> Embedding {
    let mut random = fastrand::Rng::with_seed(n);
    Embedding::new((0..384).map(|_| random.f32() - 0.5).collect()).expect("not zero")
}

fn me() -> Tenant {
    Tenant::new("me")
}
