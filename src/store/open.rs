//! Opens the store that the settings name.

use std::path::PathBuf;
use std::sync::Arc;

use super::Store;
use super::local::{Durability, LocalStore, OpenStoreError};
use super::memory::MemoryStore;

/// Where entries are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// In memory: gone with the process.
    Memory,
    /// In a folder of this machine.
    Local { folder: PathBuf, durability: Durability },
}

/// # Errors
/// See [`LocalStore::open`]; memory always opens.
pub fn open(settings: &StoreSettings) -> Result<Arc<dyn Store>, OpenStoreError> {
    Ok(match settings {
        StoreSettings::Memory => Arc::new(MemoryStore::default()),
        StoreSettings::Local { folder, durability } => Arc::new(LocalStore::open(folder, *durability)?),
    })
}
