//! A WebSocket over any byte stream of tokio.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::{Config, Role};
use crate::decode::Decoder;
use crate::encode::{Encoder, SharedMessage};
use crate::error::{Error, ProtocolError};
use crate::message::{CloseFrame, Message, Utf8Bytes};
use crate::outbox::Outbox;

/// Bytes of one read. The buffer lies on the stack: a connection that waits holds none.
const READ: usize = 16 * 1024;

/// Where reading stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Open,
    /// The peer broke the protocol and is told so; what it still sends is read and dropped until it leaves, since
    /// closing a socket over unread bytes would reset it and lose our close frame.
    Draining,
    /// The peer's close frame, the end of the stream or an error was seen.
    Over,
}

/// A WebSocket connection after its handshake, in either role.
///
/// Pings are answered and the closing handshake is completed by themselves, while [`recv`](Self::recv) or
/// [`flush`](Self::flush) is polled. One task can read and write at once with the `poll_*` methods: every
/// [`poll_recv`](Self::poll_recv) also writes what waits. Two tasks use [`split`](Self::split).
///
/// Nothing here keeps time: send [`Message::Ping`] at the interval you like and watch for [`Message::Pong`]; put a
/// timeout around [`close`](Self::close) and around draining a connection after an error.
pub struct WebSocket<S> {
    io: S,
    decoder: Decoder,
    encoder: Encoder,
    outbox: Outbox,
    /// Read from the stream and not decoded yet; empty whenever the connection is quiet.
    read_ahead: Bytes,
    /// The answer to the last ping, held back while the outbox is full: only the last must be answered.
    pong: Option<Bytes>,
    write_buffer: usize,
    reading: Reading,
    close_sent: bool,
    write_failed: Option<io::ErrorKind>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// A WebSocket on a stream whose handshake is over.
    pub fn new(io: S, role: Role, config: &Config) -> Self {
        Self::with_read_ahead(io, role, config, Bytes::new())
    }

    /// As [`new`](Self::new), with bytes that an HTTP implementation read beyond the handshake.
    pub fn with_read_ahead(io: S, role: Role, config: &Config, read_ahead: Bytes) -> Self {
        Self {
            io,
            decoder: Decoder::new(role, config),
            encoder: Encoder::new(role, config),
            outbox: Outbox::default(),
            read_ahead,
            pong: None,
            write_buffer: config.write_buffer,
            reading: Reading::Open,
            close_sent: false,
            write_failed: None,
        }
    }

    /// The next message. A ping is given after its answer is queued, a close after its echo is.
    ///
    /// Cancelling the future loses nothing.
    ///
    /// # Errors
    /// [`Error::Protocol`] once, after which the peer has been told; [`Error::Disconnected`] where the stream ends
    /// without a close frame; [`Error::Closed`] after the closing handshake and for every further call;
    /// [`Error::Io`] where reading fails.
    pub async fn recv(&mut self) -> Result<Message, Error> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Waits for room, queues the message and writes all that is queued.
    ///
    /// Cancelled while it waits for room, it drops the message; later, the message stays queued.
    ///
    /// # Errors
    /// As [`poll_ready`](Self::poll_ready) and [`start_send`](Self::start_send).
    pub async fn send(&mut self, message: Message) -> Result<(), Error> {
        self.feed(message).await?;
        self.flush().await
    }

