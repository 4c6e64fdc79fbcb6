//! The providers, as one service: a request in, the provider's answer or a gateway error out.
//!
//! Bodies and end-to-end headers pass unchanged in both directions. Redirects are not followed, and where a request
//! goes is decided by configuration and path alone, never by anything in the request.

pub mod judge;
mod keys;
mod tls;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_service::Service;

pub use self::keys::{InvalidKey, OperatorsKeys, ProviderKey, WithOperatorsKey};
use crate::body::{Body, problem_response};
use crate::wire::problem::Problem;

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// What an OpenAI client would be given as base URL, `…/v1`.
    pub openai: Uri,
    /// What an Anthropic client would be given as base URL, without `/v1`.
    pub anthropic: Uri,
    pub connect_timeout: Duration,
    /// Longest wait for a response's head.
    pub head_timeout: Duration,
}

/// A pooled client for http and https.
pub type HttpClient = Client<HttpsConnector<HttpConnector>, Body>;

/// # Errors
/// The machine offers no usable TLS configuration.
pub fn http_client(connect_timeout: Duration) -> Result<HttpClient, rustls::Error> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(connect_timeout));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls::config()?)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector))
}

/// The HTTP client for the configured providers.
#[derive(Clone)]
pub struct Upstream {
    client: HttpClient,
    settings: Arc<UpstreamSettings>,
    keys: OperatorsKeys,
}

impl Upstream {
    /// # Errors
    /// The machine offers no usable TLS configuration.
    pub fn new(settings: UpstreamSettings) -> Result<Self, rustls::Error> {
        Ok(Self {
            client: http_client(settings.connect_timeout)?,
            settings: Arc::new(settings),
            keys: OperatorsKeys::default(),
        })
    }

    /// With keys for callers that bring none of their own.
    pub fn with_keys(self, keys: OperatorsKeys) -> Self {
        Self { keys, ..self }
    }

    async fn send(self, request: Request<Body>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let Some(target) = self.settings.target(&parts.uri, &parts.headers) else {
            let message = format!("no upstream for the path {:?}", parts.uri.path());
            return problem_response(&Problem::new(StatusCode::NOT_FOUND, "unknown_path", message));
        };
        let wants_key = parts.extensions.remove::<WithOperatorsKey>().is_some();
        if let Some((name, value)) = self.keys.header_for(is_for_anthropic(parts.uri.path(), &parts.headers), wants_key)
        {
            parts.headers.insert(name, value);
        }
        parts.uri = target;
        parts.version = Version::HTTP_11;
        parts.headers.remove(HOST);
        remove_hop_by_hop(&mut parts.headers);
        let answer =
            tokio::time::timeout(self.settings.head_timeout, self.client.request(Request::from_parts(parts, body)));
        match answer.await {
            Ok(Ok(mut response)) => {
                remove_hop_by_hop(response.headers_mut());
                response.map(Body::new)
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %chain(&error), "could not reach the upstream");
                let message = "the upstream could not be reached";
                problem_response(&Problem::new(StatusCode::BAD_GATEWAY, "upstream_unreachable", message))
            }
            Err(_) => {
                let message = format!("the upstream did not answer within {} s", self.settings.head_timeout.as_secs());
                problem_response(&Problem::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message))
            }
        }
    }
}

impl UpstreamSettings {
    /// Where a request for `/v1/…` goes: Anthropic's paths and clients to Anthropic, everything else to OpenAI.
    fn target(&self, uri: &Uri, headers: &HeaderMap) -> Option<Uri> {
        let path = uri.path();
        let tail = path.strip_prefix("/v1/")?;
        let (base, tail) = if is_for_anthropic(path, headers) {
            (&self.anthropic, path.trim_start_matches('/'))
        } else {
            (&self.openai, tail)
        };
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let target = format!("{}/{tail}{query}", base.path().trim_end_matches('/'));
        let mut parts = base.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
        Uri::from_parts(parts).ok()
    }
}

fn is_for_anthropic(path: &str, headers: &HeaderMap) -> bool {
    path == "/v1/messages"
        || path.starts_with("/v1/messages/")
        || (headers.contains_key("anthropic-version") && path != "/v1/chat/completions")
}

impl Service<Request<Body>> for Upstream {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let upstream = self.clone();
        Box::pin(async move { Ok(upstream.send(request).await) })
    }
}

/// Removes the headers that speak of one connection only (RFC 9110, 7.6.1).
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let fixed = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    let old = ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"];
    let all = named.into_iter().chain(fixed).chain(old.into_iter().map(HeaderName::from_static));
    all.for_each(|name| drop(headers.remove(name)));
}

/// The error and what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let settings = UpstreamSettings {
            openai: Uri::from_static("http://one.example:81/api/v1"),
            anthropic: Uri::from_static("https://two.example/"),
            connect_timeout: Duration::ZERO,
            head_timeout: Duration::ZERO,
        };
        let check = |path: &'static str, anthropic: bool, expected: Option<&str>| {
            let headers = anthropic
                .then(|| (HeaderName::from_static("anthropic-version"), "2023-06-01".parse().expect("a value")));
            let target = settings.target(&Uri::from_static(path), &headers.into_iter().collect());
            assert_eq!(target.map(|uri| uri.to_string()).as_deref(), expected, "{path}");
        };
        check("/v1/chat/completions", false, Some("http://one.example:81/api/v1/chat/completions"));
        check("/v1/models?limit=2", false, Some("http://one.example:81/api/v1/models?limit=2"));
        check("/v1/messages", false, Some("https://two.example/v1/messages"));
        check("/v1/messages/count_tokens", false, Some("https://two.example/v1/messages/count_tokens"));
        check("/v1/models", true, Some("https://two.example/v1/models"));
        check("/v1/chat/completions", true, Some("http://one.example:81/api/v1/chat/completions"));
        check("/v1/messagesx", false, Some("http://one.example:81/api/v1/messagesx"));
        check("/v2/chat", false, None);
        check("/", false, None);
    }

    #[test]
    fn hop_by_hop_headers_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("keep-alive", "5"),
            ("x-other", "2"),
        ] {
            headers.insert(name, value.parse().expect("a value"));
        }
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
    }
}
