//! The keys with which nearhit calls others, from where the configuration says they are.

use std::collections::HashMap;

use super::Failure;
use crate::upstream::{Endpoint, KeySource, ProviderKey, UpstreamSettings};

/// By the upstream's name.
pub(super) fn provider_keys(settings: &UpstreamSettings) -> Result<HashMap<String, ProviderKey>, Failure> {
    let (keys, problems) = read_provider_keys(settings);
    if problems.is_empty() { Ok(keys) } else { Err(Failure::config(problems.join("\n"))) }
}

/// Those that can be read, and what is wrong with the others.
pub(super) fn read_provider_keys(settings: &UpstreamSettings) -> (HashMap<String, ProviderKey>, Vec<String>) {
    let read = |endpoint: &Endpoint| {
        let name = &endpoint.name;
        let section = if endpoint.is_default() { format!("upstream.{name}_") } else { format!("upstream {name:?}: ") };
        Some((name.clone(), read_key(&section, endpoint.key.as_ref()?)))
    };
    let (mut keys, mut problems) = (HashMap::new(), Vec::new());
    for (name, key) in settings.endpoints.iter().filter_map(read) {
        match key {
            Ok(key) => drop(keys.insert(name, key)),
            Err(problem) => problems.push(problem),
        }
    }
    (keys, problems)
}

/// The error says where the key should be, never the key; `section` is what stands before `key_env` there.
pub(super) fn read_key(section: &str, source: &KeySource) -> Result<ProviderKey, String> {
    let (place, text) = match source {
        KeySource::Env(name) => (
            format!("{section}key_env: the environment variable {name:?}"),
            // The error of a variable that is no text shows its value.
            std::env::var(name).map_err(|_| "is not set, or is no text".to_owned()),
        ),
        KeySource::File(path) => {
            (format!("{section}key_file: {}", path.display()), std::fs::read_to_string(path).map_err(|e| e.to_string()))
        }
    };
    let key = text.and_then(|text| ProviderKey::new(&text).map_err(|error| error.to_string()));
    key.map_err(|error| format!("{place}: {error}"))
}
