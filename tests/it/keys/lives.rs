//! Keys come and go under a running server, and outlive it.

use std::time::Instant;

use serde_json::{Value, json};

use super::{Setup, ask};
use crate::support::{Client, Home, Upstream, until};

async fn until_status(client: &Client, status: u16) {
    let what = format!("a call is answered with {status}");
    until(&what, async || (client.get("/v1/caches").await.status == status).then_some(())).await;
}

/// The first key closes the door for all without one; a second one is valid beside it until the first is revoked.
#[tokio::test]
async fn keys_are_made_and_revoked_under_a_running_server() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    server.client("sk-test").insert(&json!({"prompt": "Hi", "response": "before there were keys"})).await;
    server.admin().get("/metrics").await.check(200);

    let old = home.key("acme", "read,write");
    let (start, old_client) = (Instant::now(), server.client(&old));
    until_status(&old_client, 200).await;
    println!("a new key was accepted {} ms after it was made", start.elapsed().as_millis());
    for key in ["", "sk-test"] {
        server.client(key).get("/v1/caches").await.refusal(401, "invalid_api_key");
    }
    assert_eq!(old_client.find("Hi").await.0, "miss", "a key's tenant begins with nothing");
    server.admin().get("/metrics").await.check(200);

    old_client.insert(&json!({"prompt": "Hi", "response": "Ho"})).await;
    let new_client = server.client(&home.key("acme", "read,write"));
    until_status(&new_client, 200).await;
    for client in [&old_client, &new_client] {
        assert_eq!(client.find("Hi").await, ("exact".to_owned(), "Ho".to_owned()));
    }
    home.revoke(&old);
    let start = Instant::now();
    until_status(&old_client, 401).await;
    println!("a revoked key was refused {} ms after it was revoked", start.elapsed().as_millis());
    assert_eq!(new_client.find("Hi").await, ("exact".to_owned(), "Ho".to_owned()));

    // From the first key for it on, the admin listener asks for one, also once that is revoked.
    let admin = home.key("ops", "admin");
    until("the admin listener asks for a key", async || {
        (server.admin().get("/metrics").await.status == 401).then_some(())
    })
    .await;
    Client::new(&server.admin_url, &admin).get("/metrics").await.check(200);
    home.revoke(&admin);
    let revoked = Client::new(&server.admin_url, &admin);
    until("the key is refused", async || (revoked.get("/metrics").await.status == 401).then_some(())).await;
    server.admin().get("/metrics").await.refusal(401, "invalid_api_key");
}

#[tokio::test]
async fn keys_outlive_the_server() {
    let home = Home::new();
    let (key, revoked) = (home.key("acme", "write"), home.key("acme", "write"));
    let server = home.serve(&[]).await;
    server.client(&key).insert(&json!({"prompt": "Hi", "response": "Ho"})).await;
    home.revoke(&revoked);
    server.kill();
    let server = home.serve(&[]).await;
    assert_eq!(server.client(&key).find("Hi").await, ("exact".to_owned(), "Ho".to_owned()));
    server.client(&revoked).get("/v1/caches").await.refusal(401, "invalid_api_key");
    server.client("").get("/v1/caches").await.refusal(401, "invalid_api_key");
}

