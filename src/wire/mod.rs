//! Providers' JSON and event streams to and from the decision types. Pure: bytes and values in, values out.

pub mod answer;
mod chat;
pub mod compat;
mod completions;
pub mod controls;
pub(crate) mod edit;
mod embeddings;
pub(crate) mod hint;
pub mod json;
mod messages;
pub mod outline;
pub mod parts;
pub mod problem;
pub mod request;
mod responses;
pub(crate) mod spend;
pub(crate) mod sse;
pub(crate) mod stop;
pub(crate) mod trim;
pub mod usage;
pub mod verdict;
