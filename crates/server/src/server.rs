//! Turtles behind listeners.

use std::fmt;

use futures_util::future::join_all;
use hawksbill_core::Turtle;
use tokio::task::JoinHandle;

use crate::accept::Acceptor;
use crate::connection::Connections;
use crate::drain::{Drained, Shutdown};
use crate::listener::{Bound, ListenError, Listener};
use crate::settings::Settings;

/// A server before it starts: listeners, each with the turtle that it asks.
///
/// A turtle that stands behind one listener alone cannot be reached through any other, whatever a client says.
pub struct Server {
    settings: Settings,
    listeners: Vec<(Listener, Turtle)>,
}

impl Server {
    /// A server that listens nowhere yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, listeners: Vec::new() }
    }

    /// Asks `turtle` for every request that comes to `listener`.
    pub fn listen(mut self, listener: Listener, turtle: Turtle) -> Self {
        self.listeners.push((listener, turtle));
        self
    }

    /// Starts accepting on the current tokio runtime, of either flavour, with time and I/O.
    ///
    /// # Errors
    /// When there is no runtime, or a socket cannot be used under it.
    pub fn start(self) -> Result<Running, ListenError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| {
            ListenError::because("the server needs a tokio runtime", std::io::Error::other(error))
        })?;
        let mut addresses = Vec::new();
        let mut acceptors = Vec::new();
        for (listener, turtle) in self.listeners {
            for socket in listener.sockets {
                let bound = socket.bound.clone();
                let failed = |error| ListenError::because(format_args!("cannot accept at {bound}"), error);
                acceptors.push((Acceptor::new(socket).map_err(failed)?, turtle.clone()));
                addresses.push(bound);
            }
        }
        let connections = Connections::new(self.settings);
        let accepting: Vec<_> = acceptors
            .into_iter()
            .map(|(acceptor, turtle)| runtime.spawn(acceptor.run(turtle, connections.clone())))
            .collect();
        let shutdown = connections.shutdown();
        let drained = runtime.spawn(async move {
            let accepting = async { drop(join_all(accepting).await) };
            connections.drained_after(accepting).await
        });
        Ok(Running { addresses, shutdown, drained })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listeners: Vec<_> = self.listeners.iter().map(|(listener, _)| listener.addresses()).collect();
        f.debug_struct("Server").field("settings", &self.settings).field("listeners", &listeners).finish()
    }
}

/// A server that serves. Dropping this does not end it; [`Running::shutdown`] does.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<Bound>,
    shutdown: Shutdown,
    drained: JoinHandle<Drained>,
}

impl Running {
    /// Where it listens, in the order of the listeners, with the ports that the system chose.
    pub fn addresses(&self) -> &[Bound] {
        &self.addresses
    }

    /// What ends it.
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Waits until the end has begun and every connection is gone.
    pub async fn wait(self) -> Drained {
        // It fails when the runtime is shut down, which drops every connection by itself.
        self.drained.await.unwrap_or(Drained { cut: self.shutdown.open_connections() })
    }
}
