//! Which savings a request is for: conditions that can be checked by reading it, and what follows from them.
//!
//! Of each thing that can be done the first rule decides whose conditions hold and that names it. Conditions are about the
//! request as the client sent it.

use crate::route::matches;
use crate::wire::spend::{Bill, TokenLimit};
use crate::wire::stop::StopRule;
use crate::wire::trim::Turns;

/// The rules in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SavingsRules(pub Vec<Rule>);

/// Conditions, and what is done where all of them hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rule {
    pub when: When,
    pub then: Steps,
}

/// What a request must be like. Each empty one holds of every request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct When {
    /// One of these paths.
    pub paths: Vec<String>,
    /// A model that one of these patterns stands for, in which `*` is any characters.
    pub models: Vec<String>,
    /// This word in the client's `x-nearhit-route`.
    pub tag: Option<String>,
    /// No more than so many tokens of input, estimated at four bytes each; of no request whose provider keeps more of it.
    pub input_tokens_max: Option<u64>,
    /// None of these in it; of no request whose provider keeps more of it.
    pub without: Vec<Unlike>,
}

/// What a request may be without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlike {
    /// Tools, their calls and their results.
    Tools,
    /// Images, audio, files and documents.
    Media,
}

/// What is done to a request. Nothing, unless it is named.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Steps {
    /// It goes to this model, unless the provider keeps more of it.
    pub model: Option<String>,
    /// Its answer is no longer.
    pub limit: Option<TokenLimit>,
    /// It has no more turns.
    pub turns: Option<Turns>,
    /// Its stream ends here.
    pub stop: Option<StopRule>,
    /// The provider is asked to keep its prefix.
    pub hints: Option<CacheHints>,
}

/// When a provider is asked to keep a prefix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheHints {
    /// Shorter ones the provider does not keep.
    pub tokens_min: u64,
    /// Uses in five minutes from which on it pays.
    pub uses_min: f64,
}

/// A request, as far as rules ask about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) path: &'a str,
    pub(super) tag: Option<&'a str>,
    pub(super) bill: &'a Bill,
}

impl Unlike {
    pub const ALL: [Self; 2] = [Self::Tools, Self::Media];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Media => "media",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unlike| unlike.as_str() == word)
    }
}

impl SavingsRules {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is to be done to a request.
    pub(super) fn steps(&self, asked: &Asked<'_>) -> Steps {
        let hold = self.0.iter().filter(|rule| rule.when.holds(asked)).map(|rule| rule.then.clone());
        let steps = hold.fold(Steps::default(), |before, next| {
            let Steps { model, limit, turns, stop, hints } = next;
            Steps {
                model: before.model.or(model),
                limit: before.limit.or(limit),
                turns: before.turns.or(turns),
                stop: before.stop.or(stop),
                hints: before.hints.or(hints),
            }
        });
        // What the provider keeps of a conversation is the model's that it was begun with.
        Steps { model: steps.model.filter(|_| !asked.bill.is_partial), ..steps }
    }
}

impl When {
    fn holds(&self, asked: &Asked<'_>) -> bool {
        let Self { paths, models, tag, input_tokens_max, without } = self;
        let Bill { model, input_tokens, has_tools, has_media, is_partial } = asked.bill;
        // Of what the provider keeps, nobody here knows how long it is, or what is in it.
        let is_without = |unlike: &Unlike| match unlike {
            _ if *is_partial => false,
            Unlike::Tools => !has_tools,
            Unlike::Media => !has_media,
        };
        (paths.is_empty() || paths.iter().any(|path| path == asked.path))
            && (models.is_empty() || models.iter().any(|pattern| matches(pattern, model)))
            && tag.as_deref().is_none_or(|tag| asked.tag == Some(tag))
            && input_tokens_max.is_none_or(|most| *input_tokens <= most && !is_partial)
            && without.iter().all(is_without)
    }
}

