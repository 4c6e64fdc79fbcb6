//! Messages to the bodies of the HTTP API, and its answers to messages.

mod insert;
mod search;
mod stats;

use serde_json::Value;

use crate::wire::json;
use crate::wire::problem::Problem;

/// A field's JSON text.
fn parsed(field: &str, text: &[u8]) -> Result<Value, Problem> {
    json::parse(text).map_err(|error| {
        let Problem { status, message, param: _, code } = Problem::not_json(&error, text);
        Problem { status, message: format!("{field}: {message}"), param: Some(field.to_owned()), code }
    })
}

/// A vector as JSON has it; proto3 does not tell an absent one from an empty one.
fn vector(numbers: Vec<f32>) -> Option<Vec<Option<f64>>> {
    let given = !numbers.is_empty();
    given.then(|| numbers.into_iter().map(|number| Some(f64::from(number))).collect())
}
