//! What does the cache make of the rows, one after the other?
//!
//! It is the service's own cache over its own local store, in a temporary folder; only the embedder is a memo. An
//! entry's answer is the number of the row it was stored for, so what is counted is the answer that was served. Labels
//! are seen only where the service would have seen a fresh answer, and only after the decision.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::ProgressBar;
use prometheus_client::registry::Registry;

use super::memo::MemoEmbedder;
use super::questions::{Question, Trial};
use super::rows::Row;
use crate::cache::{Cache, CacheSettings, Judged, Lookup, NewEntry, Parts, Query};
use crate::clock::{Clock, ManualClock};
use crate::decision::budget::{Budget, Labels};
use crate::decision::{Answer, AnswerKind, Embedding, EntryId, Outcome, Policy, Reason, Similarity, Tier};
use crate::rules::{CacheRules, TurnReader};
use crate::store::{Durability, Limits, Owner, StoreSettings, open};
use crate::wire::request::earlier_turns;

/// Rows of a dataset to put to an empty cache.
pub(super) struct Replay<'a> {
    pub(super) rows: &'a [Row],
    pub(super) trials: &'a [Trial],
    pub(super) embedder: Arc<MemoEmbedder>,
    pub(super) rules: CacheRules,
}

/// How the cache decides, and what is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    /// Protocol A: the nearest is always served, and every row stored.
    Nearest,
    /// Protocol B: the nearest is served from this score up, and a row stored if nothing was.
    Representatives(f32),
    /// The service: its policy decides, and a row is stored if it missed.
    Service(Policy),
}

/// What became of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Decision {
    pub(super) outcome: Outcome,
    /// Of a miss or bypass.
    pub(super) reason: Option<Reason>,
    /// Acceptance score of what was served; the context's where that is lower.
    pub(super) score: Option<f32>,
    /// Number of the row whose answer was served.
    pub(super) served: Option<usize>,
    /// What the lookup took, the text's embedding included; absent for a bypass.
    pub(super) took: Option<Duration>,
    /// Whether the hit was checked against its label.
    pub(super) is_audited: bool,
}

/// An empty cache, and which row each of its entries was stored for.
struct Filling {
    cache: Cache,
    rows: HashMap<EntryId, usize>,
}

