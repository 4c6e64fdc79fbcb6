//! What each cache learned of its own errors.
//!
//! Pure decisions come from [`budget`](crate::decision::budget); here they meet the entries of a running service. A
//! cache that nobody wrote to has learned nothing and costs nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::caches::Caches;
use super::records::Records;
use crate::decision::budget::tune::{Recommendation, Sample, recommend};
use crate::decision::budget::{Action, Bin, Bound, Budget, Decision, EntryRecord, Labels, RecordSettings, Report};
use crate::decision::{EntryId, Policy, Probability, Reason};
use crate::store::Owner;

/// What all caches learned.
#[derive(Debug, Default)]
pub(crate) struct Learning {
    all: RwLock<Caches>,
    /// What was kept of other models' scores, as it was read; the model may come back.
    others: Mutex<Vec<(Owner, Vec<u8>)>>,
    /// Something was dropped that may be kept elsewhere.
    dropped: Notify,
}

/// What one cache learned.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Learned {
    bound: Bound,
    records: Records,
    /// Candidates that were compared with a fresh answer, oldest first.
    log: VecDeque<Logged>,
    /// Requests that came so far as a decision.
    requests: u64,
    /// Fresh answers equal to what was held back, and others.
    compared: Compared,
    /// The hits that were served last.
    #[serde(skip)]
    served: VecDeque<Judged>,
}

/// A candidate with what became of it: kept until it is known whether it was right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    pub entry: EntryId,
    pub score: f64,
    pub decision: Decision,
    /// Chance that candidates like this one have of being compared.
    chance: f64,
}

impl Judged {
    /// Whether it was served and is to be compared nevertheless.
    pub fn is_audited(&self) -> bool {
        self.decision.action == Action::ServeAndAudit
    }

    /// Whether it was found by its template rather than by its score.
    pub fn is_by_template(&self) -> bool {
        self.decision.bin == Bin::TEMPLATE
    }
}

/// What becomes of a request's candidates.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Choice {
    /// Serve this one; what else may be served, best first.
    Serve { judged: Judged, probability: Probability, others: Vec<(EntryId, Probability)> },
    /// Serve none; which came nearest to it.
    Refuse { reason: Reason, judged: Option<Judged>, nearest: EntryId },
}

/// What a choice depends on beside the scores.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChoiceTerms {
    /// Most 1 - probability of this one hit.
    pub(crate) error_max: Option<Probability>,
    pub(crate) is_shadow: bool,
    /// Whether a fresh answer may come of it.
    pub(crate) is_comparable: bool,
}

/// Comparisons of fresh answers with those held back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// The same answer.
    pub right: u64,
    /// Another answer.
    pub wrong: u64,
    /// Not equal by its words, and nobody to say whether by its meaning.
    pub unknown: u64,
}

/// For stats: the bound's report and what it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Learnt {
    pub report: Report,
    pub compared: Compared,
    pub quarantined: usize,
}

/// What was complained about that holds whatever scores are worth.
pub(crate) struct Complaints(Records);

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Logged {
    sample: Sample,
    /// Number of the request.
    request: u64,
}

impl Learning {
    /// What the cache learned, if it was written to.
    pub(crate) fn of(&self, owner: &Owner) -> Option<Arc<Mutex<Learned>>> {
        self.all.read().of(owner)
    }

    /// What the cache learned, held to this policy.
    pub(crate) fn create(&self, owner: &Owner, policy: &Policy) -> Arc<Mutex<Learned>> {
        match self.of(owner) {
            Some(learned) => {
                learned.lock().hold_to(policy);
                learned
            }
            None => self.all.write().create(owner, || Learned::new(policy)),
        }
    }

    pub(crate) fn owners(&self) -> Vec<Owner> {
        self.all.read().owners()
    }

    /// Forgets all that a cache learned.
    pub(crate) fn drop_of(&self, owner: &Owner) {
        let mut others = self.others.lock();
        let kept = others.len();
        others.retain(|(of, _)| of != owner);
        if self.all.write().remove(owner) || others.len() < kept {
            self.dropped.notify_one();
        }
    }

    /// Keeps a line that this process has no use for.
    pub(crate) fn keep_other(&self, owner: Owner, line: &[u8]) {
        self.others.lock().push((owner, line.to_vec()));
    }

    /// Those lines, each ended.
    pub(crate) fn others(&self) -> Vec<u8> {
        self.others.lock().iter().flat_map(|(_, line)| line.iter().copied().chain([b'\n'])).collect()
    }

    /// Done once something was dropped since the last call.
    pub(crate) async fn dropped(&self) {
        self.dropped.notified().await;
    }

