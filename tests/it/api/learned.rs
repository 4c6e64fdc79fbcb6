//! What a cache learned of its answers, on disk and off it again.

use serde_json::json;

use super::{ENTRIES, PASSWORD, pair};
use crate::support::{Home, until};

#[tokio::test]
async fn what_was_learned_outlives_a_restart_and_not_a_flush() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("");
    let insert = json!({"prompt": PASSWORD, "response": "So."});
    let id = client.insert(&insert).await;
    client.post(&format!("{ENTRIES}/{id}/feedback"), &json!({"correct": false})).await.check(204);
    assert_eq!(client.find(PASSWORD).await, pair("miss", "quarantined"));
    server.terminate();
    assert_eq!(server.ended().await, Some(0));

    let server = home.serve(&[]).await;
    let client = server.client("");
    assert_eq!(client.find(PASSWORD).await, pair("miss", "quarantined"));
    assert_eq!(client.stats("default").await["budget"]["quarantined"], 1);
    client.delete(&format!("{ENTRIES}/{id}")).await.check(204);
    assert_eq!(client.stats("default").await["budget"]["quarantined"], 0);
    client.insert(&insert).await;
    client.post(&format!("{ENTRIES}/{id}/feedback"), &json!({"correct": false})).await.check(204);

    let file = home.data().join("learned.jsonl");
    let lines = || std::fs::read_to_string(&file).expect("a file").lines().count();
    assert_eq!(lines(), 1);
    client.post("/v1/caches/default/flush", &json!({"confirm": "default"})).await.check(204);
    until("the file forgets it", async || (lines() == 0).then_some(())).await;
    server.kill();
    let server = home.serve(&[]).await;
    let client = server.client("");
    client.insert(&insert).await;
    assert_eq!(client.find(PASSWORD).await, pair("exact", "So."));
    assert_eq!(client.stats("default").await["budget"]["quarantined"], 0);
}
