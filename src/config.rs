//! The operator's settings: a TOML file, overruled by flags, checked as a whole.
//!
//! Parsing finds every problem at once, each named by where it stands and the value that stands there. A key that is
//! not known is a problem: a misspelt limit would otherwise be no limit.

mod access;
mod embed;
mod judge;
mod upstreams;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use toml::{Table, Value};

pub use self::access::AccessConfig;
pub use self::embed::{EmbedConfig, EmbedModel};
use crate::cache::CacheSettings;
use crate::decision::budget::Budget;
use crate::decision::{CacheName, ContextRule, Judge, Perishable, Policy, Role, Similarity};
use crate::replay::Pace;
use crate::rules::{CacheRules, TurnReader};
use crate::server::{ServeSettings, Tenancy};
use crate::store::{Durability, Limit, Limits, StoreSettings};
use crate::templates::TemplateSettings;
use crate::upstream::UpstreamSettings;
use crate::upstream::judge::JudgeSettings;
use crate::wire::{controls, request};

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub tenancy: Tenancy,
    pub access: AccessConfig,
    pub serve: ServeSettings,
    pub upstream: UpstreamSettings,
    pub store: StoreSettings,
    pub embed: EmbedConfig,
    pub cache: CacheSettings,
    /// The model that judges answers, where one is named.
    pub judge: Option<JudgeSettings>,
    pub answer_bytes_max: usize,
    pub temperature_max: Option<f64>,
    /// Whether identical misses share one call upstream.
    pub coalesce: bool,
    /// Whether misses that are near in meaning wait for the answer to the first of them.
    pub coalesce_semantic: bool,
    pub replay: Pace,
}

/// A setting from outside the file, which it overrules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// Its key in the file.
    pub key: &'static str,
    /// What the operator wrote, for messages: `--listen`.
    pub origin: String,
    pub value: String,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

