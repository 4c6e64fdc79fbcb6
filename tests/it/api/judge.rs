//! A model judges: answers are compared in the background by whatever speaks OpenAI's format, and nothing that it says or
//! fails to say reaches the caller. Template hits are weighed, so that no embedder is needed.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::{Client, Home, Llmock, Reply, Server, Upstream, completion, until, variable};

fn ask(text: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": text}]})
}

/// What both ask is equal but for a name.
fn greeted(name: &str) -> Value {
    ask(&format!("Hi {name}, how long does delivery to Oslo take?"))
}

fn config(url: &str, cache: &str, judge: &str) -> String {
    format!(
        "[cache]\njudge = \"model\"\n{cache}\n[judge]\nurl = \"{url}\"\nmodel = \"judge\"\ncalls_per_minute = 1000\n{judge}\n\
         [embed]\nmodel = \"external\"\ndimensions = 4\n"
    )
}

async fn budget(client: &Client) -> Value {
    client.stats("default").await["budget"].clone()
}

/// Waits until so many fresh answers were found right, wrong, or neither.
async fn wait_for(client: &Client, right: u64, wrong: u64, unknown: u64) {
    let expected = json!([right, wrong, unknown]);
    until(&format!("{expected} are compared"), async || {
        let budget = budget(client).await;
        (json!([budget["right"], budget["wrong"], budget["unknown"]]) == expected).then_some(())
    })
    .await;
}

