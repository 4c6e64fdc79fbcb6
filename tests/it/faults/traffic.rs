//! Mixed traffic of one writer over caches of its own, written down in its ledger.
//!
//! A writer makes one call at a time, so at most one is unanswered when the server dies. Its keys are few: entries are
//! replaced, deleted and inserted again all the time, and the data folder stays small however long it goes on.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use super::Counts;
use super::ledger::{By, Key, Ledger, Seen, TAGS};
use super::program::{Answer, Caller, Unanswered};

pub(super) struct Writer {
    pub(super) ledger: Ledger,
    /// Entries of calls since the last check.
    pub(super) touched: BTreeSet<Key>,
    pub(super) counts: Counts,
    /// Writes that were refused because the disk is full or broken.
    pub(super) refused: u64,
    random: fastrand::Rng,
    /// The second is flushed now and then.
    caches: [String; 2],
}

impl Writer {
    pub(super) fn new(name: &str, seed: u64) -> Self {
        Self {
            ledger: Ledger::default(),
            touched: BTreeSet::new(),
            counts: Counts::default(),
            refused: 0,
            random: fastrand::Rng::with_seed(seed),
            caches: [name.to_owned(), format!("{name}-flushed")],
        }
    }

    /// Works until the server is gone.
    pub(super) async fn work(&mut self, server: &Caller) {
        while self.step(server).await.is_ok() {}
    }

    async fn step(&mut self, server: &Caller) -> Result<(), Unanswered> {
        let cache = self.caches[self.random.usize(0..2)].clone();
        let key = Key::new(&cache, self.random.u32(0..PROMPTS));
        let tag = self.random.u32(0..TAGS);
        match self.random.u32(0..1000) {
            0..430 => self.insert(server, &key).await,
            430..580 => {
                let count = self.random.u32(2..12);
                let numbers = key.number..(key.number + count).min(PROMPTS);
                self.insert_all(server, &numbers.map(|number| Key::new(&cache, number)).collect::<Vec<_>>()).await
            }
            580..720 => self.delete(server, &key).await,
            720..770 => self.delete_tag(server, &cache, tag).await,
            770..785 => self.flush(server).await,
            785..950 => self.search(server, &key, By::Prompt).await,
            _ => self.search(server, &key, By::Vector).await,
        }
    }

    pub(super) async fn insert(&mut self, server: &Caller, key: &Key) -> Result<(), Unanswered> {
        let version = self.ledger.next_version();
        self.send(std::slice::from_ref(key), Some(version));
        let path = format!("/v1/caches/{}/entries", key.cache);
        let body = key.insert_body(version, self.ledger.bytes_least);
        let answer = server.post(&path, Key::api_key(&key.cache), &body).await;
        if let Some(answer) = self.accept(std::slice::from_ref(key), answer, &[201])? {
            self.ledger.acknowledged(key, Some(version));
            self.ledger.remember_id(key, &answer["entryId"]);
        }
        Ok(())
    }

    pub(super) async fn insert_all(&mut self, server: &Caller, keys: &[Key]) -> Result<(), Unanswered> {
        let Some(Key { cache, .. }) = keys.first() else { return Ok(()) };
        let version = self.ledger.next_version();
        self.send(keys, Some(version));
        let entries: Vec<Value> = keys.iter().map(|key| key.insert_body(version, self.ledger.bytes_least)).collect();
        let path = format!("/v1/caches/{cache}/entries/batch");
        let answer = server.post(&path, Key::api_key(cache), &json!({"entries": entries})).await;
        if let Some(answer) = self.accept(keys, answer, &[200])? {
            for (at, key) in keys.iter().enumerate() {
                let id = &answer["results"][at]["entryId"];
                if id.is_string() {
                    self.ledger.acknowledged(key, Some(version));
                    self.ledger.remember_id(key, id);
                } else {
                    self.refused += 1;
                    self.ledger.refused(key);
                }
            }
        }
        Ok(())
    }