impl Config {
    /// `text` is the file's, `file` its name for messages, `default_data_dir` the platform's choice.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(
        file: &str,
        text: &str,
        overrides: &[Override],
        default_data_dir: PathBuf,
    ) -> Result<Self, ConfigErrors> {
        let table: Table = text.parse().map_err(|error| ConfigErrors(vec![format!("{file}: {error}")]))?;
        let mut reader = Reader { table, file, origins: HashMap::new(), problems: Vec::new(), has_judge_model: false };
        for over in overrides {
            reader.overrule(over);
        }
        let config = Self::read(&mut reader, default_data_dir);
        reader.refuse_unknown();
        if reader.problems.is_empty() { Ok(config) } else { Err(ConfigErrors(reader.problems)) }
    }

    fn read(from: &mut Reader<'_>, default_data_dir: PathBuf) -> Self {
        let data_dir = from.text("data_dir").map_or(default_data_dir, PathBuf::from);
        let judge = from.judge_model();
        from.has_judge_model = judge.is_some();
        let serve = ServeSettings {
            listen: from.address("serve.listen", 8080),
            admin_listen: from.address("serve.admin_listen", 8081),
            insecure: from.flag("serve.insecure"),
            strict: from.flag("serve.strict"),
            body_bytes_max: from.size("serve.body_bytes_max", 32 << 20),
            drain: from.seconds("serve.drain_s", 120),
        };
        let tenancy = from.word("tenancy", &[("per-key", Tenancy::PerKey), ("single", Tenancy::Single)]);
        Self {
            judge,
            tenancy,
            access: AccessConfig::read(from, tenancy),
            upstream: upstreams::read(from, serve.body_bytes_max),
            serve,
            store: Self::read_store(from, data_dir.join("entries")),
            embed: EmbedConfig::read(from),
            answer_bytes_max: from.size("cache.answer_bytes_max", 1 << 20),
            temperature_max: from.read("cache.temperature_max", "a number of at least 0", |v| {
                number(v).filter(|t| t.is_finite() && *t >= 0.0)
            }),
            coalesce: from.read("cache.coalesce", "true or false", Value::as_bool).unwrap_or(true),
            coalesce_semantic: from.flag("cache.coalesce_semantic"),
            replay: from.read("cache.replay", PACE, pace).unwrap_or_default(),
            cache: Self::read_cache(from),
            data_dir,
        }
    }

    fn read_store(from: &mut Reader<'_>, folder: PathBuf) -> StoreSettings {
        let words = [("group", Durability::Group), ("each", Durability::Each), ("async", Durability::Async)];
        let durability = from.word("store.durability", &words);
        let limits = Self::read_limits(from);
        match from.word("store.kind", &[("local", true), ("memory", false)]) {
            true => StoreSettings::Local { folder, durability, limits },
            false => StoreSettings::Memory,
        }
    }

    fn read_limits(from: &mut Reader<'_>) -> Limits {
        let total = from.limit("store.entries_max", "store.bytes_max");
        let each = from.limit("store.cache_entries_max", "store.cache_bytes_max");
        let mut caches = HashMap::new();
        for name in from.names("caches") {
            let own = from.limit(&format!("caches.{name}.entries_max"), &format!("caches.{name}.bytes_max"));
            // A bad name is reported where the cache's other settings are read.
            if let Ok(name) = CacheName::parse(&name)
                && own != Limit::default()
            {
                let (entries, bytes) = (own.entries.or(each.entries), own.bytes.or(each.bytes));
                caches.insert(name, Limit { entries, bytes });
            }
        }
        Limits { total, each, caches }
    }

    fn read_cache(from: &mut Reader<'_>) -> CacheSettings {
        let policy = from.policy("cache", Policy::default());
        let ttl = from
            .read("cache.ttl_s", "a number of seconds above 0 and at most 10 years", |v| controls::seconds(number(v)));
        let rules = from.rules("cache", CacheRules::default());
        let (mut policies, mut own_rules) = (HashMap::new(), HashMap::new());
        for name in from.names("caches") {
            let section = format!("caches.{name}");
            let (own, own_rule) = (from.policy(&section, policy), from.rules(&section, rules));
            match CacheName::parse(&name) {
                Ok(name) => {
                    policies.insert(name.clone(), own);
                    own_rules.insert(name, own_rule);
                }
                Err(error) => from.problem(&section, &error.to_string()),
            }
        }
        let ttl = ttl.unwrap_or(CacheSettings::default().ttl);
        let turn_reader = TurnReader(request::earlier_turns);
        let templates = Self::read_templates(from);
        CacheSettings { policy, policies, rules, own_rules, turn_reader, ttl, external_dimensions: None, templates }
    }

    fn read_templates(from: &mut Reader<'_>) -> TemplateSettings {
        let TemplateSettings { refill, refill_after, keys_max, mut roles } = TemplateSettings::default();
        let words = Role::ALL.map(|role| (role.as_str(), role));
        for name in from.names("templates.roles") {
            let key = format!("templates.roles.{name}");
            if let Err(error) = roles.set(&name, from.word(&key, &words)) {
                from.problem(&key, &error.to_string());
            }
        }
        TemplateSettings {
            refill: from.read("templates.refill", "true or false", Value::as_bool).unwrap_or(refill),
            refill_after: from
                .read("templates.refill_after", "a whole number from 2 to 16", |v| {
                    whole(v).filter(|n| (2..=16).contains(n))
                })
                .unwrap_or(refill_after),
            keys_max: from.size("templates.keys_max", keys_max),
            roles,
        }
    }
}

/// Takes known keys out of a table, and keeps what was wrong with them.
struct Reader<'a> {
    table: Table,
    file: &'a str,
    /// Where a value came from, where that is not the file.
    origins: HashMap<String, String>,
    problems: Vec<String>,
    has_judge_model: bool,
}

