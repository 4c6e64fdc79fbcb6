//! What the template tier knows, in memory and bounded.
//!
//! Keys of entries live in two generations: when the younger is full it becomes the older, and the older, half of all
//! keys, is forgotten. Of refilling nothing is forgotten, for that could be a contradiction: when there is no more room
//! nothing more is learnt.

use std::collections::{HashMap, HashSet};

use crate::decision::{EntryId, Key};

/// What one entry is found by, and what its answer says about refilling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(super) id: EntryId,
    pub(super) created_ms: u64,
    pub(super) template: Key,
    pub(super) skeleton: Key,
    pub(super) frames: Vec<SeenFrame>,
}

/// An entry with one of its slots open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenFrame {
    pub(super) key: Key,
    /// Of the answer without the slot's value; `None` if it does not repeat it.
    pub(super) digest: Option<[u8; 32]>,
    pub(super) is_telling: bool,
}

#[derive(Debug)]
pub(super) struct Index {
    keys_max: usize,
    /// Of one frame that are remembered.
    instances_max: usize,
    young: HashMap<Key, Instance>,
    old: HashMap<Key, Instance>,
    frames: HashMap<Key, Frame>,
    /// Skeletons of which one stored answer contradicted the others.
    barred: HashSet<Key>,
}

/// Entries that are equal but for one slot, and whose answers are.
#[derive(Debug)]
struct Frame {
    digest: Option<[u8; 32]>,
    /// The one entry that the digest is from, as long as there was no other.
    only: Option<EntryId>,
    /// The last ones with a telling value, newest last.
    instances: Vec<Instance>,
}

/// By age, so that the newest is found whatever order they come in.
#[derive(Debug, Clone, Copy)]
struct Instance {
    created_ms: u64,
    id: EntryId,
}

impl Index {
    pub(super) fn new(keys_max: usize, instances_max: usize) -> Self {
        let (young, old, frames, barred) = Default::default();
        Self { keys_max, instances_max, young, old, frames, barred }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    /// The newest entry of this template.
    pub(super) fn entry(&self, template: &Key) -> Option<EntryId> {
        self.instance(template).map(|instance| instance.id)
    }

    /// Forgets the key unless it leads to another entry by now.
    pub(super) fn forget(&mut self, template: &Key, id: EntryId) {
        for keys in [&mut self.young, &mut self.old] {
            if keys.get(template).is_some_and(|instance| instance.id == id) {
                keys.remove(template);
            }
        }
    }

    /// An entry that is stored.
    pub(super) fn learn(&mut self, seen: &Seen) {
        let instance = Instance { created_ms: seen.created_ms, id: seen.id };
        if self.instance(&seen.template).is_none_or(|known| known.created_ms <= instance.created_ms) {
            self.old.remove(&seen.template);
            self.young.insert(seen.template, instance);
            if self.young.len() >= self.keys_max.div_ceil(2) {
                self.old = std::mem::take(&mut self.young);
            }
        }
        if !self.is_barred(&seen.skeleton) {
            self.learn_frames(seen, instance);
        }
    }

    /// What the answers of this frame have in common and its last instances, where there are enough of them.
    pub(super) fn learnt(&self, frame: &Key, least: usize) -> Option<([u8; 32], Vec<EntryId>)> {
        let Frame { digest, instances, only: _ } = self.frames.get(frame)?;
        let ids = || instances.iter().map(|instance| instance.id).collect();
        digest.filter(|_| instances.len() >= least).map(|digest| (digest, ids()))
    }

    pub(super) fn is_barred(&self, skeleton: &Key) -> bool {
        self.barred.contains(skeleton)
    }

    pub(super) fn forget_instance(&mut self, frame: &Key, id: EntryId) {
        if let Some(frame) = self.frames.get_mut(frame) {
            frame.instances.retain(|instance| instance.id != id);
        }
    }

    fn instance(&self, template: &Key) -> Option<Instance> {
        self.young.get(template).or_else(|| self.old.get(template)).copied()
    }

    fn learn_frames(&mut self, seen: &Seen, instance: Instance) {
        for SeenFrame { key, digest, is_telling } in &seen.frames {
            let is_full = self.frames.len() + self.barred.len() >= self.keys_max;
            let frame = match self.frames.get_mut(key) {
                Some(frame) => frame,
                None if is_full => continue,
                None => self.frames.entry(*key).or_insert(Frame::of(seen.id, *digest)),
            };
            if frame.only == Some(seen.id) {
                // Its new answer takes the place of the one that it had.
                *frame = Frame::of(seen.id, *digest);
            }
            if frame.digest != *digest {
                seen.frames.iter().for_each(|seen| drop(self.frames.remove(&seen.key)));
                self.barred.insert(seen.skeleton);
                return;
            }
            frame.only = frame.only.filter(|only| *only == seen.id);
            frame.instances.retain(|known| known.id != seen.id);
            if *is_telling {
                let at = frame.instances.partition_point(|known| known.created_ms <= instance.created_ms);
                frame.instances.insert(at, instance);
                if frame.instances.len() > self.instances_max {
                    frame.instances.remove(0);
                }
            }
        }
    }
}

impl Frame {
    fn of(id: EntryId, digest: Option<[u8; 32]>) -> Self {
        Self { digest, only: Some(id), instances: Vec::new() }
    }
}
