//! Ending well: what is under way is finished, what may be on its way is waited for, and a deadline ends the rest.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How far a server is with ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Serving,
    /// No new connections; the old ones are told with their next response.
    Leaving,
    /// The old ones end as they become idle.
    Draining,
    /// Every connection is dropped.
    Cut,
}

/// What all connections of a server share about its end.
pub(crate) struct Control {
    stage: watch::Sender<Stage>,
    /// When the server began to leave.
    began: OnceLock<Instant>,
    /// When it began to drain.
    drains: OnceLock<Instant>,
    open: watch::Sender<usize>,
    rests: AtomicU64,
    /// Whether nobody goes on serving in its place.
    is_last: AtomicBool,
    /// How many connections there were to cut.
    cut: OnceLock<usize>,
    draining: hawksbill_core::Draining,
}

impl Control {
    pub(crate) fn new() -> Arc<Self> {
        let (stage, mut begins) = watch::channel(Stage::Serving);
        let draining = hawksbill_core::Draining::new(async move {
            // A server that is gone has drained too.
            begins.wait_for(|stage| *stage >= Stage::Draining).await.ok();
        });
        Arc::new(Self {
            stage,
            began: OnceLock::new(),
            drains: OnceLock::new(),
            open: watch::Sender::new(0),
            rests: AtomicU64::new(0),
            is_last: AtomicBool::new(false),
            cut: OnceLock::new(),
            draining,
        })
    }

    pub(crate) fn advance(&self, to: Stage) {
        if to >= Stage::Leaving {
            self.began.get_or_init(Instant::now);
        }
        if to >= Stage::Draining {
            self.drains.get_or_init(Instant::now);
        }
        if to == Stage::Cut {
            self.cut.get_or_init(|| self.open_count());
        }
        self.stage.send_if_modified(|stage| {
            let advances = *stage < to;
            *stage = to.max(*stage);
            advances
        });
    }

    /// Whether there will be no new connections.
    pub(crate) fn is_ending(&self) -> bool {
        self.began.get().is_some()
    }

    /// Since when idle connections are let go.
    pub(crate) fn drains(&self) -> Option<Instant> {
        self.drains.get().copied()
    }

    pub(crate) fn stages(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Waits until the server is that far.
    pub(crate) async fn reached(&self, stage: Stage) {
        self.stages().wait_for(|now| *now >= stage).await.ok();
    }

    pub(crate) fn draining(&self) -> hawksbill_core::Draining {
        self.draining.clone()
    }

    /// Counts a connection as open until the guard is dropped.
    pub(crate) fn open(self: &Arc<Self>) -> Open {
        self.open.send_modify(|open| *open += 1);
        Open(self.clone())
    }

    pub(crate) fn open_count(&self) -> usize {
        *self.open.borrow()
    }

    /// A connection has given up its buffers.
    pub(crate) fn rest(&self) {
        self.rests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) async fn all_closed(&self) {
        self.open.subscribe().wait_for(|open| *open == 0).await.ok();
    }
}

/// One open connection.
pub(crate) struct Open(Arc<Control>);

impl Open {
    pub(crate) fn control(&self) -> &Arc<Control> {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

/// Ends a server, from anywhere. Cheap to clone.
#[derive(Clone)]
pub struct Shutdown(Arc<Control>);

impl Shutdown {
    pub(crate) fn new(control: Arc<Control>) -> Self {
        Self(control)
    }

    /// Stops accepting and lets what is under way finish, until the drain's deadline. Calling it again changes nothing.
    pub fn begin(&self) {
        self.0.is_last.store(true, Ordering::Relaxed);
        self.0.advance(Stage::Draining);
    }

    /// As [`begin`](Self::begin), where somebody else goes on serving at the same sockets: connections that are idle are
    /// kept until shortly before the deadline, so that no request meets one that is being closed, and so are upgraded ones.
    /// A response that is made meanwhile still ends its connection.
    pub fn leave(&self) {
        self.0.advance(Stage::Leaving);
    }

    /// Drops every connection at once, as the deadline does.
    pub fn cut(&self) {
        self.0.is_last.store(true, Ordering::Relaxed);
        self.0.advance(Stage::Cut);
    }

    /// Whether the end has begun.
    pub fn has_begun(&self) -> bool {
        self.0.is_ending()
    }

    /// Whether clients should go elsewhere: after [`begin`](Self::begin) and [`cut`](Self::cut), and not after
    /// [`leave`](Self::leave), which hands them over to somebody who goes on serving here.
    pub fn turns_away(&self) -> bool {
        self.0.is_last.load(Ordering::Relaxed)
    }

    /// Connections open now, those that were upgraded among them.
    pub fn open_connections(&self) -> usize {
        self.0.open_count()
    }

    /// How often connections have given up their buffers, because no request came for a while. When the number stands
    /// still again, an allocator may have memory to give back to the system.
    pub fn rests(&self) -> u64 {
        self.0.rests.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("begun", &self.has_begun())
            .field("open", &self.open_connections())
            .finish()
    }
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had to be cut because they were not finished by the deadline.
    pub cut: usize,
}

/// How long dropped connections may take to be gone: their tasks only have to be polled once more.
const LAST_POLL: Duration = Duration::from_secs(1);

/// How long before the deadline those are told to go who were kept until then.
const GOODBYE: Duration = Duration::from_secs(2);

/// Waits for the end to begin, then until every connection has closed or the deadline has come.
pub(crate) async fn until_drained(
    control: Arc<Control>,
    most: Duration,
    accepting: impl Future<Output = ()>,
) -> Drained {
    control.reached(Stage::Leaving).await;
    let deadline = tokio::time::Instant::now() + most;
    // First those connections count that were in the listeners' queues.
    let mut finished = std::pin::pin!(async {
        accepting.await;
        control.all_closed().await;
    });
    let drains = async {
        tokio::select! {
            () = control.reached(Stage::Draining) => {}
            () = tokio::time::sleep_until(deadline - GOODBYE.min(most / 2)) => control.advance(Stage::Draining),
        }
        tokio::select! {
            () = control.reached(Stage::Cut) => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    };
    tokio::select! {
        () = &mut finished => {}
        () = drains => {}
    }
    control.advance(Stage::Cut);
    tokio::time::timeout(LAST_POLL, control.all_closed()).await.ok();
    Drained { cut: control.cut.get().copied().unwrap_or_default() }
}
