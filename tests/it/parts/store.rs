//! A store that fails.

use std::sync::Arc;

use nearhit::contain::Contained;
use nearhit::store::Store;

use super::broken::{BrokenEmbedder, BrokenStore, Dice, Failure, Lapse};
use super::{RATES, SHORT, Setup, count, questions, report};

async fn check(failure: Failure) {
    for percent in RATES {
        let dice = Dice::new(u64::from(percent));
        let store: Arc<dyn Store> = Arc::new(BrokenStore::new(&dice, failure));
        let embedder = Arc::new(BrokenEmbedder { dice: Dice::new(0), lapse: Lapse::Error });
        let setup = Setup::start(Arc::new(Contained::new(store, SHORT)), embedder).await;
        let kind = format!("{failure:?}");
        let (asked, known) = (questions(&kind, 30), questions("what is known", 10));
        setup.ask(&known).await;
        setup.client.wait_for_entries(10).await;
        dice.set(percent);
        let all: Vec<String> = known.iter().chain(&asked).cloned().collect();
        let mut proxied = setup.ask(&all).await;
        for (what, count) in setup.ask(&asked).await {
            *proxied.entry(what).or_default() += count;
        }
        let api = setup.use_api(&questions(&format!("{kind} over the API"), 6)).await;
        if percent == 100 {
            let cannot_read = matches!(failure, Failure::Read | Failure::Panic | Failure::Hang);
            let cannot_write = !matches!(failure, Failure::Read | Failure::Mixup);
            let down = count(&proxied, "store_down");
            // While an answer is being stored, others share it.
            let expected = if cannot_read { all.len() + asked.len() - count(&proxied, "hit joined") } else { 0 };
            assert_eq!(down, expected, "{proxied:?}");
            assert_eq!(count(&api, "inserted"), if cannot_write { 0 } else { 6 }, "{api:?}");
        }
        dice.set(0);
        let kept = setup.check_kept(&all).await;
        report("store", &kind, percent, &proxied, &api, kept);
    }
}

#[tokio::test]
async fn reads_that_fail() {
    check(Failure::Read).await;
}

#[tokio::test]
async fn writes_that_fail() {
    check(Failure::Write).await;
    check(Failure::Full).await;
}

#[tokio::test]
async fn a_store_that_panics() {
    check(Failure::Panic).await;
}

#[tokio::test]
async fn a_store_that_says_nothing() {
    check(Failure::Hang).await;
}

/// A right entry of another question is a wrong answer.
#[tokio::test]
async fn entries_of_others() {
    check(Failure::Mixup).await;
}
