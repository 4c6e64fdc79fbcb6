//! The way to the committer: who brings changes, and how they are gathered into groups.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::index::News;
use super::seal::{Head, Sealed};
use crate::decision::EntryId;
use crate::store::StoreError;

/// What a store has done before it acknowledges a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Synced to disk, together with whatever else came in within 10 ms.
    Group,
    /// Synced to disk by itself.
    Each,
    /// Written; synced within 200 ms.
    Async,
}

/// A change to one entry.
pub(super) enum Change {
    Put(Box<Put>),
    Remove(EntryId),
}

/// A sealed entry, on its way.
pub(super) struct Put {
    pub(super) head: Head,
    pub(super) sealed: Sealed,
    pub(super) vector: Option<Vec<f32>>,
    /// Only in place of the entry with this sequence number.
    pub(super) expects: Option<u64>,
}

impl Change {
    pub(super) fn id(&self) -> EntryId {
        match self {
            Self::Put(put) => put.sealed.id,
            Self::Remove(id) => *id,
        }
    }
}

pub(super) enum Request {
    Changes {
        changes: Vec<Change>,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    /// The index has built something.
    News(News),
    /// Nothing comes after this.
    Stop,
}

/// The way to the committer.
#[derive(Clone)]
pub(super) struct Queue(SyncSender<Request>);

/// What comes out of the queue.
pub(super) struct Requests(Receiver<Request>);

pub(super) fn queue() -> (Queue, Requests) {
    let (send, receive) = sync_channel(QUEUE_LENGTH);
    (Queue(send), Requests(receive))
}

impl Queue {
    pub(super) async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        let mut request = Request::Changes { changes, done };
        // A full queue holds as many changes as the disk takes in a second or so: wait for it without blocking
        // the thread.
        loop {
            match self.0.try_send(request) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) => {
                    request = back;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(TrySendError::Disconnected(_)) => return Err(stopped()),
            }
        }
        answer.await.map_err(|_| stopped())?
    }

    /// Whatever comes after this is not done.
    pub(super) fn stop(&self) {
        // Where nobody listens any more, nobody need be told.
        drop(self.0.send(Request::Stop));
    }

    /// Called by the index, from its own thread.
    pub(super) fn tell(&self, news: News) {
        // Without a committer there is nothing to keep up to date.
        drop(self.0.send(Request::News(news)));
    }
}

impl Requests {
    pub(super) fn next(&self, patience: Duration) -> Result<Request, RecvTimeoutError> {
        self.0.recv_timeout(patience)
    }
}

/// A group, and what else came in with it.
pub(super) struct Gathered {
    pub(super) group: Vec<Waiting>,
    pub(super) news: Vec<News>,
    /// Nothing comes after this.
    pub(super) last: bool,
}

pub(super) type Waiting = (Vec<Change>, oneshot::Sender<Result<(), StoreError>>);

/// The first request and what came in with it. `Group` waits a moment for more; `Async` takes what is there already.
pub(super) fn gather(first: Waiting, durability: Durability, requests: &Requests) -> Gathered {
    let mut size = first.0.len();
    let mut gathered = Gathered { group: vec![first], news: Vec::new(), last: false };
    let stays_open = match durability {
        Durability::Each => return gathered,
        Durability::Group => GROUP_TIME,
        Durability::Async => Duration::ZERO,
    };
    let closes = Instant::now() + stays_open;
    while size < GROUP_CHANGES {
        let patience = closes.saturating_duration_since(Instant::now()).min(QUIET);
        match requests.0.recv_timeout(patience) {
            Ok(Request::Changes { changes, done }) => {
                size += changes.len();
                gathered.group.push((changes, done));
            }
            Ok(Request::News(more)) => gathered.news.push(more),
            Ok(Request::Stop) => {
                gathered.last = true;
                break;
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    gathered
}

pub(super) fn stopped() -> StoreError {
    StoreError::Unavailable("the committer has stopped".into())
}

/// Tells everybody that nothing can be stored.
pub(super) fn refuse(requests: &Requests, error: &StoreError) {
    for request in &requests.0 {
        if let Request::Changes { done, .. } = request {
            drop(done.send(Err(StoreError::Unavailable(error.to_string()))));
        }
    }
}

/// Requests waiting for the committer before callers are held back.
const QUEUE_LENGTH: usize = 4096;

/// A group closes early when nothing has come for this long: who writes alone need not wait for others.
const QUIET: Duration = Duration::from_millis(2);

/// How long a group stays open at most. A slow disk's sync costs about as much, so waiting longer gains little.
const GROUP_TIME: Duration = Duration::from_millis(10);

/// Changes in a group, at which it closes early.
pub(super) const GROUP_CHANGES: usize = 512;
