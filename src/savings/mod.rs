//! What a request need not cost: rules that change it before the cache sees it, or end its answer when it is complete.
//!
//! What is changed before the cache is what the cache finds and keeps answers by, what requests share, and what upstream
//! gets: a request that was changed is in every respect the request that it became. What changes only the provider's bill
//! (a hint for its prompt cache) is put in behind the cache. Without rules nothing is read and nothing is changed.

mod hints;
mod rewrite;
mod rules;
mod service;
mod sightings;
mod stopping;

pub use self::hints::{Hinted, HintedService};
pub use self::rules::{CacheHints, PATHS, Rule, SavingsRules, Steps, Unlike, When};
pub use self::service::{Savings, SavingsService};
pub use self::sightings::SEEN_MAX as USES_MAX;
pub use crate::wire::spend::{LimitField, TokenLimit};
pub use crate::wire::stop::StopRule;
pub use crate::wire::trim::Turns;

/// What was done to a request or its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) kind: Kind,
    /// How much, or what.
    pub(crate) detail: Option<String>,
}

/// The words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The answer may have so many tokens.
    MaxTokens,
    /// So many messages were left out.
    Trimmed,
    /// It went to this model.
    Routed,
    /// The provider was asked to keep the prefix.
    CacheControl,
    /// The stream ends when it is complete.
    Watched,
    /// It did.
    StoppedEarly,
    /// A system prompt came that another one is like, but for a value in it.
    UnstablePrompt,
}

impl Kind {
    #[cfg(test)]
    const ALL: [Self; 7] = [
        Self::MaxTokens,
        Self::Trimmed,
        Self::Routed,
        Self::CacheControl,
        Self::Watched,
        Self::StoppedEarly,
        Self::UnstablePrompt,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::Trimmed => "trimmed",
            Self::Routed => "routed",
            Self::CacheControl => "cache_control",
            Self::Watched => "watched",
            Self::StoppedEarly => "stopped_early",
            Self::UnstablePrompt => "unstable_prompt",
        }
    }
}

impl Saved {
    fn new(kind: Kind, detail: impl ToString) -> Self {
        Self { kind, detail: Some(detail.to_string()) }
    }

    fn plain(kind: Kind) -> Self {
        Self { kind, detail: None }
    }
}

impl std::fmt::Display for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{}={detail}", self.kind.as_str()),
            None => f.write_str(self.kind.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_word_of_its_own() {
        let words: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(words.len(), Kind::ALL.len());
        assert_eq!(Saved::new(Kind::Trimmed, 14).to_string(), "trimmed=14");
        assert_eq!(Saved::plain(Kind::CacheControl).to_string(), "cache_control");
    }
}
