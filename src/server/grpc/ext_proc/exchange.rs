//! One request through Envoy, from its head to the end of its answer.

use std::net::SocketAddr;
use std::pin::{Pin, pin};

use axum::extract::ConnectInfo;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tonic::Streaming;
use tower_layer::Layer;
use tower_service::Service;

use super::super::super::keys::KeyScope;
use super::super::super::{App, auth};
use super::hop::{Call, Hop, Showing, Shown};
use super::message::{self, mutation, showing};
use super::pb::processing_mode::BodySendMode;
use super::pb::processing_request::Request as Asked;
use super::pb::{HttpBody, ProcessingRequest, ProcessingResponse, ProtocolConfiguration};
use crate::body::{Body, check_media, problem_response, shaped};
use crate::decision::Outcome;
use crate::layer::CacheLayer;
use crate::route::Elsewhere;
use crate::stamp::strip_own_headers;
use crate::wire::controls::header;
use crate::wire::request::is_cacheable;

/// A stream of Envoy's. Its methods return `None` once Envoy is gone.
pub(super) struct Exchange {
    shown: Streaming<ProcessingRequest>,
    say: mpsc::Sender<ProcessingResponse>,
}

/// A request of which Envoy shows the head.
struct Head {
    /// Without keys of nearhit's own.
    request: Request<()>,
    /// As they came.
    headers: HeaderMap,
    /// Where Envoy is about to send it.
    upstream: String,
    /// How the request's body is to be shown, if it is.
    body_mode: Option<BodySendMode>,
}

impl Exchange {
    pub(super) fn new(shown: Streaming<ProcessingRequest>, say: mpsc::Sender<ProcessingResponse>) -> Self {
        Self { shown, say }
    }

    /// Answers until the request is answered, and everything was shown of the answer that is recorded.
    pub(super) async fn run(
        mut self,
        app: &App,
        layer: &CacheLayer,
        peer: Option<ConnectInfo<SocketAddr>>,
    ) -> Option<()> {
        let first = self.shown.message().await.ok()??;
        let upstream = cluster(&first);
        let modes = first.protocol_config.unwrap_or_default();
        if first.observability_mode {
            tracing::warn!("Envoy's ext_proc filter only observes: nothing is cached, and no key is asked for");
            return Some(());
        }
        let asked = first.request?;
        let Asked::RequestHeaders(shown) = &asked else {
            tracing::warn!("Envoy's ext_proc filter does not show the heads of requests: nothing is cached");
            return self.pass_on(asked).await;
        };
        let (mut request, authority) = match message::request(shown) {
            Ok(read) => read,
            Err(problem) => return self.answer(problem_response(&problem)).await,
        };
        let headers = request.headers().clone();
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        // Until the answer is there.
        let _permit = match auth::let_in(app, &mut request, KeyScope::Write) {
            Ok(permit) => permit,
            Err(refusal) => {
                let refused = refusal.into_response().map(Body::new);
                return self.answer(shaped(request.uri().path(), refused, |body| body)).await;
            }
        };
        if is_full_duplex(&modes) {
            tracing::warn!(?modes, "Envoy's ext_proc filter is in a mode in which nothing is cached");
            let mut stripped = request.headers().clone();
            strip_own_headers(&mut stripped);
            let nothing_more = showing(BodySendMode::None, BodySendMode::None);
            return self.say(message::go_on(&asked, mutation(&headers, &stripped), nothing_more)).await;
        }
        if upstream.is_empty() {
            tracing::warn!("Envoy's ext_proc filter does not say {CLUSTER}: nothing is cached");
        }
        let body_mode = if shown.end_of_stream || upstream.is_empty() { None } else { body_mode(&request) };
        let head = Head { request, headers, upstream: format!("envoy {authority} {upstream}"), body_mode };
        self.ask(app, layer, head, &asked).await
    }

