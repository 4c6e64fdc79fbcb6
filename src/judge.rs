//! Whoever can say whether two answers say the same, as a seam; and PacedJudge, which asks it no more than it may be asked.
//!
//! A judge that fails, is slow or is asked too much has no verdict, and nothing is learned then. Whether a comparison is
//! learned from must not depend on what it says, or the cache would think better of itself than it is: where other
//! words remain unjudged, as many equal ones are left aside.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Two answers to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case<'a> {
    pub question: &'a str,
    pub first: &'a str,
    pub second: &'a str,
}

impl Case<'_> {
    /// Whether no text is too long to be shown to a judge. None is cut: what is cut off may be the difference.
    pub fn is_short_enough(&self) -> bool {
        let Self { question, first, second } = self;
        [question, first, second].iter().all(|text| text.len() <= TEXT_BYTES_MAX)
    }
}

/// Says whether two answers say the same.
#[async_trait]
pub trait AnswerJudge: Send + Sync {
    /// Whether both say the same to whoever asked.
    ///
    /// # Errors
    /// It cannot tell.
    async fn is_same(&self, case: Case<'_>) -> Result<bool, Undecided>;
}

/// Why there is no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    #[error("the judge could not be asked, or refused")]
    Failed,
    #[error("the judge took too long")]
    TimedOut,
    #[error("the judge's answer is no verdict")]
    Unclear,
    #[error("too many cases at a time")]
    Busy,
    #[error("too many cases this minute")]
    Paced,
    #[error("a text is too long to be judged")]
    TooLong,
    #[error("as many equal answers are left aside as others remain unjudged")]
    LeftAside,
}

impl Undecided {
    /// Its word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Unclear => "unclear",
            Self::Busy => "busy",
            Self::Paced => "paced",
            Self::TooLong => "too_long",
            Self::LeftAside => "left_aside",
        }
    }
}

/// How much a judge is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JudgeLimits {
    /// Most cases at a time.
    pub calls_max: usize,
    /// Most cases that are begun in a minute.
    pub calls_per_minute: u32,
    /// Longest wait for a verdict.
    pub timeout: Duration,
}

impl Default for JudgeLimits {
    fn default() -> Self {
        Self { calls_max: 4, calls_per_minute: 60, timeout: Duration::from_secs(10) }
    }
}

/// A judge that is asked no more than its limits allow.
pub struct PacedJudge {
    judge: Arc<dyn AnswerJudge>,
    limits: JudgeLimits,
    seats: Semaphore,
    pace: Mutex<Pace>,
}

/// What the last cases came to.
#[derive(Debug)]
struct Pace {
    minute: Instant,
    begun: u32,
    /// Share of the last cases that had a verdict.
    decided: f64,
}

impl PacedJudge {
    pub fn new(judge: Arc<dyn AnswerJudge>, limits: JudgeLimits) -> Self {
        let pace = Pace { minute: Instant::now(), begun: 0, decided: 1.0 };
        Self { judge, limits, seats: Semaphore::new(limits.calls_max), pace: Mutex::new(pace) }
    }

    /// Whether the answers, whose words are equal or not, say the same. `draw` is an even chance in [0, 1).
    ///
    /// # Errors
    /// Nobody can tell.
    pub async fn is_same(&self, case: Case<'_>, has_same_words: bool, draw: f64) -> Result<bool, Undecided> {
        if !case.is_short_enough() {
            return Err(Undecided::TooLong);
        }
        if has_same_words {
            return if draw < self.pace.lock().decided { Ok(true) } else { Err(Undecided::LeftAside) };
        }
        let verdict = self.ask(case).await;
        let mut pace = self.pace.lock();
        pace.decided += (f64::from(u8::from(verdict.is_ok())) - pace.decided) * WEIGHT;
        verdict
    }

    async fn ask(&self, case: Case<'_>) -> Result<bool, Undecided> {
        let _seat = self.seats.try_acquire().map_err(|_| Undecided::Busy)?;
        if !self.pace.lock().begin(self.limits.calls_per_minute) {
            return Err(Undecided::Paced);
        }
        match tokio::time::timeout(self.limits.timeout, self.judge.is_same(case)).await {
            Ok(verdict) => verdict,
            Err(_) => Err(Undecided::TimedOut),
        }
    }
}

