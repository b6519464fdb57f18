//! A front's request under way.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hawksbill_core::{Body, Draining, Error, Kind, Mount, Peer, Upgrade};
use http::header::EXPECT;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body as HttpBody;

use crate::body::{self, Incoming};
use crate::link::{Link, Pushing};
use crate::seat::Seat;
use crate::send::Sending;
use crate::stream::{End, Stream};
use crate::tunnel;
use crate::wire::{END, Facts, FrameKind, HELD, RequestHead, ResponseHead, UPGRADE};

/// Why a call has no answer.
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) again: Again,
}

/// Whether a request may be sent to another worker.
pub(crate) enum Again {
    No,
    /// The worker cannot have seen it.
    Unseen(Box<Request<Body>>),
    /// The worker may have seen it, but it asks for nothing that matters if it is done twice.
    Safe(Box<Request<Body>>),
}

impl Failure {
    fn last(error: Error) -> Self {
        Self { error, again: Again::No }
    }

    pub(crate) fn unseen(error: Error, request: Request<Body>) -> Self {
        Self { error, again: Again::Unseen(Box::new(request)) }
    }
}

/// A request that was sent. Dropping it cancels the call.
pub(crate) struct Call {
    link: Arc<Link>,
    /// Taken by the answer.
    stream: Option<Arc<Stream>>,
    /// What the request was, should it have to be sent elsewhere. `None`: a part of its body is gone.
    kept: Option<(Parts, Bytes)>,
    /// The rest of the body, on its way. It goes on by itself where the answer comes first.
    upload: Option<Sending>,
    upgrade: Option<Upgrade>,
}

/// A stream that has begun and of which the worker knows nothing yet. Dropped so, it is none.
struct Begun<'a> {
    link: &'a Link,
    stream: &'a Arc<Stream>,
    opened: bool,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.opened {
            if let Some(mut pushing) = self.link.push() {
                pushing.opened();
                pushing.done();
            }
            self.link.forget(self.stream);
        }
    }
}

/// A request as it is about to be sent.
struct Outgoing {
    parts: Parts,
    body: Body,
    /// The body's length, where it is known.
    length: Option<u64>,
    /// What was taken from the body, and whether that is all.
    first: Bytes,
    whole: bool,
    /// The worker asks for the body.
    held: bool,
    upgrade: Option<Upgrade>,
}

/// Sends a request. Where that cannot be, it comes back.
pub(crate) fn send(link: &Arc<Link>, seat: Seat, request: Request<Body>) -> Result<Call, Failure> {
    let begun = link
        .push()
        .and_then(|mut pushing| pushing.begin(link.ours.window as usize, link.theirs.window as usize));
    let Some(stream) = begun else {
        return Err(Failure::unseen(unsent(), request));
    };
    let mut begun = Begun { link, stream: &stream, opened: false };
    let mut outgoing = match Outgoing::of(request, link) {
        Ok(outgoing) => outgoing,
        Err(error) => return Err(Failure::last(error)),
    };
    let Some(mut pushing) = link.push() else {
        let again = outgoing.restored().map_or(Again::No, Again::Unseen);
        return Err(Failure { error: unsent(), again });
    };
    if !open(&mut pushing, &stream, seat, &mut outgoing) {
        drop(pushing);
        let error =
            Error::new(Kind::HeadersTooLarge).because("the request's head is larger than a worker takes");
        return Err(Failure::last(error));
    }
    begun.opened = true;
    pushing.opened();
    pushing.done();
    let Outgoing { parts, body, first, whole, upgrade, .. } = outgoing;
    let upload = (!whole).then(|| Sending::new(body, Bytes::new()));
    let kept = whole.then_some((parts, first));
    drop(begun);
    Ok(Call { link: link.clone(), stream: Some(stream), kept, upload, upgrade })
}

fn unsent() -> Error {
    Error::new(Kind::BadGateway).because("the worker takes no new requests").retryable()
}

impl Outgoing {
    fn of(request: Request<Body>, link: &Link) -> Result<Self, Error> {
        let (mut parts, mut body) = request.into_parts();
        let upgrade = parts.extensions.remove::<Upgrade>();
        let held = expects_continue(&parts);
        let length = body.size_hint().exact();
        let first = if held { Bytes::new() } else { look(&mut body, length, link)? };
        let whole = body.is_end_stream();
        // What comes behind an upgrade's head is no body.
        let upgrade = upgrade.filter(|_| whole);
        Ok(Self { parts, body, length, first, whole, held, upgrade })
    }

    /// The request as it was, if nothing of it is gone.
    fn restored(mut self) -> Option<Box<Request<Body>>> {
        if let Some(upgrade) = self.upgrade {
            self.parts.extensions.insert(upgrade);
        }
        let body = match (self.first.is_empty(), self.whole) {
            (true, _) => self.body,
            (false, true) => Body::from(self.first),
            (false, false) => return None,
        };
        Some(Box::new(Request::from_parts(self.parts, body)))
    }
}

