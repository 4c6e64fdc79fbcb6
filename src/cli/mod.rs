//! The command line. Data goes to stdout, progress and logs to stderr; exit codes follow sysexits(3).

mod check;
mod client;
mod entries;
#[cfg(all(feature = "candle", feature = "local"))]
mod eval;
mod failure;
mod files;
mod judge;
mod key;
mod keys;
mod learned;
#[cfg(feature = "candle")]
mod model;
mod reload;
mod serve;
mod settings;
mod templates;
mod transfer;
mod tune;

use std::io::IsTerminal;

use clap::{Parser, Subcommand};

pub use self::failure::Failure;

/// A semantic cache for LLM calls.
#[derive(Debug, Parser)]
#[command(name = "nearhit", version, about, max_term_width = 100)]
pub struct Cli {
    /// What is logged: error, warn, info, debug, trace, or a filter such as nearhit=debug.
    #[arg(long, global = true, env = "NEARHIT_LOG", default_value = "info")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the cache: provider paths, cache API, metrics.
    Serve(settings::ServeArgs),
    /// Check a configuration file; every error at once.
    Check(check::CheckArgs),
    /// Make, list and revoke keys for callers.
    Key(key::KeyArgs),
    /// Search a running server's cache.
    Search(entries::SearchArgs),
    /// Store an answer in a running server's cache.
    Insert(entries::InsertArgs),
    /// Show an entry.
    Get(entries::GetArgs),
    /// Remove one entry, or all that match.
    Delete(entries::DeleteArgs),
    /// Remove every entry of a cache.
    Flush(entries::FlushArgs),
    /// What a cache holds, and what it did.
    Stats(entries::StatsArgs),
    /// Say whether an entry's answer was right.
    Feedback(entries::FeedbackArgs),
    /// Recommend a bound for an error budget, from what a running server compared.
    Tune(tune::TuneArgs),
    /// What the prompts of a cache have in common.
    Templates(templates::TemplatesArgs),
    /// Store the entries of an exported file in a running server.
    Import(transfer::ImportArgs),
    /// Write a running server's entries to a file.
    Export(transfer::ExportArgs),
    /// List, verify or fetch embedding models.
    #[cfg(feature = "candle")]
    Model(model::ModelArgs),
    /// Measure decisions on labelled data, in this process.
    #[cfg(all(feature = "candle", feature = "local"))]
    Eval(eval::EvalArgs),
}

/// Runs the command to its end.
///
/// # Errors
/// What went wrong, and the exit code that says so.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(&cli.log)
        .map_err(|error| Failure::usage(format!("--log: {error}, got {:?}", cli.log)))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::os(format!("could not start: {error}")))?;
    runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(&args).await,
            Command::Check(args) => check::run(&args),
            Command::Key(args) => key::run(&args),
            Command::Search(args) => entries::search(&args).await,
            Command::Insert(args) => entries::insert(&args).await,
            Command::Get(args) => entries::get(&args).await,
            Command::Delete(args) => entries::delete(&args).await,
            Command::Flush(args) => entries::flush(&args).await,
            Command::Stats(args) => entries::stats(&args).await,
            Command::Feedback(args) => entries::feedback(&args).await,
            Command::Tune(args) => tune::tune(&args).await,
            Command::Templates(args) => templates::run(&args).await,
            Command::Import(args) => transfer::import(&args).await,
            Command::Export(args) => transfer::export(&args).await,
            #[cfg(feature = "candle")]
            Command::Model(args) => model::run(&args),
            #[cfg(all(feature = "candle", feature = "local"))]
            Command::Eval(args) => eval::run(&args)
                .await
                .map_err(|error| error.downcast::<Failure>().unwrap_or_else(|error| Failure::os(format!("{error:#}")))),
        }
    })
}
