//! Identical questions at one time: one call upstream, and an answer for everybody.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Setup, and, ask, events, said};
use crate::support::{Answer, Client, Reply, chunks, event_stream, until};

fn streamed(question: Value) -> Value {
    and(question, json!({"stream": true}))
}

/// Sends the question without waiting for its answer.
pub(super) fn send(client: &Client, question: &Value) -> tokio::task::JoinHandle<Answer> {
    let (client, question) = (client.clone(), question.clone());
    tokio::spawn(async move { client.chat(&question).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_misses_are_one_call() {
    let setup = Setup::start("forty two").await;
    let question = ask("What is the answer?");
    let answers = join_all((0..1000).map(|_| setup.client.chat(&question))).await;
    let (mut misses, mut joined) = (0, 0);
    for answer in answers {
        let answer = answer.check(200);
        match answer.outcome() {
            ("miss", _) => misses += 1,
            ("hit", "joined") => joined += 1,
            outcome => assert_eq!(outcome, ("hit", "exact")),
        }
        assert_eq!(said(&answer), "forty two");
    }
    assert_eq!((misses, setup.upstream.count()), (1, 1));
    assert_eq!(setup.joined().await, joined);
}

/// A stream is joined where it stands, and read from its beginning.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_stream_is_shared() {
    let setup = Setup::start("").await;
    let (reply, live) = Reply::live();
    let mut reply = Some(reply);
    setup.upstream.answer_with(move |_| reply.take().expect("one call only"));
    let question = streamed(ask("Tell me a story"));
    let pieces = chunks("once upon a time", "m");
    let leader = send(&setup.client, &question);
    until("the call is on its way", async || (setup.upstream.count() == 1).then_some(())).await;
    live.send(&event_stream(&pieces[..2]).replace("data: [DONE]\n\n", "")).await;
    let follower = send(&setup.client, &question);
    until("the follower joined", async || (setup.joined().await == 1).then_some(())).await;
    until("both read", async || matches!(setup.shared().await, [1, 2, held] if held > 0).then_some(())).await;
    live.send(&event_stream(&pieces[2..])).await;
    drop(live);
    let (leader, follower) =
        (leader.await.expect("an answer").check(200), follower.await.expect("an answer").check(200));
    assert_eq!((leader.outcome().0, follower.outcome()), ("miss", ("hit", "joined")));
    assert_eq!((said(&leader), said(&follower)), ("once upon a time".to_owned(), "once upon a time".to_owned()));
    assert_eq!(events(&leader), events(&follower));
    until("nothing is left of it", async || (setup.shared().await == [0; 3]).then_some(())).await;
    assert_eq!(setup.upstream.count(), 1);
}

/// The one whose question it was leaves: the others lose nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_leaves_takes_nobody_along() {
    let setup = Setup::start("").await;
    let (go, head) = oneshot::channel::<()>();
    let mut head = Some(head);
    setup.upstream.answer_with(move |call| {
        let head = head.take().expect("one call only");
        Reply::saying("still here", call).after(async move { drop(head.await) })
    });
    let question = ask("Who is there?");
    let leader = send(&setup.client, &question);
    until("the call is on its way", async || (setup.upstream.count() == 1).then_some(())).await;
    let followers: Vec<_> = (0..5).map(|_| send(&setup.client, &question)).collect();
    // Time for them to come; those that come later find the answer all the same.
    tokio::time::sleep(Duration::from_millis(100)).await;
    leader.abort();
    tokio::time::sleep(Duration::from_millis(100)).await;
    go.send(()).expect("the call is still on its way");
    for follower in followers {
        let answer = follower.await.expect("an answer").check(200);
        assert_eq!((answer.outcome().0, said(&answer)), ("hit", "still here".to_owned()));
    }
    assert_eq!(setup.upstream.count(), 1);
}

/// When nobody waits any more the call is given up.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_one_to_leave_cancels_the_call() {
    let setup = Setup::start("").await;
    let (reply, live) = Reply::live();
    let mut reply = Some(reply);
    setup.upstream.answer_with(move |_| reply.take().expect("one call only"));
    let question = streamed(ask("Tell me everything"));
    let readers: Vec<_> = (0..3).map(|_| send(&setup.client, &question)).collect();
    live.send("data: {}\n\n").await;
    until("all are there", async || (setup.joined().await == 2).then_some(())).await;
    let mut readers = readers.into_iter();
    readers.next().expect("a reader").abort();
    live.send("data: {}\n\n").await;
    readers.for_each(|reader| reader.abort());
    live.abandoned().await;
    assert_eq!(setup.upstream.count(), 1);
    assert_eq!(setup.entries().await, 0);
}

