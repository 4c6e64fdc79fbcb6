//! Opens the store that the settings name.

use std::path::PathBuf;
use std::sync::Arc;

use super::Store;
use super::local::LocalStore;
use super::memory::MemoryStore;

/// Where entries are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// In memory: gone with the process.
    Memory,
    /// In a folder of this machine.
    Local { folder: PathBuf, durability: Durability },
}

/// What a store has done before it acknowledges a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Synced to disk, together with whatever else came in within 10 ms.
    Group,
    /// Synced to disk by itself.
    Each,
    /// Handed to the operating system; synced right afterwards.
    Async,
}

/// # Errors
/// See [`LocalStore::open`]; memory always opens.
pub fn open(settings: &StoreSettings) -> Result<Arc<dyn Store>, OpenStoreError> {
    Ok(match settings {
        StoreSettings::Memory => Arc::new(MemoryStore::default()),
        StoreSettings::Local { folder, durability } => Arc::new(LocalStore::open(folder, *durability)?),
    })
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    #[error("data folder {} is in use by another process", folder.display())]
    Locked { folder: PathBuf },
    #[error("data folder {} holds format {found:?}; this version reads {known:?}", folder.display())]
    Format { folder: PathBuf, found: String, known: String },
    #[error("data folder {} is damaged: {cause}", folder.display())]
    Damaged { folder: PathBuf, cause: String },
    #[error("data folder: {0}")]
    Io(#[source] std::io::Error),
}
