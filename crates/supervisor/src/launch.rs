//! The trampoline between the supervisor and a process of another user: runs as the supervisor does, from a program
//! that is trusted, with the supervisor's own environment, and takes on the limits, the groups, the user, the directory
//! and the environment before anything that belongs to the pool runs.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::{Gid, Group, Uid, User};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use serde::{Deserialize, Serialize};

use crate::descriptors::{CHANNEL, LAUNCH, VARIABLE, adopt};
use crate::plan::{Identity, Limit, Program};
use crate::signals;
use crate::wire::{self, Report};

/// What a launcher is to run.
#[derive(Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) program: Program,
    pub(crate) identity: Identity,
    /// The process that started the launcher.
    pub(crate) supervisor: i32,
    /// Whether the target does not speak over the channel: it is ended by the kernel then when the supervisor dies.
    pub(crate) mute: bool,
}

/// Becomes the program that the supervisor wants to have run: to be called first thing by the program that
/// [`Plan::launcher`](crate::Plan::launcher) names, while it has a single thread. Comes back with a failure only, which
/// the supervisor has been told.
pub fn launch() -> io::Error {
    let error = match begin() {
        Ok(never) => match never {},
        Err(error) => error,
    };
    tell(&error);
    error
}

fn begin() -> io::Result<std::convert::Infallible> {
    // Taken by its number; what else is inherited stays inheritable.
    let mut numbers = numbers()?;
    let number =
        numbers.remove(LAUNCH).ok_or_else(|| io::Error::other("the supervisor said nothing to launch"))?;
    let mut file = File::from(adopt(number)?);
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    let launch: Launch = serde_json::from_str(&text)?;
    take_on(&launch.identity)?;
    if launch.mute {
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        let parent = rustix::process::getppid().map(rustix::process::Pid::as_raw_pid);
        if parent != Some(launch.supervisor) {
            return Err(io::Error::other("the supervisor is gone"));
        }
    }
    let mut command = Command::new(&launch.program.path);
    surround(&mut command, &launch.program);
    // Python, which the launcher is a program of, ignores some.
    signals::afresh(&mut command);
    if launch.mute && numbers.is_empty() {
        // It is none of the supervisor's own, nor are those that it starts.
        command.env_remove(VARIABLE);
    } else {
        command.env(VARIABLE, serde_json::to_string(&numbers)?);
    }
    Err(context(&format!("cannot start '{}'", launch.program.path), command.exec()))
}

/// Sets a program's arguments, environment and directory.
pub(crate) fn surround(command: &mut Command, program: &Program) {
    command.args(&program.args);
    if program.clear_env {
        command.env_clear();
    }
    for name in crate::systemd::VARIABLES {
        command.env_remove(name);
    }
    command.envs(&program.env);
    if let Some(dir) = &program.dir {
        command.current_dir(dir);
    }
}

fn numbers() -> io::Result<BTreeMap<String, i32>> {
    let text =
        std::env::var(VARIABLE).map_err(|_| io::Error::other("no supervisor started this launcher"))?;
    Ok(serde_json::from_str(&text)?)
}

/// The failure goes the way that the target's own would have gone.
fn tell(error: &io::Error) {
    if let Ok(numbers) = numbers()
        && let Some(&number) = numbers.get(CHANNEL)
        && let Ok(channel) = adopt(number)
    {
        let line = wire::line(&Report::Failed { message: error.to_string() });
        let _ = UnixStream::from(channel).write_all(&line);
    }
}

fn context(doing: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{doing}: {error}"))
}

fn take_on(identity: &Identity) -> io::Result<()> {
    for (&limit, &value) in &identity.limits {
        let rlimit = Rlimit { current: Some(value), maximum: Some(value) };
        setrlimit(resource(limit), rlimit)
            .map_err(|error| context(&format!("cannot limit {limit:?} to {value}"), error.into()))?;
    }
    if let Some(umask) = identity.umask {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
    }
    let user = identity.user.as_deref().map(user).transpose()?;
    let gid = match &identity.group {
        Some(name) => Some(group(name)?),
        None => user.as_ref().map(|user| user.gid),
    };
    if let Some(names) = &identity.groups {
        let groups = names.iter().map(|name| group(name)).collect::<io::Result<Vec<_>>>()?;
        nix::unistd::setgroups(&groups).map_err(|error| context("cannot set the groups", error.into()))?;
    } else if let (Some(user), Some(gid)) = (&user, gid) {
        let groups = match CString::new(user.name.as_str()) {
            Ok(name) if !user.name.is_empty() => nix::unistd::initgroups(&name, gid),
            _ => nix::unistd::setgroups(&[gid]),
        };
        groups.map_err(|error| context("cannot set the user's groups", error.into()))?;
    } else if let Some(gid) = gid {
        nix::unistd::setgroups(&[gid]).map_err(|error| context("cannot set the groups", error.into()))?;
    }
    if let Some(gid) = gid {
        nix::unistd::setgid(gid).map_err(|error| context("cannot become the group", error.into()))?;
    }
    if let Some(user) = user {
        nix::unistd::setuid(user.uid).map_err(|error| context("cannot become the user", error.into()))?;
    }
    Ok(())
}

impl Identity {
    /// The numbers of the user and the group that this names, where it does.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn ids(&self) -> io::Result<(Option<u32>, Option<u32>)> {
        let user = self.user.as_deref().map(user).transpose()?;
        let group = match &self.group {
            Some(name) => Some(group(name)?),
            None => user.as_ref().map(|user| user.gid),
        };
        Ok((user.map(|user| user.uid.as_raw()), group.map(Gid::as_raw)))
    }
}

struct Account {
    name: String,
    uid: Uid,
    gid: Gid,
}

fn user(name: &str) -> io::Result<Account> {
    let number = name.parse().ok().map(Uid::from_raw);
    let found = match number {
        Some(uid) => User::from_uid(uid),
        None => User::from_name(name),
    };
    match (found.map_err(|error| context("cannot look the user up", error.into()))?, number) {
        (Some(user), _) => Ok(Account { name: user.name, uid: user.uid, gid: user.gid }),
        // A number needs no entry: a container has none.
        (None, Some(uid)) => Ok(Account { name: String::new(), uid, gid: Gid::from_raw(uid.as_raw()) }),
        (None, None) => Err(io::Error::other(format!("there is no user '{name}'"))),
    }
}

fn group(name: &str) -> io::Result<Gid> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    Group::from_name(name)
        .map_err(|error| context("cannot look the group up", error.into()))?
        .map(|group| group.gid)
        .ok_or_else(|| io::Error::other(format!("there is no group '{name}'")))
}

fn resource(limit: Limit) -> Resource {
    match limit {
        Limit::Files => Resource::Nofile,
        Limit::Processes => Resource::Nproc,
        Limit::AddressSpace => Resource::As,
        Limit::Data => Resource::Data,
        Limit::Cpu => Resource::Cpu,
        Limit::Core => Resource::Core,
        Limit::FileSize => Resource::Fsize,
        Limit::LockedMemory => Resource::Memlock,
    }
}
