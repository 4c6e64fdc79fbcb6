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
    if a.kind != b.kind {
        return false;
    }
    if long.canonical.contains('-') && short.canonical.contains('-') {
        let parts = |value: &Value| {
            let mut parts = value.canonical.split('-').map(str::to_owned);
            [parts.next(), parts.next(), parts.next()].map(Option::unwrap_or_default)
        };
        let (a, b) = (parts(long), parts(short));
        return a.iter().zip(&b).all(|(a, b)| a.is_empty() || b.is_empty() || a == b);
    }
    long.canonical.ends_with(&short.canonical) || long.canonical.starts_with(&short.canonical)
}
