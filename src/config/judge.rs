//! Who judges a cache's answers, and the model that does where it is one.

use toml::Value;

use super::{JUDGE_SIMILARITY, Reader, whole};
use crate::decision::{Judge, Similarity};
use crate::judge::JudgeLimits;
use crate::upstream::judge::JudgeSettings;

impl Reader<'_> {
    /// The model that judges; `None` where none is named.
    pub(super) fn judge_model(&mut self) -> Option<JudgeSettings> {
        let JudgeLimits { calls_max, calls_per_minute, timeout } = JudgeLimits::default();
        let url = self.url("judge.url", "https://api.openai.com/v1");
        let key = self.key_source("judge.");
        let limits = JudgeLimits {
            calls_max: self
                .read("judge.calls_max", "a whole number from 1 to 1024", |v| {
                    whole(v).filter(|n| (1..=1024).contains(n))
                })
                .unwrap_or(calls_max),
            calls_per_minute: self
                .read("judge.calls_per_minute", "a whole number from 1 to 1000000", |v| {
                    u32::try_from(whole(v)?).ok().filter(|n| (1..=1_000_000).contains(n))
                })
                .unwrap_or(calls_per_minute),
            timeout: self.seconds_or("judge.timeout_s", timeout),
        };
        self.text("judge.model").map(|model| JudgeSettings { url, model, key, limits })
    }

    /// Who judges in the caches of a section.
    pub(super) fn judge(&mut self, section: &str, base: Judge) -> Judge {
        let key = format!("{section}.judge");
        let least = |v: &Value| super::number(v).filter(|share| (0.0..=1.0).contains(share));
        let similarity = self.read(&format!("{key}_similarity"), "a number from 0 to 1", least);
        let similarity = similarity.map(|least| Similarity::new(least as f32));
        let words = ["off", "words", "embedding", "model"];
        let find = |v: &Value| words.iter().find(|word| v.as_str() == Some(word)).copied();
        match self.read(&key, "one of off, words, embedding, model", find) {
            Some("words") => Judge::Words,
            Some("embedding") => Judge::Embedding(similarity.unwrap_or(Similarity::new(JUDGE_SIMILARITY))),
            Some("model") => {
                if !self.has_judge_model {
                    self.problem(
                        &key,
                        "\"model\" needs a model that judges: name it in the section [judge] (judge.model)",
                    );
                }
                Judge::Model
            }
            Some(_) => Judge::Nobody,
            None => match (base, similarity) {
                (Judge::Embedding(_), Some(similarity)) => Judge::Embedding(similarity),
                (judge, _) => judge,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Config;
    use super::*;
    use crate::decision::CacheName;
    use crate::upstream::KeySource;

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        Config::parse("nearhit.toml", text, &[], "/data".into()).map_err(|errors| errors.0)
    }

    #[test]
    fn a_model_judges_where_one_is_named() {
        let config = parse(
            r#"
            [cache]
            judge = "words"
            [caches.chat]
            judge = "model"
            [judge]
            url = "http://127.0.0.1:11434/v1"
            model = "small"
            key_file = "/run/secrets/judge"
            timeout_s = 2.5
            calls_max = 2
            calls_per_minute = 30
            "#,
        )
        .expect("valid");
        let chat = CacheName::parse("chat").expect("a name");
        assert_eq!((config.cache.policy.judge, config.cache.policies[&chat].judge), (Judge::Words, Judge::Model));
        let JudgeSettings { url, model, key, limits } = config.judge.expect("a judge");
        assert_eq!((url.to_string().as_str(), model.as_str()), ("http://127.0.0.1:11434/v1", "small"));
        assert_eq!(key, Some(KeySource::File("/run/secrets/judge".into())));
        let timeout = Duration::from_millis(2_500);
        assert_eq!(limits, JudgeLimits { calls_max: 2, calls_per_minute: 30, timeout });
        assert_eq!(parse("[judge]\nkey_env = \"KEY\"").expect("valid").judge, None, "none is named");
    }

    #[test]
    fn a_judge_that_nobody_named_is_refused() {
        let check = |text: &str, expected: &[&str]| {
            let errors = parse(text).expect_err("a problem");
            assert_eq!(errors.len(), expected.len(), "{errors:?}");
            for (error, expected) in errors.iter().zip(expected) {
                assert!(error.starts_with(&format!("nearhit.toml: {expected}")), "{error}");
            }
        };
        check("[cache]\njudge = \"model\"", &["cache.judge: \"model\" needs a model that judges"]);
        check("[caches.a]\njudge = \"model\"\n[judge]\nurl = \"http://h/v1\"", &["caches.a.judge: \"model\" needs"]);
        check("[cache]\njudge = \"llm\"", &["cache.judge: must be one of off, words, embedding, model, got \"llm\""]);
        check("[cache]\naudit = 0.1", &["cache.audit: needs a judge"]);
        check(
            "[judge]\nmodel = \"\"\nurl = \"x\"\ntimeout_s = 0\ncalls_max = 0\ncalls_per_minute = 0",
            &["judge.url: ", "judge.calls_max: ", "judge.calls_per_minute: ", "judge.timeout_s: ", "judge.model: "],
        );
    }
}
