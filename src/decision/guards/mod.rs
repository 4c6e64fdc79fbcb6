//! Differences that change the answer however near two texts are.
//!
//! Each guard looks at one sort of difference, and refuses what was measured to be certain. Exchanging two texts of
//! ordinary length changes no verdict.

pub mod date;
pub mod entity;
pub mod id;
pub mod language;
pub mod lossy;
pub mod negation;
pub mod number;
pub mod order;
pub mod pair;
pub mod quantifier;

use self::pair::Pair;
use super::slots::Slotted;
use super::template::{Slots, Template};
use super::text::Text;
use super::text::lexicon::Lexicon;
use super::{Reason, Similarity, score};

/// All guards, and the word lists that they read texts by.
#[derive(Debug)]
pub struct Guards {
    lexicon: Lexicon,
}

impl Default for Guards {
    /// Reads the word lists, which takes some milliseconds.
    fn default() -> Self {
        Self { lexicon: Lexicon::new() }
    }
}

impl Guards {
    /// What a text says, as far as the guards care.
    pub fn read(&self, text: &str) -> Text {
        Text::read(text, &self.lexicon)
    }

    /// A text that was read, in slots: those of the caller's `template`, and the values that stand between them.
    pub fn split(&self, text: &Text, template: &Template, named: &Slots) -> Slotted {
        Slotted::split(text, template, named, &self.lexicon)
    }

    /// How likely the answer to `old` fits `new`, in `[0, 1]` and to be calibrated, or why it is none however similar
    /// they are; the first guard that refuses says it.
    ///
    /// # Errors
    /// A guard refuses.
    pub fn appraise(&self, new: &Text, old: &Text, similarity: Similarity) -> Result<f64, Reason> {
        let pair = Pair::new(new, old, &self.lexicon);
        match refusal(&pair) {
            Some(reason) => Err(reason),
            None if lossy::is_blind(&pair, similarity.get()) => Err(Reason::LossyText),
            None => Ok(score::score(similarity.get(), &pair)),
        }
    }
}

impl Guards {
    /// Whether two conversations, as one text each, are about different things. Either may say more than the other:
    /// what counts is that each names something that the other does not.
    pub(crate) fn contexts_differ(&self, new: &Text, old: &Text) -> bool {
        let pair = Pair::new(new, old, &self.lexicon);
        let sides = [id::unmatched(&pair), number::unmatched(&pair), date::unmatched(&pair)];
        let (new, old) = (sides.iter().any(|side| side.new > 0), sides.iter().any(|side| side.old > 0));
        new && old
            || negation::is_turned(&pair)
            || [lossy::differs, language::differs, entity::differs].iter().any(|differs| differs(&pair).is_some())
    }

    /// Whether two texts each name a number, date or identifier that the other does not.
    pub(crate) fn values_differ(&self, new: &Text, old: &Text) -> bool {
        let pair = Pair::new(new, old, &self.lexicon);
        let sides = [id::unmatched(&pair), number::unmatched(&pair), date::unmatched(&pair)];
        sides.iter().any(|side| side.new > 0) && sides.iter().any(|side| side.old > 0)
    }
}

/// The cheapest and most certain guards come first.
fn refusal(pair: &Pair<'_>) -> Option<Reason> {
    GUARDS.iter().find_map(|guard| guard(pair))
}

type Guard = fn(&Pair<'_>) -> Option<Reason>;

const GUARDS: [Guard; 8] = [
    id::differs,
    number::differs,
    date::differs,
    lossy::differs,
    language::differs,
    entity::differs,
    negation::differs,
    order::differs,
];

#[cfg(test)]
mod tests;
