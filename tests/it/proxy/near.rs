//! Questions near in meaning at one time, with the real model: one call, where that is switched on.

use serde_json::json;

use super::coalesce::send;
use super::{Setup, ask, said};
use crate::support::{Reply, until};

const ASKED: &str = "How do I reset my password?";

const REWORDED: &str = "How can I reset my password?";

/// The model may take its time.
const SWITCHED_ON: &str = "[cache]\ncoalesce_semantic = true\n[embed]\nproxy_patience_ms = 60000\n";

/// A provider that answers when it is told to, with the number of the call.
fn held_back(setup: &Setup, first_status: u16) -> tokio::sync::watch::Sender<bool> {
    let (go, told) = tokio::sync::watch::channel(false);
    let mut count = 0;
    setup.upstream.answer_with(move |call| {
        let mut told = told.clone();
        count += 1;
        let reply = match first_status {
            200 => Reply::saying(&format!("answer {count}"), call),
            status if count == 1 => Reply::json(status, &json!({"error": {"message": "no"}})),
            _ => Reply::saying(&format!("answer {count}"), call),
        };
        reply.after(async move { drop(told.wait_for(|go| *go).await) })
    });
    go
}

#[tokio::test(flavor = "multi_thread")]
async fn two_near_questions_are_one_call() {
    let setup = Setup::with_config("", SWITCHED_ON).await;
    let go = held_back(&setup, 200);
    let first = send(&setup.client, &ask(ASKED));
    until("the call is on its way", async || (setup.upstream.count() == 1).then_some(())).await;
    let second = send(&setup.client, &ask(REWORDED));
    // Time for it to come; if it comes later it finds the answer all the same.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    go.send(true).expect("a call on its way");
    let (first, second) = (first.await.expect("an answer").check(200), second.await.expect("an answer").check(200));
    assert_eq!((first.outcome().0, second.outcome().0), ("miss", "hit"));
    assert!(["joined", "semantic"].contains(&second.outcome().1), "{:?}", second.outcome());
    assert!(!second.header("x-nearhit-similarity").is_empty() && !second.header("x-nearhit-probability").is_empty());
    assert_eq!((said(&second), setup.upstream.count()), ("answer 1".to_owned(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_not_be_served_is_a_call_of_its_own() {
    for (config, asked, other, tenant) in [
        (SWITCHED_ON, "How do I return 2 chairs?", "How can I return 3 chairs?", "sk-test"),
        (SWITCHED_ON, ASKED, REWORDED, "sk-other"),
        ("", ASKED, REWORDED, "sk-test"),
    ] {
        let setup = Setup::with_config("", config).await;
        let go = held_back(&setup, 200);
        let first = send(&setup.client, &ask(asked));
        until("the first call is on its way", async || (setup.upstream.count() == 1).then_some(())).await;
        let second = send(&setup.server.client(tenant), &ask(other));
        until("both are on their way", async || (setup.upstream.count() == 2).then_some(())).await;
        go.send(true).expect("calls on their way");
        assert_eq!(said(&first.await.expect("an answer").check(200)), "answer 1");
        assert_eq!(said(&second.await.expect("an answer").check(200)), "answer 2", "{other} {tenant}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_not_shared_with_what_is_near() {
    let setup = Setup::with_config("", SWITCHED_ON).await;
    let go = held_back(&setup, 500);
    let first = send(&setup.client, &ask(ASKED));
    until("the call is on its way", async || (setup.upstream.count() == 1).then_some(())).await;
    let second = send(&setup.client, &ask(REWORDED));
    go.send(true).expect("a call on its way");
    assert_eq!(first.await.expect("an answer").status.as_u16(), 500);
    let second = second.await.expect("an answer").check(200);
    assert_eq!((second.outcome().0, said(&second)), ("miss", "answer 2".to_owned()));
}
