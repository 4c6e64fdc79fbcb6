//! The error budget over HTTP, with the real model: feedback, shadow mode, recommendations, audits, alarms.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{ENTRIES, PASSWORD, pair};
use crate::support::{Client, Home, Reply, Upstream, until};

const REWORDED: &str = "How can I reset my password?";

fn ask(text: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": text}]})
}

/// Two ways to ask the same about each thing; far from what is asked about the others.
fn asked(thing: &str) -> [String; 2] {
    [format!("How do I reset my {thing}?"), format!("How can I reset my {thing}?")]
}

const THINGS: [&str; 8] = ["password", "router", "thermostat", "watch", "blender", "piano", "freezer", "passport"];

/// Answers by what a question is about, until told to answer otherwise.
async fn teacher() -> (Upstream, Arc<Mutex<HashMap<String, String>>>) {
    let answers = Arc::new(Mutex::new(HashMap::new()));
    let known = Arc::clone(&answers);
    let upstream = Upstream::start(move |call| {
        let question = call.json()["messages"][0]["content"].as_str().unwrap_or_default().trim().to_owned();
        let thing = question.rsplit(' ').next().unwrap_or_default().to_owned();
        let answer = known.lock().get(&thing).cloned().unwrap_or_else(|| format!("As for {thing}: turn it."));
        Reply::saying(&answer, call)
    })
    .await;
    (upstream, answers)
}

async fn feedback(client: &Client, id: &str, body: Value, status: u16) {
    client.post(&format!("{ENTRIES}/{id}/feedback"), &body).await.check(status);
}

#[tokio::test]
async fn a_wrong_answer_is_kept_from_such_questions_at_once() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    let insert = json!({"prompt": PASSWORD, "response": "So."});
    let id = client.insert(&insert).await;
    let hit = client.search(&json!({"prompt": REWORDED})).await;
    assert_eq!(hit["tier"], "semantic", "{hit}");
    assert!(hit["data"][0]["probability"].as_f64().is_some_and(|p| p > 0.8 && p < 1.0), "{hit}");

    feedback(&client, &id, json!({"correct": false, "prompt": REWORDED}), 204).await;
    let miss = client.search(&json!({"prompt": REWORDED})).await;
    assert_eq!((&miss["reason"], &miss["nearest"]["id"]), (&json!("low_probability"), &json!(id)), "{miss}");
    assert_eq!(client.find(PASSWORD).await, pair("exact", "So."));

    // A wrong answer to its own question is no answer to any.
    feedback(&client, &id, json!({"correct": false, "prompt": PASSWORD}), 204).await;
    assert_eq!(client.find(PASSWORD).await, pair("miss", "quarantined"));
    assert_eq!(client.stats("default").await["budget"]["quarantined"], 1);
    feedback(&client, &id, json!({"correct": true, "prompt": PASSWORD}), 204).await;
    assert_eq!(client.find(PASSWORD).await, pair("exact", "So."));
    feedback(&client, &id, json!({"correct": false, "prompt": PASSWORD}), 204).await;
    client.insert(&insert).await;
    assert_eq!(client.find(PASSWORD).await, pair("exact", "So."));

    feedback(&client, &"0".repeat(32), json!({"correct": false}), 404).await;
    feedback(&server.client("sk-another"), &id, json!({"correct": false}), 404).await;
    feedback(&client, &id, json!({"correct": "no"}), 400).await;
    let told = home.run(&["feedback", &id, "wrong", "--prompt", PASSWORD, "--url", &server.url]);
    assert_eq!((told.code, told.stdout.as_str()), (Some(0), "heard\n"));
    assert_eq!(client.find(PASSWORD).await, pair("miss", "quarantined"));
}

#[tokio::test]
async fn a_cache_in_shadow_mode_serves_nothing_and_recommends() {
    let (upstream, answers) = teacher().await;
    let home = Home::with_config("[cache]\nshadow = true\njudge = \"words\"");
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    let client = server.client("");
    let tune = async |query: &str| client.get(&format!("/v1/caches/default/tune?{query}")).await.check(200).json();
    assert_eq!(tune("").await["samples"], 0);
    let tuned = home.run(&["tune", "--url", &server.url]);
    assert!(tuned.code == Some(0) && tuned.stdout.starts_with("nothing was compared yet"), "{tuned:?}");

    let mut calls = 0;
    for thing in THINGS {
        for question in asked(thing) {
            client.chat(&ask(&question)).await.check(200);
            calls += 1;
            client.wait_for_entries(calls as u64).await;
        }
    }
    assert_eq!(upstream.count(), calls);
    // One of them has another answer by now.
    answers.lock().insert("router?".into(), "Buy another.".into());
    let again = client.chat(&ask("How could I reset my router?")).await.check(200);
    assert_eq!(again.header("x-cache-status"), "MISS");
    let compared = async || {
        let budget = client.stats("default").await["budget"].clone();
        (budget["wrong"].as_u64()? > 0 && budget["right"].as_u64()? > 0).then_some(budget)
    };
    let budget = until("fresh answers are compared", compared).await;
    assert_eq!((&budget["shadow"], &budget["unknown"]), (&json!(true), &json!(0)), "{budget}");

    // An exact repeat would have been a hit, and says so.
    let repeat = client.chat(&ask(&asked("piano")[0])).await.check(200);
    assert_eq!((repeat.header("x-nearhit-outcome"), repeat.header("x-nearhit-tier")), ("shadow", "exact"));
    assert_eq!((repeat.header("x-nearhit-reason"), repeat.header("x-cache-status")), ("", "MISS"));
    assert_eq!(client.search(&ask_bare(&asked("piano")[0])).await["outcome"], "miss");

    let loose = tune("maxError=1&maxErrorPerHit=1").await;
    let strict = tune("maxError=0&maxErrorPerHit=0").await;
    assert!(loose["samples"].as_u64() > Some(7) && loose["hitRate"].as_f64() > Some(0.3), "{loose}");
    assert_eq!((&strict["bound"], &strict["hitRate"]), (&json!(1.0), &json!(0.0)), "{strict}");
    assert!(loose["bound"].as_f64() < strict["bound"].as_f64(), "{loose}");
    let tuned = home.run(&["tune", "--max-error", "1", "--max-error-per-hit", "1", "--url", &server.url]);
    for words in ["comparisons", "serve scores above", "it would have served"] {
        assert!(tuned.code == Some(0) && tuned.stdout.contains(words), "{words}: {tuned:?}");
    }
    client.get("/v1/caches/default/tune?maxError=2").await.refusal(400, "invalid_value");
    client.get("/v1/caches/default/tune?most=1").await.refusal(400, "invalid_value");
}

