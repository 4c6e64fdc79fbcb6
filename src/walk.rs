//! Every stored entry once, a page at a time, behind whatever is asked meanwhile.

use std::sync::Arc;
use std::time::Duration;

use crate::decision::{Entry, EntryId};
use crate::store::{Owner, Store, StoreError};

/// A way through the entries of all owners that there were when it began.
pub(crate) struct Walk {
    store: Arc<dyn Store>,
    page: usize,
    /// Those that were not walked through yet; the last one is under way.
    owners: Vec<Owner>,
    cursor: Option<EntryId>,
    has_begun: bool,
}

impl Walk {
    /// `page`: entries that are read at a time.
    pub(crate) fn new(store: &Arc<dyn Store>, page: usize) -> Self {
        Self { store: Arc::clone(store), page, owners: Vec::new(), cursor: None, has_begun: false }
    }

    /// The next entries, after a pause; none at the end. Waits until the store was read in.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn next(&mut self) -> Result<Vec<Arc<Entry>>, StoreError> {
        if self.has_begun {
            tokio::time::sleep(PAUSE).await;
        } else {
            while self.store.health().loading {
                tokio::time::sleep(PAUSE).await;
            }
            self.owners = self.store.usage().into_iter().map(|(owner, _)| owner).rev().collect();
            self.has_begun = true;
        }
        while let Some(owner) = self.owners.last() {
            let page = self.store.scan(owner, self.cursor, self.page).await?;
            self.cursor = page.last().map(|last| last.id);
            if self.cursor.is_some() {
                return Ok(page);
            }
            self.owners.pop();
        }
        Ok(Vec::new())
    }
}

const PAUSE: Duration = Duration::from_millis(50);
