//! `nearhit eval`: how much would the cache serve of a dataset, and how much of that wrongly?
//!
//! In process, with the real model, cache and local store: what is measured is what would serve. Every text is
//! embedded once, however many budgets and orders are asked for. It knows no thresholds of its own: the curve shows
//! them all, and `chosen` is whatever the cache decides.

mod args;
mod curve;
mod measure;
mod memo;
mod progress;
mod questions;
mod replay;
mod report;
mod rows;
mod table;

use std::io::Write;

pub use args::EvalArgs;
pub use rows::DatasetError;

/// Measures, and prints the report to stdout.
///
/// # Errors
/// The dataset cannot be read or is malformed ([`DatasetError`]), no embedder or store can be opened, or the report
/// cannot be written.
pub async fn run(args: &EvalArgs) -> anyhow::Result<()> {
    let report = measure::measure(args).await?;
    let text = if args.json { serde_json::to_string(&report)? } else { table::of(&report) };
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", text.trim_end())?;
    Ok(())
}
