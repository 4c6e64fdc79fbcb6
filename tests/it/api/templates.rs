//! The template tier: equal but for values that say nothing, and answers that only repeat a value.

use serde_json::{Value, json};

use super::{NOTHING, pair};
use crate::support::{Client, Home, Upstream, until};

fn order(id: &str) -> String {
    format!("Where is order {id} now?")
}

fn on_its_way(id: &str) -> String {
    format!("Order {id} is on its way. Keep {id} at hand.")
}

async fn insert_orders(client: &Client, ids: &[&str]) {
    for id in ids {
        client.insert(&json!({"prompt": order(id), "response": on_its_way(id)})).await;
    }
}

/// On a slow machine the server may still be looking whether anything was stored before.
const REFILL: &str = "[templates]\nrefill = true";

async fn wait_for_refill(client: &Client, asked: &str, answer: &str) {
    let found = pair("template", answer);
    until("the answer is refilled", async || (client.find(asked).await == found).then_some(())).await;
}

async fn templates(client: &Client) -> Value {
    client.get("/v1/caches/default/templates").await.check(200).json()
}

/// Without an embedder nothing but equal texts and templates can hit.
#[tokio::test]
async fn a_greeting_makes_no_other_question_and_a_number_does() {
    let home = Home::with_config("[embed]\nmodel = \"external\"\ndimensions = 4");
    let server = home.serve(&[]).await;
    let client = server.client("");
    let id = client.insert(&json!({"prompt": "Hi Ada, how long is 1,000 m?", "response": "A walk."})).await;
    for (asked, tier, answer) in [
        ("Hi Ada, how long is 1,000 m?", "exact", "A walk."),
        ("Hi Bob, how long is 1,000 m?", "template", "A walk."),
        ("Hi Ada, how long is 1000 m?", "template", "A walk."),
        ("Hi Ada, how long is 1001 m?", "miss", "embedder_down"),
        ("Hi Ada, how long is 1,000 km?", "miss", "embedder_down"),
        ("Hi Ada, how wide is 1,000 m?", "miss", "embedder_down"),
    ] {
        assert_eq!(client.find(asked).await, pair(tier, answer), "{asked}");
    }
    let hit = client.search(&json!({"prompt": "Hi Bob, how long is 1,000 m?"})).await;
    let found = &hit["data"][0];
    assert_eq!((&found["id"], &found["similarity"], &found["probability"]), (&json!(id), &json!(1.0), &Value::Null));
    assert_eq!((&hit["tier"], &found["searchStrategy"]), (&json!("template"), &json!("template")));
    assert_eq!(client.stats("default").await["hits"], json!({"exact": 1, "template": 3}));

    let search = async |strategies: Value| {
        let body = json!({"prompt": "Hi Bob, how long is 1,000 m?", "searchStrategies": strategies});
        client.search(&body).await["reason"].clone()
    };
    assert_eq!(search(json!(["template"])).await, Value::Null);
    assert_eq!(search(json!(["exact"])).await, "no_candidate");

    // Of a variable that the caller names every value counts.
    let about = |name: &str| json!({"prompt": format!("Hi {name}, what is 5 times 5?"), "vars": {"name": name}});
    let mut body = about("Ada");
    body["response"] = json!("25");
    client.insert(&body).await;
    assert_eq!(client.search(&about("Ada")).await["tier"], "exact");
    assert_eq!(client.search(&about("Bob")).await["outcome"], "miss");
}

