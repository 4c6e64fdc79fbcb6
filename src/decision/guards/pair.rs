//! Two texts side by side: which words does only one of them have?

use crate::decision::text::Text;
use crate::decision::text::lexicon::Lexicon;
use crate::decision::text::token::Token;
use crate::decision::text::values::{Kind, Value};

/// A new text and one that was answered before, with their differences.
pub struct Pair<'a> {
    pub new: &'a Text,
    pub old: &'a Text,
    pub(crate) lexicon: &'a Lexicon,
    /// Places of the words that the other text lacks.
    pub(crate) only_new: Vec<usize>,
    pub(crate) only_old: Vec<usize>,
    /// Words of meaning that both have.
    pub(crate) shared: usize,
    /// Words in one of which the other is turned into its opposite.
    pub(crate) opposites: usize,
}

/// How much of something only one side has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sides {
    pub new: usize,
    pub old: usize,
}

impl Sides {
    pub const fn both(self) -> bool {
        self.new > 0 && self.old > 0
    }

    pub const fn any(self) -> bool {
        self.new > 0 || self.old > 0
    }
}

impl<'a> Pair<'a> {
    pub fn new(new: &'a Text, old: &'a Text, lexicon: &'a Lexicon) -> Self {
        let mut pair = Self { new, old, lexicon, only_new: Vec::new(), only_old: Vec::new(), shared: 0, opposites: 0 };
        pair.subtract();
        pair.match_opposites();
        pair.match_spellings();
        pair
    }

    /// Words of meaning that only one side has.
    pub fn content(&self) -> Sides {
        let count = |text: &Text, only: &[usize]| only.iter().filter(|at| is_content(text, **at)).count();
        Sides { new: count(self.new, &self.only_new), old: count(self.old, &self.only_old) }
    }

    /// Words without a meaning of their own that only one side has.
    pub fn function_words(&self) -> usize {
        let count = |text: &Text, only: &[usize]| only.iter().filter(|at| !is_content(text, **at)).count();
        count(self.new, &self.only_new) + count(self.old, &self.only_old)
    }

    /// Two long texts that share less than half of their words of meaning: one story told twice, where a number or a
    /// denial more is often only more said.
    pub fn is_retold(&self) -> bool {
        let Sides { new, old } = self.content();
        let is_long = self.new.tokens.len() > LONG && self.old.tokens.len() > LONG;
        is_long && self.shared < new + old
    }

    /// Values of some kinds that only one side has. A soft value may be missing.
    pub(crate) fn values(&self, is_wanted: impl Fn(Kind) -> bool, equals: impl Fn(&Value, &Value) -> bool) -> Sides {
        if self.new.values.is_empty() && self.old.values.is_empty() {
            return Sides::default();
        }
        let (mut new, mut old) = (0, 0);
        let mut taken = 0u64;
        for value in self.new.values.iter().filter(|value| is_wanted(value.kind)) {
            let twin = self
                .old
                .values
                .iter()
                .take(64)
                .enumerate()
                .find(|(at, other)| taken & 1 << at == 0 && equals(value, other));
            match twin {
                Some((at, _)) => taken |= 1 << at,
                None => new += usize::from(!value.is_soft),
            }
        }
        for (at, value) in self.old.values.iter().enumerate().filter(|(_, value)| is_wanted(value.kind)) {
            old += usize::from((at >= 64 || taken & 1 << at == 0) && !value.is_soft);
        }
        Sides { new, old }
    }

    /// Merges the sorted stems.
    fn subtract(&mut self) {
        let (new, old) = (&self.new.stems, &self.old.stems);
        let (mut i, mut j) = (0, 0);
        while i < new.len() || j < old.len() {
            match (new.get(i), old.get(j)) {
                (Some(a), Some(b)) if a.0 == b.0 => {
                    self.shared += usize::from(is_content(self.new, a.1 as usize));
                    (i, j) = (i + 1, j + 1);
                }
                (Some(a), b) if b.is_none_or(|b| a.0 < b.0) => {
                    self.only_new.push(a.1 as usize);
                    i += 1;
                }
                (_, Some(b)) => {
                    self.only_old.push(b.1 as usize);
                    j += 1;
                }
                _ => break,
            }
        }
        self.only_new.sort_unstable();
        self.only_old.sort_unstable();
    }

    fn match_opposites(&mut self) {
        if let Some(inside) = self.lexicon.inside(self.new.spoken()).filter(|_| self.new.language == self.old.language)
        {
            let turned = |x: &str, y: &str| {
                let (new, old) = (&self.new.source, &self.old.source);
                new.contains(x) && !old.contains(x) && old.contains(y) && !new.contains(y)
            };
            // One opposite is often written within another.
            self.opposites = usize::from(inside.antonyms.iter().any(|(x, y)| turned(x, y) || turned(y, x)));
            return;
        }
        let is_turned = |a: usize, b: usize| {
            self.are_opposites(&self.new.tokens[a], &self.old.tokens[b])
                || is_negated(self.new.word(a), self.old.word(b))
        };
        let (new, old) = (self.only_new.iter().take(MOST), self.only_old.iter().take(MOST));
        let turned_new = new.clone().filter(|a| old.clone().any(|b| is_turned(**a, *b))).count();
        let turned_old = old.clone().filter(|b| new.clone().any(|a| is_turned(*a, **b))).count();
        // One that is said twice on one side turns once.
        self.opposites = turned_new.min(turned_old);
    }

