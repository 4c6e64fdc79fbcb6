//! What is known about single words, read once from the word lists.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use crate::decision::text::language::Language;
use crate::decision::text::word::WordHash;

/// Everything the word lists say.
#[derive(Debug)]
pub struct Lexicon {
    words: Table<Word>,
    /// Bit of each language in which this is a function word.
    function: Table<u8>,
    antonyms: Table<()>,
    /// Stems that have an opposite.
    opposed: Table<()>,
    /// Lower-case words that are another word in capitals.
    two_faced: Table<()>,
    inside: Vec<(Language, InsideWords)>,
    units: Vec<String>,
    currencies: HashSet<Unit>,
}

/// What one word is in one language.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Word {
    pub is_function: bool,
    pub is_negation: bool,
    pub is_subject: bool,
    pub is_neutral: bool,
    /// Says after a denial that one is unsure, which denies nothing.
    pub is_unsure: bool,
    /// Says of two things what it says of them the other way round.
    pub is_symmetric: bool,
    /// Puts two things side by side.
    pub is_joining: bool,
    pub is_doubtful: bool,
    pub is_greeting: bool,
    pub is_signature: bool,
    pub direction: Option<Direction>,
    /// Bit of the question word's class.
    pub question: u16,
    /// Bit of the quantifier's class.
    pub quantifier: u32,
    pub number: Option<NumberWord>,
    pub month: u8,
    pub weekday: u8,
    pub unit: Option<Unit>,
    pub clock: Option<Clock>,
    /// One of a closed set of which one excludes the others.
    pub contrast: Option<Contrast>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    From,
    To,
    Than,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NumberWord {
    Plain(f64),
    /// May as well be no number ("which one").
    Soft(f64),
    Power(f64),
    Ordinal(f64),
}

/// A set of words that exclude each other, and which of its members a word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contrast {
    pub set: u8,
    pub member: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    Morning,
    Afternoon,
    Hour,
}

/// A unit of measure or a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Unit(u16);

/// Words of a language that are found inside the text.
#[derive(Debug, Default)]
pub struct InsideWords {
    pub negation: Vec<String>,
    /// Holds a word of `negation` and denies nothing.
    pub neutral: Vec<String>,
    pub quantifier: Vec<(String, u32)>,
    pub question: Vec<(String, u16)>,
    pub units: Vec<(String, Unit)>,
    pub from_after: Vec<String>,
    pub to_after: Vec<String>,
    pub antonyms: Vec<(String, String)>,
}

impl Lexicon {
    /// From the word lists that are compiled in.
    pub fn new() -> Self {
        let mut building = Building::default();
        for language in Language::ALL {
            building.read(language);
        }
        building.finish()
    }

    pub fn word(&self, language: Language, hash: WordHash) -> Word {
        self.words.get(&salted(language, hash)).copied().unwrap_or_default()
    }

    /// One bit for each of [`Language::LATIN`] in which this is a function word.
    pub fn function_languages(&self, hash: WordHash) -> u8 {
        self.function.get(&hash.0).copied().unwrap_or_default()
    }

    pub fn are_antonyms(&self, a: WordHash, b: WordHash) -> bool {
        self.antonyms.contains_key(&together(a, b))
    }

    pub fn has_opposite(&self, stem: WordHash) -> bool {
        self.opposed.contains_key(&stem.0)
    }

    /// Whether capitals make another word of it: US and us.
    pub fn is_two_faced(&self, hash: WordHash) -> bool {
        self.two_faced.contains_key(&hash.0)
    }

    pub fn inside(&self, language: Language) -> Option<&InsideWords> {
        self.inside.iter().find(|(of, _)| *of == language).map(|(_, words)| words)
    }

    pub fn unit_name(&self, unit: Unit) -> &str {
        self.units.get(usize::from(unit.0)).map_or("", String::as_str)
    }

    pub fn is_currency(&self, unit: Unit) -> bool {
        self.currencies.contains(&unit)
    }
}

