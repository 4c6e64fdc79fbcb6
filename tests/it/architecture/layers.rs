//! Which file may import which: every path that names a module of this crate, against a table of layers.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, is_name_byte, words};

/// A module (`a::*` is a folder with everything in it), its layer, and its group. A file imports from lower layers and
/// from its own group. Every file has a row; the table is the one of ARCHITECTURE.md.
const LAYERS: &[(&str, u8, &str)] = &[
    ("", 8, "lib"),
    ("main", 8, "main"),
    ("cli::*", 7, "root"),
    ("config::*", 7, "root"),
    ("embed::open", 7, "root"),
    ("store::open", 7, "root"),
    ("server::*", 6, "server"),
    ("layer::*", 5, "layer"),
    ("record", 5, "layer"),
    ("flight::*", 5, "layer"),
    ("replay", 5, "layer"),
    ("stamp", 5, "layer"),
    ("compare", 5, "layer"),
    ("cache::*", 4, "path"),
    ("contain", 4, "path"),
    ("renew", 4, "path"),
    ("rules", 4, "path"),
    ("tally", 4, "path"),
    ("templates::*", 4, "path"),
    ("walk", 4, "path"),
    ("embed::candle::*", 4, "candle"),
    ("embed::model", 4, "candle"),
    ("store::local::*", 4, "local"),
    ("store::memory", 4, "memory"),
    ("upstream::*", 4, "upstream"),
    ("savings::*", 4, "savings"),
    ("body::*", 3, "body"),
    ("clock", 3, "clock"),
    ("embed", 3, "embed"),
    ("judge", 3, "judge"),
    ("metrics::*", 3, "metrics"),
    ("room", 3, "body"),
    ("route", 3, "route"),
    ("store", 3, "store"),
    ("store::eviction", 3, "store"),
    ("wire::*", 2, "wire"),
    ("decision::*", 1, "decision"),
];

/// Groups that know no provider's format: what they keep and find would be the same for any.
const WITHOUT_WIRE: &[&str] = &["candle", "local", "memory", "path"];

/// Words that the pure layers do without: IO, clocks, threads, async, logs.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant",
    "async",
    "tokio",
    "tracing",
];

#[test]
fn files_import_from_lower_layers_only() {
    let violations = violations(&Source::all());
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn the_pure_layers_touch_nothing_outside() {
    let impurities = impurities(&Source::all());
    assert!(impurities.is_empty(), "\n{}", impurities.join("\n"));
}

#[test]
fn planted_imports_are_found() {
    #[track_caller]
    fn check(path: &str, text: &str, expected: &[&str]) {
        let mut files: Vec<Source> = [
            "src/cache.rs",
            "src/layer.rs",
            "src/store/local/mod.rs",
            "src/store/memory.rs",
            "src/embed/candle/mod.rs",
        ]
        .into_iter()
        .chain(["src/wire/mod.rs", "src/wire/chat.rs", "src/clock.rs", "src/server/mod.rs", "src/config.rs"])
        .filter(|other| *other != path)
        .map(|path| Source::new(path, ""))
        .collect();
        if path != "src/store/mod.rs" {
            files.push(Source::new("src/store/mod.rs", "mod open;\npub use open::{open, StoreSettings};"));
        }
        files.push(Source::new("src/store/open.rs", "pub struct StoreSettings;\npub fn open() {}"));
        files.push(Source::new(path, text));
        let found = violations(&files);
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, expected, "{path}: {text}");
    }
    check("src/cache.rs", "use crate::clock::Clock;\nuse crate::store::Store;", &[]);
    check("src/cache.rs", "use crate::layer::X;", &["src/cache.rs (layer 4) imports layer (layer 5)"]);
    check(
        "src/cache.rs",
        "use crate::{clock::Clock, store::{Store, local::LocalStore}};",
        &["src/cache.rs (layer 4) imports store::local (another part of layer 4)"],
    );
    check("src/cache.rs", "fn f() { crate::server::g() }", &["src/cache.rs (layer 4) imports server (layer 6)"]);
    check(
        "src/cache.rs",
        "use crate::store::StoreSettings;",
        &["src/cache.rs (layer 4) imports store::open (layer 7)"],
    );
    let format = "src/cache.rs imports wire::chat, which is a provider's format";
    check("src/cache.rs", "use crate::wire::chat::ChatRequest;", &[format]);
    check("src/store/memory.rs", "use super::Store;\nuse super::super::clock::Clock;", &[]);
    check(
        "src/store/memory.rs",
        "use super::local::X;\nuse crate::embed::candle::Y;",
        &[
            "src/store/memory.rs (layer 4) imports embed::candle (another part of layer 4)",
            "src/store/memory.rs (layer 4) imports store::local (another part of layer 4)",
        ],
    );
    check(
        "src/decision/new.rs",
        "use crate::wire::chat::X;",
        &["src/decision/new.rs (layer 1) imports wire::chat (layer 2)"],
    );
    check("src/decision/new.rs", "#[cfg(test)]\nmod tests { use crate::server::X; }\n// crate::server::Y\n", &[]);
    check("src/server/new.rs", "use crate::config::X;", &["src/server/new.rs (layer 6) imports config (layer 7)"]);
    check("src/wire/chat.rs", "pub(in super::super) fn f() {}\nuse super::X;", &[]);
    check("src/store/redis.rs", "", &["src/store/redis.rs has no layer: give it a row in the table"]);

    let impure = |text: &str| impurities(&[Source::new("src/decision/new.rs", text)]).len();
    assert_eq!(impure("use std::collections::BTreeMap;\nstruct InstantNoodles;"), 0);
    assert_eq!(impure("use std::fs::File;"), 1);
    assert_eq!(impure("use std::{fmt, fs::File};"), 1);
    assert_eq!(impure("use std::time::SystemTime;\nasync fn f() {}"), 2);
    assert_eq!(impure("fn f() { tracing::info!() }"), 1);
}

