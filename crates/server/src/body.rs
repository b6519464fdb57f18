//! The two bodies of a request, watched: so that an unread upload does not reset the connection, a response is what
//! its head promised, and a request is known to be under way until its last byte is handed over.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hawksbill_core::{Body, Error, Kind};
use http::{Method, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use crate::connection::Shared;

/// What a client sends.
pub(crate) struct RequestBody {
    incoming: Option<Incoming>,
    shared: Arc<Shared>,
}

impl RequestBody {
    /// The body for the application: none at all, or one that is watched.
    pub(crate) fn wrap(incoming: Incoming, shared: &Arc<Shared>) -> Body {
        if incoming.is_end_stream() {
            return Body::empty();
        }
        Body::new(Self { incoming: Some(incoming), shared: shared.clone() })
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Self { incoming, shared } = &mut *self;
        let Some(body) = incoming else { return Poll::Ready(None) };
        shared.unread.reading();
        // Where the answer is out already, hyper ends the body of a known length only when the next request comes.
        if body.is_end_stream() {
            *incoming = None;
            return Poll::Ready(None);
        }
        let polled = Pin::new(body).poll_frame(cx);
        shared.body_awaited(polled.is_pending());
        let frame = ready!(polled);
        if !matches!(frame, Some(Ok(_))) {
            *incoming = None;
        }
        shared.unread.was_read(incoming.as_ref(), &shared.activity);
        // A client that stops in the middle of its body made a bad request; it is never an end of file.
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| {
                Error::new(Kind::BadRequest)
                    .because("the request body ended before it was complete")
                    .caused_by(error)
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.shared.body_awaited(false);
        if let Some(incoming) = self.incoming.take() {
            self.shared.leave_unread(incoming);
        }
    }
}

/// Ends a request's time under way when it is dropped.
pub(crate) struct UnderWay(Arc<Shared>);

impl UnderWay {
    pub(crate) fn begin(shared: &Arc<Shared>) -> Self {
        shared.activity.request_begins();
        Self(shared.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.activity.request_ends();
    }
}

/// What an application answers.
pub(crate) struct ResponseBody {
    body: Body,
    /// What the response's Content-Length leaves to come. `None`: it has none, or there is no body to count.
    promised: Option<u64>,
    about: (Method, Uri),
    failed: bool,
    _under_way: UnderWay,
}

impl ResponseBody {
    pub(crate) fn new(body: Body, promised: Option<u64>, about: (Method, Uri), under_way: UnderWay) -> Self {
        Self { body, promised, about, failed: false, _under_way: under_way }
    }

    /// The next frame, or why there cannot be one.
    fn next_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cow<'static, str>>>> {
        // A panic is the application's; the connection's other streams go on.
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.body).poll_frame(cx)));
        let Ok(polled) = polled else { return Poll::Ready(Some(Err("the application panicked".into()))) };
        Poll::Ready(match (ready!(polled), self.promised) {
            (Some(Ok(frame)), Some(promised)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.promised = promised.checked_sub(length);
                let too_long = self.promised.is_none();
                Some(if too_long { Err("it is longer than its Content-Length".into()) } else { Ok(frame) })
            }
            (None, Some(1..)) => Some(Err("it is shorter than its Content-Length".into())),
            (frame, _) => frame.map(|frame| frame.map_err(|error| error.to_string().into())),
        })
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if !self.failed {
            match ready!(self.next_frame(cx)) {
                Some(Err(why)) => {
                    let (method, path) = (&self.about.0, self.about.1.path());
                    tracing::error!(target: "hawksbill::error", "{method} {path}: the response body was cut short: {why}");
                }
                frame => return Poll::Ready(frame.map(|frame| frame.map_err(|_| cut_short()))),
            }
            // The client can only be told by cutting the response short. First what there was is flushed, which hyper
            // does when a body pauses: a client that got nothing at all might ask again.
            self.failed = true;
            self.body = Body::empty();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(cut_short())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.failed && !matches!(self.promised, Some(1..))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn cut_short() -> Error {
    Error::new(Kind::Internal).because("the response body was cut short")
}
