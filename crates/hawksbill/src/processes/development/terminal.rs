//! The terminal, at which somebody may sit in a debugger of a worker.

use std::io::{self, IsTerminal};

use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// How the terminal was at the start. Dropped, it gives that back.
pub(in crate::processes) struct Modes(Termios);

impl Modes {
    /// None where there is no terminal.
    pub(in crate::processes) fn of_terminal() -> Option<Self> {
        tcgetattr(io::stdin()).ok().map(Self)
    }

    /// Gives back what a debugger has left when it was ended in the middle of a line: no echo, no lines.
    pub(in crate::processes) fn restore(&self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

impl Drop for Modes {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Whether standard input is a terminal that was closed.
pub(in crate::processes) fn is_hung_up() -> bool {
    !io::stdin().is_terminal() && matches!(tcgetattr(io::stdin()), Err(Errno::IO))
}
