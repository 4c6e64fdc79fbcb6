//! One thread that makes changes durable, many at a time.
//!
//! Callers queue their changes; the committer gathers what has come in, writes it to the log and to the rows, syncs both
//! once, makes it visible, and only then answers everybody in the group. A group is closed after 10 ms, 512 changes, or a
//! short silence.
//! Between groups it removes what has expired, and moves everything into a new generation when this one has become
//! too large.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::generation::Next;
use super::ground::Ground;
use super::index::News;
use super::live::{Record as Live, Written};
use super::load::{Loaded, segment_note};
use super::log::{self, Log, Record};
use super::queue::{
    Change, Durability, GROUP_CHANGES, Gathered, Queue, Request, Requests, Waiting, gather, refuse, stopped,
};
use super::rows::{RowChange, Totals};
use super::seal::{Head, Sealed};
use super::vectors::Slot;
use crate::clock::Clock;
use crate::decision::EntryId;
use crate::store::eviction::Heat;
use crate::store::{Limits, StoreError, seconds};

/// The committer, as callers see it.
pub(super) struct Committer {
    queue: Option<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// `load` runs first, on the committer's thread: what is queued meanwhile waits.
    pub(super) fn start(
        ground: Arc<Ground>,
        settings: Settings,
        (queue, requests): (Queue, Requests),
        load: impl FnOnce(&Ground) -> Result<Loaded, StoreError> + Send + 'static,
    ) -> std::io::Result<Self> {
        let thread = std::thread::Builder::new().name("nearhit-commit".into()).spawn(move || {
            let loaded = load(&ground);
            match loaded {
                Ok(loaded) => Work::new(&ground, settings, loaded).run(&requests),
                Err(error) => {
                    tracing::error!(%error, "the store could not be loaded: nothing is stored");
                    ground.health.lock().failing = Some(error.to_string());
                    refuse(&requests, &error);
                }
            }
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Applies the changes, all or none; returns once they are as durable as configured.
    pub(super) async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        match &self.queue {
            Some(queue) => queue.commit(changes).await,
            None => Err(stopped()),
        }
    }

    /// Commits what is queued, then stops.
    pub(super) fn stop(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.stop();
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the committer had panicked");
        }
    }
}

/// How the committer works.
pub(super) struct Settings {
    pub(super) durability: Durability,
    pub(super) limits: Limits,
    pub(super) clock: Arc<dyn Clock>,
}

/// The committer, at work.
struct Work<'a> {
    ground: &'a Ground,
    settings: Settings,
    generation: u32,
    log: Log,
    totals: Totals,
    /// Since when there are changes that were acknowledged and are not on disk.
    unsynced: Option<Instant>,
    next: Option<Next>,
    /// When a new generation may be tried again after one was given up.
    retry: Instant,
    /// Where the search for expired entries goes on.
    sweep_at: usize,
    swept: Instant,
}

impl<'a> Work<'a> {
    fn new(ground: &'a Ground, settings: Settings, loaded: Loaded) -> Self {
        let Loaded { generation, log, totals, rewrite } = loaded;
        let mut work = Self {
            ground,
            settings,
            generation,
            log,
            totals,
            unsynced: None,
            next: None,
            retry: Instant::now(),
            sweep_at: 0,
            swept: Instant::now(),
        };
        if rewrite {
            work.begin_generation();
        }
        work.ground.set_loaded();
        work
    }

