//! The rules of a configuration for what requests may cost: `[[savings]]`.

use toml::Value;

use super::upstreams::{sections, texts};
use super::{Reader, number, whole};
use crate::savings::{
    CacheHints, LimitField, PATHS, Rule, SavingsRules, Steps, StopRule, TokenLimit, Turns, USES_MAX, Unlike, When,
};

pub(super) fn read(from: &mut Reader<'_>) -> SavingsRules {
    let sections = sections(from, "savings");
    SavingsRules(sections.iter().map(|section| rule(from, section)).collect())
}

fn rule(from: &mut Reader<'_>, section: &str) -> Rule {
    let before = from.problems.len();
    let rule = Rule { when: when(from, section), then: steps(from, section) };
    let is_read = from.problems.len() == before;
    if is_read && rule.then == Steps::default() {
        from.problem(section, "names nothing to do: model, max_tokens, max_tokens_ceiling, turns_max, stop_json, stop_after or cache_control");
    }
    if is_read && rule.then.model.is_some() && rule.when == When::default() {
        let problem = "needs a condition: paths, models, tag, input_tokens_max or without";
        from.problem(&format!("{section}.model"), problem);
    }
    rule
}

fn when(from: &mut Reader<'_>, section: &str) -> When {
    let key = |name: &str| format!("{section}.{name}");
    let is_path = |v: &Value| v.as_str().filter(|path| PATHS.contains(path)).map(str::to_owned);
    let paths = |v: &Value| v.as_array()?.iter().map(is_path).collect::<Option<Vec<_>>>();
    let words = |v: &Value| v.as_array()?.iter().map(|word| Unlike::parse(word.as_str()?)).collect::<Option<Vec<_>>>();
    When {
        paths: from.read(&key("paths"), &format!("a list of {}", PATHS.join(", ")), paths).unwrap_or_default(),
        models: texts(from, &key("models")),
        tag: from.read(&key("tag"), "a word of visible ASCII characters", |v| header_text(v, false)),
        input_tokens_max: count(from, &key("input_tokens_max")),
        without: from.read(&key("without"), "a list of \"tools\" and \"media\"", words).unwrap_or_default(),
    }
}

fn steps(from: &mut Reader<'_>, section: &str) -> Steps {
    let key = |name: &str| format!("{section}.{name}");
    let model = from.read(&key("model"), "a model's name in visible ASCII characters", |v| header_text(v, true));
    Steps {
        model,
        limit: limit(from, section),
        turns: turns(from, section),
        stop: stop(from, section),
        hints: hints(from, section),
    }
}

fn limit(from: &mut Reader<'_>, section: &str) -> Option<TokenLimit> {
    let key = |name: &str| format!("{section}.{name}");
    let (default, ceiling) = (count(from, &key("max_tokens")), count(from, &key("max_tokens_ceiling")));
    if let (Some(default), Some(ceiling)) = (default, ceiling)
        && default > ceiling
    {
        from.problem(&key("max_tokens"), &format!("must be at most max_tokens_ceiling, {ceiling}, got {default}"));
    }
    let has_field = from.has(&key("max_tokens_field"));
    let field = from.word(&key("max_tokens_field"), &LimitField::ALL.map(|field| (field.as_str(), field)));
    if has_field && default.is_none() {
        from.problem(&key("max_tokens_field"), &format!("needs max_tokens, got {:?}", field.as_str()));
    }
    (default.is_some() || ceiling.is_some()).then_some(TokenLimit { default, ceiling, field })
}

fn turns(from: &mut Reader<'_>, section: &str) -> Option<Turns> {
    let key = |name: &str| format!("{section}.{name}");
    let max = count(from, &key("turns_max"));
    let step = count(from, &key("turns_step"));
    match (max, step) {
        (None, Some(step)) => from.problem(&key("turns_step"), &format!("needs turns_max, got {step}")),
        (Some(max), Some(step)) if step > max => {
            from.problem(&key("turns_step"), &format!("must be at most turns_max, {max}, got {step}"));
        }
        _ => {}
    }
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Some(Turns { max: size(max?), step: size(step.unwrap_or(1)) })
}

fn stop(from: &mut Reader<'_>, section: &str) -> Option<StopRule> {
    let json = from.flag(&format!("{section}.stop_json"));
    let after = texts(from, &format!("{section}.stop_after"));
    (json || !after.is_empty()).then_some(StopRule { json, after })
}

fn hints(from: &mut Reader<'_>, section: &str) -> Option<CacheHints> {
    let key = |name: &str| format!("{section}.{name}");
    let is_on = from.flag(&key("cache_control"));
    let tokens_min = count(from, &key("cache_control_tokens_min"));
    let uses_min = from.read(&key("cache_control_uses_min"), &format!("a number from 1 to {USES_MAX}"), |v| {
        number(v).filter(|uses| (1.0..=USES_MAX as f64).contains(uses))
    });
    for (name, value) in
        [("cache_control_tokens_min", tokens_min.map(|n| n as f64)), ("cache_control_uses_min", uses_min)]
    {
        if let Some(value) = value.filter(|_| !is_on) {
            from.problem(&key(name), &format!("needs cache_control = true, got {value}"));
        }
    }
    is_on.then_some(CacheHints { tokens_min: tokens_min.unwrap_or(1024), uses_min: uses_min.unwrap_or(1.3) })
}

