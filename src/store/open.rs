//! Opens the store that the settings name.

use std::path::PathBuf;
use std::sync::Arc;

use super::local::{Durability, LocalStore};
use super::memory::MemoryStore;
use super::{Limits, OpenStoreError, Store};
use crate::clock::Clock;

/// Where entries are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// In memory: gone with the process.
    Memory,
    /// In a folder of this machine.
    Local { folder: PathBuf, durability: Durability, limits: Limits },
}

/// # Errors
/// See [`LocalStore::open`]; memory always opens.
pub fn open(settings: &StoreSettings, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, OpenStoreError> {
    Ok(match settings {
        StoreSettings::Memory => Arc::new(MemoryStore::default()),
        StoreSettings::Local { folder, durability, limits } => {
            Arc::new(LocalStore::open(folder, *durability, limits.clone(), clock)?)
        }
    })
}
