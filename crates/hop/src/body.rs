//! Bodies that come over a connection: an answer's at the front, a request's at the worker.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hawksbill_core::{Body, Error, Kind};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::link::Link;
use crate::stream::{End, Inner, Stream};
use crate::wire::{FrameKind, Role};

/// What the other end sends on one stream. Dropped early, it says that the rest is not wanted.
pub(crate) struct Incoming {
    link: Arc<Link>,
    stream: Arc<Stream>,
    /// The other end sends nothing before this is asked for the first time.
    held: bool,
}

impl Incoming {
    pub(crate) fn new(link: Arc<Link>, stream: Arc<Stream>, held: bool) -> Self {
        Self { link, stream, held }
    }

    /// The body as a turtle's. One that is complete and small is only its bytes.
    pub(crate) fn into_body(self) -> Body {
        {
            let mut inner = self.stream.lock();
            let whole =
                matches!(inner.end, Some(End::Clean)) && inner.chunks.len() < 2 && inner.tail.is_empty();
            if whole {
                return Body::from(inner.chunks.pop_front().unwrap_or_default());
            }
        }
        Body::new(self)
    }

    fn release_hold(&mut self) {
        if std::mem::take(&mut self.held) {
            let window = self.link.ours.window;
            self.stream.lock().window += window as usize;
            self.link.credit(&self.stream, window);
        }
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.release_hold();
        let mut inner = self.stream.lock();
        if let Some((chunk, credit)) = inner.take_chunk(self.link.ours.window as usize) {
            drop(inner);
            self.link.credit(&self.stream, credit);
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        Poll::Ready(match inner.end.take() {
            None if inner.receiving => {
                inner.wait_to_read(cx);
                return Poll::Pending;
            }
            Some(End::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(End::Failed(error) | End::Lost { error, .. }) => Some(Err(self.seen_from_here(error))),
            Some(End::Clean) | None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        let inner = self.stream.lock();
        is_empty(&inner) && !inner.receiving && matches!(inner.end, None | Some(End::Clean))
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.stream.lock();
        let queued = inner.chunks.iter().map(Bytes::len).sum::<usize>() + inner.tail.len();
        match inner.remaining {
            Some(remaining) => SizeHint::with_exact(remaining + queued as u64),
            None if matches!(inner.end, Some(End::Clean)) => SizeHint::with_exact(queued as u64),
            None => SizeHint::default(),
        }
    }
}

impl Incoming {
    /// For an application a request's body that breaks off is the client's fault, whatever happened to the front.
    fn seen_from_here(&self, error: Error) -> Error {
        match self.link.role {
            Role::Worker if error.kind() == Kind::BadGateway => Error::new(Kind::BadRequest)
                .because("the request body ended before it was complete")
                .caused_by(error),
            _ => error,
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        match self.link.role {
            Role::Front => cancel(&self.link, &self.stream),
            Role::Worker => stop(&self.link, &self.stream),
        }
    }
}

fn is_empty(inner: &Inner) -> bool {
    inner.chunks.is_empty() && inner.tail.is_empty()
}

/// A front's: nobody wants the rest of the answer, if there is one.
pub(crate) fn cancel(link: &Link, stream: &Arc<Stream>) {
    let change = |inner: &mut Inner| {
        forget(inner);
        let open = std::mem::replace(&mut inner.receiving, false);
        // An upload goes on where the answer was complete before it.
        inner.sending &= !open;
        open
    };
    link.conclude(stream, change, |pushing| {
        pushing.frame(FrameKind::Reset, 0, stream.id, |_| ());
    });
}

/// Tells the other end that the rest of what it sends is not read.
pub(crate) fn stop(link: &Link, stream: &Arc<Stream>) {
    let change = |inner: &mut Inner| {
        forget(inner);
        std::mem::replace(&mut inner.receiving, false)
    };
    link.conclude(stream, change, |pushing| {
        pushing.frame(FrameKind::Stop, 0, stream.id, |_| ());
    });
}

fn forget(inner: &mut Inner) {
    inner.deaf = true;
    inner.chunks.clear();
    inner.tail.clear();
}
