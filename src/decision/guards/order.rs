//! Direction: from here to there is not from there to here.

use crate::decision::Reason;
use crate::decision::guards::pair::Pair;
use crate::decision::text::Text;
use crate::decision::text::lexicon::Direction;
use crate::decision::text::word::WordHash;

/// What stood behind "from" stands behind "to", or two words changed places.
pub fn differs(pair: &Pair<'_>) -> Option<Reason> {
    ((is_crossed(pair) || is_exchanged(pair)) && !pair.is_retold()).then_some(Reason::OrderDiffers)
}

/// The same words, of which a few stand in each other's places: who did it to whom. Not where the words around say that
/// the places do not matter, nor where a part moved and the rest closed up.
pub fn is_exchanged(pair: &Pair<'_>) -> bool {
    let (new, old) = (&pair.new.tokens, &pair.old.tokens);
    if new.len() != old.len() || !pair.only_new.is_empty() || !pair.only_old.is_empty() {
        return false;
    }
    let moved = new.iter().zip(old).filter(|(a, b)| a.stem != b.stem);
    let (places, names) = moved.fold((0, 0), |(places, names), (a, b)| {
        let is_content = !a.word.is_function && !b.word.is_function;
        (places + 1, names + usize::from(is_content))
    });
    (2..=EXCHANGED_MOST).contains(&places)
        && places == names
        && !new.iter().any(|token| token.word.is_symmetric || token.word.is_joining)
}

pub fn is_crossed(pair: &Pair<'_>) -> bool {
    let (new, old) = (ends(pair.new, pair), ends(pair.old, pair));
    let is_symmetric = |text: &Text| text.tokens.iter().any(|token| token.word.is_symmetric);
    if new.is_empty() || old.is_empty() || is_symmetric(pair.new) && is_symmetric(pair.old) {
        return false;
    }
    let swapped = |direction: End| {
        let moved = |mine: &[(End, WordHash)], others: &[(End, WordHash)], other: &Text| {
            mine.iter().any(|end| end.0 == direction && !others.contains(end) && other.has_stem(end.1))
        };
        moved(&new, &old, pair.old) && moved(&old, &new, pair.new)
    };
    let opposed = |direction, place| {
        old.iter().any(|(other, at)| *at == place && *other != direction) && !old.contains(&(direction, place))
    };
    let turned_back = |direction, place| {
        new.iter().any(|(other, at)| *at == place && *other != direction) && !new.contains(&(direction, place))
    };
    swapped(End::From)
        || swapped(End::To)
        || new.iter().any(|(direction, place)| opposed(*direction, *place))
        || old.iter().any(|(direction, place)| turned_back(*direction, *place))
}

/// Up to two words of meaning behind each word of direction.
fn ends(text: &Text, pair: &Pair<'_>) -> Vec<(End, WordHash)> {
    let mut ends = Vec::new();
    if let Some(inside) = pair.lexicon.inside(text.spoken()) {
        before_particles(text, &inside.from_after, End::From, &mut ends);
        before_particles(text, &inside.to_after, End::To, &mut ends);
        return ends;
    }
    for (at, token) in text.tokens.iter().enumerate() {
        let direction = match token.word.direction {
            // "Keep it from falling" goes nowhere.
            Some(Direction::From) if text.tokens.get(at + 1).is_none_or(|_| !text.word(at + 1).ends_with("ing")) => {
                End::From
            }
            Some(Direction::To) => End::To,
            _ => continue,
        };
        let skipped = text.tokens[at + 1..]
            .iter()
            .take(2)
            .take_while(|next| next.word.is_function && next.word.direction.is_none());
        let from = at + 1 + skipped.count();
        let places = text.tokens[from..]
            .iter()
            .take(2)
            .take_while(|next| !next.word.is_function && !next.is_symbol && !next.is_value);
        ends.extend(places.map(|place| (direction, place.stem)));
    }
    ends
}

fn before_particles(text: &Text, particles: &[String], direction: End, ends: &mut Vec<(End, WordHash)>) {
    for particle in particles {
        for (at, _) in text.source.match_indices(particle.as_str()) {
            let start = text.source[..at].char_indices().rev().take(2).last().map_or(at, |(start, _)| start);
            ends.push((direction, WordHash::of(&text.source[start..at])));
        }
    }
}

/// Two names of two words each.
const EXCHANGED_MOST: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    From,
    To,
}
