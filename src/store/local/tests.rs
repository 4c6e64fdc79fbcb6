//! What the store keeps, loses and repairs, on a real folder. The program as a whole is killed and its files are damaged
//! by the fault harness in `tests/it/faults`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Durability, LocalStore};
use crate::clock::{Clock, ManualClock};
use crate::decision::{
    Answer, AnswerKind, CacheName, Embedding, Entry, EntryId, Fingerprint, Life, Origin, Partition, Prompt, Scope,
    Tenant,
};
use crate::store::{Filter, Health, Limit, Limits, OpenStoreError, Owner, Store, Which};

/// A folder, and the clock that everything opened on it goes by.
struct Home {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    limits: Limits,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, clock: Arc::new(ManualClock::at(1_000_000)), limits: Limits::default() }
    }

    fn open(&self) -> LocalStore {
        let opened =
            LocalStore::open(self.path(), Durability::Group, self.limits.clone(), Arc::clone(&self.clock) as _);
        let store = opened.expect("open");
        until("the store is loaded", || !store.health().loading);
        store
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Every file, by its path within the folder.
    fn files(&self) -> Vec<PathBuf> {
        fn visit(folder: &Path, files: &mut Vec<PathBuf>) {
            for found in std::fs::read_dir(folder).expect("list") {
                let path = found.expect("a file").path();
                if path.is_dir() { visit(&path, files) } else { files.push(path) }
            }
        }
        let mut files = Vec::new();
        visit(self.path(), &mut files);
        files.sort();
        files
    }

    fn holds_bytes(&self, canary: &[u8]) -> Option<PathBuf> {
        let has =
            |path: &PathBuf| std::fs::read(path).expect("read").windows(canary.len()).any(|window| window == canary);
        self.files().into_iter().find(has)
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < patience, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn vector(n: u64) -> Embedding {
    let mut state = n + 1;
    let values = (0..16).map(|_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    });
    Embedding::new(values.collect()).expect("a vector that is not zero")
}

fn entry(cache: &str, n: u64, answer: &str) -> Entry {
    let scope = Scope::bare(Tenant::new("t"), CacheName::parse(cache).expect("a valid name"));
    let prompt = Prompt::new(scope, &format!("question {n}"), Default::default());
    let (fingerprint, _, slots) = Fingerprint::split(&prompt);
    Entry {
        id: EntryId::of(&fingerprint),
        fingerprint,
        tenant: prompt.scope.tenant,
        cache: prompt.scope.cache,
        text: prompt.text,
        slots,
        vars: BTreeMap::new(),
        origin: Origin::Prompt { context: None },
        attributes: BTreeMap::new(),
        tags: BTreeSet::from([format!("tag-{}", n % 10)]),
        sources: BTreeSet::new(),
        writer: "writer".into(),
        answer: Answer { kind: AnswerKind::Text, body: answer.to_owned(), usage: None },
        life: Life { created_ms: 1_000_000, expires_ms: 2_000_000 },
        place: Some((Partition::new(&fingerprint, "m"), vector(n))),
    }
}

/// Some entries are long enough for several rows.
fn answer(n: u64) -> String {
    let length = if n.is_multiple_of(7) { 30_000 } else { 300 };
    let mut state = n;
    let letters = std::iter::from_fn(|| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        Some(char::from(b'a' + (state >> 59) as u8 % 26))
    });
    format!("answer {n} {}", letters.take(length).collect::<String>())
}

async fn fill(store: &LocalStore, numbers: impl IntoIterator<Item = u64>) {
    for n in numbers {
        store.put(vec![entry("c", n, &answer(n))]).await.expect("put");
    }
}

async fn missing(store: &LocalStore, numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut missing = Vec::new();
    for n in numbers {
        let wanted = entry("c", n, &answer(n));
        match store.get(wanted.id).await {
            Ok(Some(got)) => assert_eq!(got.answer.body, wanted.answer.body, "a wrong answer to {n}"),
            _ => missing.push(n),
        }
    }
    missing
}

