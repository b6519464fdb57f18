//! What systemd and its kin expect: sockets taken over, notifications sent.

use std::env;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use rustix::net::{SocketType, sockopt};
use rustix::time::{ClockId, clock_gettime};

use crate::descriptors::{Descriptors, VARIABLE, adopt};

/// What tells of sockets that are passed. A program that takes this one's place has them already.
pub(crate) const ACTIVATION: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// What no child inherits: it would take itself for the service.
pub(crate) const VARIABLES: [&str; 9] = [
    ACTIVATION[0],
    ACTIVATION[1],
    ACTIVATION[2],
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    VARIABLE,
    "HAWKSBILL_RESUME",
    "HAWKSBILL_RESUME_TRIAL",
];

/// The first number of a socket that is handed over (`sd_listen_fds(3)`).
const FIRST: RawFd = 3;

/// Takes over the sockets of socket activation (`LISTEN_FDS`, `sd_listen_fds(3)`); none where there are none, or they are
/// meant for another process. Each keeps its number. They are named as their units say; what has no name, or the name of one before it, is named by its number:
/// `3`, `4`. Works once.
///
/// # Errors
/// When what was handed over is not a stream socket that listens.
pub fn sockets() -> io::Result<Descriptors> {
    let mut descriptors = Descriptors::new();
    if env_number("LISTEN_PID") != Some(u64::from(std::process::id())) {
        return Ok(descriptors);
    }
    let count = RawFd::try_from(env_number("LISTEN_FDS").unwrap_or(0))
        .map_err(|_| io::Error::other("LISTEN_FDS is not a number of sockets"))?;
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    for number in FIRST..FIRST.saturating_add(count) {
        let descriptor = adopt(number)?;
        let name = names.next().unwrap_or("");
        if !listens(&descriptor) {
            let called = if name.is_empty() { String::new() } else { format!(" ({name:?})") };
            return Err(io::Error::other(format!(
                "descriptor {number}{called} is not a listening stream socket; have its .socket unit say ListenStream= and Accept=no"
            )));
        }
        let named = !name.is_empty() && name != "unknown" && descriptors.get(name).is_none();
        descriptors.insert(if named { name.to_owned() } else { number.to_string() }, descriptor);
    }
    Ok(descriptors)
}

fn listens(descriptor: &OwnedFd) -> bool {
    let is_stream = sockopt::socket_type(descriptor).is_ok_and(|kind| kind == SocketType::STREAM);
    is_stream && sockopt::socket_acceptconn(descriptor).unwrap_or(false)
}

fn env_number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Where notifications go (`sd_notify(3)`). Without `NOTIFY_SOCKET` nothing is sent, and nothing fails.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// What the environment asks for.
    pub fn from_environment() -> Self {
        let to = env::var_os("NOTIFY_SOCKET").and_then(|path| address(path.as_bytes()));
        let socket = to.and_then(|to| Some((UnixDatagram::unbound().ok()?, to)));
        let ours = env_number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = env_number("WATCHDOG_USEC").filter(|&micros| ours && micros > 0);
        Self { socket, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// How often `WATCHDOG=1` has to be sent: in half the time that is allowed.
    pub fn watchdog(&self) -> Option<Duration> {
        self.socket.as_ref().and(self.watchdog).map(|allowed| allowed / 2)
    }

    /// The service is ready.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// A reload begins: the configuration is loaded again. [`ready`](Self::ready) ends it, however it went.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The service ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for people.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", one_line(status)));
    }

    /// The service is alive.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        if let Some((socket, to)) = &self.socket
            && let Err(error) = socket.send_to_addr(message.as_bytes(), to)
        {
            tracing::warn!(target: "hawksbill::supervisor", "cannot notify the service manager: {error}");
        }
    }
}

fn address(path: &[u8]) -> Option<SocketAddr> {
    match path {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(path))).ok(),
        _ => None,
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_paths_or_abstract() {
        assert!(address(b"/run/systemd/notify").unwrap().as_pathname().is_some());
        assert_eq!(address(b"@here").unwrap().as_abstract_name(), Some(&b"here"[..]));
        assert!(address(b"vsock:2:9").is_none());
    }

    #[test]
    fn nothing_is_sent_where_nobody_asks() {
        let notifier = Notifier::default();
        notifier.ready("serving");
        assert_eq!(notifier.watchdog(), None);
    }
}
