//! Over a store in memory and an embedder to which everything is near.

use async_trait::async_trait;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use super::super::learned::ChoiceTerms;
use super::super::{CacheSettings, Lookup, NewEntry, Parts, Query};
use super::*;
use crate::clock::ManualClock;
use crate::decision::{Answer, AnswerKind, Embedding, Origin, Tier, Vars};
use crate::embed::{EmbedError, Embedder};
use crate::store::memory::MemoryStore;

/// Gives every text one vector, and remembers what it was asked for.
#[derive(Default)]
struct AllNear(Mutex<Vec<String>>);

#[async_trait]
impl Embedder for AllNear {
    fn model(&self) -> &str {
        "all-near"
    }

    fn engine(&self) -> &str {
        "none"
    }

    fn dimensions(&self) -> usize {
        2
    }

    async fn embed(&self, texts: &[&str], _: Asker<'_>) -> Vec<Result<Embedding, EmbedError>> {
        self.0.lock().extend(texts.iter().map(ToString::to_string));
        texts.iter().map(|_| Ok(Embedding::new(vec![1.0, 0.0]).expect("a vector"))).collect()
    }
}

struct Setup {
    cache: Cache,
    embedder: Arc<AllNear>,
    clock: Arc<ManualClock>,
}

impl Setup {
    fn new() -> Self {
        let (embedder, clock) = (Arc::<AllNear>::default(), Arc::new(ManualClock::at(1_000_000)));
        let store = Arc::new(MemoryStore::default());
        let parts = Parts { store, embedder: Some(Arc::clone(&embedder) as _), clock: Arc::clone(&clock) as _ };
        let cache = Cache::new(parts, CacheSettings::default(), &mut Registry::default());
        Self { cache, embedder, clock }
    }

    async fn insert(&self, text: &str, answer: &str) -> EntryId {
        let new = NewEntry {
            prompt: prompt(text),
            origin: Origin::Prompt { context: None },
            answer: Answer { kind: AnswerKind::Text, body: answer.to_owned(), usage: None },
            tags: [].into(),
            sources: [].into(),
            writer: String::new(),
            created_ms: None,
            ttl: None,
            vector: None,
        };
        self.cache.insert(new).await.expect("stored").id
    }

    /// The best match, if it is one of meaning.
    async fn near(&self, text: &str) -> Option<Held> {
        match self.cache.lookup(&Query::new(prompt(text))).await {
            Lookup::Hit(matches) if matches[0].tier == Tier::Semantic => {
                let first = matches.into_iter().next()?;
                Some(Held { judged: first.judged?, entry: first.entry })
            }
            _ => None,
        }
    }

    async fn complain(&self, id: EntryId, text: Option<&str>) {
        assert!(self.cache.feedback(&owner(), id, false, text).await.expect("a store"));
    }

    async fn quarantined(&self) -> Option<usize> {
        self.cache.learnt(&owner()).await.map(|learnt| learnt.quarantined)
    }
}

fn owner() -> Owner {
    Owner { tenant: Tenant::new("t"), cache: CacheName::default() }
}

fn prompt(text: &str) -> Prompt {
    let vars: Vars = [("order".to_owned(), "K-4711".to_owned())].into();
    Prompt::new(Scope::bare(Tenant::new("t"), CacheName::default()), text, vars)
}

const STORED: &str = "How do I return order K-4711?";

const ASKED: &str = "How can I return order K-4711?";

#[tokio::test]
async fn feedback_on_another_question_is_scored_as_a_lookup_would() {
    let setup = Setup::new();
    let id = setup.insert(STORED, "By mail.").await;
    assert!(setup.near(ASKED).await.is_some());
    let looked_up = setup.embedder.0.lock().last().cloned().expect("a text");
    assert!(!looked_up.contains("4711"), "{looked_up}");
    // Served before the start: nothing but the text says what is meant.
    let again = Setup { cache: restarted(&setup), ..setup };
    again.complain(id, Some(ASKED)).await;
    assert_eq!(again.embedder.0.lock().last(), Some(&looked_up));
    assert!(again.near(ASKED).await.is_none());

    let count = again.embedder.0.lock().len();
    let id = again.insert("How do I return it?", "By mail.").await;
    assert_eq!(again.embedder.0.lock().len(), count + 1);
    again.complain(id, Some(&"How can I return it? ".repeat(1_000))).await;
    assert!(again.near("How can I return it?").await.is_some(), "no such text would be served");
}

fn restarted(setup: &Setup) -> Cache {
    let Setup { cache, embedder, clock } = setup;
    let parts = Parts {
        store: Arc::clone(cache.store()),
        embedder: Some(Arc::clone(embedder) as _),
        clock: Arc::clone(clock) as _,
    };
    Cache::new(parts, CacheSettings::default(), &mut Registry::default())
}

#[tokio::test]
async fn what_was_judged_is_current_until_it_is_replaced_or_removed() {
    let setup = Setup::new();
    let id = setup.insert(STORED, "By mail.").await;
    let held = setup.near(ASKED).await.expect("a hit");
    let is_current = async || setup.cache.is_current(&held).await.expect("a store");
    assert!(is_current().await);
    setup.insert(STORED, "By courier.").await;
    assert!(!is_current().await, "another answer in the same millisecond");
    setup.insert(STORED, "By mail.").await;
    assert!(is_current().await);
    setup.clock.advance_ms(1);
    setup.insert(STORED, "By mail.").await;
    assert!(!is_current().await, "the same words, given anew");
    let filter = Filter { owner: owner(), which: Which::Id(id), dry_run: false };
    setup.cache.remove(&filter).await.expect("removed");
    assert!(!is_current().await);
}

