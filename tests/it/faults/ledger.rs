//! What was sent and what was acknowledged, and so what a lookup may say.
//!
//! Of each entry the ledger keeps every version that it may have: one after an acknowledgement, several while a call is
//! unanswered. An answer is made from prompt and version alone, so any answer can be checked to the byte.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Counts;
use super::program::{Caller, DIMENSIONS};

/// One entry: a prompt in a cache of a caller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) cache: String,
    pub(super) number: u32,
}

/// Whether there is an entry, and in which version.
type State = Option<u32>;

#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<Key, Known>,
    version: u32,
    /// Smallest answer in bytes.
    pub(super) bytes_least: usize,
}

#[derive(Debug, Clone)]
struct Known {
    /// What it may be; never empty.
    may_be: Vec<State>,
    /// A call was refused since the last acknowledgement: what it would have made may come and go.
    is_unsure: bool,
    id: String,
}

/// What a lookup said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    Version(u32),
    /// An answer to something else, or one that is not whole.
    Alien(String),
    /// An error, or no answer at all.
    Failed(String),
}

/// How a lookup goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Prompt,
    Vector,
}

impl Key {
    pub(super) fn new(cache: &str, number: u32) -> Self {
        Self { cache: cache.to_owned(), number }
    }

    pub(super) fn prompt(&self) -> String {
        format!("Question {} about {}", self.number, self.cache)
    }

    pub(super) fn tag(&self) -> String {
        format!("tag-{}", self.number % TAGS)
    }

    /// The caller: caches whose name says so belong to one with a provider key, all others to nobody.
    pub(super) fn api_key(cache: &str) -> &'static str {
        if cache.starts_with("keyed") { "sk-faults" } else { "" }
    }

    fn random(&self, version: u32) -> fastrand::Rng {
        let hash = blake3::hash(format!("{}\n{version}", self.prompt()).as_bytes());
        fastrand::Rng::with_seed(u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("8 bytes")))
    }

    /// A unit vector of its own.
    fn vector(&self) -> Vec<f64> {
        let mut random = self.random(0);
        let vector: Vec<f64> = (0..DIMENSIONS).map(|_| random.f64() * 2.0 - 1.0).collect();
        let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
        vector.into_iter().map(|x| x / norm).collect()
    }

    /// The answer of this version: prompt, version, filling, and a checksum of all of it. Most are short.
    pub(super) fn response(&self, version: u32, bytes_least: usize) -> String {
        let mut random = self.random(version);
        let size = match random.u32(0..100) {
            0..80 => random.usize(20..600),
            80..95 => random.usize(600..6_000),
            95..99 => random.usize(6_000..20_000),
            _ => random.usize(20_000..60_000),
        };
        let filling: String = (0..size.max(bytes_least)).map(|_| random.alphanumeric()).collect();
        let text = format!("{} v{version} {filling}", self.prompt());
        let checksum = blake3::hash(text.as_bytes()).to_hex();
        format!("{text} {}", &checksum[..16])
    }

    /// What an insert of this version sends.
    pub(super) fn insert_body(&self, version: u32, bytes_least: usize) -> Value {
        json!({"prompt": self.prompt(), "response": self.response(version, bytes_least), "tags": [self.tag()],
            "vector": self.vector()})
    }

    fn search_body(&self, by: By) -> Value {
        match by {
            By::Prompt => json!({"prompt": self.prompt(), "searchStrategies": ["exact"]}),
            By::Vector => {
                json!({"prompt": self.prompt(), "searchStrategies": ["semantic"], "vector": self.vector(),
                    "similarityThreshold": 0.99})
            }
        }
    }

    fn read(&self, result: &Value, bytes_least: usize) -> Seen {
        if result["outcome"] == "miss" && result["reason"] != "store_down" {
            return Seen::Nothing;
        }
        let Some(response) = result.pointer("/data/0/response").and_then(Value::as_str) else {
            return Seen::Failed(result.to_string().chars().take(120).collect());
        };
        let alien = || Seen::Alien(response.chars().take(60).collect());
        let version = response.strip_prefix(&format!("{} v", self.prompt())).and_then(|rest| rest.split(' ').next());
        match version.and_then(|version| version.parse().ok()) {
            Some(version) if response == self.response(version, bytes_least) => Seen::Version(version),
            _ => alien(),
        }
    }
}

