//! Is a fresh answer the one that the cache held back, or served?
//!
//! Equal words are equal answers. Whether other words are another answer is for the judge that the operator names;
//! without one nobody knows, and what is not known is not learned from.

use crate::cache::{Cache, Judged};
use crate::decision::{Answer, EntryId, Judge, same_words};
use crate::store::Owner;
use crate::wire::request::text_of;

/// Compares the answer with the one that was judged, and lets the cache learn from it. `stored` is the entry that the
/// fresh answer became. The verdict; `None` if there is none.
pub(crate) async fn compare(
    cache: &Cache,
    owner: &Owner,
    judged: &Judged,
    fresh: &Answer,
    stored: Option<EntryId>,
) -> Option<bool> {
    let entry = match cache.judged(owner, judged).await {
        Ok(entry) => entry?,
        Err(error) => {
            tracing::warn!(%error, "could not read what a fresh answer was to be compared with");
            return None;
        }
    };
    let (new, old) = (text_of(fresh), text_of(&entry.answer));
    let verdict = match cache.policy(&owner.cache).judge {
        _ if same_words(&new, &old) => Some(true),
        Judge::Nobody => None,
        Judge::Words => Some(false),
        Judge::Embedding(least) => {
            cache.similarity(&owner.tenant, &new, &old).await.map(|similarity| similarity >= least)
        }
    };
    cache.learn(owner, judged, verdict, stored);
    verdict
}
