//! Providers' JSON and event streams to and from the decision types. Pure: bytes and values in, values out.

pub mod answer;
mod chat;
pub mod compat;
mod completions;
pub mod controls;
mod embeddings;
pub mod json;
mod messages;
pub mod outline;
pub mod parts;
pub mod problem;
pub mod request;
mod responses;
pub(crate) mod sse;
pub mod usage;
pub mod verdict;
