//! The front's end of one connection.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hawksbill_core::{Body, Error, Turtle, TurtleFuture};
use http::Request;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::Fault;
use crate::call::{self, Failure};
use crate::driver::{Driver, Receiver};
use crate::link::Link;
use crate::seat::{Seat, Seats};
use crate::settings::{Settings, Transport, halves};
use crate::stream::{End, wake};
use crate::wire::{END, FrameHeader, FrameKind, ResponseHead, Role, StreamId, UPGRADE};

/// A connection to one worker. Cheap to clone; it ends when the last clone is gone and what is under way is finished.
///
/// Whoever has many workers takes a [`Pool`](crate::Pool).
///
/// ```
/// use hawksbill_core::{Body, Turtle, body::to_bytes};
/// use hawksbill_hop::{Connection, Settings, Worker};
/// use http::{Request, Response};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let (front, back) = tokio::net::UnixStream::pair().unwrap();
/// let hello = Turtle::from_fn(async |_| Ok(Response::new(Body::from("hello"))));
/// tokio::spawn(async move { Worker::new(Settings::default(), 64).serve(back, hello).await });
///
/// let worker = Connection::open(front, &Settings::default()).await.unwrap();
/// let response = worker.ask(Request::new(Body::empty())).await.unwrap();
/// assert_eq!(to_bytes(response.into_body(), 99).await.unwrap(), "hello");
/// # }
/// ```
#[derive(Clone)]
pub struct Connection(Arc<Handle>);

struct Handle {
    link: Arc<Link>,
}

impl Connection {
    /// Says hello to a worker at the other end of a stream.
    ///
    /// Must run within a tokio runtime with time and I/O, which keeps the connection going.
    ///
    /// # Errors
    /// Why there is no connection: the other end is no worker, speaks other versions, or says nothing.
    pub async fn open(io: impl Transport, settings: &Settings) -> Result<Self, Fault> {
        let (mut source, mut sink) = halves(io);
        let hello = settings.greet(&mut source, &mut sink, 0).await?;
        let seats = Seats::new(hello.capacity as usize);
        let link = Link::new(Role::Front, sink, settings.limits.sane(), hello.limits, seats);
        tokio::spawn(Driver::new(link.clone(), source, Front));
        Ok(Self(Arc::new(Handle { link })))
    }

    /// Connects to the socket of a worker.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn connect(path: impl AsRef<Path>, settings: &Settings) -> Result<Self, Fault> {
        Self::open(UnixStream::connect(path).await?, settings).await
    }

    /// Asks the worker, however much it has to do. An error that is retryable came before the worker could see anything.
    pub fn ask(&self, request: Request<Body>) -> TurtleFuture {
        match self.0.link.seats.squeeze().map(|seat| self.send(seat, request)) {
            Some(Ok(call)) => TurtleFuture::new(async { call.await.map_err(|failure| failure.error) }),
            Some(Err(failure)) => TurtleFuture::refused(failure.error),
            None => TurtleFuture::refused(self.refusal()),
        }
    }

    /// The worker as a turtle.
    pub fn turtle(&self) -> Turtle {
        let connection = self.clone();
        Turtle::from_ask(move |request| connection.ask(request))
    }

    pub(crate) fn send(&self, seat: Seat, request: Request<Body>) -> Result<call::Call, Failure> {
        call::send(&self.0.link, seat, request)
    }

    fn refusal(&self) -> Error {
        match self.0.link.fault() {
            Some(fault) => fault.failure().retryable(),
            None => Error::new(hawksbill_core::Kind::BadGateway).because("the worker ends").retryable(),
        }
    }

    pub(crate) fn link(&self) -> Arc<Link> {
        self.0.link.clone()
    }

    pub(crate) fn seats(&self) -> &Arc<Seats> {
        &self.0.link.seats
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.seats().taken()
    }

    /// How many requests the worker serves at a time, as it says.
    pub fn capacity(&self) -> usize {
        self.seats().capacity()
    }

    /// Whether the worker takes requests: the connection is there and the worker does not end.
    pub fn is_open(&self) -> bool {
        !self.seats().is_closed()
    }

    /// Waits for the end of the connection.
    pub async fn ended(&self) -> Arc<Fault> {
        self.0.link.ended().await
    }

    /// Takes no more requests; what is under way is finished.
    pub fn drain(&self) {
        self.0.retire();
    }

    /// Ends the connection, and with it every request under way.
    pub fn close(&self) {
        self.0.link.end(Fault::Closed);
    }

    /// Waits until the worker has answered a ping: until then its thread may be busy with something else.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn ping(&self) -> Result<(), Error> {
        let link = &self.0.link;
        let answered = link.push().map(|mut pushing| {
            let (answer, answered) = oneshot::channel();
            let state = pushing.state();
            state.next_ping += 1;
            let number = state.next_ping;
            state.pings.push((number, answer));
            pushing.frame(FrameKind::Ping, 0, StreamId::CONNECTION, |out| {
                out.extend_from_slice(&number.to_le_bytes());
            });
            pushing.done();
            answered
        });
        match answered {
            Some(answered) => answered.await.map_err(|_| self.refusal()),
            None => Err(self.refusal()),
        }
    }
}

impl Handle {
    fn retire(&self) {
        self.link.seats.close();
        let driver = self.link.retire();
        wake(driver);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.retire();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("seats", self.seats()).finish_non_exhaustive()
    }
}

/// What comes from a worker alone.
struct Front;

impl Receiver for Front {
    fn frame(&mut self, link: &Arc<Link>, header: &FrameHeader, payload: Bytes) -> Result<(), Fault> {
        match header.kind {
            FrameKind::Response => response(link, header, &payload),
            FrameKind::Room => {
                let room = payload.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                link.seats.set_capacity(room as usize);
                Ok(())
            }
            FrameKind::Leave => {
                // The answer is the last thing that the worker waits for, so no request is lost between the two.
                if let Some(mut pushing) = link.push() {
                    pushing.last_request();
                    pushing.done();
                }
                link.seats.close();
                Ok(())
            }
            _ => Err(Fault::broken("a frame came that only a front sends")),
        }
    }
}

fn response(link: &Arc<Link>, header: &FrameHeader, payload: &Bytes) -> Result<(), Fault> {
    let Some(stream) = link.stream(header.stream)? else { return Ok(()) };
    let head = ResponseHead::decode(payload)?;
    let switched = header.has(UPGRADE);
    let wakers = {
        let mut inner = stream.lock();
        if std::mem::replace(&mut inner.answered, true) || !inner.receiving {
            return Err(Fault::broken("a request was answered twice"));
        }
        if switched && !inner.may_switch {
            return Err(Fault::broken("a protocol was switched that nobody asked to switch"));
        }
        if !switched {
            inner.remaining = head.length;
        }
        inner.answer = Some((head, switched));
        let giver = if inner.may_switch && !switched { inner.stop_sending() } else { None };
        let reader = if header.has(END) { inner.receive_end(End::Clean) } else { inner.reader.take() };
        [giver, reader]
    };
    link.release(&stream);
    wakers.into_iter().for_each(wake);
    Ok(())
}
