//! The cache API as WIRE.md promises it: shapes, words, and what keeps entries apart.

#[cfg(feature = "candle")]
mod budget;
mod isolation;
mod judge;
mod learned;
mod lifetime;
#[cfg(feature = "candle")]
mod meaning;
mod removal;
mod surface;
mod templates;

use serde_json::{Value, json};

use crate::support::{Client, Home, Upstream};

const ENTRIES: &str = "/v1/caches/default/entries";

/// Why a search finds nothing where nothing is comparable: without an embedder nobody looks any further.
const NOTHING: &str = if cfg!(feature = "candle") { "empty" } else { "embedder_down" };

const PASSWORD: &str = "How do I reset my password?";

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn pair(first: &str, second: &str) -> (String, String) {
    (first.to_owned(), second.to_owned())
}

#[tokio::test]
async fn an_entry_is_found_read_and_removed() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");

    let miss = client.search(&json!({"prompt": PASSWORD})).await;
    assert_eq!(miss, json!({"outcome": "miss", "tier": null, "reason": "empty", "data": [], "nearest": null}));

    let body = json!({"prompt": PASSWORD, "response": "So.", "attributes": {"locale": "en"}, "ttlMillis": 60_000});
    let inserted = client.post(ENTRIES, &body).await.check(201).json();
    let id = inserted["entryId"].as_str().expect("an id");
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");

    let hit = client.search(&json!({"prompt": PASSWORD, "attributes": {"locale": "en"}})).await;
    assert_eq!(
        (&hit["outcome"], &hit["tier"], &hit["reason"], &hit["nearest"]),
        (&json!("hit"), &json!("exact"), &Value::Null, &Value::Null)
    );
    let path = format!("{ENTRIES}/{id}");
    for found in [hit["data"][0].clone(), client.get(&path).await.check(200).json()] {
        assert_eq!(
            keys(&found),
            [
                "ageMs",
                "attributes",
                "expiresInMs",
                "id",
                "probability",
                "prompt",
                "response",
                "searchStrategy",
                "similarity"
            ]
        );
        for (field, value) in [
            ("id", json!(id)),
            ("prompt", json!(PASSWORD)),
            ("response", json!("So.")),
            ("attributes", json!({"locale": "en"})),
            ("similarity", json!(1.0)),
            ("probability", json!(1.0)),
            ("searchStrategy", json!("exact")),
        ] {
            assert_eq!(found[field], value, "{field}");
        }
        let (age, left) = (found["ageMs"].as_u64().expect("ms"), found["expiresInMs"].as_u64().expect("ms"));
        assert!(left <= 60_000 && age + left >= 60_000 && age < 60_000, "{age} ms old, {left} ms left");
    }

    let removed = client.delete(&path).await.check(204);
    assert!(removed.body.is_empty());
    for gone in [client.get(&path).await, client.delete(&path).await] {
        assert!(gone.refusal(404, "unknown_entry").contains(id));
    }
}

/// What an insert stored is what a search, a read and a list give back, whatever form it came in.
#[tokio::test]
async fn answers_come_back_in_the_form_they_were_stored_in() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    let request = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5});
    let completion = crate::support::completion("Hello.");
    for (asked, response) in [
        (json!({"prompt": "plain"}), json!("text")),
        (json!({"prompt": "object"}), completion.clone()),
        (json!({"prompt": "in context", "context": "You are terse."}), json!("ja")),
        (json!({"prompt": "umlauts \u{e4}\u{1f600}\u{0}"}), json!("\u{0}\u{1f600}")),
        (json!({"request": request}), completion),
        (json!({"request": request, "headers": {"OpenAI-Project": "p"}}), json!("of project p")),
    ] {
        let mut body = asked.clone();
        body["response"] = response.clone();
        let id = client.insert(&body).await;
        let hit = client.search(&asked).await;
        assert_eq!((&hit["tier"], &hit["data"][0]["id"]), (&json!("exact"), &json!(id)), "{asked}");
        assert_eq!(hit["data"][0]["response"], response, "{asked}");
        assert_eq!(client.get(&format!("{ENTRIES}/{id}")).await.json()["response"], response, "{asked}");
    }
    assert_eq!(client.stats("default").await["entries"], 6);
}

#[tokio::test]
async fn a_second_insert_of_a_prompt_replaces_the_first() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    let first = client.insert(&json!({"prompt": PASSWORD, "response": "old"})).await;
    // What no reader can see makes no other prompt.
    let second = client.insert(&json!({"prompt": format!("  {PASSWORD}\r\n"), "response": "new"})).await;
    assert_eq!(first, second);
    assert_eq!(client.find(PASSWORD).await, pair("exact", "new"));
    assert_eq!(client.stats("default").await["entries"], 1);
}

