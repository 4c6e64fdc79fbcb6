//! `nearhit check`: would this configuration work?

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use super::settings::read_config;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Configuration file (TOML).
    config: PathBuf,
}

/// Checks every key, that the models it names can be loaded or asked, and that the providers' keys can be read.
pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let config = read_config(Some(&args.config), &[])?;
    super::keys::provider_keys(&config.upstream)?;
    #[cfg(feature = "candle")]
    if let crate::config::EmbedModel::Local(_) = config.embed.model
        && let Err(error) = super::serve::open_embedder(&config)
    {
        return Err(Failure::config(format!("{}: embed.model: {error}", args.config.display())));
    }
    if let Some(Err(error)) = config.judge.as_ref().map(super::judge::open_judge) {
        return Err(Failure::config(format!("{}: {error}", args.config.display())));
    }
    println!("{}: ok (data in {})", args.config.display(), config.data_dir.display());
    Ok(())
}