    fn run(mut self, requests: &Requests) {
        loop {
            let patience = if self.next.is_some() { Duration::ZERO } else { IDLE };
            match requests.next(patience) {
                Ok(Request::Changes { changes, done }) => {
                    if self.serve((changes, done), requests) {
                        break;
                    }
                }
                Ok(Request::News(news)) => self.hear(news),
                Err(RecvTimeoutError::Timeout) => {
                    if self.next.is_some() {
                        self.step();
                    }
                }
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.unsynced.is_some_and(|since| since.elapsed() >= SYNC_DELAY) {
                self.sync_late();
            }
            if self.swept.elapsed() >= SWEEP_EVERY {
                self.swept = Instant::now();
                self.remove_expired();
                if self.next.is_none() && Instant::now() >= self.retry && self.is_bloated() {
                    self.begin_generation();
                }
            }
        }
        self.sync_late();
    }

    /// Commits the request and what came in with it; true if that was the last of all.
    fn serve(&mut self, first: Waiting, requests: &Requests) -> bool {
        let Gathered { group, news, last } = gather(first, self.settings.durability, requests);
        let (mut changes, mut waiting) = (Vec::new(), Vec::with_capacity(group.len()));
        for (more, done) in group {
            changes.extend(more);
            waiting.push(done);
        }
        let (result, freed) = self.commit(changes);
        for done in waiting {
            let answer = match &result {
                Ok(()) => Ok(()),
                Err(StoreError::Full) => Err(StoreError::Full),
                Err(StoreError::Unavailable(cause)) => Err(StoreError::Unavailable(cause.clone())),
            };
            // The caller may have gone; the change is made all the same.
            drop(done.send(answer));
        }
        self.erase(&freed);
        news.into_iter().for_each(|news| self.hear(news));
        if self.next.is_some() {
            self.step();
        }
        last
    }

    /// Makes the changes, and says which slots they freed. Nothing is changed where this fails, but for a failure of
    /// the disk itself: nothing is written from then on.
    fn commit(&mut self, mut changes: Vec<Change>) -> (Result<(), StoreError>, Vec<Freed>) {
        let mut freed = Vec::new();
        // Of several changes to one entry only the last counts.
        let mut last: HashMap<EntryId, usize> = HashMap::with_capacity(changes.len());
        for (n, change) in changes.iter().enumerate() {
            // One that comes too late does not count at all.
            if self.is_due(change) {
                last.insert(change.id(), n);
            }
        }
        let mut n = 0;
        changes.retain(|change| {
            let counts = last.get(&change.id()) == Some(&n);
            if let (false, Change::Put(put)) = (counts, change) {
                freed.push((put.sealed.slot, None));
            }
            n += 1;
            counts
        });
        let puts: Vec<(&Head, EntryId)> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Put(put) => Some((&put.head, put.sealed.id)),
                Change::Remove(_) => None,
            })
            .collect();
        let now_ms = self.settings.clock.now_ms();
        let evicted = self.settings.limits.evict(&self.ground.live, &puts, seconds(now_ms));
        drop(puts);
        self.ground.health.lock().evicted += evicted.len() as u64;
        changes.extend(evicted.into_iter().map(Change::Remove));
        let before = self.totals.seq;
        let written = self.write(&changes, now_ms);
        if written.is_ok() || written.as_ref().is_err_and(|failure| failure.applied) {
            for (change, seq) in changes.into_iter().zip(before + 1..) {
                freed.extend(self.publish(change, seq, now_ms).map(|(slot, record)| (slot, Some(record))));
            }
        } else {
            freed.extend(changes.into_iter().filter_map(|change| match change {
                Change::Put(put) => Some((put.sealed.slot, None)),
                Change::Remove(_) => None,
            }));
        }
        let result = written.map_err(|failure| failure.error);
        if let Err(error) = &result {
            tracing::error!(%error, "could not commit");
            if self.ground.health.lock().failing.is_some() {
                // Some of it may be on disk, in place of what was there: the next start needs the keys to tell.
                freed.clear();
            }
        }
        (result, freed)
    }

    fn is_due(&self, change: &Change) -> bool {
        match change {
            Change::Put(put) => put
                .expects
                .is_none_or(|expected| self.ground.live.find(put.sealed.id).is_some_and(|(_, seq)| seq == expected)),
            Change::Remove(_) => true,
        }
    }

    fn write(&mut self, changes: &[Change], now_ms: u64) -> Result<(), Failure> {
        if let Some(cause) = &self.ground.health.lock().failing {
            return Err(StoreError::Unavailable(cause.clone()).into());
        }
        let mut records = Vec::new();
        let mut rows = Vec::with_capacity(changes.len());
        let mut totals = Totals { now_ms, ..self.totals };
        for change in changes {
            totals.seq += 1;
            let old = self.ground.live.record(change.id());
            let pieces = old.as_ref().map_or(0, |(_, record)| record.pieces);
            match change {
                Change::Put(put) => {
                    totals.entries += u64::from(old.is_none());
                    log::write_put_record(&mut records, totals.seq, &put.sealed);
                    rows.push(RowChange::Put { sealed: &put.sealed, seq: totals.seq, replaced: pieces });
                }
                Change::Remove(id) => {
                    totals.entries -= u64::from(old.is_some());
                    log::write(&mut records, &Record::Remove { seq: totals.seq, id: *id });
                    rows.push(RowChange::Remove { id: *id, count: pieces });
                }
            }
        }
        log::write(&mut records, &Record::Commit(totals));
        // Deletions make room: they may use what is kept back for them.
        let makes_room = changes.iter().all(|change| matches!(change, Change::Remove(_)));
        let room = super::room::check(self.ground.path(), records.len() as u64, makes_room);
        self.ground.health.lock().full = matches!(room, Err(StoreError::Full));
        room?;
        for change in changes {
            if let Change::Put(put) = change
                && let Some(vector) = &put.vector
            {
                self.ground
                    .vectors
                    .write(put.sealed.slot, put.sealed.id, vector)
                    .map_err(|error| StoreError::from(&error))?;
            }
        }
        // A record that is only half written is taken back; nothing has happened then.
        self.log.append(&records).map_err(|error| StoreError::from(&error))?;
        self.totals = totals;
        let waits = !matches!(self.settings.durability, Durability::Async);
        let done = if waits { self.log.sync().map_err(|error| StoreError::from(&error)) } else { Ok(()) };
        let done = done.and_then(|()| self.ground.rows().apply(&rows, totals));
        let applied = done.is_ok();
        let done = done.and_then(|()| if waits { self.ground.rows().sync() } else { Ok(()) });
        if let Err(error) = done {
            // Whether the disk has it is unknown, and a second sync would not tell: it is asked again at the next start.
            self.ground.health.lock().failing = Some(error.to_string());
            if self.next.is_some() {
                self.give_up(&error);
            }
            return Err(Failure { error, applied });
        }
        if !waits {
            self.unsynced.get_or_insert_with(Instant::now);
        }
        if let Some(next) = &mut self.next
            && let Err(error) = next.follow(&rows, totals)
        {
            self.give_up(&error);
        }
        Ok(())
    }

    /// Makes a committed change visible; returns what it replaced.
    fn publish(&mut self, change: Change, seq: u64, now_ms: u64) -> Option<(Slot, Live)> {
        let live = &self.ground.live;
        match change {
            Change::Remove(id) => {
                let old = live.remove(id);
                self.ground.forget(id);
                old
            }
            Change::Put(put) => {
                let Sealed { id, slot, ref pieces, .. } = put.sealed;
                let old = live.insert(
                    id,
                    slot,
                    &put.head,
                    Written { seq, pieces: pieces.len() as u16, stored: put.sealed.bytes() },
                    Heat::new(seconds(now_ms)),
                );
                self.ground.forget(id);
                if let Some((partition, dimensions)) = put.head.place {
                    self.ground.index.insert(partition, slot, dimensions as usize);
                }
                old
            }
        }
    }

    /// What was sealed under these slots' keys cannot be read again by anybody once this returns.
    fn erase(&mut self, freed: &[Freed]) {
        if freed.is_empty() {
            return;
        }
        let slots: Vec<Slot> = freed.iter().map(|(slot, _)| *slot).collect();
        let unused = freed.iter().filter(|(slot, record)| match record.as_ref().and_then(|record| record.place) {
            Some((partition, _)) => self.ground.index.remove(partition, *slot),
            None => true,
        });
        let unused: Vec<Slot> = unused.map(|(slot, _)| *slot).collect();
        let erased = self.ground.keys.renew(&slots).and_then(|()| self.ground.vectors.erase(&slots));
        match erased.and_then(|()| self.ground.vectors.sync()) {
            Ok(()) => self.ground.give_slots(unused),
            // The next start makes up for it; the slots are not used before.
            Err(error) => tracing::error!(%error, "could not erase"),
        }
    }

    fn hear(&mut self, news: News) {
        let News { built, replaced, released, partition: _ } = news;
        let put = built.iter().filter_map(|file| Some((segment_note(&file.name), postcard::to_stdvec(file).ok()?)));
        let put: Vec<_> = put.collect();
        let remove: Vec<String> = replaced.iter().map(|file| segment_note(&file.name)).collect();
        let rows = self.ground.rows();
        let noted = rows.change_notes(&put, &remove).and_then(|()| rows.sync());
        if let Err(error) = noted {
            tracing::warn!(%error, "could not note a segment");
            return;
        }
        if let Some(next) = &self.next
            && let Err(error) = next.follow_notes(&put, &remove)
        {
            self.give_up(&error);
        }
        for file in &replaced {
            if let Err(error) = self.ground.index.discard(file) {
                tracing::warn!(%error, file = file.name, "could not delete a segment file");
            }
        }
        self.ground.give_slots(released);
    }

    /// Whether rows and log hold so much that is dead that copying what lives is worth it.
    fn is_bloated(&self) -> bool {
        let stored = self.ground.live.stored_bytes();
        let log = self.log.bytes();
        if log < BLOAT_MIN {
            return false;
        }
        log + self.ground.rows().bytes() > BLOAT_MIN + BLOAT * stored
    }

    fn begin_generation(&mut self) {
        match Next::begin(&self.ground.folder) {
            Ok(next) => {
                self.next = Some(next);
                self.ground.health.lock().rewriting = true;
            }
            Err(error) => self.give_up(&error),
        }
    }

    /// The current generation goes on.
    fn give_up(&mut self, error: &StoreError) {
        tracing::warn!(%error, "gave a new generation up");
        self.next = None;
        self.ground.health.lock().rewriting = false;
        self.retry = Instant::now() + RETRY_AFTER;
    }

    /// Copies a little more; switches when everything is copied.
    fn step(&mut self) {
        let Some(next) = &mut self.next else { return };
        match next.step(self.ground, self.totals) {
            Ok(false) => {}
            Ok(true) => {
                let Some(next) = self.next.take() else { return };
                match next.finish(self.ground, self.totals) {
                    Ok((generation, log)) => {
                        tracing::info!(old = self.generation, new = generation, "moved into a new generation");
                        (self.generation, self.log) = (generation, log);
                        self.ground.health.lock().rewriting = false;
                        if let Err(error) = self.ground.folder.tidy(generation) {
                            tracing::warn!(%error, "could not remove the old generation");
                        }
                    }
                    Err(error) => self.give_up(&error),
                }
            }
            Err(error) => {
                self.give_up(&error);
            }
        }
    }

    /// Looks at a part of the entries; all of them are looked at within a minute.
    fn remove_expired(&mut self) {
        let before_ms = self.settings.clock.now_ms().saturating_sub(EXPIRED_KEPT_MS);
        let bound = self.ground.live.bound();
        let part = (bound / SWEEP_PARTS).max(SWEEP_MIN).min(bound);
        let expired = self.ground.live.ids_in(self.sweep_at, part, |record| record.life.is_over(before_ms));
        self.sweep_at = if bound == 0 { 0 } else { (self.sweep_at + part) % bound };
        for some in expired.chunks(GROUP_CHANGES) {
            let (result, freed) = self.commit(some.iter().copied().map(Change::Remove).collect());
            if result.is_err() {
                return;
            }
            self.ground.health.lock().expired += some.len() as u64;
            self.erase(&freed);
        }
    }

    /// For changes that were acknowledged already: there is nobody left to tell.
    fn sync_late(&mut self) {
        if self.unsynced.take().is_none() {
            return;
        }
        let log = self.log.sync().map_err(|error| StoreError::from(&error));
        if let Err(error) = log.and_then(|()| self.ground.rows().sync()) {
            tracing::error!(%error, "could not sync acknowledged changes");
            self.ground.health.lock().failing = Some(error.to_string());
        }
    }
}

/// How long an `Async` change may stay unsynced.
const SYNC_DELAY: Duration = Duration::from_millis(200);

/// How often an idle committer looks for something to do.
const IDLE: Duration = Duration::from_secs(1);

/// Expired entries are looked for this often, in a part of the slots at a time; whether there is too much that is dead
/// on the disk, as often.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const SWEEP_PARTS: usize = 30;
const SWEEP_MIN: usize = 65_536;

/// An expired entry is kept this long, served to nobody, so that whoever asks for it hears that it has expired.
const EXPIRED_KEPT_MS: u64 = 30_000;

/// A new generation is worth its while once rows and log together are this many times what the live entries need:
/// fresh ones are twice to two and a half times.
const BLOAT: u64 = 4;

/// How long a new generation that failed is not tried again.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// Below this nobody minds.
const BLOAT_MIN: u64 = 64 << 20;

/// A commit that failed.
struct Failure {
    error: StoreError,
    /// The rows say already what the disk may not: readers must be told the same everywhere.
    applied: bool,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { error, applied: false }
    }
}

/// A slot that is not used any more, and what it was used for.
type Freed = (Slot, Option<Live>);
