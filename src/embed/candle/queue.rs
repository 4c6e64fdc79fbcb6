//! The way to the workers: which text is next.
//!
//! Two queues, each with its own bound: whoever waits for an answer goes before whatever runs in the background, which
//! still gets a turn now and then. A text that is asked for twice is embedded once. A text that nobody waits for any more
//! is not there any more. It knows no model: what comes out is up to the workers.

use std::collections::{BTreeMap, HashMap};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::decision::{Embedding, Tenant};
use crate::embed::{EmbedError, Haste};

/// What became of a text.
pub(super) type Outcome = Result<Embedding, EmbedError>;

/// A tenant's text, hashed: tenants wait neither for nor with each other's texts, and share no memo. Whoever could see that a
/// text is known already would know what others ask.
pub(super) type TextKey = [u8; 32];

pub(super) fn key(tenant: &Tenant, text: &str) -> TextKey {
    let tenant = tenant.as_str().as_bytes();
    let length = (tenant.len() as u64).to_le_bytes();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&length).update(tenant).update(text.as_bytes());
    *hasher.finalize().as_bytes()
}

/// A queue for any number of workers.
pub(super) struct Queue {
    length: usize,
    lines: Mutex<Lines>,
    /// Something was queued, or the queue was closed.
    news: Condvar,
}

#[derive(Default)]
struct Lines {
    texts: HashMap<TextKey, Asked>,
    lookups: BTreeMap<u64, TextKey>,
    background: BTreeMap<u64, TextKey>,
    /// The next number of a place or of a waiter.
    next: u64,
    /// Lookups since a background text had its turn.
    passed: u32,
    is_closed: bool,
}

/// A text that somebody waits for.
struct Asked {
    text: String,
    /// Where it stands; `None` once a worker has it.
    place: Option<(Haste, u64)>,
    waiters: Vec<(u64, oneshot::Sender<Outcome>)>,
}

/// Somebody's wait for one text. Dropped, it withdraws the text, unless somebody else waits for it too or a worker has it.
pub(super) struct Ticket<'a> {
    queue: &'a Queue,
    key: TextKey,
    number: u64,
    outcome: oneshot::Receiver<Outcome>,
}

impl Queue {
    /// Each queue takes up to `length` texts.
    pub(super) fn new(length: usize) -> Self {
        Self { length, lines: Mutex::default(), news: Condvar::new() }
    }

    /// # Errors
    /// The queue is full or closed.
    pub(super) fn ask(&self, key: TextKey, text: &str, haste: Haste) -> Result<Ticket<'_>, EmbedError> {
        let (done, outcome) = oneshot::channel();
        let mut lines = self.lines.lock();
        if lines.is_closed {
            return Err(stopped());
        }
        let number = lines.number();
        let lines = &mut *lines;
        match lines.texts.get_mut(&key) {
            Some(asked) => {
                asked.waiters.push((number, done));
                if let (Haste::Lookup, Some((Haste::Background, place))) = (haste, asked.place) {
                    lines.background.remove(&place);
                    lines.lookups.insert(place, key);
                    asked.place = Some((haste, place));
                }
            }
            None => {
                if lines.line(haste).len() >= self.length {
                    return Err(EmbedError::Overloaded);
                }
                lines.line(haste).insert(number, key);
                let (text, place) = (text.to_owned(), Some((haste, number)));
                lines.texts.insert(key, Asked { text, place, waiters: vec![(number, done)] });
                self.news.notify_one();
            }
        }
        Ok(Ticket { queue: self, key, number, outcome })
    }

    /// The next text, as soon as there is one; `None` once the queue is closed.
    pub(super) fn take(&self) -> Option<(TextKey, String)> {
        let mut lines = self.lines.lock();
        loop {
            if lines.is_closed {
                return None;
            }
            if let Some(taken) = lines.take() {
                return Some(taken);
            }
            self.news.wait(&mut lines);
        }
    }

    /// Tells everybody who waits for the text.
    pub(super) fn finish(&self, key: &TextKey, outcome: &Outcome) {
        let asked = self.lines.lock().texts.remove(key);
        for (_, waiter) in asked.into_iter().flat_map(|asked| asked.waiters) {
            // It may have gone meanwhile.
            drop(waiter.send(outcome.clone()));
        }
    }

    /// Tells everybody whose text no worker has yet.
    pub(super) fn refuse_all(&self, outcome: &Outcome) {
        let mut lines = self.lines.lock();
        lines.lookups.clear();
        lines.background.clear();
        let waiting = lines.texts.extract_if(|_, asked| asked.place.is_some()).collect::<Vec<_>>();
        drop(lines);
        for (_, waiter) in waiting.into_iter().flat_map(|(_, asked)| asked.waiters) {
            drop(waiter.send(outcome.clone()));
        }
    }

    /// Workers end, and whoever waits is told.
    pub(super) fn close(&self) {
        let mut lines = self.lines.lock();
        lines.is_closed = true;
        lines.texts.clear();
        self.news.notify_all();
    }

    fn withdraw(&self, key: &TextKey, number: u64) {
        let mut lines = self.lines.lock();
        let lines = &mut *lines;
        let Some(asked) = lines.texts.get_mut(key) else { return };
        asked.waiters.retain(|(waiter, _)| *waiter != number);
        if let (true, Some((haste, place))) = (asked.waiters.is_empty(), asked.place) {
            lines.texts.remove(key);
            lines.line(haste).remove(&place);
        }
    }
}

impl Lines {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn line(&mut self, haste: Haste) -> &mut BTreeMap<u64, TextKey> {
        match haste {
            Haste::Lookup => &mut self.lookups,
            Haste::Background => &mut self.background,
        }
    }

