//! One error for every turtle: what went wrong, whose fault it is, whether asking again may help.
//!
//! Between turtles an error stays an error, because retry, failover and error pages need to see it. It becomes a
//! response in one place: [`Turtle::infallible`](crate::Turtle::infallible), which every listener stands on.
//!
//! ```
//! use hawksbill_core::{Error, Kind, Side};
//!
//! let error = Error::new(Kind::BadGateway).because("php-fpm closed the connection").retryable();
//! assert_eq!(error.status(), 502);
//! assert_eq!(error.side(), Side::Upstream);
//! assert!(error.is_retryable());
//! ```

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::Body;

/// Any error, boxed: what foreign services and bodies fail with.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// Why a request failed between two turtles.
pub struct Error(Box<Repr>);

struct Repr {
    kind: Kind,
    side: Side,
    retryable: bool,
    reason: Cow<'static, str>,
    headers: HeaderMap,
    source: Option<BoxError>,
}

/// What went wrong. Each kind has one status (RFC 9110 section 15) and a side that is usually at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The request is malformed or contradicts itself: 400.
    BadRequest,
    /// The client may not have this: 403.
    Forbidden,
    /// Nothing answers at this path: 404.
    NotFound,
    /// The resource does not take this method: 405. Name the methods in an `Allow` header.
    MethodNotAllowed,
    /// The client took too long to send its request: 408.
    RequestTimeout,
    /// The request body is larger than the limit in force: 413.
    BodyTooLarge,
    /// The request target is longer than the limit in force: 414.
    UriTooLong,
    /// A `Range` that the resource cannot satisfy: 416.
    RangeNotSatisfiable,
    /// No site answers to this host here: 421.
    Misdirected,
    /// The client has to upgrade the connection: 426. Name the protocol in an `Upgrade` header.
    UpgradeRequired,
    /// The header block is larger than the limit in force: 431.
    HeadersTooLarge,
    /// The client went away before it was answered: 499, in logs only (nginx's convention).
    Canceled,
    /// An application or the gateway itself failed: 500.
    Internal,
    /// What stands behind the gateway is unreachable or answers nonsense: 502.
    BadGateway,
    /// There is no room for the request now: 503.
    Overloaded,
    /// What stands behind the gateway did not answer in time: 504.
    GatewayTimeout,
}

impl Kind {
    /// Every kind, each with a status of its own.
    pub const ALL: [Self; 16] = [
        Self::BadRequest,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::UriTooLong,
        Self::RangeNotSatisfiable,
        Self::Misdirected,
        Self::UpgradeRequired,
        Self::HeadersTooLarge,
        Self::Canceled,
        Self::Internal,
        Self::BadGateway,
        Self::Overloaded,
        Self::GatewayTimeout,
    ];

    /// The kind that has this status.
    pub fn of_status(status: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.status().as_u16() == status)
    }

    /// The status that a client sees.
    pub fn status(self) -> StatusCode {
        let code = match self {
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::RangeNotSatisfiable => 416,
            Self::Misdirected => 421,
            Self::UpgradeRequired => 426,
            Self::HeadersTooLarge => 431,
            Self::Canceled => 499,
            Self::Internal => 500,
            Self::BadGateway => 502,
            Self::Overloaded => 503,
            Self::GatewayTimeout => 504,
        };
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn usual_side(self) -> Side {
        match self {
            Self::Internal => Side::Application,
            Self::BadGateway | Self::GatewayTimeout => Side::Upstream,
            Self::Overloaded => Side::Gateway,
            _ => Side::Client,
        }
    }

    /// One sentence for the person in front of the browser. It tells nothing about what else exists.
    fn sentence(self) -> &'static str {
        match self {
            Self::BadRequest => "The server could not understand this request.",
            Self::Forbidden => "You may not see this page.",
            Self::NotFound => "There is nothing at this address.",
            Self::MethodNotAllowed => "This address does not take this method.",
            Self::RequestTimeout => "The request took too long to arrive.",
            Self::BodyTooLarge => "What you sent is larger than this address takes.",
            Self::UriTooLong => "This address is longer than the server takes.",
            Self::RangeNotSatisfiable => "The requested range is outside the file.",
            Self::Misdirected => "This server does not answer for this host name.",
            Self::UpgradeRequired => "This address needs another protocol.",
            Self::HeadersTooLarge => "The request's headers are larger than the server takes.",
            Self::Canceled => "The request was canceled.",
            Self::Internal => "The server failed to answer this request. The cause is in its log.",
            Self::BadGateway => "The application behind this address did not answer properly.",
            Self::Overloaded => "The server is busy. Please try again in a moment.",
            Self::GatewayTimeout => "The application behind this address did not answer in time.",
        }
    }
}

