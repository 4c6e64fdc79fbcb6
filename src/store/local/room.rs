//! Is there room on the disk for what is about to be written?
//!
//! sled does not survive a full disk: a later call may hang. So it never gets to see one: a write is refused while
//! there is still room for it, and reads go on.

use std::path::Path;

use crate::store::StoreError;

/// Whether a group of `bytes` may be written. What makes room by deleting may use half of what is kept back.
pub(super) fn check(folder: &Path, bytes: u64, makes_room: bool) -> Result<(), StoreError> {
    let (free, total) = match (fs4::available_space(folder), fs4::total_space(folder)) {
        (Ok(free), Ok(total)) => (free, total),
        // Whoever cannot say how much there is will say when there is none.
        _ => return Ok(()),
    };
    let kept = (total / KEPT_PART).clamp(KEPT_MIN, KEPT_MAX);
    let needed = if makes_room { kept / 2 } else { kept + AMPLIFICATION * bytes };
    if free < needed { Err(StoreError::Full) } else { Ok(()) }
}

/// A twentieth of the disk is kept back, at least for sled's next segments and a new chunk of vectors.
const KEPT_PART: u64 = 20;
const KEPT_MIN: u64 = 8 << 20;
const KEPT_MAX: u64 = 256 << 20;

/// Bytes on disk for a byte of a group: log, rows twice over, vectors.
const AMPLIFICATION: u64 = 4;
