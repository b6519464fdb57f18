//! A body on its way to the other end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hawksbill_core::{Body, Error, Kind};
use http_body::Body as HttpBody;

use crate::link::Link;
use crate::stream::Stream;
use crate::wire::{END, Failure, FrameKind, encode_trailers};

/// The other end takes no more: it stopped, or it is gone.
pub(crate) struct Gone;

/// Sends a body as far as there is credit for it.
pub(crate) struct Sending {
    body: Body,
    /// What is taken from the body and not sent yet.
    pending: Bytes,
}

impl Sending {
    pub(crate) fn new(body: Body, pending: Bytes) -> Self {
        Self { body, pending }
    }

    /// Ready when all is sent, or can never be.
    pub(crate) fn poll_send(
        &mut self,
        link: &Link,
        stream: &Arc<Stream>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Gone>> {
        loop {
            if !self.pending.is_empty() {
                let ends = self.body.is_end_stream();
                ready!(self.poll_pending(link, stream, ends, cx))?;
                if ends {
                    return Poll::Ready(Ok(()));
                }
            }
            if self.body.is_end_stream() {
                return Poll::Ready(end(link, stream, FrameKind::Data, END, |_| ()));
            }
            ready!(poll_credit(stream, cx))?;
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(end(link, stream, FrameKind::Data, END, |_| ())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.pending = data,
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            let put = |out: &mut Vec<u8>| encode_trailers(&trailers, out);
                            return Poll::Ready(end(link, stream, FrameKind::Trailers, 0, put));
                        }
                    }
                },
                Some(Err(error)) => {
                    fail(link, stream, error);
                    return Poll::Ready(Err(Gone));
                }
            }
        }
    }

    fn poll_pending(
        &mut self,
        link: &Link,
        stream: &Arc<Stream>,
        ends: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Gone>> {
        let Some(mut pushing) = link.push() else { return Poll::Ready(Err(Gone)) };
        let mut inner = stream.lock();
        if !inner.sending {
            return Poll::Ready(Err(Gone));
        }
        inner.wait_to_give(cx);
        while !self.pending.is_empty() {
            let count = self.pending.len().min(inner.credit).min(link.theirs.data as usize);
            if count == 0 || !pushing.has_room(stream, &mut inner) {
                drop(inner);
                pushing.done();
                return Poll::Pending;
            }
            inner.credit -= count;
            let chunk = self.pending.split_to(count);
            let last = ends && self.pending.is_empty();
            pushing.data(stream.id, chunk, last);
            if last {
                inner.stop_sending();
            }
        }
        drop(inner);
        pushing.vacate(stream);
        pushing.done();
        if ends {
            link.release(stream);
        }
        Poll::Ready(Ok(()))
    }
}

/// Waits until the other end takes more.
fn poll_credit(stream: &Stream, cx: &Context<'_>) -> Poll<Result<(), Gone>> {
    let mut inner = stream.lock();
    if !inner.sending {
        return Poll::Ready(Err(Gone));
    }
    // Whatever this waits for next: a stop is heard.
    inner.wait_to_give(cx);
    if inner.credit == 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
}

/// Ends our direction with a last frame, if it is open.
pub(crate) fn end(
    link: &Link,
    stream: &Arc<Stream>,
    kind: FrameKind,
    flags: u8,
    put: impl FnOnce(&mut Vec<u8>),
) -> Result<(), Gone> {
    let open = link.conclude(
        stream,
        |inner| std::mem::replace(&mut inner.sending, false),
        |pushing| {
            if !pushing.frame(kind, flags, stream.id, put) {
                let error = Error::new(Kind::Internal).because("the trailers are too large");
                pushing.frame(FrameKind::Fail, 0, stream.id, |out| Failure(error).encode(out));
            }
        },
    );
    if open { Ok(()) } else { Err(Gone) }
}

/// Ends our direction with an error, if it is open.
pub(crate) fn fail(link: &Link, stream: &Arc<Stream>, error: Error) {
    end(link, stream, FrameKind::Fail, 0, |out| Failure(error).encode(out)).ok();
}
