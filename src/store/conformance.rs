//! What every store must do, whatever it is made of: one suite, run against each.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Filter, Owner, Removed, Store, WantedSource, Which};
use crate::decision::{
    Answer, AnswerKind, CacheName, Embedding, Entry, EntryId, Fingerprint, Life, Origin, Partition, Prompt, Scope,
    Source, Tenant,
};

/// Runs the whole suite against an empty store.
pub async fn check(store: &dyn Store) {
    let (one, two) = (entry("t", "c", 1, &[1.0, 0.0]), entry("t", "c", 2, &[0.8, 0.6]));
    let foreign = entry("u", "c", 1, &[1.0, 0.0]);
    let partition = one.place.as_ref().expect("a place").0;
    let near = |x: f32, y: f32| Embedding::new(vec![x, y]).expect("not zero");

    assert!(store.get(one.id).await.expect("read").is_none(), "an empty store has no entry");
    assert!(store.nearest(partition, &near(1.0, 0.0), 3, NOW).await.expect("search").is_empty());
    assert!(store.usage().is_empty());

    store.put(vec![one.clone(), two.clone(), foreign.clone()]).await.expect("put");
    assert_same(store, &one).await;

    let found = store.nearest(partition, &near(1.0, 0.1), 3, NOW).await.expect("search");
    let ids: Vec<_> = found.iter().map(|candidate| candidate.entry.id).collect();
    assert_eq!(ids, [one.id, two.id], "nearest first, and only of the partition");
    assert!((found[0].similarity.get() - near(1.0, 0.1).similarity(&near(1.0, 0.0)).get()).abs() < 1e-4);
    assert_eq!(
        store.nearest(partition, &near(1.0, 0.1), 1, NOW).await.expect("search").len(),
        1,
        "no more than asked for"
    );

    let mut newer = one.clone();
    newer.answer.body = "another answer".into();
    store.put(vec![newer.clone()]).await.expect("put");
    assert_same(store, &newer).await;
    assert_eq!(
        store.nearest(partition, &near(1.0, 0.0), 9, NOW).await.expect("search").len(),
        2,
        "and does not double"
    );
    check_moved(store, &newer).await;
    check_replaced(store, &newer).await;
    check_usage(store).await;
    check_pages(store, &one, &two).await;
    check_removal(store, &newer, &two, &foreign).await;
}

/// An entry that is put again with another vector is found at the new place only.
async fn check_moved(store: &dyn Store, entry: &Entry) {
    let (partition, home) = entry.place.clone().expect("a place");
    let away = Embedding::new(vec![-1.0, 0.0]).expect("not zero");
    store.put(vec![Entry { place: Some((partition, away.clone())), ..entry.clone() }]).await.expect("put");
    let found = store.nearest(partition, &away, 1, NOW).await.expect("search");
    assert_eq!(found[0].entry.id, entry.id);
    assert!(found[0].similarity.get() > 0.999_99);
    store.put(vec![entry.clone()]).await.expect("put");
    let found = store.nearest(partition, &home, 9, NOW).await.expect("search");
    assert_eq!(found.iter().filter(|candidate| candidate.entry.id == entry.id).count(), 1);
}

/// Who replaces an entry must have seen it as it is.
async fn check_replaced(store: &dyn Store, entry: &Entry) {
    let seen = store.get(entry.id).await.expect("read").expect("an entry");
    let mut other = entry.clone();
    other.answer.body = "an answer that came in between".into();
    store.put(vec![other.clone()]).await.expect("put");
    assert!(!store.replace(&seen, entry.clone()).await.expect("replace"), "it is another by now");
    assert_same(store, &other).await;
    let seen = store.get(entry.id).await.expect("read").expect("an entry");
    assert!(store.replace(&seen, entry.clone()).await.expect("replace"));
    assert_same(store, entry).await;
    let gone = Arc::new(Entry { id: EntryId::from_bytes([9; 16]), ..entry.clone() });
    assert!(!store.replace(&gone, Entry::clone(&gone)).await.expect("replace"), "it was never there");
}

async fn check_usage(store: &dyn Store) {
    let mut usage = store.usage();
    usage.sort_by(|a, b| a.0.cmp(&b.0));
    let entries: Vec<_> = usage.iter().map(|(owner, usage)| (owner.tenant.as_str(), usage.entries)).collect();
    assert_eq!(entries, [("t", 2), ("u", 1)]);
    assert!(usage.iter().all(|(_, usage)| usage.bytes > 0));
}

async fn check_pages(store: &dyn Store, one: &Entry, two: &Entry) {
    let owner = Owner::of(one);
    let mut expected = [one.id, two.id];
    expected.sort();
    let first = store.scan(&owner, None, 1).await.expect("scan");
    assert_eq!(ids(&first), expected[..1]);
    assert_eq!(ids(&store.scan(&owner, Some(expected[0]), 9).await.expect("scan")), expected[1..]);
    assert!(store.scan(&owner, Some(expected[1]), 9).await.expect("scan").is_empty());
}

