//! The template tier: what is equal but for values that say nothing, and answers that only repeat a value.
//!
//! Needs no embedding. The index is derived and in this process's memory: every insert adds to it, and after a start the
//! stored entries are looked through again (`Cache::mine_templates`); until then the tier finds less, and refills nothing.
//! What it points to is checked against the stored entry before it is served.

mod index;
mod mine;
mod observed;
mod report;
mod shares;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use crate::decision::{
    Answer, AnswerTemplate, Entry, EntryId, Fingerprint, Guards, Policy, Probability, Prompt, Role, Roles, Scope,
    Similarity, Slot, Slots, Slotted, Template, Terms, repeats,
};
use crate::store::{Store, StoreError};

use self::index::{Index, Seen, SeenFrame};

pub use self::observed::{Observed, VALUES_LEAST, VALUES_MAX};
pub use self::report::{Cut, MinedSlot, MinedTemplate, MinedTemplates};

/// What an operator set for the template tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSettings {
    /// Whether answers that only repeat a value are served around another one.
    pub refill: bool,
    /// Stored answers that must agree before that; at least two.
    pub refill_after: usize,
    /// Most keys in memory, of all tenants: of entries, and of what was learnt about refilling, each.
    pub keys_max: usize,
    pub roles: Roles,
}

impl Default for TemplateSettings {
    fn default() -> Self {
        Self { refill: false, refill_after: 2, keys_max: 1_000_000, roles: Roles::default() }
    }
}

/// Entries by their templates.
#[derive(Debug)]
pub(crate) struct Templates {
    settings: TemplateSettings,
    index: RwLock<Index>,
    /// Whether every stored entry is in the index: before that a contradiction may be unknown.
    complete: AtomicBool,
}

/// A prompt, and how it was split.
pub(crate) struct Asked<'a> {
    pub(crate) prompt: &'a Prompt,
    pub(crate) fingerprint: &'a Fingerprint,
    pub(crate) template: &'a Template,
    pub(crate) named: &'a Slots,
    pub(crate) terms: &'a Terms,
    pub(crate) now_ms: u64,
}

/// What the tier has for a prompt.
#[derive(Debug)]
pub(crate) enum Found {
    Entry(Arc<Entry>),
    /// There, but expired or older than the request allows.
    Stale,
    Absent,
}

impl Templates {
    /// `complete`: nothing is stored yet.
    pub(crate) fn new(settings: &TemplateSettings, complete: bool) -> Self {
        // Some more than are needed, for one may have gone.
        let index = Index::new(settings.keys_max, settings.refill_after + 2);
        Self { settings: settings.clone(), index: RwLock::new(index), complete: AtomicBool::new(complete) }
    }

