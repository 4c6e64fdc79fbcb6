//! What was acknowledged outlives the process, and a process that cannot do its work says so as it ends.

use std::net::TcpListener;
use std::sync::Arc;

use http::Method;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};

#[cfg(feature = "candle")]
use crate::support::summary;
use crate::support::{Home, Reply, Upstream, chunks, event_stream, until};

fn chat(text: &str, stream: bool) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream})
}

/// Killed in the middle of its work, by a signal that nothing can be done about.
#[tokio::test]
async fn whatever_was_acknowledged_is_there_after_a_kill() {
    for durability in ["group", "each"] {
        let home = Home::with_config(&format!("[store]\ndurability = \"{durability}\""));
        let server = home.serve(&[]).await;
        let acknowledged: Arc<Mutex<Vec<String>>> = Arc::default();
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (client, acknowledged) = (server.client("sk-test"), Arc::clone(&acknowledged));
                tokio::spawn(async move {
                    // Ends when the server is gone.
                    for n in 0.. {
                        let prompt = format!("Question {n} of writer {writer}");
                        client.insert(&json!({"prompt": prompt, "response": prompt})).await;
                        acknowledged.lock().push(prompt);
                    }
                })
            })
            .collect();
        until("entries are acknowledged", async || (acknowledged.lock().len() >= 40).then_some(())).await;
        server.kill();
        for writer in writers {
            assert!(writer.await.is_err(), "a writer whose server is gone fails");
        }

        let server = home.serve(&[]).await;
        let client = server.client("sk-test");
        let acknowledged = acknowledged.lock().clone();
        for prompt in &acknowledged {
            assert_eq!(client.find(prompt).await, ("exact".to_owned(), prompt.clone()), "{durability}");
        }
        let entries = client.stats("default").await["entries"].as_u64().expect("a number");
        assert!(entries >= acknowledged.len() as u64, "{entries} of {}", acknowledged.len());
    }
}

#[cfg(feature = "candle")]
#[tokio::test]
async fn what_was_near_is_near_after_a_kill() {
    let home = Home::with_config("[cache]\nmax_error = 0.3\nmax_error_per_hit = 0.3");
    let server = home.serve(&[]).await;
    let client = server.client("");
    let questions = [
        ("How do I reset my password?", "How can I reset my password?"),
        ("What are your opening hours on Sundays?", "What are your opening hours on Sunday?"),
        ("Which payment methods do you accept?", "What payment methods do you accept?"),
    ];
    for (asked, _) in questions {
        client.insert(&json!({"prompt": asked, "response": asked})).await;
    }
    let removed = client.insert(&json!({"prompt": "Where is my parcel?", "response": "removed"})).await;
    client.delete(&format!("/v1/caches/default/entries/{removed}")).await.check(204);
    server.kill();
    let server = home.serve(&[]).await;
    let client = server.client("");
    for (asked, reworded) in questions {
        let near = client.search(&json!({"prompt": reworded, "searchStrategies": ["semantic"]})).await;
        assert_eq!(summary(&near), ("semantic".to_owned(), asked.to_owned()));
    }
    assert_eq!(client.find("Where is my parcel?").await.0, "miss");
    assert_eq!(client.stats("default").await["entries"], 3);
}

/// Told to stop, it takes nothing new, finishes what it has begun, and keeps what came of it.
#[tokio::test]
async fn a_stream_on_its_way_is_finished_before_the_end() {
    let upstream = Upstream::saying("").await;
    let (reply, live) = Reply::live();
    let mut reply = Some(reply);
    upstream.answer_with(move |_| reply.take().expect("one call upstream"));
    let home = Home::new();
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    let client = server.client("sk-test").with("content-type", "application/json");
    let path = "/v1/chat/completions";
    let mut body = client.open(Method::POST, path, chat("Hi", true).to_string()).await.into_body();
    let stream = event_stream(&chunks("One two three.", "m"));
    let (first, rest) = stream.split_at(stream.find("two").expect("the second word"));
    live.send(first).await;
    let mut got = body.frame().await.expect("a frame").expect("no error").into_data().expect("data").to_vec();

    server.terminate();
    let address = server.url.trim_start_matches("http://").to_owned();
    until("it takes no new connections", async || tokio::net::TcpStream::connect(&address).await.err()).await;
    live.send(rest).await;
    drop(live);
    got.extend_from_slice(&body.collect().await.expect("the rest").to_bytes());
    assert_eq!(String::from_utf8_lossy(&got), stream);
    assert_eq!(server.ended().await, Some(0));

    let server = home.serve(&["--upstream", &upstream.base()]).await;
    let hit = server.client("sk-test").chat(&chat("Hi", false)).await.check(200);
    assert_eq!(hit.outcome(), ("hit", "exact"));
    assert_eq!(hit.json()["choices"][0]["message"]["content"], "One two three.");
}

