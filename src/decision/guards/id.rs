//! Identifiers, addresses, URLs and paths.

use crate::decision::Reason;
use crate::decision::guards::pair::{Pair, Sides};
use crate::decision::text::values::{Kind, Value};

pub fn differs(pair: &Pair<'_>) -> Option<Reason> {
    unmatched(pair).any().then_some(Reason::IdDiffers)
}

/// Identifiers that only one side names.
pub fn unmatched(pair: &Pair<'_>) -> Sides {
    pair.values(Kind::is_id, Value::equals)
}