async fn nearest(store: &LocalStore, n: u64) -> Option<EntryId> {
    let (partition, vector) = entry("c", n, "").place.expect("a place");
    let found = store.nearest(partition, &vector, 1, 1_000_000).await.expect("search");
    found.first().filter(|found| found.similarity.get() > 0.999).map(|found| found.entry.id)
}

fn filter(which: Which) -> Filter {
    Filter {
        owner: Owner { tenant: Tenant::new("t"), cache: CacheName::parse("c").expect("a name") },
        which,
        dry_run: false,
    }
}

const COUNT: u64 = 200;

/// A folder with entries, some of them replaced and some removed; those that must be there.
async fn master() -> (Home, Vec<u64>) {
    let home = Home::new();
    let store = home.open();
    for n in 0..COUNT {
        if n.is_multiple_of(3) {
            store.put(vec![entry("c", n, "an older answer")]).await.expect("put");
        }
    }
    fill(&store, 0..COUNT).await;
    store.remove(&filter(Which::Tags(["tag-4".to_owned()].into()))).await.expect("remove");
    drop(store);
    (home, (0..COUNT).filter(|n| n % 10 != 4).collect())
}

async fn check_whole(home: &Home, live: &[u64], what: &str) -> Health {
    let store = home.open();
    assert_eq!(missing(&store, live.iter().copied()).await, [0u64; 0], "{what}");
    for n in (0..COUNT).filter(|n| n % 10 == 4) {
        assert!(store.get(entry("c", n, "").id).await.expect("read").is_none(), "{what}: a removed entry");
    }
    for n in live.iter().copied().step_by(9) {
        assert_eq!(nearest(&store, n).await, Some(entry("c", n, "").id), "{what}");
    }
    assert_eq!(store.usage()[0].1.entries, live.len() as u64, "{what}");
    until("everything is written anew", || !store.health().rewriting);
    store.health()
}

#[tokio::test]
async fn everything_is_there_again() {
    let (home, live) = master().await;
    let health = check_whole(&home, &live, "a restart").await;
    assert_eq!(health, Health::default());
}

type Damage = Box<dyn Fn(&mut Vec<u8>)>;

/// Flips and cuts of every file: the other copy has it.
#[tokio::test]
async fn what_one_file_loses_another_gives_back() {
    let (home, live) = master().await;
    for (number, file) in home.files().into_iter().enumerate() {
        let name = file.strip_prefix(home.path()).expect("within").display().to_string();
        let bytes = std::fs::read(&file).expect("read");
        if bytes.is_empty() {
            continue;
        }
        let damages: [(&str, Damage); 4] = [
            (
                "a flipped bit",
                Box::new(|bytes| {
                    let at = bytes.len() / 2;
                    bytes[at] ^= 1;
                }),
            ),
            (
                "a flipped bit near the start",
                Box::new(move |bytes| {
                    let at = number.min(bytes.len() - 1);
                    bytes[at] ^= 16;
                }),
            ),
            ("cut by a third", Box::new(|bytes| bytes.truncate(bytes.len() * 2 / 3))),
            ("cut to nothing", Box::new(Vec::clear)),
        ];
        for (damage, apply) in damages {
            let trial = copy(&home);
            let mut damaged = bytes.clone();
            apply(&mut damaged);
            std::fs::write(trial.path().join(&name), damaged).expect("write");
            let what = format!("{damage} in {name}");
            let health = check_whole(&trial, &live, &what).await;
            assert_eq!(health.lost, 0, "{what}");
            let again = check_whole(&trial, &live, &format!("{what}, the second start")).await;
            assert_eq!((again.restored, again.damaged), (0, 0), "{what}: repaired for good");
        }
    }
}

fn copy(home: &Home) -> Home {
    let copy = Home { clock: Arc::clone(&home.clock), ..Home::new() };
    for file in home.files() {
        let target = copy.path().join(file.strip_prefix(home.path()).expect("within"));
        std::fs::create_dir_all(target.parent().expect("a parent")).expect("create");
        std::fs::copy(&file, target).expect("copy");
    }
    copy
}