/// Nobody waits for ever: past `drain_s` it ends, whoever is still reading.
#[tokio::test]
async fn the_drain_has_an_end() {
    let upstream = Upstream::saying("").await;
    let (reply, live) = Reply::live();
    let mut reply = Some(reply);
    upstream.answer_with(move |_| reply.take().expect("one call upstream"));
    let home = Home::with_config("[serve]\ndrain_s = 0.2");
    let server = home.serve(&["--upstream", &upstream.base()]).await;
    let client = server.client("sk-test").with("content-type", "application/json");
    let path = "/v1/chat/completions";
    let mut body = client.open(Method::POST, path, chat("Hi", true).to_string()).await.into_body();
    live.send("data: {}\n\n").await;
    body.frame().await.expect("a frame").expect("no error");
    server.terminate();
    assert_eq!(server.ended().await, Some(0));
    assert!(body.collect().await.is_err(), "a cut stream must not look like a whole one");
}

#[tokio::test]
async fn a_server_that_cannot_serve_says_why_and_how_it_ends() {
    let home = Home::new();
    let server = home.serve(&[]).await;

    // One process, one folder.
    let data = home.data();
    home.serve_in_vain(&[]).check(75, &["in use by another process", data.to_str().expect("UTF-8")]);
    server.client("").get("/healthz").await.check(200);

    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = holder.local_addr().expect("bound").to_string();
    let other = Home::new();
    for (flag, key) in [("--listen", "serve.listen"), ("--admin-listen", "serve.admin_listen")] {
        other.serve_in_vain(&[flag, &taken]).check(69, &[key, &taken]);
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
            other.serve_in_vain(&[flag, address]).check(78, &[key, address, "--insecure"]);
        }
        other.serve_in_vain(&[flag, "nowhere"]).check(78, &[flag, "nowhere"]);
    }
    for (flag, value) in [("--upstream", "ftp://x/v1"), ("--upstream", "localhost"), ("--anthropic-upstream", "")] {
        other.serve_in_vain(&[flag, value]).check(78, &[flag, value]);
    }
    other.serve_in_vain(&["--data-dir-", "x"]).check(64, &["--data-dir-"]);

    // With the flag it is the operator's own decision.
    let exposed = other.serve(&["--listen", "0.0.0.0:0", "--insecure"]).await;
    let url = exposed.url.replace("0.0.0.0", "127.0.0.1");
    let anywhere = crate::support::Client::new(&url, "").with("host", "cache.example");
    anywhere.get("/readyz").await.json();
}

/// A data folder that is no folder, or one that somebody else wrote.
#[tokio::test]
async fn a_data_folder_that_is_none_is_named() {
    let home = Home::new();
    let file = home.write("file", "not a folder");
    let folder = format!("{file}/below");
    home.serve_in_vain(&["--data-dir", &folder, "--strict"]).check(74, &[&folder]);
    // Whoever is not strict is served all the same, from memory.
    let server = home.serve(&["--data-dir", &folder]).await;
    let client = server.client("");
    let ready = client.get("/readyz").await.json();
    assert!(ready["degraded"].as_array().expect("a list").contains(&json!("store")), "{ready}");
    client.insert(&json!({"prompt": "a", "response": "b"})).await;
    assert_eq!(client.find("a").await, ("exact".to_owned(), "b".to_owned()));
    server.kill();
}

#[tokio::test]
async fn the_secret_is_kept_twice() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    server.client("sk-test").insert(&json!({"prompt": "a", "response": "b"})).await;
    server.kill();
    for (name, damaged) in [("secret", "short"), ("secret.copy", "")] {
        std::fs::write(home.data().join(name), damaged).expect("a file");
        let server = home.serve(&[]).await;
        assert_eq!(server.client("sk-test").find("a").await, ("exact".to_owned(), "b".to_owned()), "{name}");
        server.kill();
    }
    for name in ["secret", "secret.copy"] {
        std::fs::write(home.data().join(name), "short").expect("a file");
    }
    home.serve_in_vain(&["--strict"]).check(74, &["secret"]);
    let server = home.serve(&[]).await;
    let ready = server.client("").get("/readyz").await.json();
    assert!(ready["degraded"].as_array().expect("a list").contains(&json!("tenants")), "{ready}");
    assert_eq!(server.client("sk-test").find("a").await.0, "miss");
}
