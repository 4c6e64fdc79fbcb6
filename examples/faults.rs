//! Faults done to the real program on purpose, at length: one table of what came of them, and exit code 1 if any count is
//! not as it must be.
//!
//! `cargo run --release --no-default-features --features light --example faults -- [--kills N] [--flips N]
//! [--truncations N] [--seed N]`. Asked to `serve`, this program is `nearhit`, so that what is tested is what was built.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use nearhit::cli::{Cli, run};

#[path = "../tests/it/faults/mod.rs"]
mod faults;

use faults::damage::{Damage, run as damage};
use faults::{DAMAGE, Loss, Ran, disk, kill, sync, trace};

/// Break things and count.
#[derive(Debug, Parser)]
struct Sizes {
    /// SIGKILLs in the middle of traffic.
    #[arg(long, default_value_t = 2000)]
    kills: u64,
    /// Data folders with one bit flipped.
    #[arg(long, default_value_t = 2000)]
    flips: u64,
    /// Data folders with one file cut short.
    #[arg(long, default_value_t = 2000)]
    truncations: u64,
    /// Of the traffic, and of what is damaged when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "serve") {
        return match run(Cli::parse()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("nearhit: {failure}");
                ExitCode::from(failure.code())
            }
        };
    }
    let sizes = Sizes::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    ExitCode::from(u8::from(!runtime.block_on(all(&sizes))))
}

/// Whether every count is as it must be.
async fn all(sizes: &Sizes) -> bool {
    let Sizes { kills, flips, truncations, seed } = *sizes;
    println!("{:14} {COLUMNS}", "fault");
    let mut good = true;
    if kills > 0 {
        good &= report("kill -9", kill::run(kills, seed), Loss::None).await;
    }
    if flips > 0 {
        good &= report("flipped bit", damage(Damage::Flip, flips, seed), DAMAGE).await;
    }
    if truncations > 0 {
        good &= report("cut file", damage(Damage::Truncation, truncations, seed), DAMAGE).await;
    }
    good &= report("full disk", disk::full(seed), Loss::None).await;
    good &= report("read-only disk", disk::read_only(seed), Loss::None).await;
    good &= report("failing sync", sync::run(seed), Loss::None).await;
    good & report("sync, then 201", trace::run(seed), Loss::None).await
}

/// One line of the table; what was wrong goes to stderr.
async fn report(fault: &str, ran: impl Future<Output = Ran>, may_lose: Loss) -> bool {
    let started = Instant::now();
    let counts = match ran.await {
        Ran::Counted(counts) => counts,
        Ran::Skipped(reason) => {
            println!("{fault:14} skipped: {reason}");
            return true;
        }
    };
    let violations = counts.violations(may_lose);
    let verdict = if violations.is_empty() { "good" } else { "BAD" };
    println!(
        "{fault:14} {:>7} {:>9} {:>7} {:>10} {:>6} {:>13} {:>7} {:>7} {:>6}  {verdict}",
        counts.faults,
        counts.checked,
        counts.lost,
        counts.unreported,
        counts.wrong,
        counts.failed_starts,
        counts.crashes,
        counts.broken,
        started.elapsed().as_secs(),
    );
    for line in violations.iter().chain(&counts.notes).filter(|_| !violations.is_empty()) {
        eprintln!("    {fault}: {line}");
    }
    violations.is_empty()
}

const COLUMNS: &str = " faults   checked    lost unreported  wrong failed starts crashes  broken   secs";
