//! A refusal in OpenAI's error shape, `{"error": {"message", "type", "param", "code"}}`, or in Anthropic's.

use http::StatusCode;
use serde_json::{Value, json};

use super::controls::InvalidControl;

/// Why a request was not served, for the client to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    /// Names the field and the value where there is one.
    pub message: String,
    /// The field or header at fault.
    pub param: Option<String>,
    /// A word for programs.
    pub code: &'static str,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code }
    }

    /// A field with a value that it cannot have.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::new(StatusCode::BAD_REQUEST, "invalid_value", message) }
    }

    /// A body that is not JSON, or not JSON that every parser reads alike; with the text before the place.
    pub fn not_json(error: &serde_json::Error, body: &[u8]) -> Self {
        let line = body.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
        let end = error.column().min(line.len());
        let before = String::from_utf8_lossy(&line[end.saturating_sub(40)..end]);
        let message = format!("the body is not valid JSON: {error}, after {before:?}");
        Self::new(StatusCode::BAD_REQUEST, "invalid_json", message)
    }

    pub fn too_large(limit_bytes: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the body is larger than {limit_bytes} bytes"),
        )
    }

    pub fn to_json(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind(), "param": self.param, "code": self.code}})
    }

    /// In Anthropic's error shape: `{"type": "error", "error": {"type", "message"}}`.
    pub fn to_anthropic_json(&self) -> Value {
        let kind = match self.status {
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            _ => self.kind(),
        };
        json!({"type": "error", "error": {"type": kind, "message": self.message}})
    }

    /// In the shape that the clients of a path expect.
    pub fn to_json_for(&self, path: &str) -> Value {
        let is_anthropic = path == "/v1/messages" || path.starts_with("/v1/messages/");
        if is_anthropic { self.to_anthropic_json() } else { self.to_json() }
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "api_error",
            _ => "invalid_request_error",
        }
    }
}

impl From<InvalidControl> for Problem {
    fn from(error: InvalidControl) -> Self {
        Self::invalid(&error.name, error.to_string())
    }
}
