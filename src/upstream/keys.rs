//! The operator's own keys for the providers, sent for callers that are let in by other means. Each goes to its own
//! provider and nowhere else.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

/// In a request's extensions: the caller brought no provider's key, and may use the operator's.
#[derive(Debug, Clone, Copy)]
pub struct WithOperatorsKey;

/// A provider's key. It is sent, and not shown: it has no `Debug`, `Display` or `Serialize`.
pub struct ProviderKey(String);

/// What stands where a provider's key is expected is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be one word of visible ASCII characters")]
pub struct InvalidKey;

impl ProviderKey {
    /// White space around it is not part of it.
    ///
    /// # Errors
    /// It is empty, or has characters that no header can carry.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let text = text.trim();
        let is_word = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if is_word { Ok(Self(text.to_owned())) } else { Err(InvalidKey) }
    }

    fn header(&self, prefix: &str) -> Option<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("{prefix}{}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// The keys that there are.
#[derive(Clone, Default)]
pub struct OperatorsKeys {
    openai: Option<Arc<ProviderKey>>,
    anthropic: Option<Arc<ProviderKey>>,
}

impl OperatorsKeys {
    pub fn new(openai: Option<ProviderKey>, anthropic: Option<ProviderKey>) -> Self {
        Self { openai: openai.map(Arc::new), anthropic: anthropic.map(Arc::new) }
    }

    /// The header that carries the key of the provider that a request goes to.
    pub(super) fn header_for(&self, is_for_anthropic: bool, is_wanted: bool) -> Option<(HeaderName, HeaderValue)> {
        match (is_wanted, is_for_anthropic) {
            (false, _) => None,
            (true, true) => Some((HeaderName::from_static("x-api-key"), self.anthropic.as_ref()?.header("")?)),
            (true, false) => Some((AUTHORIZATION, self.openai.as_ref()?.header("Bearer ")?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_provider_gets_its_own_key() {
        let key = |text: &str| ProviderKey::parse(text).ok();
        let both = OperatorsKeys::new(key("sk-one\n"), key(" sk-two "));
        let check = |keys: &OperatorsKeys, is_for_anthropic: bool, is_wanted: bool, expected: Option<(&str, &str)>| {
            let header = keys.header_for(is_for_anthropic, is_wanted);
            let header = header.as_ref().map(|(name, value)| (name.as_str(), value.to_str().expect("a text")));
            assert_eq!(header, expected);
        };
        check(&both, false, true, Some(("authorization", "Bearer sk-one")));
        check(&both, true, true, Some(("x-api-key", "sk-two")));
        check(&both, false, false, None);
        check(&both, true, false, None);
        let openai = OperatorsKeys::new(key("sk-one"), None);
        check(&openai, true, true, None);
        check(&openai, false, true, Some(("authorization", "Bearer sk-one")));
        let (_, value) = both.header_for(false, true).expect("a header");
        assert_eq!(format!("{value:?}"), "Sensitive");
    }

    #[test]
    fn keys_are_words() {
        for text in ["", "  ", "two words", "one\ntwo", "gr\u{fc}n", "\u{0}"] {
            assert!(ProviderKey::parse(text).is_err(), "{text:?}");
        }
    }
}
