//! How fast a streamed hit is sent: at once, at the pace at which it was recorded, or at a pace that the operator set.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::time::Instant;

use crate::body::{Body, BoxError};
use crate::decision::Answer;
use crate::wire::answer::{BYTES_PER_TOKEN, Event, Timing, stored_timing};
use crate::wire::request::spoken_bytes;

/// The pace of streamed hits.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Pace {
    #[default]
    AsFastAsPossible,
    /// As the stream came that was recorded. An answer that was recorded in one piece is sent as fast as possible.
    Original,
    /// Above zero.
    TokensPerSecond(f64),
}

/// How a text is cut and sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    /// Bytes of a piece.
    pub(crate) piece_bytes: usize,
    /// Before the first event.
    first: Duration,
    /// Before each piece.
    step: Duration,
}

impl Pace {
    pub(crate) fn schedule(self, answer: &Answer) -> Schedule {
        match self {
            Self::AsFastAsPossible => Schedule::AT_ONCE,
            Self::TokensPerSecond(rate) => Schedule::steady(rate),
            Self::Original => match stored_timing(answer) {
                Some(timing) => Schedule::spread(timing, spoken_bytes(answer)),
                None => Schedule::AT_ONCE,
            },
        }
    }
}

impl Schedule {
    const AT_ONCE: Self = Self { piece_bytes: usize::MAX, first: Duration::ZERO, step: Duration::ZERO };

    fn steady(rate: f64) -> Self {
        // As many tokens at a time as keep the steps long enough.
        let tokens = (rate * STEP_MIN.as_secs_f64()).ceil().max(1.0);
        let step = Duration::try_from_secs_f64(tokens / rate).unwrap_or(STEP_MAX).min(STEP_MAX);
        Self { piece_bytes: (tokens as usize).saturating_mul(BYTES_PER_TOKEN), first: Duration::ZERO, step }
    }

    fn spread(timing: Timing, bytes: usize) -> Self {
        let Timing { first_ms, total_ms } = timing;
        let rest_ms = total_ms.saturating_sub(first_ms);
        let tokens = bytes.div_ceil(BYTES_PER_TOKEN).max(1);
        let steps = usize::try_from(rest_ms / STEP_MIN.as_millis() as u64).unwrap_or(tokens).clamp(1, tokens);
        let step = (Duration::from_millis(rest_ms) / u32::try_from(steps).unwrap_or(u32::MAX)).min(STEP_MAX);
        Self { piece_bytes: bytes.div_ceil(steps), first: Duration::from_millis(first_ms).min(FIRST_MAX), step }
    }

    /// The events as a body that is sent in time.
    pub(crate) fn body(self, events: Vec<Event>) -> Body {
        if self == Self::AT_ONCE {
            return Body::from(events.into_iter().map(|event| event.bytes).collect::<String>());
        }
        let start = Instant::now() + self.first;
        let frames = stream::unfold((events.into_iter(), start), move |(mut events, mut due)| async move {
            let event = events.next()?;
            if event.is_piece {
                due += self.step;
            }
            tokio::time::sleep_until(due).await;
            Some((Ok::<_, BoxError>(Frame::data(Bytes::from(event.bytes))), (events, due)))
        });
        Body::new(StreamBody::new(frames))
    }
}

/// Shorter steps nobody sees.
const STEP_MIN: Duration = Duration::from_millis(20);

/// Whoever waits longer for the next word takes the stream for dead.
const STEP_MAX: Duration = Duration::from_secs(10);

/// The same of the first.
const FIRST_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    fn schedule(piece_bytes: usize, first_ms: u64, step_ms: u64) -> Schedule {
        let (first, step) = (Duration::from_millis(first_ms), Duration::from_millis(step_ms));
        Schedule { piece_bytes, first, step }
    }

    #[test]
    fn schedules() {
        assert_eq!(Schedule::steady(10.0), schedule(4, 0, 100));
        assert_eq!(Schedule::steady(200.0), schedule(16, 0, 20));
        assert_eq!(Schedule::steady(1e-300), schedule(4, 0, 10_000));
        let spread = |first_ms, total_ms, bytes| Schedule::spread(Timing { first_ms, total_ms }, bytes);
        // Ten tokens in a second: one at a time.
        assert_eq!(spread(500, 1500, 40), schedule(4, 500, 100));
        // Many tokens in a second: fifty steps.
        assert_eq!(spread(0, 1000, 4000), schedule(80, 0, 20));
        assert_eq!(spread(300, 300, 40), schedule(40, 300, 0));
        assert_eq!(spread(300, 100, 0), schedule(0, 300, 0));
    }

    #[tokio::test]
    async fn what_is_sent_is_what_was_said() {
        let events = || vec![Event::data(&"one").piece(), Event::data(&"two").piece(), Event::data(&"[DONE]")];
        let at_once = Schedule::AT_ONCE.body(events()).collect().await.expect("a body").to_bytes();
        let in_time = schedule(1, 1, 1).body(events()).collect().await.expect("a body").to_bytes();
        assert_eq!(at_once, "data: one\n\ndata: two\n\ndata: [DONE]\n\n");
        assert_eq!(in_time, at_once);
    }

    proptest! {
        #[test]
        fn a_stream_takes_no_longer_than_it_took(first_ms in 0u64..9000, rest_ms in 0u64..9000, bytes in 0usize..9000) {
            let total_ms = first_ms + rest_ms;
            let Schedule { piece_bytes, first, step } = Schedule::spread(Timing { first_ms, total_ms }, bytes);
            let pieces = bytes.div_ceil(piece_bytes.max(1)) as u32;
            prop_assert!(first + step * pieces <= Duration::from_millis(total_ms) + STEP_MIN);
        }
    }
}
