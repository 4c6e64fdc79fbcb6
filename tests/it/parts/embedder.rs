//! F16: an embedder that fails.

use std::sync::Arc;

use nearhit::contain::Contained;
use nearhit::embed::Embedder;
use nearhit::store::memory::MemoryStore;

use super::broken::{BrokenEmbedder, Dice, Lapse};
use super::{RATES, SHORT, Setup, count, questions, report};

async fn check(lapse: Lapse, reason: &str) {
    for percent in RATES {
        let dice = Dice::new(u64::from(percent));
        let embedder: Arc<dyn Embedder> = Arc::new(BrokenEmbedder { dice: Arc::clone(&dice), lapse });
        let embedder = Arc::new(Contained::new(embedder, SHORT));
        let setup = Setup::start(Arc::new(MemoryStore::default()), embedder).await;
        let kind = format!("{lapse:?}");
        let (asked, known) = (questions(&kind, 30), questions("what is known", 1));
        // A cache that holds nothing embeds nothing.
        setup.ask(&known).await;
        setup.client.wait_for_entries(1).await;
        dice.set(percent);
        let proxied = setup.ask(&asked).await;
        let api = setup.use_api(&questions(&format!("{kind} over the API"), 6)).await;
        dice.set(0);
        if percent == 100 {
            assert_eq!(count(&proxied, reason), asked.len(), "{proxied:?}");
            assert!(count(&api, reason) >= 6, "{api:?}");
        }
        // The exact tier needs no embedder.
        assert_eq!((count(&api, "inserted"), count(&api, "grpc hit")), (6, 6 * usize::from(cfg!(feature = "grpc"))));
        let kept = setup.check_kept(&asked).await;
        assert_eq!(kept, known.len() + asked.len() + 6, "whatever was answered is kept");
        report("embedder", &kind, percent, &proxied, &api, kept);
    }
}

#[tokio::test]
async fn an_embedder_that_gives_errors() {
    check(Lapse::Error, "embedder_down").await;
}

#[tokio::test]
async fn vectors_that_are_none() {
    for lapse in [Lapse::NotANumber, Lapse::Infinite, Lapse::Zero, Lapse::WrongLength, Lapse::Nothing] {
        check(lapse, "embedder_down").await;
    }
}

#[tokio::test]
async fn an_embedder_that_panics() {
    check(Lapse::Panic, "embedder_down").await;
}

#[tokio::test]
async fn an_embedder_that_says_nothing() {
    check(Lapse::Hang, "embed_timeout").await;
}

#[tokio::test]
async fn an_embedder_that_is_slow() {
    check(Lapse::Slow, "embed_timeout").await;
}
