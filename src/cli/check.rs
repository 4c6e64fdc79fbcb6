//! `nearhit check`: would this configuration work?

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use super::judge::{judge_key, open_judge};
use super::settings::read_config;
use crate::config::{AccessConfig, Config};
use crate::server::keys::KeyFile;
use crate::upstream::judge::JudgeSettings;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Configuration file (TOML).
    config: PathBuf,
}

/// Checks every key, that the models it names can be loaded or asked, and that the providers' keys can be read.
pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let config = read_config(Some(&args.config), &[])?;
    super::keys::provider_keys(&config.upstream)?;
    let judge = |settings: &JudgeSettings| {
        let key = judge_key(settings).transpose()?;
        open_judge(settings, key.as_ref())
    };
    #[cfg(feature = "candle")]
    if let crate::config::EmbedModel::Local(_) = config.embed.model
        && let Err(error) = super::serve::open_embedder(&config)
    {
        return Err(Failure::config(format!("{}: embed.model: {error}", args.config.display())));
    }
    if let Some(Err(error)) = config.judge.as_ref().map(judge) {
        return Err(Failure::config(format!("{}: {error}", args.config.display())));
    }
    if let Some(warning) = unused_keys(&config) {
        eprintln!("{}: {warning}", args.config.display());
    }
    println!("{}: ok (data in {})", args.config.display(), config.data_dir.display());
    Ok(())
}

/// Whether the operator's keys for providers would be sent for nobody: they stand in for callers with a key of nearhit's.
fn unused_keys(config: &Config) -> Option<String> {
    let AccessConfig { require_keys, keys, limits: _ } = &config.access;
    let kept = KeyFile::new(&config.data_dir).read();
    let has_keys = *require_keys || !keys.is_empty() || !matches!(kept, Ok(None));
    let endpoint = config.upstream.endpoints.iter().find(|endpoint| endpoint.key.is_some() && endpoint.is_default())?;
    let name = &endpoint.name;
    (!has_keys).then(|| {
        format!(
            "upstream.{name}_key_env or _key_file is sent for nobody yet: it stands in for callers with a key of \
             nearhit's own (nearhit key create), and there is none"
        )
    })
}
