//! One flipped bit, or one file cut short, anywhere in a data folder that is at rest.
//!
//! A folder is written once and copied for every trial. Whatever is damaged, the server starts, says nothing wrong, and
//! says how much it has lost.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use futures_util::stream::{StreamExt, iter};
use serde_json::Value;
use tempfile::TempDir;

use super::ledger::{By, Key, Ledger, Seen};
use super::program::{Program, Server, copy_folder, files};
use super::traffic::Writer;
use super::{Counts, Ran};

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    Flip,
    Truncation,
}

/// How the server ended that wrote the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stopped,
    Killed,
}

/// A data folder, and what is in it.
struct Master {
    folder: TempDir,
    ledger: Ledger,
    keys: Vec<Key>,
}

/// Damages a copy of the folder `trials` times, half of them one that was left behind by a kill.
pub async fn run(damage: Damage, trials: u64, seed: u64) -> Ran {
    let masters = [Master::write(End::Stopped, seed).await, Master::write(End::Killed, seed).await];
    let trial = |n: u64| {
        let master = &masters[usize::from(n % 2 == 1)];
        master.trial(damage, seed.wrapping_add(n))
    };
    let counts =
        iter(0..trials).map(trial).buffer_unordered(AT_A_TIME).fold(Counts::default(), async |mut sum, one| {
            sum.add(one);
            sum
        });
    Ran::Counted(counts.await)
}

impl Master {
    async fn write(end: End, seed: u64) -> Self {
        let program = Program::new();
        let server = program.start().await.expect("a new folder is no trouble");
        let caller = &server.data_plane;
        let mut writer = Writer::new("master", seed);
        for cache in CACHES {
            for first in (0..ENTRIES).step_by(25) {
                let keys: Vec<Key> = (first..first + 25).map(|number| Key::new(cache, number)).collect();
                writer.insert_all(caller, &keys).await.expect("an answer");
            }
            for number in (0..ENTRIES).step_by(9) {
                writer.insert(caller, &Key::new(cache, number)).await.expect("an answer");
            }
            for number in (0..ENTRIES).step_by(14) {
                writer.delete(caller, &Key::new(cache, number)).await.expect("an answer");
            }
        }
        writer.delete_tag(caller, CACHES[0], 3).await.expect("an answer");
        writer.check_all(caller).await;
        assert_eq!(writer.counts.violations(super::Loss::None), [""; 0], "{:?}", writer.counts.notes);
        match end {
            End::Stopped => server.stop().await,
            End::Killed => server.kill(),
        }
        let folder = TempDir::new().expect("a temporary folder");
        copy_folder(&program.data, folder.path());
        let ledger = writer.ledger;
        let keys = ledger.keys().cloned().collect();
        Self { folder, ledger, keys }
    }

    async fn trial(&self, damage: Damage, seed: u64) -> Counts {
        let mut random = fastrand::Rng::with_seed(seed);
        let program = Program::new();
        copy_folder(self.folder.path(), &program.data);
        let what = damage.apply(&program.data, &mut random);
        let mut counts = Counts { faults: 1, ..Counts::default() };
        match program.start().await {
            Ok(mut server) => {
                let found = self.look(&server, &mut random).await;
                let reported = reported(&server).await;
                // Of a server that is gone nothing more is to be said.
                if let Some(why) = server.crash() {
                    counts.crashes += 1;
                    counts.note(format!("crash: {why}"));
                } else {
                    self.count(&found, reported, &mut counts);
                }
            }
            Err(why) => counts.failed_start(&why),
        }
        counts.notes.iter_mut().for_each(|note| *note = format!("{note} (seed {seed}: {what})"));
        // One of a kind: the next trial has something to say too.
        counts.notes.dedup_by_key(|note| note.split(':').next().unwrap_or_default().to_owned());
        counts
    }

    async fn look(&self, server: &Server, random: &mut fastrand::Rng) -> Vec<(Key, Seen)> {
        let mut found = self.ledger.look_up(&server.data_plane, &self.keys, By::Prompt).await;
        let mut sample: Vec<Key> =
            self.keys.iter().filter(|_| random.u32(0..100) < BY_VECTOR_PERCENT).cloned().collect();
        sample.sort();
        found.extend(self.ledger.look_up(&server.data_plane, &sample, By::Vector).await);
        found
    }

    fn count(&self, found: &[(Key, Seen)], reported: u64, counts: &mut Counts) {
        let mut lost = std::collections::BTreeSet::new();
        for (key, seen) in found {
            if self.ledger.judge(key, seen, counts) {
                lost.insert(key);
            }
        }
        let lost = lost.len() as u64;
        if lost > reported {
            counts.unreported += lost - reported;
            counts.note(format!("unreported: {lost} lost, {reported} reported"));
        }
    }
}

