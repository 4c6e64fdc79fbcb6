//! The upstreams of a configuration: `[upstream]`, `[[upstreams]]` and `[aliases]`.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use toml::{Table, Value};

use super::{Reader, whole};
use crate::upstream::{
    ANTHROPIC, ANTHROPIC_URL, BreakerSettings, Endpoint, KeySource, OPENAI, OPENAI_URL, Protocol, QueueSettings,
    RateLimit, UpstreamSettings,
};

pub(super) fn read(from: &mut Reader<'_>, body_bytes_max: usize) -> UpstreamSettings {
    let openai = from.url("upstream.openai", OPENAI_URL);
    let anthropic = from.url("upstream.anthropic", ANTHROPIC_URL);
    let mut settings = UpstreamSettings::new(openai, anthropic);
    let (retries, limit) = (retries(from, "upstream"), limit(from, "upstream"));
    for endpoint in &mut settings.endpoints {
        (endpoint.retries, endpoint.limit) = (retries, limit);
        endpoint.key = from.key_source(&format!("upstream.{}_", endpoint.name));
    }
    let sections = sections(from, "upstreams");
    let named = sections.iter().filter_map(|section| endpoint(from, section)).collect::<Vec<_>>();
    settings.endpoints.splice(0..0, named);
    check_names(from, &sections, &settings.endpoints);
    let UpstreamSettings { endpoints, .. } = settings;
    let default = UpstreamSettings::default();
    let BreakerSettings { failures, pause } = default.breaker;
    let QueueSettings { length, wait } = default.queue;
    UpstreamSettings {
        endpoints,
        aliases: aliases(from),
        connect_timeout: from.seconds_or("upstream.connect_timeout_s", default.connect_timeout),
        head_timeout: from.seconds_or("upstream.head_timeout_s", default.head_timeout),
        idle_timeout: from.seconds_or("upstream.idle_timeout_s", default.idle_timeout),
        breaker: BreakerSettings {
            failures: count(from, "upstream.breaker_failures").unwrap_or(failures),
            pause: from.seconds_or("upstream.breaker_pause_s", pause),
        },
        queue: QueueSettings {
            length: from.size("upstream.queue_length", length),
            wait: from.seconds_or("upstream.queue_wait_s", wait),
        },
        body_bytes_max,
    }
}

/// The sections of a list of tables, `[[upstreams]]`, as tables under their places: `upstreams.0`.
pub(super) fn sections(from: &mut Reader<'_>, list: &str) -> Vec<String> {
    let tables = |v: &Value| v.as_array()?.iter().map(|item| item.as_table().cloned()).collect::<Option<Vec<_>>>();
    let tables = from.read(list, &format!("a list of tables, [[{list}]]"), tables).unwrap_or_default();
    let count = tables.len();
    let places = tables.into_iter().enumerate().map(|(place, table)| (place.to_string(), Value::Table(table)));
    if count > 0 {
        from.table.insert(list.to_owned(), Value::Table(places.collect::<Table>()));
    }
    (0..count).map(|place| format!("{list}.{place}")).collect()
}

fn endpoint(from: &mut Reader<'_>, section: &str) -> Option<Endpoint> {
    let key = |name: &str| format!("{section}.{name}");
    for needed in ["name", "url"].map(key).into_iter().filter(|needed| !from.has(needed)).collect::<Vec<_>>() {
        from.problem(&needed, "is missing");
    }
    let name =
        from.read(&key("name"), "[a-z0-9][a-z0-9_-]{0,63}", |v| v.as_str().filter(|n| is_name(n)).map(str::to_owned));
    let protocol = from.word(&key("protocol"), &[("openai", Protocol::OpenAi), ("anthropic", Protocol::Anthropic)]);
    let url = from.url(&key("url"), OPENAI_URL);
    let source = from.key_source(&key(""));
    let models = texts(from, &key("models"));
    let model = from.text(&key("model"));
    let (retries, fallback) = (retries(from, section), texts(from, &key("fallback")));
    let limit = limit(from, section);
    let named = Endpoint::new(&name?, protocol, url);
    Some(Endpoint { key: source, models, model, retries, fallback, limit, ..named })
}