    /// Sends the request through the layer.
    async fn ask(mut self, app: &App, layer: &CacheLayer, head: Head, asked: &Asked) -> Option<()> {
        let Head { request, headers, upstream, body_mode } = head;
        let mut stripped = request.headers().clone();
        strip_own_headers(&mut stripped);
        let mut whole = None;
        if let Some(mode) = body_mode {
            // What is for nearhit only is taken out at once, whatever comes of the rest.
            let stripping = mutation(&headers, &stripped);
            self.say(message::go_on(asked, stripping, showing(mode, BodySendMode::Streamed))).await?;
            whole = match self.read().await? {
                Asked::RequestBody(HttpBody { body, end_of_stream }) => {
                    (end_of_stream && body.len() <= app.live().settings().layer.body_bytes_max).then_some(body)
                }
                // It is not configured to be shown.
                other => return self.pass_on(other).await,
            };
        }
        let is_read = whole.is_some();
        let body = whole.unwrap_or_default();
        let mut request = request.map(|()| Body::from(body.clone()));
        request.extensions_mut().insert(Elsewhere { upstream, is_read });
        let (hop, mut calls) = Hop::new();
        let mut service = layer.layer(hop);
        let mut answering = pin!(service.call(request));
        let call = tokio::select! {
            biased;
            answer = &mut answering => return self.answer(answer.ok()?).await,
            Some(call) = calls.recv() => call,
        };
        let Call { request: going, answer } = call;
        let (parts, sent) = going.into_parts();
        let (mut going, sent) = (parts.headers, sent.collect().await.ok()?.to_bytes());
        let other = (is_read && sent != body).then_some(sent);
        let said_length = stripped.get(CONTENT_LENGTH);
        keep_length(&mut going, said_length, other.as_ref(), body_mode);
        match body_mode {
            None => {
                let nothing_more = showing(BodySendMode::None, BodySendMode::None);
                self.say(message::go_on(asked, mutation(&headers, &going), nothing_more)).await?;
            }
            Some(_) => self.say(message::ask(mutation(&stripped, &going), other)).await?,
        }
        let asked = loop {
            match self.read().await? {
                head @ Asked::ResponseHeaders(_) => break head,
                early @ (Asked::ResponseBody(_) | Asked::ResponseTrailers(_)) => return self.pass_on(early).await,
                rest => self.say(message::pass(&rest)).await?,
            }
        };
        let Asked::ResponseHeaders(shown) = &asked else { return None };
        let Some(response) = message::response(shown) else { return self.pass_on(asked).await };
        let (status, before) = (response.status(), response.headers().clone());
        let (showing_body, body) = Shown::new();
        let body = if shown.end_of_stream { Body::from(Bytes::new()) } else { Body::new(body) };
        answer.send(response.map(|()| body)).ok()?;
        let (parts, body) = answering.await.ok()?.into_parts();
        let is_bypass = parts.headers.get(header::OUTCOME).is_some_and(|outcome| outcome == Outcome::Bypass.as_str());
        let is_recorded = status == StatusCode::OK && !is_bypass;
        let mode = if is_recorded { BodySendMode::Streamed } else { BodySendMode::None };
        let stamped = mutation(&before, &parts.headers);
        self.say(message::go_on(&asked, stamped, showing(BodySendMode::None, mode))).await?;
        self.record(showing_body, pin!(body)).await;
        Some(())
    }

    /// Lets the answer pass, and whoever records it see it.
    async fn record(&mut self, showing: Showing, mut body: Pin<&mut Body>) {
        while let Some(asked) = self.read().await {
            let passed = self.say(message::pass(&asked)).await;
            match asked {
                Asked::ResponseBody(HttpBody { body, end_of_stream }) => {
                    showing.show(body);
                    if end_of_stream {
                        showing.end();
                    }
                }
                Asked::ResponseTrailers(_) => showing.end(),
                _ => {}
            }
            // As far as it was shown.
            while let Some(Some(Ok(_))) = body.frame().now_or_never() {}
            if passed.is_none() {
                break;
            }
        }
        // What did not come to its end is broken off.
        drop(showing);
        drop(body.frame().now_or_never());
    }

    /// Lets this and everything else pass.
    async fn pass_on(mut self, first: Asked) -> Option<()> {
        self.say(message::pass(&first)).await?;
        loop {
            let next = self.read().await?;
            self.say(message::pass(&next)).await?;
        }
    }

    /// Answers in place of the provider.
    async fn answer(self, response: Response<Body>) -> Option<()> {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        self.say(message::answer(parts.status, &parts.headers, body)).await
    }

    /// What Envoy shows next. A message that cannot be read is as good as none: nothing here may fail its request.
    async fn read(&mut self) -> Option<Asked> {
        self.shown.message().await.ok()??.request
    }

    async fn say(&self, response: ProcessingResponse) -> Option<()> {
        self.say.send(response).await.ok()
    }
}

/// The cluster that Envoy has chosen, where the filter is configured to tell.
fn cluster(first: &ProcessingRequest) -> String {
    let named = first.attributes.values().find_map(|attributes| attributes.fields.get(CLUSTER));
    named.map(|attribute| String::from_utf8_lossy(&attribute.string_value).into_owned()).unwrap_or_default()
}

