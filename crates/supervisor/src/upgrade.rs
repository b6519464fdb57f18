//! Another program takes this one's place: under the same process number, with the same descriptors and processes.
//!
//! The state goes through an anonymous file whose number `HAWKSBILL_RESUME` names. The new program is started on trial
//! first; only one that has read the state and says so takes over. During the trial everything goes on as usual.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command as StdCommand;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::io::FdFlags;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::actor::Actor;
use crate::connection::Note;
use crate::descriptors::{Descriptors, adopt};
use crate::handle::{Failure, Handle};
use crate::plan::{Plan, Pool, Program, Recycle};
use crate::pool::{Kept, Running};
use crate::process::Process;
use crate::status::State;
use crate::supervisor::{Settings, Supervisor};
use crate::systemd::ACTIVATION;
use crate::trial::{APPROVAL, TRIAL, Trial, try_out, unfit, watch};
use crate::wire::Beat;

/// Names the descriptor of the state.
pub(crate) const VARIABLE: &str = "HAWKSBILL_RESUME";

/// How long processes may take to read the orders that they were given before. Nothing else happens meanwhile.
const WRITE_PATIENCE: Duration = Duration::from_secs(3);

/// The channels of processes by their numbers, each with what was read of it beyond the last message.
type Channels = BTreeMap<u64, (OwnedFd, Vec<u8>)>;

/// What goes from one program to the next. Fields that a newer program adds have defaults.
#[derive(Serialize, Deserialize)]
struct Handover {
    plan: Plan,
    pools: BTreeMap<String, Kept>,
    processes: Vec<KeptProcess>,
    descriptors: BTreeMap<String, i32>,
    last_number: u64,
    last_generation: u64,
    note: Value,
}

#[derive(Serialize, Deserialize)]
struct KeptProcess {
    id: u64,
    pool: String,
    generation: u64,
    spec: Pool,
    pid: i32,
    #[serde(default)]
    forks: Option<i32>,
    state: State,
    age: Duration,
    lasted: Duration,
    left: Option<Duration>,
    channel: Option<i32>,
    unread: Vec<u8>,
    outputs: [Option<i32>; 2],
    known: bool,
    killed: bool,
    info: Value,
    beat: Beat,
    due: Recycle,
    retiring: Option<String>,
    keep: bool,
}

/// What a former program has left to this one.
pub struct Resume {
    handover: Handover,
    trial: bool,
}

impl Resume {
    /// What was left to this program; none where it was started in the usual way.
    ///
    /// # Errors
    /// When the state cannot be read or is not understood.
    pub fn from_environment() -> io::Result<Option<Self>> {
        let Ok(number) = std::env::var(VARIABLE) else { return Ok(None) };
        let number = number.parse().map_err(|_| io::Error::other(format!("{VARIABLE} is not a number")))?;
        let mut file = File::from(adopt(number)?);
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        let handover = serde_json::from_str(&text)?;
        Ok(Some(Self { handover, trial: std::env::var_os(TRIAL).is_some() }))
    }

    /// Whether this is a trial. The program reads what it needs (its configuration), calls [`approve`](Self::approve) if
    /// it could go on from there, and exits.
    pub fn is_trial(&self) -> bool {
        self.trial
    }

    /// Says on standard output that this program could take over.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn approve(&self) -> io::Result<()> {
        let mut stdout = io::stdout();
        writeln!(stdout, "{APPROVAL}")?;
        stdout.flush()
    }

    /// What the former program wanted this one to know: see [`Handle::upgrade`].
    pub fn note(&self) -> &Value {
        &self.handover.note
    }

    /// The plan that is in practice.
    pub fn plan(&self) -> &Plan {
        &self.handover.plan
    }
}

impl std::fmt::Debug for Resume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resume").field("trial", &self.trial).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// A duplicate of the descriptor that a plan knows by this name.
    pub fn descriptor(&self, name: &str) -> Option<OwnedFd> {
        self.actor.descriptors.get(name)?.try_clone().ok()
    }

    /// Goes on where a former program was. Needs a tokio runtime.
    ///
    /// # Errors
    /// When a descriptor is not there, or the system refuses.
    pub fn resume(settings: Settings, resume: Resume) -> io::Result<(Self, Handle)> {
        let handover = resume.handover;
        let (mut supervisor, handle) = Self::new(settings, Descriptors::adopt(handover.descriptors)?)?;
        let (actor, now) = (&mut supervisor.actor, Instant::now());
        actor.plan = handover.plan;
        actor.last_number = handover.last_number;
        actor.last_generation = handover.last_generation;
        let pools = handover.pools.into_iter();
        actor.pools = pools.map(|(name, kept)| (name, Running::revive(kept, now))).collect();
        for kept in handover.processes {
            let process = kept.revive(actor, now)?;
            actor.processes.insert(process.id, process);
        }
        Ok((supervisor, handle))
    }
}

