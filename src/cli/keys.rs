//! The providers' keys, from where the configuration says they are.

use std::collections::HashMap;

use super::Failure;
use crate::upstream::{Endpoint, KeySource, ProviderKey, UpstreamSettings};

/// By the upstream's name.
pub(super) fn provider_keys(settings: &UpstreamSettings) -> Result<HashMap<String, ProviderKey>, Failure> {
    let read = |endpoint: &Endpoint| {
        let source = endpoint.key.as_ref()?;
        Some(read_key(endpoint, source).map(|key| (endpoint.name.clone(), key)))
    };
    settings.endpoints.iter().filter_map(read).collect()
}

fn read_key(endpoint: &Endpoint, source: &KeySource) -> Result<ProviderKey, Failure> {
    let (place, text) = match source {
        KeySource::Env(name) => {
            let place = format!("upstream {:?}: key_env: the environment variable {name:?}", endpoint.name);
            let text = std::env::var(name).map_err(|_| Failure::config(format!("{place} is not set")))?;
            (place, text)
        }
        KeySource::File(path) => {
            let place = format!("upstream {:?}: key_file: {path:?}", endpoint.name);
            let text = std::fs::read_to_string(path).map_err(|error| Failure::config(format!("{place}: {error}")))?;
            (place, text)
        }
    };
    // The error names where the key is, never the key.
    ProviderKey::new(&text).map_err(|error| Failure::config(format!("{place} {error}")))
}
