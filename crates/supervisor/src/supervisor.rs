//! The supervisor, for the program around it.

use std::fmt;
use std::io;
use std::sync::Arc;

use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc};

use crate::actor::Actor;
use crate::descriptors::Descriptors;
use crate::event::Of;
use crate::handle::Handle;

/// How many events a slow reader may be behind.
const EVENTS: usize = 1024;

/// How many commands may wait.
const COMMANDS: usize = 64;

/// Takes a line that a process wrote. True: it is kept, to be told if the process fails without a word.
pub type Lines = Arc<dyn Fn(&Line<'_>) -> bool + Send + Sync>;

/// A line that a process wrote.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Its pool.
    pub pool: &'a str,
    /// Its number at the supervisor.
    pub process: u64,
    /// Its number at the system.
    pub pid: u32,
    /// Whether it is one of the supervisor's own, and speaks over the channel.
    pub speaks: bool,
    /// Whether it was written on standard error.
    pub is_stderr: bool,
    /// Without its end.
    pub text: &'a str,
}

/// What a process wants of the program around its supervisor.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// Who.
    pub of: Of,
    /// What. The process may run somebody else's code: nothing of it is to be trusted.
    pub value: Value,
}

/// What a supervisor is like.
#[derive(Clone)]
pub struct Settings {
    /// Takes the lines of pools whose output is [`Lines`](crate::Output::Lines) or [`Errors`](crate::Output::Errors).
    pub lines: Option<Lines>,
    /// Takes what processes want of the program around. What there is no room for is dropped.
    pub wishes: Option<mpsc::Sender<Wish>>,
    /// Whether to take the status of every child that ends, also of those that the supervisor did not start. Set where
    /// this is the first process of a container, which inherits all orphans. The program must not wait for children of
    /// its own then.
    pub reap_all: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lines: None, wishes: None, reap_all: std::process::id() == 1 }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("reap_all", &self.reap_all).finish_non_exhaustive()
    }
}

/// Starts processes and looks after them.
pub struct Supervisor {
    pub(crate) actor: Actor,
}

impl Supervisor {
    /// A supervisor without a plan, and what asks it. Needs a tokio runtime; one thread is enough.
    ///
    /// # Errors
    /// When the system refuses the signal that tells of ended children.
    pub fn new(settings: Settings, descriptors: Descriptors) -> io::Result<(Self, Handle)> {
        let children = signal(SignalKind::child())?;
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (events, _) = broadcast::channel(EVENTS);
        let handle = Handle { commands: sender, events: events.clone() };
        let actor = Actor::new(settings, descriptors, commands, events, children);
        Ok((Self { actor }, handle))
    }

    /// Works until [`Handle::stop`], or until no handle is left; then no process is. Best run by the thread that began
    /// the program: processes that do not speak end with the thread that started them.
    pub async fn run(self) {
        self.actor.run().await;
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").finish_non_exhaustive()
    }
}
