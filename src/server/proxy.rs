//! Provider paths: the cache layer around the upstreams.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue};
use tower_layer::Layer;
use tower_service::Service;

use super::error;
use crate::body::shaped;
use crate::layer::{CacheLayer, CacheService};
use crate::route::Priority;
use crate::savings::{HintedService, Savings, SavingsService};
use crate::upstream::{Answered, Upstream};
use crate::wire::controls::header;
use crate::wire::problem::Problem;

/// The upstreams behind the cache, and the rules for savings around both.
pub(super) type Proxy = SavingsService<CacheService<HintedService<Upstream>>>;

pub(super) fn service(cache: &CacheLayer, upstream: &Upstream, savings: &Savings) -> Proxy {
    savings.before_cache(cache.layer(savings.behind_cache(upstream.clone())))
}

/// Sends `/v1/…` through the cache to the upstream; anything else is not found.
pub(super) async fn forward(mut service: Proxy, mut request: Request) -> Response {
    if !is_provider_path(request.uri().path()) {
        return error::unknown_path(request).await.into_response();
    }
    match priority(request.headers()) {
        Ok(priority) => drop(request.extensions_mut().insert(priority)),
        Err(problem) => return error::ApiError::from(problem).into_response(),
    }
    match service.call(request).await {
        Ok(mut response) => {
            say_who_answered(&mut response);
            response.map(axum::body::Body::new)
        }
        Err(never) => match never {},
    }
}

fn priority(headers: &HeaderMap) -> Result<Priority, Problem> {
    let Some(value) = headers.get(&header::PRIORITY) else { return Ok(Priority::default()) };
    value.to_str().ok().and_then(Priority::parse).ok_or_else(|| {
        let name = header::PRIORITY;
        Problem::invalid(name.as_str(), format!("{name}: must be interactive or batch, got {value:?}"))
    })
}

fn say_who_answered<B>(response: &mut http::Response<B>) {
    let Some(Answered { upstream, tries }) = response.extensions_mut().remove() else { return };
    let headers = response.headers_mut();
    headers.insert(header::TRIES, HeaderValue::from(tries));
    if let Ok(upstream) = HeaderValue::from_str(&upstream) {
        headers.insert(header::UPSTREAM, upstream);
    }
}

/// Says what is wrong in the shape that the path's clients read.
pub(super) async fn shape(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    shaped(&path, error::answered(request, next).await, axum::body::Body::new)
}

/// A path below `/v1/` that is not the cache API's, spelt without tricks.
fn is_provider_path(path: &str) -> bool {
    let plain = path.split('/').skip(1).all(|segment| !segment.is_empty() && !is_dots(segment));
    path.starts_with("/v1/") && path != "/v1/caches" && !path.starts_with("/v1/caches/") && plain
}

/// `.` and `..`, percent-encoded or not.
fn is_dots(segment: &str) -> bool {
    let decoded = segment.replace("%2e", ".").replace("%2E", ".");
    decoded == "." || decoded == ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        fn check(path: &str, forwarded: bool) {
            assert_eq!(is_provider_path(path), forwarded, "{path}");
        }
        check("/v1/chat/completions", true);
        check("/v1/models", true);
        check("/v1/files/file-1.jsonl/content", true);
        check("/v1/caches", false);
        check("/v1/caches/x/unknown", false);
        check("/v1/cachesx", true);
        check("/v1/", false);
        check("/v1", false);
        check("//v1/chat", false);
        check("/v1//models", false);
        check("/v1/../admin", false);
        check("/v1/%2e%2E/admin", false);
        check("/v2/models", false);
        check("/", false);
    }
}