impl Damage {
    /// Damages one file; what was done.
    fn apply(self, folder: &Path, random: &mut fastrand::Rng) -> String {
        let path = choose(folder, random);
        let length = std::fs::metadata(&path).expect("a file").len();
        let name = path.strip_prefix(folder).expect("a file below it").display().to_string();
        if self == Self::Truncation {
            let kept = random.u64(0..length);
            let file = OpenOptions::new().write(true).open(&path).expect("a file");
            file.set_len(kept).expect("a file takes a new length");
            return format!("{name} cut to {kept} of {length} bytes");
        }
        let (at, bit) = (random.u64(0..length), random.u32(0..8));
        let mut bytes = std::fs::read(&path).expect("a file");
        bytes[usize::try_from(at).expect("a small file")] ^= 1 << bit;
        std::fs::write(&path, bytes).expect("a file");
        format!("bit {bit} of byte {at} of {length} of {name}")
    }
}

/// Half the time any kind of file is as likely as any other, half the time any byte.
fn choose(folder: &Path, random: &mut fastrand::Rng) -> PathBuf {
    let length = |path: &PathBuf| std::fs::metadata(path).expect("a file").len();
    let files: Vec<PathBuf> = files(folder).into_iter().filter(|path| length(path) > 0).collect();
    if random.bool() {
        let kind = |path: &PathBuf| -> String {
            let name = path.strip_prefix(folder).expect("a file below it").to_string_lossy().into_owned();
            name.chars().filter(|c| !c.is_ascii_digit()).collect()
        };
        let mut kinds: Vec<String> = files.iter().map(kind).collect();
        kinds.sort();
        kinds.dedup();
        let chosen = random.choice(&kinds).expect("a data folder has files");
        let files: Vec<&PathBuf> = files.iter().filter(|path| kind(path) == *chosen).collect();
        return (*random.choice(&files).expect("a kind has files")).clone();
    }
    let mut at = random.u64(0..files.iter().map(length).sum());
    for path in &files {
        match at.checked_sub(length(path)) {
            Some(rest) => at = rest,
            None => return path.clone(),
        }
    }
    unreachable!("a byte is in one of the files")
}

/// How many entries the server says it has lost: the largest figure of that name, wherever it says so.
async fn reported(server: &Server) -> u64 {
    let mut most = 0;
    let mut caches = Vec::from(CACHES.map(|cache| (format!("/v1/caches/{cache}/stats"), Key::api_key(cache))));
    caches.push(("/readyz".to_owned(), ""));
    let mut in_stats = 0;
    for (path, key) in caches {
        if let Ok((_, body)) = server.data_plane.call(http::Method::GET, &path, key, &Value::Null).await {
            if path == "/readyz" { most = most.max(lost_in(&body)) } else { in_stats += lost_in(&body) }
        }
    }
    if let Ok((_, Value::String(metrics))) = server.admin_plane.get("/metrics").await {
        let figures = metrics.lines().filter(|line| !line.starts_with('#') && line.contains("lost"));
        let figures = figures.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        most = most.max(figures.fold(0.0, f64::max) as u64);
    }
    most.max(in_stats)
}

/// The largest number under the name `lost`, at any depth.
fn lost_in(body: &Value) -> u64 {
    match body {
        Value::Object(fields) => {
            let figure = |name: &String, value: &Value| if name == "lost" { value.as_u64() } else { None };
            fields.iter().map(|(name, value)| figure(name, value).unwrap_or_else(|| lost_in(value))).max().unwrap_or(0)
        }
        Value::Array(items) => items.iter().map(lost_in).max().unwrap_or(0),
        _ => 0,
    }
}

/// One of them belongs to a caller with a provider key, whom the server knows by its secret.
const CACHES: [&str; 4] = ["faq", "support", "search", "keyed"];

/// Entries written to each cache, before some are deleted.
const ENTRIES: u32 = 150;

const BY_VECTOR_PERCENT: u32 = 15;

/// Trials at a time.
const AT_A_TIME: usize = 2;

#[test]
fn figures_of_the_lost_are_found() {
    use serde_json::json;
    let check = |body: Value, lost: u64| assert_eq!(lost_in(&body), lost, "{body}");
    check(json!({"state": "ready", "degraded": []}), 0);
    check(json!({"state": "ready", "store": {"lost": 3, "repaired": 9}}), 3);
    check(json!({"parts": [{"lost": 1}, {"lost": 2}], "lost": "no"}), 2);
}
