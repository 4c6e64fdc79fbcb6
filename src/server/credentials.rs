//! What a request's headers say of its caller. A key of nearhit's own is taken out of them: nobody else is to see it.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::keys::PREFIX;
use crate::wire::problem::Problem;

/// The keys of one request.
pub(super) struct Credentials {
    /// What was shown as a key of nearhit's own, right or wrong.
    shown: Option<HeaderValue>,
    /// The provider's keys of the caller's own, in a fixed order.
    provider: Vec<HeaderValue>,
}

impl Credentials {
    /// Takes keys of nearhit's own out of the headers, and marks the others as what no log may show.
    ///
    /// # Errors
    /// The headers name two callers.
    pub(super) fn take(headers: &mut HeaderMap) -> Result<Self, Problem> {
        let (mut shown, mut provider) = (Vec::new(), Vec::new());
        for name in [OWN_KEY, AUTHORIZATION, PROVIDER_KEY, AZURE_KEY] {
            if headers.get_all(&name).iter().count() > 1 {
                return Err(Problem::invalid(name.as_str(), format!("{name}: must be given once at most")));
            }
            let Some(value) = headers.get_mut(&name) else { continue };
            value.set_sensitive(true);
            let value = value.clone();
            if name == OWN_KEY || has_own_key(&value) {
                headers.remove(&name);
                shown.push((name, value));
            } else {
                provider.push(value);
            }
        }
        if let [(_, first), rest @ ..] = shown.as_slice()
            && let Some((name, _)) = rest.iter().find(|(_, other)| bare(other) != bare(first))
        {
            let message = format!("{name}: is another key of nearhit's than that in {}", shown[0].0);
            return Err(Problem::invalid(name.as_str(), message));
        }
        Ok(Self { shown: shown.into_iter().next().map(|(_, value)| value), provider })
    }

    /// What was shown as a key of nearhit's own.
    pub(super) fn shown(&self) -> Option<&[u8]> {
        self.shown.as_ref().map(bare)
    }

    /// The provider's keys of the caller's own.
    pub(super) fn provider(&self) -> Vec<&[u8]> {
        self.provider.iter().map(bare).collect()
    }
}

/// The key in a header's value.
fn bare(value: &HeaderValue) -> &[u8] {
    let value = value.as_bytes();
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(SCHEME) => key,
        _ => value,
    }
}

/// Whether a key of nearhit's own is in there, even where it does not belong.
fn has_own_key(value: &HeaderValue) -> bool {
    // A provider's key may hold the prefix somewhere in the middle.
    let mut words = value.as_bytes().split(|b| !b.is_ascii_alphanumeric() && !b"_-.".contains(b));
    words.any(|word| word.starts_with(PREFIX.as_bytes()))
}

const OWN_KEY: HeaderName = HeaderName::from_static("x-nearhit-key");

/// Where Anthropic's clients put their key.
const PROVIDER_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Where Azure's clients put theirs.
const AZURE_KEY: HeaderName = HeaderName::from_static("api-key");

const SCHEME: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs<'a> = &'a [(&'static str, &'a str)];

    /// What was shown, the provider's keys, and the headers that go on.
    type Taken = (Option<String>, Vec<String>, Vec<String>);

    fn taken(pairs: Pairs<'_>) -> Result<Taken, Option<String>> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        let credentials = Credentials::take(&mut headers).map_err(|problem| problem.param)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let provider = credentials.provider().into_iter().map(text).collect();
        assert!(!format!("{headers:?}").contains("sk-"), "a provider's key shows");
        Ok((credentials.shown().map(text), provider, headers.keys().map(ToString::to_string).collect()))
    }

    #[test]
    fn keys_are_told_apart() {
        let check = |pairs: Pairs<'_>, shown: Option<&str>, provider: &[&str], left: &[&str]| {
            let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(taken(pairs), Ok((shown.map(str::to_owned), texts(provider), texts(left))), "{pairs:?}");
        };
        check(&[], None, &[], &[]);
        check(&[("authorization", "Bearer sk-1")], None, &["sk-1"], &["authorization"]);
        check(&[("authorization", "bearer sk-1")], None, &["sk-1"], &["authorization"]);
        check(&[("authorization", "Basic sk-1")], None, &["Basic sk-1"], &["authorization"]);
        check(&[("x-api-key", "sk-1")], None, &["sk-1"], &["x-api-key"]);
        check(&[("x-api-key", "sk-nh_1")], None, &["sk-nh_1"], &["x-api-key"]);
        check(&[("authorization", "Bearer nh_1")], Some("nh_1"), &[], &[]);
        check(&[("authorization", "BEARER nh_1")], Some("nh_1"), &[], &[]);
        check(&[("x-api-key", "nh_1")], Some("nh_1"), &[], &[]);
        check(&[("api-key", "nh_1")], Some("nh_1"), &[], &[]);
        check(&[("api-key", "sk-1")], None, &["sk-1"], &["api-key"]);
        check(&[("x-nearhit-key", "nh_1")], Some("nh_1"), &[], &[]);
        check(&[("x-nearhit-key", "anything")], Some("anything"), &[], &[]);
        check(&[("x-nearhit-key", "nh_1"), ("authorization", "Bearer nh_1")], Some("nh_1"), &[], &[]);
        let both: Pairs<'_> = &[("x-nearhit-key", "nh_1"), ("authorization", "Bearer sk-1")];
        check(both, Some("nh_1"), &["sk-1"], &["authorization"]);
        // Where they do not belong they are wrong, and go no further all the same.
        for value in ["nh_1 x", "Bearer  nh_1", "Basic nh_1", "Bearer sk-1,nh_1", "Bearer \"nh_1\"", "key=nh_1"] {
            let bare = value.strip_prefix("Bearer ").unwrap_or(value);
            check(&[("authorization", value)], Some(bare), &[], &[]);
        }
    }

    #[test]
    fn a_request_has_one_caller() {
        let check = |pairs: Pairs<'_>, param: &str| assert_eq!(taken(pairs), Err(Some(param.to_owned())), "{pairs:?}");
        check(&[("authorization", "Bearer a"), ("authorization", "Bearer a")], "authorization");
        check(&[("x-api-key", "a"), ("x-api-key", "b")], "x-api-key");
        check(&[("x-nearhit-key", "nh_1"), ("api-key", "nh_2")], "api-key");
        check(&[("x-nearhit-key", "nh_1"), ("x-nearhit-key", "nh_1")], "x-nearhit-key");
        check(&[("x-nearhit-key", "nh_1"), ("authorization", "Bearer nh_2")], "authorization");
        check(&[("authorization", "Bearer nh_1"), ("x-api-key", "nh_2")], "x-api-key");
    }
}
