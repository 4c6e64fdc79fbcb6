//! The request headers with which clients of other products speak to those products' caches, as nearhit understands them.
//!
//! An operator names the products. What such a header asks may make sharing narrower, shorten a life, or leave the cache
//! aside; whatever would widen what the operator set is left out.

use std::collections::BTreeSet;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use serde_json::Value;

use super::controls::{
    Controls, InvalidControl, TEXT_BYTES_MAX, TTL_PROBLEM, UNIT_PROBLEM, invalid, seconds, threshold,
};

/// A product whose clients are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compat {
    Portkey,
    Helicone,
    Bifrost,
    /// Cloudflare's AI Gateway.
    CfAig,
    OpenRouter,
    /// It has no headers; its server's paths are served.
    GptCache,
}

/// Those that the operator names.
pub type Compats = BTreeSet<Compat>;

impl Compat {
    pub const ALL: [Self; 6] =
        [Self::Portkey, Self::Helicone, Self::Bifrost, Self::CfAig, Self::OpenRouter, Self::GptCache];

    /// Its name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Portkey => "portkey",
            Self::Helicone => "helicone",
            Self::Bifrost => "bifrost",
            Self::CfAig => "cf-aig",
            Self::OpenRouter => "openrouter",
            Self::GptCache => "gptcache",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|compat| compat.as_str() == name)
    }

    /// Its headers for the cache, and what each asks.
    const fn headers(self) -> &'static [(&'static str, Ask)] {
        match self {
            Self::Portkey => &[
                ("x-portkey-cache-force-refresh", Ask::Refresh),
                ("x-portkey-cache-namespace", Ask::Partition),
                ("x-portkey-config", Ask::PortkeyConfig),
            ],
            Self::Helicone => &[
                ("helicone-cache-enabled", Ask::Enabled),
                ("helicone-cache-seed", Ask::Partition),
                ("helicone-cache-bucket-max-size", Ask::AnswersMax),
            ],
            Self::Bifrost => &[
                ("x-bf-cache-key", Ask::Partition),
                ("x-bf-cache-ttl", Ask::Life(duration)),
                ("x-bf-cache-threshold", Ask::Threshold),
                ("x-bf-cache-type", Ask::BifrostType),
                ("x-bf-cache-no-store", Ask::ReadOnly),
            ],
            Self::CfAig => &[
                ("cf-aig-cache-ttl", Ask::Life(whole_seconds)),
                ("cf-aig-skip-cache", Ask::Skip),
                ("cf-aig-cache-key", Ask::Partition),
            ],
            Self::OpenRouter => &[
                ("x-openrouter-cache", Ask::Enabled),
                ("x-openrouter-cache-ttl", Ask::Life(whole_seconds)),
                ("x-openrouter-cache-clear", Ask::Refresh),
            ],
            Self::GptCache => &[],
        }
    }
}

/// What a header asks.
#[derive(Clone, Copy)]
enum Ask {
    /// `false`: neither look up nor store.
    Enabled,
    /// `true`: neither look up nor store.
    Skip,
    /// `true`: a fresh answer, which is stored.
    Refresh,
    /// `true`: look up, but do not store.
    ReadOnly,
    /// Only what was stored under the same word.
    Partition,
    /// At most so long a life.
    Life(fn(&str) -> Option<Duration>),
    /// At least so similar.
    Threshold,
    /// How many answers a question has, of which one is served at random. nearhit keeps one: more is asked upstream.
    AnswersMax,
    /// `direct`: only an equal request. `semantic`: what nearhit does anyway.
    BifrostType,
    /// A JSON object that speaks of the cache among other things, or the name of one that is kept elsewhere.
    PortkeyConfig,
}

/// Reads what the products' headers ask into the controls.
///
/// # Errors
/// The first header with a value that it cannot have.
pub(super) fn read(compats: &Compats, headers: &HeaderMap, controls: &mut Controls) -> Result<(), InvalidControl> {
    for (name, ask) in compats.iter().flat_map(|compat| compat.headers()) {
        for value in headers.get_all(*name) {
            let value = value.to_str().map_err(|_| invalid(name, "(not text)", "must be visible ASCII"))?;
            apply(*ask, name, value.trim(), controls)?;
        }
    }
    Ok(())
}

