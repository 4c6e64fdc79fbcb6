//! The semantic tier: what is near, what the rules say of it, and what the budget lets through.

use std::sync::Arc;
use std::time::Instant;

use super::learned::{Choice, ChoiceTerms, Judged};
use super::underway::Entered;
use super::{Cache, Held, Lookup, Match, Miss, Nearest, Query, embed, matched, owner};
use crate::decision::{
    Candidate, Embedding, EntryId, Fingerprint, Partition, Probability, Question, Reason, Similarity, Slots, Template,
    Tier, plain_score,
};
use crate::embed::Asker;

/// A question, and how it was split.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) query: &'a Query,
    pub(super) fingerprint: &'a Fingerprint,
    pub(super) template: &'a Template,
    pub(super) slots: &'a Slots,
}

/// A candidate that no rule refuses.
struct Accepted {
    /// Its place among the candidates.
    index: usize,
    score: f64,
    /// How near its context is, where that may differ.
    context: Option<Similarity>,
}

/// The candidates of a request, most similar first, with what the rules made of them.
pub(super) struct Field {
    candidates: Vec<Candidate>,
    accepted: Vec<Accepted>,
    /// The first that a rule refuses, and which rule.
    refused: Option<(usize, Reason)>,
    now_ms: u64,
}

impl Cache {
    /// Looks for what is near enough, here or on its way. `stale` is the reason for a miss that is known already.
    pub(super) async fn find_near(
        &self,
        asked: Asked<'_>,
        vector: Embedding,
        stale: Option<Reason>,
        started: &mut Instant,
    ) -> Lookup {
        let query = asked.query;
        let field = match self.near(asked, &vector).await {
            Ok(field) => field,
            Err(reason) => return Lookup::Miss(Miss { vector: Some(vector), ..Miss::because(reason) }),
        };
        let mut asking = None;
        if let Some(company) = query.company
            && !self.has_served(query, &field)
        {
            match self.enter(asked, company, &vector).await {
                Entered::Leads(led) => asking = led,
                Entered::Waits(landed) => {
                    let waiting = Instant::now();
                    let company = Some(company.having_waited(landed.wait().await));
                    *started += waiting.elapsed();
                    let again = Query { vector: Some(vector), company, ..query.clone() };
                    return Box::pin(self.find(&again, started)).await.joined();
                }
            }
        }
        match self.decide(query, field, vector, stale) {
            Lookup::Miss(miss) => Lookup::Miss(Miss { asking, ..miss }),
            hit => hit,
        }
    }

    /// The prompt's vector: the caller's, or the embedder's within the caller's patience.
    pub(super) async fn vector(&self, query: &Query, text: &str) -> Result<Embedding, Reason> {
        if let Some(vector) = &query.vector {
            return Ok(vector.clone());
        }
        let embedder = self.parts.embedder.as_ref().ok_or(Reason::EmbedderDown)?;
        let asker = Asker::lookup(&query.prompt.scope.tenant);
        let started = Instant::now();
        let result = match query.patience {
            None => embed(embedder.as_ref(), text, asker).await,
            Some(patience) => match tokio::time::timeout(patience, embed(embedder.as_ref(), text, asker)).await {
                Ok(result) => result,
                Err(_) => Err(Reason::EmbedTimeout),
            },
        };
        self.metrics.embedded(started.elapsed());
        result
    }

    /// What is near, and what the rules say of it.
    async fn near(&self, asked: Asked<'_>, vector: &Embedding) -> Result<Field, Reason> {
        let Asked { query, fingerprint, template: _, slots } = asked;
        let partition = Partition::new(fingerprint, &self.space(vector));
        let wanted = NEIGHBOURS.max(query.limit);
        let now_ms = self.now_ms();
        let candidates = match self.store().nearest(partition, vector, wanted, now_ms).await {
            Ok(candidates) => candidates,
            Err(error) => {
                tracing::warn!(%error, "could not search the store");
                return Err(Reason::StoreDown);
            }
        };
        Ok(self.field(query, candidates, slots, now_ms).await)
    }

