//! Prefixes of prompts that were seen of late, by their hashes. Bounded: what is forgotten costs a saving, never an answer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A hash of a prefix and of whose it is.
pub(super) type Key = [u8; 16];

/// What was seen.
#[derive(Default)]
pub(super) struct Sightings {
    prefixes: Mutex<Recent<Vec<Instant>>>,
    /// The last prompt of each outline.
    prompts: Mutex<Recent<Option<Key>>>,
}

impl Sightings {
    /// How often this prefix was seen in the last five minutes, now included; no more than [`SEEN_MAX`].
    pub(super) fn seen(&self, prefix: Key, now: Instant) -> usize {
        let mut prefixes = self.prefixes.lock();
        let seen = prefixes.of(prefix, now);
        seen.retain(|at| now.duration_since(*at) < WINDOW);
        if seen.len() == SEEN_MAX {
            seen.remove(0);
        }
        seen.push(now);
        seen.len()
    }

    /// Whether the last prompt with this outline was another one.
    pub(super) fn is_unlike(&self, like: Key, exact: Key, now: Instant) -> bool {
        let mut prompts = self.prompts.lock();
        prompts.of(like, now).replace(exact).is_some_and(|last| last != exact)
    }
}

/// Values of the last five to ten minutes, of the newest keys if there are too many: in two halves, of which the older one is
/// dropped as a whole.
struct Recent<V> {
    newer: HashMap<Key, V>,
    older: HashMap<Key, V>,
    /// When the newer half began.
    began: Option<Instant>,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self { newer: HashMap::new(), older: HashMap::new(), began: None }
    }
}

impl<V: Default> Recent<V> {
    fn of(&mut self, key: Key, now: Instant) -> &mut V {
        let began = *self.began.get_or_insert(now);
        if now.duration_since(began) >= WINDOW || self.newer.len() >= HALF_MAX {
            self.older = std::mem::take(&mut self.newer);
            self.began = Some(now);
        }
        let older = &mut self.older;
        self.newer.entry(key).or_insert_with(|| older.remove(&key).unwrap_or_default())
    }
}

/// How long Anthropic keeps a prefix after its last use.
const WINDOW: Duration = Duration::from_secs(300);

/// Sightings of one prefix that are remembered.
pub const SEEN_MAX: usize = 16;

/// Keys in each half: 8 MB with all of their sightings.
const HALF_MAX: usize = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        (n as u128).to_le_bytes()
    }

    #[test]
    fn prefixes_are_counted_for_five_minutes() {
        let (sightings, start) = (Sightings::default(), Instant::now());
        let check = |s: u64, n: usize, expected: usize| {
            assert_eq!(sightings.seen(key(n), start + Duration::from_secs(s)), expected, "{n} after {s} s");
        };
        check(0, 1, 1);
        check(10, 1, 2);
        check(10, 2, 1);
        check(299, 1, 3);
        // The first is too long ago, and the half that it was in is the older one now.
        check(300, 1, 3);
        check(400, 2, 1);
        check(599, 1, 2);
        check(1200, 1, 1);
        for n in 1..2 * SEEN_MAX {
            check(1200, 3, n.min(SEEN_MAX));
        }
    }

    #[test]
    fn prompts_that_change_are_told() {
        let (sightings, now) = (Sightings::default(), Instant::now());
        let is_unlike = |like: usize, exact: usize| sightings.is_unlike(key(like), key(exact), now);
        let told = [is_unlike(1, 10), is_unlike(1, 10), is_unlike(1, 11), is_unlike(1, 11), is_unlike(2, 10)];
        assert_eq!(told, [false, false, true, false, false]);
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_newest() {
        let (sightings, now) = (Sightings::default(), Instant::now());
        for n in 0..5 * HALF_MAX {
            sightings.seen(key(n), now);
            sightings.seen(key(usize::MAX), now);
        }
        let prefixes = sightings.prefixes.lock();
        assert!(prefixes.newer.len() <= HALF_MAX && prefixes.older.len() <= HALF_MAX);
        assert!(prefixes.newer.contains_key(&key(5 * HALF_MAX - 1)) && !prefixes.older.contains_key(&key(0)));
        assert_eq!(prefixes.newer[&key(usize::MAX)].len(), SEEN_MAX);
    }
}