#[tokio::test]
async fn an_answer_is_refilled_after_two_until_one_contradicts() {
    let home = Home::with_config(REFILL);
    let server = home.serve(&[]).await;
    let client = server.client("sk-ada");
    insert_orders(&client, &["#K-20418", "#K-20419"]).await;
    wait_for_refill(&client, &order("#K-20420"), &on_its_way("#K-20420")).await;
    assert_eq!(client.stats("default").await["entries"], 2);
    assert_eq!(templates(&client).await["data"][0]["refilled"], true);

    // Another tenant has to find out for itself.
    let stranger = server.client("sk-bob");
    insert_orders(&stranger, &["#K-20418"]).await;
    assert_eq!(stranger.find(&order("#K-20420")).await.0, "miss");
    assert_eq!(templates(&stranger).await["entries"], 1);

    client.insert(&json!({"prompt": order("#K-20421"), "response": "Order #K-20421 is lost."})).await;
    assert_eq!(client.find(&order("#K-20420")).await.0, "miss");
    insert_orders(&client, &["#K-20422", "#K-20423"]).await;
    assert_eq!(client.find(&order("#K-20420")).await.0, "miss");
    assert_eq!(templates(&client).await["data"][0]["refilled"], false);
}

/// Both what was learnt and what was contradicted are found again in what is stored.
#[tokio::test]
async fn a_restart_finds_templates_again() {
    let home = Home::with_config(REFILL);
    let server = home.serve(&[]).await;
    insert_orders(&server.client("sk-ada"), &["#K-20418", "#K-20419"]).await;
    let bob = server.client("sk-bob");
    insert_orders(&bob, &["#K-20418", "#K-20419"]).await;
    bob.insert(&json!({"prompt": order("#K-20421"), "response": "Lost."})).await;
    server.kill();
    let server = home.serve(&[]).await;
    let (ada, bob) = (server.client("sk-ada"), server.client("sk-bob"));
    wait_for_refill(&ada, &order("#K-20420"), &on_its_way("#K-20420")).await;
    assert_eq!(bob.find(&order("#K-20420")).await.0, "miss");
}

#[tokio::test]
async fn an_operator_says_what_a_value_does() {
    let home = Home::with_config(
        "[templates]\nrefill = true\nrefill_after = 3\nroles = { id = \"significant\", number = \"echoed\", time = \"volatile\" }",
    );
    let server = home.serve(&[]).await;
    let client = server.client("");
    insert_orders(&client, &["#K-20418", "#K-20419", "#K-20420"]).await;
    assert_eq!(client.find(&order("#K-20421")).await.0, "miss");
    client.insert(&json!({"prompt": "It is 5pm. What is a quine?", "response": "A program."})).await;
    assert_eq!(client.find("It is 17:31. What is a quine?").await, pair("template", "A program."));
    let (rows, answer) = (|n: u32| format!("Show rows over {n}"), |n: u32| format!("SELECT * FROM t WHERE n > {n}"));
    for n in [12_001, 12_002, 12_003] {
        assert_eq!(client.find(&rows(12_004)).await.0, "miss");
        client.insert(&json!({"prompt": rows(n), "response": answer(n)})).await;
    }
    wait_for_refill(&client, &rows(12_004), &answer(12_004)).await;
    assert_eq!(client.find(&rows(4)).await.0, "miss", "too short to be told from chance");
}

#[tokio::test]
async fn templates_are_listed_without_their_values() {
    let home = Home::with_config(REFILL);
    let server = home.serve(&[]).await;
    let client = server.client("sk-ada");
    let none = json!({"cache": "default", "entries": 0, "complete": true, "data": []});
    assert_eq!(templates(&client).await, none);
    insert_orders(&client, &["#K-20418", "#Q7"]).await;
    let body = json!({"prompt": "Hi Ada, are blue shoes in?", "response": "Yes.", "vars": {"what": "blue shoes"}});
    client.insert(&body).await;
    client.insert(&json!({"prompt": "nothing in a slot", "response": "x"})).await;
    let first = json!({
        "template": "Where is order {id} now?", "count": 2, "refilled": false,
        "slots": [{
            "name": "id", "role": "echoed", "shapes": [{"shape": "#A-9", "count": 1}, {"shape": "#A9", "count": 1}],
            "observed": {"values": 2},
        }],
    });
    let second = json!({
        "template": "Hi {name}, are {what} in?", "count": 1, "refilled": false,
        "slots": [
            {"name": "name", "role": "volatile", "shapes": [{"shape": "Aa", "count": 1}]},
            {"name": "what", "role": "named", "shapes": [{"shape": "a a", "count": 1}]},
        ],
    });
    let expected = json!({"cache": "default", "entries": 4, "complete": true, "data": [first, second]});
    assert_eq!(templates(&client).await, expected);
    let limited = client.get("/v1/caches/default/templates?limit=1").await.check(200).json();
    assert_eq!(limited["data"], json!([first]));
    assert_eq!(templates(&server.client("sk-bob")).await, none, "another tenant's");
    for (query, param) in [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("most=1", "most")] {
        let answer = client.get(&format!("/v1/caches/default/templates?{query}")).await;
        assert!(answer.refusal(400, "invalid_value").contains(param), "{query}");
    }
}

