//! What the caches learned of their errors, in a file of the data folder: a restart does not begin anew.
//!
//! It is no more than statistics and ids. A file that cannot be read costs what was learned, and nothing else; it is
//! set aside, not written over.

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
                Err(error) => {
                    let kept = set_aside(&path);
                    tracing::warn!(%error, file = %path.display(), kept, "some of what was learned is lost");
                }
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let kept = set_aside(&path);
                tracing::warn!(%error, file = %path.display(), kept, "what was learned could not be read");
            }
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

/// Keeps the file under another name, beside what will be written; the name, as far as that could be done.
fn set_aside(path: &Path) -> Option<String> {
    let aside = path.with_extension("jsonl.unread");
    // What can be read of it goes on until it is written anew.
    let kept = fs::copy(path, &aside).map(drop).or_else(|_| fs::rename(path, &aside));
    kept.is_ok().then(|| aside.display().to_string())
}

/// Between two writes.
const PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::cache::{CacheSettings, Parts};
    use crate::clock::ManualClock;
    use crate::store::memory::MemoryStore;

    fn opened(folder: &Path) -> LearnedFile {
        let clock = Arc::new(ManualClock::at(1));
        let parts = Parts { store: Arc::new(MemoryStore::default()), embedder: None, clock };
        let cache = Cache::new(parts, CacheSettings::default(), &mut Registry::default());
        LearnedFile::open(Arc::new(cache), folder)
    }

    #[test]
    fn what_cannot_be_read_is_set_aside_and_not_written_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, aside) = (folder.path().join("learned.jsonl"), folder.path().join("learned.jsonl.unread"));
        opened(folder.path()).save();
        assert!(path.exists() && !aside.exists(), "nothing was wrong");
        fs::write(&path, "no line of ours\n").expect("a file");
        opened(folder.path()).save();
        assert_eq!(fs::read(&path).expect("a file of its own"), b"");
        assert_eq!(fs::read_to_string(&aside).expect("what was there"), "no line of ours\n");
        fs::remove_file(&path).expect("a file");
        fs::remove_file(&aside).expect("a file");

        fs::create_dir_all(path.join("kept")).expect("no file");
        opened(folder.path()).save();
        assert_eq!(fs::read(&path).expect("a file of its own"), b"");
        assert!(aside.join("kept").exists());
    }
}
