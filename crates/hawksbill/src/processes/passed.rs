//! Sockets that a service manager has opened and passes (`sd_listen_fds(3)`).

use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use hawksbill_core::config::{Listen, ListenHost};
use hawksbill_core::{Address, BuildError};
use hawksbill_server::Listener;
use hawksbill_supervisor::Descriptors;
use serde::{Deserialize, Serialize};

/// One such socket. It is the manager's: it outlives this program, and so does its file.
pub(super) struct Passed {
    pub(super) label: Label,
    listener: Listener,
}

/// What the manager calls a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    /// The descriptor that it was passed as: `fd:3` in a configuration.
    number: RawFd,
    /// `FileDescriptorName=`, or the number again.
    name: String,
}

impl Passed {
    /// Those that were passed to this program.
    pub(super) fn all(mut descriptors: Descriptors) -> Result<Vec<Self>, String> {
        let names: Vec<String> = descriptors.names().map(str::to_owned).collect();
        let mut all = Vec::new();
        for name in names {
            let Some(descriptor) = descriptors.take(&name) else { continue };
            let label = Label { number: descriptor.as_raw_fd(), name };
            let listener = Listener::from_descriptors([descriptor])
                .map_err(|error| format!("descriptor {} {error}", label.number))?;
            all.push(Self { label, listener });
        }
        all.sort_by_key(|passed| passed.label.number);
        Ok(all)
    }

    /// As a former program had it.
    pub(super) fn again(label: Label, listener: Listener) -> Self {
        Self { label, listener }
    }

    /// The place in the configuration that means this socket; of several the one that says so most exactly.
    pub(super) fn place(&self, wanted: &[Listen]) -> Result<usize, BuildError> {
        let all = wanted.iter().enumerate();
        let fitting = all.filter_map(|(index, listen)| Some((self.fit(listen)?, index)));
        fitting.min().map(|(_, index)| index).ok_or_else(|| self.unnamed(wanted))
    }

    fn fit(&self, listen: &Listen) -> Option<Fit> {
        let address = self.listener.addresses().first().map(|bound| bound.address().clone())?;
        fit(listen, self.label.number, &address)
    }

    /// What listens at all of these.
    pub(super) fn listener(passed: &[&Self]) -> Result<Listener, BuildError> {
        let failed = |error: &dyn std::fmt::Display| {
            BuildError::new(format!("a socket of the service manager cannot be used: {error}"))
        };
        let mut descriptors = Vec::new();
        for one in passed {
            descriptors.extend(one.listener.descriptors().map_err(|error| failed(&error))?);
        }
        Listener::from_descriptors(descriptors).map_err(|error| failed(&error))
    }

    fn unnamed(&self, wanted: &[Listen]) -> BuildError {
        let Label { number, name } = &self.label;
        let called = if *name == number.to_string() { String::new() } else { format!(", {name:?}") };
        let listen = match self.listener.addresses().first().map(|bound| bound.address().clone()) {
            Some(Address::Tcp(address)) => address.to_string(),
            Some(Address::Unix(Some(path))) => format!("unix:{}", path.display()),
            _ => format!("fd:{number}"),
        };
        let named: Vec<String> = wanted.iter().map(|listen| format!("{:?}", listen.to_string())).collect();
        BuildError::new(format!(
            "the service manager passes a socket at {listen} (descriptor {number}{called}) that no 'listen' names, so nobody \
             would answer there; add \"{listen}\" to listen, or take it out of the .socket unit (listen is {})",
            named.join(", ")
        ))
    }
}

/// How well a place in the configuration fits a socket; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Exact,
    /// It is one of the sockets that the place stands for.
    Part,
}

fn fit(listen: &Listen, number: RawFd, address: &Address) -> Option<Fit> {
    let fit = |fits: bool, fit| fits.then_some(fit);
    match (listen, address) {
        (Listen::Fd(named), _) => fit(*named == number, Fit::Exact),
        (Listen::Tcp { host, port }, Address::Tcp(at)) if *port == at.port() => match host {
            ListenHost::Address(named) => fit(*named == at.ip(), Fit::Exact),
            ListenHost::All => fit(at.ip().is_unspecified(), Fit::Part),
            ListenHost::Localhost => fit(at.ip().is_loopback(), Fit::Part),
        },
        (Listen::Unix(named), Address::Unix(Some(at))) => fit(real(named) == real(at), Fit::Exact),
        _ => None,
    }
}

/// A path without links: `/var/run` is `/run`.
fn real(path: &Path) -> PathBuf {
    let absolute = || std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    path.canonicalize().unwrap_or_else(|_| absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_means_the_sockets_at_its_address() {
        let tcp = |at: &str| Address::Tcp(at.parse().unwrap());
        let unix = |path: &str| Address::Unix(Some(path.into()));
        for (listen, address, expected) in [
            ("127.0.0.1:80", tcp("127.0.0.1:80"), Some(Fit::Exact)),
            ("127.0.0.1:80", tcp("127.0.0.1:81"), None),
            ("127.0.0.1:80", tcp("0.0.0.0:80"), None),
            ("[::1]:80", tcp("[::1]:80"), Some(Fit::Exact)),
            ("[::]:80", tcp("[::]:80"), Some(Fit::Exact)),
            ("0.0.0.0:80", tcp("[::]:80"), None),
            (":80", tcp("[::]:80"), Some(Fit::Part)),
            (":80", tcp("0.0.0.0:80"), Some(Fit::Part)),
            (":80", tcp("127.0.0.1:80"), None),
            ("localhost:80", tcp("127.0.0.1:80"), Some(Fit::Part)),
            ("localhost:80", tcp("[::1]:80"), Some(Fit::Part)),
            ("localhost:80", tcp("[::]:80"), None),
            ("unix:/nowhere/x.sock", unix("/nowhere/x.sock"), Some(Fit::Exact)),
            ("unix:/nowhere/x.sock", unix("/nowhere/y.sock"), None),
            ("unix:/nowhere/x.sock", Address::Unix(None), None),
            ("fd:7", Address::Unix(None), Some(Fit::Exact)),
            ("fd:8", tcp("127.0.0.1:80"), None),
        ] {
            let listen: Listen = listen.parse().unwrap();
            assert_eq!(fit(&listen, 7, &address), expected, "{listen} {address}");
        }
    }

    #[test]
    fn a_path_may_lead_over_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("run"), dir.path().join("var"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(real.join("s")).unwrap();
        let at = Address::Unix(Some(real.join("s")));
        assert_eq!(fit(&Listen::Unix(link.join("s")), 3, &at), Some(Fit::Exact));
    }
}
