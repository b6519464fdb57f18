//! HTTP/2 with prior knowledge on one connection (RFC 9113 section 3.3).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::activity::Expired;
use crate::connection::Shared;
use crate::drain::Stage;
use crate::io::{Transport, Watched};
use crate::service::Service;
use crate::settings::Settings;
use crate::supervise::{Stop, Work, supervise};

struct Http2<S: Transport> {
    connection: Pin<Box<http2::Connection<TokioIo<Lent<S>>, Service, TokioExecutor>>>,
    shared: Arc<Shared>,
    leaving: bool,
}

impl<S: Transport> Work for Http2<S> {
    type Output = hyper::Result<()>;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.connection.as_mut().poll(cx)
    }

    /// A GOAWAY names the last stream that is answered, so no request is lost unseen.
    fn drain(&mut self) {
        self.leaving = true;
        self.connection.as_mut().graceful_shutdown();
    }

    fn expired(&mut self, why: Expired) -> bool {
        if why != Expired::Idle || self.leaving {
            return true;
        }
        self.drain();
        self.shared.activity.idle_again();
        false
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve<S: Transport>(
    io: Watched<S>,
    service: Service,
    shared: &Arc<Shared>,
    stages: &mut watch::Receiver<Stage>,
) {
    shared.activity.count_streams_only();
    let back = Arc::new(Mutex::new(None));
    let io = Lent { io: Some(io), back: back.clone() };
    let connection = Box::pin(builder(&shared.settings).serve_connection(TokioIo::new(io), service));
    let mut work = Http2 { connection, shared: shared.clone(), leaving: false };
    let client = shared.peer.remote();
    let ended = supervise(&mut work, shared.watch(), stages).await;
    match &ended {
        Ok(Err(error)) => tracing::debug!(target: "hawksbill::connection", "{client}: {error}"),
        Err(Stop::Expired(why)) => {
            tracing::debug!(target: "hawksbill::connection", "{client}: {why:?} too long");
        }
        Ok(Ok(())) | Err(Stop::Cut) => {}
    }
    drop(work);
    let io = back.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let (Some(io), Ok(_) | Err(Stop::Expired(Expired::Idle))) = (io, ended) {
        // Frames that nobody has to answer (WINDOW_UPDATE, acknowledgements) are on their way even from a client
        // that asks for nothing more.
        shared.unless_cut(shared.close(io)).await;
    }
}

/// The connection's stream, which hyper does not give back: it comes back when hyper drops it.
struct Lent<S> {
    io: Option<Watched<S>>,
    back: Arc<Mutex<Option<Watched<S>>>>,
}

impl<S> Drop for Lent<S> {
    fn drop(&mut self) {
        *self.back.lock().unwrap_or_else(PoisonError::into_inner) = self.io.take();
    }
}

impl<S: Transport> Lent<S> {
    fn io(self: Pin<&mut Self>) -> io::Result<Pin<&mut Watched<S>>> {
        // It is there until this is dropped.
        self.get_mut().io.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: Transport> AsyncRead for Lent<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_read(cx, buf)
    }
}

impl<S: Transport> AsyncWrite for Lent<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.io()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_shutdown(cx)
    }
}

fn builder(settings: &Settings) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        // WebSockets come as streams (RFC 8441).
        .enable_connect_protocol()
        .max_concurrent_streams(settings.max_concurrent_streams)
        .max_header_list_size(u32::try_from(settings.max_header_size).unwrap_or(u32::MAX))
        // A client that is gone without a word is found out by asking it.
        .keep_alive_interval(settings.stall_timeout);
    builder
}