/// Lost or damaged keys let nobody in, and the reason is where an operator looks.
#[tokio::test]
async fn lost_keys_let_nobody_in() {
    let upstream = Upstream::saying("Hello.").await;
    let home = Home::new();
    let key = home.key("acme", "write");
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    let client = server.client(&key);
    client.chat(&ask("Hi")).await.check(200);
    client.wait_for_entries(1).await;
    let files = ["keys", "keys.copy"].map(|name| home.data().join(name));
    let whole = std::fs::read(&files[0]).expect("a file");

    let reason = async |server: &crate::support::Server| -> Value {
        let ready = server.client("").get("/readyz").await.check(200).json();
        assert_eq!(ready["degraded"].as_array().expect("an array").contains(&json!("keys")), ready["keys"].is_string());
        ready["keys"].clone()
    };
    assert_eq!(reason(&server).await, Value::Null);
    let asked = upstream.count();
    for spoil in [
        |path: &std::path::Path| std::fs::write(path, b"nearhit keys 1 ?\n{}"),
        |path: &std::path::Path| std::fs::remove_file(path),
    ] {
        // One of two is no loss.
        spoil(&files[0]).expect("spoilt");
        client.chat(&ask("Hi")).await.check(200);
        spoil(&files[1]).expect("spoilt");
        until_status(&client, 401).await;
        for key in [&key, "", "sk-test"] {
            let refused = server.client(key).chat(&ask("Hello")).await;
            refused.refusal(401, "invalid_api_key");
        }
        server.admin().get("/metrics").await.refusal(401, "invalid_api_key");
        let reason = reason(&server).await;
        assert!(reason.as_str().is_some_and(|reason| reason.starts_with("lost")), "{reason}");
        assert!(!reason.to_string().contains(&*home.data().to_string_lossy()), "{reason}");
        assert!(server.log().contains("keys are lost") && server.log().contains("key file"), "{}", server.log());
        for path in &files {
            std::fs::write(path, &whole).expect("a file");
        }
        until_status(&client, 200).await;
    }
    assert_eq!(upstream.count(), asked);

    // At a start, too.
    drop(server);
    for path in &files {
        std::fs::write(path, &whole[..whole.len() - 1]).expect("a file");
    }
    home.serve_in_vain(&["--strict"]).check(65, &["keys", "damaged"]);
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    for key in [&key, "", "sk-test"] {
        server.client(key).chat(&ask("Hi")).await.refusal(401, "invalid_api_key");
    }
    assert!(reason(&server).await.as_str().expect("a reason").starts_with("lost"));
    assert!(server.log().contains("damaged"), "{}", server.log());
    assert_eq!(upstream.count(), asked);
}

/// For a server without a folder that can be written.
#[tokio::test]
async fn keys_may_stand_in_the_configuration() {
    let elsewhere = Home::new();
    let data = elsewhere.data();
    let made = elsewhere.run(&[
        "key",
        "create",
        "--tenant",
        "acme",
        "--scopes",
        "write",
        "--expires",
        "1h",
        "--for-config",
        "--data-dir",
        data.to_str().expect("UTF-8"),
    ]);
    made.check(0, &[]);
    assert!(!data.exists(), "it is kept nowhere");
    let (key, table) = made.stdout.split_once("\n\n").expect("a key and a table");
    assert!(!table.contains(key));
    let (rest, _) = table.split_once("expires = 20").expect("a date of this century");
    let old = format!("{rest}expires = 2001-01-01");
    let home = Home::with_config(&format!("[store]\nkind = \"memory\"\n{table}"));
    let server = home.serve(&[]).await;
    server.client(key).get("/v1/caches").await.check(200);
    server.client("").get("/v1/caches").await.refusal(401, "invalid_api_key");
    server.client("sk-test").get("/v1/caches").await.refusal(401, "invalid_api_key");
    let home = Home::with_config(&old);
    let server = home.serve(&[]).await;
    server.client(key).get("/v1/caches").await.refusal(401, "invalid_api_key");
}

/// Everything that a call does it does as the key's tenant, also long after the key was checked.
#[tokio::test]
async fn a_restart_keeps_who_owns_what() {
    let setup = Setup::start("").await;
    setup.client(&setup.key).chat(&ask("Hi")).await.check(200);
    setup.client(&setup.key).wait_for_entries(1).await;
    let Setup { home, upstream, server, key } = setup;
    server.terminate();
    assert_eq!(server.ended().await, Some(0));
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    assert_eq!(server.client(&key).chat(&ask("Hi")).await.check(200).outcome(), ("hit", "exact"));
    let other = server.client(&home.key("bob", "write"));
    until_status(&other, 200).await;
    assert_eq!(other.chat(&ask("Hi")).await.check(200).outcome().0, "miss");
    assert_eq!(upstream.count(), 2);
}