#[tokio::test]
async fn batches_give_an_outcome_or_an_error_per_item() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    let entries = json!({"entries": [
        {"prompt": "one", "response": "1"},
        {"prompt": " ", "response": "2"},
        {"prompt": "three", "response": "3", "limit": 1},
        7,
        {"prompt": "five", "response": "5"},
    ]});
    let results = client.post(&format!("{ENTRIES}/batch"), &entries).await.check(200).json();
    let results = results["results"].as_array().expect("results");
    let of = |index: usize| (results[index]["entryId"].is_string(), results[index]["error"]["param"].clone());
    let expected = [
        (true, Value::Null),
        (false, json!("prompt")),
        (false, json!("limit")),
        (false, Value::Null),
        (true, Value::Null),
    ];
    assert_eq!((0..results.len()).map(of).collect::<Vec<_>>(), expected);

    let searches =
        json!({"searches": [{"prompt": "five"}, {"prompt": ""}, {"prompt": "one"}, {"prompt": "one", "limit": 0}]});
    let results = client.post(&format!("{ENTRIES}/search/batch"), &searches).await.check(200).json();
    let of = |result: &Value| {
        let error = result["error"]["param"].as_str();
        error.unwrap_or_else(|| result["data"][0]["response"].as_str().unwrap_or_default()).to_owned()
    };
    let results: Vec<_> = results["results"].as_array().expect("results").iter().map(of).collect();
    assert_eq!(results, ["5", "prompt", "1", "limit"]);

    for (path, field) in [("/batch", "entries"), ("/search/batch", "searches")] {
        let empty = client.post(&format!("{ENTRIES}{path}"), &json!({field: []})).await.check(200);
        assert_eq!(empty.json(), json!({"results": []}));
    }
}

#[tokio::test]
async fn an_idempotency_key_makes_a_retry_harmless() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    let insert = async |client: &Client, cache: &str, body: &Value| {
        client.post(&format!("/v1/caches/{cache}/entries"), body).await
    };
    let first = json!({"prompt": "p", "response": "r", "idempotencyKey": "k"});
    let id = insert(&client, "default", &first).await.check(201).json();
    assert_eq!(insert(&client, "default", &first).await.check(201).json()["entryId"], id["entryId"]);
    assert_eq!(client.stats("default").await["inserts"], 1);

    let other = json!({"prompt": "p", "response": "other", "idempotencyKey": "k"});
    let message = insert(&client, "default", &other).await.refusal(409, "idempotency_conflict");
    assert!(message.contains("idempotencyKey") && message.contains("\"k\""), "{message}");
    assert_eq!(client.find("p").await, pair("exact", "r"));

    // A key belongs to one tenant's one cache.
    insert(&client, "another", &other).await.check(201);
    insert(&server.client("sk-other"), "default", &other).await.check(201);
    let batch = json!({"entries": [first, other]});
    let results = client.post(&format!("{ENTRIES}/batch"), &batch).await.check(200).json();
    assert_eq!(results["results"][0]["entryId"], id["entryId"]);
    assert_eq!(results["results"][1]["error"]["code"], "idempotency_conflict");
}

/// One request is one entry, whether it came through the proxy or through the cache API.
#[tokio::test]
async fn proxied_calls_and_inserts_by_request_share_entries() {
    let upstream = Upstream::saying("from upstream").await;
    let home = Home::new();
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    let client = server.client("sk-test");
    let ask = |text: &str| json!({"model": "m", "messages": [{"role": "user", "content": text}]});

    client.insert(&json!({"request": ask("inserted"), "response": "by hand"})).await;
    let served = client.chat(&ask("inserted")).await.check(200);
    assert_eq!(served.outcome(), ("hit", "exact"));
    assert_eq!(served.json()["choices"][0]["message"]["content"], "by hand");
    assert_eq!(upstream.count(), 0);

    assert_eq!(client.chat(&ask("proxied")).await.check(200).outcome().0, "miss");
    client.wait_for_entries(2).await;
    let found = client.search(&json!({"request": ask("proxied")})).await;
    assert_eq!(found["data"][0]["response"]["choices"][0]["message"]["content"], "from upstream");

    // By prompt is another kind of question.
    for text in ["inserted", "proxied"] {
        assert_eq!(client.find(text).await.0, "miss", "{text}");
    }
    assert_eq!(upstream.count(), 1);
}
