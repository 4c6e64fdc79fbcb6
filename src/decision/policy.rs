//! The two judgements: may this past answer be reused, and may this fresh answer be kept.
//!
//! A candidate may be refused by the operator's least similarity, by its age, and by guards, which know differences that
//! no similarity shows; the next one gets its turn. What remains has a score, and whether that is enough is a matter of
//! the [`budget`](super::budget). A request may tighten what the operator set and never loosen it.

use std::cell::LazyCell;
use std::ops::Deref;

use super::budget::{Budget, Labels};
use super::entry::{Candidate, Probability, Similarity};
use super::guards::Guards;
use super::outcome::Reason;
use super::template::Slots;
use super::text::Text;

/// What an operator set for a cache.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Least similarity of a semantic hit.
    pub threshold: Similarity,
    pub budget: Budget,
    /// Decide and compare, but never serve.
    pub shadow: bool,
    /// Who says whether two answers are the same.
    pub judge: Judge,
    /// Share of hits whose answer is asked for again in the background.
    pub audit: f64,
}

/// Who says whether a fresh answer is the one that a candidate would have given, where the words are not equal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Judge {
    /// Nobody: it stays unknown, and nothing is learned.
    Nobody,
    /// Answers with other words are other answers.
    Words,
    /// Answers whose embeddings are at least this similar are the same.
    Embedding(Similarity),
    /// A model that the operator named.
    Model,
}

impl Default for Policy {
    fn default() -> Self {
        let budget = Budget::default();
        Self { threshold: Similarity::new(0.0), budget, shadow: false, judge: Judge::Nobody, audit: 0.0 }
    }
}

/// What candidates are compared with.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub text: &'a str,
    pub slots: &'a Slots,
    pub guards: &'a Guards,
}

/// What one request asks for on top of the policy.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Terms {
    /// Least similarity; only ever tightens.
    pub threshold: Option<Similarity>,
    /// Most 1 - probability of this one hit; only ever tightens.
    pub error_max: Option<Probability>,
    /// Greatest age of the entry in milliseconds.
    pub age_max_ms: Option<u64>,
}

/// What the rules say of the candidates.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Appraisal {
    /// Those that no rule refuses, by index, with their score in `[0, 1]`; a score that the text's own entry has is 1.
    pub accepted: Vec<(usize, f64)>,
    /// The first that a rule refuses, and which.
    pub refused: Option<(usize, Reason)>,
}

impl Policy {
    /// Where labels come from.
    pub fn labels(&self) -> Labels {
        match self.judge {
            Judge::Nobody => Labels::None,
            Judge::Words | Judge::Embedding(_) | Judge::Model if self.audit > 0.0 => Labels::Audit(self.audit),
            Judge::Words | Judge::Embedding(_) | Judge::Model => Labels::Misses,
        }
    }

    /// Appraises `candidates`, most similar first, for a question asked at wall-clock time `now_ms`.
    pub fn appraise(&self, question: &Question<'_>, candidates: &[Candidate], terms: &Terms, now_ms: u64) -> Appraisal {
        // Read once, and only if a candidate comes so far.
        let read = LazyCell::new(|| question.guards.read(question.text));
        let mut appraisal = Appraisal::default();
        for (index, candidate) in candidates.iter().enumerate() {
            match self.appraise_one(question, &read, candidate, terms, now_ms) {
                Ok(score) => appraisal.accepted.push((index, score)),
                Err(reason) => {
                    appraisal.refused.get_or_insert((index, reason));
                }
            }
        }
        appraisal
    }

    /// Whether an entry of this age may be served at all, however it was found.
    pub fn is_too_old(life: &super::entry::Life, terms: &Terms, now_ms: u64) -> bool {
        life.is_over(now_ms) || terms.age_max_ms.is_some_and(|most| life.age_ms(now_ms) > most)
    }

    fn appraise_one(
        &self,
        question: &Question<'_>,
        read: &impl Deref<Target = Text>,
        candidate: &Candidate,
        terms: &Terms,
        now_ms: u64,
    ) -> Result<f64, Reason> {
        let Question { text, slots, guards } = *question;
        let least = terms.threshold.map_or(self.threshold.get(), |asked| asked.get().max(self.threshold.get()));
        if candidate.similarity.get() < least {
            Err(Reason::BelowThreshold)
        } else if Self::is_too_old(&candidate.entry.life, terms, now_ms) {
            Err(Reason::Expired)
        } else if candidate.entry.slots != *slots {
            Err(Reason::SlotsDiffer)
        } else if candidate.entry.text == text {
            Ok(1.0)
        } else if text.len().max(candidate.entry.text.len()) > COMPARED_BYTES_MAX {
            Err(Reason::TooLong)
        } else {
            guards.appraise(read, &guards.read(&candidate.entry.text), candidate.similarity)
        }
    }
}

