//! HTTP as Envoy's messages have it, and what is to be changed in it. Pure.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};

use super::pb::body_mutation::Mutation;
use super::pb::header_value_option::HeaderAppendAction;
use super::pb::processing_mode::{BodySendMode, HeaderSendMode};
use super::pb::processing_request::Request as Asked;
use super::pb::processing_response::Response as Said;
use super::pb::{
    self, BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeaderValueOption, HeadersResponse, HttpHeaders,
    HttpStatus, ImmediateResponse, ProcessingMode, ProcessingResponse, TrailersResponse,
};
use crate::wire::problem::Problem;

/// The head of a request, and the host that it names.
///
/// # Errors
/// A header is none that HTTP knows.
pub(super) fn request(head: &HttpHeaders) -> Result<(Request<()>, String), Problem> {
    let (pseudo, headers) = fields(head)?;
    let find =
        |name: &str| pseudo.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap_or_default();
    let mut request = Request::new(());
    // What is unknown here may be known to the provider, and is nothing for the cache.
    *request.method_mut() = Method::from_bytes(&find(":method")).unwrap_or_default();
    *request.uri_mut() = Uri::from_maybe_shared(find(":path")).unwrap_or_default();
    *request.headers_mut() = headers;
    Ok((request, String::from_utf8_lossy(&find(":authority")).into_owned()))
}

/// The head of a response.
pub(super) fn response(head: &HttpHeaders) -> Option<Response<()>> {
    let (pseudo, headers) = fields(head).ok()?;
    let (_, status) = pseudo.iter().find(|(key, _)| key == ":status")?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_bytes(status).ok()?;
    *response.headers_mut() = headers;
    Some(response)
}

/// Names that begin with a colon with their values, and the headers.
type Fields = (Vec<(String, Bytes)>, HeaderMap);

fn fields(head: &HttpHeaders) -> Result<Fields, Problem> {
    let (mut pseudo, mut headers) = (Vec::new(), HeaderMap::new());
    for pb::HeaderValue { key, value, raw_value } in head.headers.iter().flat_map(|map| &map.headers) {
        let value = if raw_value.is_empty() { value.clone() } else { raw_value.clone() };
        if key.starts_with(':') {
            pseudo.push((key.clone(), value));
            continue;
        }
        let name = HeaderName::from_bytes(key.as_bytes());
        let value = HeaderValue::from_maybe_shared(value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(Problem::invalid(
                "headers",
                format!("headers: {key:?} is none of HTTP's, or its value is not"),
            ));
        };
        headers.append(name, value);
    }
    Ok((pseudo, headers))
}

/// What turns the headers `from` into `to`.
pub(super) fn mutation(from: &HeaderMap, to: &HeaderMap) -> Option<HeaderMutation> {
    let gone = from.keys().filter(|name| !to.contains_key(*name));
    let remove_headers: Vec<String> = gone.map(ToString::to_string).collect();
    let changed = to.keys().filter(|name| !from.get_all(*name).iter().eq(to.get_all(*name)));
    let set_headers: Vec<_> = changed.flat_map(|name| set(name, to)).collect();
    let is_any = !remove_headers.is_empty() || !set_headers.is_empty();
    is_any.then_some(HeaderMutation { set_headers, remove_headers })
}

/// All values of a header, in place of what it had.
fn set<'a>(name: &'a HeaderName, headers: &'a HeaderMap) -> impl Iterator<Item = HeaderValueOption> + 'a {
    headers.get_all(name).iter().enumerate().map(|(at, value)| {
        let action = match at {
            0 => HeaderAppendAction::OverwriteIfExistsOrAdd,
            _ => HeaderAppendAction::AppendIfExistsOrAdd,
        };
        let raw_value = Bytes::copy_from_slice(value.as_bytes());
        let header = pb::HeaderValue { key: name.to_string(), value: Bytes::new(), raw_value };
        HeaderValueOption { header: Some(header), append_action: action.into() }
    })
}

/// Lets the head that was shown go on, changed, and says what is to be shown of what follows.
pub(super) fn go_on(
    asked: &Asked,
    header_mutation: Option<HeaderMutation>,
    mode: ProcessingMode,
) -> ProcessingResponse {
    let common = CommonResponse { header_mutation, ..CommonResponse::default() };
    let headers = HeadersResponse { response: Some(common) };
    let said = match asked {
        Asked::ResponseHeaders(_) => Said::ResponseHeaders(headers),
        _ => Said::RequestHeaders(headers),
    };
    ProcessingResponse { response: Some(said), mode_override: Some(mode) }
}

/// Lets the request's body go on, in place of which another may stand.
pub(super) fn ask(header_mutation: Option<HeaderMutation>, body: Option<Bytes>) -> ProcessingResponse {
    let body_mutation = body.map(|body| BodyMutation { mutation: Some(Mutation::Body(body)) });
    let common = CommonResponse { header_mutation, body_mutation, ..CommonResponse::default() };
    said(Said::RequestBody(BodyResponse { response: Some(common) }))
}

