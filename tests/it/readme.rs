//! The documents say what is: README.md's snippets are run against the program, and what its tables and ARCHITECTURE.md
//! name is there.
//!
//! A comment before a snippet says what becomes of it: `test: NAME` is run below, `output: NAME` is what that prints,
//! `not run: WHY` speaks for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::support::{Home, Upstream, variable};

/// The snippets that a test below runs.
const RUN: &[&str] =
    &["check", "eval", "first hit", "grpc", "keys", "proxy, first call", "python", "python, Anthropic"];

/// A fenced block with the comment before it.
struct Snippet {
    kind: String,
    name: String,
    language: String,
    text: String,
}

#[test]
fn every_snippet_is_run_or_says_why_not() {
    let names = |kind: &str| -> BTreeSet<String> {
        snippets().into_iter().filter(|snippet| snippet.kind == kind).map(|snippet| snippet.name).collect()
    };
    assert_eq!(names("test"), RUN.iter().map(ToString::to_string).collect());
    assert!(names("output").is_subset(&names("test")), "the output of nothing: {:?}", names("output"));
    for Snippet { kind, name, .. } in snippets() {
        assert!(["test", "output", "not run"].contains(&kind.as_str()) && !name.is_empty(), "{kind}: {name}");
    }
}

#[test]
fn configuration_samples_are_valid() {
    let home = Home::new();
    for Snippet { text, .. } in snippets().into_iter().filter(|snippet| snippet.language == "toml") {
        let file = home.write("sample.toml", &text);
        let finished = home.run(&["check", &file]);
        // Without an embedder in the build only the keys are checked.
        assert_eq!(finished.code, Some(0), "{text}\n{finished:?}");
    }
    let file = home.write("sample.toml", "tenency = \"single\"");
    home.run(&["check", &file]).check(78, &["tenency"]);
}

/// In every build; with an embedder they are run, too.
#[test]
fn python_samples_are_python() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    for Snippet { text, .. } in snippets().into_iter().filter(|snippet| snippet.language == "python") {
        let parse = ["-c", "import ast, sys; ast.parse(sys.argv[1])", &text];
        assert!(Command::new(&python).args(parse).status().expect("python runs").success(), "{text}");
    }
}

/// Equal questions need no embedder.
#[cfg(feature = "grpc")]
#[tokio::test]
async fn grpc() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    let text = |kind: &str| snippets().into_iter().find(|s| s.kind == kind && s.name == "grpc").expect("gRPC").text;
    let home = Home::new();
    let server = home.serve(&[]).await;
    let code = text("test").replace("127.0.0.1:8080", server.url.trim_start_matches("http://"));
    let mut command = Command::new(python);
    command.args(["-c", &code]).current_dir(root()).env("NO_PROXY", "127.0.0.1").env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), text("output").trim());
}

/// In every build: the second call is the first, and needs no embedder.
#[tokio::test]
async fn a_client_of_anthropics_changes_one_line() {
    let Some(python) = variable("NEARHIT_PYTHON") else { return };
    let upstream = Upstream::saying("Open Settings, then Security.").await;
    let home = Home::new();
    let server = home.serve(&["--anthropic-upstream", &upstream.origin()]).await;
    let sample = snippets().into_iter().find(|snippet| snippet.name == "python, Anthropic").expect("a sample");
    let text = sample.text.replace("http://127.0.0.1:8080", &server.url);
    for expected in ["miss Open Settings, then Security.", "hit Open Settings, then Security."] {
        let mut command = Command::new(&python);
        command.args(["-c", &text]).env("ANTHROPIC_API_KEY", "sk-ant-test").env("NO_PROXY", "127.0.0.1");
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
        let output = output.expect("python starts");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{output:?}");
        server.client("").with("x-api-key", "sk-ant-test").wait_for_entries(1).await;
    }
    assert_eq!(upstream.count(), 1, "the second call was served from the cache");
}

#[test]
fn links_lead_somewhere() {
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        for target in read(document).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            assert!(target.contains("://") || root().join(path).exists(), "{document} links to {target}");
        }
    }
}

#[test]
fn the_tree_names_every_file() {
    let architecture = read("ARCHITECTURE.md");
    let tree =
        architecture.split("```text\nsrc/\n").nth(1).and_then(|rest| rest.split("\nmodels/").next()).expect("a tree");
    let words = tree.split(|c: char| c.is_whitespace() || "(),:".contains(c));
    let named: Vec<&str> = words.filter(|word| word.ends_with(".rs")).collect();
    let paths: Vec<String> = sources("src");
    for path in &paths {
        let count = named.iter().filter(|name| path.ends_with(&format!("/{name}"))).count();
        assert!(count >= 1, "the tree of ARCHITECTURE.md lacks {path}");
    }
    for name in named {
        assert!(
            paths.iter().any(|path| path.ends_with(&format!("/{name}"))),
            "the tree names {name}, which is not there"
        );
    }
}

