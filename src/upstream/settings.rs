//! What can be set about upstreams.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

/// Every upstream, and how all of them are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// The upstreams in the order in which they are asked for a model; the first that names it has it. Last come
    /// [`OPENAI`] and [`ANTHROPIC`], which have everything of their protocol that no other has.
    pub endpoints: Vec<Endpoint>,
    /// Models by another name: the name that clients use, and the one that is asked for.
    pub aliases: BTreeMap<String, String>,
    /// Longest wait for a connection, name and TLS included.
    pub connect_timeout: Duration,
    /// Longest wait for a response's head.
    pub head_timeout: Duration,
    /// Longest wait for the next bytes of a response's body.
    pub idle_timeout: Duration,
    pub breaker: BreakerSettings,
    pub queue: QueueSettings,
    /// Largest body that is read to see which model it asks for; a larger one goes to its protocol's default.
    pub body_bytes_max: usize,
}

/// One provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `[a-z0-9][a-z0-9_-]{0,63}`, another one for each.
    pub name: String,
    pub protocol: Protocol,
    /// What a client of the protocol would be given as base URL.
    pub url: Uri,
    /// Where its key is; without one the client's own is sent. That of the two defaults is sent only for clients of nearhit's
    /// keys that bring none.
    pub key: Option<KeySource>,
    /// Which models it has: names in which `*` stands for any characters.
    pub models: Vec<String>,
    /// What it is asked for, whatever the client asks for.
    pub model: Option<String>,
    /// Tries after the first.
    pub retries: u32,
    /// Upstreams of the same protocol that are asked after it, by name.
    pub fallback: Vec<String>,
    pub limit: RateLimit,
}

/// Which API an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    OpenAi,
    Anthropic,
}

/// Where a provider's key is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// An environment variable.
    Env(String),
    /// A file with nothing else in it.
    File(PathBuf),
}

/// What a provider takes in a minute from one key; no limit where none is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimit {
    pub requests: Option<u32>,
    pub tokens: Option<u32>,
}

/// When an upstream is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// After this many failures in a row.
    pub failures: u32,
    /// For this long, before one call tries it again.
    pub pause: Duration,
}

/// How requests wait for a provider's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// Most that wait for one upstream and key.
    pub length: usize,
    /// Longest wait.
    pub wait: Duration,
}

impl Endpoint {
    /// Whether it is one of the two that are always there.
    pub fn is_default(&self) -> bool {
        self.name == OPENAI || self.name == ANTHROPIC
    }

    /// A provider that has every model, or none but as a fallback, with the caller's key.
    pub fn new(name: &str, protocol: Protocol, url: Uri) -> Self {
        Self {
            name: name.to_owned(),
            protocol,
            url,
            key: None,
            models: Vec::new(),
            model: None,
            retries: 0,
            fallback: Vec::new(),
            limit: RateLimit::default(),
        }
    }
}

impl UpstreamSettings {
    /// One upstream a protocol: base URLs as their clients would be given them, `…/v1` for OpenAI's.
    pub fn new(openai: Uri, anthropic: Uri) -> Self {
        Self {
            endpoints: vec![
                Endpoint::new(OPENAI, Protocol::OpenAi, openai),
                Endpoint::new(ANTHROPIC, Protocol::Anthropic, anthropic),
            ],
            aliases: BTreeMap::new(),
            connect_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(300),
            breaker: BreakerSettings { failures: 5, pause: Duration::from_secs(30) },
            queue: QueueSettings { length: 1000, wait: Duration::from_secs(60) },
            body_bytes_max: 32 << 20,
        }
    }
}

impl Default for UpstreamSettings {
    /// The public APIs.
    fn default() -> Self {
        Self::new(Uri::from_static(OPENAI_URL), Uri::from_static(ANTHROPIC_URL))
    }
}

/// The upstream that has every model of OpenAI's protocol that no other has.
pub const OPENAI: &str = "openai";

/// The same for Anthropic's.
pub const ANTHROPIC: &str = "anthropic";

pub const OPENAI_URL: &str = "https://api.openai.com/v1";
pub const ANTHROPIC_URL: &str = "https://api.anthropic.com";
