//! How much of it: all, only, first, most, before, per.
//!
//! Never refuses by itself: measured on real questions, such a word is left out or added by people who ask the same.

use super::pair::{Pair, Sides};
use crate::decision::text::Text;

/// Classes of quantifiers that only one side has.
pub fn unmatched(pair: &Pair<'_>) -> Sides {
    let (new, old) = (classes(pair.new, pair), classes(pair.old, pair));
    Sides { new: (new & !old).count_ones() as usize, old: (old & !new).count_ones() as usize }
}

fn classes(text: &Text, pair: &Pair<'_>) -> u32 {
    match pair.lexicon.inside(text.spoken()) {
        Some(inside) => {
            let found = inside.quantifier.iter().filter(|(word, _)| text.source.contains(word.as_str()));
            found.fold(0, |bits, (_, bit)| bits | bit)
        }
        None => text.tokens.iter().fold(0, |bits, token| bits | token.word.quantifier),
    }
}
