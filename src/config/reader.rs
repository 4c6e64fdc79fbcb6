//! Takes settings out of a table, and keeps everything that was wrong with them.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use http::Uri;
use toml::{Table, Value};

use super::{ConfigErrors, Override};
use crate::store::Limit;
use crate::wire::controls;

/// Takes known keys out of a table, and keeps what was wrong with them.
pub(super) struct Reader<'a> {
    pub(super) table: Table,
    pub(super) file: &'a str,
    /// Where a value came from, where that is not the file.
    pub(super) origins: HashMap<String, String>,
    pub(super) problems: Vec<String>,
    pub(super) has_judge_model: bool,
}

impl Reader<'_> {
    pub(super) fn overrule(&mut self, over: &Override) {
        // A flag is text; a number or a boolean in it means what it would mean in the file.
        let value = match over.value.as_str() {
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            text => Value::String(text.to_owned()),
        };
        let (section, key) = over.key.rsplit_once('.').unwrap_or(("", over.key));
        let table = match section {
            "" => Some(&mut self.table),
            section => self.table.entry(section).or_insert_with(|| Value::Table(Table::new())).as_table_mut(),
        };
        if let Some(table) = table {
            table.insert(key.to_owned(), value);
            self.origins.insert(over.key.to_owned(), over.origin.clone());
        }
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        let mut path: Vec<&str> = key.split('.').collect();
        let last = path.pop()?;
        let mut table = &mut self.table;
        for section in path {
            table = table.get_mut(section)?.as_table_mut()?;
        }
        table.remove(last)
    }

    pub(super) fn read<T>(&mut self, key: &str, expected: &str, parse: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let value = self.take(key)?;
        let parsed = parse(&value);
        if parsed.is_none() {
            self.problem(key, &format!("must be {expected}, got {value}"));
        }
        parsed
    }

    /// Whether a value stands there that was not taken yet.
    pub(super) fn has(&self, key: &str) -> bool {
        let (section, last) = key.rsplit_once('.').unwrap_or(("", key));
        let mut sections = section.split('.').filter(|section| !section.is_empty());
        let table = sections.try_fold(&self.table, |table, section| table.get(section)?.as_table());
        table.is_some_and(|table| table.contains_key(last))
    }

    pub(super) fn problem(&mut self, key: &str, problem: &str) {
        let place = self.origins.get(key).cloned().unwrap_or_else(|| format!("{}: {key}", self.file));
        self.problems.push(format!("{place}: {problem}"));
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.read(key, "a string that is not empty", |v| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned))
    }

    pub(super) fn limit(&mut self, entries: &str, bytes: &str) -> Limit {
        let mut most = |key: &str| self.read(key, "a whole number above 0", |v| whole(v).filter(|n| *n > 0));
        Limit { entries: most(entries).map(|n| n as u64), bytes: most(bytes).map(|n| n as u64) }
    }

    pub(super) fn flag(&mut self, key: &str) -> bool {
        self.read(key, "true or false", Value::as_bool).unwrap_or(false)
    }

    /// One of the words; the first is the default.
    pub(super) fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> T {
        self.word_or(key, words, words[0].1)
    }

    pub(super) fn word_or<T: Copy>(&mut self, key: &str, words: &[(&str, T)], default: T) -> T {
        let expected = words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(" or ");
        let find = |v: &Value| words.iter().find(|(word, _)| v.as_str() == Some(word)).map(|(_, value)| *value);
        self.read(key, &expected, find).unwrap_or(default)
    }

    /// One of the words, as it is; the first is the default.
    pub(super) fn one_of(&mut self, key: &str, words: &[&'static str]) -> String {
        let words: Vec<(&str, &str)> = words.iter().map(|word| (*word, *word)).collect();
        self.word(key, &words).to_owned()
    }

    pub(super) fn address(&mut self, key: &str, port: u16) -> SocketAddr {
        self.read(key, "an address and port such as 127.0.0.1:8080", |v| v.as_str()?.parse().ok())
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    pub(super) fn url(&mut self, key: &str, default: &'static str) -> Uri {
        let parse = |v: &Value| {
            let uri: Uri = v.as_str()?.parse().ok()?;
            let usable = matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.authority().is_some()
                && uri.query().is_none();
            usable.then_some(uri)
        };
        self.read(key, "an http or https URL without a query", parse).unwrap_or_else(|| Uri::from_static(default))
    }

    pub(super) fn size(&mut self, key: &str, default: usize) -> usize {
        self.read(key, "a whole number above 0", |v| whole(v).filter(|n| *n > 0)).unwrap_or(default)
    }

    pub(super) fn seconds(&mut self, key: &str, default: u64) -> Duration {
        self.seconds_or(key, Duration::from_secs(default))
    }

    pub(super) fn seconds_or(&mut self, key: &str, default: Duration) -> Duration {
        let parsed =
            self.read(key, "a number of seconds above 0 and at most 10 years", |v| controls::seconds(number(v)));
        parsed.unwrap_or(default)
    }

    pub(super) fn milliseconds(&mut self, key: &str, default: u64) -> Duration {
        let parse =
            |v: &Value| whole(v).filter(|ms| (1..=3_600_000).contains(ms)).map(|ms| Duration::from_millis(ms as u64));
        self.read(key, "a whole number of milliseconds from 1 to 3600000", parse)
            .unwrap_or(Duration::from_millis(default))
    }

    pub(super) fn names(&mut self, key: &str) -> Vec<String> {
        let table = key.split('.').try_fold(&self.table, |table, section| table.get(section)?.as_table());
        table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
    }

    /// Whatever was not taken is not known.
    pub(super) fn refuse_unknown(&mut self) {
        let mut unknown = BTreeMap::new();
        leaves("", &self.table, &mut unknown);
        for (key, value) in unknown {
            // Whoever reads the problem need not be who may read the file.
            let is_secret = SECRET_WORDS.iter().any(|word| key.to_ascii_lowercase().contains(word));
            let shown = if is_secret { "not shown" } else { &value };
            self.problem(&key, &format!("is not a known key (its value is {shown})"));
        }
    }
}

/// In names of keys whose values are nobody's business.
const SECRET_WORDS: [&str; 4] = ["key", "secret", "token", "password"];

/// What is wrong with a file that is no TOML, and where; not what stands there.
pub(super) fn broken(file: &str, text: &str, error: &toml::de::Error) -> ConfigErrors {
    let line = error.span().and_then(|span| Some(text.get(..span.start)?.matches('\n').count() + 1));
    let place = line.map_or_else(String::new, |line| format!(" at line {line}"));
    ConfigErrors(vec![format!("{file}: TOML parse error{place}: {}", error.message())])
}

/// The values of a table and of those in it, by their keys.
pub(super) fn leaves(prefix: &str, table: &Table, into: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        match value {
            Value::Table(inner) => leaves(&format!("{prefix}{key}."), inner, into),
            other => drop(into.insert(format!("{prefix}{key}"), other.to_string())),
        }
    }
}

pub(super) fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|n| n as f64))
}

pub(super) fn whole(value: &Value) -> Option<usize> {
    usize::try_from(value.as_integer()?).ok()
}
