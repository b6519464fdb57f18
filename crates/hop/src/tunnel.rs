//! Streams that speak another protocol: at the front a client's connection, at the worker what an application takes over.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hawksbill_core::{Draining, Upgrade, Upgraded};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body;
use crate::link::Link;
use crate::send;
use crate::stream::{End, Stream};
use crate::wire::{END, FrameKind};

/// How much is read from a client at a time.
const READ: usize = 8 * 1024;

/// One end of a stream as a stream of bytes.
pub(crate) struct StreamIo {
    link: Arc<Link>,
    stream: Arc<Stream>,
    /// What came and is not read.
    chunk: Bytes,
}

impl StreamIo {
    pub(crate) fn new(link: Arc<Link>, stream: Arc<Stream>) -> Self {
        Self { link, stream, chunk: Bytes::new() }
    }

    /// Waits for bytes in `chunk`. `false`: none will come.
    fn poll_chunk(&mut self, cx: &Context<'_>) -> Poll<io::Result<bool>> {
        if !self.chunk.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let mut inner = self.stream.lock();
        if let Some((chunk, credit)) = inner.take_chunk(self.link.ours.window as usize) {
            drop(inner);
            self.chunk = chunk;
            self.link.credit(&self.stream, credit);
            return Poll::Ready(Ok(true));
        }
        if inner.receiving {
            inner.wait_to_read(cx);
            return Poll::Pending;
        }
        Poll::Ready(match inner.end.take() {
            Some(End::Failed(error) | End::Lost { error, .. }) => {
                Err(io::Error::new(io::ErrorKind::ConnectionReset, error))
            }
            _ => Ok(false),
        })
    }

    /// How many bytes may be written now, up to that many.
    fn poll_room(&self, cx: &Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let mut inner = self.stream.lock();
        if !inner.sending {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        inner.wait_to_give(cx);
        let room = wanted.min(inner.credit).min(self.link.theirs.data as usize);
        if room == 0 && wanted > 0 { Poll::Pending } else { Poll::Ready(Ok(room)) }
    }

    fn poll_send(&self, cx: &Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let count = ready!(self.poll_room(cx, bufs.iter().map(|buf| buf.len()).sum()))?;
        if count == 0 {
            return Poll::Ready(Ok(0));
        }
        let Some(mut pushing) = self.link.push() else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        {
            let mut inner = self.stream.lock();
            if !pushing.has_room(&self.stream, &mut inner) {
                return Poll::Pending;
            }
            inner.credit -= count;
        }
        pushing.copied(self.stream.id, bufs, count);
        pushing.done();
        Poll::Ready(Ok(count))
    }

    fn finish(&self) {
        send::end(&self.link, &self.stream, FrameKind::Data, END, |_| ()).ok();
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if ready!(self.poll_chunk(cx))? {
            let count = self.chunk.len().min(buf.remaining());
            buf.put_slice(&self.chunk[..count]);
            self.chunk.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamIo {
    fn drop(&mut self) {
        self.finish();
        body::stop(&self.link, &self.stream);
    }
}

/// Carries a client's connection over a stream, until both directions have ended.
pub(crate) fn dig(link: &Arc<Link>, stream: Arc<Stream>, upgrade: Upgrade, draining: Draining) {
    let io = StreamIo::new(link.clone(), stream);
    link.runtime.spawn(async move {
        // A client that left before it was told leaves the application an end, as any other does.
        if let Ok(client) = upgrade.bytes().await {
            let leaving = Some(draining.begun().boxed());
            Tunnel { io, client, up: true, down: true, unflushed: false, leaving }.await;
        }
    });
}

struct Tunnel {
    io: StreamIo,
    client: Upgraded,
    /// The client may still say something.
    up: bool,
    /// The application may still say something.
    down: bool,
    unflushed: bool,
    /// The front's server ends: the application says goodbye in its own words.
    leaving: Option<BoxFuture<'static, ()>>,
}

impl Tunnel {
    /// Ready when nothing more goes up; an error is the client's.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Ok(room) = ready!(self.io.poll_room(cx, READ)) else { return Poll::Ready(Ok(())) };
            let mut space = [0; READ];
            let mut space = ReadBuf::new(&mut space[..room]);
            ready!(Pin::new(&mut self.client).poll_read(cx, &mut space))?;
            let read = space.filled();
            if read.is_empty() {
                self.io.finish();
                return Poll::Ready(Ok(()));
            }
            let Some(mut pushing) = self.io.link.push() else { return Poll::Ready(Ok(())) };
            pushing.copied(self.io.stream.id, &[IoSlice::new(read)], read.len());
            let room = {
                let mut inner = self.io.stream.lock();
                inner.credit -= read.len();
                pushing.has_room(&self.io.stream, &mut inner)
            };
            pushing.done();
            if !room {
                return Poll::Pending;
            }
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.io.poll_chunk(cx)? {
                Poll::Ready(true) => {
                    let chunk = &self.io.chunk;
                    let count = ready!(Pin::new(&mut self.client).poll_write(cx, chunk))?;
                    if count == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    self.io.chunk.advance(count);
                    self.unflushed = true;
                }
                Poll::Ready(false) => return Pin::new(&mut self.client).poll_shutdown(cx),
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut self.client).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Future for Tunnel {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.leaving.as_mut().is_some_and(|leaving| leaving.poll_unpin(cx).is_ready()) {
            this.leaving = None;
            this.io.link.push_plain(FrameKind::Leave, 0, this.io.stream.id);
        }
        for is_up in [true, false] {
            let open = if is_up { this.up } else { this.down };
            if !open {
                continue;
            }
            match if is_up { this.poll_up(cx) } else { this.poll_down(cx) } {
                Poll::Ready(Ok(())) if is_up => this.up = false,
                Poll::Ready(Ok(())) => this.down = false,
                // The client, or the application, is gone.
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        if this.up || this.down { Poll::Pending } else { Poll::Ready(()) }
    }
}
