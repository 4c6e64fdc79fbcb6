//! What differs between two configurations, and what of it only a start takes up.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use toml::Table;

use super::{AccessConfig, Config, ConfigErrors, EmbedConfig, EmbedModel, Override, Reader, broken, leaves};
use crate::cache::CacheSettings;
use crate::decision::CacheName;
use crate::server::ServeSettings;
use crate::store::{Limit, Limits, StoreSettings};
use crate::templates::TemplateSettings;

/// Every key that is set, as it is written, flags over the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written(BTreeMap<String, String>);

impl Written {
    /// # Errors
    /// `text` is not TOML.
    pub fn parse(file: &str, text: &str, overrides: &[Override]) -> Result<Self, ConfigErrors> {
        let table: Table = text.parse().map_err(|error| broken(file, text, &error))?;
        let mut reader = Reader { table, file, origins: HashMap::new(), problems: Vec::new(), has_judge_model: false };
        overrides.iter().for_each(|over| reader.overrule(over));
        let mut written = BTreeMap::new();
        leaves("", &reader.table, &mut written);
        Ok(Self(written))
    }

    /// The keys that say something else in `other`, or stand in one of both only.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let keys: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        keys.into_iter().filter(|key| self.0.get(*key) != other.0.get(*key)).cloned().collect()
    }
}

impl Config {
    /// The keys that have another value in `other`, and that a running server cannot take up.
    pub fn needs_restart(&self, other: &Self) -> Vec<String> {
        let Self {
            data_dir,
            tenancy,
            access: AccessConfig { require_keys, keys: _, limits: _ },
            serve,
            upstream: _,
            savings: _,
            store,
            embed,
            cache: CacheSettings { templates, .. },
            judge: _,
            answer_bytes_max: _,
            temperature_max: _,
            coalesce: _,
            coalesce_semantic: _,
            replay: _,
            compats: _,
            figures: _,
            tool_calls: _,
        } = self;
        let mut keys = Vec::new();
        let mut note = |key: &str, differs: bool| keys.extend(differs.then(|| key.to_owned()));
        note("data_dir", *data_dir != other.data_dir);
        note("tenancy", *tenancy != other.tenancy);
        // Once calls needed a key, a running server goes on asking for it.
        note("require_keys", *require_keys && !other.access.require_keys);
        note_serve(serve, &other.serve, &mut note);
        note_embed(embed, &other.embed, &mut note);
        note_templates(templates, &other.cache.templates, &mut note);
        note_store(store, &other.store, &mut note);
        keys
    }
}

fn note_serve(was: &ServeSettings, is: &ServeSettings, note: &mut impl FnMut(&str, bool)) {
    let ServeSettings {
        listen,
        admin_listen,
        insecure,
        strict,
        body_bytes_max,
        bodies_bytes_max,
        body_patience,
        connections_max,
        idle,
        drain,
    } = was;
    note("serve.listen", *listen != is.listen);
    note("serve.admin_listen", *admin_listen != is.admin_listen);
    note("serve.insecure", *insecure != is.insecure);
    note("serve.strict", *strict != is.strict);
    note("serve.body_bytes_max", *body_bytes_max != is.body_bytes_max);
    note("serve.bodies_bytes_max", *bodies_bytes_max != is.bodies_bytes_max);
    note("serve.body_timeout_s", *body_patience != is.body_patience);
    note("serve.connections_max", *connections_max != is.connections_max);
    note("serve.idle_timeout_s", *idle != is.idle);
    note("serve.drain_s", *drain != is.drain);
}

fn note_embed(was: &EmbedConfig, is: &EmbedConfig, note: &mut impl FnMut(&str, bool)) {
    let EmbedConfig {
        model,
        hardware,
        precision,
        engine,
        workers,
        queue_length,
        memo_bytes,
        proxy_patience: _,
        api_patience: _,
    } = was;
    match (model, &is.model) {
        (EmbedModel::External { dimensions: was }, EmbedModel::External { dimensions: is }) => {
            note("embed.dimensions", was != is);
        }
        (was, is) => note("embed.model", was != is),
    }
    note("embed.hardware", *hardware != is.hardware);
    note("embed.precision", *precision != is.precision);
    note("embed.engine", *engine != is.engine);
    note("embed.workers", *workers != is.workers);
    note("embed.queue_length", *queue_length != is.queue_length);
    note("embed.memo_bytes", *memo_bytes != is.memo_bytes);
}

/// Keys of the template tier are made by the roles, and what is learnt is bounded from the start.
fn note_templates(was: &TemplateSettings, is: &TemplateSettings, note: &mut impl FnMut(&str, bool)) {
    let TemplateSettings { refill, refill_after, keys_max, roles } = was;
    note("templates.refill", *refill != is.refill);
    note("templates.refill_after", *refill_after != is.refill_after);
    note("templates.keys_max", *keys_max != is.keys_max);
    note("templates.roles", *roles != is.roles);
}

fn note_store(was: &StoreSettings, is: &StoreSettings, note: &mut impl FnMut(&str, bool)) {
    let (was, is) = match (was, is) {
        (StoreSettings::Memory, StoreSettings::Memory) => return,
        // Where the folder is follows from data_dir.
        (
            StoreSettings::Local { folder: _, durability: was, limits: was_limits },
            StoreSettings::Local { folder: _, durability: is, limits: is_limits },
        ) => {
            note("store.durability", was != is);
            (was_limits, is_limits)
        }
        (StoreSettings::Memory, StoreSettings::Local { .. }) | (StoreSettings::Local { .. }, StoreSettings::Memory) => {
            return note("store.kind", true);
        }
    };
    let Limits { total, each, caches } = was;
    note_limit("store.", total, &is.total, note);
    note_limit("store.cache_", each, &is.each, note);
    let names: BTreeSet<&CacheName> = caches.keys().chain(is.caches.keys()).collect();
    for name in names {
        note_limit(&format!("caches.{name}."), &was.of(name), &is.of(name), note);
    }
}

