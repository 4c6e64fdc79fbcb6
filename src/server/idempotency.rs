//! Inserts that a client may send twice: the same key with the same body is one insert, with another body an error.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use crate::decision::EntryId;
use crate::store::Owner;

/// The keys seen last, in this process.
#[derive(Debug, Default)]
pub struct IdempotencyKeys(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    inserts: HashMap<[u8; 32], ([u8; 32], EntryId)>,
    order: VecDeque<[u8; 32]>,
}

/// What is known of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    New,
    Same(EntryId),
    Other,
}

/// A key and the hash of the body that it came with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    key: [u8; 32],
    body: [u8; 32],
}

impl Attempt {
    pub(super) fn new(owner: &Owner, key: &str, body: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [owner.tenant.as_str(), owner.cache.as_str(), key] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        Self { key: *hasher.finalize().as_bytes(), body: *blake3::hash(body.as_bytes()).as_bytes() }
    }
}

impl IdempotencyKeys {
    pub(super) fn find(&self, attempt: &Attempt) -> Known {
        match self.0.lock().inserts.get(&attempt.key) {
            None => Known::New,
            Some((body, id)) if *body == attempt.body => Known::Same(*id),
            Some(_) => Known::Other,
        }
    }

    pub(super) fn remember(&self, attempt: Attempt, id: EntryId) {
        let mut seen = self.0.lock();
        if seen.inserts.insert(attempt.key, (attempt.body, id)).is_none() {
            seen.order.push_back(attempt.key);
        }
        if seen.order.len() > KEYS_MAX
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.inserts.remove(&oldest);
        }
    }
}

/// A retry comes within seconds; this many keys (11 MB) outlast it by far.
const KEYS_MAX: usize = 100_000;