#[test]
fn invariants_are_held_by_tests_that_are_there() {
    let code: String = sources("src").iter().chain(&sources("tests/it")).map(|path| read(path)).collect();
    let architecture = read("ARCHITECTURE.md");
    let invariants =
        architecture.lines().filter(|line| line.split_once(". ").is_some_and(|(n, _)| n.parse::<u8>().is_ok()));
    let mut count = 0;
    for invariant in invariants {
        let (_, tests) = invariant.split_once(" Test: ").unwrap_or_else(|| panic!("no test holds: {invariant}"));
        for test in tests.split('`').skip(1).step_by(2) {
            assert!(code.contains(&format!("fn {test}(")), "no test is called {test}: {invariant}");
            count += 1;
        }
    }
    assert!(count >= 20, "{count} tests");
}

/// Whoever lets the code say another reason explains it in the README.
#[test]
fn the_reasons_are_those_that_this_version_says() {
    let known: BTreeMap<String, String> = read("src/decision/outcome.rs")
        .lines()
        .filter_map(|line| line.trim().strip_suffix("\",")?.split_once(" = \""))
        .map(|(variant, word)| (variant.to_owned(), word.to_owned()))
        .collect();
    assert!(known.len() > 30, "{known:?}");
    let mut said = BTreeSet::new();
    for path in sources("src").iter().filter(|path| !path.ends_with("outcome.rs") && !path.starts_with("src/cli/")) {
        let text = read(path);
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let variants = code.split("Reason::").skip(1);
        let variants = variants.filter_map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric()).next());
        said.extend(variants.filter_map(|variant| known.get(variant).cloned()));
    }
    let readme = read("README.md");
    let tables = readme.split("## Why a miss?").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("the tables");
    let rows = tables.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let explained = rows.flat_map(|names| names.split(',').map(|name| name.replace('`', "").trim().to_owned()));
    assert_eq!(explained.collect::<BTreeSet<_>>(), said);
}

/// The features decide which commands there are; the README speaks of the default build.
#[cfg(feature = "candle")]
#[test]
fn every_command_is_named() {
    let help = Home::new().run(&["--help"]).stdout;
    let commands = help.split("Commands:").nth(1).and_then(|rest| rest.split("Options:").next()).expect("commands");
    let readme = read("README.md");
    let mut count = 0;
    for name in commands.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        let named = readme.contains(&format!("`{name}`")) || readme.contains(&format!("`nearhit {name}"));
        assert!(named, "README.md does not name the command {name}");
        count += 1;
    }
    assert!(count >= 12, "{help}");
}

mod run {
    //! Snippets, as a reader runs them.

    use std::ffi::OsString;
    use std::path::PathBuf;
    use std::process::{Command, Stdio};

    use super::{Snippet, snippets};
    use crate::support::{Home, Server, skip};
    #[cfg(feature = "bundled-model")]
    use {
        crate::support::{Upstream, variable},
        serde_json::Value,
    };

    #[tokio::test]
    async fn keys() {
        if !has("curl") {
            return skip("there is no curl");
        }
        let home = Home::new();
        let server = home.serve(&[]).await;
        check_lines("keys", &run(&home, Some(&server), "keys", sh).await);
        let refused = std::fs::read_to_string(home.path("refused.json")).expect("a body");
        assert!(refused.contains("invalid_api_key"), "{refused}");
    }

    #[cfg(feature = "bundled-model")]
    #[tokio::test]
    async fn first_hit() {
        if !has("curl") {
            return skip("there is no curl");
        }
        let home = Home::new();
        let server = home.serve(&[]).await;
        let printed = run(&home, Some(&server), "first hit", sh).await;
        let (shown, printed) = (last_json(&output("first hit")), last_json(&printed));
        assert!(is_alike(&shown, &printed), "README.md shows {shown}\nand it is {printed}");
    }

    #[cfg(feature = "bundled-model")]
    #[tokio::test]
    async fn proxy() {
        if !has("curl") {
            return skip("there is no curl");
        }
        let upstream = Upstream::saying("Open Settings, then Security.").await;
        let home = Home::new();
        let server = home.serve(&["--upstream", &upstream.base()]).await;
        check_lines("proxy, first call", &run(&home, Some(&server), "proxy, first call", sh).await);
        server.client(KEY).wait_for_entries(1).await;
        let Some(python) = variable("NEARHIT_PYTHON") else { return };
        let printed = run(&home, Some(&server), "python", |text| {
            let mut command = Command::new(python);
            command.args(["-c", text]);
            command
        });
        assert_eq!(printed.await.trim(), "hit semantic Open Settings, then Security.");
        assert_eq!(upstream.count(), 1, "the second call was served from the cache");
    }