    /// What entries that are about to be stored would be found by.
    pub(crate) fn see<'a>(&self, entries: impl IntoIterator<Item = &'a Entry>, guards: &Guards) -> Vec<Seen> {
        entries.into_iter().filter_map(|entry| self.see_one(entry, guards)).collect()
    }

    /// The entries are stored.
    pub(crate) fn learn(&self, seen: &[Seen]) {
        if !seen.is_empty() {
            let mut index = self.index.write();
            seen.iter().for_each(|seen| index.learn(seen));
        }
    }

    /// Every stored entry was learnt.
    fn mined(&self) {
        self.complete.store(true, Ordering::Release);
    }

    fn may_refill(&self) -> bool {
        self.settings.refill && self.complete.load(Ordering::Acquire)
    }

    /// Whether a prompt with another value would be served this entry's answer around it.
    fn is_refilled(&self, entry: &Entry, slotted: &Slotted) -> bool {
        let seen = self.seen(entry, slotted);
        let index = self.index.read();
        let is_learnt = |frame: &SeenFrame| index.learnt(&frame.key, self.settings.refill_after).is_some();
        self.may_refill() && !index.is_barred(&seen.skeleton) && seen.frames.iter().any(is_learnt)
    }

    /// An entry that answers the prompt: one that asks the same, or a copy of one whose answer repeats a value, with the
    /// prompt's value in its place.
    ///
    /// # Errors
    /// The store could not be read.
    pub(crate) async fn find(
        &self,
        asked: &Asked<'_>,
        store: &dyn Store,
        guards: &Guards,
    ) -> Result<Found, StoreError> {
        // How probable it is that such a reuse is right is not known.
        let is_bounded = asked.terms.error_max.is_some_and(|most| most < Probability::CERTAIN);
        if is_bounded || asked.prompt.text.len() > TEXT_BYTES_MAX || self.index.read().is_empty() {
            return Ok(Found::Absent);
        }
        let slotted = guards.split(&guards.read(&asked.prompt.text), asked.template, asked.named);
        if slotted.slots().next().is_none() {
            return Ok(Found::Absent);
        }
        match self.find_equal(asked, &slotted, store, guards).await? {
            Found::Absent if self.may_refill() => self.find_refilled(asked, &slotted, store, guards).await,
            found => Ok(found),
        }
    }

    /// Whether an entry asks what the prompt asks, but for values that say nothing.
    pub(crate) fn asks_the_same(&self, asked: &Asked<'_>, entry: &Entry, guards: &Guards) -> bool {
        let longest = asked.prompt.text.len().max(entry.text.len());
        if longest > TEXT_BYTES_MAX || entry.slots != *asked.named {
            return false;
        }
        let slotted = guards.split(&guards.read(&asked.prompt.text), asked.template, asked.named);
        slotted.slots().next().is_some() && slotted.fits(&split(entry, guards), &self.settings.roles)
    }

    async fn find_equal(
        &self,
        asked: &Asked<'_>,
        slotted: &Slotted,
        store: &dyn Store,
        guards: &Guards,
    ) -> Result<Found, StoreError> {
        let roles = &self.settings.roles;
        let key = slotted.template_key(&asked.fingerprint.scope, roles);
        let Some(id) = self.index.read().entry(&key) else { return Ok(Found::Absent) };
        let found = stored(id, asked, store, guards).await?.filter(|(_, old)| slotted.fits(old, roles));
        let Some((entry, old)) = found else {
            self.index.write().forget(&key, id);
            return Ok(Found::Absent);
        };
        if Policy::is_too_old(&entry.life, asked.terms, asked.now_ms) {
            return Ok(Found::Stale);
        }
        // Whose answer names who asked says something else to everybody else.
        let mut pairs = old
            .slots()
            .zip(slotted.slots())
            .filter(|(old, new)| roles.of(old) == Role::Volatile && old.written != new.written);
        if pairs.any(|(old, _)| repeats(&entry.answer, old)) {
            return Ok(Found::Absent);
        }
        let alike = old.filled_with_volatile(slotted, roles);
        let refuses = alike != asked.prompt.text
            && guards.appraise(&guards.read(&asked.prompt.text), &guards.read(&alike), Similarity::new(1.0)).is_err();
        Ok(if refuses { Found::Absent } else { Found::Entry(entry) })
    }

    async fn find_refilled(
        &self,
        asked: &Asked<'_>,
        slotted: &Slotted,
        store: &dyn Store,
        guards: &Guards,
    ) -> Result<Found, StoreError> {
        let scope = &asked.fingerprint.scope;
        for (open, slot) in self.open_slots(slotted) {
            let key = slotted.frame_key(scope, open);
            let learnt = self.index.read().learnt(&key, self.settings.refill_after);
            let Some((digest, ids)) = learnt.filter(|_| slot.is_telling()) else { continue };
            if self.index.read().is_barred(&slotted.skeleton_key(scope)) {
                return Ok(Found::Absent);
            }
            // Newest first; what is not there any more is no witness.
            let mut values = BTreeSet::new();
            let mut served: Option<(Arc<Entry>, AnswerTemplate)> = None;
            for id in ids.into_iter().rev() {
                let witness = stored(id, asked, store, guards).await?.and_then(|(entry, old)| {
                    let value = old.slots().nth(open).filter(|_| old.frame_key(scope, open) == key)?;
                    let answer = AnswerTemplate::cut(&entry.answer, &value.written);
                    let answer = answer.filter(|answer| answer.digest() == digest)?;
                    Some((value.canonical.clone(), entry, answer))
                });
                let Some((value, entry, answer)) = witness else {
                    self.index.write().forget_instance(&key, id);
                    continue;
                };
                values.insert(value);
                if served.is_none() && !Policy::is_too_old(&entry.life, asked.terms, asked.now_ms) {
                    served = Some((entry, answer));
                }
                if values.len() >= self.settings.refill_after && served.is_some() {
                    break;
                }
            }
            if values.len() < self.settings.refill_after {
                continue;
            }
            let Some((entry, answer)) = served else { return Ok(Found::Stale) };
            if let Some(body) = answer.fill(&slot.written) {
                let answer = Answer { body, ..entry.answer.clone() };
                return Ok(Found::Entry(Arc::new(Entry { answer, ..Entry::clone(&entry) })));
            }
        }
        Ok(Found::Absent)
    }

    /// Whether the text would be answered by this entry as one of its template, or around another value.
    pub(crate) fn is_alike(&self, entry: &Entry, text: &str, guards: &Guards) -> bool {
        if text.len().max(entry.text.len()) > TEXT_BYTES_MAX {
            return false;
        }
        let (scope, roles) = (&entry.fingerprint.scope, &self.settings.roles);
        let scope_of = Scope::bare(entry.tenant.clone(), entry.cache.clone());
        let (template, named) = Template::split(&Prompt::new(scope_of, text, entry.vars.clone()));
        let (old, new) = (split(entry, guards), guards.split(&guards.read(text), &template, &named));
        if named != entry.slots || old.slots().next().is_none() {
            return false;
        }
        let frames = |slotted: &Slotted| -> BTreeSet<usize> {
            self.open_slots(slotted).into_iter().map(|(open, _)| open).collect()
        };
        let is_framed = |open: &usize| old.frame_key(scope, *open) == new.frame_key(scope, *open);
        old.template_key(scope, roles) == new.template_key(scope, roles) && old.fits(&new, roles)
            || frames(&old).intersection(&frames(&new)).any(is_framed)
    }

    fn see_one(&self, entry: &Entry, guards: &Guards) -> Option<Seen> {
        if entry.text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let slotted = split(entry, guards);
        slotted.slots().next()?;
        Some(self.seen(entry, &slotted))
    }

    fn seen(&self, entry: &Entry, slotted: &Slotted) -> Seen {
        let scope = &entry.fingerprint.scope;
        let frames = self.open_slots(slotted).into_iter().map(|(open, slot)| SeenFrame {
            key: slotted.frame_key(scope, open),
            digest: AnswerTemplate::cut(&entry.answer, &slot.written).map(|answer| answer.digest()),
            is_telling: slot.is_telling(),
        });
        Seen {
            tenant: entry.tenant.clone(),
            id: entry.id,
            created_ms: entry.life.created_ms,
            template: slotted.template_key(scope, &self.settings.roles),
            skeleton: slotted.skeleton_key(scope),
            frames: frames.collect(),
        }
    }

    /// The slots whose value may be another one in the answer too, with their places.
    fn open_slots<'a>(&self, slotted: &'a Slotted) -> Vec<(usize, &'a Slot)> {
        let is_open = |slot: &Slot| self.settings.roles.of(slot) == Role::Echoed;
        let slots = slotted.slots().enumerate().filter(|(_, slot)| is_open(slot));
        if self.settings.refill && slotted.slots().count() <= OPEN_MAX { slots.collect() } else { Vec::new() }
    }
}

