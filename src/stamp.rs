//! What a response says of the cache: hits, and the headers of everything else.

use http::header::{AGE, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use crate::body::{Body, problem_response};
use crate::cache::Match;
use crate::decision::{Outcome, Reason};
use crate::replay::Pace;
use crate::wire::answer::{Figures, Fresh, Replay};
use crate::wire::controls::{OWN_HEADER_PREFIX, header};
use crate::wire::problem::Problem;
use crate::wire::request::ProviderRequest;

pub(crate) fn strip_own_headers(headers: &mut HeaderMap) {
    let own: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(OWN_HEADER_PREFIX)).cloned().collect();
    own.into_iter().for_each(|name| drop(headers.remove(name)));
}

pub(crate) fn hit_response(request: &ProviderRequest, found: &Match, pace: Pace, figures: Figures) -> Response<Body> {
    let now_s = (found.entry.life.created_ms + found.age_ms) / 1000;
    let fresh = Fresh { nonce: fastrand::u128(..), now_s, figures };
    let schedule = pace.schedule(&found.entry.answer);
    let (media, body) = match request.replay(&found.entry.answer, &fresh, schedule.piece_bytes) {
        Replay::Json(body) => ("application/json", Body::from(body)),
        Replay::Events(events) => ("text/event-stream", schedule.body(events)),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::OUTCOME, HeaderValue::from_static(Outcome::Hit.as_str()));
    headers.insert(header::CACHE_STATUS, HeaderValue::from_static("HIT"));
    headers.insert(AGE, HeaderValue::from(found.age_ms / 1000));
    insert_match(headers, found);
    response
}

/// What was found, and how near it is.
fn insert_match(headers: &mut HeaderMap, found: &Match) {
    headers.insert(header::TIER, HeaderValue::from_static(found.tier.as_str()));
    insert_text(headers, header::ENTRY, &found.entry.id.to_string());
    insert_text(headers, header::SIMILARITY, &format!("{:.4}", found.similarity.get()));
    if let Some(probability) = found.probability {
        insert_text(headers, header::PROBABILITY, &format!("{:.4}", probability.get()));
    }
}

/// What a cache that only watches would have served.
pub(crate) fn stamp_shadow(headers: &mut HeaderMap, found: &Match) {
    stamp(headers, Outcome::Shadow, Reason::Audit);
    headers.remove(header::REASON);
    insert_match(headers, found);
}

/// The answer to a client that wants the cache's answer or none.
pub(crate) fn not_cached(outcome: Outcome, reason: Reason) -> Response<Body> {
    let problem = Problem::new(StatusCode::GATEWAY_TIMEOUT, "only_if_cached", "no answer in the cache");
    let mut response = problem_response(&problem);
    stamp(response.headers_mut(), outcome, reason);
    response
}

/// What became of a request that was not served from the cache. Another nearhit behind this one has no say in it.
pub(crate) fn stamp(headers: &mut HeaderMap, outcome: Outcome, reason: Reason) {
    strip_own_headers(headers);
    let status = if outcome == Outcome::Bypass { "BYPASS" } else { "MISS" };
    headers.insert(header::OUTCOME, HeaderValue::from_static(outcome.as_str()));
    headers.insert(header::REASON, HeaderValue::from_static(reason.as_str()));
    headers.insert(header::CACHE_STATUS, HeaderValue::from_static(status));
}

fn insert_text(headers: &mut HeaderMap, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
