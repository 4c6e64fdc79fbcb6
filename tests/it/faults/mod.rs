//! Faults done to the real program on purpose, and a ledger that knows what it may say afterwards.
//!
//! Each fault starts `nearhit serve` as a process, drives it over HTTP on loopback, breaks something, starts it again and
//! asks for everything that was acknowledged. Nothing here knows how the store works: a data folder is some files.
//! The tests run each fault at the size for every commit; `examples/faults.rs` runs the long versions.

pub mod damage;
pub mod disk;
pub mod kill;
mod ledger;
mod program;
pub mod sync;
#[cfg(test)]
mod tests;
pub mod trace;
mod traffic;

/// What came of one kind of fault.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Faults done.
    pub faults: u64,
    /// Lookups of entries that had to be there, by prompt or by vector.
    pub checked: u64,
    /// Of these, those that found nothing.
    pub lost: u64,
    /// After damage: entries that are gone, beyond as many as the server says it has lost.
    pub unreported: u64,
    /// Answers that belong to another prompt or an older version, or that were deleted.
    pub wrong: u64,
    /// Starts that ended, or that were not ready within a minute.
    pub failed_starts: u64,
    /// Servers that ended by themselves after they had been ready.
    pub crashes: u64,
    /// Other promises that were not kept; the notes say which.
    pub broken: u64,
    /// The first of each of the above, in words.
    pub notes: Vec<String>,
}

/// How many of the lookups may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    None,
    /// One in so many.
    OneIn(u64),
}

/// What came of a fault, or why it could not be done on this machine.
#[derive(Debug)]
pub enum Ran {
    Counted(Counts),
    Skipped(String),
}

impl Counts {
    pub(self) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        let kind = |note: &str| note.split(':').next().unwrap_or_default().to_owned();
        if self.notes.iter().filter(|other| kind(other) == kind(&note)).count() < NOTES_MAX {
            self.notes.push(note);
        }
    }

    pub(self) fn promise(&mut self, kept: bool, note: impl Into<String>) {
        if !kept {
            self.broken += 1;
            self.note(format!("broken promise: {}", note.into()));
        }
    }

    pub(self) fn failed_start(&mut self, why: &str) {
        self.failed_starts += 1;
        self.note(format!("failed start: {why}"));
    }

    pub fn add(&mut self, other: Self) {
        let Self { faults, checked, lost, unreported, wrong, failed_starts, crashes, broken, notes } = other;
        self.faults += faults;
        self.checked += checked;
        self.lost += lost;
        self.unreported += unreported;
        self.wrong += wrong;
        self.failed_starts += failed_starts;
        self.crashes += crashes;
        self.broken += broken;
        notes.into_iter().for_each(|note| self.note(note));
    }

    /// The counts that must not be as they are.
    pub fn violations(&self, may_lose: Loss) -> Vec<String> {
        let lost_max = match may_lose {
            Loss::None => 0,
            Loss::OneIn(count) => self.checked / count,
        };
        let limits = [
            ("lost", self.lost, lost_max),
            ("unreported", self.unreported, 0),
            ("wrong", self.wrong, 0),
            ("failed starts", self.failed_starts, 0),
            ("crashes", self.crashes, 0),
            ("broken promises", self.broken, 0),
        ];
        let over = limits.into_iter().filter(|(_, count, max)| count > max);
        over.map(|(name, count, max)| format!("{name}: {count}, at most {max}")).collect()
    }
}

/// What damage may cost: one lookup in a thousand, in sum over all trials.
pub const DAMAGE: Loss = Loss::OneIn(1000);

/// Of a kind: a report is read by people.
const NOTES_MAX: usize = 4;
