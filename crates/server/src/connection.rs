//! One connection, from its first byte to its last.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hawksbill_core::{Connection, Peer, Turtle, Upgraded};
use http::request::Parts;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::activity::{Activity, Expired};
use crate::drain::{Control, Drained, Open, Shutdown, Stage, until_drained};
use crate::forwarded::{self, canonical};
use crate::io::{Transport, Watched, linger, poll_first};
use crate::service::{Service, expects_continue};
use crate::settings::{Refusal, Settings};
use crate::supervise::{Stop, Watch, Work, supervise};
use crate::unread::{self, Unread};
use crate::{http1, http2};

/// The connections of one server: they share its settings and its end. For embedders who accept by themselves;
/// [`Server`](crate::Server) does it for everybody else. Cheap to clone.
///
/// ```
/// use hawksbill_core::{Address, Body, Connection, Scheme, Turtle};
/// use hawksbill_server::{Connections, Settings};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let connections = Connections::new(Settings::default());
/// let (mut client, server) = tokio::io::duplex(4096);
/// let facts = Connection { remote: Address::Unix(None), local: Address::Unix(None), scheme: Scheme::Http };
/// let hello = Turtle::from_fn(async |_| Ok(http::Response::new(Body::from("hello"))));
/// tokio::spawn(async move { connections.serve(server, facts, hello).await });
///
/// client.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
/// let mut answer = String::new();
/// client.read_to_string(&mut answer).await?;
/// assert!(answer.ends_with("hello"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Connections {
    settings: Arc<Settings>,
    control: Arc<Control>,
}

/// Serves one connection that has nothing to do with any other, until it ends. See [`Connections::serve`].
pub async fn serve_connection(io: impl Transport, facts: Connection, turtle: Turtle, settings: Settings) {
    Connections::new(settings).serve(io, facts, turtle).await;
}

impl Connections {
    /// Connections under these settings.
    pub fn new(settings: Settings) -> Self {
        Self { settings: Arc::new(settings), control: Control::new() }
    }

    /// Serves one connection until it ends. IPv4 addresses mapped into IPv6 are taken for what they are.
    ///
    /// Dropping the future drops the connection. Must run within a tokio runtime with time and I/O.
    pub async fn serve(&self, io: impl Transport, facts: Connection, turtle: Turtle) {
        let open = self.open();
        self.serve_open(io, facts, turtle, open).await;
    }

    /// What ends them.
    pub fn shutdown(&self) -> Shutdown {
        Shutdown::new(self.control.clone())
    }

    /// Waits until the end has begun and all connections are gone, cutting them at the deadline.
    pub async fn drained(&self) -> Drained {
        self.drained_after(std::future::ready(())).await
    }

    pub(crate) async fn drained_after(&self, accepting: impl Future<Output = ()>) -> Drained {
        until_drained(self.control.clone(), self.settings.drain_timeout, accepting).await
    }

    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// Counts a connection, from when it is accepted.
    pub(crate) fn open(&self) -> Open {
        self.control.open()
    }

    pub(crate) async fn serve_open<S: Transport>(
        &self,
        io: S,
        facts: Connection,
        turtle: Turtle,
        open: Open,
    ) {
        let facts = Connection { remote: canonical(facts.remote), local: canonical(facts.local), ..facts };
        let trusted = forwarded::is_trusted(&facts.remote, &self.settings);
        let peer = Peer::new(facts);
        let activity = Arc::new(Activity::new());
        let mut stages = self.control.stages();
        let watch =
            Watch { activity: &activity, settings: &self.settings, control: &self.control, rests: false };
        let mut sniff = Sniff { io: Some(io), seen: BytesMut::new(), activity: &activity };
        let (io, early, http2) = match supervise(&mut sniff, watch, &mut stages).await {
            Ok(Some(sniffed)) => sniffed,
            Ok(None) | Err(Stop::Cut) => return,
            Err(Stop::Expired(why)) => {
                if let (Expired::Head, Some(io)) = (why, sniff.io.take()) {
                    http1::refuse_late(io, &peer, &self.settings).await;
                }
                return;
            }
        };
        let shared = Arc::new(Shared {
            settings: self.settings.clone(),
            control: self.control.clone(),
            activity: activity.clone(),
            peer,
            trusted,
            http2,
            runtime: Handle::current(),
            unread: Unread::default(),
            switched: Mutex::new(None),
        });
        let service = Service { turtle: turtle.infallible(), shared: shared.clone() };
        let io = Watched::new(io, early, activity);
        if http2 {
            http2::serve(io, service, &shared, &mut stages).await;
        } else {
            http1::serve(io, service, &shared, &mut stages, open).await;
        }
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// How long a client may be silent before a lingering connection is given up.
const SILENCE: Duration = Duration::from_secs(2);

/// What the parts of one connection share.
pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    pub(crate) control: Arc<Control>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) peer: Peer,
    /// Whether the other end is a proxy whose word counts.
    pub(crate) trusted: bool,
    pub(crate) http2: bool,
    runtime: Handle,
    pub(crate) unread: Unread,
    /// Who gets the connection after a 101.
    switched: Mutex<Option<oneshot::Sender<Upgraded>>>,
}

