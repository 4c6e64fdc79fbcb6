//! Rust files as the architecture tests see them: without comments, without what strings say, without tests.
//!
//! It is no parser: it knows as much of the language as finding words and paths takes.

use std::path::Path;

/// A file of `src/`.
pub(super) struct Source {
    /// From the package's root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    /// The text with comments and the insides of strings blanked, byte by byte: places stay the same.
    pub(super) bare: String,
    /// The same, with `#[cfg(test)]` items blanked too.
    pub(super) code: String,
    /// Whether the whole file is compiled for tests only.
    pub(super) is_test: bool,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let bare = blanked(text);
        let code = without_tests(&bare);
        Self { path: path.to_owned(), text: text.to_owned(), bare, code, is_test: false }
    }

    /// Every file of the package's `src/`, by path.
    pub(super) fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut sources = Vec::new();
        collect(root, &root.join("src"), &mut sources);
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(sources.len() > 30, "only {} files in src", sources.len());
        let tests: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
        for source in &mut sources {
            source.is_test = tests.contains(&source.module());
        }
        sources
    }

    /// The files that are modules of this one under `#[cfg(test)]`.
    fn test_modules(&self) -> Vec<String> {
        let items = self.bare.split("#[cfg(test)]").skip(1);
        let names = items.filter_map(|item| item.trim_start().strip_prefix("mod ")?.split_once(';'));
        let names = names.map(|(name, _)| name).filter(|name| name.bytes().all(is_name_byte));
        names.map(|name| format!("{}::{name}", self.module())).collect()
    }

    /// The file's module as a path from the crate's root: `store::local`; empty for `lib.rs`.
    pub(super) fn module(&self) -> String {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        if path == "lib" { String::new() } else { path.trim_end_matches("/mod").replace('/', "::") }
    }

    /// The places of a word in the code that is not test code.
    pub(super) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        words(&self.code, word)
    }

    /// The place as `path:line`.
    pub(super) fn line(&self, at: usize) -> String {
        format!("{}:{}", self.path, 1 + self.text[..at].matches('\n').count())
    }
}

/// The places where `word` stands alone, not as a part of a longer name.
pub(super) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_name = |b: Option<&u8>| b.is_some_and(|b| is_name_byte(*b));
    let bytes = text.as_bytes();
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| !(is_name(at.checked_sub(1).map(|i| &bytes[i])) || is_name(bytes.get(at + word.len()))))
}

pub(super) fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

fn collect(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    for item in std::fs::read_dir(folder).expect("a folder") {
        let path = item.expect("an item").path();
        if path.is_dir() {
            collect(root, &path, sources);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root).expect("below the root").to_str().expect("UTF-8").replace('\\', "/");
            sources.push(Source::new(&name, &std::fs::read_to_string(&path).expect("UTF-8")));
        }
    }
}

/// Comments, and what stands in string and character literals, as spaces.
fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let blank = |out: &mut [u8], from: usize, to: usize| {
        out[from..to].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
    };
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let end = if rest.starts_with("//") {
            at + rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            at + block_comment(rest)
        } else if let Some(hashes) = raw_string(bytes, at) {
            let (open, close) = (rest.find('"').expect("a quote") + 1, format!("\"{}", "#".repeat(hashes)));
            let length = rest[open..].find(&close).expect("the string ends");
            blank(&mut out, at + open, at + open + length);
            at += open + length + close.len();
            continue;
        } else if bytes[at] == b'"' {
            let length = literal(&rest[1..], '"');
            blank(&mut out, at + 1, at + 1 + length);
            at += length + 2;
            continue;
        } else if bytes[at] == b'\'' && is_character(&rest[1..]) {
            let length = literal(&rest[1..], '\'');
            blank(&mut out, at + 1, at + 1 + length);
            at += length + 2;
            continue;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        };
        blank(&mut out, at, end);
        at = end;
    }
    String::from_utf8(out).expect("whole characters were blanked")
}

/// The length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        let (open, close) = (text[at..].find("/*"), text[at..].find("*/").expect("the comment ends"));
        if let Some(open) = open.filter(|open| *open < close) {
            (depth, at) = (depth + 1, at + open + 2);
        } else {
            (depth, at) = (depth - 1, at + close + 2);
        }
        if depth == 0 {
            return at;
        }
    }
}

/// How many `#` the raw string has that begins here, if one does.
fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes[at] != b'r' || at > 0 && is_name_byte(bytes[at - 1]) && bytes[at - 1] != b'b' {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
    (bytes.get(at + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

/// The length of a literal's inside, up to `end`.
fn literal(text: &str, end: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (escaped, c) {
            (true, _) => escaped = false,
            (false, '\\') => escaped = true,
            (false, c) if c == end => return at,
            (false, _) => {}
        }
    }
    panic!("a literal does not end: {text:.40}")
}

/// Whether a quote begins a character; else it begins a lifetime.
fn is_character(rest: &str) -> bool {
    rest.starts_with('\\') || rest.chars().nth(1) == Some('\'')
}

/// Items under `#[cfg(test)]` as spaces.
fn without_tests(bare: &str) -> String {
    let mut out = bare.as_bytes().to_vec();
    for (at, attribute) in bare.match_indices("#[cfg(test)]") {
        let item = &bare[at + attribute.len()..];
        let length = match (item.find('{'), item.find(';')) {
            (Some(brace), semicolon) if semicolon.is_none_or(|s| brace < s) => brace + block(&item[brace..]),
            (_, semicolon) => semicolon.expect("an item") + 1,
        };
        let end = at + attribute.len() + length;
        out[at..end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
    }
    String::from_utf8(out).expect("whole characters were blanked")
}

/// The length of a block in braces.
fn block(text: &str) -> usize {
    let mut depth = 0;
    for (at, b) in text.bytes().enumerate() {
        depth += i32::from(b == b'{') - i32::from(b == b'}');
        if depth == 0 {
            return at + 1;
        }
    }
    panic!("a block does not end")
}

#[test]
fn what_is_not_code_is_blanked() {
    #[track_caller]
    fn check(text: &str, bare: &str) {
        assert_eq!(blanked(text), bare);
        assert_eq!(text.len(), bare.len());
    }
    check("a // b\nc", "a     \nc");
    check("a /* b /* c */ d */ e", "a                   e");
    check(r#"f("a \" b", 'x', '\'', '"')"#, r#"f("      ", ' ', '  ', ' ')"#);
    check(r##"f(r#"a " b"#, br"c", r"")"##, r##"f(r#"     "#, br" ", r"")"##);
    check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
    check("'é' 'a", "'  ' 'a");
    let source = Source::new("src/x.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n fn g() { h() }\n}\nfn i() {}");
    assert_eq!(source.code.split_whitespace().collect::<Vec<_>>(), ["fn", "f()", "{}", "fn", "i()", "{}"]);
    assert_eq!(source.line(source.words("i").next().expect("a word")), "src/x.rs:6");
}
