//! The signals that a supervisor answers to.

use std::io;

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
