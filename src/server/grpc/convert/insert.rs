//! Inserts, and what became of them.

use serde_json::Value;

use super::super::super::api::fields::SourceField;
use super::super::super::api::insert::{InsertAnswer, InsertBody};
use super::super::pb;
use super::{parsed, vector};
use crate::wire::problem::Problem;

impl TryFrom<pb::InsertRequest> for InsertBody {
    type Error = Problem;

    fn try_from(message: pb::InsertRequest) -> Result<Self, Problem> {
        let pb::InsertRequest {
            cache: _, // whose entries, not which
            prompt,
            context,
            request,
            path,
            headers,
            response,
            response_is_json,
            attributes,
            vars,
            tags,
            sources,
            ttl_millis,
            idempotency_key,
            vector: numbers,
            created_ms,
        } = message;
        Ok(Self {
            prompt,
            context,
            request: request.map(|text| parsed("request", &text)).transpose()?,
            path,
            headers,
            response: match response_is_json {
                true => parsed("response", response.as_bytes())?,
                false => Value::String(response),
            },
            attributes,
            vars,
            tags: tags.into_iter().collect(),
            sources: sources.into_iter().map(SourceField::from).collect(),
            ttl_millis,
            idempotency_key,
            vector: vector(numbers),
            created_ms,
        })
    }
}

impl From<pb::Source> for SourceField {
    fn from(pb::Source { id, version }: pb::Source) -> Self {
        Self { id, version }
    }
}

impl From<InsertAnswer> for pb::InsertResponse {
    fn from(InsertAnswer { entry_id, exact_only }: InsertAnswer) -> Self {
        Self { entry_id, exact_only: exact_only.map(|reason| reason.as_str().to_owned()) }
    }
}