impl Ledger {
    /// A version that no entry has had.
    pub(super) fn next_version(&mut self) -> u32 {
        self.version += 1;
        self.version
    }

    /// A call is on its way that makes the entry this.
    pub(super) fn sent(&mut self, key: &Key, state: State) {
        let unknown = || Known { may_be: vec![None], is_unsure: false, id: String::new() };
        self.entries.entry(key.clone()).or_insert_with(unknown).may_be.push(state);
    }

    /// The call was acknowledged.
    pub(super) fn acknowledged(&mut self, key: &Key, state: State) {
        self.sent(key, state);
        let known = self.entries.get_mut(key).expect("an entry that was sent");
        (known.may_be, known.is_unsure) = (vec![state], false);
    }

    /// The call was answered with an error: nobody knows how far it came.
    pub(super) fn refused(&mut self, key: &Key) {
        self.entries.entry(key.clone()).and_modify(|known| known.is_unsure = true);
    }

    pub(super) fn remember_id(&mut self, key: &Key, id: &Value) {
        if let (Some(known), Some(id)) = (self.entries.get_mut(key), id.as_str()) {
            id.clone_into(&mut known.id);
        }
    }

    pub(super) fn id(&self, key: &Key) -> &str {
        self.entries.get(key).map_or("", |known| &known.id)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.entries.keys()
    }

    pub(super) fn keys_of<'a>(&'a self, cache: &'a str) -> impl Iterator<Item = &'a Key> {
        self.keys().filter(move |key| key.cache == cache)
    }

    /// Whether it is acknowledged and not deleted: a lookup has to find it.
    pub(super) fn must_be(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(|known| !known.may_be.contains(&None))
    }

    /// Counts what a lookup said. Once a call is answered or the server has died, what was seen is what the entry is.
    pub(super) fn settle(&mut self, key: &Key, seen: &Seen, counts: &mut Counts) {
        let lost_before = counts.lost;
        self.judge(key, seen, counts);
        let Some(known) = self.entries.get_mut(key) else { return };
        match seen {
            Seen::Version(_) | Seen::Nothing if known.is_unsure => {
                known.may_be.extend((counts.lost > lost_before).then_some(None));
            }
            Seen::Version(version) => known.may_be = vec![Some(*version)],
            Seen::Nothing => known.may_be = vec![None],
            // It may still be there; it is not counted a second time.
            Seen::Failed(_) if counts.lost > lost_before => known.may_be.push(None),
            Seen::Failed(_) | Seen::Alien(_) => {}
        }
    }

    /// Counts what a lookup said; whether the entry was lost.
    pub(super) fn judge(&self, key: &Key, seen: &Seen, counts: &mut Counts) -> bool {
        let may_be = self.entries.get(key).map_or(&[None][..], |known| &known.may_be);
        let must_be = self.must_be(key);
        counts.checked += u64::from(must_be);
        let is_wrong = match seen {
            Seen::Nothing | Seen::Failed(_) => false,
            Seen::Version(version) => !may_be.contains(&Some(*version)),
            Seen::Alien(_) => true,
        };
        let is_lost = must_be && matches!(seen, Seen::Nothing | Seen::Failed(_));
        counts.wrong += u64::from(is_wrong);
        counts.lost += u64::from(is_lost);
        if is_wrong || is_lost {
            let word = if is_wrong { "wrong" } else { "lost" };
            counts.note(format!("{word}: {:?} was {seen:?}, may be {may_be:?}", key.prompt()));
        }
        is_lost
    }

