//! Polarity: how often is the text turned into its opposite?
//!
//! Two denials cancel out, and so do a denial and an opposite: "not safe" is "unsafe". What counts is whether the
//! number of turns between the texts is odd.

use crate::decision::Reason;
use crate::decision::guards::pair::Pair;
use crate::decision::text::Text;
use crate::decision::text::language::Language;

/// Only short texts are judged: in a long one a denial more is often only more said.
pub fn differs(pair: &Pair<'_>) -> Option<Reason> {
    let is_short = pair.new.tokens.len() <= SHORT && pair.old.tokens.len() <= SHORT;
    (is_short && is_turned(pair) && !pair.is_retold()).then_some(Reason::NegationDiffers)
}

/// Whether the texts say the opposite of each other, as far as the words tell.
pub fn is_turned(pair: &Pair<'_>) -> bool {
    (denials(pair.new, pair) + denials(pair.old, pair) + pair.opposites) % 2 == 1
}

/// Whether the texts deny a different number of times, or opposites stand against each other.
pub fn is_touched(pair: &Pair<'_>) -> bool {
    denials(pair.new, pair) != denials(pair.old, pair) || pair.opposites > 0
}

fn denials(text: &Text, pair: &Pair<'_>) -> usize {
    let spaced = text.tokens.iter().enumerate().filter(|(at, token)| token.word.is_negation && !is_neutral(text, *at));
    let spaced = spaced.count();
    let Some(inside) = pair.lexicon.inside(text.spoken()) else { return spaced };
    let found = |words: &[String]| words.iter().map(|word| text.source.matches(word.as_str()).count()).sum::<usize>();
    let alone = if text.spoken() == Language::Korean { lone_syllables(text) } else { 0 };
    (found(&inside.negation) + alone).saturating_sub(found(&inside.neutral))
}

/// "안" and "못" deny only as words of their own.
fn lone_syllables(text: &Text) -> usize {
    text.tokens.iter().filter(|token| matches!(&text.source[token.start..token.end], "안" | "못")).count()
}

/// "Isn't it" asks the same as "is it"; "whether or not" as "whether".
fn is_neutral(text: &Text, at: usize) -> bool {
    let token = &text.tokens[at];
    let next_is_subject = text.tokens.get(at + 1).is_some_and(|next| next.word.is_subject);
    let is_contracted = token.end - token.start > 4 && text.word(at).contains(['\'', '’']);
    let opens = token.starts_sentence && is_contracted && next_is_subject;
    let ends_with_or =
        at > 0 && text.word(at - 1).eq_ignore_ascii_case("or") && text.word(at).eq_ignore_ascii_case("not");
    let is_unsure = |at: Option<usize>| at.and_then(|at| text.tokens.get(at)).is_some_and(|token| token.word.is_unsure);
    opens || ends_with_or || tells_a_problem(text, at) || is_unsure(Some(at + 1)) || is_unsure(at.checked_sub(1))
}

/// "I cannot log in" asks how to log in.
fn tells_a_problem(text: &Text, at: usize) -> bool {
    let is_inability = INABILITY.iter().any(|word| text.word(at).eq_ignore_ascii_case(word));
    let before = |back: usize| at.checked_sub(back).map(|at| text.word(at));
    let first_person =
        |word: Option<&str>| word.is_some_and(|word| ["i", "we"].iter().any(|known| word.eq_ignore_ascii_case(known)));
    let is_be =
        before(1).is_some_and(|word| ["am", "m", "are", "was"].iter().any(|known| word.eq_ignore_ascii_case(known)));
    is_inability
        && (first_person(before(1))
            || is_be && first_person(before(2))
            || before(1).is_some_and(|word| word.eq_ignore_ascii_case("i'm")))
}

const INABILITY: [&str; 6] = ["can't", "cant", "can’t", "cannot", "couldn't", "unable"];

/// Tokens.
const SHORT: usize = 30;
