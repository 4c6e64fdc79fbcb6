//! What the cache is told of its answers, and what it says of its errors.

use std::sync::Arc;

use super::learned::{Judged, Learned, Learnt};
use super::{Cache, embed};
use crate::decision::budget::Budget;
use crate::decision::budget::tune::{self, Recommendation};
use crate::decision::{CacheName, Entry, EntryId, Similarity, Tenant, dot, normalise};
use crate::embed::Asker;
use crate::store::{Owner, StoreError};

impl Cache {
    /// The entry that a decision was about, if it is still what it was.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn judged(&self, owner: &Owner, judged: &Judged) -> Result<Option<Arc<Entry>>, StoreError> {
        Ok(self.parts.store.get(judged.entry).await?.filter(|entry| Owner::of(entry) == *owner))
    }

    /// Learns whether the candidate of an earlier lookup was right; `None` if nobody could tell. `stored` is the entry
    /// that the fresh answer became.
    pub fn learn(&self, owner: &Owner, judged: &Judged, is_right: Option<bool>, stored: Option<EntryId>) {
        let Some(learned) = self.learning.of(owner) else { return };
        match is_right {
            Some(is_right) => learned.lock().learn(judged, is_right, stored),
            None => learned.lock().could_not_tell(),
        }
    }

    /// Takes a user's word on an entry's answer: to `prompt`'s text, or, without one, to what it last answered. False
    /// if there is no such entry.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn feedback(
        &self,
        owner: &Owner,
        id: EntryId,
        is_right: bool,
        text: Option<&str>,
    ) -> Result<bool, StoreError> {
        let Some(entry) = self.parts.store.get(id).await?.filter(|entry| Owner::of(entry) == *owner) else {
            return Ok(false);
        };
        let learned = self.learning.create(owner, self.policy(&owner.cache));
        match text.map(normalise) {
            None => learned.lock().hear(id, is_right),
            Some(text) if text == entry.text => learned.lock().hear_of_itself(id, is_right),
            Some(text) => {
                if let Some(score) = self.score(&owner.tenant, &text, &entry).await {
                    learned.lock().hear_of(id, score, is_right);
                }
            }
        }
        Ok(true)
    }

    /// What the entry's answer scores as one to `text`; `None` if that cannot be said or it would not be served.
    async fn score(&self, tenant: &Tenant, text: &str, entry: &Entry) -> Option<f64> {
        let (_, stored) = entry.place.as_ref()?;
        let embedder = self.parts.embedder.as_ref()?;
        let vector = embed(embedder.as_ref(), text, Asker::background(tenant)).await.ok()?;
        let similarity = Similarity::new(dot(vector.as_slice(), stored.as_slice()));
        self.guards.appraise(&self.guards.read(text), &self.guards.read(&entry.text), similarity).ok()
    }

    /// How similar two texts are; `None` if they cannot be embedded.
    pub async fn similarity(&self, tenant: &Tenant, a: &str, b: &str) -> Option<Similarity> {
        let embedder = self.parts.embedder.as_ref()?;
        let mut vectors = embedder.embed(&[a, b], Asker::background(tenant)).await.into_iter();
        let (a, b) = (vectors.next()?.ok()?, vectors.next()?.ok()?);
        Some(Similarity::new(dot(a.as_slice(), b.as_slice())))
    }

    /// What a cache learned of its errors; `None` where nothing was decided yet.
    pub fn learnt(&self, owner: &Owner) -> Option<Learnt> {
        self.learning.of(owner).map(|learned| learned.lock().learnt())
    }

    /// The bound that would have kept a budget, on what was compared so far.
    pub fn recommend(&self, owner: &Owner, budget: Budget) -> Recommendation {
        match self.learning.of(owner) {
            Some(learned) => learned.lock().recommend(budget),
            None => tune::nothing(),
        }
    }

    /// What every cache learned, to be restored by another process.
    ///
    /// # Errors
    /// It could not be written as JSON.
    pub fn save_learning(&self) -> serde_json::Result<Vec<u8>> {
        let mut lines = Vec::new();
        for owner in self.learning.owners() {
            if let Some(learned) = self.learning.of(&owner).filter(|learned| learned.lock().is_worth_keeping()) {
                let Owner { tenant, cache } = owner;
                serde_json::to_writer(&mut lines, &(tenant.as_str(), cache.as_str(), self.model(), &*learned.lock()))?;
                lines.push(b'\n');
            }
        }
        Ok(lines)
    }

    /// Takes back what [`save_learning`](Self::save_learning) wrote. What cannot be read is learned anew.
    ///
    /// # Errors
    /// A line is not as it was written; the others are taken.
    pub fn restore_learning(&self, lines: &[u8]) -> serde_json::Result<()> {
        let mut first_error = None;
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<(String, CacheName, String, Learned)>(line) {
                Ok((tenant, cache, model, learned)) if model == self.model() => {
                    let policy = *self.policy(&cache);
                    self.learning.restore(Owner { tenant: Tenant::new(tenant), cache }, learned, &policy);
                }
                // Another model's scores are worth something else.
                Ok(_) => {}
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn model(&self) -> &str {
        self.parts.embedder.as_ref().map_or("external", |embedder| embedder.model())
    }

    pub(super) fn is_barred(&self, entry: &Entry) -> bool {
        self.learning.of(&Owner::of(entry)).is_some_and(|learned| learned.lock().is_barred(entry.id))
    }

    /// Whether the entry's answer was wrong for somebody.
    pub(super) fn is_doubted(&self, entry: &Entry) -> bool {
        self.learning.of(&Owner::of(entry)).is_some_and(|learned| learned.lock().is_doubted(entry.id))
    }
}
