//! Heads of requests that two servers could read in two ways, or that ask for what nearhit does not do: refused before
//! anybody is asked who calls.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, EXPECT, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode, Uri, Version};

use super::error::{self, ApiError};
use crate::wire::problem::Problem;

/// Lets requests through that everybody reads alike.
pub(super) async fn check(request: Request, next: Next) -> Response {
    if [Method::TRACE, Method::CONNECT].contains(request.method()) {
        let mut response = error::method_not_allowed(request).await.into_response();
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        return response;
    }
    match problem(request.version(), request.uri(), request.headers()) {
        Some(problem) => ApiError::from(problem).into_response(),
        None => next.run(request).await,
    }
}

/// What is wrong with a head.
fn problem(version: Version, uri: &Uri, headers: &HeaderMap) -> Option<Problem> {
    let bytes = uri.path_and_query().map_or(0, |path| path.as_str().len());
    if bytes > URI_BYTES_MAX {
        let message = format!("the path and query have {bytes} bytes; at most {URI_BYTES_MAX} are read");
        return Some(Problem::new(StatusCode::URI_TOO_LONG, "uri_too_long", message));
    }
    // Any other coding would be taken for a part of the body.
    let coding =
        headers.get_all(TRANSFER_ENCODING).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..]);
    if !coding.is_empty() && !coding.eq_ignore_ascii_case(b"chunked") {
        return Some(invalid(&TRANSFER_ENCODING, "must be chunked alone", &coding));
    }
    if let Some(other) =
        headers.get_all(EXPECT).iter().find(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        let problem = invalid(&EXPECT, "must be 100-continue", other.as_bytes());
        return Some(Problem { status: StatusCode::EXPECTATION_FAILED, ..problem });
    }
    host_problem(version, uri, headers)
}

/// A request names one host, once (RFC 9112, 3.2).
fn host_problem(version: Version, uri: &Uri, headers: &HeaderMap) -> Option<Problem> {
    let hosts: Vec<&[u8]> = headers.get_all(HOST).iter().map(HeaderValue::as_bytes).collect();
    let host = match *hosts.as_slice() {
        [] if version == Version::HTTP_11 => return Some(invalid(&HOST, "must be given", b"")),
        [] => return None,
        [host] => host,
        [..] => return Some(invalid(&HOST, "must be given once", &hosts.join(&b", "[..]))),
    };
    let is_name = host.is_empty() || (!host.contains(&b'@') && Authority::try_from(host).is_ok());
    if !is_name {
        return Some(invalid(&HOST, "must be a name or an address, with or without a port", host));
    }
    let other = uri.authority().filter(|authority| !authority.as_str().as_bytes().eq_ignore_ascii_case(host));
    other.map(|_| invalid(&HOST, "must be the one that the request line names", host))
}

fn invalid(name: &HeaderName, must: &str, value: &[u8]) -> Problem {
    let shown: String = value.escape_ascii().to_string().chars().take(100).collect();
    Problem::invalid(name.as_str(), format!("{name}: {must}, got \"{shown}\""))
}

/// Longest path and query of a request.
const URI_BYTES_MAX: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: Version, uri: &str, headers: &[(&str, &str)], status: u16, param: &str) {
        let uri: Uri = uri.parse().expect("a URI");
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).expect("a name"), HeaderValue::try_from(*value).expect("a value"))
        };
        let found = problem(version, &uri, &headers.iter().map(pair).collect());
        let seen = found.map_or((0, String::new()), |p| (p.status.as_u16(), p.param.unwrap_or_default()));
        assert_eq!(seen, (status, param.to_owned()), "{uri:.60} {headers:?}");
    }

    #[test]
    fn heads() {
        let local = ("host", "localhost:8080");
        let plain = |headers: &[(&str, &str)], status, param: &str| {
            check(Version::HTTP_11, "/v1/models", &[&[local], headers].concat(), status, param);
        };
        plain(&[], 0, "");
        plain(&[("transfer-encoding", "Chunked")], 0, "");
        plain(&[("transfer-encoding", "gzip, chunked")], 400, "transfer-encoding");
        plain(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], 400, "transfer-encoding");
        plain(&[("expect", "100-Continue")], 0, "");
        plain(&[("expect", "x")], 417, "expect");
        plain(&[local], 400, "host");
        let path = |bytes: usize| format!("/{}", "a".repeat(bytes - 1));
        check(Version::HTTP_11, &path(URI_BYTES_MAX), &[local], 0, "");
        check(Version::HTTP_11, &path(URI_BYTES_MAX + 1), &[local], 414, "");
        for host in ["x/?", "x#", "a@b", "a b", "a, b"] {
            check(Version::HTTP_11, "/", &[("host", host)], 400, "host");
        }
        for host in ["", "example.com", "[::1]:80", "127.0.0.1:1"] {
            check(Version::HTTP_11, "/", &[("host", host)], 0, "");
        }
        check(Version::HTTP_11, "/", &[], 400, "host");
        check(Version::HTTP_10, "/", &[], 0, "");
        check(Version::HTTP_2, "http://a.example/", &[], 0, "");
        check(Version::HTTP_2, "http://a.example/", &[("host", "A.example")], 0, "");
        check(Version::HTTP_11, "http://a.example/", &[("host", "b.example")], 400, "host");
    }
}
