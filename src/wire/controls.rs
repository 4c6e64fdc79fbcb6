//! What a client asks of the cache itself: request headers and body fields, and the headers that answer them.

use std::collections::BTreeSet;
use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;

use super::compat::{self, Compats};
use super::json;
use crate::decision::{Attributes, CacheName, EntryId, Probability, Similarity, Source, Terms, Vars};

/// Response header names.
pub mod header {
    use http::HeaderName;

    pub const OUTCOME: HeaderName = HeaderName::from_static("x-nearhit-outcome");
    pub const TIER: HeaderName = HeaderName::from_static("x-nearhit-tier");
    pub const REASON: HeaderName = HeaderName::from_static("x-nearhit-reason");
    pub const ENTRY: HeaderName = HeaderName::from_static("x-nearhit-entry");
    pub const SIMILARITY: HeaderName = HeaderName::from_static("x-nearhit-similarity");
    pub const PROBABILITY: HeaderName = HeaderName::from_static("x-nearhit-probability");
    pub const PRIORITY: HeaderName = HeaderName::from_static("x-nearhit-priority");
    pub const UPSTREAM: HeaderName = HeaderName::from_static("x-nearhit-upstream");
    pub const TRIES: HeaderName = HeaderName::from_static("x-nearhit-tries");
    /// What was saved on a request.
    pub const SAVED: HeaderName = HeaderName::from_static("x-nearhit-saved");
    /// A request header: what its caller says of it, for rules.
    pub const ROUTE: HeaderName = HeaderName::from_static("x-nearhit-route");
    pub const CACHE_STATUS: HeaderName = HeaderName::from_static("x-cache-status");
}

/// Every request header for nearhit starts with this, and none reaches the provider.
pub const OWN_HEADER_PREFIX: &str = "x-nearhit-";

/// What one call asks of the cache.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Controls {
    pub cache: CacheName,
    pub terms: Terms,
    /// Do not look up, but store the fresh answer.
    pub refresh: bool,
    /// Neither look up nor store.
    pub no_store: bool,
    /// Answer from the cache or not at all.
    pub only_if_cached: bool,
    pub ttl: Option<Duration>,
    pub tags: BTreeSet<String>,
    pub sources: BTreeSet<Source>,
    pub vars: Vars,
    /// Longest life of what this call would store, where it names no `ttl`.
    pub ttl_most: Option<Duration>,
    /// Look up, but do not store.
    pub read_only: bool,
    /// Only an equal request may have been answered before.
    pub exact_only: bool,
    /// What must be equal beside the request.
    pub attributes: Attributes,
    /// What the caller says of entries that answered it before: whether they were right.
    pub feedback: Vec<(EntryId, bool)>,
}

/// A control with a value that it cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {problem}, got {value:?}")]
pub struct InvalidControl {
    pub name: String,
    pub value: String,
    pub problem: String,
}

impl Controls {
    /// From the request's headers, then from the body's `cache` (LiteLLM's convention) and `nearhit` fields; where
    /// both speak, the header wins.
    ///
    /// # Errors
    /// The first control with a value that it cannot have.
    pub fn read(
        headers: &HeaderMap,
        body_cache: Option<&Value>,
        body_own: Option<&Value>,
    ) -> Result<Self, InvalidControl> {
        Self::read_with(&Compats::new(), headers, body_cache, body_own)
    }

