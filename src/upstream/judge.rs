//! A model behind an OpenAI-style API that judges whether two answers say the same.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};

use super::client::chain;
use super::{HttpClient, KeySource, ProviderKey, http_client};
use crate::body::Body;
use crate::judge::{AnswerJudge, Case, JudgeLimits, Undecided};
use crate::wire::verdict;

/// Which model judges, and how much it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgeSettings {
    /// What an OpenAI client would be given as base URL, `…/v1`.
    pub url: Uri,
    pub model: String,
    /// Where its key is, if it needs one.
    pub key: Option<KeySource>,
    pub limits: JudgeLimits,
}

/// Why a model cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("judge.url: {0}")]
    Url(#[from] http::Error),
}

/// The model.
pub struct ModelJudge {
    client: HttpClient,
    target: Uri,
    model: String,
    authorization: Option<HeaderValue>,
}

impl ModelJudge {
    /// `key` is what the settings' source holds.
    ///
    /// # Errors
    /// The URL cannot be completed, or there is no usable TLS configuration.
    pub fn new(settings: &JudgeSettings, key: Option<&ProviderKey>) -> Result<Self, JudgeError> {
        let mut parts = settings.url.clone().into_parts();
        let path = format!("{}/chat/completions", settings.url.path().trim_end_matches('/'));
        parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(http::Error::from)?);
        Ok(Self {
            client: http_client(CONNECT_TIMEOUT)?,
            target: Uri::from_parts(parts).map_err(http::Error::from)?,
            model: settings.model.clone(),
            authorization: key.map(ProviderKey::bearer),
        })
    }

    fn request(&self, case: Case<'_>) -> Request<Body> {
        let Case { question, first, second } = case;
        let body = verdict::request(&self.model, question, first, second).to_string();
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        // If it comes back here, it is not compared in its turn.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        request
    }

    async fn ask(&self, case: Case<'_>) -> Result<Bytes, String> {
        let response = self.client.request(self.request(case)).await.map_err(|error| chain(&error))?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answered {}", response.status()));
        }
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| error.to_string())
    }
}

#[async_trait]
impl AnswerJudge for ModelJudge {
    async fn is_same(&self, case: Case<'_>) -> Result<bool, Undecided> {
        let body = self.ask(case).await.map_err(|error| {
            tracing::warn!(error, "the judge could not be asked");
            Undecided::Failed
        })?;
        verdict::parse(&body).ok_or(Undecided::Unclear)
    }
}

/// Longest wait for a connection; the whole call has its own limit.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A verdict is a word.
const BODY_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &'static str) -> JudgeSettings {
        JudgeSettings { url: Uri::from_static(url), model: "m".into(), key: None, limits: JudgeLimits::default() }
    }

    #[test]
    fn a_call_goes_where_it_is_told_with_the_key_it_is_given() {
        let case = Case { question: "q", first: "a", second: "b" };
        for (url, target) in [
            ("http://h:1/v1", "http://h:1/v1/chat/completions"),
            ("https://h/api/v1/", "https://h/api/v1/chat/completions"),
            ("https://h", "https://h/chat/completions"),
        ] {
            let key = ProviderKey::new(" sk-secret\n").expect("a key");
            let judge = ModelJudge::new(&settings(url), Some(&key)).expect("a judge");
            let request = judge.request(case);
            assert_eq!(request.uri().to_string(), target);
            assert_eq!(request.headers()[AUTHORIZATION], "Bearer sk-secret");
            assert_eq!(request.headers()[CACHE_CONTROL], "no-store");
            assert!(!format!("{request:?}").contains("secret"));
        }
        let judge = ModelJudge::new(&settings("http://h"), None).expect("a judge");
        assert!(!judge.request(case).headers().contains_key(AUTHORIZATION));
    }
}
