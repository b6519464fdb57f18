//! Scenarios over real sockets, in raw bytes: what a client sends, what it gets, when the connection ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a scenario fails by panicking")]

mod bodies;
mod drain;
mod forwarded;
mod http1;
mod http2;
mod misbehaviour;
mod refused;
mod sockets;
mod support;
mod timeouts;
mod upgrade;
