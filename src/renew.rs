//! Entries that have no vector of the embedder in use get one: those that another model embedded, and those whose
//! vector was lost or could not be made at the time.
//!
//! One text at a time, behind every lookup, with a pause between pages. An entry that changed meanwhile is left
//! as it is. Until an entry's turn comes only its exact key finds it; vectors of two models never meet.

use std::sync::Arc;

use crate::cache::Cache;
use crate::decision::{Entry, EntryId, Partition, Prompt, Scope, Template};
use crate::embed::{Asker, EmbedError, Embedder};
use crate::store::{Store, StoreError};
use crate::walk::Walk;

impl Cache {
    /// Looks at every entry once, and returns how many got a new vector. Without an embedder there is nothing to do.
    ///
    /// # Errors
    /// The store cannot be read or written, or the embedder failed.
    pub async fn renew_vectors(&self) -> Result<u64, RenewError> {
        let Some(embedder) = self.embedder() else { return Ok(0) };
        let store = self.store();
        let mut walk = Walk::new(store, PAGE);
        let mut renewed = 0;
        loop {
            let page = walk.next().await?;
            if page.is_empty() {
                break;
            }
            for entry in &page {
                renewed += u64::from(renew(store.as_ref(), embedder.as_ref(), entry).await?);
            }
        }
        Ok(renewed)
    }
}

async fn renew(store: &dyn Store, embedder: &dyn Embedder, entry: &Arc<Entry>) -> Result<bool, RenewError> {
    let partition = Partition::new(&entry.fingerprint, embedder.model());
    if entry.text.is_empty() || entry.place.as_ref().is_some_and(|(own, _)| *own == partition) {
        return Ok(false);
    }
    // The template depends on text and variables only.
    let scope = Scope::bare(entry.tenant.clone(), entry.cache.clone());
    let (template, _) = Template::split(&Prompt::new(scope, &entry.text, entry.vars.clone()));
    match embedder.embed(&[&template.text()], Asker::background(&entry.tenant)).await.pop() {
        Some(Ok(vector)) => {
            let renewed = Entry { place: Some((partition, vector)), ..Entry::clone(entry) };
            Ok(store.replace(entry, renewed).await?)
        }
        // It has no vector by rights.
        Some(Err(EmbedError::TooLong { .. })) => Ok(false),
        Some(Err(error)) => Err(RenewError::Embed { id: entry.id, error }),
        None => Ok(false),
    }
}

/// Why not every entry got its vector.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("entry {id}: {error}")]
    Embed { id: EntryId, error: EmbedError },
}

/// Entries looked at between two pauses: a million in some minutes.
const PAGE: usize = 200;
