//! A worker's call under way, and its answer on the way back.

use std::any::Any;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use hawksbill_core::{Body, Error, Kind, Turtle, Upgraded};
use http::{Request, Response, StatusCode};
use http_body::Body as HttpBody;
use tokio::sync::oneshot;

use crate::body::Incoming;
use crate::link::Link;
use crate::send::{self, Sending};
use crate::stream::Stream;
use crate::tunnel::StreamIo;
use crate::wire::{END, FrameKind, ResponseHead, UPGRADE};

/// Who waits to take a stream over.
pub(crate) struct Switch {
    /// The stream is taken by a 2xx, not by a 101.
    pub(crate) connect: bool,
    pub(crate) taker: oneshot::Sender<Upgraded>,
}

/// Asks the turtle and sends what it answers, an error as well.
pub(crate) async fn give(
    link: Arc<Link>,
    stream: Arc<Stream>,
    turtle: Turtle,
    (mut request, body): (Request<Body>, Option<Incoming>),
    switch: Option<Switch>,
) {
    // A small body has usually come with its head, and is seen to be whole here, not where the head is read.
    if let Some(body) = body {
        *request.body_mut() = body.into_body();
    }
    let about = (request.method().clone(), request.uri().clone());
    // A panic is the application's; the other requests go on.
    let answered = AssertUnwindSafe(async {
        match turtle.ask(request).await {
            Ok(response) => respond(&link, &stream, response, switch).await,
            Err(error) => send::fail(&link, &stream, error),
        }
    });
    if let Err(panic) = answered.catch_unwind().await {
        let (method, path) = (about.0, about.1.path());
        let what = text(panic.as_ref());
        tracing::error!(target: "hawksbill::error", "{method} {path}: the application panicked: {what}");
        let error = Error::new(Kind::Internal).because(format!("the application panicked: {what}"));
        send::fail(&link, &stream, error);
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let what = panic.downcast_ref::<&str>().copied();
    what.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

async fn respond(link: &Arc<Link>, stream: &Arc<Stream>, response: Response<Body>, switch: Option<Switch>) {
    let status = response.status();
    let (parts, mut body) = response.into_parts();
    let offered = switch.is_some();
    let switch = match accepted(status, switch) {
        Ok(switch) => switch,
        Err(why) => {
            return send::fail(
                link,
                stream,
                Error::new(Kind::Internal).because(format!("the response cannot be sent: {why}")),
            );
        }
    };
    let mut head = Head { parts, length: body.size_hint().exact(), flags: 0, stays: offered };
    if let Some(taker) = switch {
        head.flags = UPGRADE;
        if push(link, stream, &head, &Bytes::new(), false) {
            taker.send(Upgraded::new(StreamIo::new(link.clone(), stream.clone()), Bytes::new())).ok();
        }
        return;
    }
    if body.is_end_stream() {
        head.flags = END;
    }
    let first = poll_fn(|cx| Poll::Ready(look(&mut body, link, stream, cx))).await;
    let (first, pending, error) = match first {
        Ok(bytes) if bytes.len() <= room(link, stream) => (bytes, Bytes::new(), None),
        Ok(bytes) => (Bytes::new(), bytes, None),
        Err(error) => (Bytes::new(), Bytes::new(), Some(error)),
    };
    let whole = !first.is_empty() && body.is_end_stream();
    if !push(link, stream, &head, &first, whole) || whole || head.flags & END != 0 {
        return;
    }
    if let Some(error) = error {
        return send::fail(link, stream, error);
    }
    let mut sending = Sending::new(body, pending);
    poll_fn(|cx| sending.poll_send(link, stream, cx)).await.ok();
}

/// Who takes the stream over by this answer. `None`: nobody does.
fn accepted(
    status: StatusCode,
    switch: Option<Switch>,
) -> Result<Option<oneshot::Sender<Upgraded>>, &'static str> {
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    match switch {
        _ if status.is_informational() && !switches => Err("its status is not a final one"),
        None if switches => Err("101 answers a request that asks for no upgrade"),
        Some(switch) if switches && switch.connect => Err("101 answers a CONNECT"),
        Some(switch) if switches || switch.connect && status.is_success() => {
            if switch.taker.is_closed() {
                return Err("it accepts an upgrade, and nobody takes the connection");
            }
            Ok(Some(switch.taker))
        }
        _ => Ok(None),
    }
}

struct Head {
    parts: http::response::Parts,
    length: Option<u64>,
    flags: u8,
    /// The front keeps its direction open until it knows whether the protocol is switched.
    stays: bool,
}

/// Bytes that can be sent at once.
fn room(link: &Link, stream: &Stream) -> usize {
    stream.lock().credit.min(link.theirs.data as usize)
}

/// What there is of a body: usually all of it.
fn look(body: &mut Body, link: &Link, stream: &Stream, cx: &mut Context<'_>) -> Result<Bytes, Error> {
    if body.size_hint().exact().is_none_or(|length| length == 0) || room(link, stream) == 0 {
        return Ok(Bytes::new());
    }
    match Pin::new(body).poll_frame(cx) {
        Poll::Ready(Some(frame)) => Ok(frame?.into_data().unwrap_or_default()),
        Poll::Ready(None) | Poll::Pending => Ok(Bytes::new()),
    }
}

/// Sends the head and what there is of the body, in one go. `false`: it could not be.
fn push(link: &Link, stream: &Arc<Stream>, head: &Head, first: &Bytes, whole: bool) -> bool {
    let Some(mut pushing) = link.push() else { return false };
    let mut inner = stream.lock();
    if !inner.sending {
        return false;
    }
    let put = |out: &mut Vec<u8>| ResponseHead::encode(&head.parts, head.length, out);
    if !pushing.frame(FrameKind::Response, head.flags, stream.id, put) {
        drop(inner);
        drop(pushing);
        let error =
            Error::new(Kind::Internal).because("the response's headers are larger than a front takes");
        send::fail(link, stream, error);
        return false;
    }
    if !first.is_empty() {
        inner.credit -= first.len();
        pushing.data(stream.id, first.clone(), whole);
    }
    if whole || head.flags & END != 0 {
        inner.stop_sending();
    }
    if head.stays && head.flags & UPGRADE == 0 {
        inner.receiving = false;
    }
    drop(inner);
    pushing.vacate(stream);
    pushing.done();
    link.release(stream);
    true
}