    /// Asks for all of these; what is said of each.
    pub(super) async fn look_up(&self, server: &Caller, keys: &[Key], by: By) -> Vec<(Key, Seen)> {
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunk_by(|a, b| a.cache == b.cache).flat_map(|keys| keys.chunks(BATCH)) {
            let cache = &keys[0].cache;
            let searches: Vec<Value> = keys.iter().map(|key| key.search_body(by)).collect();
            let path = format!("/v1/caches/{cache}/entries/search/batch");
            let answer = server.post(&path, Key::api_key(cache), &json!({"searches": searches})).await;
            for (at, key) in keys.iter().enumerate() {
                let seen = match &answer {
                    Ok((200, body)) => key.read(&body["results"][at], self.bytes_least),
                    Ok((status, body)) => Seen::Failed(format!("{status} {body}").chars().take(120).collect()),
                    Err(_) => Seen::Failed("no answer".into()),
                };
                found.push((key.clone(), seen));
            }
        }
        found
    }

    /// Looks all of these up by prompt, a sample by vector too, and settles what is said.
    pub(super) async fn check(&mut self, server: &Caller, keys: &[Key], by_vector: &[Key], counts: &mut Counts) {
        for (keys, by) in [(keys, By::Prompt), (by_vector, By::Vector)] {
            for (key, seen) in self.look_up(server, keys, by).await {
                self.settle(&key, &seen, counts);
            }
        }
    }
}

/// So many tags share the entries of a cache.
pub(super) const TAGS: u32 = 8;

/// Lookups in one call; the server takes 1,000.
const BATCH: usize = 500;

#[test]
fn what_a_lookup_may_say() {
    let key = Key::new("c", 1);
    let ledger = |acknowledged: &[State], sent: &[State]| {
        let mut ledger = Ledger::default();
        acknowledged.iter().for_each(|state| ledger.acknowledged(&key, *state));
        sent.iter().for_each(|state| ledger.sent(&key, *state));
        ledger
    };
    let check = |ledger: Ledger, seen: Seen, (lost, wrong): (u64, u64)| {
        let mut counts = Counts::default();
        ledger.judge(&key, &seen, &mut counts);
        assert_eq!((counts.lost, counts.wrong), (lost, wrong), "{seen:?} of {ledger:?}");
    };
    check(ledger(&[Some(1)], &[]), Seen::Version(1), (0, 0));
    check(ledger(&[Some(1)], &[]), Seen::Nothing, (1, 0));
    check(ledger(&[Some(1)], &[]), Seen::Failed(String::new()), (1, 0));
    check(ledger(&[Some(1)], &[]), Seen::Alien(String::new()), (0, 1));
    check(ledger(&[Some(1), Some(2)], &[]), Seen::Version(1), (0, 1));
    check(ledger(&[Some(1)], &[Some(2)]), Seen::Version(1), (0, 0));
    check(ledger(&[Some(1)], &[Some(2)]), Seen::Version(2), (0, 0));
    check(ledger(&[Some(1)], &[Some(2)]), Seen::Nothing, (1, 0));
    check(ledger(&[Some(1)], &[None]), Seen::Nothing, (0, 0));
    check(ledger(&[Some(1)], &[None]), Seen::Version(1), (0, 0));
    check(ledger(&[Some(1), None], &[]), Seen::Version(1), (0, 1));
    check(ledger(&[Some(1), None], &[]), Seen::Nothing, (0, 0));
    check(ledger(&[], &[]), Seen::Version(1), (0, 1));

    let body = |response: String| json!({"outcome": "hit", "data": [{"response": response}]});
    assert_eq!(key.read(&body(key.response(3, 0)), 0), Seen::Version(3));
    let damaged = key.response(3, 0).replacen('Q', "q", 1);
    assert_eq!(key.read(&body(damaged.clone()), 0), Seen::Alien(damaged.chars().take(60).collect()));
    let other = Key::new("c", 2).response(3, 0);
    assert_eq!(key.read(&body(other.clone()), 0), Seen::Alien(other.chars().take(60).collect()));
    assert_eq!(key.read(&json!({"outcome": "miss", "reason": "empty", "data": []}), 0), Seen::Nothing);
}
