#![doc = "A semantic cache for LLM calls."]

pub mod body;
pub mod cache;
#[cfg(feature = "server")]
pub mod cli;
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
pub mod decision;
pub mod embed;
pub mod layer;
pub mod metrics;
mod record;
#[cfg(feature = "server")]
pub mod server;
pub mod store;
mod tally;
#[cfg(feature = "server")]
pub mod upstream;
pub mod wire;