impl KeptProcess {
    fn revive(self, actor: &Actor, now: Instant) -> io::Result<Process> {
        let ago = |long: Duration| now.checked_sub(long).unwrap_or(now);
        let pid = Pid::from_raw(self.pid).ok_or_else(|| io::Error::other("a process without a number"))?;
        let shared = actor.pools.get(&self.pool).filter(|pool| pool.generation == self.generation);
        let spec = shared.map_or_else(|| Arc::new(self.spec), |pool| Arc::clone(&pool.spec));
        let mut process = Process::new(self.id, &self.pool, self.generation, spec, Some(pid), ago(self.age));
        process.forks = self.forks.map(adopt).transpose()?;
        process.state = self.state;
        process.since = ago(self.lasted);
        process.deadline = self.left.and_then(|left| now.checked_add(left));
        process.known = self.known;
        process.killed = self.killed;
        process.info = self.info;
        process.beat = self.beat;
        process.due = self.due;
        process.retiring = self.retiring.map(|reason| (reason, now));
        process.keep = self.keep;
        // Who was leaving has been announced, but nobody waits for the answers any more.
        let channel = self.channel.map(adopt).transpose()?.map(UnixStream::from);
        let [stdout, stderr] = self.outputs;
        let (stdout, stderr) = (stdout.map(adopt).transpose()?, stderr.map(adopt).transpose()?);
        actor.connect(&mut process, channel, self.unread, stdout, stderr)?;
        Ok(process)
    }
}

impl Actor {
    /// Has another program tried out. If it is fit, this one [becomes](Self::become_another) it, at the next moment when
    /// nothing is half done.
    pub(crate) fn begin_upgrade(&mut self, program: Program, note: Value, reply: oneshot::Sender<Failure>) {
        if self.job.is_some()
            || self.stopping.is_some()
            || self.trial.is_some()
            || self.processes.values().any(|process| process.pid.is_none())
            || !self.announcements.is_empty()
            || !self.returns.is_empty()
        {
            let busy = "processes are being started or ended; try again when that is done";
            let _ = reply.send(Failure::new(busy));
            return;
        }
        let child = self.hand_over(&Channels::new(), note.clone());
        match child.and_then(|file| try_out(&program, file)) {
            Ok(child) => {
                let (cancel, cancelled) = oneshot::channel();
                let notes = self.notes.clone();
                tokio::spawn(async move {
                    let _ = notes.send(Note::Tried(watch(child, cancelled).await));
                });
                let reply = Some(reply);
                self.trial = Some(Trial { program, note, reply, passed: false, cancel: Some(cancel) });
            }
            Err(error) => drop(reply.send(unfit(&error))),
        }
    }

    /// How the trial went.
    pub(crate) fn tried(&mut self, outcome: io::Result<()>) {
        let Some(mut trial) = self.trial.take() else { return };
        match outcome {
            // Who ended it has told so.
            _ if self.stopping.is_some() => {}
            Ok(()) => self.trial = Some(Trial { passed: true, ..trial }),
            Err(error) => trial.answer(unfit(&error)),
        }
    }

    /// Goes on as the program that has passed its trial, if there is one and nothing is half done.
    pub(crate) async fn go_over(&mut self) {
        if self.job.is_some()
            || self.stopping.is_some()
            || self.processes.values().any(|process| process.pid.is_none())
            || !self.announcements.is_empty()
            || !self.returns.is_empty()
        {
            return;
        }
        if let Some(mut trial) = self.trial.take_if(|trial| trial.passed) {
            let failure = self.become_another(&trial.program, std::mem::take(&mut trial.note)).await;
            trial.answer(failure);
        }
    }

    /// Becomes another program; comes back with a failure only, and as before.
    async fn become_another(&mut self, program: &Program, note: Value) -> Failure {
        let channels = self.dissolve().await;
        let error = match self.hand_over(&channels, note) {
            Ok(file) => self.replace(program, &file, &channels),
            Err(error) => error,
        };
        for (id, (channel, unread)) in channels {
            if let Some(mut process) = self.processes.remove(&id) {
                process.open = process.open.saturating_sub(1);
                let again = self.connect(&mut process, Some(UnixStream::from(channel)), unread, None, None);
                if let Err(error) = again {
                    tracing::error!(target: "hawksbill::supervisor", "process {id} cannot be heard any more: {error}");
                }
                self.processes.insert(id, process);
            }
        }
        Failure::new(format!("the new program cannot be started: {error}"))
    }

