//! Scenarios over real Unix sockets: a front's end and a worker's, and what passes between them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a scenario fails by panicking")]

mod bodies;
mod cancel;
mod drain;
mod facts;
mod pool;
mod rules;
mod support;
mod upgrade;