/// Takes the products' headers away: they are for a cache, and this is it. What speaks of other things too stays.
pub fn strip(compats: &Compats, headers: &mut HeaderMap) {
    for (name, ask) in compats.iter().flat_map(|compat| compat.headers()) {
        if !matches!(ask, Ask::PortkeyConfig) {
            headers.remove(HeaderName::from_static(name));
        }
    }
}

fn apply(ask: Ask, name: &str, value: &str, controls: &mut Controls) -> Result<(), InvalidControl> {
    let bad = |problem: &str| invalid(name, value, problem);
    let flag = || flag(value).ok_or_else(|| bad("must be true or false"));
    match ask {
        Ask::Enabled => controls.no_store |= !flag()?,
        Ask::Skip => controls.no_store |= flag()?,
        Ask::Refresh => controls.refresh |= flag()?,
        Ask::ReadOnly => controls.read_only |= flag()?,
        Ask::Partition if value.is_empty() => return Err(bad("must not be empty")),
        Ask::Partition if value.len() > TEXT_BYTES_MAX => {
            return Err(bad(&format!("must be of at most {TEXT_BYTES_MAX} bytes")));
        }
        Ask::Partition => drop(controls.attributes.insert(name.to_owned(), value.to_owned())),
        Ask::Life(parse) => live_at_most(controls, parse(value).ok_or_else(|| bad(TTL_PROBLEM))?),
        Ask::Threshold => {
            let least = threshold(value.parse().ok()).ok_or_else(|| bad(UNIT_PROBLEM))?;
            let other = controls.terms.threshold.filter(|other| *other > least);
            controls.terms.threshold = Some(other.unwrap_or(least));
        }
        Ask::AnswersMax => {
            let most = value.parse().ok().filter(|most| (1..=20).contains(most));
            let most: u32 = most.ok_or_else(|| bad("must be a whole number from 1 to 20"))?;
            controls.no_store |= most > 1;
        }
        Ask::BifrostType => match value {
            "direct" => controls.exact_only = true,
            "semantic" => {}
            _ => return Err(bad("must be direct or semantic")),
        },
        Ask::PortkeyConfig if value.starts_with('{') => return read_portkey(name, value, controls),
        // The name of a configuration that Portkey keeps.
        Ask::PortkeyConfig => {}
    }
    Ok(())
}

/// `{"cache": {"mode": "simple" | "semantic", "max_age": seconds}}` among Portkey's settings.
fn read_portkey(name: &str, value: &str, controls: &mut Controls) -> Result<(), InvalidControl> {
    let config: Value =
        serde_json::from_str(value).map_err(|error| invalid(name, value, &format!("must be JSON ({error})")))?;
    let Some(cache) = config.get("cache").filter(|cache| !cache.is_null()) else { return Ok(()) };
    let cache = cache.as_object().ok_or_else(|| invalid(name, &cache.to_string(), "cache must be an object"))?;
    match cache.get("mode") {
        None | Some(Value::Null) => {}
        Some(mode) if mode == "semantic" => {}
        Some(mode) if mode == "simple" => controls.exact_only = true,
        Some(mode) => return Err(invalid(name, &mode.to_string(), "cache.mode must be simple or semantic")),
    }
    if let Some(age) = cache.get("max_age").filter(|age| !age.is_null()) {
        let life = seconds(age.as_u64().map(|age| age as f64));
        live_at_most(
            controls,
            life.ok_or_else(|| invalid(name, &age.to_string(), &format!("cache.max_age {TTL_PROBLEM}")))?,
        );
    }
    Ok(())
}

fn live_at_most(controls: &mut Controls, life: Duration) {
    controls.ttl_most = Some(controls.ttl_most.map_or(life, |other| other.min(life)));
}

