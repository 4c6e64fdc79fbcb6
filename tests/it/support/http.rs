//! An HTTP client that sends what it is told to, right or wrong.

use axum::body::Body;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::until;

/// Calls one server.
#[derive(Clone)]
pub struct Client {
    http: legacy::Client<HttpConnector, Body>,
    url: String,
    /// Sent with every call.
    headers: HeaderMap,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    pub fn new(url: &str, key: &str) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new()).build_http();
        let client = Self { http, url: url.to_owned(), headers: HeaderMap::new() };
        if key.is_empty() { client } else { client.with(AUTHORIZATION.as_str(), &format!("Bearer {key}")) }
    }

    /// The same client with one more header.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        let name = HeaderName::try_from(name).expect("a header name");
        client.headers.append(name, HeaderValue::from_str(value).expect("a header value"));
        client
    }

    /// Sends, and returns when the answer's head is there.
    pub async fn open(&self, method: Method, path: &str, body: impl Into<Body>) -> Response<Body> {
        let mut request = Request::new(body.into());
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.url).parse().expect("a path");
        request.headers_mut().extend(self.headers.clone());
        let response = self.http.request(request).await;
        response.unwrap_or_else(|error| panic!("{path}: {error:?}")).map(Body::new)
    }

    pub async fn send(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let (parts, body) = self.open(method, path, body).await.into_parts();
        let body = body.collect().await.unwrap_or_else(|error| panic!("{path}: {error:?}")).to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Body::empty()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, Body::empty()).await
    }

    /// Sends bytes as JSON, whatever they are.
    pub async fn post_bytes(&self, path: &str, body: impl Into<Body>) -> Answer {
        let json = self.headers.contains_key(CONTENT_TYPE);
        let client = if json { self.clone() } else { self.with("content-type", "application/json") };
        client.send(Method::POST, path, body).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_bytes(path, body.to_string()).await
    }

    /// Asks for a chat completion.
    pub async fn chat(&self, body: &Value) -> Answer {
        self.post("/v1/chat/completions", body).await
    }

    /// Inserts into the default cache; the entry's id.
    pub async fn insert(&self, body: &Value) -> String {
        let answer = self.post("/v1/caches/default/entries", body).await.check(201);
        answer.json()["entryId"].as_str().expect("an id").to_owned()
    }

    /// Searches the default cache.
    pub async fn search(&self, body: &Value) -> Value {
        self.post("/v1/caches/default/entries/search", body).await.check(200).json()
    }

    /// Searches the default cache for a bare prompt: tier and response of a hit, outcome and reason of anything else.
    pub async fn find(&self, prompt: &str) -> (String, String) {
        summary(&self.search(&json!({"prompt": prompt})).await)
    }

    pub async fn stats(&self, cache: &str) -> Value {
        self.get(&format!("/v1/caches/{cache}/stats")).await.check(200).json()
    }

    /// An answer is stored after it was sent: waits until the default cache holds `count` entries.
    pub async fn wait_for_entries(&self, count: u64) {
        let what = format!("the cache holds {count} entries");
        until(&what, async || (self.stats("default").await["entries"] == count).then_some(())).await;
    }
}

/// Of a search's answer: tier and response of a hit, outcome and reason of anything else.
pub fn summary(answer: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match answer.pointer("/data/0") {
        Some(found) => (text(&answer["tier"]), text(&found["response"])),
        None => (text(&answer["outcome"]), text(&answer["reason"])),
    }
}

impl Answer {
    /// Asserts the status; the answer again.
    #[track_caller]
    pub fn check(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// The body where it is JSON, null where it is not.
    pub fn json_or_null(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The header's value, empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a text"))
    }

    /// The outcome, and the tier of a hit or the reason of anything else.
    pub fn outcome(&self) -> (&str, &str) {
        let outcome = self.header("x-nearhit-outcome");
        (outcome, self.header(if outcome == "hit" { "x-nearhit-tier" } else { "x-nearhit-reason" }))
    }

    /// Asserts that this is a refusal in OpenAI's error shape; its message.
    #[track_caller]
    pub fn refusal(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        let body = self.json();
        let fields: Vec<_> = body["error"].as_object().expect("an error object").keys().map(String::as_str).collect();
        assert_eq!(fields, ["code", "message", "param", "type"], "{body}");
        assert_eq!(body["error"]["code"], code, "{body}");
        assert_eq!(self.header("content-type"), "application/json");
        body["error"]["message"].as_str().expect("a message").to_owned()
    }
}
