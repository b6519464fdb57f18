//! A descriptor that the runtime tells of when it becomes readable.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

pub(super) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// Needs a runtime.
    #[allow(unsafe_code, reason = "the runtime cannot see that the descriptor stays open")]
    pub(super) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is owned by what is registered, which gives it to nobody else.
        let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
        watched.map(Self).map_err(|error| error.into_parts().1)
    }

    pub(super) fn descriptor(&self) -> impl AsFd {
        self.0.get_ref()
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<AsyncFdReadyGuard<'_, OwnedFd>>> {
        self.0.poll_read_ready(cx)
    }
}
