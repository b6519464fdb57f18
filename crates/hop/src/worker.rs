//! The worker's end: what it serves, how much at a time, how it ends.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use hawksbill_core::{Body, Draining, Turtle, Upgrade};
use http::{Method, Request};
use tokio::net::UnixListener;
use tokio::sync::{oneshot, watch};

use crate::Fault;
use crate::answer::{self, Switch};
use crate::body::Incoming;
use crate::driver::{Driver, Receiver};
use crate::link::{Link, Slot};
use crate::peers::Peers;
use crate::seat::Seats;
use crate::settings::{Settings, Transport, halves};
use crate::stream::{End, Stream, wake};
use crate::wire::{END, FrameHeader, FrameKind, HELD, RequestHead, Role, StreamId, UPGRADE, forwarded_of};

/// A worker: it serves the connections of its front, and they share its end. Cheap to clone.
///
/// See [`Connection`](crate::Connection) for both ends in one example.
#[derive(Clone)]
pub struct Worker(Arc<Shared>);

struct Shared {
    settings: Settings,
    capacity: watch::Sender<u32>,
    stage: watch::Sender<Stage>,
    open: watch::Sender<usize>,
    draining: Draining,
}

/// How far a worker is with ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    /// No new connections.
    Leaving,
    Draining,
    Cut,
}

impl Worker {
    /// A worker that takes so many requests at a time. The front keeps to it; it is nothing to be relied on for safety.
    pub fn new(settings: Settings, capacity: u32) -> Self {
        let stage = watch::Sender::new(Stage::Serving);
        let mut begins = stage.subscribe();
        let draining = Draining::new(async move {
            begins.wait_for(|stage| *stage >= Stage::Draining).await.ok();
        });
        let capacity = watch::Sender::new(capacity);
        Self(Arc::new(Shared { settings, capacity, stage, open: watch::Sender::new(0), draining }))
    }

    /// Serves one connection until it ends: because the front closes it, or after a drain.
    ///
    /// Each request is asked in a task of its own. Dropping the future drops the connection and the calls under way.
    /// Must run within a tokio runtime with time and I/O.
    ///
    /// # Errors
    /// When the front broke the protocol, or there was no hello that fits.
    pub async fn serve(&self, io: impl Transport, turtle: Turtle) -> Result<(), Fault> {
        let _open = Open::begin(&self.0);
        let mut stages = self.0.stage.subscribe();
        let mut capacity = self.0.capacity.subscribe();
        let (mut source, mut sink) = halves(io);
        let room = *capacity.borrow_and_update();
        let hello = self.0.settings.greet(&mut source, &mut sink, room).await?;
        let ours = self.0.settings.limits.sane();
        let link = Link::new(Role::Worker, sink, ours, hello.limits, Seats::new(0));
        let receiver = Back { turtle, shared: self.0.clone(), peers: Peers::default() };
        let mut driver = pin!(Driver::new(link.clone(), source, receiver));
        loop {
            match *stages.borrow_and_update() {
                Stage::Serving | Stage::Leaving => {}
                Stage::Draining => link.leave(),
                Stage::Cut => link.end(Fault::Closed),
            }
            tokio::select! {
                fault = &mut driver => return match &*fault {
                    Fault::Broken(rule) => Err(Fault::Broken(rule.clone())),
                    _ => Ok(()),
                },
                changed = stages.changed() => if changed.is_err() { link.end(Fault::Closed) },
                Ok(()) = capacity.changed() => {
                    let room = *capacity.borrow_and_update();
                    if let Some(mut pushing) = link.push() {
                        pushing.frame(FrameKind::Room, 0, StreamId::CONNECTION, |out| {
                            out.extend_from_slice(&room.to_le_bytes());
                        });
                        pushing.done();
                    }
                }
            }
        }
    }

