//! The command line's processes: a supervisor, which opens the sockets and imports nothing, and workers, which are the
//! same program started again and hold a gateway each.

mod plan;
mod practice;
mod sockets;
mod supervise;
mod worker;

use serde::{Deserialize, Serialize};

pub(crate) use self::plan::Hosting;
pub(crate) use self::practice::{Change, Deploy, Facts, Request};
pub(crate) use self::supervise::{Supervised, supervise};
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
    log_level: String,
    /// The application whose readiness path is asked, and how long it may take.
    ready: Option<Probe>,
}

/// A question that has to be answered well before a worker serves.
#[derive(Debug, Serialize, Deserialize)]
struct Probe {
    app: String,
    path: String,
    host: String,
    seconds: f64,
}
