//! What the caches learned of their errors, in a file of the data folder: a restart does not begin anew.
//!
//! It is no more than statistics and ids. A file that cannot be read costs what was learned, and nothing else.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::cache::Cache;

/// Where it is kept, and what of.
#[derive(Clone)]
pub(super) struct LearnedFile {
    cache: Arc<Cache>,
    path: PathBuf,
    /// One writes at a time.
    writing: Arc<Mutex<()>>,
}

impl LearnedFile {
    /// Takes back what the file holds.
    pub(super) fn open(cache: Arc<Cache>, folder: &Path) -> Self {
        let path = folder.join("learned.jsonl");
        match fs::read(&path) {
            Ok(lines) => match cache.restore_learning(&lines) {
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, file = %path.display(), "some of what was learned is lost"),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, file = %path.display(), "what was learned could not be read"),
        }
        Self { cache, path, writing: Arc::default() }
    }

    /// Writes it from time to time, and as soon as a cache has nothing learned any more; for ever.
    pub(super) async fn keep_saving(self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.cache.learning_dropped() => {}
            }
            let own = self.clone();
            if tokio::task::spawn_blocking(move || own.save()).await.is_err() {
                tracing::error!("saving what was learned panicked");
            }
        }
    }

    pub(super) fn save(&self) {
        if let Err(error) = self.write() {
            tracing::warn!(%error, file = %self.path.display(), "what was learned could not be written");
        }
    }

    /// The whole file or none of it.
    fn write(&self) -> io::Result<()> {
        let _writing = self.writing.lock();
        let lines = self.cache.save_learning()?;
        let beside = self.path.with_extension("jsonl.new");
        let mut file = fs::File::create(&beside)?;
        file.write_all(&lines)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)
    }
}

/// Between two writes.
const PAUSE: Duration = Duration::from_secs(60);
