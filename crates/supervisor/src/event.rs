//! What happens, for logs and for the program around the supervisor.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Something that happened to a process or a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A process was started.
    Started {
        /// Its place.
        of: Of,
        /// Its number at the system.
        pid: u32,
    },
    /// It has loaded everything.
    Ready {
        /// Its place.
        of: Of,
        /// What it said.
        info: Value,
    },
    /// It serves.
    Serving {
        /// Its place.
        of: Of,
    },
    /// It asked to be replaced.
    Stuck {
        /// Its place.
        of: Of,
        /// What hangs.
        what: String,
        /// What it hangs in.
        detail: String,
    },
    /// It is going to be replaced, once there is a replacement.
    Retiring {
        /// Its place.
        of: Of,
        /// Why.
        reason: String,
    },
    /// It was told to drain.
    Draining {
        /// Its place.
        of: Of,
    },
    /// It did not end in time.
    Killed {
        /// Its place.
        of: Of,
    },
    /// It has ended.
    Ended {
        /// Its place.
        of: Of,
        /// How, in words.
        exit: String,
        /// Whether it had been asked to.
        expected: bool,
        /// What it said before, or wrote last.
        message: Option<String>,
        /// Whether a plan fails with it, whose answer says all that.
        answered: bool,
    },
    /// Processes of this pool keep dying; the next start is put off.
    PutOff {
        /// The pool.
        pool: String,
        /// For how many seconds.
        seconds: f64,
    },
    /// The process of a pool has ended, and there is to be no other.
    Finished {
        /// The pool.
        pool: String,
        /// How, in words.
        exit: String,
    },
    /// A plan is put into practice.
    Applied {
        /// The number of the new generation.
        generation: u64,
        /// The pools that changed.
        pools: Vec<String>,
    },
    /// A plan failed, and the former one goes on.
    Refused {
        /// Why.
        message: String,
    },
    /// A pool went back to the generation before.
    RolledBack {
        /// The pool.
        pool: String,
        /// That generation.
        generation: u64,
    },
    /// The pool has another number of processes.
    Scaled {
        /// The pool.
        pool: String,
        /// The number.
        target: u32,
    },
}

/// A process's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Of {
    /// Its pool.
    pub pool: String,
    /// Its number at the supervisor.
    pub process: u64,
    /// Its generation.
    pub generation: u64,
}
