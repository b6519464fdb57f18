//! Taking a connection over from HTTP (RFC 9110 section 7.8), without knowing what kind of socket it is.
//!
//! The server puts an [`Upgrade`] into the extensions of a request that asks for one. The application takes it, answers
//! 101 (or 200 to an extended CONNECT of HTTP/2, RFC 8441 section 5), and gets the connection, or the stream, once that
//! answer is written. Only the server knows the socket behind it.
//!
//! ```
//! use hawksbill_core::{Body, Upgrade};
//! use http::{Request, Response, StatusCode};
//!
//! async fn echo(mut request: Request<Body>) -> Result<Response<Body>, hawksbill_core::Error> {
//!     let Some(upgrade) = Upgrade::take(&mut request) else {
//!         return Err(hawksbill_core::Error::new(hawksbill_core::Kind::UpgradeRequired));
//!     };
//!     // Here one would spawn a task that awaits `upgrade.bytes()` and speaks the new protocol.
//!     drop(upgrade);
//!     let mut response = Response::new(Body::empty());
//!     *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
//!     Ok(response)
//! }
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! assert!(echo(Request::new(Body::empty())).await.is_err());
//! # }
//! ```

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Error;

/// The right to take the connection over after a 101, an HTTP/2 stream after a 2xx. At most one taker gets it.
#[derive(Clone)]
pub struct Upgrade(Arc<Mutex<Option<BoxFuture<'static, Result<Upgraded, Error>>>>>);

impl Upgrade {
    /// For servers: the future resolves once the response is written.
    pub fn new(connection: impl Future<Output = Result<Upgraded, Error>> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::pin(connection)))))
    }

    /// Takes the upgrade out of a request. `None`: the client asked for none, or it is taken.
    pub fn take<B>(request: &mut Request<B>) -> Option<Self> {
        request.extensions_mut().remove::<Self>()
    }

    /// Waits for the response to be written and gives the connection as bytes.
    ///
    /// # Errors
    /// [`Kind::Canceled`](crate::Kind::Canceled) when the client left first, the response refused the upgrade, or another
    /// clone has taken it.
    pub async fn bytes(self) -> Result<Upgraded, Error> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match connection {
            Some(connection) => connection.await,
            None => Err(Error::new(crate::Kind::Canceled).because("the upgrade was already taken")),
        }
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upgrade")
    }
}

/// What a socket must do to be upgraded.
trait Io: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Io for T {}

/// A connection that speaks another protocol from now on.
pub struct Upgraded {
    /// What the client sent behind its request, read before the socket is asked.
    early: Bytes,
    io: Pin<Box<dyn Io>>,
}

impl Upgraded {
    /// For servers: the socket and the bytes already read from it.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + 'static, early: Bytes) -> Self {
        Self { early, io: Box::pin(io) }
    }

    /// Takes the bytes that were read together with the request, so that a codec can begin with them.
    pub fn take_early(&mut self) -> Bytes {
        std::mem::take(&mut self.early)
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return self.io.as_mut().poll_read(cx, buf);
        }
        let count = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.io.as_mut().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io.as_mut().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_shutdown(cx)
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").field("early", &self.early.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_taker_gets_an_error() {
        let upgrade = Upgrade::new(async { Err(Error::new(crate::Kind::Canceled).because("first")) });
        let second = upgrade.clone();
        assert!(upgrade.bytes().await.unwrap_err().to_string().ends_with("first"));
        assert!(second.bytes().await.unwrap_err().to_string().ends_with("already taken"));
    }
}
