//! An answer on its way to the client, recorded as it passes.
//!
//! The client gets every byte when it comes and as it came. Only an answer that ended as its protocol says is put
//! into the cache: a body that breaks off, or whose reader leaves, is forgotten. Storing happens after sending and
//! holds nobody up.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use tokio_util::task::TaskTracker;

use crate::body::{Body, BoxError, is_encoded};
use crate::cache::{Asking, Cache, Held, NewEntry};
use crate::compare::Comparison;
use crate::decision::{Admission, Embedding, Origin, Prompt};
use crate::flight::Landing;
use crate::judge::PacedJudge;
use crate::route::Substitute;
use crate::store::Owner;
use crate::wire::answer::{Recorded as Answered, Timing};
use crate::wire::controls::Controls;
use crate::wire::request::ProviderRequest;
use crate::wire::sse::StreamRecorder;

/// What is needed to store the answer once it is whole.
pub(crate) struct Keep {
    pub(crate) cache: Arc<Cache>,
    /// Runs the storing once the answer is sent.
    pub(crate) tasks: TaskTracker,
    /// Largest answer that is kept.
    pub(crate) answer_bytes_max: usize,
    pub(crate) request: ProviderRequest,
    pub(crate) controls: Controls,
    pub(crate) prompt: Prompt,
    /// When the request came.
    pub(crate) came: Instant,
    pub(crate) vector: Option<Embedding>,
    pub(crate) status: StatusCode,
    /// The candidate that the fresh answer is compared with.
    pub(crate) held: Option<Held>,
    /// Who says whether both say the same, where that is a model.
    pub(crate) judge: Option<Arc<PacedJudge>>,
    /// Whether the candidate was served: the fresh answer is kept only if it is another one then.
    pub(crate) is_audit: bool,
    /// Lets others join until the answer is stored.
    pub(crate) landing: Option<Landing>,
    /// Lets others wait for it.
    pub(crate) asking: Option<Arc<Asking>>,
}

/// A response body with a recorder beside it.
struct Recorded {
    body: Body,
    tape: Option<(Tape, Keep)>,
}

enum Tape {
    Json(Vec<u8>),
    Stream {
        recorder: Box<StreamRecorder>,
        /// Milliseconds from the request to the first bytes.
        first_ms: Option<u64>,
    },
}

impl Recorded {
    fn json(body: Body, keep: Keep) -> Self {
        Self { body, tape: Some((Tape::Json(Vec::new()), keep)) }
    }

    fn stream(body: Body, keep: Keep) -> Self {
        let recorder = Box::new(keep.request.recorder());
        Self { body, tape: Some((Tape::Stream { recorder, first_ms: None }, keep)) }
    }

    fn feed(&mut self, data: &[u8]) {
        let Some((tape, keep)) = &mut self.tape else { return };
        let (bytes, whole) = match tape {
            Tape::Json(bytes) => {
                bytes.extend_from_slice(data);
                (bytes.len(), false)
            }
            Tape::Stream { recorder, first_ms } => {
                first_ms.get_or_insert_with(|| keep.elapsed_ms());
                recorder.feed(data);
                (recorder.bytes(), recorder.is_done())
            }
        };
        if bytes > keep.answer_bytes_max {
            keep.cache.metrics().dropped("too_large");
            self.tape = None;
            return;
        }
        if whole || self.body.is_end_stream() {
            self.end();
        }
    }

    /// The body came to its end.
    fn end(&mut self) {
        let Some((tape, keep)) = self.tape.take() else { return };
        let (answered, timing) = match tape {
            Tape::Json(bytes) => (keep.request.recorded(&bytes), None),
            Tape::Stream { recorder, first_ms } => {
                let timing = first_ms.map(|first_ms| Timing { first_ms, total_ms: keep.elapsed_ms() });
                (Some(recorder.finish()), timing)
            }
        };
        match answered {
            Some(answered) => keep.store(answered, timing),
            None => keep.cache.metrics().dropped("not_json"),
        }
    }
}

