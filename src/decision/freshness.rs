//! Does the answer depend on now or here?
//!
//! The word lists (`text/words/perishable/`) hold phrases that say so, and phrases that look like them and say nothing.
//! What stands in quotation marks says nothing either; where a text asks, only its questions count. A text that is
//! longer than a question brings its own material: its words say little of what is asked.

use std::collections::HashMap;

use super::text::Text;
use super::text::language::Language;
use super::text::values::Kind;
use super::text::word::WordHash;

/// What becomes of a question whose answer depends on now or here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Perishable {
    /// Its answer has a short time to live.
    #[default]
    Ttl,
    /// It is not answered from the cache, and its answer is not recorded.
    Miss,
    /// The same as of any other.
    Ignore,
}

/// The phrases of every language.
#[derive(Debug)]
pub struct Freshness {
    /// Of languages with spaces between words, by their first word; the languages as in [`Language::LATIN`].
    spaced: [HashMap<WordHash, Vec<Phrase>>; Language::LATIN.len()],
    /// Of the others, as the pieces around each gap.
    unspaced: Vec<(Language, Vec<Pieces>)>,
}

type Pieces = (Class, Vec<String>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Phrase {
    class: Class,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Depends on now or here.
    Now,
    /// Holds until something happens: depends on now unless the text names a year.
    Standing,
    /// Looks like one of the others.
    Not,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// One of these words.
    Word(Vec<WordHash>),
    /// Up to [`GAP_WORDS`] words.
    Gap,
    SentenceStart,
    SentenceEnd,
}

impl Default for Freshness {
    /// Reads the word lists, which takes some milliseconds.
    fn default() -> Self {
        let mut freshness = Self { spaced: Default::default(), unspaced: Vec::new() };
        for language in Language::ALL {
            let phrases = phrases(language.perishable());
            match Language::LATIN.iter().position(|latin| *latin == language) {
                Some(at) => phrases.for_each(|(class, phrase)| add(&mut freshness.spaced[at], class, phrase)),
                None => {
                    let pieces = |phrase: &str| phrase.split('*').map(|piece| piece.trim().to_owned()).collect();
                    let phrases = phrases.map(|(class, phrase)| (class, pieces(phrase))).collect();
                    freshness.unspaced.push((language, phrases));
                }
            }
        }
        freshness
    }
}

impl Freshness {
    /// Whether the text is short enough to tell: nothing else need be read.
    pub fn may_tell(text: &str) -> bool {
        text.len() <= QUESTION_BYTES_MAX
    }

    /// Whether the answer to the text depends on now or here, as far as its words tell.
    pub fn is_perishable(&self, text: &Text) -> bool {
        if !Self::may_tell(&text.source) {
            return false;
        }
        match text.language {
            Some(language) if language.is_unspaced() => self.tells_inside(text, language),
            language => self.tells(text, language),
        }
    }

    fn tells(&self, text: &Text, language: Option<Language>) -> bool {
        let words = words(text);
        let sentences = sentences(text, &words);
        let has_year = names_year(text);
        let of_language = |at: &usize| language.is_none_or(|language| Language::LATIN[*at] == language);
        (0..self.spaced.len()).filter(of_language).any(|at| {
            sentences.iter().any(|sentence| tells(&self.spaced[at], &words[sentence.start..sentence.end], has_year))
        })
    }

    fn tells_inside(&self, text: &Text, language: Language) -> bool {
        let has_year = names_year(text);
        let quoted = |at: usize| {
            let is_quoted = |kind| matches!(kind, Kind::Quoted | Kind::Code);
            text.values.iter().any(|value| is_quoted(value.kind) && (value.start..value.end).contains(&at))
        };
        let Some((_, phrases)) = self.unspaced.iter().find(|(of, _)| *of == language) else { return false };
        let of_class = |wanted: Class| phrases.iter().filter(move |(class, _)| *class == wanted);
        let harmless: Vec<(usize, usize)> =
            of_class(Class::Not).flat_map(|(_, pieces)| places(&text.source, pieces)).collect();
        let classes = [Class::Now, Class::Standing].into_iter().filter(|class| *class == Class::Now || !has_year);
        let mut found = classes.flat_map(of_class).flat_map(|(_, pieces)| places(&text.source, pieces));
        found.any(|(start, end)| !quoted(start) && !harmless.iter().any(|(from, to)| start < *to && *from < end))
    }
}

/// A word of the text, an ending behind an apostrophe being one of its own.
#[derive(Debug, Clone, Copy)]
struct Spoken {
    hash: WordHash,
    is_quoted: bool,
}

/// A sentence by its words.
#[derive(Debug, Clone, Copy)]
struct Sentence {
    start: usize,
    end: usize,
}

fn words(text: &Text) -> Vec<(Spoken, usize)> {
    let mut words = Vec::with_capacity(text.tokens.len() + 2);
    for token in &text.tokens {
        for hash in apart(&text.source[token.start..token.end]) {
            words.push((Spoken { hash, is_quoted: token.is_quoted }, token.end));
        }
    }
    words
}

fn apart(word: &str) -> impl Iterator<Item = WordHash> {
    word.split(['\'', '’']).filter(|part| !part.is_empty()).map(WordHash::of)
}

/// The questions, or all sentences of a text that marks none.
fn sentences(text: &Text, words: &[(Spoken, usize)]) -> Vec<Sentence> {
    let mut sentences = Vec::new();
    let mut start = 0;
    for (at, (_, end)) in words.iter().enumerate() {
        let next = words.get(at + 1).map_or(text.source.len(), |(_, next)| *next);
        let gap = &text.source[*end..next];
        let gap = &gap[..gap.find(char::is_alphanumeric).unwrap_or(gap.len())];
        if gap.contains(['.', '!', '?', ':', '\n', '？', '¿', '¡']) || at + 1 == words.len() {
            sentences.push((Sentence { start, end: at + 1 }, gap.contains(['?', '？'])));
            start = at + 1;
        }
    }
    let asks = sentences.iter().any(|(_, is_question)| *is_question);
    sentences.into_iter().filter(|(_, is_question)| *is_question || !asks).map(|(sentence, _)| sentence).collect()
}

/// Whether a phrase that says so stands in the sentence, and is no part of one that says nothing.
fn tells(phrases: &HashMap<WordHash, Vec<Phrase>>, sentence: &[(Spoken, usize)], has_year: bool) -> bool {
    let found: Vec<(Class, usize, usize)> = (0..sentence.len())
        .flat_map(|at| phrases.get(&sentence[at].0.hash).into_iter().flatten().map(move |phrase| (at, phrase)))
        .filter_map(|(at, phrase)| Some((phrase.class, at, end_of(&phrase.parts, sentence, at)?)))
        .collect();
    let is_covered = |start: usize, end: usize| {
        found.iter().any(|(class, from, to)| *class == Class::Not && start < *to && *from < end)
    };
    found.iter().any(|(class, start, end)| {
        let tells = *class == Class::Now || *class == Class::Standing && !has_year;
        tells && !is_covered(*start, *end) && !sentence[*start..*end].iter().all(|(word, _)| word.is_quoted)
    })
}

/// Where the phrase ends that begins at this word.
fn end_of(parts: &[Part], sentence: &[(Spoken, usize)], at: usize) -> Option<usize> {
    let Some((part, rest)) = parts.split_first() else { return Some(at) };
    match part {
        Part::Word(any) => {
            let (word, _) = sentence.get(at)?;
            if any.contains(&word.hash) { end_of(rest, sentence, at + 1) } else { None }
        }
        Part::Gap => (at..=sentence.len().min(at + GAP_WORDS)).find_map(|at| end_of(rest, sentence, at)),
        Part::SentenceStart if at == 0 => end_of(rest, sentence, at),
        Part::SentenceEnd if at == sentence.len() => end_of(rest, sentence, at),
        Part::SentenceStart | Part::SentenceEnd => None,
    }
}

/// Where the pieces stand, one behind the other and not far apart.
fn places(text: &str, pieces: &[String]) -> Vec<(usize, usize)> {
    let Some((first, rest)) = pieces.split_first() else { return Vec::new() };
    let end = |start: usize| {
        rest.iter().try_fold(start + first.len(), |end, piece| {
            let reach = GAP_LETTERS + piece.chars().count();
            let until = text[end..].char_indices().nth(reach).map_or(text.len(), |(at, _)| end + at);
            text[end..until].find(piece.as_str()).map(|at| end + at + piece.len())
        })
    };
    text.match_indices(first.as_str()).filter_map(|(start, _)| Some((start, end(start)?))).collect()
}

/// A date, or a number that is a year.
fn names_year(text: &Text) -> bool {
    let is_year = |number: &str| number.parse::<u32>().is_ok_and(|number| (1000..2200).contains(&number));
    text.values.iter().any(|value| value.kind == Kind::Date || value.kind == Kind::Number && is_year(&value.canonical))
}

fn phrases(list: &str) -> impl Iterator<Item = (Class, &str)> {
    let lines = list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(": "));
    lines.flat_map(|(class, phrases)| {
        let class = match class {
            "now" => Class::Now,
            "standing" => Class::Standing,
            _ => Class::Not,
        };
        phrases.split(',').map(move |phrase| (class, phrase.trim())).filter(|(_, phrase)| !phrase.is_empty())
    })
}

fn add(phrases: &mut HashMap<WordHash, Vec<Phrase>>, class: Class, phrase: &str) {
    let mut parts = Vec::new();
    for part in phrase.split_whitespace() {
        match part {
            "*" => parts.push(Part::Gap),
            "^" => parts.push(Part::SentenceStart),
            "$" => parts.push(Part::SentenceEnd),
            _ if part.contains('|') => parts.push(Part::Word(part.split('|').map(WordHash::of).collect())),
            _ => parts.extend(apart(part).map(|hash| Part::Word(vec![hash]))),
        }
    }
    let first = parts.iter().find_map(|part| match part {
        Part::Word(any) => Some(any.clone()),
        _ => None,
    });
    for hash in first.unwrap_or_default() {
        phrases.entry(hash).or_default().push(Phrase { class, parts: parts.clone() });
    }
}

/// Words that `*` stands for, at most.
const GAP_WORDS: usize = 3;

/// The same in languages without spaces.
const GAP_LETTERS: usize = 10;

/// Longer texts are not questions alone.
const QUESTION_BYTES_MAX: usize = 2 << 10;

#[cfg(test)]
mod tests;
