//! Names: capitals inside a sentence, acronyms, quoted words, words with digits.

use crate::decision::Reason;
use crate::decision::guards::pair::{Pair, Sides};
use crate::decision::text::Text;
use crate::decision::text::lexicon::Contrast;

/// Each side names something that the other does not.
pub fn differs(pair: &Pair<'_>) -> Option<Reason> {
    (unmatched(pair).both() || contrasts(pair) > 0).then_some(Reason::EntityDiffers)
}

/// Words that exclude each other: red here, blue there.
pub fn contrasts(pair: &Pair<'_>) -> usize {
    let of = |text: &Text, at: usize| text.tokens[at].word.contrast;
    let excludes = |contrast: Contrast| {
        let others = pair.only_old.iter().filter_map(|at| of(pair.old, *at));
        others.into_iter().any(|other| other.set == contrast.set && other.member != contrast.member)
    };
    let is_named = |contrast: Contrast| pair.only_old.iter().any(|at| of(pair.old, *at) == Some(contrast));
    let mine = pair.only_new.iter().filter_map(|at| of(pair.new, *at));
    mine.filter(|contrast| excludes(*contrast) && !is_named(*contrast)).count()
}

/// Names whose words only one side has.
pub fn unmatched(pair: &Pair<'_>) -> Sides {
    let count = |text: &Text, only: &[usize], other: &Text, others: &[usize]| {
        let names = only.iter().filter(|at| text.is_name(**at)).take(COMPARED_MOST);
        names.filter(|at| !is_abbreviated(text, **at, other, others)).count()
    };
    Sides {
        new: count(pair.new, &pair.only_new, pair.old, &pair.only_old),
        old: count(pair.old, &pair.only_old, pair.new, &pair.only_new),
    }
}

/// Whether the other side writes the name as an acronym, or this acronym in full.
fn is_abbreviated(text: &Text, at: usize, other: &Text, others: &[usize]) -> bool {
    let word = text.word(at);
    if text.tokens[at].is_upper && (2..=6).contains(&word.len()) && word.is_ascii() {
        return is_spelt_out(word, other);
    }
    let acronyms = others.iter().filter(|other_at| other.tokens[**other_at].is_upper).take(COMPARED_MOST);
    acronyms.map(|other_at| other.word(*other_at)).any(|acronym| {
        let first = word.as_bytes()[0].to_ascii_uppercase();
        acronym.len() >= 2
            && acronym.is_ascii()
            && acronym.bytes().any(|byte| byte == first)
            && is_spelt_out(acronym, text)
    })
}

/// Whether words in a row begin with the letters of `acronym`.
fn is_spelt_out(acronym: &str, text: &Text) -> bool {
    let initial = |at: usize| text.source.as_bytes()[text.tokens[at].start].to_ascii_uppercase();
    let initials: Vec<u8> =
        (0..text.tokens.len()).filter(|at| !text.tokens[*at].word.is_function).map(initial).collect();
    initials.windows(acronym.len()).any(|window| window == acronym.as_bytes())
}

/// Names beyond this many tell nothing more.
const COMPARED_MOST: usize = 24;
