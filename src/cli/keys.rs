//! The keys with which nearhit calls others, from where the configuration says they are.

use std::collections::HashMap;

use super::Failure;
use crate::upstream::{Endpoint, KeySource, ProviderKey, UpstreamSettings};

/// By the upstream's name.
pub(super) fn provider_keys(settings: &UpstreamSettings) -> Result<HashMap<String, ProviderKey>, Failure> {
    let read = |endpoint: &Endpoint| {
        let name = &endpoint.name;
        let section = if endpoint.is_default() { format!("upstream.{name}_") } else { format!("upstream {name:?}: ") };
        let key = read_key(&section, endpoint.key.as_ref()?);
        Some(key.map(|key| (name.clone(), key)).map_err(Failure::config))
    };
    settings.endpoints.iter().filter_map(read).collect()
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
