//! What the template tier knows, in memory and bounded.
//!
//! Keys of entries are forgotten where there is no more room (shares.rs says whose). Of refilling nothing is forgotten,
//! for that could be a contradiction. Instead a tenant learns nothing more once it has learnt four times as much as there
//! is room left: however many tenants learn all they can, there is room for one more. A tenant that has left something
//! out learns nothing new ever after, because what it left out may contradict it.

use std::collections::{HashMap, HashSet};

use super::shares::{Instance, Shares};
use crate::decision::{EntryId, Key, Tenant};

/// What one entry is found by, and what its answer says about refilling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(super) tenant: Tenant,
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
    entries: Shares,
    /// Frames and barred skeletons of each tenant that has some.
    learnt: HashMap<Tenant, Learnt>,
    /// Somebody who had nothing yet found no room: from now on that holds for everybody.
    is_full: bool,
    frames: HashMap<Key, Frame>,
    /// Skeletons of which one stored answer contradicted the others.
    barred: HashSet<Key>,
}

#[derive(Debug, Default)]
struct Learnt {
    count: usize,
    /// Something was left out.
    is_cut: bool,
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

impl Index {
    pub(super) fn new(keys_max: usize, instances_max: usize) -> Self {
        let (learnt, frames, barred) = Default::default();
        Self { keys_max, instances_max, entries: Shares::new(keys_max), learnt, is_full: false, frames, barred }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The newest entry of this template.
    pub(super) fn entry(&self, template: &Key) -> Option<EntryId> {
        self.entries.get(template)
    }

    /// Forgets the key unless it leads to another entry by now.
    pub(super) fn forget(&mut self, template: &Key, id: EntryId) {
        self.entries.forget(template, id);
    }

    /// An entry that is stored.
    pub(super) fn learn(&mut self, seen: &Seen) {
        let instance = Instance { created_ms: seen.created_ms, id: seen.id };
        self.entries.put(&seen.tenant, seen.template, instance);
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

    fn learn_frames(&mut self, seen: &Seen, instance: Instance) {
        for SeenFrame { key, digest, is_telling } in &seen.frames {
            if !self.frames.contains_key(key) {
                if !self.has_room(&seen.tenant) {
                    continue;
                }
                self.frames.insert(*key, Frame::of(seen.id, *digest));
                self.learnt.entry(seen.tenant.clone()).or_default().count += 1;
            }
            let Some(frame) = self.frames.get_mut(key) else { continue };
            if frame.only == Some(seen.id) {
                // Its new answer takes the place of the one that it had.
                *frame = Frame::of(seen.id, *digest);
            }
            if frame.digest != *digest {
                self.bar(seen);
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

    /// Whether this tenant may learn another frame; if not, it never may again.
    fn has_room(&mut self, tenant: &Tenant) -> bool {
        let left = self.keys_max.saturating_sub(self.frames.len() + self.barred.len());
        match self.learnt.get_mut(tenant) {
            None => self.is_full |= left == 0,
            Some(learnt) => learnt.is_cut |= learnt.count >= SHARE_OF_REST * left,
        }
        !self.is_full && self.learnt.get(tenant).is_none_or(|learnt| !learnt.is_cut)
    }

    /// Nothing of this skeleton is refilled any more.
    fn bar(&mut self, seen: &Seen) {
        let removed = seen.frames.iter().filter(|frame| self.frames.remove(&frame.key).is_some()).count();
        let added = usize::from(self.barred.insert(seen.skeleton));
        let learnt = self.learnt.entry(seen.tenant.clone()).or_default();
        learnt.count = (learnt.count + added).saturating_sub(removed);
    }
}

/// How many times as much as there is room left a tenant may have learnt: alone four fifths of it, and of two each four
/// ninths (dynamic thresholds; A. Choudhury and E. Hahne, IEEE/ACM Transactions on Networking 6, 1998).
const SHARE_OF_REST: usize = 4;

impl Frame {
    fn of(id: EntryId, digest: Option<[u8; 32]>) -> Self {
        Self { digest, only: Some(id), instances: Vec::new() }
    }
}