    /// Waits for room and queues the message; it is written by the next call that polls this connection.
    ///
    /// # Errors
    /// As [`poll_ready`](Self::poll_ready) and [`start_send`](Self::start_send).
    pub async fn feed(&mut self, message: Message) -> Result<(), Error> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        self.start_send(message)
    }

    /// Writes all that is queued.
    ///
    /// # Errors
    /// [`Error::Io`] where writing fails.
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Sends a close frame, unless one was sent, waits for the peer's and ends the stream. Messages that still come are
    /// dropped. Bound it with a timeout: a peer need not answer.
    ///
    /// # Errors
    /// Whatever kept the closing handshake from being completed.
    pub async fn close(&mut self, frame: Option<CloseFrame>) -> Result<(), Error> {
        if !self.close_sent {
            self.start_send(Message::Close(frame))?;
        }
        loop {
            match self.recv().await {
                Ok(_) => {}
                Err(Error::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Polls for the next message, and writes what is queued as far as the stream takes it.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        let mut write = Context::from_waker(cx.waker());
        self.poll_recv_with(cx, &mut write)
    }

    /// Whether a message may be given to [`start_send`](Self::start_send): waits while more than
    /// [`Config::write_buffer`] bytes are queued.
    ///
    /// # Errors
    /// [`Error::Closed`] after a close frame was sent or received, [`Error::Io`] where writing has failed.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.check_writable()?;
        if self.outbox.queued() >= self.write_buffer {
            match self.poll_drain(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending if self.outbox.queued() >= self.write_buffer => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Queues a message; nothing is written until the connection is polled.
    ///
    /// # Errors
    /// [`Error::Closed`] after a close frame, [`Error::Io`] where writing has failed, [`Error::Encode`] for a message
    /// that cannot be sent.
    pub fn start_send(&mut self, message: Message) -> Result<(), Error> {
        self.check_writable()?;
        let closes = matches!(message, Message::Close(_));
        let frame = self.encoder.encode(message)?;
        self.outbox.push(frame);
        self.close_sent = closes;
        Ok(())
    }

    /// Queues a message that goes to many connections, sharing its frame with them.
    ///
    /// # Errors
    /// As [`start_send`](Self::start_send).
    pub fn start_send_shared(&mut self, message: &SharedMessage) -> Result<(), Error> {
        self.check_writable()?;
        let frame = self.encoder.encode_shared(message)?;
        self.outbox.push(frame);
        self.close_sent = matches!(message.message(), Message::Close(_));
        Ok(())
    }

    /// Writes all that is queued.
    ///
    /// # Errors
    /// [`Error::Io`] where writing fails.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.write_failed {
            Some(kind) => Poll::Ready(Err(Error::Io(kind.into()))),
            None => self.poll_drain(cx),
        }
    }

    /// Bytes that are queued and not yet taken by the stream.
    pub fn queued(&self) -> usize {
        self.outbox.queued()
    }

    /// The stream beneath.
    pub fn get_ref(&self) -> &S {
        &self.io
    }

    /// The stream beneath; reading or writing it directly breaks the connection.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.io
    }

    /// The stream back, without what is queued or was read ahead.
    pub fn into_inner(self) -> S {
        self.io
    }

    /// As [`poll_recv`](Self::poll_recv), where another task may be the one to wake for writing.
    pub(crate) fn poll_recv_with(
        &mut self,
        read: &mut Context<'_>,
        write: &mut Context<'_>,
    ) -> Poll<Result<Message, Error>> {
        loop {
            // A stream that takes nothing, or has failed, must not keep the peer's last words from being read.
            let drained = self.poll_drain(write);
            match self.reading {
                Reading::Open => {}
                Reading::Draining => {
                    if matches!(drained, Poll::Ready(Ok(()))) {
                        let _ = Pin::new(&mut self.io).poll_shutdown(write);
                    }
                    if !self.read_ahead.is_empty() {
                        self.read_ahead = Bytes::new();
                    } else if !matches!(ready!(self.poll_discard(read)), Ok(1..)) {
                        self.reading = Reading::Over;
                    }
                    continue;
                }
                Reading::Over => {
                    // Failures to end a stream that is over anyway tell nothing.
                    if ready!(drained).is_ok() {
                        let _ = ready!(Pin::new(&mut self.io).poll_shutdown(write));
                    }
                    return Poll::Ready(Err(Error::Closed));
                }
            }
            match ready!(self.poll_decode(read)) {
                Ok(None) => {}
                Ok(Some(message)) => {
                    self.answer(&message, write);
                    return Poll::Ready(Ok(message));
                }
                Err(error) => {
                    self.stop(&error, write);
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// Decodes what was read ahead, or else one read of the stream.
    fn poll_decode(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        if !self.read_ahead.is_empty() {
            let result = self.decoder.decode(&mut self.read_ahead);
            if self.read_ahead.is_empty() {
                // An empty slice would still hold its allocation.
                self.read_ahead = Bytes::new();
            }
            return Poll::Ready(result.map_err(Error::Protocol));
        }
        let mut space = [MaybeUninit::uninit(); READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let mut bytes = buffer.filled();
        if bytes.is_empty() {
            return Poll::Ready(Err(Error::Disconnected));
        }
        let result = self.decoder.decode(&mut bytes);
        if result.is_ok() && !bytes.is_empty() {
            self.read_ahead = Bytes::copy_from_slice(bytes);
        }
        Poll::Ready(result.map_err(Error::Protocol))
    }

    /// Reads once without looking; gives how many bytes there were.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Answers a ping or a close, and writes the answer at once if the stream takes it.
    fn answer(&mut self, message: &Message, write: &mut Context<'_>) {
        match message {
            Message::Ping(payload) if !self.close_sent => self.pong = Some(payload.clone()),
            Message::Close(frame) => {
                self.reading = Reading::Over;
                self.queue_close(frame.clone());
            }
            _ => return,
        }
        let _ = self.poll_drain(write);
    }

    /// Ends reading after an error; tells the peer, if it is the peer's fault.
    fn stop(&mut self, error: &Error, write: &mut Context<'_>) {
        let Error::Protocol(fault) = error else {
            // Nobody is there to read what waits.
            self.reading = Reading::Over;
            self.close_sent = true;
            self.outbox.clear();
            self.pong = None;
            return;
        };
        self.reading = Reading::Draining;
        self.queue_close(Some(fault_frame(*fault)));
        let _ = self.poll_drain(write);
    }

    fn queue_close(&mut self, frame: Option<CloseFrame>) {
        self.pong = None;
        if !self.close_sent {
            self.close_sent = true;
            if let Ok(frame) = self.encoder.encode(Message::Close(frame)) {
                self.outbox.push(frame);
            }
        }
    }

    /// Writes what is queued, the pong last; gives `Ok` where writing has failed before and nothing is left to do.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.write_failed.is_some() {
            return Poll::Ready(Ok(()));
        }
        loop {
            if self.outbox.queued() < self.write_buffer.max(1)
                && let Some(payload) = self.pong.take()
                && let Ok(frame) = self.encoder.encode(Message::Pong(payload))
            {
                self.outbox.push(frame);
            }
            if let Err(error) = ready!(self.outbox.poll_flush(&mut self.io, cx)) {
                self.write_failed = Some(error.kind());
                self.outbox.clear();
                self.pong = None;
                return Poll::Ready(Err(Error::Io(error)));
            }
            if self.pong.is_none() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn check_writable(&self) -> Result<(), Error> {
        match self.write_failed {
            _ if self.close_sent => Err(Error::Closed),
            Some(kind) => Err(Error::Io(kind.into())),
            None => Ok(()),
        }
    }
}

/// The close frame that tells a peer what it did wrong.
fn fault_frame(fault: ProtocolError) -> CloseFrame {
    CloseFrame { code: fault.close_code(), reason: Utf8Bytes::from_static(fault.reason()) }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A server, and the raw other end of its stream.
    fn server(buffer: usize, config: &Config) -> (WebSocket<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(buffer);
        (WebSocket::new(near, Role::Server, config), far)
    }

    /// A client's frame with a mask of zeros.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let len = u8::try_from(payload.len()).unwrap();
        [&[first, 0x80 | len, 0, 0, 0, 0], payload].concat()
    }

    fn poll<T>(future: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        future(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn a_ping_is_answered_without_being_asked_to() {
        let (mut ws, mut far) = server(1024, &Config::default());
        far.write_all(&frame(0x89, b"hi")).await.unwrap();
        assert_eq!(ws.recv().await.unwrap(), Message::Ping("hi".into()));
        let mut pong = [0; 4];
        far.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"\x8A\x02hi");
    }

    #[tokio::test]
    async fn a_flood_of_pings_is_not_hoarded() {
        let (mut ws, mut far) = server(64, &Config { write_buffer: 100, ..Config::default() });
        for i in 0..100_u8 {
            far.write_all(&frame(0x89, &[i; 40])).await.unwrap();
            assert_eq!(ws.recv().await.unwrap(), Message::Ping(vec![i; 40].into()));
            assert!(ws.queued() <= 150, "{}", ws.queued());
        }
        drop(ws.flush());
        // The last is among those that are answered.
        let mut answers = Vec::new();
        while !answers.ends_with(&[99; 40]) {
            let _ = poll(|cx| ws.poll_flush(cx));
            answers.push(far.read_u8().await.unwrap());
        }
        assert!(answers.len() < 10 * 42);
    }

    #[tokio::test]
    async fn a_close_is_echoed_and_the_stream_ends() {
        for (payload, code) in [(&b""[..], None), (b"\x03\xE9bye", Some(1001))] {
            let (mut ws, mut far) = server(1024, &Config::default());
            far.write_all(&frame(0x88, payload)).await.unwrap();
            let Message::Close(close) = ws.recv().await.unwrap() else { panic!("no close") };
            assert_eq!(close.map(|close| close.code.0), code);
            assert!(matches!(ws.send(Message::text("late")).await, Err(Error::Closed)));
            assert!(matches!(ws.recv().await, Err(Error::Closed)));
            assert!(matches!(ws.recv().await, Err(Error::Closed)));
            let mut echo = Vec::new();
            far.read_to_end(&mut echo).await.unwrap();
            assert_eq!(echo, [&[0x88, u8::try_from(payload.len()).unwrap()], payload].concat());
        }
    }

    #[tokio::test]
    async fn faults_are_told_by_their_code() {
        let config = Config { max_message_size: 20, ..Config::default() };
        for (input, code) in [
            (frame(0x83, b""), 1002_u16),
            (frame(0x81, b"\xFF"), 1007),
            (frame(0x82, &[0; 21]), 1009),
            (vec![0x81, 0x01, b'a'], 1002),
        ] {
            let (mut ws, mut far) = server(1024, &config);
            far.write_all(&input).await.unwrap();
            assert!(matches!(ws.recv().await, Err(Error::Protocol(_))));
            // Bytes that follow are drained until the peer has left.
            far.write_all(&[0; 100]).await.unwrap();
            let mut close = [0; 4];
            far.read_exact(&mut close).await.unwrap();
            assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, code));
            drop(far);
            assert!(matches!(ws.recv().await, Err(Error::Closed)));
        }
    }

    #[tokio::test]
    async fn a_stream_that_just_ends_is_told_from_a_close() {
        let (mut ws, far) = server(1024, &Config::default());
        drop(far);
        let error = ws.recv().await.unwrap_err();
        assert!(matches!(error, Error::Disconnected));
        assert_eq!(error.close_code().0, 1006);
        assert!(matches!(ws.recv().await, Err(Error::Closed)));
        assert!(matches!(ws.send(Message::text("x")).await, Err(Error::Closed)));
    }

    #[tokio::test]
    async fn last_words_are_read_although_writing_fails() {
        let (mut ws, mut far) = server(1024, &Config::default());
        far.write_all(&frame(0x88, b"\x03\xE8")).await.unwrap();
        drop(far);
        assert!(matches!(ws.send(Message::text("x")).await, Err(Error::Io(_))));
        assert_eq!(ws.recv().await.unwrap(), Message::close(1000, ""));
        assert!(matches!(ws.recv().await, Err(Error::Closed)));
    }

    #[tokio::test]
    async fn bytes_read_with_the_handshake_come_first() {
        let (near, mut far) = duplex(1024);
        let two = [frame(0x81, b"a"), frame(0x01, b"b")].concat();
        let mut ws = WebSocket::with_read_ahead(near, Role::Server, &Config::default(), two.into());
        far.write_all(&frame(0x80, b"c")).await.unwrap();
        assert_eq!(ws.recv().await.unwrap(), Message::text("a"));
        assert_eq!(ws.recv().await.unwrap(), Message::text("bc"));
    }

    #[tokio::test]
    async fn recv_can_be_cancelled_anywhere() {
        let (mut ws, mut far) = server(1024, &Config::default());
        let bytes = [frame(0x01, b"it's"), frame(0x80, b" turtles")].concat();
        for byte in &bytes[..bytes.len() - 1] {
            far.write_all(&[*byte]).await.unwrap();
            assert!(poll(|cx| ws.poll_recv(cx)).is_pending());
        }
        far.write_all(&bytes[bytes.len() - 1..]).await.unwrap();
        assert_eq!(ws.recv().await.unwrap(), Message::text("it's turtles"));
    }

    #[tokio::test]
    async fn sending_waits_while_the_peer_does_not_read_and_receiving_goes_on() {
        let (mut ws, mut far) = server(64, &Config { write_buffer: 1000, ..Config::default() });
        let mut accepted = 0;
        while poll(|cx| ws.poll_ready(cx)).is_ready() {
            ws.start_send(Message::binary(vec![7; 98])).unwrap();
            accepted += 1;
        }
        assert_eq!(accepted, 11);
        far.write_all(&frame(0x81, b"still here")).await.unwrap();
        assert_eq!(ws.recv().await.unwrap(), Message::text("still here"));
        let reader = tokio::spawn(async move {
            let mut all = vec![0; 1100];
            far.read_exact(&mut all).await.map(|_| (all, far))
        });
        ws.flush().await.unwrap();
        assert!(reader.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn an_idle_connection_is_small() {
        let (mut ws, mut far) = server(1 << 20, &Config::default());
        let many: Vec<u8> = (0..1000).flat_map(|_| frame(0x81, b"hello")).collect();
        far.write_all(&many).await.unwrap();
        for _ in 0..1000 {
            ws.recv().await.unwrap();
            ws.send(Message::text("hello")).await.unwrap();
        }
        assert!(poll(|cx| ws.poll_recv(cx)).is_pending());
        assert!(ws.read_ahead.is_empty() && ws.decoder.is_between_messages());
        assert!(size_of::<WebSocket<DuplexStream>>() <= 640, "{}", size_of::<WebSocket<DuplexStream>>());
    }
}
