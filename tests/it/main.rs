//! Tests of the program as a whole, all in one binary: each starts the real `nearhit` and talks to it as a client would.

mod api;
mod bad_input;
mod proxy;
mod support;
