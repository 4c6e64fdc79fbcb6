//! Which keys there are, and is one of them what a caller shows? Pure: the time comes in.

use std::collections::{BTreeSet, HashMap};

use blake3::Hash;
use serde::{Deserialize, Serialize};

use super::text::{KeyId, LENGTH, id_of};
use crate::decision::Tenant;

/// What a key is for. None contains another but `Write`, which contains `Read`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyScope {
    /// Searching and reading the tenant's own entries and statistics.
    Read,
    /// That, inserting, feedback, deleting one entry, and calls to providers.
    Write,
    /// Flushing and deleting many entries of the tenant, and the admin listener.
    Admin,
}

impl KeyScope {
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }
}

/// The name that an operator gives to a tenant: `[a-z0-9][a-z0-9_-]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantName(String);

impl TenantName {
    pub fn parse(name: &str) -> Option<Self> {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let is_valid = name.len() <= 64
            && name.bytes().next().is_some_and(is_plain)
            && name.bytes().all(|b| is_plain(b) || b == b'_' || b == b'-');
        is_valid.then(|| Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Never the tenant of a provider's key, nor of callers without one: no other tenant has a colon in its name.
    pub fn tenant(&self) -> Tenant {
        Tenant::new(format!("tenant:{}", self.0))
    }
}

/// What a name of a tenant must be, for messages.
pub const TENANT_NAME_PROBLEM: &str = "must be 1 to 64 of a-z, 0-9, _ and -, the first a letter or digit";

/// All that is known of a key. The key itself is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    pub id: KeyId,
    /// BLAKE3 of the whole key.
    pub hash: Hash,
    pub tenant: TenantName,
    pub scopes: BTreeSet<KeyScope>,
    pub created_ms: Option<u64>,
    pub expires_ms: Option<u64>,
    pub revoked_ms: Option<u64>,
}

impl KeyRecord {
    pub fn is_valid_at(&self, now_ms: u64) -> bool {
        self.revoked_ms.is_none() && self.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)
    }

    pub fn allows(&self, scope: KeyScope) -> bool {
        self.scopes.contains(&scope) || scope == KeyScope::Read && self.scopes.contains(&KeyScope::Write)
    }
}

/// Keys by their ids.
#[derive(Debug, Default)]
pub struct KeyRing(HashMap<KeyId, KeyRecord>);

impl KeyRing {
    /// Of two records with one id the first counts.
    pub fn new(records: impl IntoIterator<Item = KeyRecord>) -> Self {
        let mut ring = HashMap::new();
        for record in records {
            ring.entry(record.id.clone()).or_insert(record);
        }
        Self(ring)
    }

    /// No key was ever given, not even one that is no longer valid.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a key for the admin listener was ever given.
    pub fn has_admin_key(&self) -> bool {
        self.0.values().any(|record| record.allows(KeyScope::Admin))
    }

    pub(super) fn of(&self, id: &KeyId) -> Option<&KeyRecord> {
        self.0.get(id)
    }

