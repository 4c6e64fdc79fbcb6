//! What each cache learned of its own errors.
//!
//! Pure decisions come from [`budget`](crate::decision::budget); here they meet the entries of a running service. A
//! cache that nobody wrote to has learned nothing and costs nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::records::Records;
use crate::decision::budget::tune::{Recommendation, Sample, recommend};
use crate::decision::budget::{Action, Bin, Bound, Budget, Decision, EntryRecord, Labels, RecordSettings, Report};
use crate::decision::{EntryId, Policy, Probability, Reason};
use crate::store::Owner;

/// What all caches learned.
#[derive(Debug, Default)]
pub(crate) struct Learning {
    all: RwLock<HashMap<Owner, Arc<Mutex<Learned>>>>,
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

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Logged {
    sample: Sample,
    /// Number of the request.
    request: u64,
}

impl Learning {
    /// What the cache learned, if it was written to.
    pub(crate) fn of(&self, owner: &Owner) -> Option<Arc<Mutex<Learned>>> {
        self.all.read().get(owner).cloned()
    }

    pub(crate) fn create(&self, owner: &Owner, policy: &Policy) -> Arc<Mutex<Learned>> {
        if let Some(learned) = self.of(owner) {
            return learned;
        }
        let new = || Arc::new(Mutex::new(Learned::new(policy)));
        let mut all = self.all.write();
        if all.len() >= CACHES_MAX && !all.contains_key(owner) {
            return new();
        }
        Arc::clone(all.entry(owner.clone()).or_insert_with(new))
    }

    pub(crate) fn owners(&self) -> Vec<Owner> {
        self.all.read().keys().cloned().collect()
    }

    /// Forgets all that a cache learned.
    pub(crate) fn drop_of(&self, owner: &Owner) {
        if self.all.write().remove(owner).is_some() {
            self.dropped.notify_one();
        }
    }

    /// Done once something was dropped since the last call.
    pub(crate) async fn dropped(&self) {
        self.dropped.notified().await;
    }

