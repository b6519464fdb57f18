//! How a process ended, in words.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It ended by itself, with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// Somebody else has taken its status.
    Lost,
    /// It never began: it was to be forked and was not.
    Unborn,
}

impl Exit {
    /// Whether it ended as one that was asked to does.
    pub fn is_clean(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

const NAMES: [(i32, &str, &str); 14] = [
    (1, "SIGHUP", ""),
    (2, "SIGINT", ""),
    (3, "SIGQUIT", ""),
    (4, "SIGILL", "an instruction that this processor does not have"),
    (6, "SIGABRT", "it gave itself up"),
    (7, "SIGBUS", "a mapped file became shorter, or memory ran out"),
    (8, "SIGFPE", ""),
    (9, "SIGKILL", "by hand, or memory ran out"),
    (10, "SIGUSR1", ""),
    (11, "SIGSEGV", "a crash in native code"),
    (13, "SIGPIPE", ""),
    (15, "SIGTERM", ""),
    (24, "SIGXCPU", "its limit of processor time"),
    (25, "SIGXFSZ", "its limit of file size"),
];

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Unborn => f.write_str("it was not forked"),
            Self::Lost => f.write_str("an end that another part of the program waited for"),
            Self::Signal(number) => match NAMES.iter().find(|(known, ..)| *known == number) {
                Some((_, name, "")) => write!(f, "{name}"),
                Some((_, name, meaning)) => write!(f, "{name} ({meaning})"),
                None => write!(f, "signal {number}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_in_words() {
        assert_eq!(Exit::Code(3).to_string(), "exit code 3");
        assert_eq!(Exit::Signal(15).to_string(), "SIGTERM");
        assert_eq!(Exit::Signal(64).to_string(), "signal 64");
        assert!(Exit::Signal(9).to_string().starts_with("SIGKILL (by hand"));
    }
}