/// Names must tell upstreams apart, fallbacks must be upstreams that understand the same calls, and calls must come to all.
fn check_names(from: &mut Reader<'_>, sections: &[String], endpoints: &[Endpoint]) {
    // A section without a name is reported already, and the others cannot be told by their places then.
    if sections.len() + 2 != endpoints.len() {
        return;
    }
    let fallbacks: HashSet<&String> = endpoints.iter().flat_map(|endpoint| &endpoint.fallback).collect();
    let mut names = HashSet::from([OPENAI, ANTHROPIC]);
    for (section, endpoint) in sections.iter().zip(endpoints) {
        if !names.insert(&endpoint.name) {
            from.problem(
                &format!("{section}.name"),
                &format!("is another upstream's already, got {:?}", endpoint.name),
            );
        }
        let models = format!("{section}.models");
        let is_reported =
            from.problems.iter().any(|problem| problem.starts_with(&format!("{}: {models}: ", from.file)));
        if endpoint.models.is_empty() && !fallbacks.contains(&endpoint.name) && !is_reported {
            let problem =
                format!("has no model, and no upstream has {:?} as a fallback: no call would go there", endpoint.name);
            from.problem(&models, &problem);
        }
        let mut before = HashSet::from([&endpoint.name]);
        for fallback in &endpoint.fallback {
            let known = endpoints.iter().find(|other| other.name == *fallback);
            let problem = match known {
                None => "is no upstream's name",
                Some(_) if !before.insert(fallback) => "is asked before already",
                Some(other) if other.protocol != endpoint.protocol => "speaks another protocol",
                Some(_) => continue,
            };
            from.problem(&format!("{section}.fallback"), &format!("{fallback:?} {problem}"));
        }
    }
}

fn aliases(from: &mut Reader<'_>) -> BTreeMap<String, String> {
    // Model names have dots in them: they are no paths of keys.
    let table = from.read("aliases", "a table of model names", |v| v.as_table().cloned()).unwrap_or_default();
    let mut aliases = BTreeMap::new();
    for (alias, model) in &table {
        match model.as_str().filter(|model| !model.is_empty()) {
            Some(model) if table.contains_key(model) => {
                from.problem(&format!("aliases.{alias}"), &format!("{model:?} is an alias itself"));
            }
            Some(model) => drop(aliases.insert(alias.clone(), model.to_owned())),
            None => from.problem(&format!("aliases.{alias}"), &format!("must be a model's name, got {model}")),
        }
    }
    aliases
}

fn retries(from: &mut Reader<'_>, section: &str) -> u32 {
    let parse = |v: &Value| whole(v).filter(|n| *n <= 2).and_then(|n| u32::try_from(n).ok());
    from.read(&format!("{section}.retries"), "a whole number from 0 to 2", parse).unwrap_or(0)
}

fn limit(from: &mut Reader<'_>, section: &str) -> RateLimit {
    RateLimit {
        requests: count(from, &format!("{section}.requests_per_minute")),
        tokens: count(from, &format!("{section}.tokens_per_minute")),
    }
}

fn count(from: &mut Reader<'_>, key: &str) -> Option<u32> {
    let parse = |v: &Value| whole(v).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    from.read(key, "a whole number above 0", parse)
}

impl Reader<'_> {
    /// Where a key is: `…key_env` names an environment variable, `…key_file` a file.
    pub(super) fn key_source(&mut self, prefix: &str) -> Option<KeySource> {
        let (variable, file) = (format!("{prefix}key_env"), format!("{prefix}key_file"));
        let (name, path) = (self.text(&variable), self.text(&file));
        if let (Some(_), Some(path)) = (&name, &path) {
            self.problem(&file, &format!("give either this or {variable}, got {path:?}"));
        }
        name.map(KeySource::Env).or_else(|| path.map(|path| KeySource::File(PathBuf::from(path))))
    }
}

pub(super) fn texts(from: &mut Reader<'_>, key: &str) -> Vec<String> {
    let text = |v: &Value| v.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    from.read(key, "a list of strings that are not empty", |v| v.as_array()?.iter().map(text).collect())
        .unwrap_or_default()
}

