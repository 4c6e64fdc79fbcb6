//! Do two conversations lead up to the same question?
//!
//! What the operator says is compared exactly, by the fingerprint; this is about what the parties said. Their turns may
//! differ in words, but not in what they are about (the guards), and not in one turn among equal ones: where most is
//! said to the letter, what is said in other words was meant. Two places in one conversation are two questions. How
//! near two conversations are is the lower of two similarities, of what the user said and of everything: an assistant's
//! long answers must not hide what was asked, nor the other way round.

use super::entry::{Embedding, Similarity};
use super::guards::Guards;
use super::turn::{Speaker, Turn};

/// How earlier turns are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContextRule {
    /// They are equal.
    #[default]
    Exact,
    /// They are similar, and no guard refuses them.
    Semantic,
}

/// A question and the turns before it.
#[derive(Debug, Clone, Copy)]
pub struct Conversation<'a> {
    pub turns: &'a [Turn],
    pub question: &'a str,
}

/// A piece of what was said, short enough to embed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    pub role: Speaker,
    pub text: &'a str,
}

impl<'a> Conversation<'a> {
    /// Whether they may lead up to the same question, as far as their words tell.
    pub fn may_match(&self, other: &Conversation<'_>, guards: &Guards) -> bool {
        if self.turns.len().max(other.turns.len()) > TURNS_MAX {
            return false;
        }
        let (mine, others) = (self.said(), other.said());
        let bytes = |said: &[(Speaker, String)]| said.iter().map(|(_, text)| text.len()).sum::<usize>();
        if mine.is_empty() || others.is_empty() || bytes(&mine).max(bytes(&others)) > COMPARED_BYTES_MAX {
            return false;
        }
        if self.leads_to(other) || other.leads_to(self) || is_edited(&mine, &others) {
            return false;
        }
        let read = |conversation: &Conversation<'_>, role: Speaker| {
            let texts: Vec<&str> = conversation.texts(role).collect();
            guards.read(&texts.join("\n"))
        };
        let [user, assistant] = [Speaker::User, Speaker::Assistant].map(|role| [read(self, role), read(other, role)]);
        !guards.contexts_differ(&user[0], &user[1]) && !guards.values_differ(&assistant[0], &assistant[1])
    }

    /// What the parties said, in pieces.
    pub fn pieces(&self) -> Vec<Piece<'a>> {
        let turns = self.turns.iter().filter(|turn| turn.is_spoken());
        let texts = turns.flat_map(|turn| turn.texts.iter().map(|text| (turn.role, text.as_str())));
        texts.flat_map(|(role, text)| cut(text).into_iter().map(move |text| Piece { role, text })).collect()
    }

    /// Whether `later` goes on from the answer to this question.
    fn leads_to(&self, later: &Conversation<'_>) -> bool {
        let asked: Vec<String> = self.texts(Speaker::User).chain([self.question]).map(folded).collect();
        let later: Vec<String> = later.texts(Speaker::User).map(folded).collect();
        later.starts_with(&asked)
    }

    fn texts(&self, role: Speaker) -> impl Iterator<Item = &'a str> {
        let turns = self.turns.iter().filter(move |turn| turn.role == role);
        turns.flat_map(|turn| turn.texts.iter().map(String::as_str))
    }

    /// Every turn of the parties, folded.
    fn said(&self) -> Vec<(Speaker, String)> {
        let turns = self.turns.iter().filter(|turn| turn.is_spoken());
        turns.map(|turn| (turn.role, turn.texts.iter().map(|text| folded(text)).collect())).collect()
    }
}

/// How near two conversations are, by the vectors of their pieces; `None` where one of them has none.
pub fn similarity(a: &[(Piece<'_>, Embedding)], b: &[(Piece<'_>, Embedding)]) -> Option<Similarity> {
    let near = |is_counted: fn(Speaker) -> bool| Some(mean(a, is_counted)?.similarity(&mean(b, is_counted)?));
    let all = near(|_| true)?;
    match near(|role| role == Speaker::User) {
        Some(asked) if asked.get() < all.get() => Some(asked),
        _ => Some(all),
    }
}

/// The mean of the pieces' vectors, longer ones counting more.
fn mean(pieces: &[(Piece<'_>, Embedding)], is_counted: fn(Speaker) -> bool) -> Option<Embedding> {
    let mut sum = Vec::new();
    for (piece, embedding) in pieces.iter().filter(|(piece, _)| is_counted(piece.role)) {
        sum.resize(embedding.dimensions(), 0.0);
        let weight = piece.text.len() as f32;
        sum.iter_mut().zip(embedding.as_slice()).for_each(|(sum, value)| *sum += weight * value);
    }
    Embedding::new(sum).ok()
}

/// Whether some turns of a party are equal, and others were exchanged.
fn is_edited(a: &[(Speaker, String)], b: &[(Speaker, String)]) -> bool {
    let of = |said: &[(Speaker, String)], role: Speaker| -> Vec<String> {
        said.iter().filter(|(by, _)| *by == role).map(|(_, text)| text.clone()).collect()
    };
    let shared = [Speaker::User, Speaker::Assistant].map(|role| {
        let (a, b) = (of(a, role), of(b, role));
        let equal = in_both(&a, &b);
        (equal > 0, equal < a.len() && equal < b.len())
    });
    shared.iter().any(|(has_equal, _)| *has_equal) && shared.iter().any(|(_, is_exchanged)| *is_exchanged)
}

/// How many of `a` are found in `b` in the same order, at most: the length of their longest common subsequence.
fn in_both(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (at, y) in b.iter().enumerate() {
            let above = row[at + 1];
            row[at + 1] = if x == y { diagonal + 1 } else { above.max(row[at]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

/// Lower case, one space between words.
fn folded(text: &str) -> String {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    words.join(" ")
}

/// Pieces of at most [`PIECE_BYTES_MAX`], cut behind a sentence, a line or a word where there is one.
fn cut(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text.trim();
    while rest.len() > PIECE_BYTES_MAX {
        let window = &rest[..(0..=PIECE_BYTES_MAX).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len())];
        let end_of =
            |ends: &[char]| window.rfind(ends).map(|at| at + window[at..].chars().next().map_or(1, char::len_utf8));
        let at = end_of(&['.', '!', '?', '\n', '。', '！', '？']).filter(|at| *at > PIECE_BYTES_MAX / 3);
        let at = at.or_else(|| end_of(&[' ', '\t'])).unwrap_or(window.len());
        pieces.push(rest[..at].trim());
        rest = rest[at..].trim();
    }
    pieces.push(rest);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// A piece fits the model's window unless hardly a word in it is known.
const PIECE_BYTES_MAX: usize = 600;

/// Turns; a longer conversation is compared exactly only.
const TURNS_MAX: usize = 64;

/// Longer conversations are not compared: what embedding them takes grows with them.
const COMPARED_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests;