    pub(super) async fn delete(&mut self, server: &Caller, key: &Key) -> Result<(), Unanswered> {
        let id = self.ledger.id(key).to_owned();
        if id.is_empty() {
            return Ok(());
        }
        let must_be = self.ledger.must_be(key);
        self.send(std::slice::from_ref(key), None);
        let path = format!("/v1/caches/{}/entries/{id}", key.cache);
        let answer = server.call(Method::DELETE, &path, Key::api_key(&key.cache), &Value::Null).await;
        let was_there = matches!(answer, Ok((204, _)));
        if self.accept(std::slice::from_ref(key), answer, &[204, 404])?.is_some() {
            if must_be && !was_there {
                self.counts.lost += 1;
                self.counts.note(format!("lost: deleting {:?} said 404", key.prompt()));
            }
            self.ledger.acknowledged(key, None);
        }
        Ok(())
    }

    pub(super) async fn delete_tag(&mut self, server: &Caller, cache: &str, tag: u32) -> Result<(), Unanswered> {
        let keys: Vec<Key> = self.ledger.keys_of(cache).filter(|key| key.number % TAGS == tag).cloned().collect();
        let Some(first) = keys.first() else { return Ok(()) };
        let body = json!({"tags": [first.tag()]});
        self.remove(server, &format!("/v1/caches/{cache}/entries/delete"), &body, &keys).await
    }

    async fn flush(&mut self, server: &Caller) -> Result<(), Unanswered> {
        let cache = self.caches[1].clone();
        let keys: Vec<Key> = self.ledger.keys_of(&cache).cloned().collect();
        self.remove(server, &format!("/v1/caches/{cache}/flush"), &json!({"confirm": cache}), &keys).await
    }

    async fn remove(&mut self, server: &Caller, path: &str, body: &Value, keys: &[Key]) -> Result<(), Unanswered> {
        let Some(Key { cache, .. }) = keys.first() else { return Ok(()) };
        self.send(keys, None);
        let answer = server.post(path, Key::api_key(cache), body).await;
        if self.accept(keys, answer, &[200, 204])?.is_some() {
            keys.iter().for_each(|key| self.ledger.acknowledged(key, None));
        }
        Ok(())
    }

    async fn search(&mut self, server: &Caller, key: &Key, by: By) -> Result<(), Unanswered> {
        for (key, seen) in self.ledger.look_up(server, std::slice::from_ref(key), by).await {
            // Nobody answers when the server dies; what was acknowledged is asked for when it is back.
            if seen == Seen::Failed("no answer".into()) {
                return Err(Unanswered);
            }
            self.ledger.settle(&key, &seen, &mut self.counts);
        }
        Ok(())
    }

    fn send(&mut self, keys: &[Key], state: Option<u32>) {
        for key in keys {
            self.ledger.sent(key, state);
            self.touched.insert(key.clone());
        }
    }

    /// The body of an acknowledgement; anything else was not to be expected.
    fn accept(&mut self, keys: &[Key], answer: Answer, statuses: &[u16]) -> Result<Option<Value>, Unanswered> {
        let (status, body) = answer?;
        let accepted = statuses.contains(&status);
        if !accepted {
            keys.iter().for_each(|key| self.ledger.refused(key));
        }
        let is_refused = [503, 507].contains(&status);
        self.refused += u64::from(is_refused);
        self.counts.promise(accepted || is_refused, format!("a write was answered {status} {body}"));
        Ok(accepted.then_some(body))
    }

    /// After a restart: everything that was touched, and a sample of the rest.
    pub(super) async fn check_touched(&mut self, server: &Caller) {
        let touched = std::mem::take(&mut self.touched);
        let mut keys: Vec<Key> = touched.into_iter().collect();
        keys.extend(self.sample(SAMPLE));
        keys.sort();
        keys.dedup();
        let by_vector = self.sample(SAMPLE);
        self.ledger.check(server, &keys, &by_vector, &mut self.counts).await;
    }

    pub(super) async fn check_all(&mut self, server: &Caller) {
        let keys: Vec<Key> = self.ledger.keys().cloned().collect();
        self.ledger.check(server, &keys, &keys, &mut self.counts).await;
    }

    fn sample(&mut self, count: usize) -> Vec<Key> {
        let mut keys: Vec<Key> = self.ledger.keys().cloned().collect();
        self.random.shuffle(&mut keys);
        keys.truncate(count);
        keys.sort();
        keys
    }
}

/// Prompts of a writer in a cache.
const PROMPTS: u32 = 120;

/// Entries looked up after each restart beside those that were touched.
const SAMPLE: usize = 20;