/// Longer texts are not compared word by word: what that takes grows faster than they do.
const COMPARED_BYTES_MAX: usize = 16 << 10;

/// How an upstream said that it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// It had said all it wanted to.
    Complete,
    /// It calls tools of the client's, and the calls are whole.
    ToolCalls,
    /// Cut, filtered, calling a tool, or unsaid.
    Other,
}

/// A fresh answer as it was recorded, reduced to what decides whether it may be kept.
#[derive(Debug, Clone, Copy)]
pub struct Recording<'a> {
    pub status: u16,
    /// The body ended as the protocol says it must (all bytes, or the stream's last event).
    pub whole: bool,
    pub finish: Finish,
    pub text: &'a str,
    pub has_refusal: bool,
    pub has_error: bool,
    pub has_tool_calls: bool,
    /// The operator lets such calls be kept, and the request is looked up by its exact key only.
    pub may_call_tools: bool,
    pub choices: usize,
    pub model_asked: &'a str,
    /// Model that answered, where the provider says so.
    pub model_served: Option<&'a str>,
    pub json_asked: bool,
}

/// Whether a fresh answer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Keep,
    /// Not kept, and which rule said so.
    Drop(&'static str),
}

impl Policy {
    /// Keeps complete, clean answers and nothing else.
    pub fn admit(recording: &Recording<'_>) -> Admission {
        let Recording {
            status,
            whole,
            finish,
            text,
            has_refusal,
            has_error,
            has_tool_calls,
            may_call_tools,
            choices,
            model_asked,
            model_served,
            json_asked,
        } = *recording;
        let calls_tools = may_call_tools && has_tool_calls && finish == Finish::ToolCalls;
        let rules = [
            (status != 200, "status"),
            (!whole, "incomplete"),
            (has_error, "error"),
            (choices != 1, "choices"),
            (finish != Finish::Complete && !calls_tools, "finish_reason"),
            (has_refusal, "refusal"),
            (has_tool_calls && !calls_tools, "tool_calls"),
            (text.trim().is_empty() && !calls_tools, "empty"),
            (model_served.is_some_and(|served| !same_model(model_asked, served)), "model"),
            (json_asked && !calls_tools && serde_json::from_str::<serde::de::IgnoredAny>(text).is_err(), "json"),
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, rule)) => Admission::Drop(rule),
            None => Admission::Keep,
        }
    }
}