    /// Of all caches, as numbers by name.
    pub(crate) fn figures(&self) -> [(&'static str, u64); 6] {
        let all = self.all.read().all();
        let learnt: Vec<Learnt> = all.iter().map(|learned| learned.lock().learnt()).collect();
        let sum = |of: fn(&Learnt) -> u64| learnt.iter().map(of).sum();
        [
            ("caches_over_budget", sum(|learnt| u64::from(learnt.report.is_over_budget))),
            ("alarms", sum(|learnt| u64::from(learnt.report.alarms))),
            ("compared_right", sum(|learnt| learnt.compared.right)),
            ("compared_wrong", sum(|learnt| learnt.compared.wrong)),
            ("compared_unknown", sum(|learnt| learnt.compared.unknown)),
            ("quarantined", sum(|learnt| learnt.quarantined as u64)),
        ]
    }

    /// Takes what a cache had learned before, under the budget of now.
    pub(crate) fn restore(&self, owner: Owner, mut learned: Learned, policy: &Policy) {
        if learned.bound.is_whole() {
            learned.bound.set_terms(policy.budget, policy.labels());
            *self.create(&owner, policy).lock() = learned;
        }
    }

    /// Takes complaints that hold whatever scores are worth, in place of those that are there.
    pub(crate) fn restore_complaints(&self, owner: &Owner, complaints: Complaints, policy: &Policy) {
        let Complaints(complaints) = complaints;
        if !complaints.is_empty() || self.of(owner).is_some() {
            self.create(owner, policy).lock().records.set_complaints(complaints);
        }
    }
}

impl Learned {
    pub(super) fn new(policy: &Policy) -> Self {
        Self {
            bound: Bound::shipped(policy.budget, policy.labels()),
            records: Records::default(),
            log: VecDeque::new(),
            requests: 0,
            compared: Compared::default(),
            served: VecDeque::new(),
        }
    }

    /// Works the bound out under a policy, if that is another one than before.
    fn hold_to(&mut self, policy: &Policy) {
        if self.bound.terms() != (policy.budget, policy.labels()) {
            self.bound.set_terms(policy.budget, policy.labels());
        }
    }

    /// Takes the best of the candidates, each with its score, or none. `draws` are two even chances in [0, 1).
    pub(crate) fn choose(
        &mut self,
        candidates: &[(EntryId, f64)],
        terms: ChoiceTerms,
        draws: [f64; 2],
    ) -> Option<Choice> {
        let settings = RecordSettings::default();
        let ChoiceTerms { error_max, is_shadow, is_comparable } = terms;
        // Nothing is asked upstream for the sake of learning where no fresh answer would come of it.
        let draws = if is_comparable { draws } else { [1.0, 1.0] };
        self.requests += u64::from(is_comparable);
        let mut passed: Vec<(EntryId, f64, f64)> = candidates
            .iter()
            .filter_map(|&(id, score)| {
                Some((id, score, self.records.of(id).map_or(Some(score), |record| record.judge(score, settings))?))
            })
            .collect();
        passed.sort_by(|a, b| b.2.total_cmp(&a.2));
        let Some(&(entry, score, shifted)) = passed.first() else {
            self.bound.record(self.bound.decide(None, draws));
            let &(nearest, _) = candidates.first()?;
            let is_barred = self.records.of(nearest).is_some_and(|record| record.is_quarantined(settings));
            let reason = if is_barred { Reason::Quarantined } else { Reason::LowProbability };
            return Some(Choice::Refuse { reason, judged: None, nearest });
        };
        let right = self.bound.right(shifted);
        let mut decision = self.bound.decide(Some(shifted), draws);
        if error_max.is_some_and(|most| 1.0 - right > most.get()) && decision.action != Action::Refuse {
            decision.action = Action::Refuse;
        }
        let chance = if is_shadow { 1.0 } else { self.bound.chance(decision) };
        self.bound.record(decision);
        let judged = Judged { entry, score, decision, chance };
        let probability = self.probability(shifted);
        if !decision.action.is_hit() {
            return Some(Choice::Refuse { reason: self.reason(decision), judged: Some(judged), nearest: entry });
        }
        let is_served = |shifted: f64| self.bound.decide(Some(shifted), [1.0, 1.0]).action.is_hit();
        let is_sure = |shifted: f64| error_max.is_none_or(|most| 1.0 - self.bound.right(shifted) <= most.get());
        let others = passed[1..].iter().filter(|(_, _, shifted)| is_served(*shifted) && is_sure(*shifted));
        let others = others.map(|(id, _, shifted)| (*id, self.probability(*shifted))).collect();
        self.remember(judged);
        Some(Choice::Serve { judged, probability, others })
    }

    /// Whether a candidate with this score would be served, were nothing to be learned by not serving it.
    pub(super) fn would_serve(&self, entry: EntryId, score: f64) -> bool {
        let settings = RecordSettings::default();
        let shifted = self.records.of(entry).map_or(Some(score), |record| record.judge(score, settings));
        shifted.is_some_and(|shifted| self.bound.decide(Some(shifted), [1.0, 1.0]).action.is_hit())
    }