async fn judged(server: &Server, result: &str) -> u64 {
    let metrics = server.admin().get("/metrics").await.check(200).text();
    let name = format!("nearhit_judged_total{{result=\"{result}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().expect("a count"))
}

#[tokio::test]
async fn a_model_says_whether_two_answers_say_the_same() {
    let Some(program) = variable("NEARHIT_LLMOCK") else { return };
    let provider = Llmock::start(&program, "judge.json");
    let config = config(&format!("{}/v1", provider.url), "", "key_env = \"JUDGE_KEY\"");
    let home = Home::with_config(&config);
    let server = home.serve_with(&["--upstream", &format!("{}/v1", provider.url)], &[("JUDGE_KEY", "sk-judge")]).await;
    let client = server.client("sk-test");
    let steps = [("Ada", [0, 0, 0]), ("Bob", [1, 0, 0]), ("Cem", [1, 1, 0]), ("Dan", [1, 1, 1])];
    for (entries, (name, expected)) in (1..).zip(steps) {
        let answer = client.chat(&greeted(name)).await.check(200);
        assert_eq!(answer.header("x-nearhit-outcome"), "miss", "{name}");
        client.wait_for_entries(entries).await;
        let [right, wrong, unknown] = expected;
        wait_for(&client, right, wrong, unknown).await;
    }
    let results = [judged(&server, "same").await, judged(&server, "different").await, judged(&server, "unclear").await];
    assert_eq!(results, [1, 1, 1]);
    assert!(!server.log().contains("sk-judge"));
}

/// Whatever the judge does, the caller has the answer, and nothing is learned.
#[tokio::test]
async fn a_judge_without_a_verdict_is_nobodys_trouble() {
    let mut count = 0;
    let upstream = Upstream::start(move |call| {
        count += 1;
        Reply::saying(&format!("It takes {count} days."), call)
    })
    .await;
    let judge = Upstream::saying("DIFFERENT").await;
    let home = Home::with_config(&config(&judge.base(), "", ""));
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    let client = server.client("sk-test");
    client.chat(&greeted("Ada")).await.check(200);
    client.wait_for_entries(1).await;
    let replies = [
        ("Bob", "failed", Reply::json(500, &json!({"error": "DIFFERENT"}))),
        ("Cem", "failed", Reply::json(301, &json!({})).header("location", "http://127.0.0.1:1/")),
        ("Dan", "unclear", Reply::new(200, "text/plain", "DIFFERENT")),
        ("Eva", "unclear", Reply::json(200, &completion("DIFFERENT, I think."))),
        ("Flo", "failed", Reply::new(200, "application/json", "x".repeat(100_000))),
    ];
    for (unknown, (name, result, reply)) in (1..).zip(replies) {
        let mut reply = Some(reply);
        judge.answer_with(move |_| reply.take().expect("one call to the judge"));
        let before = judged(&server, result).await;
        client.chat(&greeted(name)).await.check(200);
        wait_for(&client, 0, 0, unknown).await;
        assert_eq!(judged(&server, result).await, before + 1, "{name}");
    }
    assert_eq!(budget(&client).await["samples"], 0.0);

    // A verdict is: what the judge was shown is data in JSON, and the answer that was wrong is served no more.
    judge.answer_with(|call| Reply::saying("DIFFERENT", call));
    client.chat(&greeted("Gil")).await.check(200);
    wait_for(&client, 0, 1, 5).await;
    let call = judge.last();
    assert_eq!(
        (call.target.as_str(), call.header("cache-control"), call.header("authorization")),
        ("/v1/chat/completions", "no-store", "")
    );
    let body = call.json();
    assert_eq!((&body["model"], &body["temperature"], &body["stream"]), (&json!("judge"), &json!(0), &json!(false)));
    let case: Value = serde_json::from_str(body["messages"][1]["content"].as_str().expect("a text")).expect("JSON");
    assert_eq!(case["question"], greeted("Gil")["messages"][0]["content"]);
    assert_ne!(case["first"], case["second"]);
}

/// A hit is served at once; what the judge says of it is heard later, and bars the entry.
#[tokio::test]
async fn a_template_hit_is_audited_and_barred_where_it_was_wrong() {
    let mut count = 0;
    let upstream = Upstream::start(move |call| {
        count += 1;
        Reply::saying(&format!("It takes {count} days."), call)
    })
    .await;
    let judge = Upstream::saying("SAME").await;
    let home = Home::with_config(&config(&judge.base(), "audit = 1\nmax_error = 0.5\nmax_error_per_hit = 0.5", ""));
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    let client = server.client("sk-test");
    let name = |n: u8| format!("{}{}a", char::from(b'A' + n % 26), char::from(b'a' + n / 26));
    // With a judge, a cache looks at some requests before it serves any.
    let mut asked = 0;
    while client.chat(&greeted(&name(asked))).await.check(200).outcome() != ("hit", "template") {
        wait_for(&client, asked.into(), 0, 0).await;
        let kept = format!("nearhit_answers_total{{result=\"kept\"}} {}\n", asked + 1);
        let is_kept = async || server.admin().get("/metrics").await.check(200).text().contains(&kept).then_some(());
        until("the answer is kept", is_kept).await;
        asked += 1;
        assert!(asked < 60, "{}", budget(&client).await);
    }
    assert!(asked > 30, "{asked}");
    let audits = async |count: u64| {
        let metrics = server.admin().get("/metrics").await.check(200).text();
        metrics.contains(&format!("nearhit_audits_total{{result=\"begun\"}} {count}\n"))
    };
    until("the audit", async || audits(1).await.then_some(())).await;
    wait_for(&client, asked.into(), 0, 0).await;

    // Nothing is asked upstream for a request that is to be answered by the cache alone.
    let only = client.with("cache-control", "only-if-cached");
    assert_eq!(only.chat(&greeted("Kim")).await.check(200).outcome(), ("hit", "template"));
    assert!(audits(1).await && upstream.count() == usize::from(asked) + 1);

    // Only so many audits are on their way at a time.
    let open = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&open);
    upstream.answer_with(move |_| {
        let (reply, live) = Reply::live();
        kept.lock().push(live);
        reply
    });
    for n in 60..80 {
        assert_eq!(client.chat(&greeted(&name(n))).await.check(200).outcome(), ("hit", "template"));
    }
    let metrics = server.admin().get("/metrics").await.check(200).text();
    assert!(metrics.contains("nearhit_audits_total{result=\"left_out\"} 4\n"), "{metrics}");
    until("the audits", async || (open.lock().len() == 16).then_some(())).await;
    open.lock().clear();
    upstream.answer_with(|call| Reply::saying("It takes a year.", call));

    until("there is room for another", async || {
        client.chat(&greeted("Zoe")).await.check(200);
        audits(18).await.then_some(())
    })
    .await;
    wait_for(&client, u64::from(asked) + 1, 0, 0).await;

    judge.answer_with(|call| Reply::saying("DIFFERENT", call));
    let hit = client.chat(&greeted("Lou")).await.check(200);
    assert_eq!(hit.outcome(), ("hit", "template"));
    wait_for(&client, u64::from(asked) + 1, 1, 0).await;
    // The fresh answer was another one: it is kept, and the entry answers no question of its template any more.
    until("the fresh answer", async || (only.chat(&greeted("Lou")).await.outcome() == ("hit", "exact")).then_some(()))
        .await;
    let next = only.chat(&greeted("Moe")).await.check(200);
    assert_eq!(next.outcome(), ("hit", "template"));
    assert_ne!(next.header("x-nearhit-entry"), hit.header("x-nearhit-entry"));
    assert!(client.stats("default").await["estimatedError"].as_f64() > Some(0.0));

    // A complaint does the same, whether it names the question or not.
    let named = json!({"correct": false, "prompt": "Hi Ned, how long does delivery to Oslo take?"});
    for (asked, body) in [("Moe", json!({"correct": false})), ("Ned", named)] {
        let hit = only.chat(&greeted(asked)).await.check(200);
        assert_eq!(hit.outcome(), ("hit", "template"), "{asked}");
        let id = hit.header("x-nearhit-entry");
        client.post(&format!("/v1/caches/default/entries/{id}/feedback"), &body).await.check(204);
        assert_eq!(only.chat(&greeted(asked)).await.outcome().0, "miss", "{asked}");
        let found = client.get(&format!("/v1/caches/default/entries/{id}")).await.check(200).json();
        let own = json!({"request": ask(found["prompt"].as_str().expect("a text"))});
        assert_eq!(client.search(&own).await["tier"], "exact", "{asked}");
        client.chat(&greeted(asked)).await.check(200);
        until("another answer", async || {
            (only.chat(&greeted(asked)).await.outcome() == ("hit", "exact")).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_judge_that_is_not_there_is_named_before_the_start() {
    let home = Home::new();
    let check = |text: &str, words: &[&str]| {
        let file = home.write("judge.toml", text);
        home.run(&["check", &file]).check(78, words);
    };
    check("[cache]\njudge = \"model\"", &["cache.judge", "[judge]"]);
    let external = "[embed]\nmodel = \"external\"\n";
    check(&format!("{external}[judge]\nmodel = \"m\"\nkey_env = \"NO_SUCH_KEY\""), &["judge.key_env", "NO_SUCH_KEY"]);
    let file = home.write("key", " \n");
    check(&format!("{external}[judge]\nmodel = \"m\"\nkey_file = \"{file}\""), &["judge.key_file"]);
    let missing = format!("{external}[cache]\njudge = \"model\"\n[judge]\nmodel = \"m\"\nkey_env = \"NO_SUCH_KEY\"");
    // The cache goes on without: it learns nothing.
    let home = Home::with_config(&missing);
    let server = home.serve(&[]).await;
    let ready = server.client("").get("/readyz").await.check(200).json();
    assert!(ready["degraded"].as_array().is_some_and(|parts| parts.contains(&json!("judge"))), "{ready}");
    drop(server);
    home.serve_in_vain(&["--strict"]).check(78, &["NO_SUCH_KEY"]);
}
