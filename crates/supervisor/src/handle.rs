//! What the program around a supervisor asks of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::descriptors::Descriptors;
use crate::event::Event;
use crate::exit::Exit;
use crate::plan::{Plan, Program};
use crate::status::Status;

/// Asks a supervisor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) events: broadcast::Sender<Event>,
}

/// A new plan, and how to get there.
#[derive(Debug, Default)]
pub struct Apply {
    /// What is to run from then on.
    pub plan: Plan,
    /// Descriptors that the plan names and the supervisor does not have yet; another socket needs another name. Those that
    /// no pool names any more are closed.
    pub descriptors: Descriptors,
    /// Pools that count as changed although they are not.
    pub force: BTreeSet<String>,
    /// How long the former processes of changed pools are kept, ready but not accepting, for a [`Handle::rollback`].
    pub keep: Duration,
    /// How long a new generation is watched: if one of its processes dies in this time, the former one takes over
    /// again, and the plan has failed. The answer comes at the end of it. Not at the first start.
    pub probation: Duration,
}

impl Apply {
    /// As fast as it goes.
    pub fn new(plan: Plan) -> Self {
        Self { plan, ..Self::default() }
    }
}

/// A plan that is in practice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The number of the generation.
    pub generation: u64,
    /// The pools that changed, and so have new processes.
    pub pools: Vec<String>,
    /// The [services](crate::Kind::Service) among them that do not run well, and what happened to them. They are tried again.
    pub failing: BTreeMap<String, String>,
}

/// Why something was not done. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The pool, if it is about one.
    pub pool: Option<String>,
    /// What happened.
    pub reason: String,
    /// What the process said: a traceback, or the last lines that it wrote.
    pub message: Option<String>,
    /// Whether it said that of its own accord. What it only wrote was [handed on](crate::Settings::lines) line by line.
    pub said_so: bool,
}

