//! HTTP/1.0 and HTTP/1.1 on one connection.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use hawksbill_core::{Peer, Upgraded};
use http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use crate::activity::{Activity, Expired};
use crate::connection::Shared;
use crate::drain::{Open, Stage};
use crate::io::{Transport, Watched, linger, poll_first};
use crate::service::Service;
use crate::settings::{Refusal, Settings};
use crate::supervise::{Stop, Watch, Work, supervise};
use crate::upgrade::UpgradedStream;

/// hyper's own number of header lines, which needs no allocation for each request.
const USUAL_HEADERS: usize = 100;

/// What hyper keeps of a connection's bytes at most, unless a header block may be longer.
const BUFFER: usize = 400 * 1024;

/// How long a client gets to take the few bytes of a refusal.
const LAST_WRITE: Duration = Duration::from_secs(1);

struct Http1<S: Transport> {
    connection: http1::Connection<TokioIo<Watched<S>>, Service>,
    shared: Arc<Shared>,
    /// Since when it had been idle when it was time to rest.
    tired: Option<u64>,
}

impl<S: Transport> Work for Http1<S> {
    type Output = hyper::Result<()>;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.connection.poll_without_shutdown(cx);
        if polled.is_pending() {
            // hyper is woken by what is taken from it here.
            self.shared.unread.poll(cx, &self.shared.activity);
        }
        polled
    }

    fn expired(&mut self, why: Expired) -> bool {
        match why {
            Expired::Body => !self.shared.unread.give_up(&self.shared.activity),
            // hyper gives way to other tasks in the middle of long work: what it still has to write goes out when it is
            // polled again, which it is before this is asked again.
            Expired::Rest => {
                let since = Some(self.shared.activity.idle_since());
                std::mem::replace(&mut self.tired, since) == since
            }
            _ => true,
        }
    }
}

/// A connection without a request, for some time: the socket alone, without hyper and its two buffers.
struct Resting<'a, S> {
    stream: &'a mut S,
    seen: BytesMut,
    activity: &'a Activity,
}

impl<S: Transport> Work for Resting<'_, S> {
    /// What came at last. `None`: the client left.
    type Output = Option<Bytes>;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let goes_on = ready!(poll_first(self.stream, cx, &mut self.seen, self.activity));
        Poll::Ready(goes_on.then(|| self.seen.split().freeze()))
    }
}

/// Serves a connection to its end, and hands it over if it is upgraded.
pub(crate) async fn serve<S: Transport>(
    mut io: Watched<S>,
    mut service: Service,
    shared: &Arc<Shared>,
    stages: &mut watch::Receiver<Stage>,
    open: Open,
) {
    let (io, ended) = loop {
        let connection = builder(&shared.settings).serve_connection(TokioIo::new(io), service);
        let mut work = Http1 { connection, shared: shared.clone(), tired: None };
        let ended = supervise(&mut work, Watch { rests: true, ..shared.watch() }, stages).await;
        let parts = work.connection.into_parts();
        let (mut stream, early) = parts.io.into_inner().into_inner();
        let mut read = BytesMut::from(parts.read_buf);
        read.extend_from_slice(&early);
        let mut early = read.freeze();
        if let (Ok(Ok(())), Some(taker)) = (&ended, shared.take_switched()) {
            // If nobody waits for it any more, dropping it closes the connection.
            drop(taker.send(Upgraded::new(UpgradedStream::new(stream, open), early)));
            return;
        }
        if !matches!(ended, Err(Stop::Expired(Expired::Rest))) {
            break (stream, ended);
        }
        service = parts.service;
        if early.is_empty() {
            // An empty buffer can be a large one.
            drop(early);
            shared.control.rest();
            let mut resting =
                Resting { stream: &mut stream, seen: BytesMut::new(), activity: &shared.activity };
            early = match supervise(&mut resting, shared.watch(), stages).await {
                Ok(Some(came)) => came,
                Ok(None) => break (stream, Ok(Ok(()))),
                Err(stop) => break (stream, Err(stop)),
            };
        }
        io = Watched::new(stream, early, shared.activity.clone());
    };
    shared.unless_cut(end(io, ended, shared)).await;
}

/// Says what is still to be said, and closes.
async fn end(io: impl Transport, ended: Result<hyper::Result<()>, Stop>, shared: &Shared) {
    match ended {
        Ok(Ok(())) => shared.close(io).await,
        Ok(Err(error)) => {
            report(&error, shared);
            shared.close(io).await;
        }
        Err(Stop::Expired(why)) => expire(io, why, shared).await,
        Err(Stop::Cut) => {}
    }
}

fn builder(settings: &Settings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None);
    builder.max_header_size(settings.max_header_size);
    builder.max_buf_size(BUFFER.max(settings.max_header_size.saturating_add(8 * 1024)));
    if settings.max_headers != USUAL_HEADERS {
        builder.max_headers(settings.max_headers);
    }
    builder
}

/// Logs why a connection failed: a request that hyper refused, or a client that left.
fn report(error: &hyper::Error, shared: &Shared) {
    if error.is_parse() {
        let settings = &shared.settings;
        let refusal = if error.is_parse_too_large() {
            let (bytes, lines) = (settings.max_header_size, settings.max_headers);
            let rule = format!("the header block has more than {bytes} bytes or {lines} lines");
            Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, rule)
        } else {
            Refusal::bad_request(error.to_string())
        };
        shared.refuse(&refusal);
    } else {
        tracing::debug!(target: "hawksbill::connection", "{}: {error}", shared.peer.remote());
    }
}

async fn expire(io: impl Transport, why: Expired, shared: &Shared) {
    match why {
        Expired::Head => refuse_late(io, &shared.peer, &shared.settings).await,
        Expired::Body => {
            let seconds = shared.settings.stall_timeout.as_secs_f64();
            let rule = format!("the client sent nothing more of its body for {seconds} s");
            shared.refuse(&Refusal::new(StatusCode::REQUEST_TIMEOUT, rule));
            if !shared.activity.is_answered() {
                answer_late(io, &shared.settings).await;
            }
        }
        Expired::Write => {
            let seconds = shared.settings.stall_timeout.as_secs_f64();
            let client = shared.peer.remote();
            tracing::info!(target: "hawksbill::connection", "{client} took nothing of its response for {seconds} s: cut");
        }
        Expired::Idle | Expired::Rest => {}
    }
}

/// Refuses a request whose head did not arrive in time.
pub(crate) async fn refuse_late(io: impl Transport, peer: &Peer, settings: &Settings) {
    let seconds = settings.header_timeout.as_secs_f64();
    let rule = format!("the request's head did not arrive within {seconds} s");
    settings.refuse(peer, &Refusal::new(StatusCode::REQUEST_TIMEOUT, rule));
    answer_late(io, settings).await;
}

/// Writes a 408 where hyper writes nothing.
async fn answer_late(mut io: impl Transport, settings: &Settings) {
    let date = httpdate::fmt_http_date(SystemTime::now());
    let head = format!(
        "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\ndate: {date}\r\n\r\n"
    );
    let written = tokio::time::timeout(LAST_WRITE, io.write_all(head.as_bytes())).await;
    if matches!(written, Ok(Ok(()))) {
        linger(io, LAST_WRITE, settings.linger).await;
    }
}
