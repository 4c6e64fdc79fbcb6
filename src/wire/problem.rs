//! A refusal in OpenAI's error shape, `{"error": {"message", "type", "param", "code"}}`, or in Anthropic's,
//! `{"type": "error", "error": {"type", "message"}, "request_id"}`.

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

    /// In Anthropic's shape. `request_id` names the call.
    pub fn to_anthropic_json(&self, request_id: &str) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            504 => "timeout_error",
            529 => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        };
        json!({"type": "error", "error": {"type": kind, "message": self.message}, "request_id": request_id})
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_anthropic() {
        let check = |status: u16, kind: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            let body = Problem::new(status, "code", "why").to_anthropic_json("req_1");
            let error = json!({"type": kind, "message": "why"});
            assert_eq!(body, json!({"type": "error", "error": error, "request_id": "req_1"}));
        };
        check(400, "invalid_request_error");
        check(401, "authentication_error");
        check(403, "permission_error");
        check(404, "not_found_error");
        check(413, "request_too_large");
        check(415, "invalid_request_error");
        check(429, "rate_limit_error");
        check(500, "api_error");
        check(502, "api_error");
        check(504, "timeout_error");
        check(529, "overloaded_error");
    }
}
