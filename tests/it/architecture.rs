//! The house rules that the compiler does not know, held over every file of `src/`. ARCHITECTURE.md gives the reasons.

mod layers;
mod source;

use std::process::Command;

use self::source::{Source, is_name_byte, words};

#[test]
fn names_say_what_a_thing_is() {
    let mut found = Vec::new();
    for source in Source::all() {
        found.extend(bad_names(&source));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));

    let check = |path: &str, text: &str, count: usize| {
        assert_eq!(bad_names(&Source::new(path, text)).len(), count, "{path}: {text}")
    };
    check("src/cache.rs", "struct Cache; fn get() {} fn handles() {} fn database() {}", 0);
    check("src/utils.rs", "", 1);
    check("src/common/mod.rs", "", 1);
    check("src/cache_manager.rs", "", 1);
    check("src/cache.rs", "pub(crate) struct CacheManager<T>(T);", 1);
    check("src/cache.rs", "trait Base {} enum IoHelper {} mod imp {} mod r#impl {}", 4);
    check("src/cache.rs", "fn handle_request() {} async fn get_entry() {} fn do_it() {}", 3);
}

#[test]
fn files_keep_the_rules_of_the_house() {
    let mut found = Vec::new();
    for source in Source::all() {
        found.extend(broken_rules(&source));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));

    let check = |text: &str, count: usize| {
        let text = format!("//! A file.\n{text}");
        assert_eq!(broken_rules(&Source::new("src/cache.rs", &text)).len(), count, "{text}")
    };
    check("fn f() { g()? }", 0);
    check("fn f() { g().unwrap() }", 1);
    check("fn f() { g().unwrap_or(1); \".unwrap()\"; } // .unwrap()", 0);
    check("#[cfg(test)]\nmod tests { fn f() { g().unwrap() } }", 0);
    check("fn f() { g().expect(\"it is there\") }", 1);
    check("#[expect(clippy::expect_used, reason = \"r\")]\nfn f() { g().expect(\"it is there\") }", 0);
    check("#[expect(clippy::expect_used, reason = \"r\")]\nfn f() { g().expect(\"\") }", 1);
    check("fn f() { let _ = g(); }", 1);
    check("static X: u8 = 1;", 1);
    check("#[global_allocator]\nstatic ALLOCATOR: MiMalloc = MiMalloc;", 0);
    check("fn f() { todo!() }", 1);
    check("// TODO", 1);
    check("#[cfg(test)]\nmod tests { #[test]\n#[ignore]\nfn f() {} }", 1);
    check("fn f() { std::env::var(\"X\") }", 1);
    check("fn f() { unsafe { g() } }", 1);
    check("#[allow(dead_code)]\nfn f() {}", 1);
    check("static X: u8 = 1; const Y: &'static str = \"\";", 1);
    assert_eq!(broken_rules(&Source::new("src/x.rs", "fn f() {}")).len(), 1, "no module doc");
}

/// A file is one idea. A longer one must be split, or this number argued with.
#[test]
fn files_are_short() {
    let sources = Source::all();
    let mut lengths: Vec<(usize, &str)> = sources.iter().map(|s| (s.text.lines().count(), s.path.as_str())).collect();
    lengths.sort_unstable();
    let (median, p90) = (lengths[lengths.len() / 2].0, lengths[lengths.len() * 9 / 10].0);
    let (longest, path) = lengths[lengths.len() - 1];
    println!("{} files: median {median} lines, p90 {p90}, longest {longest} ({path})", lengths.len());
    assert!(longest <= LINES_MAX, "{path} has {longest} lines");
}

/// What a gateway builds, and what the light set builds, by asking cargo.
#[test]
fn small_builds_stay_small() {
    let heavy = ["axum", "clap", "hnsw_rs", "hyper", "rustls", "sled", "tokenizers", "tonic"];
    let gateway = dependencies(&["--no-default-features"]);
    // What decision, cache and layer stand on: the list is not empty by mistake.
    for needed in ["nearhit", "blake3", "serde_json", "tokio", "tower-layer", "tower-service", "http-body"] {
        assert!(gateway.iter().any(|name| name == needed), "the gateway set lacks {needed}: {gateway:?}");
    }
    let in_gateway = |name: &&String| heavy.contains(&name.as_str()) || name.starts_with("candle");
    assert_eq!(gateway.iter().filter(in_gateway).collect::<Vec<_>>(), [""; 0], "in the gateway set");

    let light = dependencies(&["--no-default-features", "--features", "light"]);
    assert!(["axum", "sled", "hnsw_rs"].iter().all(|needed| light.iter().any(|name| name == needed)), "{light:?}");
    let in_light = |name: &&String| *name == "tokenizers" || *name == "hf-hub" || name.starts_with("candle");
    assert_eq!(light.iter().filter(in_light).collect::<Vec<_>>(), [""; 0], "in the light set");
}