impl Replay<'_> {
    /// Puts the rows to an empty cache in this order; `seed` is of what the service leaves to chance. The decisions are
    /// in the order of the rows.
    ///
    /// # Errors
    /// The temporary store could not be opened, written or removed.
    pub(super) async fn run(
        &self,
        mode: Mode,
        order: &[usize],
        seed: u64,
        bar: &ProgressBar,
    ) -> anyhow::Result<Vec<Decision>> {
        let folder = tempfile::tempdir().context("could not make a temporary folder")?;
        let mut filling = Filling { cache: self.cache(mode, folder.path())?, rows: HashMap::new() };
        let mut decisions: Vec<Option<Decision>> = vec![None; self.trials.len()];
        fastrand::seed(seed);
        for &row in order {
            decisions[row] = Some(self.decide(&mut filling, mode, row).await?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        drop(filling);
        folder.close().context("could not remove the temporary folder")?;
        decisions.into_iter().collect::<Option<Vec<_>>>().context("the order leaves out a row")
    }

    fn cache(&self, mode: Mode, folder: &Path) -> anyhow::Result<Cache> {
        // Time stands still: no entry expires, however long the run takes.
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        let settings = StoreSettings::Local {
            folder: folder.to_owned(),
            durability: Durability::Async,
            limits: Limits::default(),
        };
        let store = open(&settings, Arc::clone(&clock))?;
        let parts = Parts { store, embedder: Some(Arc::clone(&self.embedder) as _), clock };
        let least = Similarity::new(-1.0);
        let (policy, rules) = match mode {
            Mode::Nearest | Mode::Representatives(_) => {
                let budget = Budget { max_error: 1.0, max_error_per_hit: 1.0 };
                let policy = Policy { threshold: least, budget, ..Policy::default() };
                (policy, CacheRules { context_threshold: least, ..self.rules })
            }
            Mode::Service(policy) => (policy, self.rules),
        };
        let turn_reader = TurnReader(earlier_turns);
        let settings = CacheSettings { policy, rules, turn_reader, ..CacheSettings::default() };
        Ok(Cache::new(parts, settings, &mut Registry::default()))
    }

    async fn decide(&self, filling: &mut Filling, mode: Mode, row: usize) -> anyhow::Result<Decision> {
        let Filling { cache, rows } = filling;
        let trial = &self.trials[row];
        if let Some(earlier) = &trial.earlier {
            rows.insert(cache.insert(new_entry(earlier, row, None)).await?.id, row);
        }
        let asked = match &trial.asked {
            Ok(asked) => asked,
            Err(reason) => return Ok(Decision::bypass(*reason)),
        };
        let query = Query { is_comparable: true, ..Query::new(asked.prompt.clone()) };
        let started = Instant::now();
        let lookup = cache.lookup(&query).await;
        let took = started.elapsed();
        let embedding = match &lookup {
            // Only what is found by meaning needs an embedding.
            Lookup::Hit(matches) if matches.first().is_some_and(|first| first.tier != Tier::Semantic) => Duration::ZERO,
            _ => self.embedder.took(&asked.text_embedded()),
        };
        let decision = Decision { took: Some(took + embedding), ..Decision::of(&lookup)?.under(mode) };
        let (vector, judged) = match lookup {
            Lookup::Hit(matches) => (None, matches.first().and_then(|first| first.judged).filter(Judged::is_audited)),
            Lookup::Miss(miss) => (miss.vector, miss.judged.map(|held| held.judged)),
        };
        let mut stored = None;
        if trial.is_shared && (mode == Mode::Nearest || decision.outcome == Outcome::Miss) {
            let id = cache.insert(new_entry(asked, row, vector)).await?.id;
            rows.insert(id, row);
            stored = Some(id);
        }
        let labels = match mode {
            Mode::Nearest | Mode::Representatives(_) => Labels::None,
            Mode::Service(policy) => policy.labels(),
        };
        if let Some(judged) = judged.filter(|_| trial.is_shared && labels != Labels::None) {
            let candidate = rows.get(&judged.entry).map(|candidate| &self.rows[*candidate]);
            let scope = &asked.prompt.scope;
            let owner = Owner { tenant: scope.tenant.clone(), cache: scope.cache.clone() };
            cache.learn(&owner, &judged, self.rows[row].is_right(candidate), stored);
        }
        let is_audited = judged.is_some() && decision.outcome == Outcome::Hit;
        Ok(Decision { is_audited, ..decision })
    }
}

impl Decision {
    fn bypass(reason: Reason) -> Self {
        Self {
            outcome: Outcome::Bypass,
            reason: Some(reason),
            score: None,
            served: None,
            took: None,
            is_audited: false,
        }
    }

    /// Nothing is served below the score that the mode asks for.
    fn under(self, mode: Mode) -> Self {
        let Mode::Representatives(least) = mode else { return self };
        if self.outcome != Outcome::Hit || self.score.is_some_and(|score| score >= least) {
            return self;
        }
        Self { outcome: Outcome::Miss, reason: Some(Reason::LowProbability), score: None, served: None, ..self }
    }

    fn of(lookup: &Lookup) -> anyhow::Result<Self> {
        Ok(match lookup {
            Lookup::Hit(matches) => {
                let served = matches.first().context("a hit without a match")?;
                let row = served.entry.answer.body.parse().context("an answer that was not stored here")?;
                let score = Some(served.score as f32);
                Self { outcome: Outcome::Hit, reason: None, score, served: Some(row), took: None, is_audited: false }
            }
            Lookup::Miss(miss) => Self {
                outcome: Outcome::Miss,
                reason: Some(miss.reason),
                score: None,
                served: None,
                took: None,
                is_audited: false,
            },
        })
    }
}

fn new_entry(question: &Question, row: usize, vector: Option<Embedding>) -> NewEntry {
    NewEntry {
        prompt: question.prompt.clone(),
        origin: question.origin.clone(),
        answer: Answer { kind: AnswerKind::Text, body: row.to_string(), usage: None },
        tags: Default::default(),
        sources: Default::default(),
        writer: String::new(),
        created_ms: None,
        ttl: None,
        vector,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_below_the_threshold_is_a_miss() {
        let hit = Decision {
            outcome: Outcome::Hit,
            reason: None,
            score: Some(0.8),
            served: Some(3),
            took: None,
            is_audited: false,
        };
        let miss =
            Decision { outcome: Outcome::Miss, reason: Some(Reason::LowProbability), score: None, served: None, ..hit };
        let empty = Decision { reason: Some(Reason::Empty), ..miss };
        assert_eq!(hit.under(Mode::Representatives(0.8)), hit);
        assert_eq!(hit.under(Mode::Representatives(0.81)), miss);
        assert_eq!(empty.under(Mode::Representatives(0.0)), empty);
        assert_eq!(hit.under(Mode::Nearest), hit);
    }
}
