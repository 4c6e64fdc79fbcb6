//! Is a fresh answer the one that the cache held back, or served?
//!
//! Equal words are equal answers. Whether other words are another answer is for the judge that the operator names;
//! without one nobody knows, and what is not known is not learned from.

use crate::cache::{Cache, Held};
use crate::decision::{Answer, EntryId, Judge, same_words};
use crate::judge::{Case, PacedJudge};
use crate::store::Owner;
use crate::wire::request::text_of;

/// Whose question was answered anew, and who may be asked about it.
pub(crate) struct Comparison<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) judge: Option<&'a PacedJudge>,
    pub(crate) owner: &'a Owner,
    pub(crate) question: &'a str,
}

impl Comparison<'_> {
    /// Compares the fresh answer with the one that was held back or served, and lets the cache learn from it. `stored`
    /// is the entry that the fresh answer became. The verdict; `None` if there is none.
    pub(crate) async fn of(&self, held: &Held, fresh: &Answer, stored: Option<EntryId>) -> Option<bool> {
        if !self.is_current(held).await {
            return None;
        }
        let verdict = self.verdict(&text_of(fresh), &text_of(&held.entry.answer)).await;
        // A judge takes its time: the entry may have another answer by now.
        let verdict = if self.is_current(held).await { verdict } else { None };
        self.cache.learn(self.owner, &held.judged, verdict, stored);
        verdict
    }

    async fn verdict(&self, fresh: &str, held: &str) -> Option<bool> {
        let Self { cache, judge, owner, question } = self;
        let is_same = same_words(fresh, held);
        match cache.policy(&owner.cache).judge {
            Judge::Model => {
                let case = Case { question, first: held, second: fresh };
                let verdict = judge.as_ref()?.is_same(case, is_same, fastrand::f64()).await;
                cache.metrics().judged(match verdict {
                    Ok(true) => "same",
                    Ok(false) => "different",
                    Err(undecided) => undecided.as_str(),
                });
                verdict.ok()
            }
            _ if is_same => Some(true),
            Judge::Nobody => None,
            Judge::Words => Some(false),
            Judge::Embedding(least) => {
                cache.similarity(&owner.tenant, fresh, held).await.map(|similarity| similarity >= least)
            }
        }
    }

    async fn is_current(&self, held: &Held) -> bool {
        self.cache.is_current(held).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "could not read what a fresh answer was to be compared with");
            false
        })
    }
}
