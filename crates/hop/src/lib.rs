//! The hop from the front, which has the clients, to a worker process, which has one application.
//!
//! Both ends are here. The front asks a [`Connection`], or a [`Pool`] of several workers; both give a
//! [`Turtle`](hawksbill_core::Turtle). At the other end of the Unix socket a [`Worker`] asks the turtle that it was given.
//! What passes: requests and answers with bodies and trailers, as long as both ends have room for them; upgraded
//! connections as bytes; cancellation in both directions; errors with their kinds; and the facts about a client's
//! connection ([`Peer`](hawksbill_core::Peer)) and the [`Mount`](hawksbill_core::Mount), which stand in fields of their own
//! and not among the headers, so that no client can forge them.
//!
//! The protocol is private: both ends are of one house, if not of one version. What it looks like is told in [`wire`].
//!
//! | rule | where |
//! |---|---|
//! | what is queued in one turn of the reactor goes out in one system call, but nothing waits longer than 250 µs for others | `link`, `driver` |
//! | who does not read holds up no other stream, and costs at most its window ([`Limits::window`](wire::Limits::window)) | `stream`, `send` |
//! | at most a megabyte of bodies waits to be written on a connection | `link` |
//! | a request whose last byte the socket has not taken is known to be unseen, and may be given to another worker | `call`, `pool` |
//! | an end that breaks a rule loses the connection, nothing else | `driver` |

mod answer;
mod body;
mod call;
mod connection;
mod driver;
mod fault;
mod link;
mod members;
mod outbox;
mod peers;
mod pool;
mod seat;
mod send;
mod settings;
mod stream;
mod tunnel;
pub mod wire;
mod worker;

pub use connection::Connection;
pub use fault::Fault;
pub use pool::{Pool, PoolSettings, WorkerId, WorkerStatus};
pub use settings::{Settings, Transport};
pub use worker::Worker;
