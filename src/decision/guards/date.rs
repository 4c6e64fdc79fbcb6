//! Dates and times of day.

use crate::decision::Reason;
use crate::decision::guards::pair::{Pair, Sides};
use crate::decision::text::values::{Kind, Value};

pub fn differs(pair: &Pair<'_>) -> Option<Reason> {
    (unmatched(pair).any() && !pair.is_retold()).then_some(Reason::DateDiffers)
}

/// Dates that only one side names.
pub fn unmatched(pair: &Pair<'_>) -> Sides {
    pair.values(Kind::is_date, same)
}

/// A date that leaves out its year or day may be any such date.
fn same(a: &Value, b: &Value) -> bool {
    let (long, short) = if a.canonical.len() >= b.canonical.len() { (a, b) } else { (b, a) };
    a.kind == b.kind && (long.canonical.ends_with(&short.canonical) || long.canonical.starts_with(&short.canonical))
}
