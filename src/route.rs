//! Where a request would go: the upstream and the model that its answer depends on, known before it is sent.
//!
//! Who sends requests says so to whoever caches their answers. Nothing is sent here.

use std::fmt;

/// An upstream, and a model of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Names the upstream: answers of one are never served for another.
    pub upstream: String,
    /// The model that the upstream is asked for.
    pub model: String,
}

/// Says where requests go.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// `path` is the request's (`/v1/chat/completions`), `model` the one that its body names.
    fn resolve(&self, path: &str, model: &str) -> Resolved;
}

/// One upstream for everything, under this name, whose models are called what the caller calls them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OneUpstream(pub String);

impl Resolve for OneUpstream {
    fn resolve(&self, _: &str, model: &str) -> Resolved {
        Resolved { upstream: self.0.clone(), model: model.to_owned() }
    }
}

/// In a request's extensions: somebody else sends it, by rules of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Names where to, in place of what [`Resolve`] says; the model is the one that the body names.
    pub upstream: String,
    /// Whether the body is here. Without it nothing is looked up.
    pub is_read: bool,
}

/// In a response's extensions: another upstream answered than the one that the request resolves to. Such an answer is
/// sent, and never kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Substitute;

/// The headers in which clients send their providers' keys, in the order in which a caller is named by them.
pub const KEY_HEADERS: [&str; 3] = ["authorization", "x-api-key", "api-key"];

/// In a request's extensions: who goes first where requests wait for a provider's limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// Nobody does. It takes what is left, and at least one turn in five.
    Batch,
}

impl Priority {
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Batch];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.as_str() == word)
    }
}

/// Whether a name is one of those that a pattern stands for: `*` is any characters, everything else is itself.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut rest) = name.strip_prefix(head) else { return false };
    let (middle, end) = tail.rsplit_once('*').map_or(("", tail), |(middle, end)| (middle, end));
    for part in middle.split('*').filter(|part| !part.is_empty()) {
        let Some(place) = rest.find(part) else { return false };
        rest = &rest[place + part.len()..];
    }
    rest.ends_with(end)
}
