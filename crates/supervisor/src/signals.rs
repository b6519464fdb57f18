//! The signals that a supervisor answers to, and those that its processes begin with.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;
use nix::sys::signal::SigSet;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal that somebody sent to the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// SIGTERM: drain and end; a second time: end now.
    Terminate,
    /// SIGINT: as SIGTERM.
    Interrupt,
    /// SIGHUP: reload.
    Reload,
    /// SIGUSR1: open the log files again.
    User1,
    /// SIGUSR2: upgrade the program in place.
    User2,
}

impl Received {
    /// The signal's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Reload => "SIGHUP",
            Self::User1 => "SIGUSR1",
            Self::User2 => "SIGUSR2",
        }
    }
}

/// The signals, received from the moment that this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.terminate.recv() => Received::Terminate,
            _ = self.interrupt.recv() => Received::Interrupt,
            _ = self.reload.recv() => Received::Reload,
            _ = self.user1.recv() => Received::User1,
            _ = self.user2.recv() => Received::User2,
        }
    }
}

/// Has a program begin with every signal at its default action, and none blocked, whatever the supervisor was started
/// with. What is ignored stays so over `exec` (execve(2)): SIGINT and SIGQUIT in the background of a shell without job
/// control, SIGHUP under nohup, SIGXFSZ in every Python.
pub(crate) fn afresh(command: &mut Command) {
    // SAFETY: signal and pthread_sigmask may be called between fork and exec (signal-safety(7)), and nothing else is.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(reset);
    }
}

/// Has a program in the supervisor's process group leave to it what comes from the terminal: SIGINT and SIGQUIT from the
/// keyboard, SIGHUP when it is closed. After [`afresh`].
pub(crate) fn without_keyboard(command: &mut Command) {
    // SAFETY: as above.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(ignore_keyboard);
    }
}

fn ignore_keyboard() -> io::Result<()> {
    for number in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
        // SAFETY: no handler is installed.
        #[allow(unsafe_code)]
        let before = unsafe { libc::signal(number, libc::SIG_IGN) };
        if before == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn reset() -> io::Result<()> {
    for number in 1..=libc::SIGRTMAX() {
        // Refused for SIGKILL, SIGSTOP and those that the C library keeps to itself, which nobody can ignore either.
        // SAFETY: no handler is installed.
        #[allow(unsafe_code)]
        unsafe {
            libc::signal(number, libc::SIG_DFL);
        }
    }
    Ok(SigSet::empty().thread_set_mask()?)
}