    /// The same of one that is found by its template.
    pub(super) fn would_serve_template(&self) -> bool {
        self.bound.decide_template([1.0, 1.0]).action.is_hit()
    }

    fn probability(&self, score: f64) -> Probability {
        Probability::new(self.bound.right(score)).unwrap_or(Probability::NONE)
    }

    /// Whether an entry that was found by its template is served; the reason why not. `draws` as for
    /// [`choose`](Self::choose).
    pub(crate) fn choose_template(
        &mut self,
        entry: EntryId,
        terms: ChoiceTerms,
        draws: [f64; 2],
    ) -> (Judged, Option<Reason>) {
        let ChoiceTerms { error_max: _, is_shadow, is_comparable } = terms;
        self.requests += u64::from(is_comparable);
        let decision = self.bound.decide_template(if is_comparable { draws } else { [1.0, 1.0] });
        let chance = if is_shadow { 1.0 } else { self.bound.chance(decision) };
        self.bound.record(decision);
        let judged = Judged { entry, score: 1.0, decision, chance };
        if decision.action.is_hit() {
            self.remember(judged);
            return (judged, None);
        }
        (judged, Some(self.reason(decision)))
    }

    /// Why it is not served.
    fn reason(&self, decision: Decision) -> Reason {
        if decision.action == Action::Explore {
            Reason::Explore
        } else if self.bound.lowest() == Bin::NONE && self.bound.report().is_over_budget {
            Reason::OverBudget
        } else {
            Reason::LowProbability
        }
    }

    fn remember(&mut self, judged: Judged) {
        self.served.push_back(judged);
        if self.served.len() > SERVED_MAX {
            self.served.pop_front();
        }
    }

    /// Counts a request that had nothing to decide about.
    pub(crate) fn pass(&mut self, is_comparable: bool) {
        self.requests += u64::from(is_comparable);
        self.bound.record(self.bound.decide(None, [1.0, 1.0]));
    }

    /// Learns whether the candidate was right. `stored` is the entry that the fresh answer became.
    pub(crate) fn learn(&mut self, judged: &Judged, is_right: bool, stored: Option<EntryId>) {
        let Judged { entry, score, decision, chance } = *judged;
        self.compared.right += u64::from(is_right);
        self.compared.wrong += u64::from(!is_right);
        if decision.action.is_hit() {
            // Known by now: a user's word would count it twice.
            self.take_served(|served| served == judged);
        }
        // Without a judge only the right ones are known: a lopsided sample.
        if self.bound.labels() != Labels::None {
            let settings = RecordSettings::default();
            let shifted = self.records.of(entry).map_or(score, |record| record.shift(score));
            match judged.is_by_template() {
                true => self.learn_of_template(entry, is_right),
                false => {
                    let expected = self.bound.right(shifted);
                    self.records.change(entry, |record| record.learn(score, expected, is_right, settings));
                }
            }
            self.bound.learn(decision, is_right);
            // What is recommended is a score.
            if !judged.is_by_template() {
                let sample = Sample { score: shifted, is_right, chance };
                self.log.push_back(Logged { sample, request: self.requests });
                if self.log.len() > LOGGED_MAX {
                    self.log.pop_front();
                }
            }
        }
        if let (true, false, Some(stored)) = (is_right, decision.action.is_hit(), stored) {
            self.records.share(stored, entry);
        }
    }

    /// A copy, if there is anything that a new process would not begin with.
    pub(crate) fn worth_keeping(&self) -> Option<Self> {
        self.is_worth_keeping().then(|| self.clone())
    }

    /// Of answers to an entry's own question, or to one that is its own but for values.
    pub(crate) fn complaints(&self) -> Complaints {
        Complaints(self.records.complaints())
    }

    /// Forgets what the highest bin held while it was one of scores.
    pub(crate) fn without_template_bin(mut self) -> Self {
        self.bound.forget(Bin::TEMPLATE);
        self
    }

    /// Entries with something behind them.
    pub(super) fn weight(&self) -> usize {
        self.records.len()
    }

    pub(super) fn is_worth_keeping(&self) -> bool {
        self.bound.labels() != Labels::None || self.compared != Compared::default() || !self.records.is_empty()
    }

    /// Counts a comparison that ended without a verdict.
    pub(crate) fn could_not_tell(&mut self) {
        self.compared.unknown += 1;
    }

    /// Takes a user's word on an entry's answer to the last question that it was served for by meaning; to its own if
    /// there is none.
    pub(crate) fn hear(&mut self, entry: EntryId, is_right: bool) {
        match self.take_served(|judged| judged.entry == entry) {
            Some(judged) => self.hear_of_served(&judged, is_right),
            None => self.hear_of_itself(entry, is_right),
        }
    }

