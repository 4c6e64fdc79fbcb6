//! The cache API from a shell, for people and with `--json` for programs.

use serde_json::{Value, json};

use crate::support::{Finished, Home, until};

#[track_caller]
fn parsed(finished: &Finished) -> Value {
    finished.check(0, &[]);
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

#[tokio::test]
async fn an_entry_goes_in_and_out() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let run = |args: &[&str]| server.run(&home, args);

    let miss = run(&["search", "How do I reset my password?"]);
    miss.check(0, &["miss", "empty"]);
    assert_eq!(miss.stdout, "");

    let more = ["--context", "c", "--attribute", "locale=en", "--attribute", "eq=a=b"];
    let insert = ["insert", "How do I reset my password?", "Open Settings.", "--tag", "faq", "--ttl-millis", "60000"];
    let inserted = run(&[&insert[..], &more].concat());
    inserted.check(0, &[]);
    let id = inserted.stdout.trim();
    assert_eq!(id.len(), 32, "{inserted:?}");

    let search = [&["search", "How do I reset my password?", "--threshold", "0.9"][..], &more].concat();
    let hit = run(&search);
    hit.check(0, &["hit: exact", id]);
    assert_eq!(hit.stdout, "Open Settings.\n");
    let hit = parsed(&run(&[&search[..], &["--json"]].concat()));
    assert_eq!((&hit["outcome"], &hit["data"][0]["id"]), (&json!("hit"), &json!(id)));
    assert_eq!(hit["data"][0]["attributes"], json!({"locale": "en", "eq": "a=b"}));
    assert_eq!(run(&["search", "How do I reset my password?"]).stdout, "", "without context and attributes");

    let got = run(&["get", id]);
    got.check(0, &["How do I reset my password?"]);
    assert_eq!(got.stdout, "Open Settings.\n");
    assert_eq!(parsed(&run(&["get", id, "--json"]))["response"], "Open Settings.");

    let stats = run(&["stats"]);
    stats.check(0, &[]);
    for line in ["entries: 1", "inserts: 1", "hits: {\"exact\":2}"] {
        assert!(stats.stdout.lines().any(|found| found == line), "{line} is not in {stats:?}");
    }
    assert_eq!(parsed(&run(&["stats", "--json"]))["entries"], 1);

    assert_eq!(run(&["delete", "--tag", "faq", "--dry-run"]).stdout, "1 matched, 0 removed\n");
    assert_eq!(run(&["delete", id]).stdout, "1 entry removed\n");
    for args in [["get", id], ["delete", id]] {
        run(&args).check(65, &["404", id]);
    }
}

#[tokio::test]
async fn entries_are_removed_by_filter() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    let run = |args: &[&str]| server.run(&home, args);
    let fill = || {
        run(&["insert", "a", "r", "--tag", "x", "--cache", "other"]).check(0, &[]);
        run(&["insert", "b", "r", "--tag", "y", "--attribute", "locale=en", "--cache", "other"]).check(0, &[]);
    };
    for (filter, matched) in [
        (&["--tag", "x"][..], 1),
        (&["--tag", "x", "--tag", "y"], 2),
        (&["--attribute", "locale=en"], 1),
        (&["--older-than-ms", "0"], 2),
        (&["--older-than-ms", "3600000"], 0),
        (&["--writer", "somebody"], 0),
        (&["--source", "manual"], 0),
        (&["--source", "manual@7", "--source", "a@b.example@1"], 0),
    ] {
        fill();
        let args = [&["delete", "--cache", "other", "--json"][..], filter].concat();
        assert_eq!(parsed(&run(&args)), json!({"matched": matched, "deleted": matched}), "{filter:?}");
    }
    // The server's own words about what is missing.
    run(&["delete", "--cache", "other"]).check(65, &["400", "the filter is empty"]);
    fill();
    assert_eq!(run(&["flush", "--cache", "other", "--yes"]).stdout, "other is empty\n");
    assert_eq!(parsed(&run(&["stats", "--cache", "other", "--json"]))["entries"], 0);
}

/// The key decides whose entries these are, and is not shown to anybody.
#[tokio::test]
async fn the_key_names_the_tenant() {
    let home = Home::new();
    let server = home.serve(&[]).await;
    server.run(&home, &["insert", "p", "mine"]).check(0, &[]);
    assert_eq!(server.run(&home, &["search", "p"]).stdout, "mine\n");
    assert_eq!(server.run(&home, &["search", "p", "--key", "sk-other"]).stdout, "");
    let help = server.run(&home, &["search", "--help"]);
    assert!(!help.stdout.contains("sk-test"), "{help:?}");
    assert!(!server.log().contains("sk-test"));
}

#[tokio::test]
async fn templates_are_shown_as_a_table() {
    let home = Home::with_config("[templates]\nrefill = true");
    let server = home.serve(&[]).await;
    let run = |args: &[&str]| server.run(&home, args);
    let none = run(&["templates"]);
    none.check(0, &["0 entries looked at"]);
    assert_eq!(none.stdout, "");
    for id in ["#K-20418", "#K-20419"] {
        run(&["insert", &format!("Where\nis {id}?"), &format!("{id} is here."), "--cache", "other"]).check(0, &[]);
    }
    run(&["insert", "Hi Ada, who are you?", "Me.", "--cache", "other"]).check(0, &[]);
    let table = until("the answer is refilled", async || {
        let table = run(&["templates", "--cache", "other"]);
        table.check(0, &["3 entries looked at"]);
        table.stdout.contains(" yes ").then_some(table)
    })
    .await;
    let expected = [
        "   count  refilled  template",
        "       2  yes       Where is {id}?",
        "                    id echoed: #A-9 (2)",
        "       1  no        Hi {name}, who are you?",
        "                    name volatile: Aa (1)",
    ];
    assert_eq!(table.stdout.lines().collect::<Vec<_>>(), expected);
    let parsed = parsed(&run(&["templates", "--cache", "other", "--json", "--limit", "1"]));
    assert_eq!((&parsed["data"][0]["count"], parsed["data"].as_array().map(Vec::len)), (&json!(2), Some(1)));
    run(&["templates", "--limit", "0"]).check(65, &["400", "limit"]);
}
