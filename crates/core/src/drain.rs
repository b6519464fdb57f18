//! How what outlives its request learns that the server is about to end.
//!
//! The server puts a [`Draining`] beside each [`Upgrade`](crate::Upgrade) into the extensions of a request. Who takes
//! the connection over waits for it, says goodbye in its own protocol (a WebSocket closes with 1012, RFC 6455 section
//! 7.4.2 and the IANA registry) and ends. What has not ended by the server's deadline is cut.
//!
//! ```
//! use hawksbill_core::Draining;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let draining = Draining::new(async { /* resolves once the server stops accepting */ });
//! draining.clone().begun().await;
//! assert!(draining.has_begun());
//! assert!(!Draining::never().has_begun());
//! # }
//! ```

use std::fmt;
use std::future::Future;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use http::Request;

/// A signal that fires once, when the server begins to drain. Cheap to clone; every clone sees it.
#[derive(Clone)]
pub struct Draining(Shared<BoxFuture<'static, ()>>);

impl Draining {
    /// For servers: the drain begins when the future resolves.
    pub fn new(begins: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(begins.boxed().shared())
    }

    /// The signal of a server that never drains.
    pub fn never() -> Self {
        Self::new(std::future::pending())
    }

    /// The signal in a request's extensions; one that never fires where the server put none there.
    pub fn of<B>(request: &Request<B>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_else(Self::never)
    }

    /// Waits until the drain begins.
    pub async fn begun(self) {
        self.0.await;
    }

    /// Whether the drain has begun.
    pub fn has_begun(&self) -> bool {
        self.0.clone().now_or_never().is_some()
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Draining").field(&self.has_begun()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_sees_it() {
        let (begin, begins) = tokio::sync::oneshot::channel::<()>();
        let draining = Draining::new(async {
            begins.await.ok();
        });
        let other = draining.clone();
        assert!(!draining.has_begun());
        begin.send(()).unwrap();
        draining.begun().await;
        assert!(other.has_begun());
    }

    #[test]
    fn a_request_without_one_never_drains() {
        assert!(!Draining::of(&Request::new(())).has_begun());
        let mut request = Request::new(());
        request.extensions_mut().insert(Draining::new(std::future::ready(())));
        assert!(Draining::of(&request).has_begun());
    }
}
