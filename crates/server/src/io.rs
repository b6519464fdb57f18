//! The socket under hyper, watched: bytes that come, writes that block, a client that is gone.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout_at};

use crate::activity::Activity;

/// What a connection can be made of: a TCP or Unix stream, a TLS stream, an in-memory pipe.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for T {}

/// Enough for the head of a usual request, so that it is read at once.
const FIRST_READ: usize = 4 * 1024;

/// Reads what comes first on a connection that has no buffer of its own: it needs none while it waits. `false`: the client
/// left.
pub(crate) fn poll_first<S: Transport>(
    stream: &mut S,
    cx: &mut Context<'_>,
    seen: &mut BytesMut,
    activity: &Activity,
) -> Poll<bool> {
    let mut space = [MaybeUninit::uninit(); FIRST_READ];
    let mut space = ReadBuf::uninit(&mut space);
    if ready!(Pin::new(stream).poll_read(cx, &mut space)).is_err() || space.filled().is_empty() {
        activity.client_gone();
        return Poll::Ready(false);
    }
    activity.bytes_read();
    seen.extend_from_slice(space.filled());
    Poll::Ready(true)
}

/// What is written at once is copied together up to this length.
const SHORT: usize = 4 * 1024;

/// A stream whose activity is recorded. What was read ahead of time is read again first.
pub(crate) struct Watched<S> {
    stream: S,
    early: Bytes,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, early: Bytes, activity: Arc<Activity>) -> Self {
        Self { stream, early, activity }
    }

    /// The stream, and what of the early bytes nobody has read.
    pub(crate) fn into_inner(self) -> (S, Bytes) {
        (self.stream, self.early)
    }

    /// Records the outcome of a write.
    fn wrote<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.activity.write_blocks(outcome.is_pending());
        if matches!(outcome, Poll::Ready(Err(_))) {
            self.activity.client_gone();
        }
        outcome
    }
}

impl<S: Transport> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let count = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..count]);
            self.early.advance(count);
            self.activity.bytes_read();
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let outcome = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if outcome.is_ok() && buf.filled().len() > before {
            self.activity.bytes_read();
        } else if buf.remaining() > 0 {
            self.activity.client_gone();
        }
        Poll::Ready(outcome)
    }
}

impl<S: Transport> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A head with a short body: one copy and a send are less work for the system than a list of buffers.
        if bufs.iter().map(|buf| buf.len()).sum::<usize>() <= SHORT {
            let mut joined = [MaybeUninit::uninit(); SHORT];
            let mut joined = ReadBuf::uninit(&mut joined);
            for buf in bufs {
                joined.put_slice(buf);
            }
            return self.poll_write(cx, joined.filled());
        }
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.wrote(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Closes so that the client can read what was written to it (RFC 9112 section 9.6): ends our side, then reads and
/// throws away what the client still sends, until it closes too, is silent for that long, or `limit` is over. Closing a
/// socket with unread bytes in it would reset the connection, and the reset may destroy the answer.
pub(crate) async fn linger(mut stream: impl Transport, silence: Duration, limit: Duration) {
    let end = Instant::now() + limit;
    // On the heap: here it would be a part of every connection's task, all its life.
    let mut sink = vec![0; 8 * 1024];
    if !matches!(timeout_at(end, stream.shutdown()).await, Ok(Ok(()))) {
        return;
    }
    loop {
        let until = end.min(Instant::now() + silence);
        match timeout_at(until, stream.read(&mut sink)).await {
            Ok(Ok(count)) if count > 0 => {}
            _ => return,
        }
    }
}