    /// A word and its misspelling are one word.
    fn match_spellings(&mut self) {
        let mut at = 0;
        while at < self.only_new.len().min(MOST) {
            let a = self.only_new[at];
            let twin = self.only_old.iter().take(MOST).position(|b| self.is_same_word(a, *b));
            match twin {
                Some(b) => {
                    self.only_new.remove(at);
                    self.only_old.remove(b);
                    self.shared += 1;
                }
                None => at += 1,
            }
        }
    }

    fn are_opposites(&self, x: &Token, y: &Token) -> bool {
        x.has_opposite && y.has_opposite && self.lexicon.are_antonyms(x.stem, y.stem)
    }

    fn is_same_word(&self, a: usize, b: usize) -> bool {
        let (x, y) = (&self.new.tokens[a], &self.old.tokens[b]);
        if x.has_digit || y.has_digit || x.is_symbol || y.is_symbol {
            return false;
        }
        let (word, other) = (self.new.word(a), self.old.word(b));
        if word.len().abs_diff(other.len()) > ENDING_MOST || !begins_alike(word.as_bytes(), other.as_bytes()) {
            return false;
        }
        let is_name = self.new.is_name(a) && self.old.is_name(b);
        let is_turned = self.are_opposites(x, y) || is_negated(word, other);
        !is_turned && (is_misspelt(word, other, is_name) || !is_name && is_derived(word, other))
    }
}

pub(crate) fn is_content(text: &Text, at: usize) -> bool {
    let token = &text.tokens[at];
    let word = &token.word;
    !(word.is_function || word.is_negation || token.is_value || word.question != 0 || token.is_symbol)
}

/// One is the other with a prefix or an ending that denies it.
pub(crate) fn is_negated(a: &str, b: &str) -> bool {
    let (long, short) = if a.len() > b.len() { (a, b) } else { (b, a) };
    let (long, short) = (long.as_bytes(), short.as_bytes());
    if short.len() < 3 || long.len() < short.len() + 2 {
        return false;
    }
    let extra = long.len() - short.len();
    let is_prefixed = long[extra..].eq_ignore_ascii_case(short)
        && DENYING.iter().any(|prefix| long[..extra].eq_ignore_ascii_case(prefix.as_bytes()));
    // careful, careless; hope, hopeless
    let stem = short.strip_suffix(b"ful").unwrap_or(short);
    let is_without = long.len() == stem.len() + 4
        && long[..stem.len()].eq_ignore_ascii_case(stem)
        && long[stem.len()..].eq_ignore_ascii_case(b"less");
    is_prefixed || is_without
}

/// Hardly anybody misspells the first letter, unless by exchanging it with the second.
fn begins_alike(a: &[u8], b: &[u8]) -> bool {
    let [first, second] = [0, 1].map(|at| a.get(at).map(u8::to_ascii_lowercase));
    let [other, next] = [0, 1].map(|at| b.get(at).map(u8::to_ascii_lowercase));
    first == other || first == next && second == other
}

fn is_derived(a: &str, b: &str) -> bool {
    let (long, short) = if a.len() > b.len() { (a, b) } else { (b, a) };
    let extra = long.len() - short.len();
    short.len() >= 5
        && (1..=ENDING_MOST).contains(&extra)
        && long.as_bytes()[..short.len()].eq_ignore_ascii_case(short.as_bytes())
}

/// One letter too many, too few, changed, or two exchanged.
fn is_misspelt(a: &str, b: &str, is_name: bool) -> bool {
    let (long, short) = if a.len() >= b.len() { (a.as_bytes(), b.as_bytes()) } else { (b.as_bytes(), a.as_bytes()) };
    if short.len() < 4 || long.len() - short.len() > 1 {
        return false;
    }
    let same = |x: &u8, y: &u8| x.eq_ignore_ascii_case(y);
    let head = long.iter().zip(short).take_while(|(x, y)| same(x, y)).count();
    let tail = long[head..].iter().rev().zip(short[head..].iter().rev()).take_while(|(x, y)| same(x, y)).count();
    let (left, right) = (long.len() - head - tail, short.len() - head - tail);
    match (left, right) {
        (1, 0) => short.len() >= 5 && !is_name,
        (1, 1) => short.len() >= if is_name { 9 } else { 6 },
        (2, 2) => same(&long[head], &short[head + 1]) && same(&long[head + 1], &short[head]),
        (0, 0) => true,
        _ => false,
    }
}

const DENYING: [&str; 12] = ["un", "in", "im", "ir", "il", "non", "dis", "de", "nicht", "dés", "des", "mis"];

/// Tokens.
const LONG: usize = 16;

/// Letters that an ending may add.
const ENDING_MOST: usize = 4;

/// Differences beyond this many words are only counted.
const MOST: usize = 24;
