//! A provider's key from configuration. It goes to that provider and nowhere else: not into logs, not to another host.

use std::fmt;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::settings::Protocol;
use crate::route::KEY_HEADERS;

/// A key, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct ProviderKey(HeaderValue, HeaderValue);

/// In a request's extensions: the caller brought no provider's key, and may use the operator's, for what it is lent for.
#[derive(Debug, Clone, Copy)]
pub struct WithOperatorsKey;

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be one line of visible ASCII that is not empty")]
pub struct InvalidKey;

impl ProviderKey {
    /// # Errors
    /// The text, but for white space around it, is empty or cannot stand in a header.
    pub fn new(text: &str) -> Result<Self, InvalidKey> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidKey);
        }
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| InvalidKey);
        let (mut bare, mut bearer) = (value(text)?, value(&format!("Bearer {text}"))?);
        bare.set_sensitive(true);
        bearer.set_sensitive(true);
        Ok(Self(bare, bearer))
    }

    /// As an `Authorization` header's value.
    pub(super) fn bearer(&self) -> HeaderValue {
        self.1.clone()
    }

    /// Puts this key in place of whatever keys a request brought: a client's key is nothing to this provider.
    pub(super) fn insert(&self, protocol: Protocol, headers: &mut HeaderMap) {
        let Self(bare, bearer) = self;
        KEY_HEADERS.iter().for_each(|name| drop(headers.remove(*name)));
        match protocol {
            Protocol::OpenAi => headers.insert(AUTHORIZATION, bearer.clone()),
            Protocol::Anthropic => headers.insert(X_API_KEY, bare.clone()),
        };
    }
}

impl fmt::Debug for ProviderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProviderKey(…)")
    }
}

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_the_place_of_the_clients() {
        let key = ProviderKey::new(" sk-own\n").expect("a key");
        assert_eq!(format!("{key:?}"), "ProviderKey(…)");
        let check = |protocol: Protocol, name: &str, value: &str| {
            let mut headers = HeaderMap::new();
            for name in KEY_HEADERS {
                headers.append(name, HeaderValue::from_static("sk-client"));
                headers.append(name, HeaderValue::from_static("Bearer sk-client"));
            }
            key.insert(protocol, &mut headers);
            let sent: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
            assert_eq!(sent, [(name, value.as_bytes())]);
        };
        check(Protocol::OpenAi, "authorization", "Bearer sk-own");
        check(Protocol::Anthropic, "x-api-key", "sk-own");
        for text in ["", " \n", "a b", "a\nb", "schlüssel"] {
            assert_eq!(ProviderKey::new(text), Err(InvalidKey), "{text:?}");
        }
    }
}
