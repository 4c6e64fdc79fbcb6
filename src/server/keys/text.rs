//! A key as its owner holds it: `nh_<id>_<secret><check>`, one word that fits into a URL.
//!
//! The id is public and finds the key's record. The secret is 256 random bits. The check tells a key that was copied
//! wrongly from one that is not known, and a scanner for secrets a key from a word that looks like one.

use std::fmt;

use blake3::Hash;

/// A key in clear. It can be shown on purpose and in no other way: it has no `Debug`, `Display` or `Serialize`.
pub struct KeyText(String);

impl KeyText {
    /// A key that nobody has yet.
    ///
    /// # Errors
    /// The machine gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let (mut id, mut secret) = ([0; 4], [0; 32]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        let unchecked = format!("{PREFIX}{:08x}_{}", u32::from_be_bytes(id), Hash::from_bytes(secret).to_hex());
        let check = check_of(unchecked.as_bytes());
        Ok(Self(format!("{unchecked}{check}")))
    }

    pub fn id(&self) -> KeyId {
        KeyId(self.0[ID].to_owned())
    }

    /// All of it that is ever kept.
    pub fn hash(&self) -> Hash {
        blake3::hash(self.0.as_bytes())
    }

    /// The key itself, for its owner.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// The public part of a key: 8 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(String);

impl KeyId {
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == ID.len() && is_hex(text.as_bytes())).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id in a text that has a key's form; `None` for any other text.
pub(super) fn id_of(text: &[u8]) -> Option<KeyId> {
    let is_key = text.len() == LENGTH
        && text.starts_with(PREFIX.as_bytes())
        && text[ID.end] == b'_'
        && is_hex(&text[ID])
        && is_hex(&text[ID.end + 1..])
        && text[CHECK_START..] == *check_of(&text[..CHECK_START]).as_bytes();
    is_key.then(|| KeyId(text[ID].iter().map(|b| char::from(*b)).collect()))
}

fn check_of(unchecked: &[u8]) -> String {
    blake3::hash(unchecked).to_hex()[..LENGTH - CHECK_START].to_owned()
}

fn is_hex(text: &[u8]) -> bool {
    text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// What every key of nearhit's own begins with.
pub(in crate::server) const PREFIX: &str = "nh_";

const ID: std::ops::Range<usize> = 3..11;

/// After prefix, id, an underscore and 64 digits of secret.
const CHECK_START: usize = 76;

/// Characters of a key.
pub(super) const LENGTH: usize = 84;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_word_and_never_the_same() {
        let (one, other) = (KeyText::random().expect("a key"), KeyText::random().expect("a key"));
        for key in [&one, &other] {
            assert_eq!(key.reveal().len(), LENGTH);
            assert!(key.reveal().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
            assert_eq!(id_of(key.reveal().as_bytes()), Some(key.id()));
            assert_eq!(KeyId::parse(key.id().as_str()), Some(key.id()));
        }
        assert_ne!(one.reveal()[12..76], other.reveal()[12..76]);
        assert_ne!(one.hash(), other.hash());
    }

    #[test]
    fn ids() {
        for (text, is_id) in
            [("0123abcd", true), ("0123ABCD", false), ("0123abc", false), ("0123abcg", false), ("", false)]
        {
            assert_eq!(KeyId::parse(text).is_some(), is_id, "{text}");
        }
    }
}
