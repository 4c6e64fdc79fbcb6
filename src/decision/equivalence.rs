//! Do two answers say the same, as far as their words tell?

use super::canonical::FieldHasher;
use super::entry::Answer;
use super::prompt::normalise;
use super::refill;

/// Whether only case, spaces and the mark at the end differ.
pub fn same_words(a: &str, b: &str) -> bool {
    words(a) == words(b)
}

/// Equal for two answers that say the same words; `None` for one that says nothing in words.
pub fn words_digest(answer: &Answer) -> Option<[u8; 32]> {
    let mut hasher = FieldHasher::new("nearhit 2026-11-22 words v1");
    hasher.text(&words(&refill::text(answer)?));
    Some(hasher.finish())
}

fn words(answer: &str) -> String {
    let text = normalise(answer).to_lowercase();
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    joined.trim_end_matches(['.', '!', '。', '！']).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers() {
        let check = |a: &str, b: &str, same: bool| assert_eq!(same_words(a, b), same, "{a:?} {b:?}");
        check("Yes.", "yes", true);
        check("In the  settings.\n", "In the settings", true);
        check("Yes", "No", false);
        check("5", "5.0", false);
        check("5 %", "5", false);
        check("", "", true);
        check("はい。", "はい", true);
        check("Is it?", "Is it", false);
    }

    proptest! {
        #[test]
        fn who_comes_first_does_not_matter(a in "[a-c .!?]{0,6}", b in "[a-c .!?]{0,6}") {
            prop_assert_eq!(same_words(&a, &b), same_words(&b, &a));
            prop_assert!(same_words(&a, &a));
        }
    }
}