fn note_limit(prefix: &str, was: &Limit, is: &Limit, note: &mut impl FnMut(&str, bool)) {
    let Limit { entries, bytes } = was;
    note(&format!("{prefix}entries_max"), *entries != is.entries);
    note(&format!("{prefix}bytes_max"), *bytes != is.bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse("nearhit.toml", text, &[], "/data".into()).unwrap_or_else(|errors| panic!("{text}: {errors}"))
    }

    /// Every key of the shipped file is either taken up by a running server or named, and those that are named are these.
    #[test]
    fn what_needs_a_restart_is_named() {
        let check = |was: &str, is: &str, keys: &[&str]| {
            assert_eq!(parse(was).needs_restart(&parse(is)), keys, "{was} -> {is}");
            assert_eq!(parse(is).needs_restart(&parse(is)), [""; 0], "{is}");
        };
        check("", "data_dir = \"/elsewhere\"", &["data_dir"]);
        check("", "tenancy = \"single\"", &["tenancy"]);
        check("require_keys = true", "", &["require_keys"]);
        check("", "require_keys = true", &[]);
        check(
            "",
            "[serve]\nlisten = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:2\"\ninsecure = true\nstrict = true\n\
             body_bytes_max = 1\nbodies_bytes_max = 1\nbody_timeout_s = 1\nconnections_max = 1\nidle_timeout_s = 1\ndrain_s = 1",
            &[
                "serve.listen",
                "serve.admin_listen",
                "serve.insecure",
                "serve.strict",
                "serve.body_bytes_max",
                "serve.bodies_bytes_max",
                "serve.body_timeout_s",
                "serve.connections_max",
                "serve.idle_timeout_s",
                "serve.drain_s",
            ],
        );
        check("", "[serve]\nlisten = \"127.0.0.1:8080\"", &[]);
        check(
            "[embed]\nworkers = 1",
            "[embed]\nmodel = \"external\"\nhardware = \"cuda\"\nprecision = \"f32\"\nengine = \"portable\"\n\
             workers = 2\nqueue_length = 1\nmemo_bytes = 0\nproxy_patience_ms = 1\napi_patience_ms = 1",
            &[
                "embed.model",
                "embed.hardware",
                "embed.precision",
                "embed.engine",
                "embed.workers",
                "embed.queue_length",
                "embed.memo_bytes",
            ],
        );
        let external = |dimensions: u32| format!("[embed]\nmodel = \"external\"\ndimensions = {dimensions}");
        check(&external(3), &external(4), &["embed.dimensions"]);
        check(
            "",
            "[templates]\nrefill = true\nrefill_after = 3\nkeys_max = 1\n[templates.roles]\nname = \"echoed\"",
            &["templates.refill", "templates.refill_after", "templates.keys_max", "templates.roles"],
        );
        check("", "[store]\nkind = \"memory\"", &["store.kind"]);
        check(
            "[caches.a]\nentries_max = 1",
            "[store]\ndurability = \"each\"\nentries_max = 9\ncache_bytes_max = 8\n[caches.a]\nentries_max = 2\nbytes_max = 8\n\
             [caches.b]\nbytes_max = 1",
            &[
                "store.durability",
                "store.entries_max",
                "store.cache_bytes_max",
                "caches.a.entries_max",
                "caches.a.bytes_max",
                "caches.b.bytes_max",
            ],
        );
        let live = "compat = [\"helicone\"]\n[upstream]\nopenai = \"http://x/v1\"\n[[upstreams]]\nname = \"a\"\nurl = \"http://y/v1\"\nmodels = [\"*\"]\n\
                    [aliases]\nb = \"c\"\n[[savings]]\nmax_tokens = 1\n[cache]\nmax_error = 0.1\nthreshold = 0.5\njudge = \"words\"\nshadow = true\nttl_s = 1\n\
                    perishable = \"miss\"\ncontext = \"semantic\"\ncoalesce = false\ncoalesce_semantic = true\nreplay = \"original\"\nanswer_bytes_max = 1\n\
                    temperature_max = 1.0\n[caches.d]\nshadow = false\n[judge]\nmodel = \"m\"\n[limits]\nin_flight = 1\n\
                    [tenants.t]\nin_flight = 2\n";
        check("", live, &[]);
    }

    #[test]
    fn differences_are_named_by_their_keys() {
        let written = |text: &str, overrides: &[Override]| Written::parse("f", text, overrides).expect("TOML");
        let was = written("[cache]\nttl_s = 1\nshadow = true\n[[keys]]\nid = \"a\"", &[]);
        let is = written("[cache]\nttl_s = 2\nshadow = true\n[serve]\nstrict = true\n[[keys]]\nid = \"b\"", &[]);
        assert_eq!(was.differences(&is), ["cache.ttl_s", "keys", "serve.strict"]);
        assert_eq!(was.differences(&was), [""; 0]);
        // What a flag says stands over whatever the file says.
        let over = [Override { key: "cache.ttl_s", origin: "--x".into(), value: "7".into() }];
        let (was, is) = (written("[cache]\nttl_s = 1", &over), written("[cache]\nttl_s = 2", &over));
        assert_eq!(was.differences(&is), [""; 0]);
        assert!(Written::parse("f", "[serve", &[]).is_err());
    }
}