impl Default for Lexicon {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Default)]
struct Building {
    words: Table<Word>,
    function: Table<u8>,
    antonyms: Table<()>,
    opposed: Table<()>,
    two_faced: Table<()>,
    inside: Vec<(Language, InsideWords)>,
    units: Vec<String>,
    currencies: HashSet<Unit>,
    questions: Vec<String>,
    quantifiers: Vec<String>,
    contrasts: Vec<String>,
    of_language: HashMap<Language, Vec<WordHash>>,
}

impl Building {
    fn read(&mut self, language: Language) {
        let mut inside = InsideWords::default();
        let lines = language.words().lines().filter(|line| !line.starts_with('#'));
        for (class, words) in lines.filter_map(|line| line.split_once(": ")) {
            let (class, key) = class.split_once(' ').unwrap_or((class, ""));
            let words: Vec<&str> = words.split_whitespace().collect();
            if language.is_unspaced() {
                self.read_inside(&mut inside, class, key, &words);
            }
            self.read_line(language, class, key, &words);
        }
        inside.units.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        if language.is_unspaced() {
            self.inside.push((language, inside));
        }
    }

    fn read_inside(&mut self, inside: &mut InsideWords, class: &str, key: &str, words: &[&str]) {
        let owned = || words.iter().map(|word| (*word).to_owned());
        match class {
            "negation" => inside.negation.extend(owned()),
            "neutral" => inside.neutral.extend(owned()),
            "from" | "from-after" => inside.from_after.extend(owned()),
            "to" | "to-after" => inside.to_after.extend(owned()),
            "question" => {
                let bit = self.question(key);
                inside.question.extend(owned().map(|word| (word, bit)));
            }
            "quantifier" => {
                let bit = self.quantifier(key);
                inside.quantifier.extend(owned().map(|word| (word, bit)));
            }
            "unit" => {
                let unit = self.unit(key);
                inside.units.extend(owned().map(|word| (word, unit)));
            }
            "antonym" => {
                if let [a, b] = words {
                    inside.antonyms.push(((*a).to_owned(), (*b).to_owned()));
                }
            }
            _ => {}
        }
    }

    fn read_line(&mut self, language: Language, class: &str, key: &str, words: &[&str]) {
        match class {
            "antonym" => {
                if let [a, b] = words {
                    let (a, b) = (WordHash::of_stem(a), WordHash::of_stem(b));
                    self.antonyms.insert(together(a, b), ());
                    self.opposed.extend([(a.0, ()), (b.0, ())]);
                }
                return;
            }
            "currency" => {
                for word in words {
                    let unit = self.unit(word);
                    self.currencies.insert(unit);
                }
                return;
            }
            "case" => {
                self.two_faced.extend(words.iter().map(|word| (WordHash::of(word).0, ())));
                return;
            }
            "contrast" => {
                self.read_contrast(language, key, words);
                return;
            }
            _ => {}
        }
        let number = key.parse::<f64>().unwrap_or_default();
        let (question, quantifier, unit) = match class {
            "question" => (self.question(key), 0, None),
            "quantifier" => (0, self.quantifier(key), None),
            "unit" => (0, 0, Some(self.unit(key))),
            _ => (0, 0, None),
        };
        for word in words {
            let hash = WordHash::of(word);
            if class == "function" && !language.is_unspaced() {
                *self.function.entry(hash.0).or_default() |= 1 << language as u8;
            }
            self.of_language.entry(language).or_default().push(hash);
            let entry = self.words.entry(salted(language, hash)).or_default();
            match class {
                "function" => entry.is_function = true,
                "negation" | "negation-word" => entry.is_negation = true,
                "subject" => entry.is_subject = true,
                "neutral" => entry.is_neutral = true,
                "unsure" => entry.is_unsure = true,
                "joining" => entry.is_joining = true,
                "symmetric" => entry.is_symmetric = true,
                "doubtful" => entry.is_doubtful = true,
                "greeting" => entry.is_greeting = true,
                "signature" => entry.is_signature = true,
                "from" => entry.direction = Some(Direction::From),
                "to" => entry.direction = Some(Direction::To),
                "than" => entry.direction = Some(Direction::Than),
                "number" => entry.number = Some(NumberWord::Plain(number)),
                "soft" => entry.number = Some(NumberWord::Soft(number)),
                "ordinal" => entry.number = entry.number.or(Some(NumberWord::Ordinal(number))),
                "power" => entry.number = Some(NumberWord::Power(number)),
                "month" => entry.month = number as u8,
                "weekday" => entry.weekday = number as u8,
                "clock" if key == "am" => entry.clock = Some(Clock::Morning),
                "clock" if key == "pm" => entry.clock = Some(Clock::Afternoon),
                "clock" => entry.clock = Some(Clock::Hour),
                _ => {}
            }
            entry.question |= question;
            entry.quantifier |= quantifier;
            entry.unit = entry.unit.or(unit);
        }
    }

