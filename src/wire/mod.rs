//! Providers' JSON and event streams to and from the decision types. Pure: bytes and values in, values out.

pub mod chat;
pub mod controls;
pub mod json;
pub mod outline;
pub mod problem;
pub mod sse;
pub mod usage;
pub mod verdict;