/// Every import that the table forbids, as sentences in order.
fn violations(sources: &[Source]) -> Vec<String> {
    let sources: Vec<&Source> = sources.iter().filter(|source| !source.is_test).collect();
    let modules: BTreeSet<String> = sources.iter().map(|source| source.module()).collect();
    let faces: Vec<Import> = sources.iter().flat_map(|source| imports(source, &modules)).collect();
    let reexports: BTreeMap<(String, String), String> = faces
        .iter()
        .filter(|import| import.is_face)
        .map(|import| ((import.from.clone(), import.item.clone()), import.module.clone()))
        .collect();
    let mut found = BTreeSet::new();
    for source in sources {
        let Some((level, group)) = layer(&source.module()) else {
            found.insert(format!("{} has no layer: give it a row in the table", source.path));
            continue;
        };
        for import in imports(source, &modules).into_iter().filter(|import| !import.is_face) {
            // What a module's face shows lives where the face has it from.
            let mut target = (import.module, import.item);
            while let Some(behind) = reexports.get(&target) {
                target.0.clone_from(behind);
            }
            let Some((other_level, other_group)) = layer(&target.0) else { continue };
            if other_group == "wire" && WITHOUT_WIRE.contains(&group) {
                found.insert(format!("{} imports {}, which is a provider's format", source.path, target.0));
            }
            if other_level > level || other_level == level && other_group != group {
                let which = if other_level == level { "another part of layer" } else { "layer" };
                let (path, module) = (&source.path, &target.0);
                found.insert(format!("{path} (layer {level}) imports {module} ({which} {other_level})"));
            }
        }
    }
    found.into_iter().collect()
}

fn layer(module: &str) -> Option<(u8, &'static str)> {
    let covers = |row: &str| match row.strip_suffix("::*") {
        Some(folder) => module == folder || module.strip_prefix(folder).is_some_and(|rest| rest.starts_with("::")),
        None => module == row,
    };
    LAYERS.iter().find(|(row, ..)| covers(row)).map(|(_, level, group)| (*level, *group))
}

fn impurities(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| layer(&source.module()).is_some_and(|(level, _)| level <= 2)) {
        let trees = use_trees(&source.code).into_iter().map(|(_, _, path)| path);
        let std_paths: Vec<String> = trees.filter(|path| path.starts_with("std::")).collect();
        for word in IMPURE {
            let in_use = std_paths.iter().any(|path| path.starts_with(&format!("{word}::")) || path == word);
            match source.words(word).next() {
                Some(at) => found.push(format!("{}: {word}", source.line(at))),
                None if in_use => found.push(format!("{}: {word}", source.path)),
                None => {}
            }
        }
    }
    found
}