/// Lets go on what was shown, unchanged.
pub(super) fn pass(asked: &Asked) -> ProcessingResponse {
    said(match asked {
        Asked::RequestHeaders(_) => Said::RequestHeaders(HeadersResponse::default()),
        Asked::ResponseHeaders(_) => Said::ResponseHeaders(HeadersResponse::default()),
        Asked::RequestBody(_) => Said::RequestBody(BodyResponse::default()),
        Asked::ResponseBody(_) => Said::ResponseBody(BodyResponse::default()),
        Asked::RequestTrailers(_) => Said::RequestTrailers(TrailersResponse::default()),
        Asked::ResponseTrailers(_) => Said::ResponseTrailers(TrailersResponse::default()),
    })
}

/// Answers in place of the provider.
pub(super) fn answer(status: StatusCode, headers: &HeaderMap, body: Bytes) -> ProcessingResponse {
    let mut headers = headers.clone();
    // Envoy counts itself.
    headers.remove(CONTENT_LENGTH);
    said(Said::ImmediateResponse(ImmediateResponse {
        status: Some(HttpStatus { code: status.as_u16().into() }),
        headers: mutation(&HeaderMap::new(), &headers),
        body,
        details: "nearhit".to_owned(),
    }))
}

fn said(response: Said) -> ProcessingResponse {
    ProcessingResponse { response: Some(response), mode_override: None }
}

/// Shows these bodies, and the head of the response.
pub(super) fn showing(request: BodySendMode, response: BodySendMode) -> ProcessingMode {
    ProcessingMode {
        response_header_mode: HeaderSendMode::Send.into(),
        request_body_mode: request.into(),
        response_body_mode: response.into(),
        ..ProcessingMode::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).expect("a name"), HeaderValue::try_from(*value).expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn differences() {
        #[track_caller]
        fn check(from: &[(&str, &str)], to: &[(&str, &str)], set: &[(&str, &str, i32)], removed: &[&str]) {
            let HeaderMutation { set_headers, remove_headers } =
                mutation(&headers(from), &headers(to)).unwrap_or_default();
            let set_headers: Vec<_> = set_headers
                .into_iter()
                .map(|option| {
                    let header = option.header.expect("a header");
                    (header.key, String::from_utf8(header.raw_value.to_vec()).expect("text"), option.append_action)
                })
                .collect();
            let expected: Vec<_> =
                set.iter().map(|(n, v, action)| ((*n).to_owned(), (*v).to_owned(), *action)).collect();
            assert_eq!((set_headers, remove_headers), (expected, removed.iter().map(ToString::to_string).collect()));
        }
        check(&[], &[], &[], &[]);
        check(&[("a", "1")], &[("a", "1")], &[], &[]);
        check(&[("a", "1")], &[("a", "2")], &[("a", "2", 2)], &[]);
        check(&[("a", "1")], &[], &[], &["a"]);
        check(&[], &[("a", "1"), ("a", "2")], &[("a", "1", 2), ("a", "2", 0)], &[]);
        check(&[("a", "1"), ("a", "2")], &[("a", "1")], &[("a", "1", 2)], &[]);
        assert_eq!(mutation(&headers(&[("a", "1")]), &headers(&[("a", "1")])), None);
    }

    fn head(pairs: &[(&str, &str)]) -> HttpHeaders {
        let header = |(key, value): &(&str, &str)| pb::HeaderValue {
            key: (*key).to_owned(),
            value: Bytes::new(),
            raw_value: Bytes::copy_from_slice(value.as_bytes()),
        };
        HttpHeaders {
            headers: Some(pb::HeaderMap { headers: pairs.iter().map(header).collect() }),
            end_of_stream: false,
        }
    }

    #[test]
    fn heads() {
        let (whole, authority) = request(&head(&[
            (":method", "POST"),
            (":path", "/v1/models?limit=2"),
            (":authority", "llm.example"),
            ("x-one", "1"),
        ]))
        .expect("a request");
        assert_eq!(
            (whole.method(), whole.uri().path(), whole.uri().query()),
            (&Method::POST, "/v1/models", Some("limit=2"))
        );
        assert_eq!((authority.as_str(), &whole.headers()["x-one"]), ("llm.example", &HeaderValue::from_static("1")));
        let refused = |pairs: &[(&str, &str)]| request(&head(pairs)).expect_err("no request").param;
        let unknown = |pairs: &[(&str, &str)]| request(&head(pairs)).expect("a request").0.uri().path().to_owned();
        assert_eq!(unknown(&[(":method", "POST"), (":path", "/v1/chat/completions?q=<b>\u{1}")]), "/");
        assert_eq!(unknown(&[(":method", "CONNECT")]), "/");
        assert_eq!(refused(&[(":method", "GET"), (":path", "/"), ("a b", "")]).as_deref(), Some("headers"));
        assert_eq!(
            response(&head(&[(":status", "429")])).map(|whole| whole.status()),
            Some(StatusCode::TOO_MANY_REQUESTS)
        );
        assert!(response(&head(&[])).is_none() && response(&head(&[(":status", "no")])).is_none());
    }
}