    fn take(&mut self) -> Option<(TextKey, String)> {
        let is_due = self.passed >= LOOKUPS_A_TURN || self.lookups.is_empty();
        let key = match self.background.first_entry().filter(|_| is_due) {
            Some(first) => {
                self.passed = 0;
                first.remove()
            }
            None => {
                let (_, key) = self.lookups.pop_first()?;
                self.passed += 1;
                key
            }
        };
        let asked = self.texts.get_mut(&key)?;
        asked.place = None;
        Some((key, std::mem::take(&mut asked.text)))
    }
}

impl Ticket<'_> {
    pub(super) async fn outcome(mut self) -> Outcome {
        (&mut self.outcome).await.unwrap_or_else(|_| Err(stopped()))
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.queue.withdraw(&self.key, self.number);
    }
}

fn stopped() -> EmbedError {
    EmbedError::Failed("the embedder has stopped".into())
}

/// Lookups that may go before one background text: it costs them 6 %, and an insert is not starved by a flood of them.
const LOOKUPS_A_TURN: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> TextKey {
        super::key(&Tenant::new("me"), text)
    }

    fn ask<'a>(queue: &'a Queue, text: &str, haste: Haste) -> Result<Ticket<'a>, EmbedError> {
        queue.ask(key(text), text, haste)
    }

    fn take(queue: &Queue) -> String {
        queue.take().expect("a text").1
    }

    #[test]
    fn lookups_go_first_and_the_background_gets_its_turn() {
        let queue = Queue::new(100);
        let asked = |name: &str, haste| (0..40).map(|n| ask(&queue, &format!("{name}{n}"), haste)).collect::<Vec<_>>();
        let tickets = [asked("background ", Haste::Background), asked("lookup ", Haste::Lookup)];
        let order: Vec<String> = (0..80).map(|_| take(&queue)).collect();
        let background = |range: std::ops::Range<usize>| order[range].iter().filter(|t| t.starts_with('b')).count();
        assert_eq!(order[0], "lookup 0");
        assert_eq!(order[16], "background 0");
        assert_eq!((background(0..42), background(42..80)), (2, 38), "{order:?}");
        drop(tickets);
    }

    #[tokio::test]
    async fn a_text_asked_for_twice_is_embedded_once() {
        let queue = Queue::new(2);
        let early = ask(&queue, "same", Haste::Background).expect("queued");
        let other = ask(&queue, "other", Haste::Background).expect("queued");
        let late = ask(&queue, "same", Haste::Lookup).expect("joined");
        assert_eq!(take(&queue), "same", "a lookup took it along");
        let running = ask(&queue, "same", Haste::Lookup).expect("joined while it runs");
        let outcome = Err(EmbedError::TooLong { window: 7 });
        queue.finish(&key("same"), &outcome);
        for ticket in [early, late, running] {
            assert_eq!(ticket.outcome().await, outcome);
        }
        assert_eq!(take(&queue), "other");
        drop(other);
        assert!(queue.lines.lock().texts.contains_key(&key("other")), "a worker has it");
        queue.finish(&key("other"), &outcome);
        assert!(queue.lines.lock().texts.is_empty());
    }

    #[test]
    fn what_nobody_waits_for_leaves_the_queue() {
        for haste in [Haste::Lookup, Haste::Background] {
            let queue = Queue::new(2);
            let (a, b) = (ask(&queue, "a", haste), ask(&queue, "b", haste));
            assert_eq!(ask(&queue, "c", haste).err(), Some(EmbedError::Overloaded));
            let again = ask(&queue, "a", haste).expect("joining needs no room");
            drop(a);
            assert_eq!(ask(&queue, "c", haste).err(), Some(EmbedError::Overloaded), "somebody still waits for a");
            drop(again);
            let c = ask(&queue, "c", haste);
            assert_eq!((take(&queue), take(&queue)), ("b".to_owned(), "c".to_owned()));
            drop((b, c));
        }
    }

    #[test]
    fn tenants_share_no_key() {
        let keys = [("a", "bc"), ("ab", "c"), ("", "abc"), ("b", "bc"), ("a", "b")];
        let keys = keys.map(|(tenant, text)| super::key(&Tenant::new(tenant), text));
        for (n, key) in keys.iter().enumerate() {
            assert!(!keys[..n].contains(key), "{n}");
        }
    }

    #[test]
    fn each_queue_has_its_own_bound() {
        let queue = Queue::new(1);
        let background = ask(&queue, "a", Haste::Background);
        assert_eq!(ask(&queue, "b", Haste::Background).err(), Some(EmbedError::Overloaded));
        let lookup = ask(&queue, "c", Haste::Lookup);
        assert!(background.is_ok() && lookup.is_ok(), "a long import takes no room from lookups");
    }

    #[tokio::test]
    async fn all_that_wait_can_be_refused() {
        let queue = Queue::new(2);
        let outcome = Err(EmbedError::Overloaded);
        let (running, waiting) = (ask(&queue, "a", Haste::Lookup), ask(&queue, "b", Haste::Background));
        assert_eq!(take(&queue), "a");
        queue.refuse_all(&outcome);
        assert_eq!(waiting.expect("queued").outcome().await, outcome);
        let done = Err(EmbedError::TooLong { window: 1 });
        queue.finish(&key("a"), &done);
        assert_eq!(running.expect("queued").outcome().await, done);
        assert!(queue.lines.lock().background.is_empty());
    }

    #[tokio::test]
    async fn closing_ends_every_wait() {
        let queue = Queue::new(2);
        let waiting = ask(&queue, "a", Haste::Lookup).expect("queued");
        queue.close();
        assert_eq!(waiting.outcome().await, Err(stopped()));
        assert_eq!(ask(&queue, "b", Haste::Lookup).err(), Some(stopped()));
        assert!(queue.take().is_none());
    }
}
