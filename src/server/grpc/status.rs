//! Every status that gRPC calls end with: a refusal of the API, in gRPC's words.

use http::StatusCode;
use tonic::{Code, Status};

use super::super::error::ApiError;
use super::pb;
use crate::wire::problem::Problem;

/// The code that stands for an HTTP status.
fn code(status: StatusCode) -> Code {
    match status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::CONFLICT => Code::AlreadyExists,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS | StatusCode::INSUFFICIENT_STORAGE => {
            Code::ResourceExhausted
        }
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
        status if status.is_client_error() => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

/// The status of a call that was refused.
pub(super) fn of(problem: Problem) -> Status {
    let Problem { status, message, param, code: word } = problem;
    let mut refusal = Status::new(code(status), message);
    for (name, value) in [("x-nearhit-code", Some(word)), ("x-nearhit-param", param.as_deref())] {
        // A field that a client made up may hold what no header can; the message names it, too.
        if let Some(Ok(value)) = value.map(str::parse) {
            refusal.metadata_mut().insert(name, value);
        }
    }
    refusal
}

/// The status of a call that failed.
pub(super) fn of_failed(error: ApiError) -> Status {
    of(error.problem())
}

/// What a batch says of an item that was refused.
pub(super) fn of_item(problem: Problem) -> pb::Problem {
    let Problem { status, message, param, code: word } = problem;
    pb::Problem { status: i32::from(code(status)), message, param, code: word.to_owned() }
}

/// The code in place of the one that tonic gives a message over the limit, which is of another error in gRPC.
pub(super) fn exact(code: Code) -> Code {
    if code == Code::OutOfRange { Code::ResourceExhausted } else { code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        fn check(status: u16, expected: Code) {
            assert_eq!(code(StatusCode::from_u16(status).expect("a status")), expected, "{status}");
        }
        check(400, Code::InvalidArgument);
        check(401, Code::Unauthenticated);
        check(403, Code::PermissionDenied);
        check(404, Code::NotFound);
        check(409, Code::AlreadyExists);
        check(413, Code::ResourceExhausted);
        check(422, Code::InvalidArgument);
        check(429, Code::ResourceExhausted);
        check(500, Code::Internal);
        check(503, Code::Unavailable);
        check(504, Code::DeadlineExceeded);
        check(507, Code::ResourceExhausted);
    }

    #[test]
    fn a_refusal_names_the_field() {
        let refusal = of(Problem::invalid("limit", "limit: must be from 1 to 100, got 0"));
        assert_eq!((refusal.code(), refusal.message()), (Code::InvalidArgument, "limit: must be from 1 to 100, got 0"));
        let word = |name: &str| refusal.metadata().get(name).and_then(|value| value.to_str().ok());
        assert_eq!((word("x-nearhit-code"), word("x-nearhit-param")), (Some("invalid_value"), Some("limit")));
        let nameless = of(Problem::invalid("a\nb", "no header can hold the field's name"));
        assert!(nameless.metadata().get("x-nearhit-param").is_none());
    }
}
