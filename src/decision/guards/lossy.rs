//! What an embedding model does not see: invisible and unknown characters, accents, and the case of acronyms.

use crate::decision::Reason;
use crate::decision::guards::pair::Pair;
use crate::decision::text::Text;
use crate::decision::text::word::WordHash;

pub fn differs(pair: &Pair<'_>) -> Option<Reason> {
    (invisible(&pair.new.source) != invisible(&pair.old.source)
        || two_faced(pair.new, pair) != two_faced(pair.old, pair))
    .then_some(Reason::LossyText)
}

/// Words in another script differ, and the model makes one vector of both texts: it does not know their letters.
pub fn is_blind(pair: &Pair<'_>, cosine: f32) -> bool {
    let is_foreign = |text: &Text, only: &[usize]| {
        only.iter().any(|at| text.word(*at).chars().next().is_some_and(|letter| letter > LATIN_LAST))
    };
    cosine >= COSINE_OF_EQUALS && (is_foreign(pair.new, &pair.only_new) || is_foreign(pair.old, &pair.only_old))
}

/// Characters that no reader or no model sees, in order.
fn invisible(text: &str) -> Vec<char> {
    if text.is_ascii() {
        return text.chars().filter(|letter| letter.is_ascii_control() && !letter.is_ascii_whitespace()).collect();
    }
    text.chars().filter(|letter| is_unseen(*letter)).collect()
}

fn is_unseen(letter: char) -> bool {
    let is_format = matches!(
        letter,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{ffff}' | '\u{e0000}'..='\u{e0fff}'
    );
    let is_private = matches!(letter, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}');
    let is_pictograph = matches!(letter, '\u{1f000}'..='\u{1faff}' | '\u{2600}'..='\u{27bf}' | '\u{2b00}'..='\u{2bff}');
    is_format || is_private || is_pictograph || letter.is_control() && !letter.is_whitespace()
}

/// Words in capitals that are another word without, sorted.
fn two_faced(text: &Text, pair: &Pair<'_>) -> Vec<WordHash> {
    let mut words: Vec<WordHash> = text
        .tokens
        .iter()
        .filter(|token| token.is_upper && text.has_case && pair.lexicon.is_two_faced(token.hash))
        .map(|token| token.hash)
        .filter(|hash| *hash != WordHash::of("ok"))
        .collect();
    words.sort_unstable();
    words.dedup();
    // Only what the other side writes in small letters was mistaken.
    words.retain(|hash| {
        [pair.new, pair.old].iter().any(|side| side.tokens.iter().any(|token| token.hash == *hash && !token.is_upper))
    });
    words
}

/// The last letter of the Latin blocks.
const LATIN_LAST: char = '\u{24f}';

/// Rounding keeps two vectors of the same tokens above it.
const COSINE_OF_EQUALS: f32 = 0.9995;
