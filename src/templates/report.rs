//! Which templates does a cache hold? For people: how often each, what its values look like, and what they seem to do to
//! the answer, but no value.
//!
//! Work and memory are bounded, whatever the texts are; what was left out is said.

use std::collections::{BTreeSet, HashMap};

use super::observed::{Observed, Observing};
use super::{PAGE, SLICE, Templates, split};
use crate::cache::Cache;
use crate::decision::{Entry, EntryId, Guards, Role, Slotted, shape};
use crate::store::{Owner, StoreError};

/// The templates of one cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MinedTemplates {
    /// Entries that were looked at and have not expired.
    pub entries: u64,
    /// Empty if these are all of them, and all of their templates.
    pub cut: BTreeSet<Cut>,
    /// Most frequent first.
    pub templates: Vec<MinedTemplate>,
}

/// What a report left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cut {
    /// Entries that were not looked at.
    Entries,
    /// Templates that were not counted.
    Templates,
    /// Texts with more slots than are told apart.
    Slots,
    /// Shapes or answers of values.
    Values,
}

/// Texts that are equal but for what stands in their slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinedTemplate {
    /// Each slot as its name in braces.
    pub text: String,
    pub count: u64,
    /// Whether answers are served around another value.
    pub refilled: bool,
    pub slots: Vec<MinedSlot>,
}

/// A slot, and what its values look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinedSlot {
    pub name: String,
    /// None for a variable that callers name: it must be equal.
    pub role: Option<Role>,
    /// The most frequent ones first, with their counts.
    pub shapes: Vec<(String, u64)>,
    /// None where no two entries are equal but for its value.
    pub observed: Option<Observed>,
}

impl Cut {
    pub const fn as_str(self) -> &'static str {
        match self {
            Cut::Entries => "entries",
            Cut::Templates => "templates",
            Cut::Slots => "slots",
            Cut::Values => "values",
        }
    }
}

impl Cache {
    /// The cache's most frequent templates, up to `limit`.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn mined_templates(&self, owner: &Owner, limit: usize) -> Result<MinedTemplates, StoreError> {
        let (templates, guards) = self.templates();
        let now_ms = self.now_ms();
        let mut report = Report::new(Bounds::default());
        let mut cursor: Option<EntryId> = None;
        for number in 0.. {
            let page = self.store().scan(owner, cursor, PAGE).await?;
            let Some(last) = page.last() else { break };
            if number == PAGES_MAX || report.is_at_its_end() {
                report.cut.insert(Cut::Entries);
                break;
            }
            cursor = Some(last.id);
            for slice in page.chunks(SLICE) {
                let live = slice.iter().filter(|entry| !entry.life.is_over(now_ms));
                live.for_each(|entry| report.add(entry, templates, guards));
                tokio::task::yield_now().await;
            }
        }
        Ok(report.finish(limit))
    }
}

/// How much more one report may do and keep.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Bytes to read, those that are read in several ways counted several times.
    pub(super) work: usize,
    /// Templates, and bytes of their texts.
    pub(super) templates: usize,
    pub(super) bytes: usize,
    /// Shapes and answers.
    pub(super) shapes: usize,
}

pub(super) struct Report {
    entries: u64,
    cut: BTreeSet<Cut>,
    left: Bounds,
    /// By template and names of its slots: braces may stand in a text too.
    counts: HashMap<(String, Vec<String>), Count>,
}

struct Count {
    count: u64,
    refilled: bool,
    slots: Vec<SlotCount>,
}

struct SlotCount {
    role: Option<Role>,
    shapes: HashMap<String, u64>,
    observing: Observing,
}

impl Default for Bounds {
    /// A second's work and some ten megabytes.
    fn default() -> Self {
        Self { work: 256 << 20, templates: 2_000, bytes: 8 << 20, shapes: 60_000 }
    }
}

impl Report {
    pub(super) fn new(left: Bounds) -> Self {
        let (entries, cut, counts) = Default::default();
        Self { entries, cut, left, counts }
    }

    fn is_at_its_end(&self) -> bool {
        self.left.work == 0
    }

