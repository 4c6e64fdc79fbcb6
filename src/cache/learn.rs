//! What the cache is told of its answers, and what it says of its errors.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::IgnoredAny;

use super::learned::{Judged, Learned, Learnt};
use super::{Cache, embed};
use crate::decision::budget::Budget;
use crate::decision::budget::tune::{self, Recommendation};
use crate::decision::{
    CacheName, Candidate, Entry, EntryId, Prompt, Question, Scope, Similarity, Template, Tenant, Terms, dot, normalise,
};
use crate::embed::Asker;
use crate::store::{Filter, Owner, StoreError, Which};

/// A candidate that was decided on, with what it answers.
#[derive(Debug, Clone)]
pub struct Held {
    pub judged: Judged,
    /// The entry as it was then; its answer stands around the question's value where it was refilled.
    pub entry: Arc<Entry>,
}

impl Cache {
    /// Whether what a decision was about is still stored, with the answer that it had.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn is_current(&self, held: &Held) -> Result<bool, StoreError> {
        let Held { judged, entry: then } = held;
        let now = self.parts.store.get(then.id).await?;
        Ok(now.is_some_and(|now| {
            let is_refilled = judged.is_by_template();
            now.fingerprint.exact == then.fingerprint.exact
                && now.life.created_ms == then.life.created_ms
                && (is_refilled || now.answer == then.answer)
        }))
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
        let learned = self.learning.create(owner, &self.policy(&owner.cache));
        match text.map(normalise) {
            None => learned.lock().hear(id, is_right),
            Some(text) if text == entry.text => learned.lock().hear_of_itself(id, is_right),
            Some(text) if self.templates.is_alike(&entry, &text, &self.guards) => {
                learned.lock().hear_of_template(id, is_right);
            }
            Some(text) => {
                if let Some(score) = self.score(&text, &entry).await {
                    learned.lock().hear_of(id, score, is_right);
                }
            }
        }
        Ok(true)
    }

    /// What the entry's answer scores as one to `text`, as a lookup would score it; `None` if that cannot be said or it
    /// would not be served.
    async fn score(&self, text: &str, entry: &Arc<Entry>) -> Option<f64> {
        let (_, stored) = entry.place.as_ref()?;
        let embedder = self.parts.embedder.as_ref()?;
        let scope = Scope::bare(entry.tenant.clone(), entry.cache.clone());
        let (template, slots) = Template::split(&Prompt::new(scope, text, entry.vars.clone()));
        let vector = embed(embedder.as_ref(), &template.text(), Asker::background(&entry.tenant)).await.ok()?;
        let similarity = Similarity::new(dot(vector.as_slice(), stored.as_slice()));
        let question = Question { text, slots: &slots, guards: &self.guards };
        let candidates = [Candidate { entry: Arc::clone(entry), similarity }];
        let policy = self.policy(&entry.cache);
        let appraisal = policy.appraise(&question, &candidates, &Terms::default(), self.now_ms());
        appraisal.accepted.first().map(|(_, score)| *score)
    }

    /// How similar two texts are; `None` if they cannot be embedded.
    pub async fn similarity(&self, tenant: &Tenant, a: &str, b: &str) -> Option<Similarity> {
        let embedder = self.parts.embedder.as_ref()?;
        let mut vectors = embedder.embed(&[a, b], Asker::background(tenant)).await.into_iter();
        let (a, b) = (vectors.next()?.ok()?, vectors.next()?.ok()?);
        Some(Similarity::new(dot(a.as_slice(), b.as_slice())))
    }

    /// What a cache learned of its errors; `None` where nothing was decided yet. Entries that are gone are forgotten.
    pub async fn learnt(&self, owner: &Owner) -> Option<Learnt> {
        let learned = self.learning.of(owner)?;
        let ids = learned.lock().quarantined();
        let (now_ms, is_loading) = (self.now_ms(), self.parts.store.health().loading);
        let mut quarantined = ids.len().saturating_sub(LOOKED_AT);
        for id in ids.into_iter().take(LOOKED_AT) {
            match self.parts.store.get(id).await {
                Ok(Some(entry)) => quarantined += usize::from(!entry.life.is_over(now_ms)),
                Ok(None) if !is_loading => learned.lock().forget(id),
                Ok(None) | Err(_) => quarantined += 1,
            }
        }
        let learnt = learned.lock().learnt();
        Some(Learnt { quarantined, ..learnt })
    }

    /// What was removed has nothing to learn from.
    pub(super) fn forget_removed(&self, filter: &Filter) {
        let Filter { owner, which, dry_run } = filter;
        match which {
            _ if *dry_run => {}
            Which::All => self.learning.drop_of(owner),
            Which::Id(id) => {
                self.learning.of(owner).inspect(|learned| learned.lock().forget(*id));
            }
            // Gone entries are forgotten when they are counted.
            _ => {}
        }
    }

    /// Done once what a cache had learned was dropped, since this was last done.
    pub async fn learning_dropped(&self) {
        self.learning.dropped().await;
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
        // Its own come last: of complaints they know most.
        let mut lines = self.learning.others();
        for owner in self.learning.owners() {
            // A copy: lookups wait for that, and not for what it takes to write it.
            let copy = self.learning.of(&owner).and_then(|learned| learned.lock().worth_keeping());
            if let Some(copy) = copy {
                let Owner { tenant, cache } = owner;
                serde_json::to_writer(&mut lines, &(VERSION, tenant.as_str(), cache.as_str(), self.model(), &copy))?;
                lines.push(b'\n');
            }
        }
        Ok(lines)
    }

    /// Takes back what [`save_learning`](Self::save_learning) wrote. What was learned with another model, or written by a
    /// later version, is kept as it is; complaints that are not about scores are taken from either. What cannot be read
    /// is learned anew.
    ///
    /// # Errors
    /// A line is not as it was written; the others are taken.
    pub fn restore_learning(&self, lines: &[u8]) -> serde_json::Result<()> {
        let mut first_error = None;
        let mut complaints = HashMap::new();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match Line::read(line) {
                Ok(Line { owner, model, learned: Some(learned) }) => {
                    complaints.insert(owner.clone(), learned.complaints());
                    if model == self.model() {
                        let policy = self.policy(&owner.cache);
                        self.learning.restore(owner, learned, &policy);
                    } else {
                        // Another model's scores are worth something else.
                        self.learning.keep_other(owner, line);
                    }
                }
                Ok(Line { owner, model: _, learned: None }) => self.learning.keep_other(owner, line),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        for (owner, complaints) in complaints {
            self.learning.restore_complaints(&owner, complaints, &self.policy(&owner.cache));
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

/// What one cache learned with one model, as it is kept.
struct Line {
    owner: Owner,
    model: String,
    /// `None` where only a later version can read it.
    learned: Option<Learned>,
}

impl Line {
    fn read(line: &[u8]) -> serde_json::Result<Self> {
        let (version, tenant, cache, model, learned) = if line.starts_with(b"[\"") {
            let (tenant, cache, model, learned) = serde_json::from_slice::<(String, CacheName, String, Learned)>(line)?;
            (1, tenant, cache, model, Some(learned.without_template_bin()))
        } else {
            let (version, tenant, cache, model, _) =
                serde_json::from_slice::<(u32, String, CacheName, String, IgnoredAny)>(line)?;
            (version, tenant, cache, model, None)
        };
        let learned = match learned {
            None if version == VERSION => {
                let whole: (IgnoredAny, IgnoredAny, IgnoredAny, IgnoredAny, Learned) = serde_json::from_slice(line)?;
                Some(whole.4)
            }
            learned => learned,
        };
        Ok(Self { owner: Owner { tenant: Tenant::new(tenant), cache }, model, learned })
    }
}

/// Of the lines. In version 1, which does not say so, the bin of templates was one of scores.
const VERSION: u32 = 2;

/// Quarantined entries that are looked for at a time.
const LOOKED_AT: usize = 1_000;

#[cfg(test)]
mod tests;
