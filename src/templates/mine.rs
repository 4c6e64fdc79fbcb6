//! After a start: the stored entries are looked through once, so that the template tier finds them again.

use super::{PAGE, SLICE};
use crate::cache::Cache;
use crate::store::StoreError;
use crate::walk::Walk;

impl Cache {
    /// Looks at every entry once, a page at a time, and returns how many have values in slots. Over a store that held
    /// entries before, no answer is refilled until this was done.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn mine_templates(&self) -> Result<u64, StoreError> {
        let (templates, guards) = self.templates();
        let mut walk = Walk::new(self.store(), PAGE);
        let mut mined = 0;
        loop {
            let page = walk.next().await?;
            if page.is_empty() {
                break;
            }
            for slice in page.chunks(SLICE) {
                let seen = templates.see(slice.iter().map(AsRef::as_ref), guards);
                templates.learn(&seen);
                mined += seen.len() as u64;
                tokio::task::yield_now().await;
            }
        }
        templates.mined();
        Ok(mined)
    }
}