fn count(from: &mut Reader<'_>, key: &str) -> Option<u64> {
    from.read(key, "a whole number above 0", |v| whole(v).filter(|n| *n > 0)).map(|n| n as u64)
}

/// A text that can stand in a header's list: a word, or one with what names of models have.
fn header_text(value: &Value, is_model: bool) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && (is_model || byte != b',');
    value.as_str().filter(|text| !text.is_empty() && text.bytes().all(is_plain)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Config, ConfigErrors};
    use super::*;

    fn parse(text: &str) -> Result<SavingsRules, ConfigErrors> {
        Config::parse("nearhit.toml", text, &[], PathBuf::from("/data")).map(|config| config.savings)
    }

    #[test]
    fn rules_are_read_in_order() {
        let text = r#"
            [[savings]]
            paths = ["/v1/messages"]
            models = ["claude*"]
            tag = "bulk"
            input_tokens_max = 500
            without = ["tools", "media"]
            model = "claude-small"
            max_tokens = 100
            max_tokens_ceiling = 500
            max_tokens_field = "max_tokens"
            turns_max = 10
            turns_step = 5
            stop_json = true
            stop_after = ["</a>"]
            cache_control = true
            cache_control_tokens_min = 2048
            cache_control_uses_min = 2
            [[savings]]
            max_tokens_ceiling = 7
            turns_max = 3
            cache_control = true
        "#;
        let first = Rule {
            when: When {
                paths: vec!["/v1/messages".into()],
                models: vec!["claude*".into()],
                tag: Some("bulk".into()),
                input_tokens_max: Some(500),
                without: vec![Unlike::Tools, Unlike::Media],
            },
            then: Steps {
                model: Some("claude-small".into()),
                limit: Some(TokenLimit { default: Some(100), ceiling: Some(500), field: LimitField::MaxTokens }),
                turns: Some(Turns { max: 10, step: 5 }),
                stop: Some(StopRule { json: true, after: vec!["</a>".into()] }),
                hints: Some(CacheHints { tokens_min: 2048, uses_min: 2.0 }),
            },
        };
        let then = Steps {
            limit: Some(TokenLimit { default: None, ceiling: Some(7), field: LimitField::default() }),
            turns: Some(Turns { max: 3, step: 1 }),
            hints: Some(CacheHints { tokens_min: 1024, uses_min: 1.3 }),
            ..Steps::default()
        };
        assert_eq!(parse(text).expect("valid"), SavingsRules(vec![first, Rule { when: When::default(), then }]));
        assert!(parse("").expect("valid").is_empty());
    }

    #[test]
    fn every_problem_names_key_and_value() {
        let check = |text: &str, key: &str, value: &str| {
            let errors = parse(text).expect_err(text).0;
            let is_named =
                |error: &String| error.starts_with(&format!("nearhit.toml: {key}: ")) && error.contains(value);
            assert!(errors.len() == 1 && errors.iter().any(is_named), "{key} and {value} in {errors:#?}");
        };
        let one = |more: &str| format!("[[savings]]\nturns_max = 3\nmodels = [\"m\"]\n{more}");
        check("savings = 7", "savings", "7");
        check("[[savings]]\nmodels = [\"m\"]", "savings.0", "nothing");
        check("[[savings]]\nmodel = \"m\"", "savings.0.model", "condition");
        check(&one("paths = [\"/v1/embeddings\"]"), "savings.0.paths", "/v1/embeddings");
        check(&one("tag = \"two words\""), "savings.0.tag", "\"two words\"");
        check(&one("input_tokens_max = 0"), "savings.0.input_tokens_max", "0");
        check(&one("without = [\"cost\"]"), "savings.0.without", "\"cost\"");
        check(&one("model = \"caf\u{e9}\""), "savings.0.model", "caf\u{e9}");
        check(&one("max_tokens = -1"), "savings.0.max_tokens", "-1");
        check(&one("max_tokens = 9\nmax_tokens_ceiling = 8"), "savings.0.max_tokens", "9");
        check(&one("max_tokens_field = \"max_tokens\""), "savings.0.max_tokens_field", "\"max_tokens\"");
        check(&one("max_tokens = 1\nmax_tokens_field = \"most\""), "savings.0.max_tokens_field", "\"most\"");
        check(&one("turns_step = 4"), "savings.0.turns_step", "4");
        check("[[savings]]\nstop_json = true\nturns_step = 4", "savings.0.turns_step", "4");
        check(&one("stop_json = \"yes\""), "savings.0.stop_json", "\"yes\"");
        check(&one("stop_after = [\"\"]"), "savings.0.stop_after", "\"\"");
        check(&one("cache_control_tokens_min = 9"), "savings.0.cache_control_tokens_min", "9");
        check(&one("cache_control = true\ncache_control_uses_min = 0.5"), "savings.0.cache_control_uses_min", "0.5");
        check(&one("cache_control = true\ncache_control_uses_min = 17"), "savings.0.cache_control_uses_min", "17");
        check(&one("tunrs = 1"), "savings.0.tunrs", "1");
    }
}