fn is_full_duplex(modes: &ProtocolConfiguration) -> bool {
    let full = [BodySendMode::FullDuplexStreamed, BodySendMode::Grpc];
    full.contains(&modes.request_body_mode()) || full.contains(&modes.response_body_mode())
}

/// How the request's body is to be shown; `None` where it is not for the cache. A body that may grow over what Envoy holds is
/// shown as far as it goes, or Envoy would refuse it; the length of others stays in their heads.
fn body_mode(request: &Request<()>) -> Option<BodySendMode> {
    let is_cacheable = request.method() == Method::POST && is_cacheable(request.uri().path());
    if !is_cacheable || check_media(request.headers()).is_err() {
        return None;
    }
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    match length {
        Some(bytes) if bytes > LOOKUP_BYTES_MAX => None,
        Some(_) => Some(BodySendMode::Buffered),
        None => Some(BodySendMode::BufferedPartial),
    }
}

/// The length stays as it was said, unless the body is another one: then it is right, or, where Envoy takes none, left out.
fn keep_length(going: &mut HeaderMap, said: Option<&HeaderValue>, other: Option<&Bytes>, mode: Option<BodySendMode>) {
    going.remove(CONTENT_LENGTH);
    match (said, other) {
        (Some(said), None) => drop(going.insert(CONTENT_LENGTH, said.clone())),
        (Some(_), Some(other)) if mode == Some(BodySendMode::Buffered) => {
            drop(going.insert(CONTENT_LENGTH, HeaderValue::from(other.len())));
        }
        _ => {}
    }
}

/// Envoy's name for it.
const CLUSTER: &str = "xds.cluster_name";

/// A longer request is not looked up: its answer would not be kept, and Envoy holds no more unless told to.
const LOOKUP_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::super::pb::{Attribute, Attributes};
    use super::*;
    use http::HeaderName;

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(path).body(()).expect("a request");
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).expect("a name"), HeaderValue::try_from(*value).expect("a value"))
        };
        *request.headers_mut() = headers.iter().map(pair).collect();
        request
    }

    #[test]
    fn bodies_are_shown_where_they_are_for_the_cache() {
        let check = |method: &str, path: &str, headers: &[(&str, &str)], mode: Option<BodySendMode>| {
            assert_eq!(body_mode(&request(method, path, headers)), mode, "{method} {path} {headers:?}");
        };
        let chat = "/v1/chat/completions";
        check("POST", chat, &[("content-length", "1048576")], Some(BodySendMode::Buffered));
        check("POST", chat, &[("content-length", "1048577")], None);
        check("POST", chat, &[], Some(BodySendMode::BufferedPartial));
        check("POST", chat, &[("content-encoding", "gzip")], None);
        check("POST", chat, &[("content-type", "multipart/form-data; boundary=x")], None);
        check("POST", "/v1/messages", &[("content-type", "application/json")], Some(BodySendMode::BufferedPartial));
        check("GET", chat, &[], None);
        check("POST", "/v1/files", &[("content-length", "2")], None);
    }

    #[test]
    fn lengths() {
        #[track_caller]
        fn check(said: Option<&str>, other: Option<&'static str>, mode: BodySendMode, expected: Option<&str>) {
            // As the layer leaves it.
            let mut going = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(1))]);
            let said = said.map(|said| HeaderValue::from_str(said).expect("a value"));
            keep_length(&mut going, said.as_ref(), other.map(Bytes::from).as_ref(), Some(mode));
            assert_eq!(going.get(CONTENT_LENGTH).map(|length| length.to_str().expect("text")), expected);
        }
        check(Some("007"), None, BodySendMode::Buffered, Some("007"));
        check(Some("7"), Some("four"), BodySendMode::Buffered, Some("4"));
        check(Some("7"), Some("four"), BodySendMode::BufferedPartial, None);
        check(None, None, BodySendMode::BufferedPartial, None);
        check(None, Some("four"), BodySendMode::BufferedPartial, None);
    }

    #[test]
    fn the_cluster_is_where_envoy_says_it() {
        let attribute = |name: &str, value: &str| {
            (name.to_owned(), Attribute { string_value: Bytes::copy_from_slice(value.as_bytes()) })
        };
        let mut first = ProcessingRequest::default();
        assert_eq!(cluster(&first), "");
        let fields = [attribute("xds.route_name", "all"), attribute(CLUSTER, "openai")].into();
        first.attributes.insert("envoy.filters.http.ext_proc".to_owned(), Attributes { fields });
        assert_eq!(cluster(&first), "openai");
    }
}
