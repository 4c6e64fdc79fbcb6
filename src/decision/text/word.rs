//! One word as a number: what two spellings of it share.
//!
//! Hashes stand for words everywhere behind this file, so that comparing texts compares integers. The stem is crude on
//! purpose: it only has to be the same for the forms of one word, and need not be a word itself.

/// Hash of a word in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct WordHash(pub u64);

impl WordHash {
    pub fn of(word: &str) -> Self {
        let mut hash = OFFSET;
        if word.is_ascii() {
            word.bytes().for_each(|byte| hash = mix(hash, byte.to_ascii_lowercase()));
        } else {
            let mut buffer = [0; 4];
            for letter in word.chars().flat_map(char::to_lowercase) {
                letter.encode_utf8(&mut buffer).bytes().for_each(|byte| hash = mix(hash, byte));
            }
        }
        Self(hash)
    }

    /// Of the word without the ending that its grammar gave it.
    pub fn of_stem(word: &str) -> Self {
        if !word.is_ascii() || word.len() > LONGEST {
            return Self::of(foreign_stem(word));
        }
        let mut letters = [0; LONGEST];
        let letters = &mut letters[..word.len()];
        letters.copy_from_slice(word.as_bytes());
        letters.make_ascii_lowercase();
        Self(stem(letters).iter().fold(OFFSET, |hash, byte| mix(hash, *byte)))
    }
}

/// English endings; what is left has at least three letters.
fn stem(word: &[u8]) -> &[u8] {
    let word = strip(word, b"'s", 1);
    if word.len() < 4 || word.iter().any(u8::is_ascii_digit) {
        return word;
    }
    let word = match word {
        [.., b's', b's'] | [.., b'u', b's'] | [.., b'i', b's'] => word,
        [rest @ .., b'i', b'e', b's'] if rest.len() > 1 => return rest,
        [rest @ .., b'e', b's'] if ends_hissing(rest) => rest,
        [rest @ .., b's'] => rest,
        _ => word,
    };
    let word = match word {
        [rest @ .., b'i', b'n', b'g'] if rest.len() > 2 => undouble(rest),
        [rest @ .., b'e', b'd'] if rest.len() > 2 => undouble(rest),
        [rest @ .., b'l', b'y'] if rest.len() > 3 => rest,
        _ => undouble(word),
    };
    match word {
        [rest @ .., b'e' | b'y' | b'i' | b'a' | b'o'] if rest.len() > 2 => rest,
        _ => word,
    }
}

fn ends_hissing(word: &[u8]) -> bool {
    matches!(word, [.., b's' | b'x' | b'z'] | [.., b's' | b'c', b'h'])
}

fn undouble(word: &[u8]) -> &[u8] {
    match word {
        [.., a, b] if a == b && word.len() > 3 => &word[..word.len() - 1],
        _ => word,
    }
}

fn strip<'a>(word: &'a [u8], ending: &[u8], least: usize) -> &'a [u8] {
    word.strip_suffix(ending).filter(|rest| rest.len() >= least).unwrap_or(word)
}

/// Plural and gender of Romance and German words; the particles of Korean.
fn foreign_stem(word: &str) -> &str {
    let letters = word.chars().count();
    let is_hangul = word.chars().next().is_some_and(is_hangul);
    let endings: &[&str] = if is_hangul { &KOREAN_PARTICLES } else { &["es", "s", "e", "a", "o", "en"] };
    let least = if is_hangul { 1 } else { 3 };
    endings
        .iter()
        .filter_map(|ending| word.strip_suffix(ending).filter(|_| letters - ending.chars().count() >= least))
        .min_by_key(|rest| rest.len())
        .unwrap_or(word)
}

pub(crate) fn is_hangul(letter: char) -> bool {
    matches!(letter, '\u{ac00}'..='\u{d7a3}' | '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}')
}

pub(crate) fn is_kana(letter: char) -> bool {
    matches!(letter, '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{ff66}'..='\u{ff9f}')
}

pub(crate) fn is_han(letter: char) -> bool {
    matches!(letter, '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

const fn mix(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3)
}

/// FNV-1a, 64 bits.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// Longer words are compared whole.
const LONGEST: usize = 40;

const KOREAN_PARTICLES: [&str; 17] =
    ["은", "는", "이", "가", "을", "를", "에", "의", "로", "으로", "에서", "까지", "도", "과", "와", "하고", "부터"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_word() {
        fn check(a: &str, b: &str, same: bool) {
            assert_eq!(WordHash::of_stem(a) == WordHash::of_stem(b), same, "{a} and {b}");
        }
        check("cancel", "cancelling", true);
        check("change", "Changed", true);
        check("city", "cities", true);
        check("box", "boxes", true);
        check("class", "classes", true);
        check("Ada's", "Ada", true);
        check("abierto", "abiertas", true);
        check("학교에서", "학교", true);
        check("bus", "bu", false);
        check("bee", "be", false);
        check("iphone6", "iphone7", false);
    }
}