/// The entry and its text in slots, if it is still there and may be served to whoever asks, as far as its scope tells.
async fn stored(
    id: EntryId,
    asked: &Asked<'_>,
    store: &dyn Store,
    guards: &Guards,
) -> Result<Option<(Arc<Entry>, Slotted)>, StoreError> {
    let is_of = |entry: &Arc<Entry>| entry.fingerprint.scope == asked.fingerprint.scope && entry.slots == *asked.named;
    let entry = store.get(id).await?.filter(is_of);
    Ok(entry.map(|entry| {
        let slotted = split(&entry, guards);
        (entry, slotted)
    }))
}

/// The entry's text in slots, as it was when it was stored.
fn split(entry: &Entry, guards: &Guards) -> Slotted {
    // Only text and variables matter.
    let scope = Scope::bare(entry.tenant.clone(), entry.cache.clone());
    let (template, named) = Template::split(&Prompt::new(scope, &entry.text, entry.vars.clone()));
    guards.split(&guards.read(&entry.text), &template, &named)
}

/// Longer texts are not looked into: reading one this long takes a millisecond.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// Entries that are read at a time, where all are looked at; finding where a page begins takes longer the more there are.
const PAGE: usize = 1000;

/// Entries that are looked at before others get their turn: a millisecond.
const SLICE: usize = 32;

/// A text with more slots than this is a document rather than a question.
const OPEN_MAX: usize = 16;