/// Paths that rules can be about: where a text is asked for.
pub const PATHS: [&str; 4] = ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions"];

#[cfg(test)]
mod tests {
    use super::*;

    fn bill() -> Bill {
        Bill { model: "gpt-4o".into(), input_tokens: 100, has_tools: false, has_media: true, is_partial: false }
    }

    #[test]
    fn every_condition_must_hold() {
        let bill = bill();
        let asked = Asked { path: PATHS[0], tag: Some("bulk"), bill: &bill };
        let check = |when: When, expected: bool| assert_eq!(when.holds(&asked), expected, "{when:?}");
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        check(When::default(), true);
        check(When { paths: texts(&[PATHS[1], PATHS[0]]), ..When::default() }, true);
        check(When { paths: texts(&[PATHS[1]]), ..When::default() }, false);
        check(When { models: texts(&["gpt-4.1", "gpt-4*"]), ..When::default() }, true);
        check(When { models: texts(&["gpt-4"]), ..When::default() }, false);
        check(When { tag: Some("bulk".into()), ..When::default() }, true);
        check(When { tag: Some("other".into()), ..When::default() }, false);
        check(When { input_tokens_max: Some(100), ..When::default() }, true);
        check(When { input_tokens_max: Some(99), ..When::default() }, false);
        check(When { without: vec![Unlike::Tools], ..When::default() }, true);
        check(When { without: vec![Unlike::Tools, Unlike::Media], ..When::default() }, false);
        let all = When {
            paths: texts(&[PATHS[0]]),
            models: texts(&["*"]),
            tag: Some("bulk".into()),
            input_tokens_max: Some(99),
            without: vec![],
        };
        check(all, false);
        let nobody = Asked { tag: None, ..asked };
        assert!(!When { tag: Some("bulk".into()), ..When::default() }.holds(&nobody));
    }

    #[test]
    fn what_the_provider_keeps_is_neither_short_nor_plain() {
        let bill = Bill { has_media: false, is_partial: true, ..bill() };
        let asked = Asked { path: PATHS[2], tag: None, bill: &bill };
        let check = |when: When, expected: bool| assert_eq!(when.holds(&asked), expected, "{when:?}");
        check(When::default(), true);
        check(When { input_tokens_max: Some(100), ..When::default() }, false);
        check(When { without: vec![Unlike::Tools], ..When::default() }, false);
        check(When { without: vec![Unlike::Media], ..When::default() }, false);
        let then = Steps { model: Some("small".into()), turns: Some(Turns { max: 1, step: 1 }), ..Steps::default() };
        let rules = SavingsRules(vec![Rule { when: When::default(), then: then.clone() }]);
        assert_eq!(rules.steps(&asked), Steps { model: None, ..then.clone() });
        let whole = Bill { is_partial: false, ..bill.clone() };
        assert_eq!(rules.steps(&Asked { bill: &whole, ..asked }), then);
    }

    #[test]
    fn the_first_that_names_it_decides() {
        let bill = bill();
        let asked = Asked { path: PATHS[0], tag: None, bill: &bill };
        let rule = |models: &str, model: Option<&str>, turns: Option<usize>| Rule {
            when: When { models: vec![models.to_owned()], ..When::default() },
            then: Steps {
                model: model.map(str::to_owned),
                turns: turns.map(|max| Turns { max, step: 1 }),
                ..Steps::default()
            },
        };
        let rules = SavingsRules(vec![
            rule("claude*", Some("a"), Some(1)),
            rule("gpt*", Some("b"), None),
            rule("*", Some("c"), Some(3)),
            rule("*", None, Some(4)),
        ]);
        let expected = Steps { model: Some("b".into()), turns: Some(Turns { max: 3, step: 1 }), ..Steps::default() };
        assert_eq!(rules.steps(&asked), expected);
        assert_eq!(SavingsRules::default().steps(&asked), Steps::default());
    }
}
