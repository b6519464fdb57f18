//! Why a connection between a front and a worker ends.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;

use hawksbill_core::{Error, Kind};

/// What ended a connection, or kept it from coming to be.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The socket failed.
    Io(io::Error),
    /// The other end closed the connection: usually its process has ended.
    Ended,
    /// This end closed the connection.
    Closed,
    /// The other end did not say hello in time.
    Silent,
    /// The other end is no hop at all.
    Stranger,
    /// The two ends have no version of the protocol in common.
    Version {
        /// The oldest and the newest version that this end speaks.
        ours: (u16, u16),
        /// The oldest and the newest version that the other end speaks.
        theirs: (u16, u16),
        /// Which release of Hawksbill the other end is.
        release: String,
    },
    /// The other end broke a rule of the protocol.
    Broken(Cow<'static, str>),
}

impl Fault {
    /// A rule that the other end broke.
    pub(crate) fn broken(rule: impl Into<Cow<'static, str>>) -> Self {
        Self::Broken(rule.into())
    }

    /// What a request fails with that this has ended.
    pub(crate) fn failure(&self) -> Error {
        Error::new(Kind::BadGateway).because(format!("the worker was lost: {self}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the connection failed: {error}"),
            Self::Ended => f.write_str("the other end closed the connection"),
            Self::Closed => f.write_str("this end closed the connection"),
            Self::Silent => f.write_str("the other end did not say hello in time"),
            Self::Stranger => {
                f.write_str("what answers at this socket does not speak Hawksbill's hop protocol")
            }
            Self::Version { ours, theirs, release } => write!(
                f,
                "this end (hawksbill {}) speaks the hop protocol in versions {} to {}, the other end (hawksbill \
                 {release}) in versions {} to {}; install versions of hawksbill that are closer to each other",
                env!("CARGO_PKG_VERSION"),
                ours.0,
                ours.1,
                theirs.0,
                theirs.1,
            ),
            Self::Broken(rule) => write!(f, "the other end broke the hop protocol: {rule}"),
        }
    }
}

impl StdError for Fault {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
