//! Numbers, units, money and the operators between numbers.

use crate::decision::Reason;
use crate::decision::guards::pair::{Pair, Sides};
use crate::decision::text::Text;
use crate::decision::text::values::{Kind, Value};

pub fn differs(pair: &Pair<'_>) -> Option<Reason> {
    let differs = unmatched(pair).any() || ordinals_differ(pair) || operators_differ(pair);
    (differs && !pair.is_retold()).then_some(Reason::NumberDiffers)
}

/// Numbers that only one side names.
pub fn unmatched(pair: &Pair<'_>) -> Sides {
    pair.values(Kind::is_numeric, Value::equals)
}

/// The second is not the third. One that is left out says little.
pub fn ordinals_differ(pair: &Pair<'_>) -> bool {
    let ordinals = |text: &Text| -> Vec<String> {
        text.values.iter().filter(|value| is_ordinal(value)).map(|value| value.canonical.clone()).collect()
    };
    let (new, old) = (ordinals(pair.new), ordinals(pair.old));
    new.iter().any(|ordinal| !old.contains(ordinal)) && old.iter().any(|ordinal| !new.contains(ordinal))
}

fn is_ordinal(value: &Value) -> bool {
    value.kind == Kind::Number && value.canonical.ends_with('.')
}

/// `1 + 3` is not `1 * 3`: both sides calculate, and not the same.
pub fn operators_differ(pair: &Pair<'_>) -> bool {
    let counts = |text: &Text, only: &[usize]| only.iter().filter(|at| text.tokens[**at].is_symbol).count();
    let differs = counts(pair.new, &pair.only_new) > 0 || counts(pair.old, &pair.only_old) > 0;
    let calculates = |text: &Text| text.values.iter().filter(|value| value.kind.is_numeric()).count() > 1;
    differs && calculates(pair.new) && calculates(pair.old)
}

/// The same numbers in another order.
pub fn order_differs(pair: &Pair<'_>) -> bool {
    let numbers = |text: &'_ Text| text.values.iter().filter(|value| value.kind.is_numeric()).count();
    if numbers(pair.new) < 2 || numbers(pair.new) != numbers(pair.old) || unmatched(pair).any() {
        return false;
    }
    let numeric = |value: &&Value| value.kind.is_numeric();
    let in_new = pair.new.values.iter().filter(numeric);
    let in_old = pair.old.values.iter().filter(numeric);
    in_new.zip(in_old).any(|(a, b)| !a.equals(b))
}