impl Failure {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { pool: None, reason: reason.into(), message: None, said_so: false }
    }

    pub(crate) fn of(pool: &str, reason: impl Into<String>) -> Self {
        Self { pool: Some(pool.to_owned()), reason: reason.into(), message: None, said_so: false }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pool) = &self.pool {
            write!(f, "{pool}: ")?;
        }
        f.write_str(&self.reason)?;
        match &self.message {
            Some(message) => write!(f, "\n{message}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

type Reply<T> = oneshot::Sender<Result<T, Failure>>;

#[derive(Debug)]
pub(crate) enum Command {
    Apply(Box<Apply>, Reply<Applied>),
    Reload(BTreeSet<String>, Duration, Reply<Applied>),
    Rollback(String, Reply<u64>),
    Scale(String, u32, Reply<()>),
    Stop(bool, oneshot::Sender<()>),
    Status(oneshot::Sender<Status>),
    Tell(String, Value, Reply<usize>),
    LogLevel(String),
    Ready(u64),
    Once(String, Reply<Exit>),
    Cancel(String),
    Query(Option<String>, String, Duration, oneshot::Sender<Answers>),
    Upgrade(Program, Value, oneshot::Sender<Failure>),
}

/// The answers of the processes, by their numbers. Who did not answer in time is not among them.
pub type Answers = BTreeMap<u64, Value>;

impl Handle {
    /// Puts a plan into practice: starts new processes of the pools that changed beside the old ones, waits until all
    /// are ready, has them serve, waits until their followers know, and drains the old ones. One plan after the other.
    ///
    /// # Errors
    /// If one of the new processes does not become ready. The new ones are ended, the old ones have not noticed.
    pub async fn apply(&self, apply: Apply) -> Result<Applied, Failure> {
        self.ask(|reply| Command::Apply(Box::new(apply), reply)).await
    }

    /// Replaces the processes of these pools, or of all where none is named, although nothing in the plan changed.
    ///
    /// # Errors
    /// As [`apply`](Self::apply); and if there is no such pool.
    pub async fn reload(
        &self,
        pools: impl IntoIterator<Item = String>,
        probation: Duration,
    ) -> Result<Applied, Failure> {
        let pools = pools.into_iter().collect();
        self.ask(|reply| Command::Reload(pools, probation, reply)).await
    }

    /// Goes back to the generation that [`Apply::keep`] has kept, at once, and gives its number when the followers send
    /// nothing more to the one that served until now, which is drained.
    ///
    /// # Errors
    /// If there is none.
    pub async fn rollback(&self, pool: impl Into<String>) -> Result<u64, Failure> {
        let pool = pool.into();
        self.ask(|reply| Command::Rollback(pool, reply)).await
    }

    /// Gives a pool another fixed number of processes. Returns at once; the next plan's number replaces it.
    ///
    /// # Errors
    /// If there is no such pool.
    pub async fn scale(&self, pool: impl Into<String>, count: u32) -> Result<(), Failure> {
        let pool = pool.into();
        self.ask(|reply| Command::Scale(pool, count, reply)).await
    }

    /// Ends everything: with a drain, or at once; a second call can be more urgent than the first. Pools end after those
    /// that follow them. Returns when no process is left.
    pub async fn stop(&self, drain: bool) {
        let (reply, stopped) = oneshot::channel();
        if self.commands.send(Command::Stop(!drain, reply)).await.is_ok() {
            let _ = stopped.await;
        }
    }

    /// What runs. None if the supervisor has ended.
    pub async fn status(&self) -> Option<Status> {
        let (reply, status) = oneshot::channel();
        self.commands.send(Command::Status(reply)).await.ok()?;
        status.await.ok()
    }

    /// Tells all processes of a pool something, and says how many there are.
    ///
    /// # Errors
    /// If there is no such pool.
    pub async fn tell(&self, pool: impl Into<String>, value: Value) -> Result<usize, Failure> {
        let pool = pool.into();
        self.ask(|reply| Command::Tell(pool, value, reply)).await
    }

    /// Says that a process is ready whose pool has [`Pool::told_ready`](crate::Pool::told_ready).
    pub async fn ready(&self, process: u64) {
        let _ = self.commands.send(Command::Ready(process)).await;
    }

    /// Runs the process of a [`Task`](crate::Kind::Task), waits for its end, and says how it ended.
    ///
    /// # Errors
    /// If it cannot be started, or runs already.
    pub async fn once(&self, pool: impl Into<String>) -> Result<Exit, Failure> {
        let pool = pool.into();
        self.ask(|reply| Command::Once(pool, reply)).await
    }

    /// Asks the process of a [`Task`](crate::Kind::Task) to end; it is killed after its `stop_timeout`.
    pub async fn cancel(&self, pool: impl Into<String>) {
        let _ = self.commands.send(Command::Cancel(pool.into())).await;
    }

    /// Tells all processes how much to log; those that start later do not know.
    pub async fn log_level(&self, level: impl Into<String>) {
        let _ = self.commands.send(Command::LogLevel(level.into())).await;
    }

    /// Asks all processes of a pool, or of all pools, and gathers what they answer in this time.
    pub async fn query(&self, pool: Option<String>, name: impl Into<String>, timeout: Duration) -> Answers {
        let (reply, answers) = oneshot::channel();
        let _ = self.commands.send(Command::Query(pool, name.into(), timeout, reply)).await;
        answers.await.unwrap_or_default()
    }

    /// Has another program, a newer version of this one say, take this one's place: under the same process number, with
    /// the same descriptors and processes, which serve on meanwhile. It is tried first, and finds the state and `note` in
    /// [`Resume`](crate::Resume). Returns with a failure only: nothing has changed then.
    ///
    /// A signal that comes before the new program listens for signals ends it.
    pub async fn upgrade(&self, program: Program, note: Value) -> Failure {
        let gone = || Failure::new("the supervisor has ended");
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Upgrade(program, note, reply)).await.is_err() {
            return gone();
        }
        answer.await.unwrap_or_else(|_| gone())
    }

    /// What happens from now on. Who reads slowly misses some.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Failure> {
        let gone = || Failure::new("the supervisor has ended");
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