/// What there is of a body, where it is small and there already.
fn look(body: &mut Body, length: Option<u64>, link: &Link) -> Result<Bytes, Error> {
    let most = u64::from(link.theirs.window.min(link.theirs.data));
    if !matches!(length, Some(length @ 1..) if length <= most) {
        return Ok(Bytes::new());
    }
    match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(frame)) => Ok(frame?.into_data().unwrap_or_default()),
        Poll::Ready(None) | Poll::Pending => Ok(Bytes::new()),
    }
}

/// Writes the head of a request and what there is of its body. `false`: the head is too large.
fn open(pushing: &mut Pushing<'_>, stream: &Stream, seat: Seat, outgoing: &mut Outgoing) -> bool {
    let Outgoing { parts, length, first, whole, held, upgrade, .. } = outgoing;
    let upgrade = upgrade.is_some();
    let flag = |set, flag| if set { flag } else { 0 };
    let flags =
        flag(*whole && first.is_empty() && !upgrade, END) | flag(*held, HELD) | flag(upgrade, UPGRADE);
    let extensions = &parts.extensions;
    let facts = Facts { peer: extensions.get::<Peer>(), mount: extensions.get::<Mount>(), length: *length };
    if !pushing.frame(FrameKind::Request, flags, stream.id, |out| RequestHead::encode(parts, &facts, out)) {
        return false;
    }
    if !first.is_empty() {
        pushing.data(stream.id, first.clone(), *whole);
    }
    let mut inner = stream.lock();
    inner.request_end = pushing.position();
    inner.credit = if *held { 0 } else { inner.credit - first.len() };
    inner.sending = upgrade || !*whole;
    inner.may_switch = upgrade;
    inner.seat = Some(seat);
    true
}

/// Whether the client sends its body only when it is asked for (RFC 9110 section 10.1.1).
fn expects_continue(parts: &Parts) -> bool {
    let expects = parts.headers.get(EXPECT);
    expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

impl Call {
    fn answered(&mut self, stream: Arc<Stream>, head: ResponseHead, switched: bool) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        let parts = self.kept.take().map(|(parts, _)| parts);
        if !switched {
            *response.body_mut() = Incoming::new(self.link.clone(), stream, false).into_body();
        } else if let Some(upgrade) = self.upgrade.take() {
            let draining = parts.and_then(|mut parts| parts.extensions.remove::<Draining>());
            tunnel::dig(&self.link, stream, upgrade, draining.unwrap_or_else(Draining::never));
        }
        response
    }

    /// Lets what is left of the upload go on without the call.
    fn part_with_upload(&mut self, stream: &Arc<Stream>) {
        if let Some(mut upload) = self.upload.take() {
            let (link, stream) = (self.link.clone(), stream.clone());
            self.link.runtime.spawn(async move {
                poll_fn(|cx| upload.poll_send(&link, &stream, cx)).await.ok();
            });
        }
    }

    /// The request as it was, where it may be sent to another worker: always if this one never saw it, and if its method is
    /// safe (RFC 9110 section 9.2.1) also else.
    fn again(&mut self, unseen: bool) -> Again {
        let Some((mut parts, body)) = self.kept.take() else { return Again::No };
        let safe = parts.method.is_safe();
        if let Some(upgrade) = self.upgrade.take() {
            parts.extensions.insert(upgrade);
        }
        let request = Box::new(Request::from_parts(parts, Body::from(body)));
        match (unseen, safe) {
            (true, _) => Again::Unseen(request),
            (false, true) => Again::Safe(request),
            (false, false) => Again::No,
        }
    }
}

impl Future for Call {
    type Output = Result<Response<Body>, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(stream) = this.stream.clone() else { return Poll::Pending };
        if let Some(upload) = &mut this.upload
            && upload.poll_send(&this.link, &stream, cx).is_ready()
        {
            this.upload = None;
        }
        let (answer, end) = {
            let mut inner = stream.lock();
            let answer = inner.answer.take();
            let end = if answer.is_none() { inner.end.take() } else { None };
            if answer.is_none() && end.is_none() {
                inner.wait_to_read(cx);
                return Poll::Pending;
            }
            (answer, end)
        };
        self.stream = None;
        self.part_with_upload(&stream);
        Poll::Ready(match (answer, end) {
            (Some((head, switched)), _) => Ok(self.answered(stream, head, switched)),
            (None, Some(End::Lost { error, unsent })) => {
                let error = if unsent { error.retryable() } else { error };
                Err(Failure { error, again: self.again(unsent) })
            }
            (None, Some(End::Failed(error))) => Err(Failure::last(error)),
            (None, _) => {
                let error =
                    Error::new(Kind::BadGateway).because("the worker ended a request without an answer");
                Err(Failure::last(error))
            }
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            body::cancel(&self.link, &stream);
        }
    }
}
