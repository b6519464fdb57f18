//! How requests come to a worker: through the sockets of the gateway, or from a front.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hawksbill_core::{BuildError, Turtle};
use serde_json::Value;

use super::development::Told;
use super::{MOST_STREAMS, Reached, hop_settings};
use crate::gateway::{Ready, tell_cut};

/// How long before the deadline those who would go on for ever, such as WebSocket connections, are told to end.
const GOODBYE: Duration = Duration::from_secs(2);

/// Where they come in.
pub(super) enum Entrance {
    /// Through the sockets that the gateway listens on.
    Sockets,
    /// Through a socket of this worker alone, from a front.
    Hop(Hop),
}

/// A socket for a front.
pub(super) struct Hop {
    listener: UnixListener,
    path: PathBuf,
    /// What is asked.
    app: Turtle,
    /// How long requests under way may take to end.
    drain: Duration,
}

/// An entrance that is open.
pub(super) enum Open {
    Sockets(hawksbill_server::Running),
    Hop { worker: hawksbill_hop::Worker, drain: Duration },
}

/// Ends what is open.
#[derive(Clone)]
pub(super) enum Shutdown {
    Sockets(hawksbill_server::Shutdown),
    Hop(hawksbill_hop::Worker),
}

impl Hop {
    /// Makes the socket. Nothing is accepted yet.
    pub(super) fn bind(path: PathBuf, app: Turtle, drain: Duration) -> Result<Self, BuildError> {
        let bound = UnixListener::bind(&path).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = bound.map_err(|error| {
            BuildError::new(format!("cannot listen at {}, where the front looks", path.display()))
                .caused_by(error)
        })?;
        Ok(Self { listener, path, app, drain })
    }

    fn open(&self, room: Option<u32>) -> io::Result<Open> {
        let listener = tokio::net::UnixListener::from_std(self.listener.try_clone()?)?;
        // Where it cannot work on more, the rest waits in the front: another worker may have room first.
        let worker = hawksbill_hop::Worker::new(hop_settings(), room.unwrap_or(MOST_STREAMS));
        let (accepting, app) = (worker.clone(), self.app.clone());
        tokio::spawn(async move { accepting.listen(listener, app).await });
        Ok(Open::Hop { worker, drain: self.drain })
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        // The directory is the supervisor's, and goes with it.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Entrance {
    /// Has a front answered by something else than the application.
    pub(super) fn answer_with(&mut self, turtle: Turtle) {
        if let Self::Hop(hop) = self {
            hop.app = turtle;
        }
    }

    /// Has the application answer a front through something else.
    pub(super) fn surround(&mut self, with: impl FnOnce(Turtle) -> Turtle) {
        if let Self::Hop(hop) = self {
            hop.app = with(hop.app.clone());
        }
    }

    /// Removes what the supervisor would have removed, as far as nobody else is there and it may be done.
    pub(super) fn tear_down(self) {
        let Self::Hop(hop) = self else { return };
        let dir = hop.path.parent().map(Path::to_owned);
        drop(hop);
        for dir in dir.iter().flat_map(|dir| dir.ancestors().take(2)) {
            let _ = std::fs::remove_dir(dir);
        }
    }

    /// What others need to know to come in.
    pub(super) fn info(&self, told: Told) -> Value {
        match self {
            Self::Sockets => Value::Null,
            Self::Hop(hop) => {
                serde_json::to_value(Reached { path: hop.path.clone(), told }).unwrap_or_default()
            }
        }
    }

    /// Accepts: more than once, one time after the other. At most as many requests come from a front as there is room for.
    pub(super) fn open(&self, ready: &Ready, room: Option<u32>) -> Result<Open, BuildError> {
        match self {
            Self::Sockets => ready.serve().map(Open::Sockets),
            Self::Hop(hop) => hop.open(room).map_err(|error| {
                BuildError::new(format!("cannot accept at {}", hop.path.display())).caused_by(error)
            }),
        }
    }
}

impl Open {
    pub(super) fn shutdown(&self) -> Shutdown {
        match self {
            Self::Sockets(server) => Shutdown::Sockets(server.shutdown()),
            Self::Hop { worker, .. } => Shutdown::Hop(worker.clone()),
        }
    }

    /// Waits for its end, and tells if what was under way had to be cut.
    pub(super) async fn wait(self) {
        match self {
            Self::Sockets(server) => tell_cut(server.wait().await),
            Self::Hop { worker, drain } => {
                let too_late = async {
                    worker.leaving().await;
                    tokio::time::sleep(drain.saturating_sub(GOODBYE)).await;
                    worker.drain();
                    tokio::time::sleep(drain.min(GOODBYE)).await;
                };
                tokio::select! {
                    () = worker.drained() => {}
                    () = too_late => {
                        tracing::warn!(target: "hawksbill::server", "what was under way at the end of the drain time is cut");
                        worker.cut();
                        worker.drained().await;
                    }
                }
            }
        }
    }
}

impl Shutdown {
    pub(super) fn has_connections(&self) -> bool {
        match self {
            Self::Sockets(server) => server.open_connections() > 0,
            Self::Hop(worker) => worker.connections() > 0,
        }
    }

    /// From now on there is room for so many requests of a front.
    pub(super) fn make_room(&self, room: u32) {
        match self {
            Self::Sockets(_) => {}
            Self::Hop(worker) => worker.set_capacity(room.min(MOST_STREAMS)),
        }
    }

    /// How often connections have given up their buffers.
    pub(super) fn rests(&self) -> u64 {
        match self {
            Self::Sockets(server) => server.rests(),
            Self::Hop(_) => 0,
        }
    }

    /// Accepts no more; what is open goes on.
    pub(super) fn leave(&self) {
        match self {
            Self::Sockets(server) => server.leave(),
            Self::Hop(worker) => worker.leave(),
        }
    }

    /// Accepts no more, and finishes what is under way.
    pub(super) fn begin(&self) {
        match self {
            Self::Sockets(server) => server.begin(),
            Self::Hop(worker) => worker.drain(),
        }
    }

    /// Ends at once.
    pub(super) fn cut(&self) {
        match self {
            Self::Sockets(server) => server.cut(),
            Self::Hop(worker) => worker.cut(),
        }
    }
}