#[tokio::test]
async fn without_rows_the_log_has_all_and_the_other_way_round() {
    let (home, live) = master().await;
    let rows = copy(&home);
    std::fs::remove_dir_all(rows.path().join("gen-000001/log")).expect("remove");
    let health = check_whole(&rows, &live, "no log").await;
    assert!(health.damaged > 0, "and it is said");
    let log = copy(&home);
    std::fs::remove_dir_all(log.path().join("gen-000001/sled")).expect("remove");
    let health = check_whole(&log, &live, "no rows").await;
    assert_eq!((health.lost, health.restored, health.set_aside), (0, live.len() as u64, 1));
    let vectors = copy(&home);
    std::fs::remove_dir_all(vectors.path().join("vectors")).expect("remove");
    let health = check_whole(&vectors, &live, "no vectors").await;
    assert_eq!((health.lost_vectors, health.restored_vectors), (0, live.len() as u64));
}

#[tokio::test]
async fn what_neither_copy_has_is_reported() {
    let (home, live) = master().await;
    for name in ["keys.a", "keys.b"] {
        std::fs::write(home.path().join(name), "").expect("write");
    }
    let store = home.open();
    assert_eq!(missing(&store, live.iter().copied()).await.len(), live.len());
    assert_eq!(store.health().lost, live.len() as u64);
    drop(store);
    assert_eq!(home.open().health().lost, live.len() as u64, "at later starts too");
}

#[tokio::test]
async fn what_is_erased_is_nowhere() {
    let canary = "xQ7-canary-of-one-entry";
    let home = Home::new();
    let store = home.open();
    fill(&store, 0..50).await;
    let mut secret = entry("c", 777, canary);
    secret.text = canary.to_owned();
    let halves: Vec<u8> = {
        let (_, vector) = secret.place.clone().expect("a place");
        vector.as_slice().iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect()
    };
    store.put(vec![secret.clone()]).await.expect("put");
    assert_eq!(home.holds_bytes(canary.as_bytes()), None, "sealed from the start");
    assert!(home.holds_bytes(&halves).is_some(), "but the vector is there to be searched");
    let before = copy(&home);
    store.remove(&filter(Which::Id(secret.id))).await.expect("remove");
    until("the vector is cleared", || home.holds_bytes(&halves).is_none());
    drop(store);
    // Even with every other file as it was before, the key is gone.
    for name in ["keys.a", "keys.b"] {
        std::fs::copy(home.path().join(name), before.path().join(name)).expect("copy");
    }
    let store = before.open();
    assert!(store.get(secret.id).await.ok().flatten().is_none());
    drop(store);
    assert_eq!(before.holds_bytes(&halves), None, "cleared at the start: nobody can use it any more");
}

#[tokio::test]
async fn the_expired_go_and_never_come_back() {
    let home = Home::new();
    let store = home.open();
    fill(&store, 0..20).await;
    let mut lasting = entry("c", 50, &answer(50));
    lasting.life.expires_ms = 9_000_000;
    store.put(vec![lasting.clone()]).await.expect("put");
    home.clock.advance_ms(1_100_000);
    until("they are removed", || store.usage()[0].1.entries == 1);
    assert_eq!(store.health().expired, 20);
    assert_eq!(missing(&store, 0..20).await.len(), 20);
    assert_eq!(missing(&store, [50]).await, [0u64; 0]);
    drop(store);
    let back = Home { clock: Arc::new(ManualClock::at(5)), folder: home.folder, limits: Limits::default() };
    let store = back.open();
    assert!(back.clock.now_ms() >= 2_000_000, "a clock that was set back is not believed");
    assert_eq!(store.usage()[0].1.entries, 1);
}

