//! Questions whose answers are on their way: one that is near enough to another waits for that one's answer, and is then
//! looked up again.
//!
//! Nothing is served from here. Whoever waited is served what a lookup finds, by all of its rules, or nothing.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::learned::Learned;
use super::near::{Asked, Field, NEIGHBOURS};
use super::{Cache, Lookup, Match, NewEntry, Query, owner};
use crate::decision::{Answer, AnswerKind, Candidate, Embedding, Entry, EntryId, Origin, Question, Tenant, Tier, Turn};
use crate::templates;

/// With whom a question may share an answer that is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Company {
    /// What both must have in common beside their scope.
    pub form: [u8; 32],
    /// The call that it would make: questions with the same one share that.
    pub call: [u8; 32],
    /// How often it still waits for others.
    pub waits: u32,
}

impl Company {
    pub fn new(form: [u8; 32], call: [u8; 32]) -> Self {
        Self { form, call, waits: WAITS_MAX }
    }

    /// After a wait that ended with the other's answer, or without it.
    pub(super) fn having_waited(self, has_landed: bool) -> Self {
        Self { waits: if has_landed { self.waits.saturating_sub(1) } else { 0 }, ..self }
    }
}

/// The questions of all tenants.
#[derive(Default)]
pub(super) struct Underway(Mutex<Questions>);

#[derive(Default)]
struct Questions {
    /// In the order of their numbers.
    of: HashMap<Tenant, Vec<Arc<Pending>>>,
    last_number: u64,
}

/// A question on its way, to be waited for.
struct Pending {
    number: u64,
    company: Company,
    turns: Vec<Turn>,
    /// As it would be stored, but for its answer.
    entry: Arc<Entry>,
    landed: Landed,
}

/// Ends when an answer that was on its way is stored, or will not be.
#[derive(Clone)]
pub(super) struct Landed(watch::Receiver<()>);

/// A question on its way. Dropped, whoever waits for its answer looks for it.
pub struct Asking {
    underway: Arc<Underway>,
    tenant: Tenant,
    number: u64,
    _landing: watch::Sender<()>,
}

/// What became of a question that is not in the cache.
pub(super) enum Entered {
    /// Nothing that would do is on its way. Others may wait for this one, if there was room for it.
    Leads(Option<Arc<Asking>>),
    Waits(Landed),
}

impl Landed {
    /// False if that takes too long.
    pub(super) async fn wait(mut self) -> bool {
        // Nothing is ever sent: it changes when the other end is dropped.
        tokio::time::timeout(WAIT_TIME_MAX, self.0.changed()).await.is_ok()
    }
}

impl Underway {
    /// Finds a question that is near enough by `is_near`, or joins those on their way.
    fn enter(
        self: &Arc<Self>,
        entry: Entry,
        turns: &[Turn],
        company: Company,
        is_near: impl Fn(&Candidate) -> bool,
    ) -> Entered {
        let entry = Arc::new(entry);
        let mut seen = 0;
        loop {
            let mut fresh = Vec::new();
            {
                let mut questions = self.0.lock();
                let Questions { of, last_number } = &mut *questions;
                let all = of.entry(entry.tenant.clone()).or_default();
                if company.waits > 0 {
                    let unseen = all.iter().filter(|pending| pending.number > seen);
                    fresh.extend(unseen.filter_map(|pending| pending.candidate(&entry, turns, company)));
                    seen = all.last().map_or(seen, |pending| pending.number);
                }
                // Looked at without the lock; then for those that came meanwhile.
                if fresh.is_empty() {
                    if all.len() >= QUESTIONS_MAX {
                        return Entered::Leads(None);
                    }
                    *last_number += 1;
                    let number = *last_number;
                    let (landing, landed) = watch::channel(());
                    let (turns, tenant) = (turns.to_vec(), entry.tenant.clone());
                    all.push(Arc::new(Pending { number, company, turns, entry, landed: Landed(landed) }));
                    let underway = Arc::clone(self);
                    return Entered::Leads(Some(Arc::new(Asking { underway, tenant, number, _landing: landing })));
                }
            }
            fresh.sort_by(|(a, _), (b, _)| b.similarity.get().total_cmp(&a.similarity.get()));
            let near = fresh.into_iter().take(NEIGHBOURS).find(|(candidate, _)| is_near(candidate));
            if let Some((_, landed)) = near {
                return Entered::Waits(landed);
            }
        }
    }
}