    /// Serves every connection that comes to a socket, until it is to leave.
    pub async fn listen(&self, listener: UnixListener, turtle: Turtle) {
        let mut stages = self.0.stage.subscribe();
        loop {
            let accepted = tokio::select! {
                _ = stages.wait_for(|stage| *stage >= Stage::Leaving) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (worker, turtle) = (self.clone(), turtle.clone());
                    tokio::spawn(async move {
                        if let Err(fault) = worker.serve(stream, turtle).await {
                            tracing::error!(target: "hawksbill::error", "a connection of the front ended: {fault}");
                        }
                    });
                }
                Err(error) => {
                    tracing::error!(target: "hawksbill::error", "the worker's socket accepts nothing: {error}");
                    // Descriptors may have run out, and will not be back at once.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Says anew how many requests it takes at a time.
    pub fn set_capacity(&self, capacity: u32) {
        self.0.capacity.send_if_modified(|now| std::mem::replace(now, capacity) != capacity);
    }

    /// Accepts no more connections. Those that are open go on until the front ends them.
    pub fn leave(&self) {
        self.advance(Stage::Leaving);
    }

    /// Takes no more requests. What is under way is finished, then the connections end.
    pub fn drain(&self) {
        self.advance(Stage::Draining);
    }

    /// Ends everything at once.
    pub fn cut(&self) {
        self.advance(Stage::Cut);
    }

    fn advance(&self, to: Stage) {
        self.0.stage.send_if_modified(|stage| {
            let advances = *stage < to;
            *stage = to.max(*stage);
            advances
        });
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        *self.0.open.borrow()
    }

    /// Waits until it is to leave or to drain.
    pub async fn leaving(&self) {
        self.0.stage.subscribe().wait_for(|stage| *stage >= Stage::Leaving).await.ok();
    }

    /// Waits until it is to leave or to drain, and for the last connection to end.
    pub async fn drained(&self) {
        self.leaving().await;
        self.0.open.subscribe().wait_for(|open| *open == 0).await.ok();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

/// One open connection.
struct Open(Arc<Shared>);

impl Open {
    fn begin(shared: &Arc<Shared>) -> Self {
        shared.open.send_modify(|open| *open += 1);
        Self(shared.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

/// What comes from a front alone.
struct Back {
    turtle: Turtle,
    shared: Arc<Shared>,
    peers: Peers,
}

impl Receiver for Back {
    fn frame(&mut self, link: &Arc<Link>, header: &FrameHeader, payload: Bytes) -> Result<(), Fault> {
        match header.kind {
            FrameKind::Request => self.request(link, header, &payload),
            FrameKind::Reset => {
                if let Some(stream) = link.stream(header.stream)? {
                    reset(link, &stream);
                }
                Ok(())
            }
            FrameKind::Leave if header.stream == StreamId::CONNECTION => {
                link.state().last_request_sent = true;
                Ok(())
            }
            FrameKind::Leave => {
                let leaving = link.stream(header.stream)?.and_then(|stream| stream.lock().leaving.take());
                if let Some(leaving) = leaving {
                    leaving.send(()).ok();
                }
                Ok(())
            }
            _ => Err(Fault::broken("a frame came that only a worker sends")),
        }
    }
}

impl Back {
    fn request(&mut self, link: &Arc<Link>, header: &FrameHeader, payload: &Bytes) -> Result<(), Fault> {
        let head = RequestHead::decode(payload)?;
        let peer = match &head.connection {
            Some((number, facts)) => Some(forwarded_of(self.peers.of(*number, facts)?, head.forwarded)),
            None => None,
        };
        let held = header.has(HELD);
        let upgrades = header.has(UPGRADE);
        let window = if held { 0 } else { link.ours.window as usize };
        let stream = Arc::new(Stream::new(header.stream, window, link.theirs.window as usize));
        let body = if header.has(END) || upgrades {
            stream.lock().receiving = upgrades;
            None
        } else {
            stream.lock().remaining = head.length;
            Some(Incoming::new(link.clone(), stream.clone(), held))
        };
        begin(link, &stream)?;
        let mut request = Request::new(Body::empty());
        *request.method_mut() = head.method;
        *request.uri_mut() = head.target;
        *request.version_mut() = head.version;
        *request.headers_mut() = head.headers;
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        if let Some(mount) = head.mount {
            request.extensions_mut().insert(mount);
        }
        let switch = upgrades.then(|| self.offer(&stream, &mut request));
        let call = answer::give(link.clone(), stream.clone(), self.turtle.clone(), (request, body), switch);
        let call = link.runtime.spawn(call).abort_handle();
        stream.lock().call = Some(call);
        Ok(())
    }

    /// Offers the stream to who answers the request by switching protocols.
    fn offer(&self, stream: &Stream, request: &mut Request<Body>) -> Switch {
        let (sender, accepted) = oneshot::channel();
        request.extensions_mut().insert(Upgrade::new(async {
            let ended = |_| {
                hawksbill_core::Error::new(hawksbill_core::Kind::Canceled)
                    .because("the connection ended before it was upgraded")
            };
            accepted.await.map_err(ended)
        }));
        let (leaving, told) = oneshot::channel();
        stream.lock().leaving = Some(leaving);
        let told = async {
            // Without a word the stream has ended by itself.
            if told.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let here = self.shared.draining.clone().begun();
        let draining = select(here.boxed(), told.boxed()).map(|(Either::Left(_) | Either::Right(_))| ());
        request.extensions_mut().insert(Draining::new(draining));
        Switch { connect: request.method() == Method::CONNECT, taker: sender }
    }
}

/// Gives a stream of the front its slot.
fn begin(link: &Link, stream: &Arc<Stream>) -> Result<(), Fault> {
    let mut state = link.state();
    if state.last_request_sent {
        return Err(Fault::broken("a request came behind the last one"));
    }
    let index = stream.id.slot as usize;
    if state.slots.len() <= index {
        state.slots.resize_with(index + 1, Slot::default);
    }
    let Some(slot) = state.slots.get_mut(index) else { return Ok(()) };
    let ahead = stream.id.generation.wrapping_sub(slot.generation);
    if slot.stream.is_some() || ahead == 0 || ahead >= 0x8000_0000 {
        return Err(Fault::broken("a request came on a stream that is not free"));
    }
    slot.generation = stream.id.generation;
    slot.stream = Some(stream.clone());
    state.live += 1;
    Ok(())
}

/// Nobody wants the answer: the call is dropped, and with it its request's body.
fn reset(link: &Link, stream: &Arc<Stream>) {
    let (wakers, call) = {
        let mut inner = stream.lock();
        let gone = hawksbill_core::Error::new(hawksbill_core::Kind::BadRequest)
            .because("the request body ended before it was complete");
        let reader = inner.receive_end(End::Failed(gone));
        ([reader, inner.stop_sending()], inner.call.take())
    };
    if let Some(call) = call {
        call.abort();
    }
    wakers.into_iter().for_each(wake);
    link.release(stream);
}