fn ask_bare(text: &str) -> Value {
    json!({"prompt": text})
}

#[tokio::test]
async fn complaints_beyond_the_budget_raise_the_bound_and_an_alarm() {
    let (upstream, _) = teacher().await;
    let home = Home::new();
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    let client = server.client("");
    let over = async || {
        let metrics = server.admin().get("/metrics").await.check(200).text();
        metrics.contains("nearhit_budget{what=\"caches_over_budget\"} 1")
    };
    let mut before = None;
    for thing in THINGS {
        let [first, second] = asked(thing);
        client.chat(&ask(&first)).await.check(200);
        let hit = until("the answer is stored", async || {
            let answer = client.chat(&ask(&second)).await.check(200);
            (answer.outcome() == ("hit", "semantic")).then_some(answer)
        });
        // An exact hit of the second question would be one of an answer that was not served in time.
        let Ok(hit) = tokio::time::timeout(std::time::Duration::from_secs(5), hit).await else { continue };
        let bound = client.stats("default").await["budget"]["bound"].as_f64();
        before = before.or(bound);
        let complaint = format!("{}=wrong", hit.header("x-nearhit-entry"));
        client.with("x-nearhit-feedback", &complaint).chat(&ask("Something else entirely?")).await.check(200);
        if over().await {
            break;
        }
    }
    until("an alarm", async || over().await.then_some(())).await;
    let budget = client.stats("default").await["budget"].clone();
    assert_eq!(budget["isOverBudget"], true, "{budget}");
    assert!(budget["bound"].as_f64() > before, "{budget} {before:?}");
    client.with("x-nearhit-feedback", "x=wrong").chat(&ask("Why?")).await.refusal(400, "invalid_value");
}

#[tokio::test]
async fn a_share_of_hits_is_audited_and_what_was_learned_outlives_a_restart() {
    let (upstream, answers) = teacher().await;
    let home = Home::with_config(
        "[cache]\njudge = \"words\"\naudit = 1\nmax_error = 0.6\nmax_error_per_hit = 0.9\n[store]\ndurability = \"each\"",
    );
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    let client = server.client("");
    // With a judge, a cache looks at some requests before it serves any by meaning.
    let mut entries = 0;
    for round in 0..3 {
        for thing in THINGS {
            for question in asked(thing) {
                let answer = client.chat(&ask(&format!("{question}{}", " ".repeat(round)))).await.check(200);
                if answer.header("x-nearhit-outcome") == "miss" {
                    entries += 1;
                    client.wait_for_entries(entries).await;
                }
            }
        }
    }
    let budget = async || client.stats("default").await["budget"].clone();
    let novel = ["kettle", "toaster", "lamp", "radio", "drone", "printer", "camera", "tablet", "heater", "robot"];
    let mut audited = None;
    for thing in novel.iter().cycle().take(60) {
        for question in asked(thing) {
            answers.lock().insert(format!("{thing}?"), format!("As for {question}"));
            let wrong = budget().await["wrong"].as_u64();
            let answer = client.chat(&ask(&question)).await.check(200);
            if answer.outcome() == ("hit", "semantic") {
                audited = Some((question, wrong));
            } else if answer.header("x-nearhit-outcome") == "miss" {
                entries += 1;
                client.wait_for_entries(entries).await;
            }
        }
        if audited.is_some() {
            break;
        }
    }
    let (question, wrong) = audited.expect("a hit by meaning");
    until("the audit", async || (budget().await["wrong"].as_u64() > wrong).then_some(())).await;
    // The fresh answer was another one: it is kept, and answers its own question from now on.
    until("the fresh answer", async || {
        let answer = client.chat(&ask(&question)).await.check(200);
        (answer.outcome() == ("hit", "exact")
            && answer.json()["choices"][0]["message"]["content"] == json!(format!("As for {question}")))
        .then_some(())
    })
    .await;
    let learned = budget().await["samples"].as_f64();
    server.terminate();
    assert_eq!(server.ended().await, Some(0));
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    let samples = server.client("").stats("default").await["budget"]["samples"].as_f64();
    assert!(learned > Some(10.0) && samples >= learned, "{learned:?} {samples:?}");
}
