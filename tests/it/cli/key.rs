//! Keys from a shell.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::{Finished, Home};

fn run(home: &Home, args: &[&str]) -> Finished {
    let data = home.data();
    home.run(&[&["key"], args, &["--data-dir", data.to_str().expect("UTF-8")]].concat())
}

fn listed(home: &Home) -> Vec<Value> {
    let finished = run(home, &["list", "--json"]);
    finished.check(0, &[]);
    let value: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    value["data"].as_array().expect("an array").clone()
}

#[test]
fn keys_are_made_listed_and_revoked() {
    let home = Home::new();
    assert_eq!(listed(&home), [Value::Null; 0]);
    let made = run(&home, &["create", "--tenant", "acme", "--scopes", "read,admin", "--expires", "90d"]);
    made.check(0, &["acme", "\"read\", \"admin\"", "not shown again"]);
    let key = made.stdout.trim();
    assert!(key.starts_with("nh_") && key.len() == 84 && !made.stderr.contains(key), "{made:?}");
    let id = &key[3..11];

    let all = listed(&home);
    assert_eq!(all.len(), 1);
    let (created, expires) = (all[0]["createdMs"].as_u64().expect("ms"), all[0]["expiresMs"].as_u64().expect("ms"));
    assert_eq!(expires - created, 90 * 86_400_000);
    for (field, value) in [
        ("id", json!(id)),
        ("tenant", json!("acme")),
        ("scopes", json!(["read", "admin"])),
        ("state", json!("valid")),
        ("revokedMs", Value::Null),
        ("place", json!("data folder")),
    ] {
        assert_eq!(all[0][field], value, "{field}");
    }
    let text = run(&home, &["list"]).stdout;
    assert!(text.starts_with(&format!("{id}  acme  read,admin  valid until 20")), "{text}");
    assert!(!text.contains(&key[12..]) && !all[0].to_string().contains(&key[12..]));

    let other = home.key_with(&["--tenant", "other"]);
    let json = run(&home, &["create", "--tenant", "acme", "--json"]);
    json.check(0, &[]);
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((&json["scopes"], &json["state"]), (&json!(["write"]), &json!("valid")));
    // By its id, and by the whole key; twice is once.
    for id in [id, &other, &other[3..11]] {
        let revoked = run(&home, &["revoke", id]);
        revoked.check(0, &[]);
        assert_eq!(revoked.stdout, format!("key {} revoked\n", id.strip_prefix("nh_").map_or(id, |id| &id[..8])));
    }
    let states: Vec<Value> = listed(&home).iter().map(|key| key["state"].clone()).collect();
    assert_eq!(states, ["revoked", "revoked", "valid"]);
}

#[test]
fn what_is_wrong_is_named() {
    let home = Home::new();
    for (args, code, words) in [
        (&["create"][..], 64, &["--tenant"][..]),
        (&["create", "--tenant", "Acme"], 64, &["--tenant", "Acme", "a-z"]),
        (&["create", "--tenant", "a", "--scopes", "all"], 64, &["--scopes", "all", "read, write or admin"]),
        (&["create", "--tenant", "a", "--scopes", ""], 64, &["--scopes"]),
        (&["create", "--tenant", "a", "--expires", "tomorrow"], 64, &["--expires", "tomorrow", "90d"]),
        (&["create", "--tenant", "a", "--expires", "0d"], 64, &["--expires", "0d"]),
        (&["create", "--tenant", "a", "--expires", "99999999999999999999d"], 64, &["--expires"]),
        (&["create", "--tenant", "a", "--expires", "1\u{e4}"], 64, &["--expires"]),
        (&["revoke"], 64, &["ID"]),
        (&["revoke", "all"], 64, &["8 hex digits"]),
        (&["revoke", "0000000a"], 65, &["0000000a", "data"]),
        (&[], 64, &["create", "revoke"]),
    ] {
        let finished = home.run(&[&["key"], args].concat());
        finished.check(code, words);
        assert_eq!(finished.stdout, "", "{args:?}");
    }
    std::fs::create_dir_all(home.data()).expect("a folder");
    for name in ["keys", "keys.copy"] {
        std::fs::write(home.data().join(name), "?").expect("a file");
    }
    for args in [&["list"][..], &["create", "--tenant", "a"], &["revoke", "0000000a"]] {
        let finished = run(&home, args);
        finished.check(65, &["keys", "damaged"]);
        assert_eq!(finished.stdout, "", "{args:?}");
    }
}

#[test]
fn configured_keys_are_listed_and_stay() {
    let home = Home::new();
    let hash = "0".repeat(64);
    let table = format!(
        "[[keys]]\nid = \"0000000a\"\nhash = \"{hash}\"\ntenant = \"acme\"\nscopes = [\"read\"]\nexpires = 2000-01-01\n"
    );
    let file = home.write("keys.toml", table);
    let list = run(&home, &["list", "--config", &file]);
    assert_eq!(list.stdout, "0000000a  acme  read  expired until 2000-01-01T00:00:00Z  (configuration)\n");
    run(&home, &["revoke", "0000000a", "--config", &file]).check(65, &["0000000a", "configuration"]);
}

/// Two shells at a time lose nothing of each other.
#[test]
fn keys_that_are_made_at_once_are_all_there() {
    let home = Arc::new(Home::new());
    let makers: Vec<_> = (0..4)
        .map(|maker| {
            let home = Arc::clone(&home);
            std::thread::spawn(move || (0..5).map(|_| home.key(&format!("t{maker}"), "read")).collect::<Vec<_>>())
        })
        .collect();
    let mut made: Vec<String> =
        makers.into_iter().flat_map(|maker| maker.join().expect("no panic")).map(|key| key[3..11].to_owned()).collect();
    let mut found: Vec<String> =
        listed(&home).iter().map(|key| key["id"].as_str().expect("an id").to_owned()).collect();
    made.sort();
    found.sort();
    assert_eq!(made, found);
}

/// The other commands call with a key as with any other.
#[tokio::test]
async fn commands_call_with_keys() {
    let home = Home::new();
    let (writing, reading) = (home.key("acme", "write"), home.key("acme", "read"));
    let server = home.serve(&[]).await;
    let call = |key: &str, args: &[&str]| home.run_with(args, &[("NEARHIT_URL", &server.url), ("NEARHIT_KEY", key)]);
    call(&writing, &["insert", "p", "r"]).check(0, &[]);
    for key in [&writing, &reading] {
        assert_eq!(call(key, &["search", "p"]).stdout, "r\n");
    }
    assert_eq!(home.run(&["search", "p", "--url", &server.url, "--key", &reading]).stdout, "r\n");
    for (key, args, status) in [
        (reading.as_str(), &["insert", "p", "r"][..], "403"),
        (&writing, &["flush", "--yes"], "403"),
        (&writing[..80], &["search", "p"], "401"),
        ("sk-test", &["stats"], "401"),
    ] {
        let refused = call(key, args);
        refused.check(77, &[status]);
        assert!(refused.stdout.is_empty() && !refused.stderr.contains(key), "{refused:?}");
    }
    call("two words\n", &["stats"]).check(64, &["--key"]);
}
