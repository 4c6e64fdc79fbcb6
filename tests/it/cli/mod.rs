//! The command line as scripts use it: data on stdout, everything else on stderr, exit codes of sysexits(3).

mod entries;
mod key;
#[cfg(feature = "candle")]
mod model;
mod transfer;

use crate::support::{Finished, Home, Server};

impl Server {
    /// Runs a command of `home` against this server, as this caller.
    fn run(&self, home: &Home, args: &[&str]) -> Finished {
        home.run_with(args, &[("NEARHIT_URL", &self.url), ("NEARHIT_KEY", "sk-test")])
    }
}

#[test]
fn a_configuration_is_checked_as_a_whole() {
    let home = Home::new();
    let good =
        home.write("good.toml", "[serve]\nlisten = \"127.0.0.1:1\"\n[embed]\nmodel = \"external\"\ndimensions = 4\n");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/nearhit.toml");
    for file in [&good, shipped] {
        let checked = home.run(&["check", file]);
        checked.check(0, &[]);
        assert!(checked.stdout.starts_with(&format!("{file}: ok")), "{checked:?}");
    }
    let bad = home.write(
        "bad.toml",
        "tenancy = \"none\"\n[serve]\nlisten = \"nowhere\"\nlisen = \"127.0.0.1:1\"\n[cache]\nthreshold = 1.5\n\
         [caches.Bad]\nthreshold = 0.5\n[upstream]\nopenai = \"ftp://x\"\n",
    );
    let keys = ["tenancy", "serve.listen", "serve.lisen", "cache.threshold", "caches.Bad", "upstream.openai"];
    let words = ["\"none\"", "\"nowhere\"", "127.0.0.1:1", "1.5", "\"Bad\"", "ftp://x"];
    let checked = home.run(&["check", &bad]);
    checked.check(78, &words);
    checked.check(78, &keys.map(|key| format!("{bad}: {key}: ")).each_ref().map(String::as_str));
    assert_eq!(checked.stdout, "");

    let broken = home.write("broken.toml", "[serve]\nlisten = \n");
    home.run(&["check", &broken]).check(78, &[&broken, "line 2"]);
    home.run(&["check", "/nowhere/nearhit.toml"]).check(66, &["/nowhere/nearhit.toml"]);
    home.run(&["serve", "--config", &bad]).check(78, &words);
    home.run(&["serve", "--config", "/nowhere/nearhit.toml"]).check(66, &["/nowhere/nearhit.toml"]);
    let model = home.write("model.toml", "[embed]\nmodel = \"unheard-of\"\n");
    if cfg!(feature = "candle") {
        home.run(&["check", &model]).check(78, &[&model, "embed.model", "unheard-of", "all-MiniLM-L6-v2"]);
    }
}

#[test]
fn commands_that_are_used_wrongly_say_how() {
    let home = Home::new();
    for (args, words) in [
        (&["serve", "--unheard-of"][..], &["--unheard-of"][..]),
        (&["unheard-of"], &["unheard-of"]),
        (&[], &["Usage"]),
        (&["search"], &["PROMPT"]),
        (&["search", "p", "--threshold", "high"], &["--threshold", "high"]),
        (&["search", "p", "--attribute", "locale"], &["--attribute", "NAME=VALUE"]),
        (&["search", "p", "--cache", "../x"], &["--cache", "../x"]),
        (&["search", "p", "--url", "localhost"], &["--url", "localhost"]),
        (&["search", "p", "--log", "=="], &["--log", "=="]),
        (&["get", "../stats"], &["32 hex digits", "../stats"]),
        (&["delete", "00000000000000000000000000000000", "--tag", "t"], &["--tag"]),
        (&["delete", "00000000000000000000000000000000", "--dry-run"], &["--dry-run"]),
        (&["flush"], &["--yes", "default"]),
        (&["insert", "p"], &["RESPONSE"]),
    ] {
        let finished = home.run(args);
        finished.check(64, words);
        assert_eq!(finished.stdout, "", "{args:?}");
    }
    for args in [["--help", "--version"], ["help", "serve"]] {
        let finished = home.run(&args);
        finished.check(0, &[]);
        assert!(!finished.stdout.is_empty() && finished.stderr.is_empty(), "{finished:?}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let home = Home::new();
    let file = home.write("export.jsonl", "{\"nearhit_export\":1}\n{\"prompt\":\"p\",\"response\":\"r\"}\n");
    let id = "00000000000000000000000000000000";
    for args in [
        &["search", "p"][..],
        &["insert", "p", "r"],
        &["get", id],
        &["delete", id],
        &["delete", "--tag", "t"],
        &["flush", "--yes"],
        &["stats"],
        &["templates"],
        &["import", &file],
        &["export", &file],
    ] {
        let url = "http://127.0.0.1:9";
        let finished = home.run_with(args, &[("NEARHIT_URL", url)]);
        finished.check(69, &[url]);
        assert_eq!(finished.stdout, "", "{args:?}");
    }
    let kept = std::fs::read_to_string(file).expect("the file");
    assert!(kept.contains("\"prompt\""), "an export that fails must not have emptied the file before: {kept:?}");
}