/// Whose fault an error is: decides how loudly it is logged and whether a backend is blamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The client sent something that is refused.
    Client,
    /// A hosted application failed.
    Application,
    /// A backend behind the gateway failed.
    Upstream,
    /// The gateway itself is at its limits or wrong.
    Gateway,
}

impl Error {
    /// An error of this kind, at its usual side, not retryable.
    pub fn new(kind: Kind) -> Self {
        Self(Box::new(Repr {
            kind,
            side: kind.usual_side(),
            retryable: false,
            reason: Cow::Borrowed(""),
            headers: HeaderMap::new(),
            source: None,
        }))
    }

    /// Says what happened, for the log: the rule that refused, or what failed. Never shown to the client.
    pub fn because(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.0.reason = reason.into();
        self
    }

    /// Attaches the cause.
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Blames another side than the kind's usual one.
    pub fn at(mut self, side: Side) -> Self {
        self.0.side = side;
        self
    }

    /// States that the request was not acted upon, so that it may be sent again, elsewhere or later.
    pub fn retryable(mut self) -> Self {
        self.0.retryable = true;
        self
    }

    /// Adds a header to the response that this error becomes, such as `Allow` or `Retry-After`.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.append(name, value);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whose fault it is.
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// Whether the request was certainly not acted upon.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The status that the client will see.
    pub fn status(&self) -> StatusCode {
        self.0.kind.status()
    }

    /// What happened, as the log has it, without what caused it.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// The headers that its response will have.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// The response that a client sees: the status, a short page, and the error's headers. Who is turned away for want of
    /// room is told to come again in a second, where nothing else is said (`Retry-After`, RFC 9110 section 10.2.3).
    ///
    /// Meant for [`Turtle::infallible`](crate::Turtle::infallible) and for layers that replace it by a nicer page.
    pub fn into_response(self) -> Response<Body> {
        let status = self.status();
        let title = status.canonical_reason().unwrap_or("Client Closed Request");
        let page = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{code} {title}</title>\n\
             <h1>{code} {title}</h1>\n<p>{sentence}</p>\n",
            code = status.as_u16(),
            sentence = self.0.kind.sentence(),
        );
        let mut response = Response::new(Body::from(page));
        *response.status_mut() = status;
        let mut headers = self.0.headers;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        if self.0.kind == Kind::Overloaded {
            headers.entry(RETRY_AFTER).or_insert(HeaderValue::from_static("1"));
        }
        *response.headers_mut() = headers;
        response
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status();
        write!(f, "{} {}", status.as_u16(), status.canonical_reason().unwrap_or("Client Closed Request"))?;
        if !self.0.reason.is_empty() {
            write!(f, ": {}", self.0.reason)?;
        }
        let mut source = self.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("side", &self.0.side)
            .field("retryable", &self.0.retryable)
            .field("reason", &self.0.reason)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// A foreign error is the application's (500), unless it is one of ours in a box, which is then unpacked.
impl From<BoxError> for Error {
    fn from(source: BoxError) -> Self {
        match source.downcast::<Error>() {
            Ok(error) => *error,
            Err(source) => Self::new(Kind::Internal).caused_by(source),
        }
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_in_a_box_keeps_its_kind() {
        let boxed: BoxError = Box::new(Error::new(Kind::Overloaded).because("queue full"));
        let error = Error::from(boxed);
        assert_eq!(error.kind(), Kind::Overloaded);
        assert_eq!(error.to_string(), "503 Service Unavailable: queue full");
    }

    #[test]
    fn who_finds_no_room_is_told_when_to_come_again() {
        let overloaded = || Error::new(Kind::Overloaded);
        assert_eq!(overloaded().into_response().headers()[RETRY_AFTER], "1");
        let later = overloaded().header(RETRY_AFTER, HeaderValue::from_static("7"));
        assert_eq!(later.into_response().headers()[RETRY_AFTER], "7");
    }

    #[test]
    fn the_page_keeps_the_reason_to_itself() {
        let error = Error::new(Kind::NotFound).because("no route takes /admin on site shop");
        let response = error.header(RETRY_AFTER, HeaderValue::from_static("1")).into_response();
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["retry-after"], "1");
        let page = futures_util::FutureExt::now_or_never(crate::body::to_bytes(response.into_body(), 4096));
        let page = page.expect("a page is bytes, so it is ready").unwrap();
        assert!(!String::from_utf8_lossy(&page).contains("admin"));
    }
}
