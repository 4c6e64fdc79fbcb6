//! Models: which are there, are they what they should be, and what happens when they are not; and `eval`.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

#[cfg(feature = "bundled-model")]
use serde_json::Value;
use serde_json::json;

use crate::support::Home;

const NAME: &str = "all-MiniLM-L6-v2";

/// A folder with the shipped model in it, every file a link but those given, which are copies with one byte changed.
fn model_folder(home: &Home, parent: &str, altered: &[&str]) -> PathBuf {
    let shipped = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models").join(NAME);
    let folder = home.path(parent).join(NAME);
    std::fs::create_dir_all(&folder).expect("a folder");
    for file in std::fs::read_dir(&shipped).expect("the shipped model") {
        let from = file.expect("a file").path();
        let name = from.file_name().and_then(|name| name.to_str()).expect("a plain name");
        let to = folder.join(name);
        if altered.contains(&name) {
            let mut bytes = std::fs::read(&from).expect("the shipped file");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&to, bytes).expect("a copy");
        } else {
            symlink(&from, &to).expect("a link");
        }
    }
    folder
}

#[test]
fn models_are_listed_and_verified() {
    let home = Home::new();
    let listed = home.run(&["model", "list"]);
    listed.check(0, &[]);
    let line = listed.stdout.lines().find(|line| line.starts_with(NAME)).expect("the shipped model");
    for word in ["384 dimensions", "Apache-2.0", "bundled"] {
        assert!(line.contains(word), "{word} is not in {line}");
    }

    let whole = model_folder(&home, "whole", &[]);
    for model in [None, Some(NAME), whole.to_str()] {
        let args: Vec<&str> = ["model", "verify"].into_iter().chain(model).collect();
        let verified = home.run(&args);
        verified.check(0, &[]);
        assert!(verified.stdout.contains("files match") && verified.stdout.contains(NAME), "{verified:?}");
    }
    // An engine that is asked for is named; one that is not there is refused.
    for (asked, named) in [
        (["--embed-engine=candle", "--embed-precision=auto"], "engine candle f32 cpu"),
        (["--embed-engine=portable", "--embed-precision=auto"], "engine candle-fused f32 portable"),
        (["--embed-engine=portable", "--embed-precision=int8"], "engine candle-fused int8 portable"),
    ] {
        let verified = home.run(&[&["model", "verify"][..], &asked].concat());
        verified.check(0, &[]);
        assert!(verified.stdout.contains(named), "{verified:?}");
    }
    home.run(&["model", "verify", "--embed-engine=candle", "--embed-precision=int8"]).check(78, &["candle", "f32"]);
    home.run(&["model", "verify", "--embed-engine=sse"]).check(64, &["sse"]);
    home.run(&["model", "verify", "unheard-of"]).check(64, &["unheard-of", NAME]);
    let empty = home.path("empty");
    std::fs::create_dir(&empty).expect("a folder");
    home.run(&["model", "verify", empty.to_str().expect("UTF-8")]).check(66, &["model.safetensors"]);
}

/// A byte that is not what it should be, anywhere, is found before it can do harm.
#[tokio::test]
async fn an_altered_model_is_refused_or_done_without() {
    for file in ["tokenizer.json", "config.json", "model.safetensors"] {
        let home = Home::new();
        let folder = model_folder(&home, "altered", &[file]);
        let folder = folder.to_str().expect("UTF-8");
        home.run(&["model", "verify", folder]).check(78, &[file, "altered"]);
        let config = home.write("nearhit.toml", format!("[embed]\nmodel = {folder:?}\n"));
        home.run(&["check", &config]).check(78, &[&config, "embed.model", file, "altered"]);
        home.serve_in_vain(&["--strict"]).check(78, &["embed.model", file, "altered"]);

        // Without --strict it serves what needs no model, and says what it lacks.
        let mut server = home.serve(&[]).await;
        let client = server.client("");
        let ready = client.get("/readyz").await.check(200).json();
        let said = ["state", "degraded", "embedder", "engine"].map(|name| ready[name].clone());
        assert_eq!(said, [json!("ready"), json!(["embedder"]), json!("none"), json!("none")]);
        let inserted = client.post("/v1/caches/default/entries", &json!({"prompt": "p", "response": "r"})).await;
        assert_eq!(inserted.check(201).json()["exactOnly"], "embedder_down");
        assert_eq!(client.find("p").await, ("exact".to_owned(), "r".to_owned()));
        assert_eq!(client.find("q").await, ("miss".to_owned(), "embedder_down".to_owned()));
        assert!(server.log().contains(file), "{}", server.log());
        server.check_alive();
    }
}