/// One name that a file takes from a module of the crate.
struct Import {
    /// The module that imports.
    from: String,
    /// The module that is imported from.
    module: String,
    /// What is taken from it; empty for the module itself.
    item: String,
    /// A `pub use` of something in the importing module's own folder: it is shown, not used.
    is_face: bool,
}

fn imports(source: &Source, modules: &BTreeSet<String>) -> Vec<Import> {
    let from = source.module();
    let mut rest = source.code.clone();
    let mut imports = Vec::new();
    for (place, is_pub, path) in use_trees(&source.code) {
        rest.replace_range(place.clone(), &" ".repeat(place.len()));
        let first = path.split("::").next().unwrap_or_default();
        let is_child = modules.contains(&join(&from, first)) && !from.is_empty();
        let path = if is_child { format!("self::{path}") } else { path };
        if let Some((module, item)) = absolute(&from, &path).map(|path| split(&path, modules)) {
            let is_face = is_pub && module.strip_prefix(&from).is_some_and(|rest| rest.starts_with("::"));
            imports.push(Import { from: from.clone(), module, item, is_face });
        }
    }
    for root in ["crate", "self", "super"] {
        for at in words(&rest, root) {
            let is_start = !rest[..at].ends_with("::") && !rest[..at].ends_with("in ") && !rest[..at].ends_with('$');
            let name = |b: u8| is_name_byte(b) || b == b':';
            let length = rest[at..].bytes().take_while(|b| name(*b)).count();
            let path = rest[at..at + length].trim_end_matches(':');
            if is_start
                && path.contains("::")
                && let Some(path) = absolute(&from, path)
            {
                let (module, item) = split(&path, modules);
                imports.push(Import { from: from.clone(), module, item, is_face: false });
            }
        }
    }
    imports
}

/// A path from the crate's root, where `path` is one of this crate's: `super::x` in `a::b` is `a::x`.
fn absolute(from: &str, path: &str) -> Option<String> {
    let mut base: Vec<&str> = from.split("::").filter(|name| !name.is_empty()).collect();
    let mut names = path.split("::").peekable();
    match names.next()? {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            base.pop();
            while names.next_if_eq(&"super").is_some() {
                base.pop();
            }
        }
        _ => return None,
    }
    base.extend(names);
    Some(base.join("::"))
}

/// The longest known module at the start of a path, and the name after it.
fn split(path: &str, modules: &BTreeSet<String>) -> (String, String) {
    let names: Vec<&str> = path.split("::").collect();
    let known = (0..=names.len()).rev().find(|n| modules.contains(&names[..*n].join("::"))).unwrap_or(0);
    (names[..known].join("::"), names.get(known).copied().unwrap_or_default().to_owned())
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

/// Every path of every `use`, braces spread out: its place, whether it is public, and the path.
fn use_trees(code: &str) -> Vec<(std::ops::Range<usize>, bool, String)> {
    let mut trees = Vec::new();
    for at in words(code, "use") {
        let Some(length) = code[at..].find(';') else { continue };
        let before = code[..at].trim_end();
        let is_statement = before.is_empty() || before.ends_with([';', '}', '{', ']', ')']) || before.ends_with("pub");
        if is_statement {
            let is_pub = before.ends_with("pub") || before.ends_with(')') && before.contains("pub(");
            let tree: String = code[at + 3..at + length].split_whitespace().collect::<Vec<_>>().join(" ");
            spread("", &tree, &mut |path| trees.push((at..at + length, is_pub, path)));
        }
    }
    trees
}

fn spread(prefix: &str, tree: &str, take: &mut impl FnMut(String)) {
    let tree = tree.trim();
    let Some((start, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        let path = format!("{prefix}{path}");
        return take(path.trim_end_matches("::self").trim_end_matches("::*").to_owned());
    };
    let inside = rest.trim_end().strip_suffix('}').expect("braces close at the end");
    let (mut depth, mut from) = (0, 0);
    for (at, b) in inside.bytes().chain([b',']).enumerate() {
        depth += i32::from(b == b'{') - i32::from(b == b'}');
        if b == b',' && depth == 0 {
            if !inside[from..at].trim().is_empty() {
                spread(&format!("{prefix}{}", start.trim()), &inside[from..at], take);
            }
            from = at + 1;
        }
    }
}
