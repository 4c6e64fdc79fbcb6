//! A request's body on its way in. What there is no room for is sent on unread: it costs a lookup, not the call.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, request};
use tower_service::Service;

use super::{Gate, owner_of};
use crate::body::{Body, BoxError, Holding, check_media, problem_response};
use crate::decision::{Outcome, Reason};
use crate::room::{Begun, Share, Taken, take};
use crate::stamp::not_cached;
use crate::wire::controls::Controls;
use crate::wire::problem::Problem;

impl Gate {
    pub(super) async fn take<B>(&self, headers: &HeaderMap, body: B, share: &mut Share) -> Result<Taken<B>, Problem>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        check_media(headers)?;
        take(body, self.settings.reading(), share).await
    }

    /// Sends on what there is no room for; it is not looked up, and so need not be held.
    pub(super) async fn pass_begun<S, B>(
        &self,
        inner: S,
        mut parts: request::Parts,
        begun: Begun<B>,
    ) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let controls = match Controls::read_with(&self.settings.compats, &parts.headers, None, None) {
            Ok(controls) => controls,
            Err(error) => return Ok(problem_response(&Problem::from(error))),
        };
        self.hear(owner_of(&parts, &controls), controls.feedback);
        if controls.only_if_cached {
            self.cache.metrics().bypass(Reason::Overloaded);
            return Ok(not_cached(Outcome::Bypass, Reason::Overloaded));
        }
        self.strip(&mut parts.headers);
        self.pass(inner, Request::from_parts(parts, Body::new(begun)), Reason::Overloaded).await
    }
}

/// Keeps the share until the answer is at its end: what was understood of the request is needed so long.
pub(super) fn holding(response: Response<Body>, share: Share) -> Response<Body> {
    if share.bytes() <= SMALL {
        return response;
    }
    response.map(|body| Body::new(Holding { body, _held: share }))
}

/// Bodies that are not worth counting once they are read.
const SMALL: usize = 16 << 10;
