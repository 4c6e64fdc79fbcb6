//! A cache as a file, there and back.

use std::io::{Read, Write};

use serde_json::{Value, json};

use crate::support::{Client, Finished, Home, Upstream, summary};

/// What a file holds once it is unpacked.
fn unpacked(path: &str) -> String {
    let bytes = std::fs::read(path).expect("the file");
    let mut text = String::new();
    match path.rsplit('.').next() {
        Some("gz") => flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).map(drop),
        Some("zst") => zstd::Decoder::new(&bytes[..]).and_then(|mut from| from.read_to_string(&mut text)).map(drop),
        _ => String::from_utf8(bytes).map(|plain| text = plain).map_err(std::io::Error::other),
    }
    .expect("what it says it is");
    text
}

fn ask(text: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": text}], "temperature": 0.5})
}

/// Entries of every kind, in two caches.
async fn fill(client: &Client) {
    let entries = json!({"entries": [
        {"prompt": "plain", "response": "text"},
        {"prompt": "rich", "context": "c", "response": crate::support::completion("object"), "attributes": {"a": "1"},
         "tags": ["t"], "sources": [{"id": "doc", "version": "7"}], "vars": {"name": "rich"}},
        {"prompt": "brief", "response": "text", "ttlMillis": 600_000},
        {"request": ask("proxied"), "headers": {"openai-project": "p"}, "response": crate::support::completion("by request")},
    ]});
    client.post("/v1/caches/default/entries/batch", &entries).await.check(200);
    client.post("/v1/caches/other/entries", &json!({"prompt": "elsewhere", "response": "r"})).await.check(201);
}

/// Everything that the server can tell about a cache's entries, without what passes with time.
async fn listed(client: &Client, cache: &str) -> Value {
    client.get(&format!("/v1/caches/{cache}/entries")).await.check(200).json()["data"].clone()
}

#[tokio::test]
async fn a_round_trip_loses_nothing() {
    let upstream = Upstream::saying("fresh").await;
    for ending in ["jsonl", "jsonl.gz", "jsonl.zst"] {
        let home = Home::new();
        let server = home.serve(&["--upstream", &upstream.base()]).await;
        let client = server.client("sk-test");
        fill(&client).await;
        let before = (listed(&client, "default").await, listed(&client, "other").await);
        let file = home.write(&format!("export.{ending}"), "");

        let exported = server.run(&home, &["export", &file]);
        exported.check(0, &[]);
        assert_eq!(exported.stdout, "5 entries exported\n");
        let text = unpacked(&file);
        assert!(text.starts_with("{\"nearhit_export\":1}\n") && text.lines().count() == 6, "{text}");

        for cache in ["default", "other"] {
            server.run(&home, &["flush", "--yes", "--cache", cache]).check(0, &[]);
        }
        let imported = server.run(&home, &["import", &file, "--json"]);
        imported.check(0, &[]);
        let counts: Value = serde_json::from_str(&imported.stdout).expect("JSON");
        assert_eq!(
            counts,
            json!({"imported": 5, "exactOnly": if cfg!(feature = "candle") { 0 } else { 5 }, "expired": 0, "refused": 0})
        );

        let after = (listed(&client, "default").await, listed(&client, "other").await);
        check_same(&before.0, &after.0);
        check_same(&before.1, &after.1);

        // What was inserted by request goes on serving proxied calls.
        let calls = upstream.count();
        let hit = client.with("openai-project", "p").chat(&ask("proxied")).await.check(200);
        assert_eq!(hit.outcome(), ("hit", "exact"));
        assert_eq!(hit.json()["choices"][0]["message"]["content"], "by request");
        assert_eq!(upstream.count(), calls);
    }
}

/// The same entries; the time to live is counted from another moment and may be some milliseconds off.
fn check_same(before: &Value, after: &Value) {
    let (before, after) = (before.as_array().expect("a page"), after.as_array().expect("a page"));
    assert_eq!(before.len(), after.len());
    for (old, new) in before.iter().zip(after) {
        let expires = |entry: &Value| entry["expiresMs"].as_u64().expect("milliseconds");
        assert!(expires(old).abs_diff(expires(new)) < 30_000, "{old} {new}");
        let mut new = new.clone();
        new["expiresMs"] = old["expiresMs"].clone();
        assert_eq!(*old, new);
    }
}

#[tokio::test]
async fn one_cache_may_be_exported_alone() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    fill(&server.client("sk-test")).await;
    let file = home.write("other.jsonl", "");
    let exported = server.run(&home, &["export", &file, "--cache", "other", "--json"]);
    exported.check(0, &[]);
    assert_eq!(exported.stdout, "{\"exported\":1}\n");
    assert!(unpacked(&file).contains("elsewhere"));
    // Another caller has nothing to export.
    let nothing = server.run(&home, &["export", &file, "--key", "sk-other"]);
    assert_eq!((nothing.code, unpacked(&file).as_str()), (Some(0), "{\"nearhit_export\":1}\n"));
}

