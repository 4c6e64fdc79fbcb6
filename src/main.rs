//! The `nearhit` program: reads its arguments, runs the command, and exits as sysexits(3) says.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use nearhit::cli::{Cli, run};

/// A hit allocates some hundred small pieces: with the C library's allocator it takes a third more processor time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version come this way too; they go to stdout and end well.
        Err(answer) => {
            let shown = answer.print();
            return ExitCode::from(if answer.use_stderr() || shown.is_err() { USAGE } else { 0 });
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("nearhit: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

/// EX_USAGE of sysexits(3): the command was used wrongly.
const USAGE: u8 = 64;
