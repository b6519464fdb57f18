//! What a server allows: sizes, times, and whom it believes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hawksbill_core::Peer;
use hawksbill_core::config::CidrSet;
use http::StatusCode;

/// Limits and trust of one server. Every bound has a safe default.
///
/// ```
/// let settings = hawksbill_server::Settings { max_headers: 50, ..Default::default() };
/// assert_eq!(settings.max_header_size, 64 * 1024);
/// ```
#[derive(Clone)]
pub struct Settings {
    /// How long a client may take from the first byte of a request (or from connecting) to the end of its header
    /// block; then 408. 10 s.
    pub header_timeout: Duration,
    /// How long a connection may be idle between two requests; then it is closed. 75 s.
    pub keep_alive: Duration,
    /// How long a client may stop sending the body that is being read, or taking the response that is being written;
    /// then it is cut. 60 s.
    pub stall_timeout: Duration,
    /// Bytes in a request's line and header block together; beyond: 431. 64 KB.
    pub max_header_size: usize,
    /// Header lines in a request; beyond: 431. 100.
    pub max_headers: usize,
    /// Bytes in a request target; beyond: 414. 16 KB.
    pub max_target: usize,
    /// Bytes of a request body that nobody reads which are taken and thrown away to keep the connection; beyond, the
    /// connection is closed after the response. 256 KB.
    pub max_unread_body: usize,
    /// How long a closed connection is still read from, so that a client that is sending can read its answer (RFC
    /// 9112 section 9.6). 30 s.
    pub linger: Duration,
    /// Requests under way at once on one HTTP/2 connection. 200.
    pub max_concurrent_streams: u32,
    /// Proxies whose forwarding headers are believed. None.
    pub trusted_proxies: CidrSet,
    /// Whether whoever connects through a Unix socket is such a proxy. No.
    pub trust_unix: bool,
    /// Which forwarding headers the trusted proxies write. Either.
    pub forwarded_headers: ForwardedHeaders,
    /// How long after the drain began requests may still take; then their connections are cut. 10 s.
    pub drain_timeout: Duration,
    /// How long a kept-alive connection without a request is still left open after the drain began, for the request
    /// that may be on its way. 1 s.
    pub idle_grace: Duration,
    /// Told of each request that the server refuses before a turtle sees it. See [`Settings::on_refused`].
    pub refused: Option<OnRefused>,
}

/// Who is told of refused requests.
pub type OnRefused = Arc<dyn Fn(&Peer, &Refusal) + Send + Sync>;

/// Which of the two families of forwarding headers is believed. The other is removed, for a proxy that writes one
/// family hands the other through as the client sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeaders {
    /// `X-Forwarded-*` and `X-Real-IP` where there are any, else `Forwarded`.
    #[default]
    Either,
    /// `X-Forwarded-For`, `-Proto`, `-Host`, `-Port`, and `X-Real-IP`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Rfc7239,
}

/// A request that no turtle saw: the status it was answered with, and the rule that refused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status that the client got, or would have got if it were still there.
    pub status: StatusCode,
    /// What was wrong, for the log.
    pub rule: Cow<'static, str>,
}

impl Settings {
    /// Calls `hook` for each refused request, so that an access log may have it. It must not block.
    pub fn on_refused(mut self, hook: impl Fn(&Peer, &Refusal) + Send + Sync + 'static) -> Self {
        self.refused = Some(Arc::new(hook));
        self
    }

    /// Logs a refusal and tells the hook.
    pub(crate) fn refuse(&self, peer: &Peer, refusal: &Refusal) {
        tracing::info!(target: "hawksbill::refused", "{refusal} (client {})", peer.client());
        if let Some(hook) = &self.refused {
            hook(peer, refusal);
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(60),
            max_header_size: 64 * 1024,
            max_headers: 100,
            max_target: 16 * 1024,
            max_unread_body: 256 * 1024,
            linger: Duration::from_secs(30),
            max_concurrent_streams: 200,
            trusted_proxies: CidrSet::default(),
            trust_unix: false,
            forwarded_headers: ForwardedHeaders::Either,
            drain_timeout: Duration::from_secs(10),
            idle_grace: Duration::from_secs(1),
            refused: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("header_timeout", &self.header_timeout)
            .field("keep_alive", &self.keep_alive)
            .field("max_header_size", &self.max_header_size)
            .field("max_headers", &self.max_headers)
            .field("trusted_proxies", &self.trusted_proxies)
            .field("drain_timeout", &self.drain_timeout)
            .finish_non_exhaustive()
    }
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, rule: impl Into<Cow<'static, str>>) -> Self {
        Self { status, rule: rule.into() }
    }

    pub(crate) fn bad_request(rule: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, rule)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.status.canonical_reason().unwrap_or_default();
        write!(f, "{} {reason}: {}", self.status.as_u16(), self.rule)
    }
}
