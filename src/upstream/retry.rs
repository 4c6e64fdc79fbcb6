//! PURE: whether a call that failed is made again, where and when. What failed and what was sent is said by the caller.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

/// The tries of one call, over the upstreams that may answer it.
#[derive(Debug)]
pub(super) struct Tries {
    /// Tries after the first, by upstream.
    retries: Vec<u32>,
    /// Where the call is.
    leg: usize,
    here: u32,
    made: u32,
}

/// The next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) leg: usize,
    pub(super) wait: Duration,
}

/// What a failure says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// After the usual wait.
    Anytime,
    /// Not before this has passed.
    After(Duration),
    /// Not at this upstream.
    Elsewhere,
}

impl Tries {
    /// At the first try of the first upstream; `retries` of each, at least one.
    pub(super) fn new(retries: Vec<u32>) -> Self {
        Self { retries, leg: 0, here: 1, made: 1 }
    }

    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// Whether a failure now would be followed by another try, if nothing speaks against it.
    pub(super) fn has_next(&self) -> bool {
        self.made < TRIES_MAX && (self.may_stay() || self.leg + 1 < self.retries.len())
    }

    /// The next try after a failure: here, or at the next upstream at once. No wait is longer than `longest`; `chance`
    /// in [0, 1) picks one.
    pub(super) fn next(&mut self, again: Again, longest: Duration, chance: f64) -> Option<Next> {
        if !self.has_next() {
            return None;
        }
        let wait = match again {
            Again::Anytime => Some(backoff(self.here, chance)),
            Again::After(wait) => Some(wait.max(backoff(self.here, chance))),
            Again::Elsewhere => None,
        };
        self.made += 1;
        match wait.filter(|wait| self.may_stay() && *wait <= longest.min(WAIT_MAX)) {
            Some(wait) => {
                self.here += 1;
                Some(Next { leg: self.leg, wait })
            }
            None if self.leg + 1 < self.retries.len() => {
                self.leg += 1;
                self.here = 1;
                Some(Next { leg: self.leg, wait: Duration::ZERO })
            }
            None => {
                self.made -= 1;
                None
            }
        }
    }

    fn may_stay(&self) -> bool {
        self.retries.get(self.leg).is_some_and(|retries| self.here <= *retries)
    }
}

/// Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015).
fn backoff(tries: u32, chance: f64) -> Duration {
    let most = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1))).min(WAIT_MAX);
    most.mul_f64(chance.clamp(0.0, 1.0))
}

/// Whether an answer with this status is one that another try may better.
pub(super) fn is_failure(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// What a failed answer says about trying again; `now_s` is the time since 1970.
pub(super) fn again(headers: &HeaderMap, now_s: u64) -> Again {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?").trim());
    let wait = |seconds: f64| Duration::try_from_secs_f64(seconds).map_or(Again::Elsewhere, Again::After);
    match (text("retry-after-ms").and_then(|ms| ms.parse::<f64>().ok()), text("retry-after")) {
        (Some(ms), _) => wait(ms / 1000.0),
        (None, None) => Again::Anytime,
        (None, Some(after)) => match (after.parse(), httpdate::parse_http_date(after)) {
            (Ok(seconds), _) => wait(seconds),
            (_, Ok(date)) => match date.duration_since(std::time::UNIX_EPOCH) {
                Ok(at) => Again::After(at.saturating_sub(Duration::from_secs(now_s))),
                Err(_) => Again::Anytime,
            },
            // It asks for a wait, and nobody knows how long.
            _ => Again::Elsewhere,
        },
    }
}

/// Over all upstreams of a call: one that fails everywhere must not become a storm.
pub(super) const TRIES_MAX: u32 = 3;

/// Most that the first wait can be.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Longest wait; whoever asks for a longer one is not asked again.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn calls_go_on_where_they_may() {
        use Again::{After, Anytime, Elsewhere};
        let check = |retries: &[u32], failures: &[Again], expected: &[usize]| {
            let mut tries = Tries::new(retries.to_vec());
            let next = failures.iter().map_while(|again| tries.next(*again, WAIT_MAX, 0.5));
            assert_eq!(next.map(|next| next.leg).collect::<Vec<_>>(), expected, "{retries:?} {failures:?}");
        };
        let soon = After(Duration::from_secs(60));
        let late = After(Duration::from_secs(61));
        check(&[0], &[Anytime], &[]);
        check(&[1], &[Anytime; 3], &[0]);
        check(&[9], &[Anytime; 9], &[0, 0]);
        check(&[0, 0], &[Anytime; 9], &[1]);
        check(&[0, 0, 0, 0], &[Anytime; 9], &[1, 2]);
        check(&[1, 1], &[Anytime; 9], &[0, 1]);
        check(&[2, 0], &[Elsewhere; 9], &[1]);
        check(&[2, 0], &[soon, late, soon], &[0, 1]);
        check(&[2], &[late], &[]);
    }

    #[test]
    fn what_a_provider_asks_for_is_read() {
        let check = |headers: &[(&'static str, &str)], expected: Again| {
            let value = |text: &str| http::HeaderValue::from_str(text).expect("a value");
            let headers = headers.iter().map(|(n, v)| (http::HeaderName::from_static(n), value(v))).collect();
            assert_eq!(again(&headers, 784_111_770), expected, "{headers:?}");
        };
        check(&[], Again::Anytime);
        check(&[("retry-after", "7")], Again::After(Duration::from_secs(7)));
        check(&[("retry-after", " 0.5")], Again::After(Duration::from_millis(500)));
        check(&[("retry-after", "7"), ("retry-after-ms", "20")], Again::After(Duration::from_millis(20)));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], Again::After(Duration::from_secs(7)));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:00 GMT")], Again::After(Duration::ZERO));
        for odd in ["soon", "-1", "NaN", "inf", "1e300", ""] {
            check(&[("retry-after", odd)], Again::Elsewhere);
        }
    }

    proptest! {
        #[test]
        fn tries_are_few_and_go_forward_and_waits_are_bounded(
            retries in prop::collection::vec(0_u32..5, 1..6),
            failures in prop::collection::vec((0_u8..3, 0_u64..200_000), 0..10),
            longest_ms in 0_u64..100_000,
            chance in 0.0..1.0,
        ) {
            let longest = Duration::from_millis(longest_ms);
            let mut tries = Tries::new(retries.clone());
            let (mut made, mut leg, mut here) = (1, 0, 0);
            for (kind, ms) in failures {
                let asked = Duration::from_millis(ms);
                let failure = [Again::Anytime, Again::Elsewhere, Again::After(asked)][kind as usize];
                let expected = tries.has_next();
                let Some(next) = tries.next(failure, longest, chance) else { break };
                made += 1;
                prop_assert!(expected && made <= TRIES_MAX && tries.made() == made);
                prop_assert!(next.wait <= longest && next.wait <= WAIT_MAX);
                if next.leg == leg {
                    here += 1;
                    prop_assert!(here <= retries[leg] && failure != Again::Elsewhere);
                    prop_assert!(!matches!(failure, Again::After(asked) if next.wait < asked));
                } else {
                    prop_assert_eq!((next.leg, next.wait), (leg + 1, Duration::ZERO));
                    (leg, here) = (next.leg, 0);
                }
            }
        }
    }
}
