//! Over a store in memory and an embedder to which everything is near: what the guards let through is near enough.

use std::pin::Pin;

use async_trait::async_trait;
use futures_util::FutureExt;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::super::{CacheSettings, Lookup, Parts};
use super::*;
use crate::clock::ManualClock;
use crate::decision::{CacheName, Prompt, Reason, Scope, Speaker, Tier};
use crate::embed::{Asker, EmbedError, Embedder};
use crate::store::memory::MemoryStore;

struct AllNear;

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
        texts.iter().map(|_| Ok(Embedding::new(vec![1.0, 0.0]).expect("a vector"))).collect()
    }
}

fn cache() -> Cache {
    let (store, clock) = (Arc::new(MemoryStore::default()), Arc::new(ManualClock::at(1_000_000)));
    let parts = Parts { store, embedder: Some(Arc::new(AllNear)), clock };
    Cache::new(parts, CacheSettings::default(), &mut Registry::default())
}

/// A question of a tenant, in a form, with a call of its own.
fn query(tenant: &str, text: &str, form: u8) -> Query {
    let prompt = Prompt::new(Scope::bare(Tenant::new(tenant), CacheName::default()), text, Default::default());
    let call = *blake3::hash(text.as_bytes()).as_bytes();
    Query { company: Some(Company::new([form; 32], call)), is_comparable: true, ..Query::new(prompt) }
}

async fn insert(cache: &Cache, prompt: Prompt, answer: &str) {
    let new = NewEntry {
        prompt,
        origin: Origin::Prompt { context: None },
        answer: Answer { kind: AnswerKind::Text, body: answer.to_owned(), usage: None },
        tags: [].into(),
        sources: [].into(),
        writer: String::new(),
        created_ms: None,
        ttl: None,
        vector: None,
    };
    cache.insert(new).await.expect("stored");
}

type Begun<'a> = Pin<Box<dyn Future<Output = Lookup> + 'a>>;

/// Takes out those that missed; what each holds for others.
fn ended(waiting: &mut Vec<Begun<'_>>) -> Vec<Arc<Asking>> {
    let mut ended = Vec::new();
    waiting.retain_mut(|lookup| match lookup.as_mut().now_or_never() {
        Some(lookup) => {
            ended.push(missed(Some(lookup)).1.expect("others may wait for it"));
            false
        }
        None => true,
    });
    ended
}

/// A lookup that has got as far as it gets by itself.
fn begun<'a>(cache: &'a Cache, query: &'a Query) -> Begun<'a> {
    let mut lookup: Begun<'a> = Box::pin(cache.lookup(query));
    match lookup.as_mut().now_or_never() {
        Some(lookup) => Box::pin(std::future::ready(lookup)),
        None => lookup,
    }
}

#[track_caller]
fn missed(lookup: Option<Lookup>) -> (Reason, Option<Arc<Asking>>) {
    match lookup.expect("it waits for nobody") {
        Lookup::Miss(miss) => (miss.reason, miss.asking),
        Lookup::Hit(matches) => panic!("a hit: {:?}", matches.first().map(|found| found.tier)),
    }
}

const FIRST: &str = "How do I return 2 chairs?";

const SECOND: &str = "How can I return 2 chairs?";