    /// Takes a user's word on an entry's answer to a question of this score. A question that it was not served for, and
    /// would not be, says nothing; nor does praise for what was not served.
    pub(crate) fn hear_of(&mut self, entry: EntryId, score: f64, is_right: bool) {
        let is_it = |judged: &Judged| judged.entry == entry && (judged.score - score).abs() < SAME_SCORE;
        match self.take_served(|judged| is_it(judged) && !judged.is_by_template()) {
            Some(judged) => self.hear_of_served(&judged, is_right),
            None if !is_right && self.bound.decide(Some(score), [1.0, 1.0]).action.is_hit() => {
                self.learn_by_word(entry, score, false);
            }
            None => {}
        }
    }

    /// Takes a user's word on an entry's answer to a question of its template. Praise for what was not served says
    /// nothing.
    pub(crate) fn hear_of_template(&mut self, entry: EntryId, is_right: bool) {
        match self.take_served(|judged| judged.entry == entry && judged.is_by_template()) {
            Some(judged) => self.hear_of_served(&judged, is_right),
            None => self.learn_of_template(entry, is_right),
        }
    }

    fn hear_of_served(&mut self, judged: &Judged, is_right: bool) {
        match judged.is_by_template() {
            true => self.learn_of_template(judged.entry, is_right),
            false => self.learn_by_word(judged.entry, judged.score, is_right),
        }
        self.bound.hear(judged.decision, is_right);
    }

    fn learn_by_word(&mut self, entry: EntryId, score: f64, is_right: bool) {
        let expected = self.bound.right(score).max(EXPECTED_OF_SERVED);
        // The next lookup's score may differ in the last digits.
        let score = if is_right { score } else { score + SAME_SCORE };
        self.records.change(entry, |record| record.learn(score, expected, is_right, RecordSettings::default()));
    }

    /// One that was wrong is never expected to be: it bars the entry whatever the others were.
    fn learn_of_template(&mut self, entry: EntryId, is_right: bool) {
        if !is_right {
            self.records.change(entry, EntryRecord::bar_from_others);
        }
    }

    /// The last such hit, which is forgotten: one word counts once.
    fn take_served(&mut self, is_it: impl Fn(&Judged) -> bool) -> Option<Judged> {
        let at = self.served.iter().rposition(is_it)?;
        self.served.remove(at)
    }

    /// Takes a user's word on an entry's answer to the question that it was stored for.
    pub(crate) fn hear_of_itself(&mut self, entry: EntryId, is_right: bool) {
        match is_right {
            false => self.records.change(entry, EntryRecord::bar),
            true if self.is_barred(entry) => self.records.change(entry, EntryRecord::pardon),
            true => {}
        }
    }

    /// Whether the entry's answer is barred altogether.
    pub(crate) fn is_barred(&self, entry: EntryId) -> bool {
        self.records.of(entry).is_some_and(|record| record.is_barred())
    }

    /// Whether the entry's answer was wrong for somebody.
    pub(crate) fn is_doubted(&self, entry: EntryId) -> bool {
        self.records.of(entry).is_some_and(EntryRecord::refuses)
    }

    /// The entry has another answer now, or none.
    pub(crate) fn forget(&mut self, entry: EntryId) {
        self.records.forget(entry);
        self.served.retain(|judged| judged.entry != entry);
    }

    /// The entries whose answers are kept from other questions, whether they are still there or not.
    pub(crate) fn quarantined(&self) -> Vec<EntryId> {
        self.records.quarantined(RecordSettings::default())
    }

    pub(crate) fn learnt(&self) -> Learnt {
        Learnt { report: self.bound.report(), compared: self.compared, quarantined: self.quarantined().len() }
    }

    /// The bound that would have kept a budget on what was logged.
    pub(crate) fn recommend(&self, budget: Budget) -> Recommendation {
        let samples: Vec<Sample> = self.log.iter().map(|logged| logged.sample).collect();
        let requests = self.log.front().map_or(0, |first| self.requests.saturating_sub(first.request) + 1);
        recommend(&samples, requests, budget, DEVIATIONS)
    }
}

/// Two scores of one question and one entry.
const SAME_SCORE: f64 = 1e-4;

/// Comparisons that are kept for recommendations.
const LOGGED_MAX: usize = 10_000;

/// Hits that feedback without a prompt can be about.
const SERVED_MAX: usize = 1_024;

/// What was served was expected to be right: a complaint about it always counts.
const EXPECTED_OF_SERVED: f64 = 0.9;

/// One-sided 95 %.
const DEVIATIONS: f64 = 1.645;

#[cfg(test)]
mod tests;
