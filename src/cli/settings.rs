//! The flags of `serve`, and the configuration they amount to with the file.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::BoolishValueParser;

use super::Failure;
use crate::config::{Config, Override, Written};

/// Each flag overrules its environment variable, and that the file.
#[derive(Debug, Clone, Args)]
pub(super) struct ServeArgs {
    /// Configuration file (TOML).
    #[arg(long, env = "NEARHIT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the data listener [default: 127.0.0.1:8080].
    #[arg(long, env = "NEARHIT_LISTEN", value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address of the admin listener [default: 127.0.0.1:8081].
    #[arg(long, env = "NEARHIT_ADMIN_LISTEN", value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// Where entries are kept [default: the platform's data folder].
    #[arg(long, env = "NEARHIT_DATA_DIR", value_name = "DIR")]
    data_dir: Option<String>,
    /// What an OpenAI client would be given as base URL [default: https://api.openai.com/v1].
    #[arg(long, env = "NEARHIT_UPSTREAM", value_name = "URL")]
    upstream: Option<String>,
    /// What an Anthropic client would be given as base URL [default: https://api.anthropic.com].
    #[arg(long, env = "NEARHIT_ANTHROPIC_UPSTREAM", value_name = "URL")]
    anthropic_upstream: Option<String>,
    /// What vectors are computed in: auto, f32, bf16 or int8 [default: auto].
    #[arg(long, env = "NEARHIT_EMBED_PRECISION", value_name = "PRECISION")]
    embed_precision: Option<String>,
    /// What computes them: auto, amx, avx512, avx2, neon, portable or candle [default: auto].
    #[arg(long, env = "NEARHIT_EMBED_ENGINE", value_name = "ENGINE")]
    embed_engine: Option<String>,
    /// Listen on addresses other than this machine's own without keys.
    #[arg(long, env = "NEARHIT_INSECURE", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", value_parser = BoolishValueParser::new())]
    insecure: Option<bool>,
    /// Refuse to start in a degraded state.
    #[arg(long, env = "NEARHIT_STRICT", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", value_parser = BoolishValueParser::new())]
    strict: Option<bool>,
}

impl ServeArgs {
    /// The configuration, and how it is written.
    pub(super) fn read(&self) -> Result<(Config, Written), Failure> {
        let Self {
            config,
            listen,
            admin_listen,
            data_dir,
            upstream,
            anthropic_upstream,
            embed_precision,
            embed_engine,
            insecure,
            strict,
        } = self;
        let texts = [
            ("serve.listen", "--listen", listen),
            ("serve.admin_listen", "--admin-listen", admin_listen),
            ("data_dir", "--data-dir", data_dir),
            ("upstream.openai", "--upstream", upstream),
            ("upstream.anthropic", "--anthropic-upstream", anthropic_upstream),
            ("embed.precision", "--embed-precision", embed_precision),
            ("embed.engine", "--embed-engine", embed_engine),
        ];
        let flags = [("serve.insecure", "--insecure", insecure), ("serve.strict", "--strict", strict)];
        let texts = texts.into_iter().map(|(key, origin, value)| (key, origin, value.clone()));
        let flags = flags.into_iter().map(|(key, origin, set)| (key, origin, set.map(|set| set.to_string())));
        let overrides: Vec<Override> = texts
            .chain(flags)
            .filter_map(|(key, origin, value)| Some(Override { key, origin: origin.into(), value: value? }))
            .collect();
        read_written(config.as_deref(), &overrides)
    }
}

/// Reads and checks the file, or the defaults without one.
pub(super) fn read_config(file: Option<&Path>, overrides: &[Override]) -> Result<Config, Failure> {
    read_written(file, overrides).map(|(config, _)| config)
}

fn read_written(file: Option<&Path>, overrides: &[Override]) -> Result<(Config, Written), Failure> {
    let (name, text) = match file {
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|error| Failure::no_input(format!("{name}: {error}")))?;
            (name, text)
        }
        None => ("defaults".to_owned(), String::new()),
    };
    let default_data_dir = dirs::data_dir().unwrap_or_else(|| PathBuf::from(".")).join("nearhit");
    let config = Config::parse(&name, &text, overrides, default_data_dir);
    let both = config.and_then(|config| Ok((config, Written::parse(&name, &text, overrides)?)));
    both.map_err(|errors| Failure::config(errors.to_string()))
}
