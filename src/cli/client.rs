//! A running server, as the commands call it.

use std::fmt;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::BodyExt;
use serde_json::Value;

use super::Failure;
use crate::body::Body;
use crate::decision::CacheName;
use crate::upstream::{HttpClient, http_client};

/// Which server, as whom, and which cache.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// Address of the server's data listener.
    #[arg(long, env = "NEARHIT_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Key to call with, nearhit's own (nh_...) or a provider's; it decides whose entries are used.
    #[arg(long, env = "NEARHIT_KEY", hide_env_values = true)]
    key: Option<CallersKey>,
    /// Print the server's JSON instead of text.
    #[arg(long, env = "NEARHIT_JSON", value_parser = FalseyValueParser::new())]
    pub(super) json: bool,
}

/// A key to call with, which no message shows.
#[derive(Clone)]
struct CallersKey(String);

impl From<String> for CallersKey {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for CallersKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallersKey")
    }
}

/// The name of a cache.
#[derive(Debug, Args)]
pub(super) struct CacheArg {
    /// Which cache.
    #[arg(long, env = "NEARHIT_CACHE", default_value = "default")]
    pub(super) cache: String,
}

impl CacheArg {
    /// The path of one of the cache's resources.
    pub(super) fn path(&self, rest: &str) -> Result<String, Failure> {
        let name = CacheName::parse(&self.cache).map_err(|error| Failure::usage(format!("--cache: {error}")))?;
        Ok(format!("/v1/caches/{name}{rest}"))
    }
}

/// A connection to a server.
pub(super) struct Server {
    client: HttpClient,
    base: String,
    key: Option<CallersKey>,
}

impl Server {
    pub(super) fn new(args: &ServerArgs) -> Result<Self, Failure> {
        let base = args.url.trim_end_matches('/').to_owned();
        let usable = base.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.authority().is_some());
        if !usable {
            return Err(Failure::usage(format!(
                "--url: must be a URL such as http://127.0.0.1:8080, got {:?}",
                args.url
            )));
        }
        let client = http_client(Duration::from_secs(5)).map_err(|error| Failure::os(format!("TLS: {error}")))?;
        Ok(Self { client, base, key: args.key.clone() })
    }

    /// The answer's JSON; `null` where it has none. A refusal by the server is a failure with its message.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let unreachable = |error: String| Failure::unavailable(format!("{}: {error}", self.base));
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(CONTENT_TYPE, "application/json");
        if let Some(CallersKey(key)) = &self.key {
            let value = HeaderValue::try_from(format!("Bearer {key}"));
            let mut value = value.map_err(|_| Failure::usage("--key: must be a word of visible ASCII characters"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let body = Body::from(body.map(Value::to_string).unwrap_or_default());
        let request = request.body(body).map_err(|error| Failure::usage(error.to_string()))?;
        let response = self.client.request(request).await.map_err(|error| unreachable(cause(&error)))?;
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(|error| unreachable(error.to_string()))?.to_bytes();
        let value: Option<Value> =
            if bytes.is_empty() { Some(Value::Null) } else { serde_json::from_slice(&bytes).ok() };
        if status.is_success() {
            return value.ok_or_else(|| {
                unreachable(format!("answered {status} with something that is not JSON; is this nearhit?"))
            });
        }
        let message =
            value.as_ref().and_then(|value| value.pointer("/error/message")?.as_str()).unwrap_or("no message");
        let failure = format!("the server answered {status}: {message}");
        Err(match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE => Failure::temporary(failure),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::no_permission(failure),
            status if status.is_server_error() => Failure::unavailable(failure),
            _ => Failure::data(failure),
        })
    }
}

fn cause(error: &dyn std::error::Error) -> String {
    let innermost = std::iter::successors(Some(error), |error| error.source()).last();
    innermost.map(ToString::to_string).unwrap_or_default()
}
