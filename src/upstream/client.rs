//! One provider over HTTP: a service that sends a request to where this provider has its path, once.
//!
//! Bodies and end-to-end headers pass unchanged in both directions. Redirects are not followed. Dropped, a call is
//! given up and its connection closed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_service::Service;

use super::address::{Connector, Resolver};
use super::failure::Failure;
use super::idle::Idle;
use super::key::{ProviderKey, WithOperatorsKey};
use super::settings::Endpoint;
use super::{routes, tls};
use crate::body::Body;

/// A pooled client for http and https.
pub type HttpClient = Client<Connector, Body>;

/// # Errors
/// The machine offers no usable TLS configuration.
pub fn http_client(connect_timeout: Duration) -> Result<HttpClient, rustls::Error> {
    let mut connector = HttpConnector::new_with_resolver(Resolver::new());
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(connect_timeout));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls::config()?)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(connector);
    let connector = Connector::new(connector, connect_timeout);
    Ok(Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector))
}

/// The client of one provider.
#[derive(Clone)]
pub(super) struct Provider {
    client: HttpClient,
    calls: Arc<Calls>,
}

/// How a provider is called.
pub(super) struct Calls {
    pub(super) endpoint: Endpoint,
    pub(super) key: Option<ProviderKey>,
    pub(super) head_timeout: Duration,
    pub(super) idle_timeout: Duration,
}

impl Provider {
    pub(super) fn new(client: HttpClient, calls: Calls) -> Self {
        Self { client, calls: Arc::new(calls) }
    }

    async fn send(self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let Calls { endpoint, key, head_timeout, idle_timeout } = &*self.calls;
        let (mut parts, body) = request.into_parts();
        let unknown = || Failure::UnknownPath(parts.uri.path().to_owned());
        let target = routes::target(endpoint, &parts.uri).ok_or_else(unknown)?;
        let asked = std::mem::replace(&mut parts.uri, target);
        parts.version = Version::HTTP_11;
        parts.headers.remove(HOST);
        remove_hop_by_hop(&mut parts.headers);
        // The two defaults' are for callers that bring none of their own, and for calls that reach nobody else's data.
        let is_lent =
            parts.extensions.get::<WithOperatorsKey>().is_some() && routes::lends_key(&parts.method, asked.path());
        let is_wanted = !endpoint.is_default() || is_lent;
        if let Some(key) = key.as_ref().filter(|_| is_wanted) {
            key.insert(endpoint.protocol, &mut parts.headers);
        }
        let answer = self.client.request(Request::from_parts(parts, body));
        match tokio::time::timeout(*head_timeout, answer).await {
            // Nobody asked for another protocol, and the client must not be told that it got one.
            Ok(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                tracing::warn!(upstream = endpoint.name, "the upstream switched protocols unasked");
                Err(Failure::Unreachable)
            }
            Ok(Ok(mut response)) => {
                remove_hop_by_hop(response.headers_mut());
                Ok(response.map(|body| Body::new(Idle::new(Body::new(body), *idle_timeout))))
            }
            Ok(Err(error)) => {
                tracing::warn!(upstream = endpoint.name, error = %chain(&error), "could not reach the upstream");
                Err(Failure::Unreachable)
            }
            Err(_) => Err(Failure::TimedOut(*head_timeout)),
        }
    }
}

impl Service<Request<Body>> for Provider {
    type Response = Response<Body>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
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
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

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
