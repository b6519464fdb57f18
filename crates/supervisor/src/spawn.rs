//! One process is started.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use command_fds::CommandFdExt;
use rustix::fs::MemfdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Pid;

use crate::descriptors::{CHANNEL, Descriptors, FORKS, LAUNCH, STDERR, STDOUT, VARIABLE};
use crate::launch::{Launch, surround};
use crate::plan::{Output, Pool};
use crate::signals;

/// A process that was started.
pub(crate) struct Spawned {
    pub(crate) pid: Pid,
    pub(crate) channel: Option<UnixStream>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// Over which a preloader is asked for processes.
    pub(crate) forks: Option<OwnedFd>,
}

/// What connects a process that is to be forked with the supervisor.
pub(crate) struct Streams {
    pub(crate) channel: UnixStream,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// The process's ends, by their names.
    pub(crate) theirs: Descriptors,
}

/// Makes them.
pub(crate) fn streams(pool: &Pool) -> io::Result<Streams> {
    let mut theirs = Descriptors::new();
    let (channel, other) = UnixStream::pair()?;
    theirs.insert(CHANNEL, other);
    let mut pipe = |name: &str, wanted: bool| -> io::Result<Option<OwnedFd>> {
        if !wanted {
            return Ok(None);
        }
        let (ours, other) = io::pipe()?;
        theirs.insert(name, OwnedFd::from(other));
        Ok(Some(ours.into()))
    };
    let stdout = pipe(STDOUT, pool.output == Output::Lines)?;
    let stderr = pipe(STDERR, pool.output != Output::Inherit)?;
    Ok(Streams { channel, stdout, stderr, theirs })
}

/// Starts a process of a pool, or its preloader, in a process group of its own unless it is at the terminal.
pub(crate) fn spawn(
    pool: &Pool,
    launcher: &[String],
    is_preloader: bool,
    find: impl Fn(&str) -> Option<OwnedFd>,
) -> io::Result<Spawned> {
    let mut inherited = Descriptors::new();
    for name in &pool.inherit {
        let descriptor =
            find(name).ok_or_else(|| io::Error::other(format!("there is no descriptor named '{name}'")))?;
        inherited.insert(name.as_str(), descriptor);
    }
    let mut channel = None;
    if pool.speaks {
        let (ours, theirs) = UnixStream::pair()?;
        inherited.insert(CHANNEL, theirs);
        channel = Some(ours);
    }
    let mut forks = None;
    if is_preloader {
        // Messages, each with its descriptors.
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        inherited.insert(FORKS, theirs);
        forks = Some(ours);
    }
    let mut command = command(pool, launcher, &mut inherited)?;
    let numbers = inherited.numbers();
    if numbers.is_empty() {
        command.env_remove(VARIABLE);
    } else {
        command.env(VARIABLE, serde_json::to_string(&numbers)?);
    }
    if pool.terminal {
        command.stdin(Stdio::inherit());
    } else {
        command.process_group(0).stdin(Stdio::null());
    }
    if pool.output == Output::Lines {
        command.stdout(Stdio::piped());
    }
    if pool.output != Output::Inherit {
        command.stderr(Stdio::piped());
    }
    // Kept under their own numbers: a chosen number could be one that the standard library uses between fork and exec.
    command.preserved_fds(inherited.into_all());
    signals::afresh(&mut command);
    if pool.terminal {
        signals::without_keyboard(&mut command);
    }
    let started = command.spawn();
    let mut child = started.map_err(|error| {
        let program = command.get_program().display();
        io::Error::new(error.kind(), format!("cannot start '{program}': {error}"))
    })?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    Ok(Spawned {
        pid: pid.ok_or_else(|| io::Error::other("a process without a number"))?,
        channel,
        stdout: child.stdout.take().map(OwnedFd::from),
        stderr: child.stderr.take().map(OwnedFd::from),
        forks,
    })
}

fn command(pool: &Pool, launcher: &[String], inherited: &mut Descriptors) -> io::Result<Command> {
    // Who does not speak does not notice that the supervisor is gone; the launcher has the kernel tell it.
    let launched = !pool.identity.is_empty() || (!pool.speaks && !launcher.is_empty());
    if !launched {
        let mut command = Command::new(&pool.program.path);
        surround(&mut command, &pool.program);
        return Ok(command);
    }
    let Some((program, args)) = launcher.split_first() else {
        return Err(io::Error::other("the pool has a user or limits, but the plan has no launcher"));
    };
    let launch = Launch {
        program: pool.program.clone(),
        identity: pool.identity.clone(),
        supervisor: rustix::process::getpid().as_raw_pid(),
        mute: !pool.speaks,
    };
    let mut file = File::from(rustix::fs::memfd_create("hawksbill-launch", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(&launch)?)?;
    inherited.insert(LAUNCH, file);
    let mut command = Command::new(program);
    command.args(args);
    for name in crate::systemd::VARIABLES {
        command.env_remove(name);
    }
    Ok(command)
}
