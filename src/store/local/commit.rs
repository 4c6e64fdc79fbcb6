//! One thread that makes changes durable, many at a time.
//!
//! Callers queue their changes; the committer gathers what has come in, applies it as one batch, syncs the disk
//! once, and only then answers everybody in the group. A group is closed after 10 ms or 512 changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::ground::Ground;
use super::rows::encode;
use crate::decision::{Entry, EntryId};
use crate::store::StoreError;

/// What a store has done before it acknowledges a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Synced to disk, together with whatever else came in within 10 ms.
    Group,
    /// Synced to disk by itself.
    Each,
    /// Applied in memory; written and synced within 200 ms.
    Async,
}

/// A change to one row.
pub(super) enum Change {
    Put { entry: Arc<Entry>, row: Vec<u8> },
    Remove(EntryId),
}

impl Change {
    pub(super) fn put(entry: Entry) -> Result<Self, StoreError> {
        let row = encode(&entry)?;
        Ok(Self::Put { entry: Arc::new(entry), row })
    }

    fn id(&self) -> EntryId {
        match self {
            Self::Put { entry, .. } => entry.id,
            Self::Remove(id) => *id,
        }
    }

    fn entry(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::Put { entry, .. } => Some(entry),
            Self::Remove(_) => None,
        }
    }
}

struct Request {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

pub(super) struct Committer {
    queue: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub(super) fn start(ground: Arc<Ground>, durability: Durability) -> std::io::Result<Self> {
        let (queue, requests) = sync_channel(QUEUE_LENGTH);
        let thread = std::thread::Builder::new()
            .name("nearhit-commit".into())
            .spawn(move || run(&ground, durability, &requests))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Applies the changes, all or none; returns once they are as durable as configured.
    pub(super) async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let stopped = || StoreError::Unavailable("the committer has stopped".into());
        let (done, answer) = oneshot::channel();
        let mut request = Request { changes, done };
        // A full queue holds as many changes as the disk takes in a second or so: wait for it without blocking
        // the thread.
        loop {
            let queue = self.queue.as_ref().ok_or_else(stopped)?;
            match queue.try_send(request) {
                Ok(()) => break,
                Err(std::sync::mpsc::TrySendError::Full(back)) => {
                    request = back;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(std::sync::mpsc::TrySendError::Disconnected(_)) => return Err(stopped()),
            }
        }
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for Committer {
    /// Commits what is queued, then stops.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the committer had panicked");
        }
    }
}

fn run(ground: &Ground, durability: Durability, requests: &Receiver<Request>) {
    let waits_for_disk = !matches!(durability, Durability::Async);
    // Since when there are changes that were acknowledged and are not on disk.
    let mut unsynced: Option<Instant> = None;
    loop {
        let next = match unsynced {
            None => requests.recv().map_err(Into::into),
            Some(since) => requests.recv_timeout((since + SYNC_DELAY).saturating_duration_since(Instant::now())),
        };
        match next {
            Ok(first) => {
                let group = gather(first, durability, requests);
                let result = commit(ground, &group, waits_for_disk);
                if !waits_for_disk && result.is_ok() {
                    unsynced.get_or_insert_with(Instant::now);
                }
                answer(group, &result);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if unsynced.is_some_and(|since| since.elapsed() >= SYNC_DELAY) {
            sync(ground);
            unsynced = None;
        }
    }
    sync(ground);
}

/// For changes that were acknowledged already: there is nobody left to tell.
fn sync(ground: &Ground) {
    if let Err(error) = ground.rows.sync() {
        tracing::error!(%error, "could not sync acknowledged changes");
    }
}

/// The first request and what came in with it. `Group` waits a moment for more; `Async` takes what is there already.
fn gather(first: Request, durability: Durability, requests: &Receiver<Request>) -> Vec<Request> {
    let stays_open = match durability {
        Durability::Each => return vec![first],
        Durability::Group => GROUP_TIME,
        Durability::Async => Duration::ZERO,
    };
    let mut size = first.changes.len();
    let mut group = vec![first];
    let closes = Instant::now() + stays_open;
    while size < GROUP_CHANGES {
        match requests.recv_timeout(closes.saturating_duration_since(Instant::now())) {
            Ok(request) => {
                size += request.changes.len();
                group.push(request);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    group
}

/// Applies the group as one batch, waits for the disk if asked to, then makes it visible.
fn commit(ground: &Ground, group: &[Request], waits_for_disk: bool) -> Result<(), StoreError> {
    let changes = || group.iter().flat_map(|request| &request.changes);
    let mut batch = sled::Batch::default();
    let mut current: HashMap<EntryId, Option<Arc<Entry>>> = HashMap::new();
    for change in changes() {
        match change {
            Change::Put { entry, row } => batch.insert(entry.id.as_bytes(), row.as_slice()),
            Change::Remove(id) => batch.remove(id.as_bytes()),
        }
        // A row too damaged to be read is replaced like an absent one.
        current.entry(change.id()).or_insert_with(|| ground.rows.get(change.id()).ok().flatten().map(Arc::new));
    }
    ground.rows.apply(batch)?;
    // Applied changes are read by id from now on, so they are published even if they cannot be synced: the caller is
    // told of the failure, and may try again.
    let synced = if waits_for_disk { ground.rows.sync() } else { Ok(()) };
    for change in changes() {
        let old = current.insert(change.id(), change.entry().cloned()).flatten();
        ground.publish(old.as_deref(), change.entry().map(Arc::as_ref));
    }
    synced
}

fn answer(group: Vec<Request>, result: &Result<(), StoreError>) {
    for request in group {
        let answer = match result {
            Ok(()) => Ok(()),
            Err(StoreError::Full) => Err(StoreError::Full),
            Err(StoreError::Unavailable(cause)) => Err(StoreError::Unavailable(cause.clone())),
        };
        // The caller may have gone; the change is made all the same.
        drop(request.done.send(answer));
    }
}

/// Requests waiting for the committer before callers are held back.
const QUEUE_LENGTH: usize = 4096;

/// How long a group stays open. One disk sync costs about as much, so waiting longer gains little.
const GROUP_TIME: Duration = Duration::from_millis(10);

/// Changes in a group, at which it closes early.
const GROUP_CHANGES: usize = 512;

/// How long an `Async` change may stay unsynced.
const SYNC_DELAY: Duration = Duration::from_millis(200);
