//! What do stored answers say of a slot? Advice for whoever sets the roles.
//!
//! Only entries that are equal but for the slot's value are compared, so that what differs is the value's doing. It is never
//! more than advice: that answers to some values are the same says nothing of the next value ("Is 9 a prime number?").

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::decision::{Answer, AnswerTemplate, Key, Role, Slot, words_digest};

/// What was seen of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// Different values whose answers were compared with those of others, at most [`VALUES_MAX`].
    pub values: usize,
    /// The role that it looks like; none below [`VALUES_LEAST`] values.
    pub looks: Option<Role>,
}

/// The comparisons of one slot.
#[derive(Debug, Default)]
pub(super) struct Observing {
    /// The first answer of each text around the slot.
    firsts: HashMap<Key, First>,
    values: HashSet<u64>,
    /// What other values' answers were: the same words; equal but for the value; anything else.
    same: bool,
    repeated: bool,
    other: bool,
}

#[derive(Debug)]
struct First {
    value: u64,
    said: Said,
}

/// An answer's words, and the answer without the value if it repeats it.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    words: Option<[u8; 32]>,
    around: Option<[u8; 32]>,
}

impl Observing {
    /// An answer, and what stands around the slot. False if it was left out, because there is no `room` for another text.
    pub(super) fn add(&mut self, around: Key, slot: &Slot, answer: &Answer, room: &mut usize) -> bool {
        let value = hash(&slot.canonical);
        let around_it = AnswerTemplate::cut(answer, &slot.written).map(|answer| answer.digest());
        let said = Said { words: words_digest(answer), around: around_it };
        let Some(first) = self.firsts.get(&around) else {
            if *room == 0 {
                return false;
            }
            *room -= 1;
            self.firsts.insert(around, First { value, said });
            return true;
        };
        if first.value == value {
            return true;
        }
        for value in [first.value, value] {
            if self.values.len() < VALUES_MAX {
                self.values.insert(value);
            }
        }
        if said.words.is_some() && said.words == first.said.words {
            self.same = true;
        } else if said.around.is_some() && said.around == first.said.around {
            self.repeated = true;
        } else {
            self.other = true;
        }
        true
    }

    /// None where nothing could be compared.
    pub(super) fn finish(&self) -> Option<Observed> {
        let looks = match (self.same, self.repeated, self.other) {
            (true, false, false) => Role::Volatile,
            (false, true, false) => Role::Echoed,
            (false, false, false) => return None,
            _ => Role::Significant,
        };
        let values = self.values.len();
        Some(Observed { values, looks: (values >= VALUES_LEAST).then_some(looks) })
    }
}

fn hash(value: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Values before anything is said: if one value in three were unlike the others, so many would miss it in 1 of 25 cases.
pub const VALUES_LEAST: usize = 8;

/// Values that are told apart in one slot.
pub const VALUES_MAX: usize = 256;