#[tokio::test]
async fn neighbours_that_expired_do_not_hide_one_that_lives() {
    let home = Home::new();
    let store = home.open();
    let near = |n: u64, off: f32| {
        let mut values = vector(1).as_slice().to_vec();
        values[0] += off;
        let place =
            entry("c", 1, "").place.map(|(partition, _)| (partition, Embedding::new(values).expect("a vector")));
        Entry { place, ..entry("c", n, &answer(n)) }
    };
    for n in 0..9 {
        let mut old = near(n, 0.001 * n as f32);
        old.life.expires_ms = 1_000_001;
        store.put(vec![old]).await.expect("put");
    }
    let live = near(100, 0.1);
    store.put(vec![live.clone()]).await.expect("put");
    let (partition, to) = near(0, 0.0).place.expect("a place");
    let found = store.nearest(partition, &to, 2, 1_000_002).await.expect("search");
    assert!(found.iter().any(|found| found.entry.id == live.id), "{} found", found.len());
}

#[tokio::test]
async fn limits_hold_and_what_is_used_stays() {
    let cache = |name: &str| CacheName::parse(name).expect("a name");
    let mut home = Home::new();
    home.limits = Limits {
        total: Limit { entries: Some(150), bytes: None },
        each: Limit { entries: Some(100), bytes: None },
        caches: [(cache("small"), Limit { entries: None, bytes: Some(10_000) })].into(),
    };
    let store = home.open();
    let entries = |name: &str| {
        let usage = store.usage().into_iter().find(|(owner, _)| owner.cache == cache(name));
        usage.map_or((0, 0), |(_, usage)| (usage.entries, usage.bytes))
    };
    let used = entry("c", 3, "").id;
    for n in 0..400 {
        store.put(vec![entry("c", n, "short")]).await.expect("put");
        home.clock.advance_ms(1000);
        if n >= 3 {
            store.used(used, home.clock.now_ms());
        }
        assert!(entries("c").0 <= 100, "{n}");
    }
    assert_eq!(entries("c").0, 100);
    assert!(store.get(used).await.expect("read").is_some(), "the one that is used again and again is kept");
    assert_eq!(store.health().evicted, 300);
    for n in 0..100 {
        store.put(vec![entry("small", n, &"x".repeat(1000))]).await.expect("put");
    }
    assert!((5_000..=10_000).contains(&entries("small").1), "{:?}", entries("small"));
    for n in 0..100 {
        store.put(vec![entry("other", n, "short")]).await.expect("put");
    }
    let total: u64 = store.usage().iter().map(|(_, usage)| usage.entries).sum();
    assert_eq!(total, 150);
    drop(store);
    assert_eq!(home.open().usage().iter().map(|(_, usage)| usage.entries).sum::<u64>(), 150);
}

#[tokio::test]
async fn a_folder_has_one_user_and_one_format() {
    let home = Home::new();
    let open =
        || LocalStore::open(home.path(), Durability::Group, Limits::default(), Arc::clone(&home.clock) as _).map(drop);
    let store = home.open();
    assert!(matches!(open(), Err(OpenStoreError::Locked { .. })));
    drop(store);
    assert!(open().is_ok());
    let rows = super::rows::Rows::open(&home.path().join("gen-000001/sled")).expect("open");
    rows.change_notes(&[("format".into(), b"nearhit-store-9".to_vec())], &[]).expect("write");
    drop(rows);
    match open() {
        Err(OpenStoreError::Format { found, known, .. }) => {
            assert_eq!((found.as_str(), known.as_str()), ("nearhit-store-9", "nearhit-store-2"));
        }
        other => panic!("{other:?}"),
    }
    let old = Home::new();
    std::fs::create_dir(old.path().join("store")).expect("create");
    let opened = LocalStore::open(old.path(), Durability::Group, Limits::default(), Arc::clone(&old.clock) as _);
    assert!(matches!(opened.map(drop), Err(OpenStoreError::Format { .. })));
}

