//! What lies where in the data folder, and who may use it.
//!
//! ```text
//! lock                 held by the process that has the folder open
//! gen-000001/          a generation: rows and log, each a copy of every entry
//!   complete           its presence is the commit point of a new generation
//!   sled/  log/
//! keys.a  keys.b       one key per slot
//! vectors/  segments/  by slot, and derived
//! quarantine-000001/   a generation in which something was lost, as it was found
//! ```

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::store::OpenStoreError;

/// The data folder of one process.
pub(super) struct Folder {
    path: PathBuf,
    /// Locked for as long as it is open.
    _lock: Option<File>,
}

impl Folder {
    /// Creates the folder if need be, and takes it for this process.
    pub(super) fn take(path: &Path) -> Result<Self, OpenStoreError> {
        let failed = |source| OpenStoreError::Io { folder: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
        restrict(path).map_err(failed)?;
        if path.join("store").exists() {
            let (found, known) = ("nearhit-store-1".to_owned(), FORMAT.to_owned());
            return Err(OpenStoreError::Format { folder: path.to_owned(), found, known });
        }
        let lock = File::create(path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: Some(lock) }),
            Err(TryLockError::WouldBlock) => Err(OpenStoreError::Locked { folder: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// A folder that nothing can be written to, not even that it is in use.
    pub(super) fn look(path: &Path) -> Self {
        Self { path: path.to_owned(), _lock: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn vectors(&self) -> PathBuf {
        self.path.join("vectors")
    }

    pub(super) fn segments(&self) -> PathBuf {
        self.path.join("segments")
    }

    /// The generation in use, if there is one.
    pub(super) fn current(&self) -> io::Result<Option<u32>> {
        let complete = self.numbers(GENERATION)?.into_iter().filter(|number| self.generation(*number).is_complete());
        Ok(complete.max())
    }

    /// The number for a new generation.
    pub(super) fn next(&self) -> io::Result<u32> {
        let used = self.numbers(GENERATION)?.into_iter().chain(self.numbers(QUARANTINE)?);
        Ok(used.max().unwrap_or(0) + 1)
    }

    pub(super) fn generation(&self, number: u32) -> Generation {
        Generation { path: self.path.join(format!("{GENERATION}{number:06}")) }
    }

    /// Removes what a switch of generations left behind.
    pub(super) fn tidy(&self, current: u32) -> io::Result<()> {
        for number in self.numbers(GENERATION)? {
            if number != current {
                std::fs::remove_dir_all(self.generation(number).path)?;
            }
        }
        Ok(())
    }

    /// Sets a generation aside, for whoever wants to know what happened to it. Only the last one is kept.
    pub(super) fn set_aside(&self, number: u32) -> io::Result<PathBuf> {
        let old: Vec<u32> = self.numbers(QUARANTINE)?;
        let place = self.path.join(format!("{QUARANTINE}{number:06}"));
        std::fs::rename(self.generation(number).path, &place)?;
        for number in old {
            std::fs::remove_dir_all(self.path.join(format!("{QUARANTINE}{number:06}")))?;
        }
        Ok(place)
    }

    /// The folders that are set aside.
    pub(super) fn aside(&self) -> io::Result<u64> {
        Ok(self.numbers(QUARANTINE)?.len() as u64)
    }

    fn numbers(&self, prefix: &str) -> io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for found in std::fs::read_dir(&self.path)? {
            let name = found?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_prefix(prefix));
            numbers.extend(digits.and_then(|digits| digits.parse::<u32>().ok()));
        }
        Ok(numbers)
    }
}

/// One generation's folder.
pub(super) struct Generation {
    path: PathBuf,
}

impl Generation {
    /// Begins anew.
    pub(super) fn create(&self) -> io::Result<()> {
        if self.path.exists() {
            std::fs::remove_dir_all(&self.path)?;
        }
        std::fs::create_dir_all(&self.path)
    }

    pub(super) fn sled(&self) -> PathBuf {
        self.path.join("sled")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(super) fn is_complete(&self) -> bool {
        self.path.join(COMPLETE).exists()
    }

    /// From now on this generation is the one that counts.
    pub(super) fn complete(&self) -> io::Result<()> {
        File::create(self.path.join(COMPLETE))?.sync_all()?;
        File::open(self.sled())?.sync_all()?;
        File::open(&self.path)?.sync_all()?;
        match self.path.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// Nobody else on this machine reads it.
#[cfg(unix)]
fn restrict(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn restrict(_: &Path) -> io::Result<()> {
    Ok(())
}

/// What the folder is written in.
pub(super) const FORMAT: &str = "nearhit-store-2";

const GENERATION: &str = "gen-";
const QUARANTINE: &str = "quarantine-";
const COMPLETE: &str = "complete";