/// What differs in anything that matters is a call of its own.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_same_is_shared() {
    let setup = Setup::start("").await;
    let (go, head) = tokio::sync::watch::channel(false);
    let mut count = 0;
    setup.upstream.answer_with(move |call| {
        let mut head = head.clone();
        count += 1;
        Reply::saying(&format!("answer {count}"), call).after(async move { drop(head.wait_for(|go| *go).await) })
    });
    let question = ask("Hi");
    let other = setup.server.client("sk-other");
    let calls = [
        send(&setup.client, &question),
        send(&other, &question),
        send(&setup.client, &and(question.clone(), json!({"temperature": 1}))),
        send(&setup.client, &streamed(question.clone())),
        send(&setup.client.with("x-nearhit-cache", "mine"), &question),
        send(&setup.client.with("x-nearhit-tags", "t"), &question),
        send(&setup.client.with("cache-control", "no-cache"), &question),
        send(&setup.client.with("cache-control", "no-store"), &question),
        send(&setup.client, &ask("hi")),
        // The answer of some APIs repeats whom it is for.
        send(&setup.client, &and(question.clone(), json!({"user": "somebody else"}))),
        send(&setup.client.with("x-nearhit-threshold", "0.99"), &question),
        send(&setup.client.with("x-nearhit-priority", "batch"), &question),
    ];
    until("all are on their way", async || (setup.upstream.count() == calls.len()).then_some(())).await;
    let same = send(&setup.client, &question);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(setup.upstream.count(), calls.len());
    go.send(true).expect("calls on their way");
    let answers: Vec<String> =
        join_all(calls).await.into_iter().map(|answer| said(&answer.expect("an answer").check(200))).collect();
    let distinct: std::collections::HashSet<_> = answers.iter().collect();
    assert_eq!(distinct.len(), answers.len(), "{answers:?}");
    assert_eq!(said(&same.await.expect("an answer")), answers[0]);
}

/// A failure is everybody's who asked with the same key, and nothing of it is kept.
#[tokio::test(flavor = "multi_thread")]
async fn failures_are_shared() {
    let setup = Setup::start("").await;
    for status in [500u16, 429, 400, 401, 403] {
        let before = setup.upstream.count();
        let (go, head) = tokio::sync::watch::channel(false);
        setup.upstream.answer_with(move |_| {
            let mut head = head.clone();
            let error = json!({"error": {"message": "no", "type": "t", "param": null, "code": null}});
            Reply::json(status, &error)
                .header("retry-after", "7")
                .after(async move { drop(head.wait_for(|go| *go).await) })
        });
        let question = and(ask("Hi"), json!({"seed": status}));
        let leader = send(&setup.client, &question);
        until("the call is on its way", async || (setup.upstream.count() > before).then_some(())).await;
        let followers: Vec<_> = (0..3).map(|_| send(&setup.client, &question)).collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        go.send(true).expect("a call on its way");
        assert_eq!(leader.await.expect("an answer").status.as_u16(), status);
        for follower in followers {
            let answer = follower.await.expect("an answer");
            assert_eq!(
                (answer.status.as_u16(), answer.outcome().0, answer.header("retry-after")),
                (status, "miss", "7")
            );
        }
        assert_eq!(setup.upstream.count() - before, 1, "{status}");
    }
    assert_eq!(setup.entries().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sharing_can_be_turned_off() {
    let setup = Setup::with_config("forty two", "[cache]\ncoalesce = false\n").await;
    let (go, head) = tokio::sync::watch::channel(false);
    setup.upstream.answer_with(move |call| {
        let mut head = head.clone();
        Reply::saying("forty two", call).after(async move { drop(head.wait_for(|go| *go).await) })
    });
    let calls: Vec<_> = (0..3).map(|_| send(&setup.client, &ask("Hi"))).collect();
    until("each is on its way", async || (setup.upstream.count() == 3).then_some(())).await;
    go.send(true).expect("calls on their way");
    for call in join_all(calls).await {
        assert_eq!(call.expect("an answer").check(200).outcome().0, "miss");
    }
}

/// With one tenant of all callers, each call goes with its caller's own key.
#[tokio::test(flavor = "multi_thread")]
async fn one_callers_refusal_is_not_anothers() {
    let setup = Setup::with_config("", "tenancy = \"single\"\n").await;
    let (go, head) = tokio::sync::watch::channel(false);
    setup.upstream.answer_with(move |call| {
        let mut head = head.clone();
        let error = json!({"error": {"message": "used up", "type": "t", "param": null, "code": null}});
        let reply = match call.header("authorization") {
            "Bearer sk-used-up" => Reply::json(429, &error),
            _ => Reply::saying("at your service", call),
        };
        reply.after(async move { drop(head.wait_for(|go| *go).await) })
    });
    let refused = send(&setup.server.client("sk-used-up"), &ask("Hi"));
    until("the first call is on its way", async || (setup.upstream.count() == 1).then_some(())).await;
    let served = send(&setup.client, &ask("Hi"));
    until("both are on their way", async || (setup.upstream.count() == 2).then_some(())).await;
    go.send(true).expect("calls on their way");
    assert_eq!(refused.await.expect("an answer").status.as_u16(), 429);
    assert_eq!(said(&served.await.expect("an answer").check(200)), "at your service");
}
