//! Opens the store that the settings name.

use std::path::PathBuf;
use std::sync::Arc;

use super::local::{Durability, LocalStore, read_only};
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

/// A memory store with what is in a folder that cannot be written to: it is served, and nothing new outlives the process.
pub async fn open_in_memory(settings: &StoreSettings) -> Arc<dyn Store> {
    let store = MemoryStore::default();
    if let StoreSettings::Local { folder, .. } = settings {
        match read_only(folder) {
            Ok(entries) => {
                tracing::warn!(entries = entries.len(), "serving what is in the folder");
                if let Err(error) = store.put(entries).await {
                    tracing::error!(%error, "could not take the folder's entries in");
                }
            }
            Err(error) => tracing::error!(%error, "the folder cannot be read either"),
        }
    }
    Arc::new(store)
}
