//! Who has ended, and how.
//!
//! A process that the supervisor started keeps its number until its status is taken, and it is taken here only, by the
//! same task that sends signals: no signal can reach a stranger that was given the number meanwhile.

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, WaitOptions, WaitStatus, kill_process_group,
};

use crate::exit::Exit;

/// Whether the system gives this process those of its descendants that have lost their parents. Another program in this
/// place may have asked for it.
pub(crate) fn is_subreaper() -> bool {
    rustix::process::child_subreaper().is_ok_and(|set| set.is_some())
}

/// Asks for them, from now on.
pub(crate) fn become_subreaper() -> std::io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Whether this is a child of this process, be it dead.
pub(crate) fn is_child(pid: Pid) -> bool {
    let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    rustix::process::waitid(WaitId::Pid(pid), peek).is_ok()
}

/// How this child has ended; none while it runs. What is left of the group of one that did not end well, or that was not to
/// leave others, is killed.
pub(crate) fn ended(pid: Pid, leaves_others: bool) -> Option<Exit> {
    // Looked at first: while the status is not taken, the number belongs to the group.
    let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let exit = match rustix::process::waitid(WaitId::Pid(pid), peek) {
        Ok(None) | Err(Errno::INTR) => return None,
        Ok(Some(status)) => told(&status),
        Err(_) => return Some(Exit::Lost),
    };
    if !exit.is_clean() || !leaves_others {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    Some(exit)
}

/// Takes the status of one process that ended, whoever started it: what the first process of a container owes to all
/// that lost their parents.
pub(crate) fn any() -> Option<(Pid, Exit)> {
    let (pid, status) = rustix::process::wait(WaitOptions::NOHANG).ok().flatten()?;
    Some((pid, of(status)))
}

fn told(status: &WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Lost,
    }
}

fn of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Lost,
    }
}
