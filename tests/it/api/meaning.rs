//! Matching by meaning, with the real model.

use serde_json::{Value, json};

use super::{ENTRIES, PASSWORD, pair};
use crate::support::{Home, Upstream, until};

/// The shipped model gives the two a cosine of 0.992.
const REWORDED: &str = "How can I reset my password?";
const UNRELATED: &str = "What is the capital of Mongolia?";

#[tokio::test]
async fn terms_tighten_and_never_loosen() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    client.insert(&json!({"prompt": PASSWORD, "response": "So."})).await;
    let check = async |prompt: &str, more: Value, tier: Value, reason: Value| {
        let mut body = json!({"prompt": prompt});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let answer = client.search(&body).await;
        assert_eq!((&answer["tier"], &answer["reason"]), (&tier, &reason), "{body}: {answer}");
        answer
    };
    let none = Value::Null;
    let hit = check(REWORDED, json!({}), json!("semantic"), none.clone()).await;
    let similarity = hit["data"][0]["similarity"].as_f64().expect("a number");
    assert!((0.98..1.0).contains(&similarity), "{similarity}");
    assert_eq!(hit["data"][0]["searchStrategy"], "semantic");
    let probability = hit["data"][0]["probability"].as_f64().expect("a number");
    assert!((0.8..0.99).contains(&probability), "{probability}");

    check(REWORDED, json!({"similarityThreshold": 0.95}), json!("semantic"), none.clone()).await;
    let refused = check(REWORDED, json!({"similarityThreshold": 0.999}), none.clone(), json!("below_threshold")).await;
    let nearest = &refused["nearest"];
    assert_eq!((&nearest["id"], &nearest["reason"]), (&hit["data"][0]["id"], &json!("below_threshold")));
    assert_eq!(nearest["similarity"], hit["data"][0]["similarity"]);
    check(UNRELATED, json!({"similarityThreshold": 0.0}), none.clone(), json!("low_probability")).await;

    // More than is known of a reuse by meaning cannot be promised.
    check(REWORDED, json!({"maxErrorRate": 0.01}), none.clone(), json!("low_probability")).await;
    check(REWORDED, json!({"maxErrorRate": 1}), json!("semantic"), none.clone()).await;
    check(PASSWORD, json!({"maxErrorRate": 0, "similarityThreshold": 1}), json!("exact"), none.clone()).await;

    check(REWORDED, json!({"searchStrategies": ["exact"]}), none.clone(), json!("no_candidate")).await;
    check(REWORDED, json!({"searchStrategies": ["exact", "template"]}), none.clone(), json!("no_candidate")).await;
    check(PASSWORD, json!({"searchStrategies": ["semantic"]}), json!("semantic"), none).await;
}

/// All of these are near to what is stored.
#[tokio::test]
async fn what_is_near_and_another_question_is_a_miss_that_says_why() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    let check = async |stored: &str, asked: &str, reason: Value| {
        let entry = json!(client.insert(&json!({"prompt": stored, "response": "So."})).await);
        let answer = client.search(&json!({"prompt": asked})).await;
        assert_eq!(answer["reason"], reason, "{asked}: {answer}");
        if !reason.is_null() {
            assert_eq!((&answer["nearest"]["id"], &answer["nearest"]["reason"]), (&entry, &reason), "{answer}");
        }
    };
    check("Is aspirin safe during pregnancy?", "Is aspirin not safe during pregnancy?", json!("negation_differs"))
        .await;
    check("Can I heat this soup for 5 minutes?", "Can I heat this soup for 15 minutes?", json!("number_differs")).await;
    check("Where is order #K-20418 now?", "Where is order #K-20419 now?", json!("id_differs")).await;
    check("Which trains go from Graz to Linz?", "Which trains go from Linz to Graz?", json!("order_differs")).await;
    check("Which plates are made of oak?", "What plates are made of oak?", Value::Null).await;
}

#[tokio::test]
async fn up_to_limit_matches_come_best_first() {
    let home = Home::with_config("[cache]\nmax_error = 0.3\nmax_error_per_hit = 0.3");
    let server = home.serve(&[]).await;
    let client = server.client("");
    let stored = [PASSWORD, "How do I reset the password?", "How can I reset my password?"];
    for prompt in stored {
        client.insert(&json!({"prompt": prompt, "response": prompt})).await;
    }
    for (limit, expected) in [(1, 1), (2, 2), (3, 3), (100, 3)] {
        let answer = client.search(&json!({"prompt": "How could I reset my password?", "limit": limit})).await;
        let similarities: Vec<f64> =
            answer["data"].as_array().expect("data").iter().filter_map(|found| found["similarity"].as_f64()).collect();
        assert_eq!(similarities.len(), expected, "{answer}");
        assert!(similarities.is_sorted_by(|a, b| a >= b), "{similarities:?}");
    }
}

/// Values that the caller names are compared, not embedded.
#[tokio::test]
async fn variables_must_be_equal() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    let about = |order: &str, text: &str| json!({"prompt": text.replace("{}", order), "vars": {"order": order}});
    let mut body = about("4711", "Where is my order {} now?");
    body["response"] = json!("On its way.");
    client.insert(&body).await;
    for (order, tier, reason) in
        [("4711", json!("semantic"), Value::Null), ("4712", Value::Null, json!("slots_differ"))]
    {
        let answer = client.search(&about(order, "Where is my order {} right now?")).await;
        assert_eq!((&answer["tier"], &answer["reason"]), (&tier, &reason), "{answer}");
    }
}

#[tokio::test]
async fn an_expired_or_removed_entry_is_not_near_to_anything() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    client.insert(&json!({"prompt": PASSWORD, "response": "So.", "ttlMillis": 1000})).await;
    until("the entry expires", async || (client.find(REWORDED).await == pair("miss", "expired")).then_some(())).await;
    let id = client.insert(&json!({"prompt": PASSWORD, "response": "So."})).await;
    assert_eq!(client.find(REWORDED).await, pair("semantic", "So."));
    client.delete(&format!("{ENTRIES}/{id}")).await.check(204);
    assert_eq!(client.find(REWORDED).await, pair("miss", "empty"));
}

/// A cache's own threshold holds for its proxied calls and searches, and for no other cache's.
#[tokio::test]
async fn a_cache_may_have_a_threshold_of_its_own() {
    let upstream = Upstream::saying("fresh").await;
    let home = Home::with_config("[caches.strict]\nthreshold = 0.999");
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    for (cache, expected) in [("strict", ("miss", "below_threshold")), ("default", ("hit", "semantic"))] {
        let client = server.client("sk-test").with("x-nearhit-cache", cache);
        let ask = |text: &str| json!({"model": "m", "messages": [{"role": "user", "content": text}]});
        let stored = json!({"request": ask(PASSWORD), "response": "So."});
        client.post(&format!("/v1/caches/{cache}/entries"), &stored).await.check(201);
        assert_eq!(client.chat(&ask(REWORDED)).await.check(200).outcome(), expected, "{cache}");
    }
}
