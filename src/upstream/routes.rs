//! Which upstream has a model, and where on it a path is. Configuration decides, path and model ask; nothing else in a
//! request has a say.

use std::collections::BTreeMap;

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri};

use super::settings::{Endpoint, Protocol, UpstreamSettings};
use crate::route::{Resolve, Resolved, matches};

/// The upstreams, their models, and their models' other names.
#[derive(Debug)]
pub(super) struct Routes {
    endpoints: Vec<Endpoint>,
    aliases: BTreeMap<String, String>,
}

/// The upstreams that may answer a call, by their places, the first of them first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) legs: Vec<Leg>,
}

/// One of them, and what it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leg {
    pub(super) endpoint: usize,
    pub(super) model: String,
}

impl Routes {
    pub(super) fn new(settings: &UpstreamSettings) -> Self {
        Self { endpoints: settings.endpoints.clone(), aliases: settings.aliases.clone() }
    }

    /// Whether a body must be read to know where it goes, or to send it twice.
    pub(super) fn read_bodies(&self) -> bool {
        let decides = |endpoint: &Endpoint| {
            endpoint.retries > 0
                || !endpoint.models.is_empty()
                || endpoint.model.is_some()
                || !endpoint.fallback.is_empty()
        };
        !self.aliases.is_empty() || self.endpoints.iter().any(decides)
    }

    /// Where a call for a model goes, and where if that fails.
    pub(super) fn route(&self, protocol: Protocol, model: &str) -> Option<Route> {
        let model = self.aliases.get(model).map_or(model, String::as_str);
        let has =
            |endpoint: &Endpoint| endpoint.protocol == protocol && endpoint.models.iter().any(|m| matches(m, model));
        let first = self.endpoints.iter().position(has).or_else(|| self.default_of(protocol))?;
        let leg = |place: usize| {
            let own = self.endpoints[place].model.as_deref();
            Leg { endpoint: place, model: own.unwrap_or(model).to_owned() }
        };
        let place_of = |name: &String| self.endpoints.iter().position(|endpoint| endpoint.name == *name);
        let fallbacks = self.endpoints[first].fallback.iter().filter_map(place_of);
        Some(Route { legs: std::iter::once(first).chain(fallbacks).map(leg).collect() })
    }

    /// The upstream of a protocol's calls that name no model: its last.
    pub(super) fn default_of(&self, protocol: Protocol) -> Option<usize> {
        self.endpoints.iter().rposition(|endpoint| endpoint.protocol == protocol)
    }
}

impl Resolve for Routes {
    fn resolve(&self, path: &str, model: &str) -> Resolved {
        let protocol = protocol_of(path, &HeaderMap::new());
        match self.route(protocol, model).and_then(|route| route.legs.into_iter().next()) {
            Some(Leg { endpoint, model }) => Resolved { upstream: identity(&self.endpoints[endpoint]), model },
            None => Resolved { upstream: String::new(), model: model.to_owned() },
        }
    }
}

/// What answers of an upstream are kept under: the same name with another URL is another one. The two that need no name
/// are their URL.
fn identity(endpoint: &Endpoint) -> String {
    match endpoint.name.as_str() {
        super::OPENAI | super::ANTHROPIC => endpoint.url.to_string(),
        name => format!("{name} {}", endpoint.url),
    }
}

/// Whether a path below `/v1/` is a call for a model, whose body names it.
pub(super) fn names_model(path: &str) -> bool {
    path == "/v1/messages" || OPENAI_CALLS.contains(&path)
}

/// Whether the operator's key goes with a call of somebody who has none: models may be called and listed. Anything else
/// could read, change or delete what others keep at the provider under the same key.
pub(super) fn lends_key(method: &Method, path: &str) -> bool {
    let is_model = |id: &str| !id.is_empty() && !id.contains(['/', '%', '\\']);
    match *method {
        Method::POST => names_model(path) || path == "/v1/messages/count_tokens",
        Method::GET => path == "/v1/models" || path.strip_prefix("/v1/models/").is_some_and(is_model),
        _ => false,
    }
}

