//! A prompt's text as the guards see it: read once, compared many times.

pub mod language;
pub mod lexicon;
pub mod token;
pub mod values;
pub mod word;

use crate::decision::text::language::Language;
use crate::decision::text::lexicon::Lexicon;
use crate::decision::text::token::Token;
use crate::decision::text::values::{Source, Value};
use crate::decision::text::word::WordHash;

/// Words, values and cues of one text.
#[derive(Debug, Clone)]
pub struct Text {
    pub source: String,
    pub language: Option<Language>,
    pub tokens: Vec<Token>,
    pub values: Vec<Value>,
    /// Stems of the words that are compared, with the token's place, sorted.
    pub(crate) stems: Vec<(WordHash, u32)>,
    /// Whether capitals tell names from other words here.
    pub(crate) has_case: bool,
}

impl Text {
    pub fn read(source: &str, lexicon: &Lexicon) -> Self {
        let mut tokens = token::split(source);
        let language = token::language(source, &tokens, lexicon);
        let spoken = language.unwrap_or(Language::English);
        for token in &mut tokens {
            token.word = lexicon.word(spoken, token.hash);
            token.has_opposite = lexicon.has_opposite(token.stem);
            token.word.is_negation |= spoken == Language::English && is_contracted_not(&source[token.start..token.end]);
        }
        let mut reading = Source { text: source, tokens: &mut tokens, lexicon, language: spoken };
        let values = values::scan(&mut reading);
        let mut stems: Vec<_> = tokens
            .iter()
            .enumerate()
            .filter(|(_, token)| !token.is_value && !token.is_volatile)
            .map(|(at, token)| (token.stem, at as u32))
            .collect();
        stems.sort_unstable();
        let has_case = has_case(&tokens);
        Self { source: source.to_owned(), language, tokens, values, stems, has_case }
    }

    pub(crate) fn word(&self, at: usize) -> &str {
        &self.source[self.tokens[at].start..self.tokens[at].end]
    }

    /// Whether a compared word has this stem.
    pub(crate) fn has_stem(&self, stem: WordHash) -> bool {
        self.stems.binary_search_by_key(&stem, |(stem, _)| *stem).is_ok()
    }

    pub(crate) fn spoken(&self) -> Language {
        self.language.unwrap_or(Language::English)
    }

    /// Whether the word is a name as far as its writing tells.
    pub(crate) fn is_name(&self, at: usize) -> bool {
        let token = &self.tokens[at];
        if token.is_value || token.is_volatile || token.word.is_function || token.is_symbol {
            return false;
        }
        let is_written_as_name = self.has_case
            && (token.is_upper || token.is_capital && !token.starts_sentence && self.spoken().has_capital_names());
        let has_mark = token.end > token.start + 1 && self.source.as_bytes()[token.end - 1].is_ascii_punctuation();
        is_written_as_name || token.has_digit || token.is_quoted || has_mark
    }
}

/// Not if most words begin with a capital, as in a headline or where somebody shouts.
fn has_case(tokens: &[Token]) -> bool {
    let words = tokens.iter().filter(|token| !token.is_symbol && !token.has_digit);
    let (all, capital) = words.fold((0, 0), |(all, capital), token| (all + 1, capital + usize::from(token.is_capital)));
    all < 3 || capital * 4 < all * 3
}

fn is_contracted_not(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() > 2 && (bytes.ends_with(b"n't") || bytes.ends_with(b"N'T") || word.ends_with("n’t"))
}
