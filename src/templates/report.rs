//! Which templates does a cache hold? For people: how often each, and what its values look like, but no value.

use std::collections::HashMap;

use super::{PAGE, SLICE, Templates, split};
use crate::cache::Cache;
use crate::decision::{Entry, EntryId, Guards, Role, Slotted, shape};
use crate::store::{Owner, StoreError};

/// The templates of one cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MinedTemplates {
    /// Entries that were looked at and have not expired.
    pub entries: u64,
    /// Whether these are all of them, and all of their templates.
    pub complete: bool,
    /// Most frequent first.
    pub templates: Vec<MinedTemplate>,
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
}

impl Cache {
    /// The cache's most frequent templates, up to `limit`.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn mined_templates(&self, owner: &Owner, limit: usize) -> Result<MinedTemplates, StoreError> {
        let (templates, guards) = self.templates();
        let now_ms = self.now_ms();
        let mut report = Report { complete: true, ..Report::default() };
        let mut cursor: Option<EntryId> = None;
        for number in 0.. {
            let page = self.store().scan(owner, cursor, PAGE).await?;
            let Some(last) = page.last() else { break };
            if number == PAGES_MAX {
                report.complete = false;
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

#[derive(Default)]
struct Report {
    entries: u64,
    complete: bool,
    /// Of all template texts.
    bytes: usize,
    /// By template and names of its slots: braces may stand in a text too.
    counts: HashMap<(String, Vec<String>), Count>,
}

#[derive(Default)]
struct Count {
    count: u64,
    refilled: bool,
    slots: Vec<(Option<Role>, HashMap<String, u64>)>,
}

impl Report {
    fn add(&mut self, entry: &Entry, templates: &Templates, guards: &Guards) {
        self.entries += 1;
        if entry.text.len() > super::TEXT_BYTES_MAX {
            return;
        }
        let slotted = split(entry, guards);
        let names: Vec<String> = slotted.all_slots().map(|(name, ..)| name.to_owned()).collect();
        if names.is_empty() {
            return;
        }
        let text = slotted.template();
        let key = (text, names);
        if !self.counts.contains_key(&key) {
            if self.bytes + key.0.len() > BYTES_MAX {
                self.complete = false;
                return;
            }
            self.bytes += key.0.len();
        }
        let count = self.counts.entry(key).or_default();
        count.add(&slotted, templates);
        count.refilled |= templates.is_refilled(entry, &slotted);
    }

    fn finish(self, limit: usize) -> MinedTemplates {
        let mut templates: Vec<MinedTemplate> = self.counts.into_iter().map(|(key, count)| count.finish(key)).collect();
        templates.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.text.cmp(&b.text)));
        templates.truncate(limit);
        MinedTemplates { entries: self.entries, complete: self.complete, templates }
    }
}

impl Count {
    fn add(&mut self, slotted: &Slotted, templates: &Templates) {
        self.count += 1;
        for (at, (_, value, slot)) in slotted.all_slots().enumerate() {
            if self.slots.len() <= at {
                let role = slot.map(|slot| templates.settings.roles.of(slot));
                self.slots.push((role, HashMap::new()));
            }
            let shapes = &mut self.slots[at].1;
            let shape = shape(value);
            if shapes.len() < SHAPES_MAX || shapes.contains_key(&shape) {
                *shapes.entry(shape).or_default() += 1;
            }
        }
    }

    fn finish(self, (text, names): (String, Vec<String>)) -> MinedTemplate {
        let mut slots: Vec<MinedSlot> = Vec::new();
        for (name, (role, shapes)) in names.into_iter().zip(self.slots) {
            // A variable may stand at several places.
            if slots.iter().any(|slot| slot.name == name && slot.role == role) {
                continue;
            }
            let mut shapes: Vec<(String, u64)> = shapes.into_iter().collect();
            shapes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            shapes.truncate(SHAPES_SHOWN);
            slots.push(MinedSlot { name, role, shapes });
        }
        MinedTemplate { text, count: self.count, refilled: self.refilled, slots }
    }
}

/// Of entries, for one report: a second's work.
const PAGES_MAX: usize = 20;

/// Of the texts of all templates that one report counts.
const BYTES_MAX: usize = 8 << 20;

/// Shapes that are told apart in one slot.
const SHAPES_MAX: usize = 64;

const SHAPES_SHOWN: usize = 5;