/// Names of the crates that a build with these features needs, this one first.
fn dependencies(features: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

fn bad_names(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let stem = source.path.trim_end_matches(".rs");
    if stem.split(['/', '_']).any(|word| EMPTY_WORDS.contains(&word)) {
        found.push(format!("{}: the file's name says nothing", source.path));
    }
    for keyword in ["struct", "enum", "trait", "type", "mod", "fn"] {
        for at in source.words(keyword) {
            let rest = source.code[at + keyword.len()..].trim_start().trim_start_matches("r#");
            let name: String = rest.chars().take_while(|c| is_name_byte(*c as u8) && c.is_ascii()).collect();
            let says_nothing = split_name(&name).iter().any(|word| EMPTY_WORDS.contains(&word.as_str()));
            let begins_badly = keyword == "fn" && EMPTY_VERBS.iter().any(|verb| name.starts_with(verb));
            if says_nothing || begins_badly {
                found.push(format!("{}: {keyword} {name}", source.line(at)));
            }
        }
    }
    found
}

/// The words of a name in either case, in lower case.
fn split_name(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_ascii_uppercase() {
            words.push(String::new());
        }
        if c != '_'
            && let Some(word) = words.last_mut()
        {
            word.push(c.to_ascii_lowercase());
        }
    }
    words
}

fn broken_rules(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut broken = |at: usize, rule: &str| found.push(format!("{}: {rule}", source.line(at)));
    if !source.is_test && !source.text.starts_with("//! ") {
        broken(0, "a file opens with what it is for: //!");
    }
    for word in ["TODO", "FIXME", "XXX"] {
        words(&source.text, word).for_each(|at| broken(at, word));
    }
    if !WITH_UNSAFE.contains(&source.path.as_str()) {
        words(&source.bare, "unsafe").for_each(|at| broken(at, "unsafe"));
    } else if source.text.matches("SAFETY").count() < source.code.matches("unsafe {").count() {
        broken(0, "an unsafe block without its SAFETY sentence");
    }
    source.bare.match_indices("#[ignore").for_each(|(at, _)| broken(at, "an ignored test"));
    if source.is_test {
        return found;
    }
    for (at, _) in source.code.match_indices(".unwrap()") {
        broken(at, "unwrap");
    }
    let is_proven = source.code.contains("#[expect(clippy::expect_used, reason = \"");
    for (at, call) in source.code.match_indices(".expect(") {
        let reason = source.text[at + call.len()..].trim_start();
        if !is_proven || !reason.starts_with('"') || reason.starts_with("\"\"") {
            broken(at, "expect without a proof");
        }
    }
    for word in ["let _ =", "let _:", "#[allow(", "#![allow(", "std::env"] {
        let may = word == "std::env" && (source.path.starts_with("src/cli/") || source.path == "src/config.rs");
        source.code.match_indices(word).filter(|_| !may).for_each(|(at, _)| broken(at, word));
    }
    for word in ["todo", "unimplemented", "unreachable", "panic", "dbg"] {
        let called = source.words(word).filter(|at| source.code[at + word.len()..].starts_with('!'));
        called.for_each(|at| broken(at, word));
    }
    let items = source.words("static").filter(|at| !source.code[..*at].ends_with('\''));
    let items = items.filter(|at| !source.code[..*at].trim_end().ends_with("#[global_allocator]"));
    items.for_each(|at| broken(at, "a static"));
    found
}

/// Files whose speed was measured to need it; each says of every block why it is sound.
const WITH_UNSAFE: &[&str] = &[
    "src/embed/candle/fused/amx.rs",
    "src/embed/candle/fused/attention.rs",
    "src/embed/candle/fused/avx2.rs",
    "src/embed/candle/fused/avx512.rs",
    "src/embed/candle/fused/kernels.rs",
    "src/embed/candle/fused/lanes.rs",
    "src/embed/candle/fused/neon.rs",
    "src/embed/candle/fused/portable.rs",
    "src/embed/candle/fused/product.rs",
    "src/embed/candle/fused/rows.rs",
    "src/embed/candle/fused/system.rs",
    "src/store/local/kernel.rs",
    "src/store/local/vectors.rs",
];

/// Words that a name gets when nobody knew what the thing was.
const EMPTY_WORDS: &[&str] = &["manager", "helper", "helpers", "util", "utils", "common", "base", "impl", "imp"];

/// Verbs that say nothing. A bare `get` is fine.
const EMPTY_VERBS: &[&str] = &["handle_", "do_", "get_"];

/// Lines of a file of `src/`.
const LINES_MAX: usize = 600;
