//! The ground Hawksbill stands on: one abstraction, its body, its error, and the facts that travel with a request.
//!
//! A [`Turtle`] takes an HTTP request and gives a response. Everything is one: a site table, an access log, a Django
//! project, a directory of files. A layer takes a turtle and gives a turtle, so parts stand under and over each other
//! at any depth. This crate has no sockets, no runtime and no Python in it.
//!
//! | what | for |
//! |---|---|
//! | [`Turtle`], [`Body`], [`Error`] | requests and answers |
//! | [`Peer`], [`Mount`], [`Upgrade`], [`Draining`] | what travels in a request's extensions |
//! | [`AppKind`], [`LayerKind`], [`Registry`] | what a configuration may name |
//! | [`Builder`], [`Generation`] | from configuration to running turtles |
//! | [`Vitals`] | what a generation says of itself while it serves |
//! | [`Meter`], [`Reading`] | how often and how fast something answers |
//! | [`config`] | configuration values and their errors |

pub mod body;
mod builder;
pub mod config;
mod drain;
mod error;
mod histogram;
mod kind;
mod meter;
mod mount;
mod peer;
mod readiness;
mod registry;
pub mod time;
mod turtle;
mod upgrade;
mod vitals;

pub use body::Body;
pub use builder::{BuildError, Builder, Driver, Generation};
pub use drain::Draining;
pub use error::{BoxError, Error, Kind, Side};
pub use histogram::Latencies;
pub use kind::{AnyLayer, App, AppKind, LayerKind};
pub use meter::{Meter, Reading};
pub use mount::Mount;
pub use peer::{Address, Connection, Forwarded, Peer, Scheme};
pub use readiness::{Readiness, Routine};
pub use registry::{AppEntry, LayerEntry, Registry, RegistryError};
pub use turtle::{InfallibleFuture, InfallibleTurtle, IntoTurtle, Turtle, TurtleFuture};
pub use upgrade::{Upgrade, Upgraded};
pub use vitals::{Sample, Stuck, Vitals};
