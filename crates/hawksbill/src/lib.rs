//! An embeddable gateway: virtual hosts, routes and layers over applications.
//!
//! The whole gateway in a Rust program, or one turtle of it in another server:
//!
//! ```no_run
//! use hawksbill::{Body, Gateway, Turtle};
//! use http::Response;
//!
//! # async fn example() -> Result<(), hawksbill::BuildError> {
//! let hello = Turtle::from_fn(async |_| Ok(Response::new(Body::from("hello"))));
//! let gateway = Gateway::builder()
//!     .listen("127.0.0.1:8000")
//!     .site("example.com www.example.com", |site| site.route("/", hello))
//!     .build()?;
//! gateway.run().await
//! # }
//! ```
//!
//! What a gateway has to say, and what its applications raise, are events of [`tracing`] with targets that begin with
//! `hawksbill::`; a program that wants to see them installs a subscriber, such as `tracing_subscriber::fmt::init()`.

mod assemble;
mod builder;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
#[cfg(feature = "cli")]
mod control;
#[cfg(feature = "cli")]
mod cron;
mod gateway;
#[cfg(feature = "cli")]
mod log;
#[cfg(feature = "cli")]
mod processes;
mod standard;

pub use hawksbill_apps as apps;
pub use hawksbill_core as core;
pub use hawksbill_core::{
    AppKind, Body, BuildError, Builder, Error, IntoTurtle, Kind, LayerKind, Peer, Registry, RegistryError,
    Side, Turtle,
};
pub use hawksbill_layers as layers;
pub use hawksbill_server as server;

pub use self::builder::{GatewayBuilder, SiteBuilder};
pub use self::config::Config;
pub use self::gateway::{Gateway, Hosted, Running, Shutdown};
pub use self::standard::standard_registry;

/// The version of this gateway.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