/// Whether `served` is the model that was asked for: the same name, the same behind a vendor's prefix, or one that
/// only adds a version of at least three digits (`gpt-4o` answered by `gpt-4o-2024-08-06`, not by `gpt-4o-mini`).
fn same_model(asked: &str, served: &str) -> bool {
    let bare = |name: &str| name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let (asked, served) = (bare(asked), bare(served));
    let asked = asked.strip_suffix("-latest").unwrap_or(&asked);
    let Some(version) = served.strip_prefix(asked) else { return false };
    let digits = version.chars().filter(char::is_ascii_digit).count();
    let separators = version.chars().filter(|c| "-@:".contains(*c)).count();
    version.is_empty() || version.starts_with(['-', '@', ':']) && digits >= 3 && digits + separators == version.len()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::entry::{Answer, AnswerKind, Embedding, Entry, EntryId, Life, Origin};
    use super::super::fingerprint::{Fingerprint, Partition};
    use super::super::prompt::{CacheName, Tenant};
    use super::*;

    const NOW: u64 = 1_000_000;

    fn candidate(similarity: f32, created_ms: u64, expires_ms: u64, slots: Slots) -> Candidate {
        let fingerprint = Fingerprint { scope: [0; 32], exact: [1; 32], template: [2; 32] };
        let embedding = Embedding::new(vec![1.0]).expect("a unit vector");
        let entry = Entry {
            id: EntryId::of(&fingerprint),
            fingerprint,
            tenant: Tenant::new("t"),
            cache: CacheName::default(),
            text: "a question".into(),
            slots,
            vars: Default::default(),
            origin: Origin::Prompt { context: None },
            attributes: Default::default(),
            tags: Default::default(),
            sources: Default::default(),
            writer: String::new(),
            answer: Answer { kind: AnswerKind::Text, body: "an answer".into(), usage: None },
            life: Life { created_ms, expires_ms },
            place: Some((Partition::new(&fingerprint, "m"), embedding)),
        };
        Candidate { entry: Arc::new(entry), similarity: Similarity::new(similarity) }
    }

    fn fresh(similarity: f32) -> Candidate {
        candidate(similarity, NOW - 1000, NOW + 1000, Slots::new())
    }

    fn appraise(policy: Policy, candidates: &[Candidate], terms: Terms) -> Appraisal {
        let (slots, guards) = (Slots::new(), Guards::default());
        let question = Question { text: "the question", slots: &slots, guards: &guards };
        policy.appraise(&question, candidates, &terms, NOW)
    }

    fn indices(appraisal: &Appraisal) -> Vec<usize> {
        appraisal.accepted.iter().map(|(index, _)| *index).collect()
    }

    #[test]
    fn guards_refuse_what_is_near_and_the_next_gets_its_turn() {
        fn check(asked: &str, stored: &[&str], accepted: &[usize], refused: Option<(usize, Reason)>) {
            let candidates: Vec<Candidate> = stored
                .iter()
                .map(|text| {
                    let mut candidate = fresh(0.97);
                    Arc::make_mut(&mut candidate.entry).text = (*text).into();
                    candidate
                })
                .collect();
            let (slots, guards) = (Slots::new(), Guards::default());
            let question = Question { text: asked, slots: &slots, guards: &guards };
            let appraisal = Policy::default().appraise(&question, &candidates, &Terms::default(), NOW);
            assert_eq!((&indices(&appraisal)[..], appraisal.refused), (accepted, refused), "{asked} {stored:?}");
        }
        let refused = |reason| Some((0, reason));
        check("How do I pay 5 dollars?", &["How can I pay 5 dollars?"], &[0], None);
        check("How do I pay 5 dollars?", &["How do I pay 6 dollars?"], &[], refused(Reason::NumberDiffers));
        check("Is it safe to drink?", &["Is it not safe to drink?"], &[], refused(Reason::NegationDiffers));
        check("From Rome to Oslo by train", &["From Oslo to Rome by train"], &[], refused(Reason::OrderDiffers));
        check("Is it safe?", &["Is it\u{200b} safe?"], &[], refused(Reason::LossyText));
        check("Pay 5 dollars", &["Pay 6 dollars", "Pay 5 dollars"], &[1], refused(Reason::NumberDiffers));
    }

    #[test]
    fn appraising() {
        fn check(candidates: &[Candidate], terms: Terms, accepted: &[usize], refused: Option<(usize, Reason)>) {
            let policy = Policy { threshold: Similarity::new(0.90), ..Policy::default() };
            let appraisal = appraise(policy, candidates, terms);
            assert_eq!((&indices(&appraisal)[..], appraisal.refused), (accepted, refused));
        }
        let refused = |reason| Some((0, reason));
        let any = Terms::default();
        check(&[], any, &[], None);
        check(&[fresh(0.95)], any, &[0], None);
        check(&[fresh(0.90)], any, &[0], None);
        check(&[fresh(0.89)], any, &[], refused(Reason::BelowThreshold));
        check(&[candidate(0.95, 0, NOW, Slots::new())], any, &[], refused(Reason::Expired));
        let other = [("name".to_owned(), "Ada".to_owned())].into();
        check(&[candidate(0.95, 0, NOW + 1, other)], any, &[], refused(Reason::SlotsDiffer));
        check(&[candidate(0.97, 0, NOW, Slots::new()), fresh(0.95)], any, &[1], refused(Reason::Expired));
        let strict = Terms { threshold: Some(Similarity::new(0.97)), ..any };
        check(&[fresh(0.95)], strict, &[], refused(Reason::BelowThreshold));
        let loose = Terms { threshold: Some(Similarity::new(0.1)), ..any };
        check(&[fresh(0.5)], loose, &[], refused(Reason::BelowThreshold));
        let young = Terms { age_max_ms: Some(500), ..any };
        check(&[fresh(0.99)], young, &[], refused(Reason::Expired));
    }

    #[test]
    fn labels_come_from_whoever_judges() {
        let check = |judge, audit, expected| {
            assert_eq!(Policy { judge, audit, ..Policy::default() }.labels(), expected);
        };
        check(Judge::Nobody, 0.1, Labels::None);
        check(Judge::Words, 0.0, Labels::Misses);
        check(Judge::Words, 0.1, Labels::Audit(0.1));
        check(Judge::Embedding(Similarity::new(0.9)), 0.0, Labels::Misses);
        check(Judge::Model, 0.0, Labels::Misses);
        check(Judge::Model, 0.1, Labels::Audit(0.1));
    }

    proptest! {
        #[test]
        fn tightening_never_turns_a_refusal_into_a_reuse(
            similarities in prop::collection::vec(0.8f32..1.0, 0..4),
            operator in 0.5f32..1.0, asked in 0f32..1.0, age in prop::option::of(0u64..2000),
        ) {
            let candidates: Vec<_> = similarities.into_iter().map(fresh).collect();
            let policy = Policy { threshold: Similarity::new(operator), ..Policy::default() };
            let terms = Terms { threshold: Some(Similarity::new(asked)), age_max_ms: age, error_max: None };
            let free = appraise(policy, &candidates, Terms::default()).accepted;
            for found in appraise(policy, &candidates, terms).accepted {
                prop_assert!(free.contains(&found));
            }
            let tighter = Policy { threshold: Similarity::new(operator + 0.05), ..policy };
            for found in appraise(tighter, &candidates, Terms::default()).accepted {
                prop_assert!(free.contains(&found));
            }
        }

        #[test]
        fn expired_is_never_reused(similarity in 0f32..1.0, created in 0..NOW, lived in 0..=NOW) {
            let stale = candidate(similarity, created, created.saturating_add(lived).min(NOW), Slots::new());
            let appraisal = appraise(Policy::default(), &[stale], Terms::default());
            prop_assert!(appraisal.accepted.is_empty(), "accepted an expired entry");
        }
    }

    #[test]
    fn admitting() {
        let clean = Recording {
            status: 200,
            whole: true,
            finish: Finish::Complete,
            text: "42",
            has_refusal: false,
            has_error: false,
            has_tool_calls: false,
            may_call_tools: false,
            choices: 1,
            model_asked: "gpt-4o",
            model_served: Some("gpt-4o-2024-08-06"),
            json_asked: false,
        };
        let check = |recording: Recording<'_>, expected: Admission| {
            assert_eq!(Policy::admit(&recording), expected, "{recording:?}")
        };
        check(clean, Admission::Keep);
        check(Recording { model_served: None, ..clean }, Admission::Keep);
        check(Recording { json_asked: true, ..clean }, Admission::Keep);
        check(Recording { status: 201, ..clean }, Admission::Drop("status"));
        let calls = Recording { finish: Finish::ToolCalls, has_tool_calls: true, text: "", json_asked: true, ..clean };
        check(Recording { may_call_tools: true, ..calls }, Admission::Keep);
        check(calls, Admission::Drop("finish_reason"));
        check(Recording { may_call_tools: true, has_tool_calls: false, ..calls }, Admission::Drop("finish_reason"));
        check(Recording { may_call_tools: true, finish: Finish::Other, ..calls }, Admission::Drop("finish_reason"));
        check(Recording { may_call_tools: true, finish: Finish::Complete, ..calls }, Admission::Drop("tool_calls"));
        check(Recording { may_call_tools: true, ..clean }, Admission::Keep);
        check(Recording { may_call_tools: true, text: "", ..clean }, Admission::Drop("empty"));
        check(Recording { whole: false, ..clean }, Admission::Drop("incomplete"));
        check(Recording { finish: Finish::Other, ..clean }, Admission::Drop("finish_reason"));
        check(Recording { text: " \n", ..clean }, Admission::Drop("empty"));
        check(Recording { has_refusal: true, ..clean }, Admission::Drop("refusal"));
        check(Recording { has_error: true, ..clean }, Admission::Drop("error"));
        check(Recording { has_tool_calls: true, ..clean }, Admission::Drop("tool_calls"));
        check(Recording { choices: 2, ..clean }, Admission::Drop("choices"));
        check(Recording { json_asked: true, text: "{\"a\":", ..clean }, Admission::Drop("json"));
    }

    #[test]
    fn models() {
        fn check(asked: &str, served: &str, same: bool) {
            assert_eq!(same_model(asked, served), same, "{asked} answered by {served}");
        }
        check("gpt-4o", "gpt-4o", true);
        check("gpt-4o", "gpt-4o-2024-08-06", true);
        check("openai/gpt-4o", "gpt-4o-2024-08-06", true);
        check("claude-sonnet-4", "claude-sonnet-4-20250514", true);
        check("claude-3-5-haiku-latest", "claude-3-5-haiku-20241022", true);
        check("gemini-2.0-flash", "gemini-2.0-flash-001", true);
        check("gpt-4o", "gpt-4o-mini", false);
        check("gpt-4", "gpt-4.1", false);
        check("gpt-4", "gpt-4o", false);
        check("claude-3", "claude-3-5", false);
        check("gpt-4o-2024-08-06", "gpt-4o", false);
    }
}