const THIRD: &str = "How could I return my 2 chairs?";

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_served_by_a_lookup() {
    let cache = cache();
    let (first, second) = (query("t", FIRST, 0), query("t", SECOND, 0));
    let (reason, asking) = missed(cache.lookup(&first).now_or_never());
    assert_eq!(reason, Reason::Empty);
    let mut waits = begun(&cache, &second);
    assert!(waits.as_mut().now_or_never().is_none());
    insert(&cache, first.prompt.clone(), "By mail.").await;
    assert!(waits.as_mut().now_or_never().is_none(), "it is not told before");
    drop(asking);
    let Lookup::Hit(matches) = waits.await else { panic!("a miss") };
    let found = &matches[0];
    assert_eq!((found.tier, found.entry.answer.body.as_str()), (Tier::Joined, "By mail."));
    assert!(found.judged.is_some() && found.probability.is_some_and(|p| p < crate::decision::Probability::CERTAIN));
    // Whoever waited was decided on once.
    let plain = self::cache();
    insert(&plain, first.prompt.clone(), "By mail.").await;
    assert!(matches!(plain.lookup(&Query { company: None, ..second.clone() }).await, Lookup::Hit(_)));
    let owner = owner(&first.prompt);
    assert_eq!(cache.learnt(&owner).await, plain.learnt(&owner).await);
    let (_, counts) = cache.stats(&owner);
    let hits: u64 = counts.hits.iter().map(|(_, count)| count).sum();
    assert_eq!((hits, counts.misses.len()), (1, 0), "the first asked before there was a cache");
    assert!(cache.underway.0.lock().of.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_what_would_not_be_served() {
    let cache = cache();
    let leader = query("t", FIRST, 0);
    let (_, _asking) = missed(cache.lookup(&leader).now_or_never());
    let check = |query: Query, waits: bool, row: &str| {
        let lookup = cache.lookup(&query).now_or_never();
        assert_eq!(lookup.is_none(), waits, "{row}");
    };
    check(query("t", SECOND, 0), true, "near");
    check(query("t", "How can I return 3 chairs?", 0), false, "another number");
    let (_, _greeted) = missed(cache.lookup(&query("t", "Hi Ada, how do I pay?", 0)).now_or_never());
    check(query("t", "Hi Bob, how do I pay?", 0), true, "but for a value that says nothing");
    check(query("t", "Hi Bob, how do I pay 7?", 0), false, "another number in it");
    check(query("other", SECOND, 0), false, "another tenant");
    check(query("t", SECOND, 1), false, "another form");
    check(Query { company: None, ..query("t", SECOND, 0) }, false, "without company");
    check(Query { company: leader.company, ..query("t", SECOND, 0) }, false, "the same call");
    let mut after = query("t", SECOND, 0);
    after.prompt.scope.turns = vec![Turn::new(Speaker::User, ["Hello"].into_iter(), Default::default())];
    check(after, false, "another conversation");
    let mut other = query("t", SECOND, 0);
    other.prompt.scope.cache = CacheName::parse("other").expect("a name");
    check(other, false, "another cache");
    // What is stored is served at once.
    insert(&cache, query("t", THIRD, 0).prompt, "By mail.").await;
    let found = begun(&cache, &query("t", SECOND, 0)).now_or_never();
    let Some(Lookup::Hit(matches)) = found else { panic!("it waits: {found:?}") };
    assert_eq!(matches[0].tier, Tier::Semantic);
}

#[tokio::test(start_paused = true)]
async fn of_those_who_waited_in_vain_one_asks_and_the_others_wait_once_more() {
    let cache = cache();
    let (_, first) = missed(cache.lookup(&query("t", FIRST, 0)).now_or_never());
    let queries: Vec<Query> = (0..5).map(|n| query("t", &format!("{SECOND}{}", "?".repeat(n)), 0)).collect();
    let mut waiting: Vec<_> = queries.iter().map(|query| begun(&cache, query)).collect();
    assert_eq!(ended(&mut waiting).len(), 0);
    drop(first);
    let second = ended(&mut waiting);
    assert_eq!((second.len(), waiting.len()), (1, 4));
    drop(second);
    let third = ended(&mut waiting);
    assert_eq!((third.len(), waiting.len()), (4, 0), "nobody waits for ever");
    drop(third);
    assert!(cache.underway.0.lock().of.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_wait_has_an_end() {
    let cache = cache();
    let (_, _asking) = missed(cache.lookup(&query("t", FIRST, 0)).now_or_never());
    let started = Instant::now();
    let (_, asking) = missed(Some(cache.lookup(&query("t", SECOND, 0)).await));
    assert!(asking.is_some());
    assert_eq!(started.elapsed(), WAIT_TIME_MAX);
}

#[tokio::test(start_paused = true)]
async fn of_each_tenant_only_so_many_are_compared() {
    let cache = cache();
    let lead = |tenant: &str, number: usize| {
        missed(cache.lookup(&query(tenant, &format!("What is {number}?"), 0)).now_or_never()).1
    };
    let held: Vec<_> = (0..QUESTIONS_MAX).map(|number| lead("t", number)).collect();
    assert!(held.iter().all(Option::is_some));
    assert!(lead("t", 1_000).is_none());
    assert!(lead("other", 1_000).is_some());
    drop(held);
    assert!(cache.underway.0.lock().of.is_empty());
}
