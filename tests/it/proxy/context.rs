//! Earlier turns, where they may differ in words.

use serde_json::{Value, json};

use super::Setup;

/// A conversation: system prompt, then user and assistant by turns.
fn asked(system: &str, turns: &[&str]) -> Value {
    let roles = ["user", "assistant"].into_iter().cycle();
    let spoken = roles.zip(turns).map(|(role, text)| json!({"role": role, "content": text}));
    let messages: Vec<Value> = std::iter::once(json!({"role": "system", "content": system})).chain(spoken).collect();
    json!({"model": "m", "messages": messages})
}

const LOST: &[&str] = &[
    "Hi, I think I lost my debit card in town yesterday.",
    "I am sorry to hear that. I can block the card and send you another one.",
    "How long does a new card take?",
];

/// Turns are normalised like the last text, whatever the setting.
#[tokio::test]
async fn turns_are_equal_but_for_what_nobody_sees() {
    let setup = Setup::start("Yes.").await;
    let body = |content: Value| {
        json!({"model": "m", "messages": [
            {"role": "user", "content": content}, {"role": "assistant", "content": "Well."}, {"role": "user", "content": "And?"}]})
    };
    setup.learn(&setup.client, &body(json!("cafe\u{301}\r\nau lait "))).await;
    for same in [json!("café\nau lait"), json!([{"type": "text", "text": "café\nau lait"}])] {
        assert_eq!(setup.client.chat(&body(same)).await.check(200).outcome(), ("hit", "exact"));
    }
    for other in [
        json!("Café\nau lait"),
        json!("café au lait"),
        json!([{"type": "text", "text": "café"}, {"type": "text", "text": "au lait"}]),
    ] {
        assert_eq!(setup.client.chat(&body(other)).await.check(200).outcome().0, "miss");
    }
}

/// The default: as long as a turn differs, it is another question.
#[tokio::test]
async fn contexts_are_equal_by_default() {
    let setup = Setup::start("Yes.").await;
    setup.learn(&setup.client, &asked("Be brief.", LOST)).await;
    let reworded = [LOST[0], "I'm sorry to hear that. I can block the card and send you another one.", LOST[2]];
    assert_eq!(setup.client.chat(&asked("Be brief.", &reworded)).await.check(200).outcome().0, "miss");
}

#[cfg(feature = "bundled-model")]
mod by_meaning {
    use super::super::{Setup, said};
    use super::{LOST, asked};

    /// A provider that never says the same twice, behind a cache that matches contexts by meaning.
    async fn counting() -> Setup {
        let setup =
            Setup::with_config("", "[cache]\ncontext = \"semantic\"\nmax_error = 0.6\nmax_error_per_hit = 0.6").await;
        setup.upstream.count_up();
        setup
    }

    #[tokio::test]
    async fn a_context_may_be_said_in_other_words() {
        let setup = counting().await;
        setup.learn(&setup.client, &asked("Be brief.", LOST)).await;
        let reworded = [
            "hello, my debit card is gone, I must have lost it in town yesterday",
            "Sorry to hear that. I can block your card and send you a new one.",
            "How long does a new card take?",
        ];
        let hit = setup.client.chat(&asked("Be brief.", &reworded)).await.check(200);
        assert_eq!((hit.outcome(), said(&hit).as_str()), (("hit", "semantic"), "answer 1"));
        // What the operator says is compared exactly.
        let other = setup.client.chat(&asked("Be long.", &reworded)).await.check(200);
        assert_eq!(other.outcome(), ("miss", "empty"));
    }

    #[tokio::test]
    async fn another_context_is_refused() {
        let setup = counting().await;
        setup.learn(&setup.client, &asked("Be brief.", LOST)).await;
        let question = LOST[2];
        for turns in [
            // About something else.
            &["My membership card for the gym is worn out.", "The reception prints those.", question][..],
            // One turn among equal ones.
            &[LOST[0], "I am sorry to hear that. I can block the card, or your account.", question],
            // The next place in the same conversation.
            &[LOST[0], LOST[1], question, "Five days.", question],
        ] {
            let miss = setup.client.chat(&asked("Be brief.", turns)).await.check(200);
            assert_eq!(miss.outcome(), ("miss", "context_differs"), "{turns:?}");
        }
        // A question without turns before it is in another partition.
        let alone = setup.client.chat(&asked("Be brief.", &[question])).await.check(200);
        assert_eq!(alone.outcome(), ("miss", "empty"));
    }
}