impl Shared {
    pub(crate) fn request_begins(&self, parts: &Parts, incoming: &Incoming) {
        if !self.http2 {
            let expects = || expects_continue(parts);
            self.unread.request_begins(incoming, expects, &self.activity);
        }
    }

    /// Records that the body's reader waits for the client, or does not. Of HTTP/2 streams any may wait at any time.
    pub(crate) fn body_awaited(&self, awaited: bool) {
        if !self.http2 {
            self.activity.body_awaited(awaited);
        }
    }

    /// Takes what an application left of a request's body. It may do so from any thread.
    pub(crate) fn leave_unread(&self, incoming: Incoming) {
        let budget = self.settings.max_unread_body;
        if self.http2 {
            self.runtime.spawn(unread::drop_later(incoming, budget));
        } else {
            self.unread.leave(incoming, budget, &self.activity);
        }
    }

    pub(crate) fn closes_after_response(&self) -> bool {
        self.control.is_ending() || self.unread.closes(self.settings.max_unread_body)
    }

    pub(crate) fn switch_to(&self, upgraded: Option<oneshot::Sender<Upgraded>>) {
        *self.switched.lock().unwrap_or_else(PoisonError::into_inner) = upgraded;
    }

    pub(crate) fn take_switched(&self) -> Option<oneshot::Sender<Upgraded>> {
        self.switched.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn watch(&self) -> Watch<'_> {
        Watch { activity: &self.activity, settings: &self.settings, control: &self.control, rests: false }
    }

    /// Closes so that the client can read what was written to it.
    pub(crate) async fn close(&self, io: impl Transport) {
        if !self.activity.is_client_gone() {
            let silence =
                if self.control.is_ending() { SILENCE.min(self.settings.idle_grace) } else { SILENCE };
            linger(io, silence, self.settings.linger).await;
        }
    }

    /// Does the last of a connection's work, for as long as the server lasts.
    pub(crate) async fn unless_cut(&self, work: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = self.control.reached(Stage::Cut) => {}
            () = work => {}
        }
    }

    /// Logs a request that hyper answered by itself.
    pub(crate) fn refuse(&self, refusal: &Refusal) {
        self.settings.refuse(&self.peer, refusal);
    }
}

/// Finds out which protocol a client speaks.
struct Sniff<'a, S> {
    io: Option<S>,
    seen: BytesMut,
    activity: &'a Activity,
}

/// How an HTTP/2 connection with prior knowledge begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl<S: Transport> Work for Sniff<'_, S> {
    /// The stream, what was read from it, whether it is HTTP/2. `None`: the client left.
    type Output = Option<(S, Bytes, bool)>;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let Some(io) = &mut self.io else { return Poll::Ready(None) };
            if !ready!(poll_first(io, cx, &mut self.seen, self.activity)) {
                return Poll::Ready(None);
            }
            let http2 = self.seen.starts_with(PREFACE);
            if http2 || !PREFACE.starts_with(&self.seen) {
                return Poll::Ready(self.io.take().map(|io| (io, self.seen.split().freeze(), http2)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of_val;

    use hawksbill_core::{Address, Scheme};
    use tokio::net::UnixStream;

    use super::*;

    /// What a thousand idle connections cost is a thousand times this.
    #[tokio::test]
    async fn the_task_of_a_connection_is_small() {
        let (io, _other) = UnixStream::pair().unwrap();
        let address = Address::Unix(None);
        let facts = Connection { remote: address.clone(), local: address, scheme: Scheme::Http };
        let turtle = Turtle::from_fn(async |_| Ok(http::Response::default()));
        let connections = Connections::new(Settings::default());
        let task = connections.serve(io, facts, turtle);
        assert!(size_of_val(&task) < 4 * 1024, "{} bytes", size_of_val(&task));
    }
}
