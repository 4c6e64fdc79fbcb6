//! Text as words.
//!
//! A word is a run of letters and digits of one script; each Chinese character and each Japanese syllable outside
//! katakana is one. Operators that carry meaning between numbers are words too; other punctuation is none.

use crate::decision::text::language::Language;
use crate::decision::text::lexicon::{Lexicon, Word};
use crate::decision::text::word::{WordHash, is_han, is_hangul, is_kana};

/// One word and where it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Token {
    pub start: usize,
    pub end: usize,
    pub hash: WordHash,
    pub stem: WordHash,
    pub word: Word,
    /// Begins with a capital letter.
    pub is_capital: bool,
    /// Two or more letters, all capitals.
    pub is_upper: bool,
    pub has_digit: bool,
    pub is_symbol: bool,
    pub starts_sentence: bool,
    /// Stands in quotation marks or is code.
    pub is_quoted: bool,
    /// Some word is its opposite.
    pub has_opposite: bool,
    /// Belongs to a value that is compared as a whole.
    pub is_value: bool,
    /// Never decides: a name in a greeting or under a letter.
    pub is_volatile: bool,
}

/// The words of `text`, without what the word lists say of them.
pub fn split(text: &str) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(text.len() / 5 + 2);
    let mut rest = 0;
    let mut starts_sentence = true;
    while let Some(letter) = text[rest..].chars().next() {
        let class = Class::of(letter);
        if class == Class::Gap {
            starts_sentence |= matches!(letter, '.' | '!' | '?' | ':' | '\n' | '。' | '！' | '？' | '¿' | '¡');
            rest += letter.len_utf8();
            continue;
        }
        let end = match class {
            Class::Single => rest + letter.len_utf8(),
            Class::Symbol => {
                let end = rest + letter.len_utf8();
                if !is_operator(text, rest, end, letter) {
                    rest = end;
                    continue;
                }
                end
            }
            _ => end_of_word(text, rest, class),
        };
        tokens.push(token(text, rest, end, class, starts_sentence));
        starts_sentence = false;
        rest = end;
    }
    tokens
}

/// The language that most function words speak for, or the script; `None` if nothing tells.
pub fn language(text: &str, tokens: &[Token], lexicon: &Lexicon) -> Option<Language> {
    let (mut han, mut kana, mut hangul) = (0, 0, 0);
    if !text.is_ascii() {
        for letter in text.chars() {
            han += usize::from(is_han(letter));
            kana += usize::from(is_kana(letter));
            hangul += usize::from(is_hangul(letter));
        }
        let letters = text.chars().filter(|letter| letter.is_alphabetic()).count();
        if (han + kana + hangul) * 3 > letters {
            return Some(match (kana, hangul) {
                (0, 0) => Language::Chinese,
                (kana, hangul) if kana >= hangul => Language::Japanese,
                _ => Language::Korean,
            });
        }
    }
    let mut votes = [0u32; Language::LATIN.len()];
    for token in tokens {
        let bits = lexicon.function_languages(token.hash);
        // A word that several languages share tells little.
        let weight = 4 / bits.count_ones().max(1);
        for (vote, language) in votes.iter_mut().zip(Language::LATIN) {
            *vote += if bits & 1 << language as u8 != 0 { weight } else { 0 };
        }
    }
    let mut best = 0;
    for (index, vote) in votes.iter().enumerate() {
        if *vote > votes[best] {
            best = index;
        }
    }
    (votes[best] > 0).then(|| Language::LATIN[best])
}

fn token(text: &str, start: usize, end: usize, class: Class, starts_sentence: bool) -> Token {
    let word = &text[start..end];
    let bare = bare(word);
    let capitals = bare.chars().filter(|letter| letter.is_uppercase()).count();
    let letters = bare.chars().filter(|letter| letter.is_alphabetic()).count();
    Token {
        start,
        end,
        hash: WordHash::of(word),
        stem: WordHash::of_stem(bare),
        word: Word::default(),
        is_capital: word.chars().next().is_some_and(char::is_uppercase),
        is_upper: capitals >= 2 && capitals == letters,
        has_digit: word.bytes().any(|byte| byte.is_ascii_digit()),
        is_symbol: class == Class::Symbol,
        starts_sentence,
        is_quoted: false,
        has_opposite: false,
        is_value: false,
        is_volatile: false,
    }
}

