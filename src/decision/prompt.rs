//! What a request asks, and everything else that its answer depends on.
//!
//! A [`Prompt`] is the last user text, which may be matched by meaning, and a [`Scope`], which must be equal to the
//! byte. What is in neither cannot change an answer. This file does not know any provider's JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use super::turn::Turn;

/// Values that must be equal for an entry to be served, by name.
pub type Attributes = BTreeMap<String, String>;

/// Template variables: the parts of the text that the caller marks as values, by name.
pub type Vars = BTreeMap<String, String>;

/// One question, reduced to what its answer depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    pub scope: Scope,
    /// The last user text, [`normalise`]d. Empty where only an equal request may be answered alike.
    pub text: String,
    pub vars: Vars,
}

impl Prompt {
    pub fn new(scope: Scope, text: &str, vars: Vars) -> Self {
        let vars = vars.into_iter().map(|(name, value)| (name, normalise(&value))).collect();
        Self { scope, text: normalise(text), vars }
    }

    /// Whether there is anything that could be near in meaning.
    pub fn has_meaning(&self) -> bool {
        !self.text.is_empty() && !self.scope.surface.is_with_tools()
    }
}

/// Everything but the last user text that an answer depends on. Compared exactly.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    pub tenant: Tenant,
    pub cache: CacheName,
    pub surface: Surface,
    /// Name of the upstream that would answer; empty for a bare prompt.
    pub upstream: String,
    /// Model asked for; empty for a bare prompt.
    pub model: String,
    /// Earlier turns and system prompt, in order.
    pub turns: Vec<Turn>,
    /// Tools, response format, sampling parameters and every field that nearhit does not know.
    pub parameters: BTreeMap<String, Value>,
    /// Request headers that change an answer (API version, betas, organisation).
    pub headers: BTreeMap<String, String>,
    pub attributes: Attributes,
}

impl Scope {
    /// Of a prompt without a provider request around it, a context or attributes.
    pub fn bare(tenant: Tenant, cache: CacheName) -> Self {
        Self {
            tenant,
            cache,
            surface: Surface::Text,
            upstream: String::new(),
            model: String::new(),
            turns: Vec::new(),
            parameters: BTreeMap::new(),
            headers: BTreeMap::new(),
            attributes: Attributes::new(),
        }
    }
}

/// Which kind of caller a prompt came from: one kind never serves the other, for their answers differ in shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// A bare prompt through the cache API.
    Text,
    /// A chat completion request, proxied or through the cache API; or one of another API that says the same.
    Chat,
    /// A request to Anthropic's messages.
    Messages,
    /// A request to OpenAI's responses.
    Responses,
    /// A request to OpenAI's completions, the older API.
    Completions,
    /// A request for embeddings.
    Embeddings,
    /// A chat completion request with tools in it, or calls of them: only an equal one may be answered alike.
    ChatWithTools,
    /// A request to Anthropic's messages with tools in it, or calls of them.
    MessagesWithTools,
}

impl Surface {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Surface::Text => "text",
            Surface::Chat => "chat",
            Surface::Messages => "messages",
            Surface::Responses => "responses",
            Surface::Completions => "completions",
            Surface::Embeddings => "embeddings",
            Surface::ChatWithTools => "chat_with_tools",
            Surface::MessagesWithTools => "messages_with_tools",
        }
    }

    /// Whether answers may be calls of the client's tools.
    pub fn is_with_tools(self) -> bool {
        matches!(self, Surface::ChatWithTools | Surface::MessagesWithTools)
    }
}

/// Whose entries these are. Two tenants share nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tenant(Arc<str>);

impl Tenant {
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a cache: `[a-z0-9][a-z0-9_-]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct CacheName(Arc<str>);

impl CacheName {
    /// # Errors
    /// The name is empty, longer than 64 bytes, or holds a character outside `[a-z0-9_-]`.
    pub fn parse(name: &str) -> Result<Self, InvalidCacheName> {
        let ordinary = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let valid = name.len() <= 64
            && name.bytes().next().is_some_and(ordinary)
            && name.bytes().all(|b| ordinary(b) || b == b'_' || b == b'-');
        if valid { Ok(Self(name.into())) } else { Err(InvalidCacheName(name.chars().take(80).collect())) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for CacheName {
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for CacheName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for CacheName {
    type Error = InvalidCacheName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::parse(&name)
    }
}

/// A name that no cache can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cache name {0:?} is not of the form [a-z0-9][a-z0-9_-]{{0,63}}")]
pub struct InvalidCacheName(String);

/// Text with the differences removed that no reader can see and no model is meant to: canonical composition (NFC),
/// line ends as LF, no space around. Case, inner space and punctuation stay: in code they carry meaning.
pub fn normalise(text: &str) -> String {
    let composed: String = text.nfc().collect();
    let lines = if composed.contains('\r') { composed.replace("\r\n", "\n").replace('\r', "\n") } else { composed };
    lines.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_names() {
        fn check(name: &str, valid: bool) {
            assert_eq!(CacheName::parse(name).is_ok(), valid, "{name:?}");
        }
        check("default", true);
        check("a", true);
        check("0-support_eu", true);
        check(&"a".repeat(64), true);
        check(&"a".repeat(65), false);
        check("", false);
        check("-a", false);
        check("_a", false);
        check("A", false);
        check("a.b", false);
        check("../x", false);
        check("a\0", false);
        check("é", false);
    }

    #[test]
    fn normalising() {
        fn check(from: &str, to: &str) {
            assert_eq!(normalise(from), to);
            assert_eq!(normalise(to), to, "normalising twice changes nothing");
        }
        check("  hello \n", "hello");
        check("a\r\nb\rc", "a\nb\nc");
        check("cafe\u{301}", "café");
        check("if x:\n    y", "if x:\n    y");
        check("US", "US");
        check("", "");
    }
}
