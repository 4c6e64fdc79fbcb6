//! `nearhit eval`: how much would the cache serve of a dataset, and how much of that wrongly?
//!
//! In process, with the real model, cache and local store: what is measured is what would serve. Every text is
//! embedded once, however many budgets and orders are asked for. It knows no thresholds of its own: the curve shows
//! them all, and `chosen` is whatever the cache decides.

mod args;
mod curve;
mod held_out;
mod measure;
mod memo;
mod progress;
mod questions;
mod replay;
mod replayed;
mod report;
mod rows;
mod table;

use std::io::Write;

pub use args::EvalArgs;

/// Measures, and prints the report to stdout.
///
/// # Errors
/// A [`Failure`](super::Failure) where the dataset cannot be read or is malformed, or there is no such model; anything
/// else where the store fails, the report cannot be written, or the user interrupts.
pub async fn run(args: &EvalArgs) -> anyhow::Result<()> {
    // An interrupt drops the measurement, which removes its temporary store.
    let report = tokio::select! {
        report = measure::measure(args) => report?,
        interrupt = tokio::signal::ctrl_c() => return Err(interrupt.map_or_else(Into::into, |()| anyhow::anyhow!("interrupted"))),
    };
    let text = if args.json { serde_json::to_string(&report)? } else { table::of(&report) };
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", text.trim_end())?;
    Ok(())
}
