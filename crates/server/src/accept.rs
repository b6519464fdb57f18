//! Accepting, and going on accepting when the system cannot.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hawksbill_core::{Address, Connection, Scheme, Turtle};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::connection::Connections;
use crate::drain::Stage;
use crate::listener::{Inner, Socket};

/// More than fit into any queue: clients that keep coming must not hold up a drain.
const LONGEST_QUEUE: usize = 16 * 1024;

/// A socket under a runtime.
pub(crate) struct Acceptor {
    socket: AsyncSocket,
    /// What remains of the socket: its address, its file.
    rest: Rest,
}

enum AsyncSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

struct Rest {
    local: Address,
    shown: String,
    inherited: bool,
    _file: Option<crate::listener::SocketFile>,
}

enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Acceptor {
    /// # Errors
    /// When there is no runtime with I/O, or the socket cannot be used under it.
    pub(crate) fn new(socket: Socket) -> io::Result<Self> {
        let rest = Rest {
            local: socket.bound.address().clone(),
            shown: socket.bound.to_string(),
            inherited: socket.inherited,
            _file: socket.file,
        };
        let socket = match socket.inner {
            Inner::Tcp(listener) => AsyncSocket::Tcp(TcpListener::from_std(listener)?),
            Inner::Unix(listener) => AsyncSocket::Unix(UnixListener::from_std(listener)?),
        };
        Ok(Self { socket, rest })
    }

    /// Accepts until the server drains, then takes what has connected already, and closes.
    pub(crate) async fn run(self, turtle: Turtle, connections: Connections) {
        let mut trouble = Trouble::default();
        let accepting = async {
            loop {
                match self.socket.accept().await {
                    Ok(accepted) => {
                        trouble.over(&self.rest.shown);
                        self.rest.serve(accepted, &turtle, &connections);
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => tokio::time::sleep(trouble.begins(&self.rest.shown, &error)).await,
                }
            }
        };
        tokio::select! {
            biased;
            () = connections.control().reached(Stage::Leaving) => {}
            () = accepting => {}
        }
        // Closing resets who waits in the queue, unless another process has the socket too.
        if !self.rest.inherited {
            self.socket.rest_of_queue(|accepted| self.rest.serve(accepted, &turtle, &connections));
        }
    }
}

impl AsyncSocket {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().await.map(|(stream, remote)| Accepted::Tcp(stream, remote))
            }
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        }
    }

    /// Takes what is in the system's queue, past the runtime, which may not have heard of it yet.
    fn rest_of_queue(&self, mut take: impl FnMut(Accepted)) {
        let flags = rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC;
        for _ in 0..LONGEST_QUEUE {
            let accepted = match self {
                Self::Tcp(listener) => {
                    rustix::net::accept_with(listener, flags).map_err(io::Error::from).and_then(|fd| {
                        let stream = std::net::TcpStream::from(fd);
                        let remote = stream.peer_addr()?;
                        Ok(Accepted::Tcp(TcpStream::from_std(stream)?, remote))
                    })
                }
                Self::Unix(listener) => rustix::net::accept_with(listener, flags)
                    .map_err(io::Error::from)
                    .and_then(|fd| UnixStream::from_std(fd.into()))
                    .map(Accepted::Unix),
            };
            match accepted {
                Ok(accepted) => take(accepted),
                Err(error) if is_of_one_connection(&error) => {}
                Err(_) => return,
            }
        }
    }
}

impl Rest {
    fn serve(&self, accepted: Accepted, turtle: &Turtle, connections: &Connections) {
        let (turtle, connections, open) = (turtle.clone(), connections.clone(), connections.open());
        match accepted {
            Accepted::Tcp(stream, remote) => {
                // An answer in two writes must not wait for the client's acknowledgement of the first.
                stream.set_nodelay(true).ok();
                let local = stream.local_addr().map_or_else(|_| self.local.clone(), Address::Tcp);
                let facts = Connection { remote: Address::Tcp(remote), local, scheme: Scheme::Http };
                tokio::spawn(async move { connections.serve_open(stream, facts, turtle, open).await });
            }
            Accepted::Unix(stream) => {
                let facts = Connection {
                    remote: Address::Unix(None),
                    local: self.local.clone(),
                    scheme: Scheme::Http,
                };
                tokio::spawn(async move { connections.serve_open(stream, facts, turtle, open).await });
            }
        }
    }
}

/// Whether an error belongs to one client that left before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// A burst of failures to accept, usually for want of descriptors: said once, and waited out.
#[derive(Default)]
struct Trouble {
    pause: Option<Duration>,
}

impl Trouble {
    const SHORTEST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(1);

    /// How long to wait before the next attempt.
    fn begins(&mut self, shown: &str, error: &io::Error) -> Duration {
        let pause = if let Some(pause) = self.pause {
            (pause * 2).min(Self::LONGEST)
        } else {
            tracing::error!(
                target: "hawksbill::server",
                "{shown} cannot accept connections for now: {error}; if these are too many open files, \
                 raise the limit (ulimit -n, LimitNOFILE=)"
            );
            Self::SHORTEST
        };
        self.pause = Some(pause);
        pause
    }

    fn over(&mut self, shown: &str) {
        if self.pause.take().is_some() {
            tracing::info!(target: "hawksbill::server", "{shown} accepts connections again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_and_is_bounded() {
        let mut trouble = Trouble::default();
        let error = io::Error::from_raw_os_error(24);
        let pauses: Vec<_> = (0..10).map(|_| trouble.begins("here", &error)).collect();
        assert_eq!(pauses[0], Trouble::SHORTEST);
        assert_eq!(pauses[1], 2 * Trouble::SHORTEST);
        assert_eq!(pauses[9], Trouble::LONGEST);
        trouble.over("here");
        assert_eq!(trouble.begins("here", &error), Trouble::SHORTEST);
    }
}