impl Pace {
    /// Whether another case may begin.
    fn begin(&mut self, most: u32) -> bool {
        if self.minute.elapsed() >= MINUTE {
            (self.minute, self.begun) = (Instant::now(), 0);
        }
        let may = self.begun < most;
        self.begun += u32::from(may);
        may
    }
}

/// Bytes of a question or an answer: longer questions have no near ones, and longer answers are documents.
pub const TEXT_BYTES_MAX: usize = 16 << 10;

const MINUTE: Duration = Duration::from_secs(60);

/// Of the newest case among the last ones.
const WEIGHT: f64 = 1.0 / 32.0;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Says what it is told to, as often as it may.
    struct Scripted {
        verdict: Result<bool, Undecided>,
        may: Semaphore,
        asked: AtomicUsize,
    }

    #[async_trait]
    impl AnswerJudge for Scripted {
        async fn is_same(&self, _: Case<'_>) -> Result<bool, Undecided> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.may.acquire().await.expect("never closed").forget();
            self.verdict
        }
    }

    fn paced(verdict: Result<bool, Undecided>, may: usize, limits: JudgeLimits) -> (Arc<Scripted>, PacedJudge) {
        let judge = Arc::new(Scripted { verdict, may: Semaphore::new(may), asked: AtomicUsize::new(0) });
        (Arc::clone(&judge), PacedJudge::new(judge, limits))
    }

    const CASE: Case<'static> = Case { question: "Why?", first: "So.", second: "Because." };

    #[tokio::test]
    async fn other_words_are_judged_and_equal_ones_are_equal() {
        let (judge, paced) = paced(Ok(false), 1, JudgeLimits::default());
        assert_eq!(paced.is_same(CASE, false, 0.0).await, Ok(false));
        assert_eq!(paced.is_same(CASE, true, 0.99).await, Ok(true));
        assert_eq!(judge.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_is_too_much_too_slow_or_too_long_has_no_verdict() {
        let limits = JudgeLimits { calls_max: 1, calls_per_minute: 3, timeout: MINUTE };
        let (judge, busy) = paced(Ok(true), 0, limits);
        let second = async {
            let verdict = busy.is_same(CASE, false, 0.0).await;
            judge.may.add_permits(100);
            verdict
        };
        assert_eq!(tokio::join!(busy.is_same(CASE, false, 0.0), second), (Ok(true), Err(Undecided::Busy)));
        for expected in [Ok(true), Ok(true), Err(Undecided::Paced)] {
            assert_eq!(busy.is_same(CASE, false, 0.0).await, expected);
        }
        assert_eq!(judge.asked.load(Ordering::Relaxed), 3);
        busy.pace.lock().minute -= MINUTE;
        assert_eq!(busy.is_same(CASE, false, 0.0).await, Ok(true), "another minute");

        let (_, slow) = paced(Ok(true), 0, JudgeLimits { timeout: Duration::from_millis(1), ..limits });
        assert_eq!(slow.is_same(CASE, false, 0.0).await, Err(Undecided::TimedOut));
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        for case in [Case { question: &long, ..CASE }, Case { first: &long, ..CASE }, Case { second: &long, ..CASE }] {
            for has_same_words in [false, true] {
                assert_eq!(slow.is_same(case, has_same_words, 0.0).await, Err(Undecided::TooLong));
            }
        }
    }

    #[tokio::test]
    async fn as_many_equal_answers_are_left_aside_as_others_remain_unjudged() {
        let limits = JudgeLimits { calls_per_minute: 1_000, ..JudgeLimits::default() };
        let (_, paced) = paced(Err(Undecided::Failed), 200, limits);
        for _ in 0..200 {
            assert_eq!(paced.is_same(CASE, false, 0.0).await, Err(Undecided::Failed));
        }
        assert_eq!(paced.is_same(CASE, true, 0.01).await, Err(Undecided::LeftAside));
    }
}
