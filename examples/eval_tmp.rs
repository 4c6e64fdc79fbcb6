#![allow(unused_imports)]
pub use nearhit::{cache, clock, decision, embed, store, wire};
mod cli {
    #[path = "/work/main/src/cli/eval/mod.rs"]
    pub mod eval;
}
use clap::Parser;
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: cli::eval::EvalArgs,
}
fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let line = Line::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(cli::eval::run(&line.args))
}