/// Without an English ending behind an apostrophe.
fn bare(word: &str) -> &str {
    let at = word.find(['\'', '’']).unwrap_or(word.len());
    if at == 0 { word } else { &word[..at] }
}

fn end_of_word(text: &str, start: usize, class: Class) -> usize {
    let mut end = start;

    for (at, letter) in text[start..].char_indices() {
        let joins = Class::of(letter) == class
            || matches!(letter, '\'' | '’') && class == Class::Letter && is_english_ending(&text[start + at..]);
        if !joins {
            break;
        }
        end = start + at + letter.len_utf8();
    }
    let rest = &text[end..];
    match class {
        Class::Letter if rest.starts_with("++") => end + 2,
        Class::Letter if rest.starts_with('#') && !rest[1..].starts_with(char::is_alphanumeric) => end + 1,
        _ => end,
    }
}

/// `text` begins with an apostrophe: whether an English contraction follows.
fn is_english_ending(text: &str) -> bool {
    let rest = text.trim_start_matches(['\'', '’']);
    let ending: &str = &rest[..rest.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(rest.len())];
    ENDINGS.iter().any(|known| known.eq_ignore_ascii_case(ending))
}

fn is_operator(text: &str, start: usize, end: usize, letter: char) -> bool {
    let before = text[..start].chars().next_back();
    let after = text[end..].chars().next();
    let digit = |side: Option<char>| side.is_some_and(|c| c.is_ascii_digit());
    let space = |side: Option<char>| side.is_some_and(char::is_whitespace);
    match letter {
        '-' | '/' => digit(before) && digit(after) || space(before) && space(after),
        _ => true,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Hangul,
    Katakana,
    Single,
    Symbol,
    Gap,
}

impl Class {
    fn of(letter: char) -> Self {
        match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => Class::Letter,
            '+' | '*' | '^' | '=' | '<' | '>' | '×' | '÷' | '−' | '-' | '/' | '≤' | '≥' | '≠' | '√' => {
                Class::Symbol
            }
            _ if letter.is_ascii() => Class::Gap,
            '\u{30a0}'..='\u{30ff}' | '\u{ff66}'..='\u{ff9f}' => Class::Katakana,
            _ if is_hangul(letter) => Class::Hangul,
            _ if is_han(letter) || is_kana(letter) => Class::Single,
            _ if letter.is_alphanumeric() || is_combining(letter) => Class::Letter,
            _ => Class::Gap,
        }
    }
}

fn is_combining(letter: char) -> bool {
    matches!(letter, '\u{300}'..='\u{36f}' | '\u{900}'..='\u{dff}' | '\u{e31}'..='\u{e4e}')
}

const ENDINGS: [&str; 8] = ["s", "t", "re", "ll", "ve", "m", "d", "clock"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitting() {
        fn check(text: &str, expected: &[&str]) {
            let words: Vec<&str> = split(text).iter().map(|token| &text[token.start..token.end]).collect();
            assert_eq!(words, expected);
        }
        check("Don't l'ordre, what's up?", &["Don't", "l", "ordre", "what's", "up"]);
        check("C++ or C# (not C)", &["C++", "or", "C#", "not", "C"]);
        check("1 + 2-3 well-known", &["1", "+", "2", "-", "3", "well", "known"]);
        check("东京 カタカナです 서울에서 10월", &["东", "京", "カタカナ", "で", "す", "서울에서", "10", "월"]);
        check("", &[]);
    }

    #[test]
    fn languages() {
        let lexicon = Lexicon::new();
        let check = |text: &str, expected: Option<Language>| {
            assert_eq!(language(text, &split(text), &lexicon), expected, "{text}");
        };
        check("How do I change my address?", Some(Language::English));
        check("Wie ändere ich meine Adresse?", Some(Language::German));
        check("Comment changer mon adresse ?", Some(Language::French));
        check("¿Cómo puedo cambiar mi dirección?", Some(Language::Spanish));
        check("如何更改地址", Some(Language::Chinese));
        check("住所を変更したい", Some(Language::Japanese));
        check("주소를 바꾸고 싶어요", Some(Language::Korean));
        check("xyzzy", None);
    }
}