/// Advice only: nothing is served by it.
#[tokio::test]
async fn what_a_slot_looks_like_is_said_from_eight_values_on() {
    let home = Home::with_config("[embed]\nmodel = \"external\"\ndimensions = 4");
    let server = home.serve(&[]).await;
    let client = server.client("sk-ada");
    let asked = |n: u32| format!("Batch {n}: what is a quine?");
    for n in 100..108 {
        client.insert(&json!({"prompt": asked(n), "response": "A program."})).await;
        let slot = &templates(&client).await["data"][0]["slots"][0];
        let seen = [&slot["role"], &slot["observed"]["values"], &slot["observed"]["looks"]];
        let values = if n == 100 { Value::Null } else { json!(n - 99) };
        let looks = if n == 107 { json!("volatile") } else { Value::Null };
        assert_eq!(seen, [&json!("significant"), &values, &looks], "{n}");
    }
    assert_eq!(client.find(&asked(108)).await.0, "miss");
}

/// A completion stays one, whatever value stands in it, whole or as a stream.
#[tokio::test]
async fn proxied_answers_are_refilled() {
    let upstream = Upstream::start(|call| {
        let asked = call.json()["messages"][0]["content"].as_str().expect("a text").to_owned();
        let id = asked.split(' ').nth(1).expect("a word").to_owned();
        crate::support::Reply::saying(&format!("The address {id} is \"free\"."), call)
    })
    .await;
    let home = Home::with_config(REFILL);
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    let client = server.client("sk-test");
    let ask = |address: &str, stream: bool| json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": format!("Is {address} taken?")}]});
    for (count, address) in [(1, "ada@example.com"), (2, "bob@example.com")] {
        assert_eq!(client.chat(&ask(address, false)).await.check(200).outcome().0, "miss");
        client.wait_for_entries(count).await;
    }
    let asked = json!({"request": ask("eve@example.com", false)});
    until("the answer is refilled", async || (client.search(&asked).await["tier"] == "template").then_some(())).await;
    let whole = client.chat(&ask("eve@example.com", false)).await.check(200);
    assert_eq!((whole.outcome(), whole.header("x-nearhit-similarity")), (("hit", "template"), "1.0000"));
    assert_eq!(whole.header("x-nearhit-probability"), "");
    let body = whole.json();
    assert_eq!(body["choices"][0]["message"]["content"], "The address eve@example.com is \"free\".");
    assert_eq!((&body["model"], &body["usage"]["nearhit"]["cached"]), (&json!("m"), &json!(true)));
    let streamed = client.chat(&ask("eve@example.com", true)).await.check(200);
    assert_eq!(streamed.outcome(), ("hit", "template"));
    assert!(streamed.text().contains(r#"The address eve@example.com is \"free\"."#), "{}", streamed.text());
    assert_eq!(upstream.count(), 2);

    // Another model, and another conversation, has to be asked.
    let mut other = ask("eve@example.com", false);
    other["model"] = json!("m2");
    assert_eq!(client.chat(&other).await.check(200).outcome(), ("miss", NOTHING));
}