    /// The same, and before all of them what other products' headers ask of their caches.
    ///
    /// # Errors
    /// The first control with a value that it cannot have.
    pub fn read_with(
        compats: &Compats,
        headers: &HeaderMap,
        body_cache: Option<&Value>,
        body_own: Option<&Value>,
    ) -> Result<Self, InvalidControl> {
        let mut controls = Self::default();
        compat::read(compats, headers, &mut controls)?;
        if let Some(fields) = body_cache {
            controls.read_body_cache(fields)?;
        }
        if let Some(own) = body_own {
            let fields = own.as_object().ok_or_else(|| invalid("nearhit", &own.to_string(), "must be an object"))?;
            if let Some((name, value)) = fields.iter().find(|(name, _)| *name != "vars") {
                return Err(invalid(&format!("nearhit.{name}"), &value.to_string(), "is not one of vars"));
            }
        }
        if let Some(vars) = body_own.and_then(|own| own.get("vars")) {
            controls.vars = vars_of(vars)
                .ok_or_else(|| invalid("nearhit.vars", &vars.to_string(), "must be an object of strings"))?;
        }
        controls.read_cache_control(headers)?;
        controls.read_own_headers(headers)?;
        if controls.ttl.is_some() {
            controls.ttl_most = None;
        }
        check_names("vars", controls.vars.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
        check_names("tags", controls.tags.iter().map(|tag| (tag.as_str(), "")))?;
        check_names("sources", controls.sources.iter().map(|s| (s.id.as_str(), s.version.as_str())))?;
        Ok(controls)
    }

    fn read_body_cache(&mut self, fields: &Value) -> Result<(), InvalidControl> {
        let Some(fields) = fields.as_object() else {
            return Err(invalid("cache", &fields.to_string(), "must be an object"));
        };
        for (name, value) in fields {
            let bad = |problem: &str| invalid(&format!("cache.{name}"), &value.to_string(), problem);
            match name.as_str() {
                "ttl" => self.ttl = Some(seconds(value.as_f64()).ok_or_else(|| bad(TTL_PROBLEM))?),
                "s-maxage" | "s-max-age" => {
                    self.terms.age_max_ms =
                        Some(milliseconds(value.as_u64().ok_or_else(|| bad("must be whole seconds"))?));
                }
                "no-cache" => self.refresh = value.as_bool().ok_or_else(|| bad("must be true or false"))?,
                "no-store" => self.no_store = value.as_bool().ok_or_else(|| bad("must be true or false"))?,
                "namespace" => {
                    let name = value.as_str().ok_or_else(|| bad("must be a string"))?;
                    self.cache = CacheName::parse(name).map_err(|error| bad(&error.to_string()))?;
                }
                _ => return Err(bad("is not one of ttl, s-maxage, no-cache, no-store, namespace")),
            }
        }
        Ok(())
    }

    fn read_cache_control(&mut self, headers: &HeaderMap) -> Result<(), InvalidControl> {
        for line in headers.get_all(http::header::CACHE_CONTROL) {
            let Ok(line) = line.to_str() else { continue };
            for directive in line.split(',').map(|d| d.trim().to_ascii_lowercase()) {
                match directive.split_once('=').unwrap_or((&directive, "")) {
                    ("no-cache", _) => self.refresh = true,
                    ("no-store", _) => self.no_store = true,
                    ("only-if-cached", _) => self.only_if_cached = true,
                    ("max-age", age) => {
                        let age: u64 =
                            age.parse().map_err(|_| invalid("cache-control: max-age", age, "must be whole seconds"))?;
                        self.terms.age_max_ms = Some(milliseconds(age));
                    }
                    // RFC 9111, 5.2: directives that are not understood are ignored.
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn read_own_headers(&mut self, headers: &HeaderMap) -> Result<(), InvalidControl> {
        let text = |name: &'static str| -> Result<Option<&str>, InvalidControl> {
            let Some(value) = headers.get(name) else { return Ok(None) };
            value.to_str().map(Some).map_err(|_| invalid(name, "(not text)", "must be visible ASCII"))
        };
        if let Some(name) = text("x-nearhit-cache")? {
            self.cache =
                CacheName::parse(name).map_err(|error| invalid("x-nearhit-cache", name, &error.to_string()))?;
        }
        if let Some(value) = text("x-nearhit-ttl")? {
            self.ttl = Some(seconds(value.parse().ok()).ok_or_else(|| invalid("x-nearhit-ttl", value, TTL_PROBLEM))?);
        }
        if let Some(value) = joined(headers, "x-nearhit-tags")? {
            self.tags = list(&value).map(str::to_owned).collect();
        }
        if let Some(value) = joined(headers, "x-nearhit-sources")? {
            let source = |item: &str| {
                let (id, version) =
                    item.rsplit_once('@').filter(|(id, version)| !id.is_empty() && !version.is_empty())?;
                Some(Source { id: id.to_owned(), version: version.to_owned() })
            };
            let parsed: Option<_> = list(&value).map(source).collect();
            let problem = || invalid("x-nearhit-sources", &value, "must be a list of document@version");
            self.sources = parsed.ok_or_else(problem)?;
        }
        if let Some(value) = joined(headers, "x-nearhit-feedback")? {
            let word = |item: &str| {
                let (id, word) = item.split_once('=')?;
                let is_right = match word.trim() {
                    "right" => true,
                    "wrong" => false,
                    _ => return None,
                };
                Some((id.trim().parse().ok()?, is_right))
            };
            let parsed: Option<_> = list(&value).map(word).collect();
            let problem = || invalid("x-nearhit-feedback", &value, "must be a list of ENTRY=right or ENTRY=wrong");
            self.feedback = parsed.ok_or_else(problem)?;
        }
        if let Some(value) = text("x-nearhit-threshold")? {
            self.terms.threshold =
                Some(threshold(value.parse().ok()).ok_or_else(|| invalid("x-nearhit-threshold", value, UNIT_PROBLEM))?);
        }
        if let Some(value) = text("x-nearhit-max-error")? {
            let most = value.parse().ok().and_then(Probability::new);
            self.terms.error_max = Some(most.ok_or_else(|| invalid("x-nearhit-max-error", value, UNIT_PROBLEM))?);
        }
        if let Some(value) = text("x-nearhit-vars")? {
            let decoded = percent_encoding::percent_decode_str(value).collect::<Vec<u8>>();
            let vars = json::parse(&decoded).ok().as_ref().and_then(vars_of);
            self.vars = vars
                .ok_or_else(|| invalid("x-nearhit-vars", value, "must be a percent-encoded JSON object of strings"))?;
        }
        Ok(())
    }
}

/// Attributes, variables, tags or sources are few and short.
///
/// # Errors
/// There are more than [`NAMES_MAX`], or one is longer than [`TEXT_BYTES_MAX`].
pub fn check_names<'a>(field: &str, names: impl Iterator<Item = (&'a str, &'a str)>) -> Result<(), InvalidControl> {
    let mut count = 0;
    for (name, value) in names {
        count += 1;
        let bytes = name.len().max(value.len());
        if bytes > TEXT_BYTES_MAX {
            return Err(invalid(field, name, &format!("at most {TEXT_BYTES_MAX} bytes a name or value, not {bytes}")));
        }
    }
    if count > NAMES_MAX {
        return Err(invalid(field, &count.to_string(), &format!("at most {NAMES_MAX} names")));
    }
    Ok(())
}

/// A similarity threshold as a request may give it: a number in [0, 1].
pub fn threshold(value: Option<f64>) -> Option<Similarity> {
    value.filter(|value| (0.0..=1.0).contains(value)).map(|value| Similarity::new(value as f32))
}

/// A time to live in seconds: more than zero, at most ten years.
pub fn seconds(value: Option<f64>) -> Option<Duration> {
    value.filter(|value| *value > 0.0 && *value <= TTL_MAX.as_secs_f64()).map(Duration::from_secs_f64)
}

/// A list header, which may come in several lines.
fn joined(headers: &HeaderMap, name: &'static str) -> Result<Option<String>, InvalidControl> {
    let text = |value: &http::HeaderValue| {
        value.to_str().map(str::to_owned).map_err(|_| invalid(name, "(not text)", "must be visible ASCII"))
    };
    let lines: Vec<String> = headers.get_all(name).iter().map(text).collect::<Result<_, _>>()?;
    Ok((!lines.is_empty()).then(|| lines.join(",")))
}

fn milliseconds(seconds: u64) -> u64 {
    seconds.saturating_mul(1000)
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn vars_of(value: &Value) -> Option<Vars> {
    value.as_object()?.iter().map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

pub(super) fn invalid(name: &str, value: &str, problem: &str) -> InvalidControl {
    let value = value.chars().take(100).collect();
    InvalidControl { name: name.to_owned(), value, problem: problem.to_owned() }
}

/// Longer than any answer stays true; and it keeps expiry times far from overflow.
pub const TTL_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Attributes, variables, tags or sources of an entry.
pub const NAMES_MAX: usize = 64;

/// Bytes of one of their names or values.
pub const TEXT_BYTES_MAX: usize = 1024;

/// What a time to live must be.
pub const TTL_PROBLEM: &str = "must be more than 0 seconds and at most 10 years";

/// What a threshold or an error bound must be.
pub const UNIT_PROBLEM: &str = "must be a number from 0 to 1";

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use serde_json::json;

    use super::*;

    fn read(headers: &[(&'static str, &str)], body: Value) -> Result<Controls, InvalidControl> {
        let map = headers
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).expect("a header value")));
        Controls::read(&map.collect(), body.get("cache"), body.get("nearhit"))
    }

    #[test]
    fn controls_are_read() {
        let check = |headers: &[(&'static str, &str)], body: Value, change: fn(&mut Controls)| {
            let mut expected = Controls::default();
            change(&mut expected);
            assert_eq!(read(headers, body), Ok(expected), "{headers:?}");
        };
        let none = || json!({});
        check(&[], none(), |_| {});
        check(&[("cache-control", "no-cache")], none(), |c| c.refresh = true);
        check(&[("cache-control", "No-Store, foo=1")], none(), |c| c.no_store = true);
        check(&[("cache-control", "only-if-cached")], none(), |c| c.only_if_cached = true);
        check(&[("cache-control", "max-age=60")], none(), |c| c.terms.age_max_ms = Some(60_000));
        check(&[("x-nearhit-ttl", "60")], none(), |c| c.ttl = Some(Duration::from_secs(60)));
        check(&[("x-nearhit-threshold", "0.95")], none(), |c| c.terms.threshold = Some(Similarity::new(0.95)));
        check(&[("x-nearhit-tags", "a, b,")], none(), |c| c.tags = ["a".to_owned(), "b".to_owned()].into());
        check(&[("x-nearhit-vars", "%7B%22n%22%3A%22Ada%22%7D")], none(), |c| {
            c.vars = [("n".to_owned(), "Ada".to_owned())].into()
        });
        check(&[], json!({"nearhit": {"vars": {"n": "Ada"}}}), |c| {
            c.vars = [("n".to_owned(), "Ada".to_owned())].into()
        });
        check(&[], json!({"cache": {"ttl": 5, "no-store": true}}), |c| {
            c.ttl = Some(Duration::from_secs(5));
            c.no_store = true;
        });
        check(&[("x-nearhit-sources", "doc@7")], none(), |c| {
            c.sources = [Source { id: "doc".into(), version: "7".into() }].into();
        });
        check(&[("x-nearhit-cache", "a")], json!({"cache": {"namespace": "b"}}), |c| {
            c.cache = CacheName::parse("a").expect("valid")
        });
    }

    #[test]
    fn impossible_values_name_the_control_and_the_value() {
        let check = |headers: &[(&'static str, &str)], body: Value, name: &str, value: &str| {
            let error = read(headers, body).expect_err("a refusal");
            assert_eq!((error.name.as_str(), error.value.as_str()), (name, value));
            assert!(error.to_string().contains(name) && error.to_string().contains(value));
        };
        let none = || json!({});
        for value in ["NaN", "-1", "1.1", "x", "inf"] {
            check(&[("x-nearhit-threshold", value)], none(), "x-nearhit-threshold", value);
            check(&[("x-nearhit-max-error", value)], none(), "x-nearhit-max-error", value);
        }
        for value in ["-1", "0", "1e12", "1h", "NaN"] {
            check(&[("x-nearhit-ttl", value)], none(), "x-nearhit-ttl", value);
        }
        check(&[("x-nearhit-cache", "../x")], none(), "x-nearhit-cache", "../x");
        check(&[("x-nearhit-sources", "doc")], none(), "x-nearhit-sources", "doc");
        check(&[("x-nearhit-vars", "{")], none(), "x-nearhit-vars", "{");
        check(&[("cache-control", "max-age=x")], none(), "cache-control: max-age", "x");
        check(&[], json!({"cache": {"ttl": -1}}), "cache.ttl", "-1");
        check(&[], json!({"cache": {"nocache": true}}), "cache.nocache", "true");
        check(&[], json!({"cache": true}), "cache", "true");
    }
}