/// Vectors that callers brought cannot be made again: they travel with their entries.
#[tokio::test]
async fn the_callers_vectors_survive_the_round_trip() {
    let home = Home::with_config("[embed]\nmodel = \"external\"\ndimensions = 4\n");
    let server = home.serve(&[]).await;
    let client = server.client("sk-test");
    client.insert(&json!({"prompt": "up", "vector": [0, 0.6, 0.8, 0], "response": "r"})).await;
    let file = home.write("export.jsonl", "");
    server.run(&home, &["export", &file]).check(0, &[]);
    server.run(&home, &["flush", "--yes"]).check(0, &[]);
    server.run(&home, &["import", &file]).check(0, &[]);
    let found = client.search(&json!({"prompt": "upwards", "vector": [0, 0.61, 0.79, 0]})).await;
    assert_eq!(summary(&found), ("semantic".to_owned(), "r".to_owned()));
}

#[tokio::test]
async fn files_that_are_wrong_are_named_with_the_line() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let client = server.client("sk-test");
    let import = |content: &[u8], name: &str| -> (String, Finished) {
        let file = home.write(name, content);
        (file.clone(), server.run(&home, &["import", &file]))
    };
    let head = "{\"nearhit_export\":1}";
    let good = "{\"prompt\":\"good\",\"response\":\"r\"}";
    for (content, line, word) in [
        (String::new(), "line 1", "nearhit_export"),
        (good.to_owned(), "line 1", "nearhit_export"),
        ("{\"nearhit_export\":2}\n".to_owned(), "line 1", "nearhit_export"),
        ("no JSON\n".to_owned(), "line 1", "no JSON"),
        (format!("{head}\n{good}\n{{\n"), "line 3", "no JSON"),
        (format!("{head}\n\n\n{good}\n7\n"), "line 5", "object"),
        (
            format!("{head}\n{{\"cache\":7,\"prompt\":\"p\",\"response\":\"r\"}}\n"),
            "line 2",
            "cache: must be a string, got 7",
        ),
        (format!("{head}\n{{\"prompt\":\"p\",\"response\":\"r\",\"expiresMs\":\"soon\"}}\n"), "line 2", "expiresMs"),
        (format!("{head}\n{{\"prompt\":\"p\"}}\n{good}\n"), "line 2", "response"),
        (format!("{head}\n{good}\n{{\"prompt\":\"\",\"response\":\"r\"}}\n"), "line 3", "prompt"),
        (format!("{head}\n{{\"prompt\":\"p\",\"response\":\"r\",\"unheard_of\":1}}\n"), "line 2", "unheard_of"),
    ] {
        let (file, finished) = import(content.as_bytes(), "bad.jsonl");
        finished.check(65, &[&file, line, word]);
    }
    // Lines that the server refuses are no reason to leave out the others.
    assert_eq!(client.find("good").await.0, "exact");

    let (file, finished) = import(b"plain text", "bad.jsonl.gz");
    finished.check(65, &[&file]);
    let (file, finished) = import(b"plain text", "bad.jsonl.zst");
    finished.check(65, &[&file]);
    server.run(&home, &["import", "/nowhere/x.jsonl"]).check(66, &["/nowhere/x.jsonl"]);
    server.run(&home, &["export", "/nowhere/x.jsonl"]).check(74, &["/nowhere/x.jsonl"]);
}

#[tokio::test]
async fn expired_entries_are_left_out() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let mut file = Vec::new();
    writeln!(file, "{{\"nearhit_export\":1}}").expect("memory");
    for (prompt, expires_ms) in [("past", 1_000_000_000_000u64), ("future", 32_503_680_000_000 / 16), ("now", 1)] {
        let line = json!({"prompt": prompt, "response": "r", "expiresMs": expires_ms, "createdMs": 1000, "cache": "c"});
        writeln!(file, "{line}").expect("memory");
    }
    let file = home.write("old.jsonl", file);
    let imported = server.run(&home, &["import", &file]);
    imported.check(0, &[]);
    let exact_only = if cfg!(feature = "candle") { 0 } else { 1 };
    let expected = format!("1 entries imported ({exact_only} found by an exact match only), 2 expired, 0 refused\n");
    assert_eq!(imported.stdout, expected);
    assert_eq!(listed(&server.client("sk-test"), "c").await[0]["prompt"], "future");
}
