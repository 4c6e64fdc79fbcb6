//! One number for how likely an old answer fits a new question.
//!
//! The cosine, less what each difference costs, through one rising curve. Cosine only ever raises the score and a
//! difference only ever lowers it. The coefficients were fitted on questions whose licences allow it (Bitext support
//! questions, text2sql, banking77, clinc150, CheckList), as cosines of [`EMBEDDER`]: with another model the order of
//! candidates still holds, what a score is worth has to be learned.

use super::Similarity;
use super::guards::pair::Pair;
use super::guards::{entity, negation, number, quantifier};

/// The model whose cosines the coefficients are for.
pub const EMBEDDER: &str = "all-MiniLM-L6-v2";

/// The score of the answer to one text as an answer to another, in `[0, 1]`.
pub(super) fn score(cosine: f32, pair: &Pair<'_>) -> f64 {
    through_curve(f64::from(cosine) - cost(pair))
}

/// The score where nothing but the cosine is known.
pub fn plain_score(cosine: Similarity) -> f64 {
    through_curve(f64::from(cosine.get()))
}

/// What the differences cost, in units of cosine.
fn cost(pair: &Pair<'_>) -> f64 {
    let names = entity::unmatched(pair);
    let content = pair.content();
    let (least, most) = (content.new.min(content.old), content.new.max(content.old));
    let length = pair.new.tokens.len().min(pair.old.tokens.len());
    let is_edit = least > 0
        && most <= 2
        && pair.function_words() <= 1
        && pair.shared > 0
        && length > EDITED_LEAST
        // Where endings are written together, another word is often the same word.
        && !pair.new.spoken().is_unspaced();
    let flag = |is: bool| f64::from(u8::from(is));
    NAME_ON_ONE_SIDE * flag(names.any() && !names.both())
        + DENIED_MORE * flag(negation::is_touched(pair))
        + OPPOSITE * pair.opposites.min(2) as f64
        + OTHER_QUANTIFIER * flag(quantifier::unmatched(pair).both())
        + NUMBERS_IN_OTHER_ORDER * flag(number::order_differs(pair))
        + EDIT * flag(is_edit)
}

fn through_curve(adjusted: f64) -> f64 {
    let rises = CURVE.iter().map(|(knot, slope)| slope * (adjusted - knot).max(0.0));
    1.0 / (1.0 + (-(BIAS + rises.sum::<f64>())).exp())
}

const NAME_ON_ONE_SIDE: f64 = 0.06;
const DENIED_MORE: f64 = 0.0039;
const OPPOSITE: f64 = 0.0599;
const OTHER_QUANTIFIER: f64 = 0.0588;
const NUMBERS_IN_OTHER_ORDER: f64 = 0.0034;

/// A word or two exchanged in a longer text that is otherwise copied.
const EDIT: f64 = 0.04;

/// Tokens of such a text.
const EDITED_LEAST: usize = 14;

/// Log-odds: from where on, and how much a unit adds.
const CURVE: [(f64, f64); 6] =
    [(0.0, 4.6317), (0.7, 5.3449), (0.8, 0.4366), (0.85, 1.0072), (0.9, 0.0387), (0.95, 6.3062)];

const BIAS: f64 = -4.2311;

#[cfg(test)]
mod tests {
    use super::super::Reason;
    use super::super::guards::Guards;
    use super::*;

    #[test]
    fn cosine_raises_the_score() {
        let steps: Vec<f64> = (0..=100).map(|step| through_curve(f64::from(step) / 100.0)).collect();
        assert!(steps.windows(2).all(|two| two[0] < two[1]));
        assert!(steps.iter().all(|score| (0.0..=1.0).contains(score)));
    }

    #[test]
    fn each_difference_costs() {
        let guards = Guards::default();
        let score = |new: &str, old: &str| -> Result<f64, Reason> {
            guards.appraise(&guards.read(new), &guards.read(old), Similarity::new(0.9))
        };
        let plain = score("Is the pool open to all?", "Is the pool open for all?").expect("accepted");
        let check = |new: &str, old: &str| {
            let differing = score(new, old).expect("accepted");
            assert!(differing < plain, "{new} | {old}: {differing} {plain}");
        };
        check("Is the pool open to all in Rome?", "Is the pool open for all?");
        check("Is every pool open?", "Is only one pool open?");
        let copied = "which of the many rooms that we saw in the house by the sea had the nice";
        check(&format!("{copied} lamp"), &format!("{copied} chair"));
    }

    #[test]
    fn it_does_not_matter_who_asked_first() {
        let guards = Guards::default();
        let texts = ["Is the pool open to all in Rome?", "Is the pool open for all?", "Why is the pool closed?"];
        let read: Vec<_> = texts.iter().map(|text| guards.read(text)).collect();
        for (a, b) in read.iter().flat_map(|a| read.iter().map(move |b| (a, b))) {
            let at = |new, old| guards.appraise(new, old, Similarity::new(0.9));
            assert_eq!(at(a, b), at(b, a), "{} | {}", a.source, b.source);
        }
    }
}
