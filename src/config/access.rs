//! Who may call: keys, and limits of the tenants.

use std::collections::{BTreeSet, HashMap};

use toml::value::{Datetime, Offset};
use toml::{Table, Value};

use super::{Reader, number, whole};
use crate::server::keys::{KeyId, KeyRecord, KeyScope, TENANT_NAME_PROBLEM, TenantName, days_to};
use crate::server::{Rate, Tenancy, TenantLimit, TenantLimits};

/// Who may call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AccessConfig {
    /// Refuse calls without a key even if there are no keys.
    pub require_keys: bool,
    /// Keys that do not lie in the data folder.
    pub keys: Vec<KeyRecord>,
    pub limits: TenantLimits,
}

impl AccessConfig {
    pub(super) fn read(from: &mut Reader<'_>, tenancy: Tenancy) -> Self {
        Self { require_keys: from.flag("require_keys"), keys: read_keys(from), limits: read_limits(from, tenancy) }
    }
}

fn read_limits(from: &mut Reader<'_>, tenancy: Tenancy) -> TenantLimits {
    let each = read_limit(from, "limits", TenantLimit::default(), Defaults::default());
    let mut own = HashMap::new();
    for name in from.names("tenants") {
        let section = format!("tenants.{name}");
        let limit = read_limit(from, &section, each.0, each.1);
        if tenancy == Tenancy::Single {
            from.problem(
                &section,
                "limits nobody where tenancy = \"single\" makes all callers one tenant; use [limits]",
            );
        }
        match TenantName::parse(&name) {
            Some(name) => drop(own.insert(name, limit.0)),
            None => from.problem(&section, &format!("{TENANT_NAME_PROBLEM}, got {name:?}")),
        }
    }
    TenantLimits { each: each.0, own }
}

/// What a section says of a rate, for those that say only a part of it.
#[derive(Clone, Copy, Default)]
struct Defaults {
    per_second: Option<f64>,
    burst: Option<u32>,
}

fn read_limit(from: &mut Reader<'_>, section: &str, base: TenantLimit, defaults: Defaults) -> (TenantLimit, Defaults) {
    let key = |name: &str| format!("{section}.{name}");
    let per_second = from.read(&key("requests_per_second"), "a number from 0.001 to 1000000", |v| {
        number(v).filter(|rate| (0.001..=1e6).contains(rate))
    });
    let most =
        |v: &Value| whole(v).and_then(|most| u32::try_from(most).ok()).filter(|most| (1..=1_000_000).contains(most));
    let expected = "a whole number from 1 to 1000000";
    let burst = from.read(&key("burst"), expected, most);
    let in_flight = from.read(&key("in_flight"), expected, most).map(|most| most as usize);
    let per_second = per_second.or(defaults.per_second);
    if burst.is_some() && per_second.is_none() {
        from.problem(&key("burst"), "goes with requests_per_second");
    }
    let burst = burst.or(defaults.burst);
    let rate = per_second.and_then(|rate| Rate::new(rate, burst.unwrap_or((rate.ceil() as u32).max(1))));
    (TenantLimit { rate, in_flight: in_flight.or(base.in_flight) }, Defaults { per_second, burst })
}

fn read_keys(from: &mut Reader<'_>) -> Vec<KeyRecord> {
    let tables = from.read("keys", "tables headed [[keys]]", |v| {
        v.as_array()?.iter().map(|key| key.as_table().cloned()).collect::<Option<Vec<Table>>>()
    });
    let mut keys: Vec<KeyRecord> = Vec::new();
    for (at, table) in tables.unwrap_or_default().into_iter().enumerate() {
        let Some(key) = read_key(from, &format!("keys[{at}]"), table) else { continue };
        if keys.iter().any(|other| other.id == key.id) {
            from.problem(&format!("keys[{at}].id"), &format!("stands twice: {:?}", key.id.as_str()));
        }
        keys.push(key);
    }
    keys
}

fn read_key(from: &mut Reader<'_>, section: &str, mut table: Table) -> Option<KeyRecord> {
    let id = field(from, section, &mut table, "id", "8 hex digits, as after nh_", |v| KeyId::parse(v.as_str()?));
    let hash = field(from, section, &mut table, "hash", "64 hex digits: BLAKE3 of the whole key", |v| {
        blake3::Hash::from_hex(v.as_str()?).ok()
    });
    let tenant = field(from, section, &mut table, "tenant", TENANT_NAME_PROBLEM, |v| TenantName::parse(v.as_str()?));
    let scopes = field(from, section, &mut table, "scopes", "one or more of \"read\", \"write\" and \"admin\"", |v| {
        let words = v.as_array()?.iter().map(|word| KeyScope::parse(word.as_str()?));
        words.collect::<Option<BTreeSet<_>>>().filter(|scopes| !scopes.is_empty())
    });
    let expires_ms = match table.contains_key("expires") {
        false => Some(None),
        true => {
            let expected = "a date such as 2027-01-31 or 2027-01-31T12:00:00Z";
            field(from, section, &mut table, "expires", expected, |v| v.as_datetime().and_then(moment_ms)).map(Some)
        }
    };
    for (name, value) in table {
        from.problem(&format!("{section}.{name}"), &format!("is not a known key (its value is {value})"));
    }
    Some(KeyRecord {
        id: id?,
        hash: hash?,
        tenant: tenant?,
        scopes: scopes?,
        created_ms: None,
        expires_ms: expires_ms?,
        revoked_ms: None,
    })
}

