//! Why nothing can listen there, told to a person.

use std::fmt;
use std::io;

use hawksbill_core::config::Listen;

/// Why a place cannot be listened at: what is in the way, and what to do.
#[derive(Debug)]
pub struct ListenError {
    message: String,
    source: Option<io::Error>,
}

impl ListenError {
    /// With a message of its own.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    /// With what the system says at its end.
    pub(crate) fn because(what: impl fmt::Display, source: io::Error) -> Self {
        Self { message: format!("{what}: {source}"), source: Some(source) }
    }

    /// What a system error means at a TCP address.
    pub(super) fn tcp(listen: &Listen, port: u16, source: io::Error) -> Self {
        let message = match source.kind() {
            io::ErrorKind::AddrInUse => {
                format!(
                    "{listen} is in use by another program, which 'ss -ltnp sport = :{port}' shows; \
                     stop it or choose another address with --listen"
                )
            }
            io::ErrorKind::PermissionDenied if port < 1024 => format!(
                "no permission to listen at {listen}: ports below 1024 are for root and for those who are allowed to\n  \
                 --listen :8080                                        a higher port needs no permission\n  \
                 AmbientCapabilities=CAP_NET_BIND_SERVICE              allows it to a service of systemd\n  \
                 sysctl -w net.ipv4.ip_unprivileged_port_start={port:<8}allows it to everybody on this machine"
            ),
            io::ErrorKind::AddrNotAvailable => format!(
                "no interface of this machine has the address of {listen}; \
                 choose one that it has, or :{port} for all, with --listen"
            ),
            _ => format!("cannot listen at {listen}: {source}"),
        };
        Self { message, source: Some(source) }
    }

    /// The system's error behind it, where there is one.
    pub fn io(&self) -> Option<&io::Error> {
        self.source.as_ref()
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}