impl Pending {
    /// As a candidate for a question, if both may share an answer.
    fn candidate(&self, entry: &Entry, turns: &[Turn], company: Company) -> Option<(Candidate, Landed)> {
        let ((place, vector), (own_place, own_vector)) = (entry.place.as_ref()?, self.entry.place.as_ref()?);
        let may_share = place == own_place && company.form == self.company.form && turns == self.turns;
        // The same call is shared as it comes.
        if !may_share || company.call == self.company.call {
            return None;
        }
        let candidate = Candidate { entry: Arc::clone(&self.entry), similarity: vector.similarity(own_vector) };
        Some((candidate, self.landed.clone()))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut questions = self.underway.0.lock();
        if let Some(all) = questions.of.get_mut(&self.tenant) {
            all.retain(|pending| pending.number != self.number);
            if all.is_empty() {
                questions.of.remove(&self.tenant);
            }
        }
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Lookup {
    /// What is found after a wait for somebody else's answer.
    pub(super) fn joined(self) -> Self {
        let joined = |found: Match| match found.tier {
            Tier::Exact => found,
            _ => Match { tier: Tier::Joined, ..found },
        };
        match self {
            Self::Hit(matches) => Self::Hit(matches.into_iter().map(joined).collect()),
            miss => miss,
        }
    }
}

impl Cache {
    /// Joins the questions on their way, unless one of them would be served once it is stored.
    pub(super) async fn enter(&self, asked: Asked<'_>, company: Company, vector: &Embedding) -> Entered {
        let Asked { query, fingerprint, template, slots } = asked;
        let prompt = query.prompt.clone();
        let turns = prompt.scope.turns.clone();
        let new = NewEntry {
            origin: Origin::Prompt { context: None },
            answer: Answer { kind: AnswerKind::Text, body: String::new(), usage: None },
            tags: Default::default(),
            sources: Default::default(),
            writer: String::new(),
            created_ms: None,
            ttl: None,
            vector: Some(vector.clone()),
            prompt,
        };
        let (entry, _) = self.entry(new).await;
        let Query { prompt, terms, .. } = query;
        let question = Question { text: &prompt.text, slots, guards: self.guards() };
        let (policy, now_ms) = (self.policy(&prompt.scope.cache), self.now_ms());
        let (templates, guards) = self.templates();
        let by_template = templates::Asked { prompt, fingerprint, template, named: slots, terms, now_ms };
        let is_near = |candidate: &Candidate| {
            let Candidate { entry, similarity: _ } = candidate;
            let appraisal = policy.appraise(&question, std::slice::from_ref(candidate), terms, now_ms);
            appraisal.accepted.first().is_some_and(|(_, score)| self.would_serve(query, [(entry.id, *score)]))
                || templates.asks_the_same(&by_template, entry, guards)
                    && self.with_learned(query, Learned::would_serve_template)
        };
        self.underway.enter(entry, &turns, company, is_near)
    }

    /// Whether something that is stored would be served, were nothing to be learned by not serving it.
    pub(super) fn has_served(&self, query: &Query, field: &Field) -> bool {
        self.would_serve(query, field.scored())
    }

    fn would_serve(&self, query: &Query, scored: impl IntoIterator<Item = (EntryId, f64)>) -> bool {
        let mut scored = scored.into_iter();
        self.with_learned(query, |learned| scored.any(|(id, score)| learned.would_serve(id, score)))
    }

    /// What the cache learned, or would begin with.
    fn with_learned<T>(&self, query: &Query, read: impl FnOnce(&Learned) -> T) -> T {
        let owner = owner(&query.prompt);
        match self.learning.of(&owner) {
            Some(learned) => read(&learned.lock()),
            None => read(&Learned::new(&self.policy(&owner.cache))),
        }
    }
}

/// Questions of a tenant that others can wait for: each is compared with every new one.
const QUESTIONS_MAX: usize = 256;

/// Answers that one question waits for, one after another: the first may fail, and then one of those who waited asks.
const WAITS_MAX: u32 = 2;

/// Longest wait for an answer of somebody else's: their client may be slow to read it.
const WAIT_TIME_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