    /// A word stands in the first set that names it. `a=b` is one member.
    fn read_contrast(&mut self, language: Language, key: &str, words: &[&str]) {
        let set = position(&mut self.contrasts, key) as u8;
        for (member, spellings) in words.iter().enumerate() {
            for spelling in spellings.split('=') {
                let entry = self.words.entry(salted(language, WordHash::of(spelling))).or_default();
                entry.contrast = entry.contrast.or(Some(Contrast { set, member: member as u8 }));
            }
        }
    }

    /// Units, months and number words of English are understood in every language that has no such word itself.
    fn finish(mut self) -> Lexicon {
        let english = self.of_language.get(&Language::English).cloned().unwrap_or_default();
        for hash in english {
            let word = self.words.get(&salted(Language::English, hash)).copied().unwrap_or_default();
            let Word { number, month, weekday, unit, clock, is_doubtful, .. } = word;
            let lent = Word { number, month, weekday, unit, clock, is_doubtful, ..Word::default() };
            if lent == Word::default() {
                continue;
            }
            for language in Language::ALL {
                self.words.entry(salted(language, hash)).or_insert(lent);
            }
        }
        let Self { words, function, antonyms, opposed, two_faced, inside, units, currencies, .. } = self;
        Lexicon { words, function, antonyms, opposed, two_faced, inside, units, currencies }
    }

    fn question(&mut self, key: &str) -> u16 {
        1 << (position(&mut self.questions, key) % 16)
    }

    fn quantifier(&mut self, key: &str) -> u32 {
        1 << (position(&mut self.quantifiers, key) % 32)
    }

    fn unit(&mut self, key: &str) -> Unit {
        Unit(position(&mut self.units, key) as u16)
    }
}

fn position(names: &mut Vec<String>, key: &str) -> usize {
    names.iter().position(|name| name == key).unwrap_or_else(|| {
        names.push(key.to_owned());
        names.len() - 1
    })
}

/// The same for both orders.
fn together(a: WordHash, b: WordHash) -> u64 {
    a.min(b).0.rotate_left(7) ^ a.max(b).0
}

fn salted(language: Language, hash: WordHash) -> u64 {
    hash.0.rotate_left(language as u32 + 1)
}

type Table<V> = HashMap<u64, V, BuildHasherDefault<Hashed>>;

/// The keys are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, key: u64) {
        // The table takes its bucket from the low bits and its tag from the high ones.
        self.0 = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        let lexicon = Lexicon::new();
        let word = |language, text| lexicon.word(language, WordHash::of(text));
        assert!(word(Language::English, "not").is_negation);
        assert!(!word(Language::German, "not").is_negation);
        assert!(word(Language::German, "NICHT").is_negation);
        assert_eq!(word(Language::French, "km").unit, word(Language::English, "kilometers").unit);
        assert_eq!(word(Language::German, "märz").month, 3);
        assert_eq!(word(Language::English, "two").number, Some(NumberWord::Plain(2.0)));
        assert!(lexicon.are_antonyms(WordHash::of_stem("opened"), WordHash::of_stem("closing")));
        assert!(lexicon.are_antonyms(WordHash::of_stem("cerrada"), WordHash::of_stem("abiertos")));
        assert!(!lexicon.are_antonyms(WordHash::of_stem("open"), WordHash::of_stem("opening")));
        assert!(lexicon.inside(Language::Korean).is_some_and(|words| !words.antonyms.is_empty()));
    }
}
