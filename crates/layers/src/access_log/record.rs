//! What is known of a request until its line is written.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hawksbill_core::{Address, Body, Error, Kind, Peer};
use http::header::{HOST, REFERER, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};

use super::LogFormat;
use super::format::{Line, write_line};
use super::writer::Writer;
use crate::request_id::HEADER as REQUEST_ID;

/// Where a log's lines go.
pub(super) struct Sink {
    pub(super) writer: Writer,
    pub(super) format: LogFormat,
    /// Whether [routine](hawksbill_core::Routine) gets lines too.
    pub(super) routine: bool,
    pub(super) site: Option<Arc<str>>,
}

/// One request. Its line is written when it is dropped; until it is told otherwise, the client left.
///
/// Keeping it costs no copies: methods, URIs and header values are counted references.
pub(super) struct Record {
    sink: Arc<Sink>,
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    peer: Option<Peer>,
    time: SystemTime,
    started: Instant,
    status: Option<StatusCode>,
    bytes: u64,
    error: Option<String>,
    aborted: bool,
    forgotten: bool,
}

impl Record {
    pub(super) fn new(sink: Arc<Sink>, request: &Request<Body>) -> Self {
        let header = |name| request.headers().get(name).cloned();
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            host: header(HOST),
            referer: header(REFERER),
            user_agent: header(USER_AGENT),
            request_id: request.headers().get(&REQUEST_ID).cloned(),
            peer: request.extensions().get().cloned(),
            time: SystemTime::now(),
            started: Instant::now(),
            status: None,
            bytes: 0,
            error: None,
            aborted: true,
            forgotten: false,
            sink,
        }
    }

    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Whether a response to this has no content, whatever body stands behind it (RFC 9110 section 6.4.1).
    pub(super) fn has_no_content(&self) -> bool {
        self.method == Method::HEAD
            || self.status.is_some_and(|status| {
                status.is_informational()
                    || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            })
    }

    /// The response went out whole.
    pub(super) fn ended(mut self) {
        self.aborted = false;
    }

    /// The response failed, or there is none.
    pub(super) fn failed(mut self, error: &Error) {
        self.aborted = error.kind() == Kind::Canceled;
        self.error = Some(error.to_string());
    }

    /// Whether what is [routine](hawksbill_core::Routine) gets no line here.
    pub(super) fn leaves_out_routine(&self) -> bool {
        !self.sink.routine
    }

    /// It gets no line.
    pub(super) fn forget(mut self) {
        self.forgotten = true;
    }

    fn line(&self) -> Line<'_> {
        let client = self.peer.as_ref().map(Peer::client);
        let forwarded = self.peer.as_ref().and_then(Peer::forwarded_host).map(str::as_bytes);
        let authority = || self.uri.authority().map(|authority| authority.as_str().as_bytes());
        let target = self.uri.path_and_query().map(http::uri::PathAndQuery::as_str);
        Line {
            time: self.time,
            ip: client.and_then(Address::ip),
            unix: matches!(client, Some(Address::Unix(_))),
            port: client.and_then(Address::port),
            method: self.method.as_str(),
            host: forwarded.or_else(authority).or_else(|| self.host.as_ref().map(HeaderValue::as_bytes)),
            // CONNECT has an authority alone.
            uri: target.or_else(|| self.uri.authority().map(http::uri::Authority::as_str)).unwrap_or("/"),
            version: self.version,
            // nginx's number for a client that went away unanswered.
            status: self.status.map_or(499, |status| status.as_u16()),
            bytes: self.bytes,
            duration: Duration::from_micros(
                u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
            ),
            site: self.sink.site.as_deref(),
            referer: self.referer.as_ref().map(HeaderValue::as_bytes),
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            request_id: self.request_id.as_ref().map(HeaderValue::as_bytes),
            error: self.error.as_deref(),
            aborted: self.aborted,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.forgotten {
            return;
        }
        write_line(self.sink.format, &self.line(), |line| self.sink.writer.push(line));
    }
}