#[tokio::test]
async fn what_is_gone_has_nothing_learned_of_it() {
    let setup = Setup::new();
    let ids = [setup.insert("one", "1").await, setup.insert("two", "2").await, setup.insert("three", "3").await];
    for id in ids {
        setup.complain(id, None).await;
    }
    assert_eq!(setup.quarantined().await, Some(3));
    let remove = async |which: Which, dry_run: bool| {
        setup.cache.remove(&Filter { owner: owner(), which, dry_run }).await.expect("removed");
    };
    remove(Which::Id(ids[0]), true).await;
    assert_eq!(setup.quarantined().await, Some(3));
    remove(Which::Id(ids[0]), false).await;
    assert_eq!(setup.quarantined().await, Some(2));
    setup.clock.advance_ms(1);
    setup.insert("two", "2").await;
    assert_eq!(setup.quarantined().await, Some(1), "it has another answer");
    // However it went.
    remove(Which::CreatedUntil(1_000_000), false).await;
    assert_eq!(setup.quarantined().await, Some(0));

    setup.complain(ids[1], None).await;
    assert!(!setup.cache.save_learning().expect("JSON").is_empty());
    remove(Which::All, true).await;
    assert_eq!(setup.quarantined().await, Some(1));
    remove(Which::All, false).await;
    assert_eq!((setup.quarantined().await, setup.cache.save_learning().expect("JSON").len()), (None, 0));
    setup.cache.learning_dropped().await;
}

/// One process after another, each with what the one before it kept.
fn next(lines: &[u8], embedder: Option<Arc<AllNear>>) -> Cache {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let parts = Parts { store: Arc::new(MemoryStore::default()), embedder: embedder.map(|it| it as _), clock };
    let cache = Cache::new(parts, CacheSettings::default(), &mut Registry::default());
    cache.restore_learning(lines).expect("as it was written");
    cache
}

#[test]
fn complaints_about_an_entrys_own_question_hold_with_every_model() {
    let id = |number: u8| EntryId::from_bytes([number; 16]);
    let with = || Some(Arc::<AllNear>::default());
    let said = |cache: &Cache, number: u8| {
        let learned = cache.learning.of(&owner()).expect("something learned");
        let learned = learned.lock();
        (learned.is_barred(id(number)), learned.is_doubted(id(number)))
    };
    let first = next(b"", with());
    let learned = first.learning.create(&owner(), &first.policy(&owner().cache));
    learned.lock().hear_of_itself(id(1), false);
    learned.lock().hear_of_itself(id(2), false);
    learned.lock().hear_of_template(id(3), false);
    learned.lock().hear_of(id(4), 0.95, false);
    assert_eq!((said(&first, 3), said(&first, 4)), ((false, true), (false, true)));
    let lines = first.save_learning().expect("JSON");

    let without = next(&lines, None);
    assert_eq!([1, 2, 3].map(|number| said(&without, number)), [(true, true), (true, true), (false, true)]);
    assert_eq!(said(&without, 4), (false, false), "another model's scores");
    without.learning.of(&owner()).expect("something").lock().hear_of_itself(id(2), true);
    let both = without.save_learning().expect("JSON");
    assert!(both.starts_with(&lines), "what was not taken is written as it was");
    assert!(!said(&next(&both, None), 2).0);

    let again = next(&both, with());
    let all = [1, 2, 3, 4].map(|number| said(&again, number));
    assert_eq!(all, [(true, true), (false, false), (false, true), (false, true)]);

    without.learning.drop_of(&owner());
    assert!(without.save_learning().expect("JSON").is_empty(), "a flush forgets all of it");
}

#[test]
fn lines_of_other_versions_are_read_or_kept() {
    let first = next(b"", None);
    let learned = first.learning.create(&owner(), &first.policy(&owner().cache));
    learned.lock().hear_of_itself(EntryId::from_bytes([1; 16]), false);
    learned.lock().hear_of_template(EntryId::from_bytes([2; 16]), false);
    let terms = ChoiceTerms { error_max: None, is_shadow: false, is_comparable: true };
    learned.lock().choose_template(EntryId::from_bytes([3; 16]), terms, [1.0, 1.0]);
    let lines = String::from_utf8(first.save_learning().expect("JSON")).expect("text");
    assert!(lines.starts_with("[2,\"t\","), "{lines}");

    let old = next(lines.replacen("[2,", "[", 1).as_bytes(), None);
    let same = next(lines.as_bytes(), None);
    let error = |cache: &Cache| cache.learning.of(&owner()).expect("something").lock().learnt().report.error;
    assert!(error(&same) > 0.0);
    assert_eq!(error(&old), 0.0, "its last bin was one of scores");
    assert!(old.learning.of(&owner()).expect("something").lock().is_barred(EntryId::from_bytes([1; 16])));

    let later = b"[3,\"t\",\"default\",\"external\",{\"more\":[1]}]\n";
    let kept = next(later, None);
    assert!(kept.learning.of(&owner()).is_none());
    assert_eq!(kept.save_learning().expect("JSON"), later);
    assert!(kept.restore_learning(b"[3,4]").is_err());
}