fn field<T>(
    from: &mut Reader<'_>,
    section: &str,
    table: &mut Table,
    name: &str,
    expected: &str,
    parse: impl Fn(&Value) -> Option<T>,
) -> Option<T> {
    let value = table.remove(name);
    let parsed = value.as_ref().and_then(parse);
    if parsed.is_none() {
        let expected = expected.strip_prefix("must be ").unwrap_or(expected);
        let problem = match value {
            Some(value) => format!("must be {expected}, got {value}"),
            None => format!("is missing; it must be {expected}"),
        };
        from.problem(&format!("{section}.{name}"), &problem);
    }
    parsed
}

/// Milliseconds since 1970; without an offset the time is UTC's, without a time the day's beginning.
fn moment_ms(moment: &Datetime) -> Option<u64> {
    let date = moment.date?;
    let second = moment.time.map_or(0, |time| {
        i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0))
    });
    let offset_s = match moment.offset {
        Some(Offset::Custom { minutes }) => i64::from(minutes) * 60,
        Some(Offset::Z) | None => 0,
    };
    let seconds = days_to(date.year, date.month, date.day) * 86_400 + second - offset_s;
    u64::try_from(seconds.checked_mul(1000)?).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, ConfigErrors};
    use super::*;

    fn parse(text: &str) -> Result<AccessConfig, ConfigErrors> {
        Config::parse("nearhit.toml", text, &[], Path::new("/data").into()).map(|config| config.access)
    }

    const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn keys_and_limits() {
        let text = format!(
            "require_keys = true\n\
             [limits]\nrequests_per_second = 2.5\nin_flight = 4\n\
             [tenants.acme]\nburst = 10\n[tenants.b]\nrequests_per_second = 9\nin_flight = 5\n\
             [[keys]]\nid = \"0000000a\"\nhash = \"{HASH}\"\ntenant = \"acme\"\nscopes = [\"read\", \"admin\"]\n\
             [[keys]]\nid = \"0000000b\"\nhash = \"{HASH}\"\ntenant = \"b\"\nscopes = [\"write\"]\nexpires = 1970-01-02T00:00:00+01:00\n"
        );
        let access = parse(&text).expect("valid");
        assert!(access.require_keys);
        let limit = |rate, burst, in_flight| TenantLimit { rate: Rate::new(rate, burst), in_flight: Some(in_flight) };
        assert_eq!(access.limits.each, limit(2.5, 3, 4));
        let own = |name: &str| access.limits.own[&TenantName::parse(name).expect("a name")];
        assert_eq!((own("acme"), own("b")), (limit(2.5, 10, 4), limit(9.0, 9, 5)));
        let scopes: Vec<Vec<KeyScope>> = access.keys.iter().map(|key| key.scopes.iter().copied().collect()).collect();
        assert_eq!(scopes, [vec![KeyScope::Read, KeyScope::Admin], vec![KeyScope::Write]]);
        let expire: Vec<_> = access.keys.iter().map(|key| key.expires_ms).collect();
        assert_eq!(expire, [None, Some(23 * 3_600_000)]);
        assert_eq!(parse("").expect("valid"), AccessConfig::default());
    }

    #[test]
    fn every_problem_is_named() {
        let text = format!(
            "require_keys = 1\n\
             [limits]\nrequests_per_second = 0\nburst = 1.5\nin_flight = -1\n\
             [tenants.Bad]\nin_flight = 1\n[tenants.c]\nburst = 3\nqueue = 1\n\
             [[keys]]\nid = \"0000000A\"\nhash = \"{HASH}0\"\ntenant = \"A\"\nscopes = [\"all\"]\nexpires = 12:00:00\nkey = \"nh\"\n\
             [[keys]]\nid = \"0000000b\"\nhash = \"{HASH}\"\ntenant = \"a\"\nscopes = [\"read\"]\n\
             [[keys]]\nid = \"0000000b\"\nhash = \"{HASH}\"\ntenant = \"a\"\nscopes = [\"read\"]\n\
             [[keys]]\nscopes = []\n"
        );
        let errors = parse(&text).expect_err("many problems").0;
        for (key, value) in [
            ("require_keys", "1"),
            ("limits.requests_per_second", "0"),
            ("limits.burst", "1.5"),
            ("limits.in_flight", "-1"),
            ("tenants.Bad", "\"Bad\""),
            ("tenants.c.burst", "requests_per_second"),
            ("tenants.c.queue", "1"),
            ("keys[0].id", "\"0000000A\""),
            ("keys[0].hash", "abcdef0\""),
            ("keys[0].tenant", "\"A\""),
            ("keys[0].scopes", "all"),
            ("keys[0].expires", "12:00:00"),
            ("keys[0].key", "is not a known key"),
            ("keys[2].id", "\"0000000b\""),
            ("keys[3].id", "is missing"),
            ("keys[3].hash", "is missing"),
            ("keys[3].tenant", "is missing"),
            ("keys[3].scopes", "[]"),
        ] {
            let prefix = format!("nearhit.toml: {key}: ");
            assert!(errors.iter().any(|e| e.starts_with(&prefix) && e.contains(value)), "{key} in {errors:#?}");
        }
        assert_eq!(errors.len(), 18, "{errors:#?}");
        let errors = parse("tenancy = \"single\"\n[tenants.acme]\nin_flight = 1").expect_err("nobody's limit").0;
        assert!(errors.len() == 1 && errors[0].starts_with("nearhit.toml: tenants.acme: limits nobody"), "{errors:?}");
        let errors = parse("keys = [1]").expect_err("no tables").0;
        assert_eq!(errors, ["nearhit.toml: keys: must be tables headed [[keys]], got [1]"]);
    }
}
