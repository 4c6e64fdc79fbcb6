//! Tests of the program as a whole, all in one binary: each starts the real `nearhit` and talks to it as a client would.

mod api;
mod architecture;
mod bad_input;
mod cli;
mod clients;
mod compat;
mod faults;
#[cfg(feature = "candle")]
mod forward;
mod freshness;
#[cfg(feature = "bundled-model")]
mod golden;
#[cfg(feature = "grpc")]
mod grpc;
mod keys;
mod parts;
mod pressure;
mod proxy;
mod readme;
mod reload;
mod restart;
#[cfg(feature = "candle")]
mod stream;
mod support;
mod upstream;
