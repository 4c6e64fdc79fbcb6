//! An answer comes in the language of its question.

use crate::decision::Reason;
use crate::decision::guards::pair::Pair;
use crate::decision::text::Text;
use crate::decision::text::language::Language;

/// Both languages are certain and not the same.
pub fn differs(pair: &Pair<'_>) -> Option<Reason> {
    let is_sure = is_certain(pair.new, pair) && is_certain(pair.old, pair);
    (is_sure && pair.new.language != pair.old.language).then_some(Reason::LanguageDiffers)
}

/// A script of its own, or at least two function words, and more than any other language could claim.
fn is_certain(text: &Text, pair: &Pair<'_>) -> bool {
    let Some(language) = text.language else { return false };
    if language.is_unspaced() {
        return true;
    }
    let votes = |language: Language| {
        text.tokens
            .iter()
            .filter(|token| pair.lexicon.function_languages(token.hash) & 1 << language as u8 != 0)
            .count()
    };
    let others = Language::LATIN.iter().filter(|other| **other != language).map(|other| votes(*other)).max();
    votes(language) >= 2 && votes(language) > others.unwrap_or(0)
}