    #[cfg(feature = "bundled-model")]
    #[tokio::test]
    async fn eval() {
        check_lines("eval", &run(&Home::new(), None, "eval", sh).await);
    }

    /// Runs a snippet in the home folder, the program on its path, and gives what it printed. Its calls to the default
    /// address go to the server.
    async fn run(home: &Home, server: Option<&Server>, name: &str, command: impl FnOnce(&str) -> Command) -> String {
        let Snippet { text, .. } = find("test", name);
        let text = server.map_or_else(|| text.clone(), |server| text.replace("http://127.0.0.1:8080", &server.url));
        let program = PathBuf::from(env!("CARGO_BIN_EXE_nearhit"));
        let mut path = OsString::from(program.parent().expect("a folder"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = command(&text);
        command.current_dir(home.path("")).env("PATH", path).env("OPENAI_API_KEY", KEY).stdin(Stdio::null());
        command.env("HOME", home.path("")).env("XDG_DATA_HOME", home.data()).env("NO_PROXY", "127.0.0.1");
        command.env("NEARHIT_DATA_DIR", home.data());
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.expect("no panic").expect("a program that starts");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name}: {printed}{}", String::from_utf8_lossy(&output.stderr));
        printed
    }

    fn sh(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-eu", "-c", text]);
        command
    }

    fn has(program: &str) -> bool {
        Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// Asserts that every line that the README shows was printed, in that order.
    #[track_caller]
    fn check_lines(name: &str, printed: &str) {
        let mut lines = printed.lines().map(str::trim_end);
        for shown in output(name).lines() {
            assert!(lines.any(|line| line == shown), "{name}: no line {shown:?} in\n{printed}");
        }
    }

    /// Equal, but for times, and the last digits of numbers.
    #[cfg(feature = "bundled-model")]
    fn is_alike(shown: &Value, printed: &Value) -> bool {
        match (shown, printed) {
            (Value::Object(shown), Value::Object(printed)) => {
                let is_time = |name: &str| ["ageMs", "expiresInMs"].contains(&name);
                let same = |(name, value): (&String, &Value)| {
                    printed.get(name).is_some_and(|other| is_time(name) || is_alike(value, other))
                };
                shown.len() == printed.len() && shown.iter().all(same)
            }
            (Value::Array(shown), Value::Array(printed)) => {
                shown.len() == printed.len() && shown.iter().zip(printed).all(|(a, b)| is_alike(a, b))
            }
            (Value::Number(a), Value::Number(b)) => {
                a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| (a - b).abs() < 1e-4)
            }
            (shown, printed) => shown == printed,
        }
    }

    fn output(name: &str) -> String {
        find("output", name).text
    }

    fn find(kind: &str, name: &str) -> Snippet {
        let found = snippets().into_iter().find(|snippet| snippet.kind == kind && snippet.name == name);
        found.unwrap_or_else(|| panic!("README.md has no {kind}: {name}"))
    }

    #[cfg(feature = "bundled-model")]
    fn last_json(text: &str) -> Value {
        let values = serde_json::Deserializer::from_str(text).into_iter();
        values.map(|value| value.unwrap_or_else(|error| panic!("{error}: {text}"))).last().expect("a JSON value")
    }

    /// What the README's reader has in OPENAI_API_KEY.
    const KEY: &str = "sk-test";
}

fn snippets() -> Vec<Snippet> {
    let readme = read("README.md");
    let mut lines = readme.lines();
    let (mut snippets, mut before) = (Vec::new(), "");
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let comment = before.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
            let (kind, name) = comment.and_then(|comment| comment.split_once(": ")).unwrap_or(("no comment", before));
            let text = lines.by_ref().take_while(|line| *line != "```").flat_map(|line| [line, "\n"]).collect();
            let (kind, name, language) = (kind.to_owned(), name.to_owned(), language.to_owned());
            snippets.push(Snippet { kind, name, language, text });
        }
        before = line;
    }
    snippets
}

/// The Rust files in a folder and below it, as paths from the package's root.
fn sources(folder: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for item in std::fs::read_dir(root().join(folder)).expect("a folder") {
        let item = item.expect("an item");
        let path = format!("{folder}/{}", item.file_name().to_str().expect("UTF-8"));
        if item.path().is_dir() {
            paths.extend(sources(&path));
        } else if path.ends_with(".rs") {
            paths.push(path);
        }
    }
    paths
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