impl Reader<'_> {
    fn overrule(&mut self, over: &Override) {
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

    fn take(&mut self, key: &str) -> Option<Value> {
        let mut path: Vec<&str> = key.split('.').collect();
        let last = path.pop()?;
        let mut table = &mut self.table;
        for section in path {
            table = table.get_mut(section)?.as_table_mut()?;
        }
        table.remove(last)
    }

    fn read<T>(&mut self, key: &str, expected: &str, parse: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let value = self.take(key)?;
        let parsed = parse(&value);
        if parsed.is_none() {
            self.problem(key, &format!("must be {expected}, got {value}"));
        }
        parsed
    }

    /// Whether a value stands there that was not taken yet.
    fn has(&self, key: &str) -> bool {
        let (section, last) = key.rsplit_once('.').unwrap_or(("", key));
        let mut sections = section.split('.').filter(|section| !section.is_empty());
        let table = sections.try_fold(&self.table, |table, section| table.get(section)?.as_table());
        table.is_some_and(|table| table.contains_key(last))
    }

    fn problem(&mut self, key: &str, problem: &str) {
        let place = self.origins.get(key).cloned().unwrap_or_else(|| format!("{}: {key}", self.file));
        self.problems.push(format!("{place}: {problem}"));
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.read(key, "a string that is not empty", |v| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned))
    }

    fn limit(&mut self, entries: &str, bytes: &str) -> Limit {
        let mut most = |key: &str| self.read(key, "a whole number above 0", |v| whole(v).filter(|n| *n > 0));
        Limit { entries: most(entries).map(|n| n as u64), bytes: most(bytes).map(|n| n as u64) }
    }

    fn flag(&mut self, key: &str) -> bool {
        self.read(key, "true or false", Value::as_bool).unwrap_or(false)
    }

    /// One of the words; the first is the default.
    fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> T {
        self.word_or(key, words, words[0].1)
    }

    fn word_or<T: Copy>(&mut self, key: &str, words: &[(&str, T)], default: T) -> T {
        let expected = words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(" or ");
        let find = |v: &Value| words.iter().find(|(word, _)| v.as_str() == Some(word)).map(|(_, value)| *value);
        self.read(key, &expected, find).unwrap_or(default)
    }

    /// One of the words, as it is; the first is the default.
    fn one_of(&mut self, key: &str, words: &[&'static str]) -> String {
        let words: Vec<(&str, &str)> = words.iter().map(|word| (*word, *word)).collect();
        self.word(key, &words).to_owned()
    }

    fn address(&mut self, key: &str, port: u16) -> SocketAddr {
        self.read(key, "an address and port such as 127.0.0.1:8080", |v| v.as_str()?.parse().ok())
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn url(&mut self, key: &str, default: &'static str) -> Uri {
        let parse = |v: &Value| {
            let uri: Uri = v.as_str()?.parse().ok()?;
            let usable = matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.authority().is_some()
                && uri.query().is_none();
            usable.then_some(uri)
        };
        self.read(key, "an http or https URL without a query", parse).unwrap_or_else(|| Uri::from_static(default))
    }

    fn size(&mut self, key: &str, default: usize) -> usize {
        self.read(key, "a whole number above 0", |v| whole(v).filter(|n| *n > 0)).unwrap_or(default)
    }

    fn seconds(&mut self, key: &str, default: u64) -> Duration {
        self.seconds_or(key, Duration::from_secs(default))
    }

    fn seconds_or(&mut self, key: &str, default: Duration) -> Duration {
        let parsed =
            self.read(key, "a number of seconds above 0 and at most 10 years", |v| controls::seconds(number(v)));
        parsed.unwrap_or(default)
    }

    fn milliseconds(&mut self, key: &str, default: u64) -> Duration {
        let parse =
            |v: &Value| whole(v).filter(|ms| (1..=3_600_000).contains(ms)).map(|ms| Duration::from_millis(ms as u64));
        self.read(key, "a whole number of milliseconds from 1 to 3600000", parse)
            .unwrap_or(Duration::from_millis(default))
    }

    /// What a section says of how its cache decides; what it does not say is as in `base`.
    fn policy(&mut self, section: &str, base: Policy) -> Policy {
        let key = |name: &str| format!("{section}.{name}");
        let unit = |v: &Value| number(v).filter(|share| (0.0..=1.0).contains(share));
        let mut share = |name: &str| self.read(&key(name), "a number from 0 to 1", unit);
        let Budget { max_error, max_error_per_hit } = base.budget;
        let budget = Budget {
            max_error: share("max_error").unwrap_or(max_error),
            max_error_per_hit: share("max_error_per_hit").unwrap_or(max_error_per_hit),
        };
        let threshold = share("threshold").map_or(base.threshold, |least| Similarity::new(least as f32));
        let audit = share("audit").unwrap_or(base.audit);
        let shadow = self.read(&key("shadow"), "true or false", Value::as_bool).unwrap_or(base.shadow);
        let judge = self.judge(section, base.judge);
        if audit > 0.0 && judge == Judge::Nobody {
            self.problem(&key("audit"), "needs a judge: set judge to \"words\", \"embedding\" or \"model\"");
        }
        Policy { threshold, budget, shadow, judge, audit }
    }

    /// The rules of a section; what it leaves out is as in `default`.
    fn rules(&mut self, section: &str, default: CacheRules) -> CacheRules {
        let words = [("ttl", Perishable::Ttl), ("miss", Perishable::Miss), ("ignore", Perishable::Ignore)];
        let contexts = [("exact", ContextRule::Exact), ("semantic", ContextRule::Semantic)];
        // With less, whatever came before would hardly count.
        let threshold = self.read(&format!("{section}.context_threshold"), "a number from 0.5 to 1", |v| {
            controls::threshold(number(v)).filter(|least| least.get() >= 0.5)
        });
        CacheRules {
            perishable: self.word_or(&format!("{section}.perishable"), &words, default.perishable),
            perishable_ttl: self.seconds_or(&format!("{section}.perishable_ttl_s"), default.perishable_ttl),
            context: self.word_or(&format!("{section}.context"), &contexts, default.context),
            context_threshold: threshold.unwrap_or(default.context_threshold),
        }
    }

    fn names(&mut self, key: &str) -> Vec<String> {
        let table = key.split('.').try_fold(&self.table, |table, section| table.get(section)?.as_table());
        table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
    }

    /// Whatever was not taken is not known.
    fn refuse_unknown(&mut self) {
        fn leaves(prefix: &str, table: &Table, into: &mut BTreeMap<String, String>) {
            for (key, value) in table {
                match value {
                    Value::Table(inner) => leaves(&format!("{prefix}{key}."), inner, into),
                    other => drop(into.insert(format!("{prefix}{key}"), other.to_string())),
                }
            }
        }
        let mut unknown = BTreeMap::new();
        leaves("", &self.table, &mut unknown);
        for (key, value) in unknown {
            self.problem(&key, &format!("is not a known key (its value is {value})"));
        }
    }
}

/// How similar the embeddings of one answer given twice are at least.
const JUDGE_SIMILARITY: f32 = 0.95;

fn pace(value: &Value) -> Option<Pace> {
    match value.as_str() {
        Some("as_fast_as_possible") => Some(Pace::AsFastAsPossible),
        Some("original") => Some(Pace::Original),
        _ => number(value).filter(|rate| rate.is_finite() && *rate > 0.0 && *rate <= 1e6).map(Pace::TokensPerSecond),
    }
}

const PACE: &str = "\"as_fast_as_possible\", \"original\" or a number of tokens a second above 0 and at most 1000000";

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|n| n as f64))
}

