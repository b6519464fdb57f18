//! The runtime's end of a WebSocket: a task that reads and writes frames, answers pings, sends its own, and says
//! goodbye when the server drains.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hawksbill_core::{Draining, Upgrade, Upgraded};
use hawksbill_websocket::{CloseCode, CloseFrame, Config, Error, Message, Role, WebSocket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::lane::Lane;

/// How long a peer gets to complete the closing handshake.
const CLOSING: Duration = Duration::from_secs(10);

/// When a silent peer is asked for a sign of life, and when it is given up. Zero: never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pings {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
}

/// What the task and the application have in common.
pub(super) struct Wire {
    pub(super) incoming: Lane<Message>,
    pub(super) outgoing: Lane<Message>,
    /// Why the connection ended: the first reason counts.
    end: Mutex<Option<CloseFrame>>,
}

impl Wire {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { incoming: Lane::new(), outgoing: Lane::new(), end: Mutex::new(None) })
    }

    /// Notes why the connection ends, unless that is known.
    pub(super) fn ends_with(&self, frame: CloseFrame) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(frame);
    }

    /// Why the connection ended.
    pub(super) fn end(&self) -> CloseFrame {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner).clone();
        end.unwrap_or_else(|| CloseFrame::new(CloseCode::ABNORMAL, ""))
    }

    /// Closes from our side: the application is told the same code, and no further message.
    pub(super) fn close(&self, frame: CloseFrame) {
        self.ends_with(frame.clone());
        let length = frame.reason.len();
        // A lane that is closed already belongs to a connection that has ended.
        let _ = self.outgoing.push(Message::Close(Some(frame)), length);
        self.outgoing.close();
        self.incoming.clear();
    }
}

/// Carries messages until the connection is over.
pub(super) async fn run(upgrade: Upgrade, config: Config, pings: Pings, wire: Arc<Wire>, draining: Draining) {
    match upgrade.bytes().await {
        Ok(mut upgraded) => {
            let early = upgraded.take_early();
            let listened = Listened { io: upgraded, heard: false };
            let socket = WebSocket::with_read_ahead(listened, Role::Server, &config, early);
            let alive = (!pings.interval.is_zero()).then(|| Box::pin(sleep(pings.interval)));
            let mut pump = Pump { socket, wire: wire.clone(), closing: None, pings, alive, pinged: false };
            let mut drain = pin!(draining.begun());
            let mut drained = false;
            poll_fn(|cx| {
                if !drained && drain.as_mut().poll(cx).is_ready() {
                    drained = true;
                    pump.wire.close(CloseFrame::new(CloseCode::SERVICE_RESTART, "the server restarts"));
                }
                pump.poll(cx)
            })
            .await;
        }
        Err(error) => tracing::debug!(target: "hawksbill::app", "a WebSocket was not taken over: {error}"),
    }
    wire.ends_with(CloseFrame::new(CloseCode::ABNORMAL, ""));
    wire.outgoing.clear();
    wire.incoming.close();
}

struct Pump {
    socket: WebSocket<Listened>,
    wire: Arc<Wire>,
    /// Set once a close frame is sent or received: the rest has to happen until then.
    closing: Option<Pin<Box<Sleep>>>,
    pings: Pings,
    /// When to look for a sign of life next; `None`: never.
    alive: Option<Pin<Box<Sleep>>>,
    /// Whether the peer is asked and has not answered.
    pinged: bool,
}

impl Pump {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_outgoing(cx);
        // A failure to write is followed by one to read.
        let _ = self.socket.poll_flush(cx);
        if self.poll_incoming(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Some(deadline) = &mut self.closing {
            return deadline.as_mut().poll(cx);
        }
        self.poll_alive(cx)
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>) {
        while self.closing.is_none() {
            let Poll::Ready(Ok(())) = self.socket.poll_ready(cx) else { return };
            let Poll::Ready(Some(message)) = self.wire.outgoing.poll_take(cx) else { return };
            let closes = matches!(message, Message::Close(_));
            if let Err(error) = self.socket.start_send(message) {
                tracing::debug!(target: "hawksbill::app", "a WebSocket message was not sent: {error}");
            }
            if closes {
                self.begin_closing();
            }
        }
    }

    /// Ready when the connection is over.
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.closing.is_none() && self.wire.incoming.poll_room(cx).is_pending() {
                // Whoever is not listened to need not give a sign of life.
                self.socket.get_mut().heard = true;
                return Poll::Pending;
            }
            let Poll::Ready(received) = self.socket.poll_recv(cx) else { return Poll::Pending };
            match received {
                Ok(Message::Text(text)) => self.give(text.len(), Message::Text(text)),
                Ok(Message::Binary(bytes)) => self.give(bytes.len(), Message::Binary(bytes)),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(Message::Close(frame)) => {
                    let frame = frame.unwrap_or_else(|| CloseFrame::new(CloseCode::NO_STATUS, ""));
                    self.wire.ends_with(frame);
                    self.begin_closing();
                }
                Err(Error::Closed) => return Poll::Ready(()),
                Err(error) => {
                    let reason = match &error {
                        Error::Protocol(fault) => fault.reason(),
                        _ => "",
                    };
                    self.wire.ends_with(CloseFrame::new(error.close_code(), reason));
                    // The peer is being told what it did wrong; that needs some more turns.
                    if !matches!(error, Error::Protocol(_)) {
                        return Poll::Ready(());
                    }
                    self.begin_closing();
                }
            }
        }
    }

    fn give(&self, bytes: usize, message: Message) {
        // The lane is closed when the application has closed the connection: it wants no more.
        let _ = self.wire.incoming.push(message, bytes);
    }

    fn begin_closing(&mut self) {
        if self.closing.is_none() {
            self.closing = Some(Box::pin(sleep(CLOSING)));
            // The application learns of it now, not when the peer has answered.
            self.wire.incoming.close();
            self.wire.outgoing.close();
        }
    }

    /// Ready when the peer has given no sign of life.
    fn poll_alive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(alive) = &mut self.alive else { return Poll::Pending };
        if self.pinged && std::mem::take(&mut self.socket.get_mut().heard) {
            self.pinged = false;
            alive.as_mut().reset(Instant::now() + self.pings.interval);
        }
        while alive.as_mut().poll(cx).is_ready() {
            if self.pinged {
                tracing::debug!(target: "hawksbill::app", "a WebSocket's peer did not answer a ping: given up");
                return Poll::Ready(());
            }
            let mut wait = self.pings.interval;
            if !std::mem::take(&mut self.socket.get_mut().heard) {
                // One that cannot be written belongs to a connection that is about to end.
                let _ = self.socket.start_send(Message::Ping(bytes::Bytes::new()));
                let _ = self.socket.poll_flush(cx);
                self.pinged = !self.pings.timeout.is_zero();
                wait = if self.pinged { self.pings.timeout } else { wait };
            }
            alive.as_mut().reset(Instant::now() + wait);
        }
        Poll::Pending
    }
}

/// A connection on which every byte counts as a sign of life: in the middle of a long frame a peer cannot answer a
/// ping.
struct Listened {
    io: Upgraded,
    heard: bool,
}

impl AsyncRead for Listened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.heard |= buf.filled().len() > before;
        polled
    }
}

impl AsyncWrite for Listened {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