/// Whose a path is: Anthropic's paths and clients are Anthropic's, everything else is OpenAI's.
pub(super) fn protocol_of(path: &str, headers: &HeaderMap) -> Protocol {
    let is_messages = path == "/v1/messages" || path.starts_with("/v1/messages/");
    if is_messages || headers.contains_key("anthropic-version") && !OPENAI_CALLS.contains(&path) {
        Protocol::Anthropic
    } else {
        Protocol::OpenAi
    }
}

/// Where on an upstream a request for `/v1/…` goes.
pub(super) fn target(endpoint: &Endpoint, uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let below = path.strip_prefix("/v1/")?;
    // An OpenAI client's base URL ends in /v1, an Anthropic client's does not.
    let tail = match endpoint.protocol {
        Protocol::OpenAi => below,
        Protocol::Anthropic => path.trim_start_matches('/'),
    };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let target = format!("{}/{tail}{query}", endpoint.url.path().trim_end_matches('/'));
    let mut parts = endpoint.url.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

/// The calls whose body names a model and that OpenAI's protocol alone has.
const OPENAI_CALLS: &[&str] = &["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::settings::{ANTHROPIC_URL, OPENAI};

    #[test]
    fn targets() {
        let routes = Routes::new(&UpstreamSettings::new(
            Uri::from_static("http://one.example:81/api/v1"),
            Uri::from_static("https://two.example/"),
        ));
        let check = |path: &'static str, anthropic: bool, expected: Option<&str>| {
            let version =
                || (http::HeaderName::from_static("anthropic-version"), "2023-06-01".parse().expect("a value"));
            let headers: HeaderMap = anthropic.then(version).into_iter().collect();
            let uri = Uri::from_static(path);
            let place = routes.default_of(protocol_of(uri.path(), &headers)).expect("one a protocol");
            let found = target(&routes.endpoints[place], &uri);
            assert_eq!(found.map(|uri| uri.to_string()).as_deref(), expected, "{path}");
        };
        check("/v1/chat/completions", false, Some("http://one.example:81/api/v1/chat/completions"));
        check("/v1/models?limit=2", false, Some("http://one.example:81/api/v1/models?limit=2"));
        check("/v1/messages", false, Some("https://two.example/v1/messages"));
        check("/v1/messages/count_tokens", false, Some("https://two.example/v1/messages/count_tokens"));
        check("/v1/models", true, Some("https://two.example/v1/models"));
        check("/v1/chat/completions", true, Some("http://one.example:81/api/v1/chat/completions"));
        check("/v1/embeddings", true, Some("http://one.example:81/api/v1/embeddings"));
        check("/v1/messagesx", false, Some("http://one.example:81/api/v1/messagesx"));
        // Whatever host a request names, the configured one is called.
        check("http://elsewhere.example/v1/models", false, Some("http://one.example:81/api/v1/models"));
        check("/v2/chat", false, None);
        check("/", false, None);
    }

    fn routes() -> Routes {
        let uri = |text: &'static str| Uri::from_static(text);
        let mut settings = UpstreamSettings::default();
        let local = Endpoint {
            models: vec!["llama*".into(), "qwen".into()],
            ..Endpoint::new("local", Protocol::OpenAi, uri("http://127.0.0.1:1/v1"))
        };
        let gpt = Endpoint {
            models: vec!["gpt-4o*".into(), "*".into()],
            fallback: vec!["local".into(), "one".into(), OPENAI.into()],
            ..Endpoint::new("gpt", Protocol::OpenAi, uri("http://127.0.0.1:2/v1"))
        };
        let one = Endpoint {
            model: Some("only".into()),
            ..Endpoint::new("one", Protocol::OpenAi, uri("http://127.0.0.1:3/v1"))
        };
        settings.endpoints.splice(0..0, [local, gpt, one]);
        settings.aliases = [("fast".to_owned(), "llama3".to_owned())].into();
        Routes::new(&settings)
    }

    #[test]
    fn the_first_that_has_a_model_gets_it() {
        let routes = routes();
        let check = |path: &str, asked: &str, upstream: &str, model: &str| {
            let expected = Resolved { upstream: upstream.into(), model: model.into() };
            assert_eq!(routes.resolve(path, asked), expected, "{path} {asked}");
        };
        let chat = "/v1/chat/completions";
        check(chat, "llama3", "local http://127.0.0.1:1/v1", "llama3");
        check(chat, "fast", "local http://127.0.0.1:1/v1", "llama3");
        check(chat, "qwen", "local http://127.0.0.1:1/v1", "qwen");
        check(chat, "qwen2", "gpt http://127.0.0.1:2/v1", "qwen2");
        check("/v1/embeddings", "", "gpt http://127.0.0.1:2/v1", "");
        check("/v1/messages", "llama3", &format!("{ANTHROPIC_URL}/"), "llama3");
        let public = Routes::new(&UpstreamSettings::default());
        assert_eq!(public.resolve(chat, "m").upstream, "https://api.openai.com/v1");
        assert!(!public.read_bodies() && routes.read_bodies());
    }

    #[test]
    fn the_operators_key_is_lent_for_models_only() {
        let check = |method: Method, path: &str, expected: bool| {
            assert_eq!(lends_key(&method, path), expected, "{method} {path}");
        };
        for path in OPENAI_CALLS.iter().chain(&["/v1/messages", "/v1/messages/count_tokens"]) {
            check(Method::POST, path, true);
            check(Method::GET, path, false);
            check(Method::DELETE, path, false);
            check(Method::POST, &format!("{path}/id"), false);
        }
        check(Method::GET, "/v1/models", true);
        check(Method::GET, "/v1/models/ft:gpt-4o:acme::1", true);
        check(Method::DELETE, "/v1/models/m", false);
        check(Method::GET, "/v1/models/", false);
        check(Method::GET, "/v1/models/m/files", false);
        check(Method::GET, "/v1/models/..%2Ffiles", false);
        check(Method::GET, "/v1/files", false);
        check(Method::POST, "/v1/files", false);
        check(Method::POST, "/v1/messages/batches", false);
        check(Method::GET, "/v1/responses/resp_1", false);
    }

    #[test]
    fn a_fallback_is_asked_for_the_model_that_it_has() {
        let legs = routes().route(Protocol::OpenAi, "gpt-4o").expect("a route").legs;
        let legs: Vec<_> = legs.iter().map(|leg| (leg.endpoint, leg.model.as_str())).collect();
        assert_eq!(legs, [(1, "gpt-4o"), (0, "gpt-4o"), (2, "only"), (3, "gpt-4o")]);
    }

    #[test]
    fn patterns() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        };
        check("gpt-4o*", "gpt-4o", true);
        check("gpt-4o*", "gpt-4o-mini", true);
        check("gpt-4o*", "gpt-4", false);
        check("gpt-4o", "gpt-4o-mini", false);
        check("*", "", true);
        check("*", "anything/at:all", true);
        check("*mini", "gpt-4o-mini", true);
        check("*mini", "gpt-4o-mini-2", false);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-c-b", false);
        check("ab*ba", "aba", false);
        check("a**a", "aa", true);
        check("", "", true);
        check("gpt.4o", "gpt-4o", false);
    }

    proptest! {
        /// As the plain definition has it: a star takes nothing, or one character and goes on.
        #[test]
        fn patterns_match_as_defined(pattern in "[ab*]{0,6}", name in "[ab]{0,8}") {
            fn by_definition(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern, name) {
                    ([], _) => name.is_empty(),
                    ([b'*', rest @ ..], _) => {
                        by_definition(rest, name) || !name.is_empty() && by_definition(pattern, &name[1..])
                    }
                    ([p, pattern @ ..], [n, name @ ..]) => p == n && by_definition(pattern, name),
                    (_, []) => false,
                }
            }
            prop_assert_eq!(matches(&pattern, &name), by_definition(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
