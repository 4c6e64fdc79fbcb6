//! One call over the upstreams that may answer it: retries, then fallbacks, until one answers or three tries are made.
//!
//! An upstream whose breaker is open is asked last, not never: a call fails only where every upstream that may answer
//! it failed it. Nothing is tried again once a byte of an answer was sent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Request, Response, request};
use tower_service::Service;

use super::client::Provider;
use super::failure::Failure;
use super::inspect::inspect;
use super::limit::Limited;
use super::retry::{self, Again, Tries};
use super::watch::Watched;
use crate::body::Body;
use crate::route::Substitute;

/// One upstream, ready to be called.
pub(super) struct Station {
    pub(super) name: String,
    pub(super) retries: u32,
    pub(super) service: Watched<Limited<Provider>>,
}

/// A call that may be made more than once.
pub(super) struct Call {
    pub(super) parts: request::Parts,
    /// The upstreams that may answer it, in order.
    pub(super) stops: Vec<Stop>,
    pub(super) wants_stream: bool,
    /// No wait between two tries is longer.
    pub(super) longest_wait: Duration,
}

/// An upstream that may answer a call.
#[derive(Clone)]
pub(super) struct Stop {
    pub(super) station: usize,
    /// With the model in it that this upstream is asked for.
    pub(super) body: Bytes,
    /// Whether it is another upstream than the one that the call resolves to.
    pub(super) is_substitute: bool,
}

/// In a response's extensions: who gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The upstream's name.
    pub upstream: String,
    /// Calls that were made for it, over all upstreams.
    pub tries: u32,
}

/// Sends a call whose body can be read once.
pub(super) async fn send_once(station: &Station, request: Request<Body>) -> Response<Body> {
    let result = station.service.clone().call(request).await;
    stamped(result.unwrap_or_else(|failure| failure.into_response()), station, 1)
}

pub(super) async fn send(stations: &[Station], call: Call) -> Response<Body> {
    let Call { parts, stops, wants_stream, longest_wait } = call;
    let stops = open_last(stations, stops);
    let places: Vec<(&Station, &Stop)> =
        stops.iter().filter_map(|stop| Some((stations.get(stop.station)?, stop))).collect();
    let mut tries = Tries::new(places.iter().map(|(station, _)| station.retries).collect());
    let mut place = 0;
    // What the last provider said that said anything: worth more to a client than our own words.
    let mut said = None;
    loop {
        let Some((station, stop)) = places.get(place) else {
            return Failure::UnknownPath(parts.uri.path().to_owned()).into_response();
        };
        let result = station.service.clone().call(stop.request(&parts)).await;
        let mark = |mut response: Response<Body>, made: u32| {
            if stop.is_substitute {
                response.extensions_mut().insert(Substitute);
            }
            stamped(response, station, made)
        };
        if !tries.has_next() {
            return match (result, said) {
                (Ok(response), _) => mark(response, tries.made()),
                (Err(_), Some(said)) => retold(said, tries.made()),
                (Err(failure), None) => mark(failure.into_response(), tries.made()),
            };
        }
        let again = match result {
            Ok(response) if retry::is_failure(response.status()) => {
                let again = retry::again(response.headers(), now_s());
                said = Some(mark(response, tries.made()));
                again
            }
            Ok(response) => match inspect(response, wants_stream).await {
                Some(response) => return mark(response, tries.made()),
                None => {
                    tracing::warn!(upstream = station.name, "an upstream's answer was none");
                    Again::Anytime
                }
            },
            Err(failure) => {
                let again = failure.again();
                said = said.or_else(|| Some(mark(failure.into_response(), tries.made())));
                again
            }
        };
        match tries.next(again, longest_wait, fastrand::f64()) {
            Some(next) => {
                place = next.leg;
                tokio::time::sleep(next.wait).await;
            }
            None => {
                let said = said.unwrap_or_else(|| mark(Failure::Unreachable.into_response(), tries.made()));
                return retold(said, tries.made());
            }
        }
    }
}

/// The upstreams that may be asked first, then those whose breaker is open.
fn open_last(stations: &[Station], stops: Vec<Stop>) -> Vec<Stop> {
    if stops.len() < 2 {
        return stops;
    }
    let watch = |stop: &Stop| stations.get(stop.station).map(|station| station.service.watch());
    let may_be_first = |(place, stop): &(usize, Stop)| {
        watch(stop).is_some_and(|watch| if *place == 0 { watch.admits() } else { !watch.is_open() })
    };
    let (first, last): (Vec<_>, Vec<_>) = stops.into_iter().enumerate().partition(may_be_first);
    first.into_iter().chain(last).map(|(_, stop)| stop).collect()
}

impl Stop {
    fn request(&self, parts: &request::Parts) -> Request<Body> {
        let mut parts = parts.clone();
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        Request::from_parts(parts, Body::from(self.body.clone()))
    }
}

fn stamped(mut response: Response<Body>, station: &Station, tries: u32) -> Response<Body> {
    response.extensions_mut().insert(Answered { upstream: station.name.clone(), tries });
    response
}

/// An earlier answer, after more tries that brought nothing better.
fn retold(mut response: Response<Body>, tries: u32) -> Response<Body> {
    if let Some(answered) = response.extensions_mut().get_mut::<Answered>() {
        answered.tries = tries;
    }
    response
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}