    pub(super) fn add(&mut self, entry: &Entry, templates: &Templates, guards: &Guards) {
        if self.is_at_its_end() {
            self.cut.insert(Cut::Entries);
            return;
        }
        self.entries += 1;
        if entry.text.len() > super::TEXT_BYTES_MAX {
            return;
        }
        self.left.work = self.left.work.saturating_sub(READING * entry.text.len());
        let slotted = split(entry, guards);
        let names: Vec<String> = slotted.all_slots().map(|(name, ..)| name.to_owned()).take(SLOTS_MAX + 1).collect();
        if names.is_empty() {
            return;
        }
        if names.len() > SLOTS_MAX {
            self.cut.insert(Cut::Slots);
            return;
        }
        self.left.work = self.left.work.saturating_sub(names.len() * (entry.text.len() + entry.answer.body.len()));
        let text = slotted.template();
        let key = (text, names);
        if !self.counts.contains_key(&key) {
            if self.left.templates == 0 || self.left.bytes < key.0.len() {
                self.cut.insert(Cut::Templates);
                return;
            }
            self.left.templates -= 1;
            self.left.bytes -= key.0.len();
        }
        let count = self.counts.entry(key).or_insert_with(|| Count::new(&slotted, templates));
        if !count.add(entry, &slotted, &mut self.left.shapes) {
            self.cut.insert(Cut::Values);
        }
        count.refilled |= templates.is_refilled(entry, &slotted);
    }

    pub(super) fn finish(self, limit: usize) -> MinedTemplates {
        let mut templates: Vec<MinedTemplate> = self.counts.into_iter().map(|(key, count)| count.finish(key)).collect();
        templates.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.text.cmp(&b.text)));
        templates.truncate(limit);
        MinedTemplates { entries: self.entries, cut: self.cut, templates }
    }
}

impl Count {
    fn new(slotted: &Slotted, templates: &Templates) -> Self {
        let slots = slotted.all_slots().map(|(_, _, slot)| SlotCount {
            role: slot.map(|slot| templates.settings.roles.of(slot)),
            shapes: HashMap::new(),
            observing: Observing::default(),
        });
        Self { count: 0, refilled: false, slots: slots.collect() }
    }

    /// False if something was left out, because there is no `room`.
    fn add(&mut self, entry: &Entry, slotted: &Slotted, room: &mut usize) -> bool {
        self.count += 1;
        let (mut found, mut is_whole) = (0, true);
        for (slot_count, (_, value, slot)) in self.slots.iter_mut().zip(slotted.all_slots()) {
            let shapes = &mut slot_count.shapes;
            let shape = shape(value);
            if let Some(count) = shapes.get_mut(&shape) {
                *count += 1;
            } else if shapes.len() < SHAPES_MAX && *room > 0 {
                *room -= 1;
                shapes.insert(shape, 1);
            } else {
                is_whole = false;
            }
            if let Some(slot) = slot {
                let around = slotted.frame_key(&entry.fingerprint.scope, found);
                is_whole &= slot_count.observing.add(around, slot, &entry.answer, room);
                found += 1;
            }
        }
        is_whole
    }

    fn finish(self, (text, names): (String, Vec<String>)) -> MinedTemplate {
        let mut slots: Vec<MinedSlot> = Vec::new();
        for (name, SlotCount { role, shapes, observing }) in names.into_iter().zip(self.slots) {
            // A variable may stand at several places.
            if slots.iter().any(|slot| slot.name == name && slot.role == role) {
                continue;
            }
            let mut shapes: Vec<(String, u64)> = shapes.into_iter().collect();
            shapes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            shapes.truncate(SHAPES_SHOWN);
            slots.push(MinedSlot { name, role, shapes, observed: observing.finish() });
        }
        MinedTemplate { text, count: self.count, refilled: self.refilled, slots }
    }
}

/// Of entries, for one report: a second's work.
const PAGES_MAX: usize = 20;

/// Reading a text's words and values takes as long as hashing so many times as much.
const READING: usize = 16;

/// A text with more is a document rather than a question.
const SLOTS_MAX: usize = 32;

/// Shapes that are told apart in one slot.
const SHAPES_MAX: usize = 64;

const SHAPES_SHOWN: usize = 5;
