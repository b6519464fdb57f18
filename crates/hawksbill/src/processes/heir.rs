//! What goes from this program to the one that takes its place (`hawksbill upgrade`), besides the supervisor's own state.

use std::time::{Duration, Instant};

use hawksbill_supervisor::{Program, Resume};
use serde::{Deserialize, Serialize};

use super::practice::Practised;
use super::private::Dirs;
use super::sockets::{Kept, KeptPassed, Sockets};

/// What the new program finds. Fields that a newer program adds need defaults.
#[derive(Serialize, Deserialize)]
pub(super) struct Estate {
    pub(super) sockets: Kept,
    #[serde(default)]
    pub(super) passed: KeptPassed,
    pub(super) private: Dirs,
    pub(super) practised: Practised,
    /// How long the gateway has been there.
    age: f64,
}

impl Estate {
    pub(super) fn new(sockets: &Sockets, private: Dirs, practised: Practised, began: Instant) -> Self {
        let (sockets, passed) = sockets.kept();
        Self { sockets, passed, private, practised, age: began.elapsed().as_secs_f64() }
    }

    /// What the former program has left.
    pub(super) fn of(resume: &Resume) -> Result<Self, String> {
        serde_json::from_value(resume.note().clone())
            .map_err(|error| format!("what the former program has left is not understood: {error}"))
    }

    /// When the gateway began.
    pub(super) fn began(&self) -> Instant {
        let age = Duration::try_from_secs_f64(self.age).unwrap_or_default();
        Instant::now().checked_sub(age).unwrap_or_else(Instant::now)
    }
}

/// What came of an upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Upgrades {
    /// How often the program was replaced since the gateway began.
    pub(crate) count: u32,
    /// Why the processes are still those of the former program, after the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// The program that takes over: what is installed now where this one was started from.
pub(super) fn program(words: &[String]) -> Program {
    let mut words = words.iter().cloned();
    Program { path: words.next().unwrap_or_default(), args: words.collect(), ..Program::default() }
}