async fn check_removal(store: &dyn Store, one: &Entry, two: &Entry, foreign: &Entry) {
    let (owner, partition) = (Owner::of(one), one.place.as_ref().expect("a place").0);
    let filter = |which: Which| Filter { owner: owner.clone(), which, dry_run: false };
    let removed = |matched: u64| Removed { matched, deleted: matched };
    let remove = |which: Which| async { store.remove(&filter(which)).await.expect("remove") };

    let dry = Filter { dry_run: true, ..filter(Which::All) };
    assert_eq!(store.remove(&dry).await.expect("remove"), Removed { matched: 2, deleted: 0 });
    assert_eq!(remove(Which::Id(foreign.id)).await, removed(0), "another tenant's entry is out of reach");
    assert_eq!(remove(Which::Tags(["none".to_owned()].into())).await, removed(0));
    assert_eq!(remove(Which::Id(one.id)).await, removed(1));
    assert!(store.get(one.id).await.expect("read").is_none());
    let left =
        store.nearest(partition, &Embedding::new(vec![1.0, 0.0]).expect("not zero"), 9, NOW).await.expect("search");
    assert_eq!(left.iter().map(|candidate| candidate.entry.id).collect::<Vec<_>>(), [two.id]);

    for which in [
        Which::Tags(["tag-2".to_owned(), "other".to_owned()].into()),
        Which::Attributes([("n".to_owned(), "2".to_owned())].into()),
        Which::Sources([WantedSource { id: "doc".into(), version: Some("2".into()) }].into()),
        Which::Writer("writer-2".into()),
        Which::CreatedUntil(two.life.created_ms),
        Which::All,
    ] {
        assert_eq!(remove(which.clone()).await, removed(1), "{which:?}");
        store.put(vec![two.clone()]).await.expect("put");
    }
    assert_eq!(remove(Which::CreatedUntil(two.life.created_ms - 1)).await, removed(0));
    assert_eq!(remove(Which::All).await, removed(1));
    assert_same(store, foreign).await;
}

/// What was put is got, to the field; of a vector its direction, as near as half precision has it.
async fn assert_same(store: &dyn Store, put: &Entry) {
    let got = store.get(put.id).await.expect("read").expect("an entry");
    assert_eq!(Entry { place: None, ..Entry::clone(&got) }, Entry { place: None, ..put.clone() });
    let ((partition, vector), (own, own_vector)) =
        (got.place.clone().expect("a place"), put.place.clone().expect("a place"));
    assert_eq!(partition, own);
    assert!(vector.similarity(&own_vector).get() > 0.999_99);
}

/// Before anything expires.
const NOW: u64 = 2000;

fn ids(entries: &[Arc<Entry>]) -> Vec<EntryId> {
    entries.iter().map(|entry| entry.id).collect()
}

/// An entry that differs from every other of this suite in all its fields.
fn entry(tenant: &str, cache: &str, n: u64, vector: &[f32]) -> Entry {
    let number = n.to_string();
    let scope = Scope::bare(Tenant::new(tenant), CacheName::parse(cache).expect("a valid name"));
    let prompt = Prompt::new(scope, &format!("question {n}"), Default::default());
    let (fingerprint, _, slots) = Fingerprint::split(&prompt);
    let embedding = Embedding::new(vector.to_vec()).expect("not zero");
    Entry {
        id: EntryId::of(&fingerprint),
        fingerprint,
        tenant: prompt.scope.tenant,
        cache: prompt.scope.cache,
        text: prompt.text,
        slots,
        vars: [("name".to_owned(), number.clone())].into(),
        origin: Origin::Prompt { context: None },
        attributes: [("n".to_owned(), number.clone())].into(),
        tags: BTreeSet::from([format!("tag-{n}")]),
        sources: [Source { id: "doc".into(), version: number }].into(),
        writer: format!("writer-{n}"),
        answer: Answer { kind: AnswerKind::Text, body: format!("answer {n}"), usage: None },
        life: Life { created_ms: 1000 + n, expires_ms: 1_000_000 },
        place: Some((Partition::new(&fingerprint, "m"), embedding)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn memory() {
        check(&MemoryStore::default()).await;
    }

    #[cfg(feature = "local")]
    fn open(
        folder: &std::path::Path,
        durability: crate::store::Durability,
    ) -> Result<crate::store::local::LocalStore, crate::store::OpenStoreError> {
        let clock = Arc::new(crate::clock::ManualClock::at(NOW));
        crate::store::local::LocalStore::open(folder, durability, crate::store::Limits::default(), clock)
    }

    #[cfg(feature = "local")]
    #[tokio::test]
    async fn local() {
        use crate::store::Durability;

        for durability in [Durability::Group, Durability::Each, Durability::Async] {
            let folder = tempfile::tempdir().expect("a folder");
            check(&open(folder.path(), durability).expect("open")).await;
        }
    }

    #[cfg(feature = "local")]
    #[tokio::test]
    async fn local_entries_outlive_the_store() {
        use crate::store::{Durability, OpenStoreError};

        let folder = tempfile::tempdir().expect("a folder");
        let (kept, gone) = (entry("t", "c", 1, &[1.0, 0.0]), entry("t", "c", 2, &[0.0, 1.0]));
        let store = open(folder.path(), Durability::Group).expect("open");
        store.put(vec![kept.clone(), gone.clone()]).await.expect("put");
        let filter = Filter { owner: Owner::of(&gone), which: Which::Id(gone.id), dry_run: false };
        store.remove(&filter).await.expect("remove");
        let second = open(folder.path(), Durability::Group);
        assert!(matches!(second, Err(OpenStoreError::Locked { .. })), "one process at a time");
        drop(store);

        let store = open(folder.path(), Durability::Group).expect("open again");
        assert_same(&store, &kept).await;
        assert!(store.get(gone.id).await.expect("read").is_none());
        let (partition, embedding) = kept.place.clone().expect("a place");
        let found = store.nearest(partition, &embedding, 9, NOW).await.expect("search");
        assert_eq!(found.len(), 1);
        assert_eq!(store.usage()[0].1.entries, 1);
    }
}
