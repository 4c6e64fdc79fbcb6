//! How long an entry is served.

use serde_json::{Value, json};

use super::{ENTRIES, pair};
use crate::support::{Home, until};

#[tokio::test]
async fn an_entry_is_served_until_it_expires() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    let id = client.insert(&json!({"prompt": "brief", "response": "r", "ttlMillis": 300})).await;
    client.insert(&json!({"prompt": "long", "response": "r", "ttlMillis": 3_600_000})).await;
    assert_eq!(client.find("brief").await, pair("exact", "r"));
    until("the entry expires", async || (client.find("brief").await == pair("miss", "expired")).then_some(())).await;
    client.get(&format!("{ENTRIES}/{id}")).await.refusal(404, "unknown_entry");
    let listed = client.get(ENTRIES).await.check(200).json();
    let prompts: Vec<_> = listed["data"].as_array().expect("a page").iter().map(|entry| &entry["prompt"]).collect();
    assert_eq!(prompts, ["long"]);

    // Its place is free again.
    client.insert(&json!({"prompt": "brief", "response": "new"})).await;
    assert_eq!(client.find("brief").await, pair("exact", "new"));
}

/// The default, a cache's own time and an age given with the entry.
#[tokio::test]
async fn times_are_told_in_milliseconds() {
    let home = Home::with_config("[cache]\nttl_s = 7200");
    let server = home.serve(&[]).await;
    let client = server.client("");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let hour_ago = u64::try_from(now.as_millis()).expect("before the year 584542046") - 3_600_000;
    for (prompt, more, age_from, left_to) in [
        ("default", json!({}), 0, 7_200_000),
        ("own", json!({"ttlMillis": 5_000_000}), 0, 5_000_000),
        ("ten years", json!({"ttlMillis": 315_360_000_000u64}), 0, 315_360_000_000),
        ("old", json!({"createdMs": hour_ago}), 3_600_000, 7_200_000),
    ] {
        let mut body = json!({"prompt": prompt, "response": "r"});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let id = client.insert(&body).await;
        let found = client.get(&format!("{ENTRIES}/{id}")).await.check(200).json();
        let ms = |field: &str| found[field].as_u64().expect("milliseconds");
        assert!((age_from..age_from + 60_000).contains(&ms("ageMs")), "{prompt}: {found}");
        assert!((left_to - 60_000..=left_to).contains(&ms("expiresInMs")), "{prompt}: {found}");
    }
}

/// A text beyond the model's window is kept for its exact text, and says so.
#[tokio::test]
async fn a_text_beyond_the_window_is_found_exactly_only() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    let long = "Please summarise these minutes of the meeting. ".repeat(200);
    let inserted = client.post(ENTRIES, &json!({"prompt": long, "response": "Done."})).await.check(201).json();
    let reason = if cfg!(feature = "candle") { "too_long" } else { "embedder_down" };
    assert_eq!(inserted["exactOnly"], reason);
    assert_eq!(client.find(&long).await, pair("exact", "Done."));
    let other = long.replacen("Please", "Kindly", 1);
    assert_eq!(client.find(&other).await, pair("miss", reason));

    let short = client.post(ENTRIES, &json!({"prompt": "short", "response": "r"})).await.check(201).json();
    let expected = if cfg!(feature = "candle") { Value::Null } else { json!(reason) };
    assert_eq!(short["exactOnly"], expected);
}

/// What depends on now lives shortly, unless whoever inserts it knows better.
#[tokio::test]
async fn answers_of_now_live_shortly() {
    let config = "[cache]\nttl_s = 7200\nperishable_ttl_s = 100\n[caches.timeless]\nperishable = \"ignore\"";
    let home = Home::with_config(config);
    let server = home.serve(&[]).await;
    let client = server.client("");
    for (cache, prompt, more, left_s) in [
        ("default", "How do I reset my password?", json!({}), 7200),
        ("default", "What is the weather in Oslo today?", json!({}), 100),
        ("default", "现在几点了", json!({}), 100),
        ("default", "Is it raining in Oslo?", json!({"ttlMillis": 5_000_000}), 5000),
        ("default", "Is it snowing in Oslo?", json!({"ttlMillis": 50_000}), 50),
        ("timeless", "What is the weather in Oslo today?", json!({}), 7200),
    ] {
        let mut body = json!({"prompt": prompt, "response": "r"});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let entries = ENTRIES.replace("default", cache);
        let inserted = client.post(&entries, &body).await.check(201).json();
        let id = inserted["entryId"].as_str().expect("an id");
        let found = client.get(&format!("{entries}/{id}")).await.check(200).json();
        let left = found["expiresInMs"].as_u64().expect("milliseconds").div_ceil(1000);
        assert!((left_s - 30..=left_s).contains(&left), "{prompt}: {found}");
    }
}

/// What was inserted answers its exact question, and no other.
#[tokio::test]
async fn questions_of_now_are_misses_where_the_operator_says_so() {
    let home = Home::with_config("[cache]\nperishable = \"miss\"");
    let server = home.serve(&[]).await;
    let client = server.client("");
    assert_eq!(client.find("Is it raining in Oslo?").await, pair("miss", "perishable"));
    client.insert(&json!({"prompt": "What is the weather in Oslo today?", "response": "Rain."})).await;
    assert_eq!(client.find("What is the weather in Oslo today?").await, pair("exact", "Rain."));
    assert_eq!(client.find("What's the weather in Oslo today?").await, pair("miss", "perishable"));
}

/// An answer to a timeless question is none to the same question of now, once it is old.
#[cfg(feature = "bundled-model")]
#[tokio::test]
async fn an_old_answer_is_none_for_now() {
    let home = Home::with_config("[cache]\nmax_error = 0.5\nmax_error_per_hit = 0.5");
    let server = home.serve(&[]).await;
    let client = server.client("");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let created = |age_s: u64| u64::try_from(now.as_millis()).expect("a time") - 1000 * age_s;
    let insert = |age_s: u64| json!({"prompt": "How long is the queue at the museum?", "response": "r", "createdMs": created(age_s)});
    client.insert(&insert(60)).await;
    assert_eq!(client.find("How long is the queue at the museum right now?").await, pair("semantic", "r"));
    client.insert(&insert(3600)).await;
    assert_eq!(client.find("How long is the queue at the museum right now?").await, pair("miss", "perishable"));
}