    /// The record of the key that `shown` is, if it is valid. Whatever is shown, one hash of a key's length is computed and
    /// compared in constant time: how long it takes says nothing of how near it was.
    pub fn check(&self, shown: &[u8], now_ms: u64) -> Option<&KeyRecord> {
        let id = id_of(shown);
        let nothing = [b'0'; LENGTH];
        let hash = blake3::hash(if id.is_some() { shown } else { &nothing });
        let record = id.as_ref().and_then(|id| self.0.get(id));
        let expected = record.map_or(Hash::from_bytes([0; 32]), |record| record.hash);
        // `Hash` compares in constant time.
        let is_same = hash == expected;
        record.filter(|record| is_same && record.is_valid_at(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::KeyText;
    use super::*;

    fn record(key: &KeyText) -> KeyRecord {
        KeyRecord {
            id: key.id(),
            hash: key.hash(),
            tenant: TenantName::parse("acme").expect("a name"),
            scopes: [KeyScope::Read].into(),
            created_ms: None,
            expires_ms: None,
            revoked_ms: None,
        }
    }

    #[test]
    fn a_key_is_valid_until_it_expires_or_is_revoked() {
        let keys: Vec<KeyText> = (0..3).map(|_| KeyText::random().expect("a key")).collect();
        let ring = KeyRing::new([
            record(&keys[0]),
            KeyRecord { expires_ms: Some(10), ..record(&keys[1]) },
            KeyRecord { revoked_ms: Some(1), ..record(&keys[2]) },
        ]);
        let check = |key: usize, now_ms: u64, is_valid: bool| {
            let found = ring.check(keys[key].reveal().as_bytes(), now_ms);
            assert_eq!(found.map(|record| &record.id), is_valid.then(|| keys[key].id()).as_ref(), "{key} at {now_ms}");
        };
        check(0, 0, true);
        check(0, u64::MAX, true);
        check(1, 9, true);
        check(1, 10, false);
        check(2, 0, false);
        assert!(KeyRing::default().check(keys[0].reveal().as_bytes(), 0).is_none());
    }

    #[test]
    fn scopes_contain_what_they_say() {
        let key = KeyText::random().expect("a key");
        for (given, allowed) in [
            (KeyScope::Read, vec![KeyScope::Read]),
            (KeyScope::Write, vec![KeyScope::Read, KeyScope::Write]),
            (KeyScope::Admin, vec![KeyScope::Admin]),
        ] {
            let record = KeyRecord { scopes: [given].into(), ..record(&key) };
            let found: Vec<_> = KeyScope::ALL.into_iter().filter(|scope| record.allows(*scope)).collect();
            assert_eq!(found, allowed, "{given:?}");
            assert_eq!(KeyScope::parse(given.as_str()), Some(given));
        }
    }

    /// A key that is almost right is wrong, whatever is wrong with it.
    #[test]
    fn no_mutated_key_is_accepted() {
        let keys: Vec<KeyText> = (0..50).map(|_| KeyText::random().expect("a key")).collect();
        let ring = KeyRing::new(keys.iter().map(record));
        let texts: Vec<&[u8]> = keys.iter().map(|key| key.reveal().as_bytes()).collect();
        assert!(texts.iter().all(|text| ring.check(text, 0).is_some()), "unchanged they are accepted");
        let mut random = fastrand::Rng::with_seed(7);
        let mut accepted = 0;
        for kind in (0..MUTATIONS.len()).cycle().take(100_000) {
            let text = texts[random.usize(..texts.len())];
            let other = texts[random.usize(..texts.len())];
            let mutated = MUTATIONS[kind](text, other, &mut random);
            if !texts.contains(&mutated.as_slice()) {
                accepted += usize::from(ring.check(&mutated, 0).is_some());
            }
        }
        println!("100000 mutated keys in {} ways: {accepted} accepted", MUTATIONS.len());
        assert_eq!(accepted, 0);
    }

    type Mutation = fn(&[u8], &[u8], &mut fastrand::Rng) -> Vec<u8>;

    const MUTATIONS: &[Mutation] = &[
        // One bit, one byte, one digit with a check that is right again.
        |text, _, random| with_byte(text, random, |b, random| b ^ (1 << random.u8(..8))),
        |text, _, random| with_byte(text, random, |_, random| random.u8(..)),
        |text, _, random| checked_again(with_byte(&text[12..76], random, |_, random| HEX[random.usize(..16)]), text),
        // Cut off, at either end; longer, at either end; twice.
        |text, _, random| text[..random.usize(..text.len())].to_vec(),
        |text, _, random| text[random.usize(1..text.len())..].to_vec(),
        |text, _, random| [text, &[random.u8(..)]].concat(),
        |text, _, _| [text, b" "].concat(),
        |text, _, _| [text, b"\0"].concat(),
        |text, _, _| [b" ", text].concat(),
        |text, _, _| [text, text].concat(),
        |text, other, _| [text, b",", other].concat(),
        // In other letters, or as another encoding writes it.
        |text, _, _| text.to_ascii_uppercase(),
        |text, _, random| with_byte(text, random, |b, _| b.to_ascii_uppercase()),
        |text, _, _| [b"%6e", &text[1..]].concat(),
        |text, _, _| String::from_utf8_lossy(text).replace('_', "-").into_bytes(),
        // Another prefix, id or secret than its own.
        |text, _, _| [b"sk_", &text[3..]].concat(),
        |text, other, _| [&text[..11], &other[11..]].concat(),
        |text, other, _| checked_again(other[12..76].to_vec(), text),
        |text, _, _| checked_again(vec![b'0'; 64], text),
        // What stands in the data folder in its place.
        |text, _, _| blake3::hash(text).to_hex().as_bytes().to_vec(),
        |text, _, _| checked_again(blake3::hash(text).to_hex().as_bytes().to_vec(), text),
        // What a database or a log would trip over.
        |text, _, _| [text, b"' OR '1'='1"].concat(),
        |text, _, _| [text, b"\r\nx-nearhit-tenant: other"].concat(),
        |text, _, random| text.iter().copied().cycle().take(random.usize(85..10_240)).collect(),
    ];

    const HEX: &[u8] = b"0123456789abcdef";

    fn with_byte(text: &[u8], random: &mut fastrand::Rng, change: fn(u8, &mut fastrand::Rng) -> u8) -> Vec<u8> {
        let mut text = text.to_vec();
        let at = random.usize(..text.len());
        text[at] = change(text[at], random);
        text
    }

    /// The key's prefix and id, another secret, and the check of both.
    fn checked_again(secret: Vec<u8>, text: &[u8]) -> Vec<u8> {
        let unchecked = [&text[..12], &secret].concat();
        let check = blake3::hash(&unchecked).to_hex();
        let whole = [&unchecked, &check.as_bytes()[..8]].concat();
        assert!(id_of(&whole).is_some(), "it has a key's form");
        whole
    }
}
