//! Waiting on a thread of our own for something that the runtime delivers.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use crate::lead;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    /// One waker a thread: the threads that wait are few and live long.
    static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}

/// Polls until it is ready. In between this thread drives the runtime, if that is its affair and nobody else does;
/// otherwise it is parked. Never to be called while attached to the interpreter.
pub(crate) fn block_on_poll<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    if let Some(value) = lead::here().and_then(|lead| lead.wait(&mut poll)) {
        return value;
    }
    WAKER.with(|waker| {
        let mut cx = Context::from_waker(waker);
        loop {
            match poll(&mut cx) {
                Poll::Ready(value) => return value,
                Poll::Pending => thread::park(),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::time::Duration;

    use super::*;

    #[test]
    fn waits_for_another_thread() {
        let (sender, mut receiver) = tokio::sync::oneshot::channel();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            sender.send(7).unwrap();
        });
        assert_eq!(block_on_poll(|cx| Pin::new(&mut receiver).poll(cx)), Ok(7));
    }
}
