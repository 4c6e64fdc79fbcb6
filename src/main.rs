//! The `nearhit` program: reads its arguments, runs the command, and exits as sysexits(3) says.

use std::process::ExitCode;

use clap::Parser;
use nearhit::cli::{Cli, run};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("nearhit: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
