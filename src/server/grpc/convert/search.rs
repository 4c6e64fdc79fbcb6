//! Searches, and what they find.

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error;
use serde_json::Value;

use super::super::super::api::search::{MatchField, NearestField, SearchAnswer, SearchBody, Strategy};
use super::super::pb;
use super::{parsed, vector};
use crate::wire::problem::Problem;

impl TryFrom<pb::SearchRequest> for SearchBody {
    type Error = Problem;

    fn try_from(message: pb::SearchRequest) -> Result<Self, Problem> {
        let pb::SearchRequest {
            cache: _, // whose entries, not which
            prompt,
            context,
            request,
            path,
            headers,
            attributes,
            vars,
            search_strategies,
            similarity_threshold,
            max_error_rate,
            limit,
            vector: numbers,
        } = message;
        let strategies: Vec<Strategy> =
            search_strategies.iter().map(|word| strategy(word)).collect::<Result<_, _>>()?;
        Ok(Self {
            prompt,
            context,
            request: request.map(|text| parsed("request", &text)).transpose()?,
            path,
            headers,
            attributes,
            vars,
            // proto3 does not tell an absent list from an empty one.
            search_strategies: (!strategies.is_empty()).then_some(strategies),
            similarity_threshold,
            max_error_rate,
            limit,
            vector: vector(numbers),
        })
    }
}

fn strategy(word: &str) -> Result<Strategy, Problem> {
    Strategy::deserialize(word.into_deserializer())
        .map_err(|error: Error| Problem::invalid("searchStrategies", format!("searchStrategies: {error}")))
}

impl From<SearchAnswer> for pb::SearchResponse {
    fn from(SearchAnswer { outcome, tier, reason, data, nearest }: SearchAnswer) -> Self {
        Self {
            outcome: outcome.as_str().to_owned(),
            tier: tier.map(|tier| tier.as_str().to_owned()),
            reason: reason.map(|reason| reason.as_str().to_owned()),
            data: data.into_iter().map(pb::Match::from).collect(),
            nearest: nearest.map(pb::Nearest::from),
        }
    }
}

impl From<MatchField> for pb::Match {
    fn from(found: MatchField) -> Self {
        let MatchField {
            id,
            prompt,
            response,
            attributes,
            similarity,
            context_similarity,
            probability,
            search_strategy,
            age_ms,
            expires_in_ms,
        } = found;
        let (response, response_is_json) = match response {
            Value::String(text) => (text, false),
            object => (object.to_string(), true),
        };
        Self {
            id,
            prompt,
            response,
            response_is_json,
            attributes,
            similarity,
            context_similarity,
            probability,
            search_strategy: search_strategy.as_str().to_owned(),
            age_ms,
            expires_in_ms,
        }
    }
}

impl From<NearestField> for pb::Nearest {
    fn from(NearestField { id, similarity, reason }: NearestField) -> Self {
        Self { id, similarity, reason: reason.as_str().to_owned() }
    }
}
