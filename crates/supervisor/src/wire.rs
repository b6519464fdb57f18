//! What a supervisor and its processes say to each other: one JSON object a line, over a socket pair.
//!
//! Both sides ignore what they do not know, so that two versions of the program get along: a virtual environment has its
//! own. What cannot be ignored gets another [`VERSION`].

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of this protocol. A process says its own first; the supervisor refuses another.
pub const VERSION: u32 = 1;

/// The longest line that a supervisor reads, in bytes.
pub(crate) const MAX_REPORT: usize = 1 << 20;

/// The longest line that a process reads, in bytes.
pub(crate) const MAX_ORDER: usize = 1 << 26;

/// What a process says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub(crate) enum Report {
    /// The first thing said.
    Hello {
        /// See [`VERSION`].
        version: u32,
    },
    /// A preloader has loaded everything; processes may be forked from it.
    Preloaded,
    /// A preloader has forked a process.
    Forked {
        /// The number that the supervisor gave to what it asked for.
        process: u64,
        /// The process's number at the system.
        pid: i32,
    },
    /// A preloader did not fork.
    NotForked {
        /// The number that the supervisor gave to what it asked for.
        process: u64,
        /// Why, for a person.
        message: String,
    },
    /// Everything is loaded; [`Order::Serve`] may come.
    Ready {
        /// Where the process can be reached, and what else the pools that follow should know.
        info: Value,
    },
    /// How far the start is.
    Starting {
        /// What it waits for, for a person, who reads it if the start takes too long.
        what: String,
    },
    /// The start failed. The process ends by itself.
    Failed {
        /// Why, for a person: a traceback, say.
        message: String,
    },
    /// How things stand; now and then.
    Beat(Beat),
    /// The process cannot go on and asks to be replaced.
    Stuck {
        /// What hangs, as a person would look for it: a URL.
        what: String,
        /// What it hangs in.
        detail: String,
    },
    /// The process wants something of the program that runs the supervisor.
    Wish {
        /// What.
        value: Value,
    },
    /// The answer to [`Order::Query`] or [`Order::Members`].
    Answer {
        /// The order's.
        id: u64,
        /// What was asked for.
        value: Value,
    },
    /// Something that a newer version says.
    #[serde(other)]
    Unknown,
}

/// How a process stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Beat {
    /// Requests since the start.
    pub requests: u64,
    /// Requests under way: the most at once since the last beat.
    pub busy: u32,
    /// Requests under way: how many there were on average since the last beat. A process that does not say is taken to
    /// have had its most all the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// How many it can work on at once. 0: it does not say, and the pool is not scaled by it.
    pub slots: u32,
    /// Requests that wait for one of the slots.
    pub waiting: u32,
    /// Whatever else `status` should show.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub more: Value,
}

/// What a process is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// The answer to hello.
    Start(Start),
    /// Begin to accept, or accept again.
    Serve,
    /// Accept no more, let go of kept connections as at a drain, but stay ready.
    Pause,
    /// Accept no more, finish what is under way, end.
    Drain {
        /// When the process will be killed.
        seconds: f64,
        /// Whether others of its kind serve on: kept connections may be kept for a while then.
        #[serde(default)]
        replaced: bool,
    },
    /// End now.
    Stop,
    /// How much to log.
    LogLevel {
        /// `error`, `warn`, `info`, `debug` or `trace`.
        level: String,
    },
    /// A question, answered by [`Reporter::answer`](crate::child::Reporter::answer).
    Query {
        /// Comes back with the answer.
        id: u64,
        /// What is asked for.
        name: String,
    },
    /// Something between the program that runs the supervisor and its processes.
    Tell {
        /// What.
        value: Value,
    },
    /// Who serves in a pool that this process's pool follows. To be answered by [`Reporter::answer`](crate::child::Reporter::answer) once nothing new
    /// goes to others: only then are they drained.
    Members {
        /// Comes back with the answer.
        id: u64,
        /// The followed pool.
        pool: String,
        /// All who serve in it.
        members: Vec<Member>,
    },
    /// Never sent: the supervisor is gone. Drain and end, or nobody ever will.
    #[serde(skip)]
    Gone,
    /// Something that a newer version says.
    #[serde(other)]
    Unknown,
}

/// What a process gets at its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Its pool.
    pub pool: String,
    /// Its number; no two processes of a supervisor have the same.
    pub process: u64,
    /// The generation of the pool that it belongs to.
    pub generation: u64,
    /// The pool's payload.
    pub payload: String,
    /// How long it may take to end, in seconds.
    pub stop_seconds: f64,
    /// Whether it is to load everything and to fork the processes of its pool, instead of being one of them.
    #[serde(default)]
    pub preloader: bool,
}

/// What a preloader is asked for, over a socket of its own: another process. As many descriptors come along as are named.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Wish {
    /// The number of the process.
    pub(crate) process: u64,
    /// What the descriptors are: its channel and its streams.
    pub(crate) descriptors: Vec<String>,
}

/// A process that serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its number.
    pub process: u64,
    /// Its generation.
    pub generation: u64,
    /// What it said when it was ready.
    pub info: Value,
}

/// One message as a line.
pub(crate) fn line(message: &impl Serialize) -> Vec<u8> {
    // Serialising these types cannot fail: no map has keys but strings.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_ignored() {
        assert_eq!(serde_json::from_str::<Report>(r#"{"report":"sing","song":1}"#).unwrap(), Report::Unknown);
        assert_eq!(serde_json::from_str::<Order>(r#"{"order":"dance"}"#).unwrap(), Order::Unknown);
        let beat = r#"{"report":"beat","requests":3,"mood":"good"}"#;
        let expected = Report::Beat(Beat { requests: 3, ..Beat::default() });
        assert_eq!(serde_json::from_str::<Report>(beat).unwrap(), expected);
    }

    #[test]
    fn a_message_is_one_line() {
        let message = Report::Failed { message: "Traceback:\n  line\n".into() };
        let line = line(&message);
        assert_eq!(line.iter().position(|&byte| byte == b'\n'), Some(line.len() - 1));
        assert_eq!(serde_json::from_slice::<Report>(&line).unwrap(), message);
    }
}