    /// Takes the channels of all processes, each between two messages.
    async fn dissolve(&mut self) -> Channels {
        let mut dissolving = JoinSet::new();
        for (&id, process) in &mut self.processes {
            if let Some(connection) = process.connection.take() {
                let dissolved = async move { (id, timeout(WRITE_PATIENCE, connection.dissolve()).await) };
                dissolving.spawn(dissolved);
            }
        }
        let mut channels = Channels::new();
        for (id, dissolved) in dissolving.join_all().await {
            match dissolved {
                Ok(Ok(channel)) => drop(channels.insert(id, channel)),
                // What does not read its orders is beyond help, and ends at the end of its channel.
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!(target: "hawksbill::supervisor", "process {id} is lost");
                }
            }
        }
        // What was heard until now is in no channel any more.
        self.hear();
        channels
    }

    fn hand_over(&self, channels: &Channels, note: Value) -> io::Result<OwnedFd> {
        let now = Instant::now();
        let processes = self.processes.values().map(|process| {
            let channel = channels.get(&process.id);
            let number = |output: &Option<OwnedFd>| output.as_ref().map(AsRawFd::as_raw_fd);
            KeptProcess {
                id: process.id,
                pool: process.pool.clone(),
                generation: process.generation,
                spec: Pool::clone(&process.spec),
                pid: process.pid.map_or(0, Pid::as_raw_pid),
                forks: number(&process.forks),
                state: process.state,
                age: now.saturating_duration_since(process.started),
                lasted: now.saturating_duration_since(process.since),
                left: process.deadline.map(|at| at.saturating_duration_since(now)),
                channel: channel.map(|(stream, _)| stream.as_raw_fd()),
                unread: channel.map(|(_, unread)| unread.clone()).unwrap_or_default(),
                outputs: [number(&process.outputs[0]), number(&process.outputs[1])],
                known: process.known,
                killed: process.killed,
                info: process.info.clone(),
                beat: process.beat.clone(),
                due: process.due,
                retiring: process.retiring.as_ref().map(|(reason, _)| reason.clone()),
                keep: process.keep,
            }
        });
        let handover = Handover {
            plan: self.plan.clone(),
            pools: self.pools.iter().map(|(name, pool)| (name.clone(), pool.keep(now))).collect(),
            processes: processes.collect(),
            descriptors: self.descriptors.numbers(),
            last_number: self.last_number,
            last_generation: self.last_generation,
            note,
        };
        let mut file = File::from(rustix::fs::memfd_create("hawksbill-resume", MemfdFlags::CLOEXEC)?);
        file.write_all(&serde_json::to_vec(&handover)?)?;
        Ok(file.into())
    }

    /// Takes the step itself. Nothing else runs between the first descriptor that is let through and the last one that
    /// is held back again.
    fn replace(&self, program: &Program, file: &OwnedFd, channels: &Channels) -> io::Error {
        let let_through = |flags: FdFlags| -> io::Result<()> {
            rustix::io::fcntl_setfd(file, flags)?;
            let outputs = self.processes.values().flat_map(|process| process.outputs.iter().flatten());
            let forks = self.processes.values().filter_map(|process| process.forks.as_ref());
            let inherited = self.descriptors.all().chain(outputs).chain(forks).map(AsFd::as_fd);
            for descriptor in inherited.chain(channels.values().map(|(stream, _)| stream.as_fd())) {
                rustix::io::fcntl_setfd(descriptor, flags)?;
            }
            Ok(())
        };
        if let Err(error) = let_through(FdFlags::empty()) {
            return error;
        }
        let mut command = StdCommand::new(&program.path);
        command.args(&program.args).envs(&program.env).env(VARIABLE, file.as_raw_fd().to_string());
        if program.clear_env {
            command.env_clear().envs(&program.env).env(VARIABLE, file.as_raw_fd().to_string());
        }
        for name in ACTIVATION {
            command.env_remove(name);
        }
        if let Some(dir) = &program.dir {
            command.current_dir(dir);
        }
        let error = command.exec();
        let _ = let_through(FdFlags::CLOEXEC);
        error
    }
}
