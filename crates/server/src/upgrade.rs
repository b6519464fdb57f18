//! Connections that speak another protocol after a 101, and streams of HTTP/2 that do after a 200.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hawksbill_core::{Error, Kind, Upgraded};
use http::header::{CONNECTION, HeaderMap, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::body::UnderWay;
use crate::drain::{Open, Stage};
use crate::io::Transport;

/// Whether a request asks for another protocol (RFC 9110 section 7.8).
pub(crate) fn is_asked_for(headers: &HeaderMap) -> bool {
    if !headers.contains_key(UPGRADE) {
        return false;
    }
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// The bare stream under an upgraded connection. It counts as open until it is dropped, and fails at the drain's
/// deadline.
pub(crate) struct UpgradedStream<S> {
    stream: S,
    /// One for each direction, for they may be awaited by two tasks.
    read_cut: BoxFuture<'static, ()>,
    write_cut: Option<BoxFuture<'static, ()>>,
    open: Open,
}

impl<S: Transport> UpgradedStream<S> {
    pub(crate) fn new(stream: S, open: Open) -> Self {
        Self { stream, read_cut: cut(&open), write_cut: None, open }
    }

    /// What a write says, unless the stream is to be cut while it says nothing.
    fn written<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending()
            && self.write_cut.get_or_insert_with(|| cut(&self.open)).as_mut().poll(cx).is_ready()
        {
            self.write_cut = None;
            return Poll::Ready(Err(ended()));
        }
        polled
    }
}

/// The stream of an accepted CONNECT (RFC 8441 section 5), as a connection of its own.
pub(crate) async fn stream(
    stream: OnUpgrade,
    accepted: oneshot::Receiver<UnderWay>,
) -> Result<Upgraded, Error> {
    let canceled = || Error::new(Kind::Canceled).because("the stream ended before it was accepted");
    let under_way = accepted.await.map_err(|_| canceled())?;
    let stream = stream.await.map_err(|error| canceled().caused_by(error))?;
    Ok(Upgraded::new(ConnectStream { stream: TokioIo::new(stream), _under_way: under_way }, Bytes::new()))
}

/// A stream that keeps its connection from being taken for idle.
struct ConnectStream {
    stream: TokioIo<hyper::upgrade::Upgraded>,
    _under_way: UnderWay,
}

impl AsyncRead for ConnectStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ConnectStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn cut(open: &Open) -> BoxFuture<'static, ()> {
    let mut stages = open.control().stages();
    let cut = async move {
        stages.wait_for(|stage| *stage >= Stage::Cut).await.ok();
    };
    cut.boxed()
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the server has ended")
}

impl<S: Transport> AsyncRead for UpgradedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_pending() && self.read_cut.as_mut().poll(cx).is_ready() {
            self.read_cut = cut(&self.open);
            return Poll::Ready(Err(ended()));
        }
        polled
    }
}

impl<S: Transport> AsyncWrite for UpgradedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