fn flag(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn whole_seconds(value: &str) -> Option<Duration> {
    seconds(Some(value.parse::<u64>().ok()? as f64))
}

/// As Go writes durations: `90s`, `1h30m`, `1.5h`; or seconds.
fn duration(value: &str) -> Option<Duration> {
    if let Some(seconds) = whole_seconds(value) {
        return Some(seconds);
    }
    let (mut rest, mut total_s) = (value, 0.0);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit = rest[number..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |length| number + length);
        let seconds = match &rest[number..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total_s += rest[..number].parse::<f64>().ok()? * seconds;
        rest = &rest[unit..];
    }
    seconds(Some(total_s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Similarity;

    fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), http::HeaderValue::from_str(value).expect("a value"))
        };
        given.iter().map(header).collect()
    }

    fn controls(compats: &[Compat], given: &[(&'static str, &str)]) -> Result<Controls, InvalidControl> {
        Controls::read_with(&compats.iter().copied().collect(), &headers(given), None, None)
    }

    #[test]
    fn every_header_asks_what_it_asks_there() {
        let check = |compat: Compat, given: &[(&'static str, &str)], expected: fn(&mut Controls)| {
            let mut wanted = Controls::default();
            // Without being named a product is not heard.
            assert_eq!(controls(&[], given), Ok(wanted.clone()), "{given:?}");
            expected(&mut wanted);
            assert_eq!(controls(&[compat], given), Ok(wanted), "{given:?}");
        };
        use Compat::{Bifrost, CfAig, Helicone, OpenRouter, Portkey};
        check(Portkey, &[("x-portkey-cache-force-refresh", "true")], |c| c.refresh = true);
        check(Portkey, &[("x-portkey-cache-force-refresh", "False")], |_| {});
        check(Portkey, &[("x-portkey-cache-namespace", "team a")], |c| {
            c.attributes = [("x-portkey-cache-namespace".into(), "team a".into())].into();
        });
        check(Portkey, &[("x-portkey-config", r#"{"cache":{"mode":"simple","max_age":60}}"#)], |c| {
            c.exact_only = true;
            c.ttl_most = Some(Duration::from_secs(60));
        });
        check(Portkey, &[("x-portkey-config", r#"{"cache":{"mode":"semantic"},"retry":{}}"#)], |_| {});
        check(Portkey, &[("x-portkey-config", r#"{"retry":{"attempts":3}}"#)], |_| {});
        check(Portkey, &[("x-portkey-config", "pc-abc123")], |_| {});

        check(Helicone, &[("helicone-cache-enabled", "true")], |_| {});
        check(Helicone, &[("helicone-cache-enabled", "false")], |c| c.no_store = true);
        check(Helicone, &[("helicone-cache-seed", "user-7")], |c| {
            c.attributes = [("helicone-cache-seed".into(), "user-7".into())].into();
        });
        check(Helicone, &[("helicone-cache-bucket-max-size", "1")], |_| {});
        check(Helicone, &[("helicone-cache-bucket-max-size", "3")], |c| c.no_store = true);

        check(Bifrost, &[("x-bf-cache-key", "session-1")], |c| {
            c.attributes = [("x-bf-cache-key".into(), "session-1".into())].into();
        });
        check(Bifrost, &[("x-bf-cache-ttl", "1h30m")], |c| c.ttl_most = Some(Duration::from_secs(5400)));
        check(Bifrost, &[("x-bf-cache-ttl", "3600")], |c| c.ttl_most = Some(Duration::from_secs(3600)));
        check(Bifrost, &[("x-bf-cache-ttl", "1.5s")], |c| c.ttl_most = Some(Duration::from_millis(1500)));
        check(Bifrost, &[("x-bf-cache-threshold", "0.9")], |c| c.terms.threshold = Some(Similarity::new(0.9)));
        check(Bifrost, &[("x-bf-cache-type", "direct")], |c| c.exact_only = true);
        check(Bifrost, &[("x-bf-cache-type", "semantic")], |_| {});
        check(Bifrost, &[("x-bf-cache-no-store", "true")], |c| c.read_only = true);

        check(CfAig, &[("cf-aig-cache-ttl", "3600")], |c| c.ttl_most = Some(Duration::from_secs(3600)));
        check(CfAig, &[("cf-aig-skip-cache", "true")], |c| c.no_store = true);
        check(CfAig, &[("cf-aig-skip-cache", "false")], |_| {});
        check(CfAig, &[("cf-aig-cache-key", "k")], |c| c.attributes = [("cf-aig-cache-key".into(), "k".into())].into());

        check(OpenRouter, &[("x-openrouter-cache", "true")], |_| {});
        check(OpenRouter, &[("x-openrouter-cache", "false")], |c| c.no_store = true);
        check(OpenRouter, &[("x-openrouter-cache-ttl", "300")], |c| c.ttl_most = Some(Duration::from_secs(300)));
        check(OpenRouter, &[("x-openrouter-cache-clear", "true")], |c| c.refresh = true);
    }

    #[test]
    fn what_a_header_cannot_say_is_named() {
        let check = |compat: Compat, name: &'static str, values: &[&str]| {
            for value in values {
                let error = controls(&[compat], &[(name, value)]).expect_err(value);
                assert_eq!(error.name, name);
                assert!(controls(&[], &[(name, value)]).is_ok(), "nobody reads it");
            }
        };
        check(Compat::Portkey, "x-portkey-cache-force-refresh", &["yes", "1", ""]);
        check(Compat::Portkey, "x-portkey-cache-namespace", &["", &"x".repeat(1025)]);
        let configs = [r#"{"cache":"#, r#"{"cache":7}"#, r#"{"cache":{"mode":"any"}}"#, r#"{"cache":{"max_age":-1}}"#];
        check(Compat::Portkey, "x-portkey-config", &configs);
        check(Compat::Helicone, "helicone-cache-enabled", &["on"]);
        check(Compat::Helicone, "helicone-cache-bucket-max-size", &["0", "21", "x"]);
        check(Compat::Bifrost, "x-bf-cache-ttl", &["0", "s", "", "-1s", "1d", "0s", "1..5s", "200000h"]);
        check(Compat::Bifrost, "x-bf-cache-threshold", &["1.1", "NaN", "x"]);
        check(Compat::Bifrost, "x-bf-cache-type", &["exact"]);
        check(Compat::Bifrost, "x-bf-cache-no-store", &["maybe"]);
        check(Compat::CfAig, "cf-aig-cache-ttl", &["0", "-1", "1h", "1.5"]);
        check(Compat::CfAig, "cf-aig-skip-cache", &["2"]);
        check(Compat::OpenRouter, "x-openrouter-cache", &["auto"]);
        check(Compat::OpenRouter, "x-openrouter-cache-ttl", &["x"]);
    }

    #[test]
    fn the_narrowest_counts_and_own_headers_win() {
        let all = &Compat::ALL;
        let both = controls(all, &[("cf-aig-cache-ttl", "60"), ("x-openrouter-cache-ttl", "30")]).expect("valid");
        assert_eq!(both.ttl_most, Some(Duration::from_secs(30)));
        let both = controls(all, &[("x-bf-cache-key", "a"), ("helicone-cache-seed", "b")]).expect("valid");
        assert_eq!(both.attributes.len(), 2);
        let own = controls(all, &[("cf-aig-cache-ttl", "60"), ("x-nearhit-ttl", "90")]).expect("valid");
        assert_eq!((own.ttl, own.ttl_most), (Some(Duration::from_secs(90)), None));
        let own = controls(all, &[("x-bf-cache-threshold", "0.9"), ("x-nearhit-threshold", "0.5")]).expect("valid");
        assert_eq!(own.terms.threshold, Some(Similarity::new(0.5)));
    }

    #[test]
    fn a_products_headers_stay_here_and_all_others_go_on() {
        let given =
            [("helicone-cache-seed", "s"), ("x-portkey-config", "{}"), ("cf-aig-cache-key", "k"), ("x-else", "e")];
        let left = |compats: &[Compat]| {
            let mut headers = headers(&given);
            strip(&compats.iter().copied().collect(), &mut headers);
            let mut names: Vec<String> = headers.keys().map(ToString::to_string).collect();
            names.sort();
            names
        };
        assert_eq!(left(&[]).len(), 4);
        assert_eq!(left(&[Compat::Helicone]), ["cf-aig-cache-key", "x-else", "x-portkey-config"]);
        assert_eq!(left(&Compat::ALL), ["x-else", "x-portkey-config"]);
    }

    #[test]
    fn names() {
        for compat in Compat::ALL {
            assert_eq!(Compat::parse(compat.as_str()), Some(compat));
            // Lower case, as header names are looked up.
            assert!(compat.headers().iter().all(|(name, _)| *name == name.to_ascii_lowercase()));
        }
        assert_eq!(Compat::parse("other"), None);
    }
}