impl Keep {
    /// Records the answer while it passes, if it is of a kind that could be kept.
    pub(crate) fn record(self, response: Response<Body>) -> Response<Body> {
        let headers = response.headers();
        let media = headers.get(CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or_default();
        let rule = match media.split(';').next().unwrap_or_default().trim() {
            _ if response.status() != StatusCode::OK => "status",
            _ if response.extensions().get::<Substitute>().is_some() => "substitute",
            _ if is_encoded(headers) => "encoding",
            // Nobody asks such a body for its end.
            _ if response.body().is_end_stream() => "empty",
            "application/json" => return response.map(|body| Body::new(Recorded::json(body, self))),
            "text/event-stream" => return response.map(|body| Body::new(Recorded::stream(body, self))),
            _ => "media_type",
        };
        self.cache.metrics().dropped(rule);
        response
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.came.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn store(self, answered: Answered, timing: Option<Timing>) {
        let Self {
            cache,
            tasks,
            answer_bytes_max,
            request,
            controls,
            prompt,
            came: _,
            vector,
            status,
            held,
            judge,
            is_audit,
            landing,
            asking,
        } = self;
        if controls.read_only {
            return cache.metrics().dropped("read_only");
        }
        if let Some(reason) = cache.refuses(&prompt) {
            return cache.metrics().dropped(reason.as_str());
        }
        // The model that upstream was asked for, whatever name the client has for it.
        match answered.admission(&request, &prompt.scope, status.as_u16()) {
            Admission::Drop(rule) => cache.metrics().dropped(rule),
            Admission::Keep => {
                let answer = answered.into_answer(timing);
                let origin = request.to_origin(prompt.scope.headers.clone());
                if answer.body.len() > answer_bytes_max || is_long(&origin) {
                    return cache.metrics().dropped("too_large");
                }
                let owner = Owner { tenant: prompt.scope.tenant.clone(), cache: prompt.scope.cache.clone() };
                let ttl = cache.ttl(&prompt, controls.ttl);
                let (fresh, question) = (answer.clone(), prompt.text.clone());
                let new = NewEntry {
                    origin,
                    writer: prompt.scope.tenant.as_str().to_owned(),
                    answer,
                    tags: controls.tags,
                    sources: controls.sources,
                    created_ms: None,
                    ttl: Some(controls.ttl_most.map_or(ttl, |most| ttl.min(most))),
                    prompt,
                    vector,
                };
                let flight = landing.and_then(Landing::hold);
                tasks.spawn(async move {
                    let comparison =
                        Comparison { cache: &cache, judge: judge.as_deref(), owner: &owner, question: &question };
                    if let Some(held) = held.as_ref().filter(|_| is_audit)
                        && comparison.of(held, &fresh, None).await != Some(false)
                    {
                        return;
                    }
                    let stored = match cache.insert(new).await {
                        Ok(inserted) => {
                            cache.metrics().kept();
                            Some(inserted.id)
                        }
                        Err(error) => {
                            tracing::warn!(%error, "could not store an answer");
                            cache.metrics().dropped("store_down");
                            None
                        }
                    };
                    // From now on it is found in the cache, as long as it is there.
                    drop((flight, asking));
                    if let Some(held) = held.as_ref().filter(|_| !is_audit) {
                        comparison.of(held, &fresh, stored).await;
                    }
                });
            }
        }
    }
}

impl http_body::Body for Recorded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.feed(data);
                }
            }
            Some(Err(_)) => {
                if let Some((_, keep)) = self.tape.take() {
                    keep.cache.metrics().dropped("broken_off");
                }
            }
            None => self.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn is_long(origin: &Origin) -> bool {
    matches!(origin, Origin::Request { body, .. } if body.len() > REQUEST_BYTES_MAX)
}

/// A longer request is not kept with its answer, and so neither is the answer: a conversation that long is unlikely
/// to come again, and would be stored anew at every turn.
const REQUEST_BYTES_MAX: usize = 1 << 20;
