//! The command line's processes: a supervisor, which opens the sockets and imports nothing, and workers, which are the
//! same program started again.
//!
//! A worker is a whole gateway ([`Role::Gateway`]), or only what stands before the applications ([`Role::Front`]), or one
//! application behind such a front ([`Role::Behind`]); [`Hosting`] says which.

mod applications;
mod crons;
mod deployed;
mod development;
mod entrance;
mod figures;
mod heir;
mod pages;
mod passed;
mod plan;
mod practice;
mod preload;
mod private;
mod programs;
mod pulse;
mod ready;
mod services;
mod sockets;
mod supervise;
mod touch;
mod venv;
mod worker;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::LogLevel;

pub(crate) use self::deployed::Deploy;
use self::development::Development;
pub(crate) use self::development::{Counted, develop, notice as development_notice};
pub(crate) use self::figures::{FIGURES, Told};
pub(crate) use self::heir::Upgrades;
pub(crate) use self::plan::Hosting;
pub(crate) use self::practice::{Change, Facts, Request};
pub(crate) use self::supervise::{AtStart, Supervised, supervise};
pub(crate) use self::worker::work;

/// The subcommand that is a worker.
pub(crate) const WORKER: &str = "_worker";

/// The subcommand that becomes a worker of another user.
pub(crate) const LAUNCHER: &str = "_launch";

/// What a worker is told at its start.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    /// The tree of values that is its configuration ([`Value::carry`](hawksbill_core::config::Value::carry)).
    config: String,
    /// The directory from which relative paths count.
    dir: String,
    log_level: LogLevel,
    /// What the supervisor calls it.
    name: String,
    role: Role,
    /// The application whose readiness path is asked, and how long it may take.
    ready: Option<Probe>,
    /// Where somebody edits the application.
    #[serde(default)]
    development: Option<Development>,
}

/// What a worker is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    /// A whole gateway, on the sockets that it inherits.
    Gateway,
    /// A gateway whose applications are elsewhere: their pools have their names.
    Front,
    /// One application. Its socket is in this directory.
    Behind { app: String, dir: PathBuf },
}

/// A question that has to be answered well before a worker serves.
#[derive(Debug, Serialize, Deserialize)]
struct Probe {
    app: String,
    path: String,
    host: String,
}

/// What a worker behind a front says of itself when it is ready.
#[derive(Debug, Serialize, Deserialize)]
struct Reached {
    /// Its socket.
    path: PathBuf,
    /// In development.
    #[serde(default)]
    told: development::Told,
}

/// What is told to those that serve when the gateway will drain soon.
const CLOSING: &str = "closing";

/// How many requests both ends of the hop take at a time where the application has no bound of its own: WebSocket
/// connections are among them.
const MOST_STREAMS: u32 = 1 << 16;

/// How the hop behaves, at both ends.
fn hop_settings() -> hawksbill_hop::Settings {
    let mut settings = hawksbill_hop::Settings::default();
    settings.limits.streams = MOST_STREAMS;
    settings
}