    /// Of all caches, as numbers by name.
    pub(crate) fn figures(&self) -> [(&'static str, u64); 6] {
        let all: Vec<Arc<Mutex<Learned>>> = self.all.read().values().cloned().collect();
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
            self.all.write().insert(owner, Arc::new(Mutex::new(learned)));
        }
    }
}

impl Learned {
    fn new(policy: &Policy) -> Self {
        Self {
            bound: Bound::shipped(policy.budget, policy.labels()),
            records: Records::default(),
            log: VecDeque::new(),
            requests: 0,
            compared: Compared::default(),
            served: VecDeque::new(),
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
            let expected = match judged.is_by_template() {
                // One that was wrong is never expected to be: it bars the entry whatever the others were.
                true => self.bound.right_by_template().max(EXPECTED_OF_SERVED),
                false => self.bound.right(shifted),
            };
            self.records.change(entry, |record| record.learn(score, expected, is_right, settings));
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

    fn is_worth_keeping(&self) -> bool {
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
    /// would not be, says nothing.
    pub(crate) fn hear_of(&mut self, entry: EntryId, score: f64, is_right: bool) {
        let is_it = |judged: &Judged| judged.entry == entry && (judged.score - score).abs() < SAME_SCORE;
        match self.take_served(|judged| is_it(judged) && !judged.is_by_template()) {
            Some(judged) => self.hear_of_served(&judged, is_right),
            None if self.bound.decide(Some(score), [1.0, 1.0]).action.is_hit() => {
                self.learn_by_word(entry, score, is_right);
            }
            None => {}
        }
    }

    /// Takes a user's word on an entry's answer to a question of its template.
    pub(crate) fn hear_of_template(&mut self, entry: EntryId, is_right: bool) {
        match self.take_served(|judged| judged.entry == entry && judged.is_by_template()) {
            Some(judged) => self.hear_of_served(&judged, is_right),
            None => self.learn_by_word(entry, 1.0, is_right),
        }
    }

    fn hear_of_served(&mut self, judged: &Judged, is_right: bool) {
        self.learn_by_word(judged.entry, judged.score, is_right);
        self.bound.hear(judged.decision, is_right);
    }

    fn learn_by_word(&mut self, entry: EntryId, score: f64, is_right: bool) {
        let expected = self.bound.right(score).max(EXPECTED_OF_SERVED);
        // The next lookup's score may differ in the last digits.
        let score = if is_right { score } else { score + SAME_SCORE };
        self.records.change(entry, |record| record.learn(score, expected, is_right, RecordSettings::default()));
    }

    /// The last such hit, which is forgotten: one word counts once.
    fn take_served(&mut self, is_it: impl Fn(&Judged) -> bool) -> Option<Judged> {
        let at = self.served.iter().rposition(is_it)?;
        self.served.remove(at)
    }

    /// Takes a user's word on an entry's answer to the question that it was stored for.
    pub(crate) fn hear_of_itself(&mut self, entry: EntryId, is_right: bool) {
        self.records.change(entry, if is_right { EntryRecord::pardon } else { EntryRecord::bar });
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

/// Caches that learn: some 15 KB each. One more decides as shipped.
const CACHES_MAX: usize = 1 << 14;

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
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;
    use crate::decision::{CacheName, Judge, Tenant};

    fn id(number: u8) -> EntryId {
        EntryId::from_bytes([number; 16])
    }

    const ANY: ChoiceTerms = ChoiceTerms { error_max: None, is_shadow: false, is_comparable: true };

    fn learned() -> Learned {
        Learned::new(&Policy::default())
    }

    fn choose(learned: &mut Learned, candidates: &[(EntryId, f64)]) -> Choice {
        learned.choose(candidates, ANY, [1.0, 1.0]).expect("candidates")
    }

    #[test]
    fn the_best_is_served_and_what_was_wrong_is_not() {
        let mut learned = learned();
        let candidates = [(id(1), 0.90), (id(2), 0.92), (id(3), 0.5)];
        let served = choose(&mut learned, &candidates);
        let Choice::Serve { judged, probability, others } = served else { panic!("{served:?}") };
        assert_eq!((judged.entry, others.len()), (id(2), 1));
        assert!(probability.get() > 0.9 && probability < Probability::CERTAIN);

        learned.hear(id(2), false);
        let served = choose(&mut learned, &candidates);
        assert!(matches!(served, Choice::Serve { judged, .. } if judged.entry == id(1)), "{served:?}");
        let refused = choose(&mut learned, &candidates[2..]);
        assert!(matches!(refused, Choice::Refuse { reason: Reason::LowProbability, .. }), "{refused:?}");
    }

    #[test]
    fn a_bound_of_the_request_only_tightens() {
        let mut learned = learned();
        let at = |learned: &mut Learned, most: f64| {
            matches!(
                learned.choose(&[(id(1), 0.95)], ChoiceTerms { error_max: Probability::new(most), ..ANY }, [1.0, 1.0]),
                Some(Choice::Serve { .. })
            )
        };
        assert!(at(&mut learned, 1.0) && at(&mut learned, 0.1));
        assert!(!at(&mut learned, 0.01));
        let far = learned.choose(&[(id(1), 0.3)], ANY, [1.0, 1.0]);
        assert!(matches!(far, Some(Choice::Refuse { .. })), "{far:?}");
    }

    #[test]
    fn a_word_on_the_entry_itself_bars_it_until_it_is_taken_back_or_replaced() {
        let mut learned = learned();
        let is_served = |learned: &mut Learned| matches!(choose(learned, &[(id(1), 0.95)]), Choice::Serve { .. });
        learned.hear_of(id(1), 0.3, false);
        assert!(is_served(&mut learned), "a question that it would not be served for says nothing");
        learned.forget(id(1));
        learned.hear(id(1), false);
        assert!(learned.is_barred(id(1)) && !is_served(&mut learned));
        learned.hear_of_itself(id(1), true);
        assert!(!learned.is_barred(id(1)) && is_served(&mut learned));
        learned.hear_of_itself(id(1), false);
        learned.forget(id(1));
        assert!(!learned.is_doubted(id(1)));
    }

    #[test]
    fn entries_of_one_answer_share_what_is_learned() {
        let mut learned = Learned::new(&Policy { judge: Judge::Words, ..Policy::default() });
        let Choice::Refuse { judged: Some(judged), .. } = choose(&mut learned, &[(id(1), 0.8)]) else {
            panic!("served")
        };
        learned.learn(&judged, true, Some(id(2)));
        learned.hear_of_itself(id(1), false);
        assert!(learned.is_barred(id(2)));
        let stored = serde_json::to_string(&learned).expect("JSON");
        let again: Learned = serde_json::from_str(&stored).expect("the same");
        assert!(again.is_barred(id(1)) && again.is_barred(id(2)) && again.is_worth_keeping());
        assert_eq!(again.learnt(), learned.learnt());
    }

    #[test]
    fn a_template_that_was_wrong_once_is_barred_with_or_without_a_judge() {
        let choose = |learned: &mut Learned| learned.choose_template(id(1), ANY, [1.0, 1.0]);
        let mut learned = learned();
        let (judged, refused) = choose(&mut learned);
        assert_eq!((refused, judged.is_by_template(), learned.learnt().report.hits), (None, true, 1.0));
        learned.hear(id(1), false);
        assert!(learned.is_doubted(id(1)) && !learned.is_barred(id(1)));
        assert!(matches!(choose_near(&mut learned), Choice::Refuse { .. }), "nothing is nearer than its template");
        assert!(learned.learnt().report.error > 0.0);
        learned.hear_of_template(id(2), false);
        assert!(learned.is_doubted(id(2)));

        let mut learned = Learned::new(&Policy { judge: Judge::Words, ..Policy::default() });
        let (judged, refused) = choose(&mut learned);
        assert_eq!(refused, Some(Reason::LowProbability), "it looks at some requests first");
        learned.learn(&judged, false, None);
        assert!(learned.is_doubted(id(1)));
        assert_eq!((learned.learnt().report.samples, learned.recommend(Budget::default()).samples), (1.0, 0));
    }

    fn choose_near(learned: &mut Learned) -> Choice {
        choose(learned, &[(id(1), 0.9999)])
    }

    #[test]
    fn a_template_is_audited_and_explored_only_where_a_fresh_answer_comes() {
        let mut learned = Learned::new(&Policy { judge: Judge::Words, audit: 1.0, ..Policy::default() });
        let action = |learned: &mut Learned, is_comparable: bool| {
            let terms = ChoiceTerms { is_comparable, ..ANY };
            learned.choose_template(id(1), terms, [0.0, 0.0]).0.decision.action
        };
        let mut actions: Vec<Action> = (0..100).map(|_| action(&mut learned, false)).collect();
        actions.dedup();
        assert_eq!(actions, [Action::Refuse, Action::Serve]);
        assert_eq!(action(&mut learned, true), Action::ServeAndAudit);
    }

    #[tokio::test]
    async fn a_cache_that_is_dropped_begins_anew_and_says_so() {
        let learning = Learning::default();
        let owner = Owner { tenant: Tenant::new("t"), cache: CacheName::default() };
        learning.drop_of(&owner);
        assert!(learning.dropped().now_or_never().is_none(), "there was nothing");
        learning.create(&owner, &Policy::default()).lock().hear_of_itself(id(1), false);
        learning.drop_of(&owner);
        assert!(learning.of(&owner).is_none());
        learning.dropped().await;
        assert!(learning.dropped().now_or_never().is_none(), "it is said once");
    }

    #[test]
    fn without_a_judge_nothing_is_learned_from_what_is_equal() {
        let mut learned = learned();
        let Choice::Serve { judged, .. } = choose(&mut learned, &[(id(1), 0.95)]) else { panic!("refused") };
        assert!(!learned.is_worth_keeping());
        learned.learn(&judged, true, None);
        let Learnt { report, compared, .. } = learned.learnt();
        assert_eq!((report.samples, compared.right), (0.0, 1));
    }

    proptest! {
        #[test]
        fn a_tighter_budget_never_serves_more(
            scores in prop::collection::vec(0.0f64..1.0, 1..5),
            (small, large) in (0.0f64..1.0, 0.0f64..1.0).prop_map(|(a, b)| (a.min(b), a.max(b))),
            (few, many) in (0.0f64..1.0, 0.0f64..1.0).prop_map(|(a, b)| (a.min(b), a.max(b))),
        ) {
            let candidates: Vec<(EntryId, f64)> = (0..).map(id).zip(scores).collect();
            let serves = |max_error, max_error_per_hit| {
                let budget = Budget { max_error, max_error_per_hit };
                let mut learned = Learned::new(&Policy { budget, ..Policy::default() });
                matches!(choose(&mut learned, &candidates), Choice::Serve { .. })
            };
            prop_assert!(serves(large, many) || !serves(small, few));
        }
    }
}
