//! A request body that the application did not read to its end.
//!
//! HTTP/1 can only go on with the next request when the body of this one is out of the way. A small rest is read and
//! thrown away; before a large one the connection is closed, once the client has had the time to read its answer.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::Body as HttpBody;
use hyper::body::Incoming;

use crate::activity::Activity;

/// How long an HTTP/2 stream outlives an answer that did not need its body.
const GOODBYE: Duration = Duration::from_secs(1);

/// Gives up the body of an HTTP/2 stream, not at once: some clients (curl 7) do not look at an answer that is followed by
/// `RST_STREAM`, even by the `NO_ERROR` that RFC 9113 section 8.1 has for this. So a small rest is taken, a large one is
/// held back by its window, and in the meantime the client has read its answer.
pub(crate) async fn drop_later(mut incoming: Incoming, mut budget: usize) {
    let rest = async {
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
            match budget.checked_sub(frame.data_ref().map_or(0, bytes::Bytes::len)) {
                Some(left) => budget = left,
                None => pending().await,
            }
        }
    };
    tokio::time::timeout(GOODBYE, rest).await.ok();
}

/// The body of the HTTP/1 request under way.
#[derive(Default)]
pub(crate) struct Unread {
    /// How many bytes are certainly still to come. It only gets less.
    to_come: AtomicUsize,
    /// The client waits for a `100 Continue` before it sends the body, and nobody has asked for it.
    held_back: AtomicBool,
    /// The connection cannot go on after this request.
    closes: AtomicBool,
    rest: Mutex<Option<Rest>>,
}

/// What is being thrown away. Its request is under way until it is gone.
struct Rest {
    incoming: Incoming,
    budget: usize,
}

impl Unread {
    pub(crate) fn request_begins(
        &self,
        incoming: &Incoming,
        expects_continue: impl FnOnce() -> bool,
        activity: &Activity,
    ) {
        self.closes.store(false, Ordering::Relaxed);
        let has_body = !incoming.is_end_stream();
        activity.body_is_open(has_body);
        self.to_come.store(if has_body { announced(incoming) } else { 0 }, Ordering::Relaxed);
        self.held_back.store(has_body && expects_continue(), Ordering::Relaxed);
    }

    /// Somebody reads the body.
    pub(crate) fn reading(&self) {
        if self.held_back.load(Ordering::Relaxed) {
            self.held_back.store(false, Ordering::Relaxed);
        }
    }

    /// A part of the body was taken, `None`: there is no more.
    pub(crate) fn was_read(&self, incoming: Option<&Incoming>, activity: &Activity) {
        if incoming.is_none_or(HttpBody::is_end_stream) {
            activity.body_is_open(false);
        }
        self.to_come.store(incoming.map_or(0, announced), Ordering::Relaxed);
    }

    /// Whether the response, whose head is about to go out, must say that the connection closes. It is the last moment
    /// to say so: an application that answers while much of its body is still to come may drop it at any time after.
    /// One that reads on may, and what it pays is the next request's new connection.
    pub(crate) fn closes(&self, budget: usize) -> bool {
        self.closes.load(Ordering::Relaxed) || self.is_too_much(budget)
    }

    /// A client that holds its body back does not send it once it has its answer.
    fn is_too_much(&self, budget: usize) -> bool {
        self.to_come.load(Ordering::Relaxed) > budget || self.held_back.load(Ordering::Relaxed)
    }

    /// Takes what the application left.
    pub(crate) fn leave(&self, incoming: Incoming, budget: usize, activity: &Activity) {
        if self.is_too_much(budget) {
            self.closes.store(true, Ordering::Relaxed);
            return;
        }
        activity.request_goes_on();
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Rest { incoming, budget });
        activity.wake();
    }

    /// Reads on in what is to be thrown away, until there is nothing more or the client has to send more.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, activity: &Activity) {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Rest { incoming, budget }) = rest.as_mut() {
            match Pin::new(incoming).poll_frame(cx) {
                Poll::Pending => return activity.body_awaited(true),
                Poll::Ready(Some(Ok(frame))) => {
                    activity.body_awaited(false);
                    let length = frame.data_ref().map_or(0, bytes::Bytes::len);
                    match budget.checked_sub(length) {
                        Some(left) => *budget = left,
                        None => break,
                    }
                }
                Poll::Ready(_) => {
                    activity.body_is_open(false);
                    break;
                }
            }
        }
        if rest.take().is_some() {
            activity.request_ends();
        }
    }

    /// Gives up what was to be thrown away. `false`: there was nothing.
    pub(crate) fn give_up(&self, activity: &Activity) -> bool {
        let given_up = self.rest.lock().unwrap_or_else(PoisonError::into_inner).take().is_some();
        if given_up {
            activity.request_ends();
        }
        given_up
    }
}

/// How many bytes are certainly still to come.
fn announced(incoming: &Incoming) -> usize {
    usize::try_from(incoming.size_hint().lower()).unwrap_or(usize::MAX)
}