fn whole(value: &Value) -> Option<usize> {
    usize::try_from(value.as_integer()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Similarity;

    fn parse(text: &str, overrides: &[Override]) -> Result<Config, ConfigErrors> {
        Config::parse("nearhit.toml", text, overrides, PathBuf::from("/data"))
    }

    /// The shipped file names every key with its default: parsing it changes nothing, and every key that is set or
    /// commented out in it is known.
    #[test]
    fn the_shipped_file_is_the_defaults() {
        let shipped = include_str!("../nearhit.toml");
        assert_eq!(parse(shipped, &[]), parse("", &[]));
        let uncommented: String = shipped
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(setting) if is_setting(setting) => setting,
                _ => line,
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        let all = parse(&uncommented.replace("model = \"all-MiniLM-L6-v2\"", "model = \"external\""), &[])
            .expect("every key is known");
        assert_eq!(all.data_dir, PathBuf::from("/var/lib/nearhit"));
        assert_eq!(all.embed.model, EmbedModel::External { dimensions: 384 });
        assert_eq!(all.temperature_max, Some(1.0));
        assert_eq!(all.cache.policies.len(), 1);
        assert_eq!((all.upstream.endpoints.len(), all.upstream.aliases.len()), (4, 1));
    }

    fn is_setting(comment: &str) -> bool {
        let is_key = |key: &str| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        comment.starts_with('[') || comment.split_once(" = ").is_some_and(|(key, _)| is_key(key))
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let text = r#"
            tenancy = "none"
            unknown = 1
            [serve]
            listen = "nowhere"
            insecure = "yes"
            lisen = "127.0.0.1:1"
            [cache]
            threshold = 1.1
            ttl_s = -1
            perishable = "never"
            perishable_ttl_s = 0
            context = "any"
            context_threshold = 0.4
            replay = "slow"
            [caches.Bad]
            threshold = 0.5
            [store]
            kind = 7
            [upstream]
            openai = "ftp://x"
            idle_timeout_s = "long"
            [embed]
            precision = "f16"
            engine = "sse"
            memo_bytes = -1
            [templates]
            refill = 1
            refill_after = 1
            keys_max = 0
            roles = { ids = "echoed", id = "silent", id_1 = "volatile" }
        "#;
        let errors = parse(text, &[]).expect_err("many problems").0;
        let expected = [
            ("tenancy", "\"none\""),
            ("unknown", "1"),
            ("serve.listen", "\"nowhere\""),
            ("serve.insecure", "\"yes\""),
            ("serve.lisen", "127.0.0.1:1"),
            ("cache.threshold", "1.1"),
            ("cache.ttl_s", "-1"),
            ("cache.perishable", "\"never\""),
            ("cache.perishable_ttl_s", "0"),
            ("cache.context", "\"any\""),
            ("cache.context_threshold", "0.4"),
            ("cache.replay", "\"slow\""),
            ("caches.Bad", "\"Bad\""),
            ("store.kind", "7"),
            ("upstream.openai", "ftp://x"),
            ("upstream.idle_timeout_s", "\"long\""),
            ("embed.precision", "\"f16\""),
            ("embed.engine", "\"sse\""),
            ("embed.memo_bytes", "-1"),
            ("templates.refill", "1"),
            ("templates.refill_after", "1"),
            ("templates.keys_max", "0"),
            ("templates.roles.ids", "\"ids\""),
            ("templates.roles.id", "\"silent\""),
            ("templates.roles.id_1", "\"id_1\""),
        ];
        for (key, value) in expected {
            let prefix = format!("nearhit.toml: {key}: ");
            assert!(errors.iter().any(|e| e.starts_with(&prefix) && e.contains(value)), "{key} in {errors:#?}");
        }
    }

    #[test]
    fn a_cache_has_what_it_does_not_set_from_the_others() {
        let text = r#"
            [cache]
            perishable = "miss"
            perishable_ttl_s = 60
            [caches.news]
            perishable = "ttl"
            [caches.chat]
            context = "semantic"
            context_threshold = 0.9
            [caches.old]
            threshold = 1.0
        "#;
        let cache = parse(text, &[]).expect("valid").cache;
        let rules = |name: &str| cache.own_rules[&CacheName::parse(name).expect("a name")];
        let perishable_ttl = Duration::from_secs(60);
        let miss = CacheRules { perishable: Perishable::Miss, perishable_ttl, ..CacheRules::default() };
        assert_eq!(cache.rules, miss);
        assert_eq!(rules("news"), CacheRules { perishable: Perishable::Ttl, ..miss });
        let context_threshold = Similarity::new(0.9);
        assert_eq!(rules("chat"), CacheRules { context: ContextRule::Semantic, context_threshold, ..miss });
        assert_eq!(rules("old"), miss);
    }

    #[test]
    fn flags_overrule_the_file_and_are_named_in_errors() {
        let over = |value: &str| [Override { key: "serve.listen", origin: "--listen".into(), value: value.into() }];
        let config = parse("[serve]\nlisten = \"127.0.0.1:1\"", &over("127.0.0.1:2")).expect("valid");
        assert_eq!(config.serve.listen.port(), 2);
        let errors = parse("", &over("x")).expect_err("no address").0;
        assert_eq!(errors, ["--listen: must be an address and port such as 127.0.0.1:8080, got \"x\""]);
    }

    #[test]
    fn a_broken_file_is_named_with_its_line() {
        let error = parse("[serve\n", &[]).expect_err("no TOML").to_string();
        assert!(error.starts_with("nearhit.toml: ") && error.contains("line 1"), "{error}");
    }
}
