//! The operator's settings: a TOML file, overruled by flags, checked as a whole.
//!
//! Parsing finds every problem at once, each named by where it stands and the value that stands there. A key that is
//! not known is a problem: a misspelt limit would otherwise be no limit.

mod access;
mod change;
mod embed;
mod judge;
mod reader;
mod savings;
mod upstreams;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use toml::{Table, Value};

pub use self::access::AccessConfig;
pub use self::change::Written;
pub use self::embed::{EmbedConfig, EmbedModel};
use self::reader::{Reader, broken, leaves, number, whole};
use crate::cache::CacheSettings;
use crate::decision::budget::Budget;
use crate::decision::{CacheName, ContextRule, Judge, Perishable, Policy, Role, Similarity};
use crate::replay::Pace;
use crate::rules::{CacheRules, TurnReader};
use crate::savings::SavingsRules;
use crate::server::{ServeSettings, Tenancy};
use crate::store::{Durability, Limit, Limits, StoreSettings};
use crate::templates::TemplateSettings;
use crate::upstream::UpstreamSettings;
use crate::upstream::judge::JudgeSettings;
use crate::wire::answer::Figures;
use crate::wire::compat::{Compat, Compats};
use crate::wire::{controls, request};

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub tenancy: Tenancy,
    pub access: AccessConfig,
    pub serve: ServeSettings,
    pub upstream: UpstreamSettings,
    pub savings: SavingsRules,
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
    /// Products whose clients are understood.
    pub compats: Compats,
    pub figures: Figures,
    /// Whether answers to requests with tools in them are kept.
    pub tool_calls: bool,
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
        let table: Table = text.parse().map_err(|error| broken(file, text, &error))?;
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
            bodies_bytes_max: from.size("serve.bodies_bytes_max", 256 << 20),
            body_patience: from.seconds("serve.body_timeout_s", 30),
            connections_max: from.size("serve.connections_max", 10_000),
            idle: from.seconds("serve.idle_timeout_s", 120),
            drain: from.seconds("serve.drain_s", 120),
        };
        if serve.bodies_bytes_max < serve.body_bytes_max {
            from.problem(
                "serve.bodies_bytes_max",
                &format!(
                    "must be at least serve.body_bytes_max, {}, got {}",
                    serve.body_bytes_max, serve.bodies_bytes_max
                ),
            );
        }
        let tenancy = from.word("tenancy", &[("per-key", Tenancy::PerKey), ("single", Tenancy::Single)]);
        Self {
            judge,
            tenancy,
            access: AccessConfig::read(from, tenancy),
            upstream: upstreams::read(from, serve.body_bytes_max),
            savings: savings::read(from),
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
            compats: from.compats(),
            figures: from.word("cache.usage", &[("stored", Figures::Stored), ("zero", Figures::Zero)]),
            tool_calls: from.flag("cache.tool_calls"),
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

impl Reader<'_> {
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

    /// Products whose clients are understood, by their names.
    fn compats(&mut self) -> Compats {
        let names = Compat::ALL.map(Compat::as_str).join(", ");
        let product = |v: &Value| Compat::parse(v.as_str()?);
        self.read("compat", &format!("a list of {names}"), |v| v.as_array()?.iter().map(product).collect())
            .unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            compat = ["helicone", "langfuse"]
            unknown = 1
            [serve]
            listen = "nowhere"
            insecure = "yes"
            lisen = "127.0.0.1:1"
            bodies_bytes_max = 1
            [cache]
            threshold = 1.1
            ttl_s = -1
            perishable = "never"
            perishable_ttl_s = 0
            context = "any"
            context_threshold = 0.4
            replay = "slow"
            usage = "none"
            tool_calls = 1
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
            ("compat", "\"langfuse\""),
            ("unknown", "1"),
            ("serve.listen", "\"nowhere\""),
            ("serve.insecure", "\"yes\""),
            ("serve.lisen", "127.0.0.1:1"),
            ("serve.bodies_bytes_max", "got 1"),
            ("cache.threshold", "1.1"),
            ("cache.ttl_s", "-1"),
            ("cache.perishable", "\"never\""),
            ("cache.perishable_ttl_s", "0"),
            ("cache.context", "\"any\""),
            ("cache.context_threshold", "0.4"),
            ("cache.replay", "\"slow\""),
            ("cache.usage", "\"none\""),
            ("cache.tool_calls", "1"),
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