/// A new generation is written while entries come and go.
#[tokio::test]
async fn a_new_generation_misses_nothing() {
    let (home, mut live) = master().await;
    // A log with a hole is written anew.
    let log = home.path().join("gen-000001/log/log-000001");
    let mut bytes = std::fs::read(&log).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&log, bytes).expect("write");
    let store = home.open();
    fill(&store, COUNT..COUNT + 60).await;
    live.extend(COUNT..COUNT + 60);
    for n in [0, 1, 2, 3, COUNT + 5] {
        store.remove(&filter(Which::Id(entry("c", n, "").id))).await.expect("remove");
        live.retain(|live| *live != n);
    }
    until("the new generation counts", || !home.path().join("gen-000001").exists());
    assert_eq!(missing(&store, live.iter().copied()).await, [0u64; 0]);
    fill(&store, COUNT + 60..COUNT + 70).await;
    live.extend(COUNT + 60..COUNT + 70);
    drop(store);
    let store = home.open();
    assert_eq!(missing(&store, live.iter().copied()).await, [0u64; 0]);
    assert_eq!(store.usage()[0].1.entries, live.len() as u64);
    let health = store.health();
    assert_eq!((health.lost, health.damaged, health.restored), (0, 0, 0));
}

#[tokio::test]
async fn a_kill_between_log_and_rows_is_made_up_for() {
    let (home, live) = master().await;
    let before = copy(&home);
    let store = home.open();
    fill(&store, [1000, 1001]).await;
    store.remove(&filter(Which::Id(entry("c", 0, "").id))).await.expect("remove");
    drop(store);
    // Rows of before, log and everything else of after.
    std::fs::remove_dir_all(home.path().join("gen-000001/sled")).expect("remove");
    std::fs::rename(before.path().join("gen-000001/sled"), home.path().join("gen-000001/sled")).expect("move");
    let store = home.open();
    assert_eq!(missing(&store, live.iter().copied().filter(|n| *n != 0).chain([1000, 1001])).await, [0u64; 0]);
    assert!(store.get(entry("c", 0, "").id).await.expect("read").is_none());
    assert_eq!(store.health().lost, 0);
}

/// What is put while the store reads in is sealed already, and waits.
#[test]
fn what_waits_for_the_start_keeps_its_keys() {
    let home = Home::new();
    let store = home.open();
    store.ground.take_slots(1).expect("a slot");
    drop(store);
    let store = home.open();
    let old = store.ground.first_new as super::vectors::Slot;
    assert!(old > 0, "there are slots from before");
    let mut taken = store.ground.take_slots(old as usize + 10).expect("slots");
    taken.retain(|slot| *slot >= old);
    let keys: Vec<_> = taken.iter().map(|slot| store.ground.keys.of(*slot)).collect();
    assert!(!keys.is_empty());
    let before = store.ground.keys.of(0);
    super::load::sweep(&store.ground).expect("sweep");
    assert_ne!(store.ground.keys.of(0), before, "what was there before and is not used is erased");
    assert_eq!(taken.iter().map(|slot| store.ground.keys.of(*slot)).collect::<Vec<_>>(), keys);
}

/// Requests were kept without their path when all went to one.
#[test]
fn requests_of_older_entries_are_read() {
    #[derive(serde::Serialize)]
    enum Older {
        Prompt { context: Option<String> },
        Request { body: String, headers: std::collections::BTreeMap<String, String> },
    }
    fn check(older: &Older, expected: &Origin) {
        let bytes = postcard::to_stdvec(older).expect("written");
        assert_eq!(&postcard::from_bytes::<Origin>(&bytes).expect("read"), expected);
        assert_eq!(postcard::to_stdvec(expected).expect("written"), bytes, "older programs read it, too");
    }
    let headers = || [("openai-beta".to_owned(), "x".to_owned())].into();
    check(&Older::Prompt { context: None }, &Origin::Prompt { context: None });
    let path = "/v1/chat/completions".to_owned();
    let body = || "{}".to_owned();
    check(
        &Older::Request { body: body(), headers: headers() },
        &Origin::Request { path, body: body(), headers: headers() },
    );
    let other = Origin::Request { path: "/v1/messages".into(), body: body(), headers: headers() };
    let bytes = postcard::to_stdvec(&other).expect("written");
    assert_eq!(postcard::from_bytes::<Origin>(&bytes).expect("read"), other);
}