#[test]
fn a_fetch_without_a_network_says_so() {
    let home = Home::new();
    let hub = home.path("hub");
    let nowhere = [("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HOME", hub.to_str().expect("UTF-8"))];
    let finished = home.run_with(&["model", "fetch", NAME], &nowhere);
    finished.check(69, &["sentence-transformers/all-MiniLM-L6-v2", "offline"]);
    assert!(!home.data().join("nearhit/models").join(NAME).exists(), "half a model is no model");
    home.run_with(&["model", "fetch", "unheard-of"], &nowhere).check(64, &["unheard-of", NAME]);
}

#[test]
fn datasets_that_are_wrong_are_named_with_the_line() {
    let home = Home::new();
    home.run(&["eval", "pairs", "/nowhere/pairs.jsonl"]).check(66, &["/nowhere/pairs.jsonl"]);
    for (shape, content, line, word) in [
        ("pairs", "{\"id\":1,\"a\":\"x\",\"b\":\"y\"}\n{\n", "line 2", "no JSON"),
        ("pairs", "{\"id\":1,\"a\":\"x\"}\n", "line 1", "\"b\""),
        ("pairs", "\n{\"id\":1,\"a\":\"x\",\"b\":\"y\",\"label\":2}\n", "line 2", "2"),
        ("stream", "{\"id\":1,\"text\":7}\n", "line 1", "\"text\""),
        ("conversations", "{\"id\":1,\"a\":\"x\",\"b\":[]}\n", "line 1", "\"a\""),
        ("stream", "", "no rows", ""),
    ] {
        let file = home.write("rows.jsonl", content);
        home.run(&["eval", shape, &file]).check(65, &[&file, line, word]);
    }
    for args in [
        ["--max-error", "2"],
        ["--labels", "all"],
        ["--orders", "0"],
        ["--insert", "some"],
        ["--tune-share", "1"],
        ["--tune-share", "0.5"],
    ] {
        home.run(&[&["eval", "pairs", "x"][..], &args].concat()).check(64, &args);
    }
}

/// A threshold for the second half of a stream, from its first half; with every row stored, and with misses only.
#[cfg(feature = "bundled-model")]
#[test]
fn a_stream_is_measured_on_what_came_after() {
    let home = Home::new();
    let rows = [
        ("a", "How do I reset my password?"),
        ("a", "how do i reset my password"),
        ("b", "What are your opening hours?"),
        ("a", "How can I reset my password?"),
        ("b", "What are your opening hours?"),
        ("c", "Do you ship to Norway?"),
    ];
    let line = |(n, (class, text)): (usize, &(&str, &str))| {
        format!("{}\n", json!({"id": n, "class": class, "text": text, "kind": "k"}))
    };
    let file = home.write("stream.jsonl", rows.iter().enumerate().map(line).collect::<String>());
    let measured = |more: &[&str]| {
        let args = ["eval", "stream", &file, "--json", "--max-error", "0.1", "--tune-share", "0.5"];
        let finished = home.run(&[&args[..], more].concat());
        finished.check(0, &[]);
        serde_json::from_str::<Value>(&finished.stdout).expect("JSON")
    };
    for (insert, more) in [("all", &[][..]), ("representatives", &["--insert", "representatives"])] {
        let report = measured(more);
        assert_eq!((&report["config"]["insert"], &report["confidence"]), (&json!(insert), &json!(0.9)));
        let held_out = &report["held_out"][0];
        assert_eq!((&held_out["n"], &held_out["max_error"]), (&json!(3), &json!(0.1)), "{held_out}");
        let count = |name: &str| held_out[name].as_u64().expect("a count");
        assert_eq!(count("correct") + count("wrong"), count("hits"), "{held_out}");
        assert!(count("correct") >= 1, "what is equal: {held_out}");
        for (of, rate) in [(held_out, "correct_rate"), (held_out, "hit_rate"), (held_out, "error_rate")]
            .into_iter()
            .chain([(&report["chosen"][0], "error_rate"), (&report["by_kind"]["k"], "error_rate")])
        {
            let bounds = of[format!("{rate}_interval")].as_array().expect("two bounds");
            let number = |value: &Value| value.as_f64().expect("a number");
            assert!(number(&bounds[0]) <= number(&of[rate]) && number(&of[rate]) <= number(&bounds[1]), "{rate} {of}");
        }
        let curve = report["curve"].as_array().expect("points");
        assert!(curve.iter().all(|point| point["hit_rate"].as_f64() > Some(0.0)), "{curve:?}");
    }
    let table = home.run(&["eval", "stream", &file, "--tune-share", "0.5"]);
    table.check(0, &[]);
    for words in ["held out", "90 % interval"] {
        assert!(table.stdout.contains(words), "{}", table.stdout);
    }
}
