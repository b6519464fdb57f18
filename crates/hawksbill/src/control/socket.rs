//! The socket itself: who may connect, and what serves whom.

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hawksbill_core::config::Listen;
use hawksbill_core::{Address, Connection, Scheme, Turtle};
use hawksbill_server::{BindOptions, Connections, Listener, Settings};
use http::StatusCode;
use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixStream};

use super::place::{self, Subject};
use super::trouble::Trouble;
use crate::config;

/// How long the last answers may take.
const LAST: Duration = Duration::from_millis(500);

/// How long to wait after a connection could not be accepted: there are too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// The socket of this process. Its file goes with it.
pub(crate) struct Control {
    listener: Listener,
    connections: Connections,
}

impl Control {
    /// Opens the socket that a configuration wants. Relative paths count from `dir`. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the path that the configuration names cannot be had. The usual place is not worth a failure.
    pub(crate) fn open(
        wanted: &config::Control,
        subject: &Subject,
        dir: &Path,
    ) -> Result<Option<Self>, String> {
        match wanted {
            config::Control::Off => Ok(None),
            config::Control::At(path) => Self::bind(dir.join(path)).map(Some),
            config::Control::Usual => {
                let bound = place::usual(subject).map_err(|error| error.to_string()).and_then(Self::bind);
                if let Err(error) = &bound {
                    tracing::warn!(
                        target: "hawksbill::control",
                        "there is no control socket: {error}; commands such as 'hawksbill reload' need one, and --control PATH gives it another place"
                    );
                }
                Ok(bound.ok())
            }
        }
    }

    fn bind(path: PathBuf) -> Result<Self, String> {
        if let Some(pid) = holder(&path) {
            let shown = path.display();
            return Err(format!(
                "a gateway is already running with the control socket {shown} (pid {pid}); \
                 stop it with 'hawksbill stop --control {shown}', or name another socket with --control"
            ));
        }
        let options = BindOptions { backlog: 64, unix_mode: Some(0o600) };
        let listener = Listener::bind_with(&Listen::Unix(path), &options);
        let listener = listener.map_err(|error| error.to_string().replace("--listen", "--control"))?;
        let settings = Settings { drain_timeout: LAST, idle_grace: Duration::ZERO, ..Settings::default() };
        Ok(Self { listener, connections: Connections::new(settings) })
    }

    /// Serves whoever may connect.
    ///
    /// # Errors
    /// When there are too many open files.
    pub(crate) fn serve(&self, turtle: Turtle) -> io::Result<()> {
        for descriptor in self.listener.descriptors()? {
            let listener = UnixListener::from_std(descriptor.into())?;
            tokio::spawn(accept(listener, turtle.clone(), self.connections.clone()));
        }
        Ok(())
    }

    /// Lets the last answers out.
    pub(crate) async fn end(self) {
        self.connections.shutdown().begin();
        self.connections.drained().await;
    }
}

async fn accept(listener: UnixListener, turtle: Turtle, connections: Connections) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let turtle = if is_allowed(&stream) { turtle.clone() } else { forbidden() };
                let connections = connections.clone();
                tokio::spawn(async move {
                    let unnamed = Address::Unix(None);
                    let facts = Connection { remote: unnamed.clone(), local: unnamed, scheme: Scheme::Http };
                    connections.serve(stream, facts, turtle).await;
                });
            }
            Err(error) => {
                tracing::warn!(target: "hawksbill::control", "a connection could not be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The file's permissions say the same, but files can be changed, and a directory on the way may be somebody else's.
fn is_allowed(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == geteuid().as_raw() || peer.uid() == 0)
}

fn forbidden() -> Turtle {
    Turtle::from_fn(async |_| {
        let refusal = "only the user who runs the gateway and root may control it; try it with sudo";
        Ok(Trouble::new(StatusCode::FORBIDDEN, refusal).into_response())
    })
}

/// The process that listens on a socket.
fn holder(path: &Path) -> Option<u32> {
    let stream = StdStream::connect(path).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(stream).ok()?;
    u32::try_from(peer.pid.as_raw_pid()).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_live_socket_is_not_taken_and_a_stale_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let control = Control::bind(path.clone()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = Control::bind(path.clone()).err().unwrap();
        assert!(error.contains("already running"), "{error}");
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(control);
        assert!(!path.exists());
    }
}
