//! After a start: the stored entries are looked through once, so that the template tier finds them again.

use std::time::Duration;

use super::{PAGE, SLICE};
use crate::cache::Cache;
use crate::store::StoreError;

impl Cache {
    /// Looks at every entry once, a page at a time, and returns how many have values in slots. Over a store that held
    /// entries before, no answer is refilled until this was done.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn mine_templates(&self) -> Result<u64, StoreError> {
        let store = self.store();
        let (templates, guards) = self.templates();
        while store.health().loading {
            tokio::time::sleep(PAUSE).await;
        }
        let mut mined = 0;
        for (owner, _) in store.usage() {
            let mut cursor = None;
            loop {
                let page = store.scan(&owner, cursor, PAGE).await?;
                let Some(last) = page.last() else { break };
                cursor = Some(last.id);
                for slice in page.chunks(SLICE) {
                    let seen = templates.see(slice.iter().map(AsRef::as_ref), guards);
                    templates.learn(&seen);
                    mined += seen.len() as u64;
                    tokio::task::yield_now().await;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        templates.mined();
        Ok(mined)
    }
}

const PAUSE: Duration = Duration::from_millis(50);
