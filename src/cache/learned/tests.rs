//! What caches learn of their entries, and what they do not.

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
fn praise_counts_once_for_a_hit_and_not_for_scores_where_a_template_was_served() {
    let shifted = |learned: &mut Learned| match choose(&mut learned.clone(), &[(id(1), 0.90)]) {
        Choice::Serve { probability, .. } => probability.get(),
        refused @ Choice::Refuse { .. } => panic!("{refused:?}"),
    };
    let mut learned = learned();
    let before = shifted(&mut learned);
    learned.choose_template(id(1), ANY, [1.0, 1.0]);
    learned.hear(id(1), true);
    assert_eq!(shifted(&mut learned), before);
    choose(&mut learned, &[(id(1), 0.90)]);
    learned.hear(id(1), true);
    let once = shifted(&mut learned);
    assert!(once > before);
    (0..10).for_each(|_| learned.hear(id(1), true));
    assert_eq!(shifted(&mut learned), once);
}

#[test]
fn entries_of_one_answer_share_what_is_learned() {
    let mut learned = Learned::new(&Policy { judge: Judge::Words, ..Policy::default() });
    let Choice::Refuse { judged: Some(judged), .. } = choose(&mut learned, &[(id(1), 0.8)]) else { panic!("served") };
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

    #[test]
    fn praise_for_what_was_not_served_changes_nothing(
        wrong in prop::collection::vec((0u8..4, 0.0f64..1.0, any::<bool>()), 0..8),
        right in prop::collection::vec((0u8..4, 0.0f64..1.0, 0u8..3), 1..40),
    ) {
        let mut learned = learned();
        for (entry, score, is_by_template) in wrong {
            if is_by_template {
                learned.hear_of_template(id(entry), false);
            } else {
                learned.hear_of(id(entry), score, false);
            }
        }
        let decisions = |learned: &Learned| {
            let mut learned = learned.clone();
            let near = |learned: &mut Learned, entry, percent: u8| {
                choose(learned, &[(id(entry), f64::from(percent) / 100.0)])
            };
            let near: Vec<Choice> = (0..4)
                .flat_map(|entry| (0..=100).map(move |percent| (entry, percent)))
                .map(|(entry, percent)| near(&mut learned, entry, percent))
                .collect();
            let doubted: Vec<bool> = (0..4).map(|entry| learned.is_doubted(id(entry))).collect();
            (near, doubted, learned.choose_template(id(0), ANY, [1.0, 1.0]))
        };
        let before = decisions(&learned);
        for (entry, score, what) in right {
            match what {
                0 => learned.hear(id(entry), true),
                1 => learned.hear_of(id(entry), score, true),
                _ => learned.hear_of_template(id(entry), true),
            }
        }
        prop_assert_eq!(decisions(&learned), before);
    }
}