fn is_name(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 64
        && name.bytes().next().is_some_and(is_word)
        && name.bytes().all(|byte| is_word(byte) || b"_-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Config, ConfigErrors};
    use super::*;

    fn parse(text: &str) -> Result<UpstreamSettings, ConfigErrors> {
        Config::parse("nearhit.toml", text, &[], PathBuf::from("/data")).map(|config| config.upstream)
    }

    #[test]
    fn upstreams_are_read_in_order_and_the_two_come_last() {
        let text = r#"
            [upstream]
            openai = "http://one.example/v1"
            retries = 1
            tokens_per_minute = 7
            breaker_failures = 9
            queue_wait_s = 2
            [[upstreams]]
            name = "local"
            url = "http://127.0.0.1:11434/v1"
            models = ["llama*", "qwen"]
            fallback = ["openai"]
            key_env = "LOCAL_KEY"
            requests_per_minute = 60
            [[upstreams]]
            name = "claude"
            protocol = "anthropic"
            url = "https://two.example"
            models = ["claude*"]
            model = "claude-x"
            key_file = "/run/key"
            retries = 2
            [aliases]
            "gpt-4.1" = "llama3.1"
        "#;
        let settings = parse(text).expect("valid");
        let uri = |text: &'static str| http::Uri::from_static(text);
        let local = Endpoint {
            models: vec!["llama*".into(), "qwen".into()],
            fallback: vec!["openai".into()],
            key: Some(KeySource::Env("LOCAL_KEY".into())),
            limit: RateLimit { requests: Some(60), tokens: None },
            ..Endpoint::new("local", Protocol::OpenAi, uri("http://127.0.0.1:11434/v1"))
        };
        let claude = Endpoint {
            models: vec!["claude*".into()],
            model: Some("claude-x".into()),
            key: Some(KeySource::File("/run/key".into())),
            retries: 2,
            ..Endpoint::new("claude", Protocol::Anthropic, uri("https://two.example"))
        };
        let two = |name: &str, protocol, url| Endpoint {
            retries: 1,
            limit: RateLimit { requests: None, tokens: Some(7) },
            ..Endpoint::new(name, protocol, uri(url))
        };
        let openai = two(OPENAI, Protocol::OpenAi, "http://one.example/v1");
        assert_eq!(settings.endpoints, [local, claude, openai, two(ANTHROPIC, Protocol::Anthropic, ANTHROPIC_URL)]);
        assert_eq!(settings.aliases, [("gpt-4.1".to_owned(), "llama3.1".to_owned())].into());
        assert_eq!((settings.breaker.failures, settings.queue.wait), (9, Duration::from_secs(2)));
        assert_eq!(parse("").expect("valid"), UpstreamSettings::default());
    }

    #[test]
    fn every_problem_names_key_and_value() {
        let check = |text: &str, key: &str, value: &str| {
            let errors = parse(text).expect_err(text).0;
            let is_named =
                |error: &String| error.starts_with(&format!("nearhit.toml: {key}: ")) && error.contains(value);
            assert!(errors.len() == 1 && errors.iter().any(is_named), "{key} and {value} in {errors:#?}");
        };
        let none = |more: &str| format!("[[upstreams]]\nname = \"a\"\nurl = \"http://x/v1\"\n{more}");
        let one = |more: &str| none(&format!("models = [\"*\"]\n{more}"));
        let two = |more: &str| format!("{}\n{}", one(more), one("").replace("\"a\"", "\"b\""));
        check("upstreams = 7", "upstreams", "7");
        check("[[upstreams]]\nurl = \"http://x\"", "upstreams.0.name", "missing");
        check("[[upstreams]]\nname = \"a\"\nmodels = [\"*\"]", "upstreams.0.url", "missing");
        check("[[upstreams]]\nname = \"A b\"\nurl = \"http://x\"", "upstreams.0.name", "\"A b\"");
        check(&one("").replace("http://x/v1", "file:///x"), "upstreams.0.url", "file:///x");
        check(&one("protocol = \"gemini\""), "upstreams.0.protocol", "\"gemini\"");
        check(&one("modles = [\"x\"]"), "upstreams.0.modles", "x");
        check(&none("models = \"x\""), "upstreams.0.models", "\"x\"");
        check(&none("models = [\"x\", 7]"), "upstreams.0.models", "7");
        check(&none("models = []"), "upstreams.0.models", "\"a\"");
        check(&none("fallback = [\"openai\"]"), "upstreams.0.models", "\"a\"");
        check(&two("fallback = [\"openai\"]").replacen("models = [\"*\"]", "", 1), "upstreams.0.models", "\"a\"");
        parse(&format!("{}\n{}", one("fallback = [\"b\"]"), none("").replace("\"a\"", "\"b\"")))
            .expect("it is a fallback");
        check(&one("retries = 3"), "upstreams.0.retries", "3");
        check(&one("requests_per_minute = 0"), "upstreams.0.requests_per_minute", "0");
        check(&one("tokens_per_minute = -1"), "upstreams.0.tokens_per_minute", "-1");
        check(&one("key_env = \"A\"\nkey_file = \"b\""), "upstreams.0.key_file", "\"b\"");
        check(&one("fallback = [\"none\"]"), "upstreams.0.fallback", "\"none\"");
        check(&one("fallback = [\"a\"]"), "upstreams.0.fallback", "\"a\"");
        check(&one("fallback = [\"anthropic\"]"), "upstreams.0.fallback", "\"anthropic\"");
        check(&two("fallback = [\"b\", \"b\"]"), "upstreams.0.fallback", "\"b\"");
        check(&one("").replace("\"a\"", "\"openai\""), "upstreams.0.name", "\"openai\"");
        check(&format!("{}\n{}", one(""), one("")), "upstreams.1.name", "\"a\"");
        check("[aliases]\n\"a.b\" = 7", "aliases.a.b", "7");
        check("[aliases]\na = \"b\"\nb = \"c\"", "aliases.a", "\"b\"");
        check("[upstream]\nopenai_key_env = \"A\"\nopenai_key_file = \"b\"", "upstream.openai_key_file", "\"b\"");
        check("[upstream]\nanthropic_key_env = \"\"", "upstream.anthropic_key_env", "\"\"");
        check("[upstream]\nretries = -1", "upstream.retries", "-1");
        check("[upstream]\nqueue_wait_s = 0", "upstream.queue_wait_s", "0");
    }
}