    /// Takes what is near enough. `stale` is the reason for a miss that is known already.
    fn decide(&self, query: &Query, field: Field, vector: Embedding, stale: Option<Reason>) -> Lookup {
        if field.candidates.is_empty() {
            return Lookup::Miss(Miss { vector: Some(vector), ..Miss::because(stale.unwrap_or(Reason::Empty)) });
        }
        let miss = |reason: Reason, index: Option<usize>, judged: Option<Judged>| {
            let nearest = index.and_then(|index| field.nearest(index, reason));
            let judged = judged.and_then(|judged| field.held(judged));
            Lookup::Miss(Miss { nearest, vector: Some(vector), judged, ..Miss::because(stale.unwrap_or(reason)) })
        };
        match self.choose(query, &field) {
            Some(Choice::Serve { judged, probability, others }) => {
                let first = field.found(judged.entry, probability).map(|first| Match { judged: Some(judged), ..first });
                let others = others.into_iter().filter_map(|(id, probability)| field.found(id, probability));
                Lookup::Hit(first.into_iter().chain(others).take(query.limit).collect())
            }
            Some(Choice::Refuse { reason, judged, nearest }) => {
                let index = field.place(nearest);
                match field.refused {
                    // What a rule refused came nearer than what was not sure enough.
                    Some((refused, rule)) if reason == Reason::LowProbability && Some(refused) < index => {
                        miss(rule, Some(refused), judged)
                    }
                    _ => miss(reason, index, judged),
                }
            }
            None => {
                let (index, reason) = field.refused.unwrap_or((0, Reason::NoCandidate));
                miss(reason, Some(index), None)
            }
        }
    }

    /// What the rules make of the candidates.
    async fn field(&self, query: &Query, candidates: Vec<Candidate>, slots: &Slots, now_ms: u64) -> Field {
        let policy = self.policy(&query.prompt.scope.cache);
        let question = Question { text: &query.prompt.text, slots, guards: self.guards() };
        let appraisal = policy.appraise(&question, &candidates, &query.terms, now_ms);
        let mut field = Field { candidates, accepted: Vec::new(), refused: appraisal.refused, now_ms };
        for (index, score) in appraisal.accepted {
            match self.objection(query, &field.candidates[index].entry, now_ms).await {
                Ok(context) => {
                    // Whoever differs in either differs.
                    let score = context.map_or(score, |context| score.min(plain_score(context)));
                    field.accepted.push(Accepted { index, score, context });
                }
                Err(reason) if field.refused.is_none_or(|(first, _)| index < first) => {
                    field.refused = Some((index, reason));
                }
                Err(_) => {}
            }
        }
        field
    }

    /// Lets the budget choose; `None` if there is nothing to choose from.
    fn choose(&self, query: &Query, field: &Field) -> Option<Choice> {
        let owner = owner(&query.prompt);
        let policy = self.policy(&owner.cache);
        let learned = self.learning.create(&owner, &policy);
        let scored: Vec<(EntryId, f64)> = field.scored().collect();
        if scored.is_empty() {
            learned.lock().pass(query.is_comparable);
            return None;
        }
        let draws = [fastrand::f64(), fastrand::f64()];
        let terms = ChoiceTerms {
            error_max: query.terms.error_max,
            is_shadow: policy.shadow,
            is_comparable: query.is_comparable,
        };
        learned.lock().choose(&scored, terms, draws)
    }
}

impl Field {
    /// What no rule refuses, with its score.
    pub(super) fn scored(&self) -> impl Iterator<Item = (EntryId, f64)> {
        self.accepted.iter().map(|found| (self.candidates[found.index].entry.id, found.score))
    }

    fn place(&self, id: EntryId) -> Option<usize> {
        self.candidates.iter().position(|candidate| candidate.entry.id == id)
    }

    fn held(&self, judged: Judged) -> Option<Held> {
        let entry = Arc::clone(&self.candidates.get(self.place(judged.entry)?)?.entry);
        Some(Held { judged, entry })
    }

    fn nearest(&self, index: usize, reason: Reason) -> Option<Nearest> {
        let Candidate { entry, similarity } = self.candidates.get(index)?;
        Some(Nearest { id: entry.id, similarity: *similarity, reason })
    }

    fn found(&self, id: EntryId, probability: Probability) -> Option<Match> {
        let index = self.place(id)?;
        let Accepted { score, context, .. } = *self.accepted.iter().find(|accepted| accepted.index == index)?;
        let Candidate { entry, similarity } = self.candidates[index].clone();
        let found = matched(Tier::Semantic, entry, similarity, self.now_ms);
        Some(Match { probability: Some(probability), score, context, ..found })
    }
}

/// Candidates that are judged: the first may be refused for what a later one is not.
pub(super) const NEIGHBOURS: usize = 5;
