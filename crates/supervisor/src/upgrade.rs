//! Another program takes this one's place: under the same process number, with the same descriptors and processes.
//!
//! The state goes through an anonymous file whose number `HAWKSBILL_RESUME` names. The new program is started on trial
//! first; only one that has read the state and says so takes over.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command as StdCommand, Stdio};
use std::sync::Arc;
use std::time::Duration;

use command_fds::CommandFdExt;
use rustix::fs::MemfdFlags;
use rustix::io::FdFlags;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::actor::Actor;
use crate::descriptors::{Descriptors, adopt};
use crate::handle::{Failure, Handle};
use crate::launch::surround;
use crate::plan::{Plan, Pool, Program, Recycle};
use crate::pool::{Kept, Running};
use crate::process::Process;
use crate::status::State;
use crate::supervisor::{Settings, Supervisor};
use crate::wire::Beat;

/// Names the descriptor of the state.
const VARIABLE: &str = "HAWKSBILL_RESUME";

/// Set where the state is to be read on trial only.
const TRIAL: &str = "HAWKSBILL_RESUME_TRIAL";

/// What a program says that has read the state on trial.
const APPROVAL: &str = "hawksbill resumes";

/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(20);

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

/// What comes out of a pipe until its end; of much only the beginning.
async fn read_all(pipe: Option<OwnedFd>) -> io::Result<String> {
    const MOST: u64 = 64 << 10;
    let pipe = pipe.ok_or_else(|| io::Error::other("it has no standard streams"))?;
    let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe)?;
    let mut text = Vec::new();
    AsyncReadExt::take(&mut pipe, MOST).read_to_end(&mut text).await?;
    tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

impl KeptProcess {
    fn revive(self, actor: &Actor, now: Instant) -> io::Result<Process> {
        let ago = |long: Duration| now.checked_sub(long).unwrap_or(now);
        let pid = Pid::from_raw(self.pid).ok_or_else(|| io::Error::other("a process without a number"))?;
        let shared = actor.pools.get(&self.pool).filter(|pool| pool.generation == self.generation);
        let spec = shared.map_or_else(|| Arc::new(self.spec), |pool| Arc::clone(&pool.spec));
        let mut process = Process::new(self.id, &self.pool, self.generation, spec, pid, ago(self.age));
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
    /// Becomes another program; comes back with a failure only, and as before.
    pub(crate) async fn upgrade(&mut self, program: &Program, note: Value) -> Failure {
        if self.job.is_some() || self.stopping.is_some() || !self.announcements.is_empty() {
            return Failure::new("processes are being started or ended; try again when that is done");
        }
        if let Err(error) = self.try_out(program, note.clone()).await {
            return Failure::new(format!("the new program does not take over: {error}"));
        }
        let mut channels = BTreeMap::new();
        let ids: Vec<u64> = self.processes.keys().copied().collect();
        for id in ids {
            let connection = self.processes.get_mut(&id).and_then(|process| process.connection.take());
            if let Some(connection) = connection {
                match tokio::time::timeout(PATIENCE, connection.dissolve()).await {
                    Ok(Ok(channel)) => drop(channels.insert(id, channel)),
                    // What does not read its orders is beyond help, and ends at the end of its channel.
                    Ok(Err(_)) | Err(_) => {
                        tracing::warn!(target: "hawksbill::supervisor", "process {id} is lost");
                    }
                }
            }
        }
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

    /// Has the new program read the state.
    async fn try_out(&self, program: &Program, note: Value) -> io::Result<()> {
        let file = self.hand_over(&BTreeMap::new(), note)?;
        let mut command = StdCommand::new(&program.path);
        surround(&mut command, program);
        command.env(VARIABLE, file.as_raw_fd().to_string()).env(TRIAL, "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command.preserved_fds(vec![file]);
        let mut child = command.spawn()?;
        drop(command);
        let (said, complained) =
            (child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from));
        let listening = async { tokio::try_join!(read_all(said), read_all(complained)) };
        let heard = tokio::time::timeout(PATIENCE, listening).await;
        let in_time = heard.is_ok();
        let (said, complained) = heard.ok().transpose()?.unwrap_or_default();
        // It has closed its standard output, so it is about to end; nothing else reaps it while this task waits.
        let deadline = Instant::now() + if in_time { PATIENCE } else { Duration::ZERO };
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() >= deadline {
                child.kill()?;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let approved = said.lines().any(|line| line.trim_end().ends_with(APPROVAL));
        match (in_time, status.success() && approved) {
            (true, true) => Ok(()),
            (true, false) => {
                let complained = complained.trim_end();
                let before = if complained.is_empty() { "" } else { ":\n" };
                Err(io::Error::other(format!("on trial it ended with {status}{before}{complained}")))
            }
            (false, _) => Err(io::Error::other("on trial it said nothing in time")),
        }
    }

    fn hand_over(&self, channels: &BTreeMap<u64, (OwnedFd, Vec<u8>)>, note: Value) -> io::Result<OwnedFd> {
        let now = Instant::now();
        let processes = self.processes.values().map(|process| {
            let channel = channels.get(&process.id);
            let number = |output: &Option<OwnedFd>| output.as_ref().map(AsRawFd::as_raw_fd);
            KeptProcess {
                id: process.id,
                pool: process.pool.clone(),
                generation: process.generation,
                spec: Pool::clone(&process.spec),
                pid: process.pid.as_raw_pid(),
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
    fn replace(
        &self,
        program: &Program,
        file: &OwnedFd,
        channels: &BTreeMap<u64, (OwnedFd, Vec<u8>)>,
    ) -> io::Error {
        let let_through = |flags: FdFlags| -> io::Result<()> {
            rustix::io::fcntl_setfd(file, flags)?;
            let outputs = self.processes.values().flat_map(|process| process.outputs.iter().flatten());
            let inherited = self.descriptors.all().chain(outputs).map(AsFd::as_fd);
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
        if let Some(dir) = &program.dir {
            command.current_dir(dir);
        }
        let error = command.exec();
        let _ = let_through(FdFlags::CLOEXEC);
        error
    }
}
