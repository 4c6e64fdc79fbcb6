//! What the entries of one cache have behind them: a record each, or one for several that have one answer.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::decision::EntryId;
use crate::decision::budget::{EntryRecord, RecordSettings};

/// Records by entry. Entries that were found to have one answer share one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "StoredRecords", into = "StoredRecords")]
pub(super) struct Records {
    of: HashMap<EntryId, u32>,
    records: Vec<EntryRecord>,
}

/// Records as they are written: JSON has no ids for keys.
#[derive(Serialize, Deserialize)]
struct StoredRecords {
    of: Vec<(EntryId, u32)>,
    records: Vec<EntryRecord>,
}

impl From<Records> for StoredRecords {
    fn from(Records { of, records }: Records) -> Self {
        Self { of: of.into_iter().collect(), records }
    }
}

impl From<StoredRecords> for Records {
    fn from(StoredRecords { of, records }: StoredRecords) -> Self {
        Self { of: of.into_iter().collect(), records }
    }
}

impl Records {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// The entries whose answers are kept from other questions.
    pub(super) fn quarantined(&self, settings: RecordSettings) -> Vec<EntryId> {
        let is_quarantined =
            |place: &u32| self.records.get(*place as usize).is_some_and(|record| record.is_quarantined(settings));
        self.of.iter().filter(|(_, place)| is_quarantined(place)).map(|(id, _)| *id).collect()
    }

    pub(super) fn of(&self, id: EntryId) -> Option<&EntryRecord> {
        self.records.get(*self.of.get(&id)? as usize)
    }

    pub(super) fn change(&mut self, id: EntryId, change: impl FnOnce(&mut EntryRecord)) {
        if let Some(record) = self.place(id).and_then(|place| self.records.get_mut(place as usize)) {
            change(record);
        }
    }

    pub(super) fn share(&mut self, new: EntryId, with: EntryId) {
        if let Some(place) = self.place(with).filter(|_| self.of.len() < RECORDS_MAX) {
            self.of.insert(new, place);
        }
    }

    pub(super) fn forget(&mut self, id: EntryId) {
        self.of.remove(&id);
    }

    /// Where the entry's record is, made if there is room.
    fn place(&mut self, id: EntryId) -> Option<u32> {
        if let Some(place) = self.of.get(&id) {
            return Some(*place);
        }
        if self.of.len() >= RECORDS_MAX || self.records.len() >= RECORDS_MAX {
            self.prune();
        }
        let place = u32::try_from(self.records.len()).ok().filter(|place| (*place as usize) < RECORDS_MAX)?;
        self.records.push(EntryRecord::default());
        self.of.insert(id, place);
        Some(place)
    }

    /// Keeps what refuses something, and forgets what only shifts scores.
    fn prune(&mut self) {
        *self = self.filtered(|record| record.refuses().then_some(*record));
    }

    /// Of what does not depend on scores, nor holds anything of them.
    pub(super) fn complaints(&self) -> Self {
        self.filtered(EntryRecord::without_scores)
    }

    /// Takes complaints in place of its own.
    pub(super) fn set_complaints(&mut self, complaints: Self) {
        let own = self.complaints();
        for id in own.of.keys().filter(|id| complaints.of(**id).is_none()) {
            self.of.remove(id);
        }
        let mut moved: HashMap<u32, u32> = HashMap::new();
        for (id, place) in &complaints.of {
            let Some(record) = complaints.records.get(*place as usize) else { continue };
            if own.of(*id) != Some(record) {
                let place = *moved.entry(*place).or_insert_with(|| {
                    self.records.push(*record);
                    (self.records.len() - 1) as u32
                });
                self.of.insert(*id, place);
            }
        }
    }

    fn filtered(&self, keep: impl Fn(&EntryRecord) -> Option<EntryRecord>) -> Self {
        let mut kept = Self::default();
        let mut moved: HashMap<u32, u32> = HashMap::new();
        for (id, place) in &self.of {
            let Some(record) = self.records.get(*place as usize).and_then(&keep) else { continue };
            let place = *moved.entry(*place).or_insert_with(|| {
                kept.records.push(record);
                (kept.records.len() - 1) as u32
            });
            kept.of.insert(*id, place);
        }
        kept
    }
}

/// Records of one cache: some 40 bytes each.
const RECORDS_MAX: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> EntryId {
        EntryId::from_bytes([number; 16])
    }

    #[test]
    fn records_that_refuse_outlive_those_that_only_shift() {
        let mut records = Records::default();
        records.change(id(1), EntryRecord::bar);
        records.change(id(2), |record| record.learn(0.5, 0.5, true, RecordSettings::default()));
        records.prune();
        assert!(records.of(id(1)).is_some() && records.of(id(2)).is_none());
    }

    #[test]
    fn entries_are_counted_that_are_barred_and_there() {
        let mut records = Records::default();
        records.change(id(1), EntryRecord::bar);
        records.share(id(2), id(1));
        records.change(id(3), |record| record.learn(0.5, 0.5, true, RecordSettings::default()));
        let quarantined = |records: &Records| {
            let mut ids = records.quarantined(RecordSettings::default());
            ids.sort_unstable();
            ids
        };
        assert_eq!(quarantined(&records), [id(1), id(2)]);
        records.forget(id(1));
        assert_eq!(quarantined(&records), [id(2)]);
        records.forget(id(2));
        assert_eq!(quarantined(&records), []);
    }
}
