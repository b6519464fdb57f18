//! The opening handshake, server side: over HTTP/1.1 (RFC 6455 section 4) and by extended CONNECT (RFC 8441).
//!
//! ```
//! use hawksbill_websocket::handshake::{Acceptance, OpeningHandshake};
//!
//! // The example of RFC 6455 section 1.2.
//! let request = http::Request::get("/chat")
//!     .header("Host", "server.example.com")
//!     .header("Upgrade", "websocket")
//!     .header("Connection", "Upgrade")
//!     .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
//!     .header("Sec-WebSocket-Protocol", "chat, superchat")
//!     .header("Sec-WebSocket-Version", "13")
//!     .body(())?;
//! let opening = OpeningHandshake::from_request(&request)?;
//! assert_eq!(opening.subprotocols(), ["chat", "superchat"]);
//!
//! let (response, agreed) = opening.accept(Acceptance { subprotocol: Some("chat"), ..Acceptance::default() })?;
//! assert_eq!(response.status(), 101);
//! assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
//! assert_eq!(agreed.subprotocol.as_deref(), Some("chat"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{error, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use sha1::{Digest, Sha1};

use crate::extension::{self, DeflateConfig, DeflateParams};

/// Appended to the key before it is hashed (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The only version that is spoken.
const VERSION: &str = "13";

/// Why an opening handshake failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The method is neither GET (HTTP/1.1) nor CONNECT (RFC 8441).
    Method,
    /// HTTP/1.0 or older, or a GET over HTTP/2, which knows no upgrade.
    HttpVersion,
    /// An ordinary request: `Connection: upgrade` and `Upgrade: websocket` are not both there.
    NotUpgrade,
    /// `Sec-WebSocket-Version` is another than 13.
    UnsupportedVersion,
    /// A header that must be there once is missing or repeated.
    NotOnce(HeaderName),
    /// A header whose value does not follow its grammar.
    Malformed(HeaderName),
    /// The application chose a subprotocol that the client did not offer.
    SubprotocolNotOffered(String),
    /// The application set a header that belongs to the handshake itself.
    ReservedHeader(HeaderName),
    /// A server's answer has another status than the handshake wants; only for clients.
    Status(StatusCode),
    /// A server's `Sec-WebSocket-Accept` does not belong to the key; only for clients.
    Accept,
    /// A server chose a subprotocol that was not offered; only for clients.
    Subprotocol,
    /// A server answered with an extension that was not offered, or on terms that cannot be met; only for clients.
    Extension,
}

impl HandshakeError {
    /// The status to answer with: 400, 426, 500 for the application's faults, or 502 for an upstream server's.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Method | Self::HttpVersion | Self::NotOnce(_) | Self::Malformed(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::NotUpgrade | Self::UnsupportedVersion => StatusCode::UPGRADE_REQUIRED,
            Self::SubprotocolNotOffered(_) | Self::ReservedHeader(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Status(_) | Self::Accept | Self::Subprotocol | Self::Extension => StatusCode::BAD_GATEWAY,
        }
    }

    /// The refusal, without a body; a 426 says what to upgrade to, and in which version (RFC 6455 section 4.4).
    pub fn to_response(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = self.status();
        if self.status() == StatusCode::UPGRADE_REQUIRED {
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
        }
        response
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("a WebSocket handshake must be a GET request"),
            Self::HttpVersion => f.write_str("a WebSocket upgrade needs HTTP/1.1"),
            Self::NotUpgrade => {
                f.write_str("not a WebSocket handshake: no upgrade to websocket is asked for")
            }
            Self::UnsupportedVersion => f.write_str("unsupported Sec-WebSocket-Version: only 13 is spoken"),
            Self::NotOnce(name) => write!(f, "header {name} must be there exactly once"),
            Self::Malformed(name) => write!(f, "header {name} is malformed"),
            Self::SubprotocolNotOffered(name) => {
                write!(f, "the application chose subprotocol {name:?}, which the client did not offer")
            }
            Self::ReservedHeader(name) => {
                write!(f, "the application set header {name}, which the handshake itself sets")
            }
            Self::Status(status) => write!(f, "the server refused the WebSocket handshake: {status}"),
            Self::Accept => f.write_str("the server's Sec-WebSocket-Accept does not belong to the key"),
            Self::Subprotocol => f.write_str("the server chose a subprotocol that was not offered"),
            Self::Extension => f.write_str("the server answered with extensions that were not offered"),
        }
    }
}

impl error::Error for HandshakeError {}

/// How the connection becomes a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    /// `101 Switching Protocols`, proven by this `Sec-WebSocket-Accept`.
    Http1([u8; 28]),
    /// `200 OK` on a stream of HTTP/2 or HTTP/3.
    ExtendedConnect,
}

/// What the application decides on accepting.
#[derive(Debug, Default)]
pub struct Acceptance<'a> {
    /// One of the offered subprotocols, or none.
    pub subprotocol: Option<&'a str>,
    /// Further response headers, cookies for example.
    pub headers: HeaderMap,
    /// Compression, if this end wants it and the client offered it.
    pub deflate: Option<&'a DeflateConfig>,
}

/// What both ends agreed on in the handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// The chosen subprotocol.
    pub subprotocol: Option<String>,
    /// Compression, for [`Config::deflate`](crate::Config::deflate).
    pub deflate: Option<DeflateParams>,
}

/// A valid opening handshake that waits for its answer.
#[derive(Clone, Debug)]
pub struct OpeningHandshake {
    transport: Transport,
    subprotocols: Vec<String>,
    /// Only `Sec-WebSocket-Extensions`.
    extensions: HeaderMap,
}

impl OpeningHandshake {
    /// Validates an upgrade over HTTP/1.1 (RFC 6455 section 4.2.1). `Host` is left to the HTTP server.
    ///
    /// # Errors
    /// What is wrong with the request; [`HandshakeError::to_response`] is the answer.
    pub fn from_request<B>(request: &Request<B>) -> Result<Self, HandshakeError> {
        let headers = request.headers();
        if !is_upgrade(headers) {
            return Err(HandshakeError::NotUpgrade);
        }
        if request.method() != Method::GET {
            return Err(HandshakeError::Method);
        }
        if request.version() != Version::HTTP_11 {
            return Err(HandshakeError::HttpVersion);
        }
        check_version(headers)?;
        let key = once(headers, SEC_WEBSOCKET_KEY)?;
        if STANDARD.decode(key).map(|nonce| nonce.len()) != Ok(16) {
            return Err(HandshakeError::Malformed(SEC_WEBSOCKET_KEY));
        }
        Self::new(Transport::Http1(accept_key(key.as_bytes())), headers)
    }

    /// Validates an extended CONNECT (RFC 8441 section 5); `protocol` is the value of its pseudo-header `:protocol`.
    ///
    /// # Errors
    /// What is wrong with the request; [`HandshakeError::to_response`] is the answer.
    pub fn from_extended_connect<B>(request: &Request<B>, protocol: &str) -> Result<Self, HandshakeError> {
        if !protocol.eq_ignore_ascii_case("websocket") {
            return Err(HandshakeError::NotUpgrade);
        }
        if request.method() != Method::CONNECT {
            return Err(HandshakeError::Method);
        }
        if !matches!(request.version(), Version::HTTP_2 | Version::HTTP_3) {
            return Err(HandshakeError::HttpVersion);
        }
        check_version(request.headers())?;
        Self::new(Transport::ExtendedConnect, request.headers())
    }

    fn new(transport: Transport, headers: &HeaderMap) -> Result<Self, HandshakeError> {
        let extensions = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).into_iter();
        Ok(Self {
            transport,
            subprotocols: parse_subprotocols(headers)?,
            extensions: extensions.map(|value| (SEC_WEBSOCKET_EXTENSIONS, value.clone())).collect(),
        })
    }

    /// The subprotocols that the client offers, the preferred one first, each once.
    pub fn subprotocols(&self) -> &[String] {
        &self.subprotocols
    }

    /// The answer that makes the connection a WebSocket: 101, or 200 to an extended CONNECT.
    ///
    /// # Errors
    /// [`HandshakeError::SubprotocolNotOffered`] and [`HandshakeError::ReservedHeader`] for an application's mistakes,
    /// [`HandshakeError::Malformed`] for the client's `Sec-WebSocket-Extensions`.
    pub fn accept(&self, acceptance: Acceptance<'_>) -> Result<(Response<()>, Agreement), HandshakeError> {
        let mut headers = acceptance.headers;
        if let Some(name) = RESERVED.iter().find(|name| headers.contains_key(*name)) {
            return Err(HandshakeError::ReservedHeader(name.clone()));
        }
        let mut agreement = Agreement::default();
        if let Some(chosen) = acceptance.subprotocol {
            let value = HeaderValue::from_str(chosen)
                .ok()
                .filter(|_| self.subprotocols.iter().any(|offered| offered == chosen))
                .ok_or_else(|| HandshakeError::SubprotocolNotOffered(chosen.to_owned()))?;
            headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
            agreement.subprotocol = Some(chosen.to_owned());
        }
        if let Some(config) = acceptance.deflate
            && let Some((params, value)) = extension::negotiate(&self.extensions, config)?
        {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, value);
            agreement.deflate = Some(params);
        }
        let mut response = Response::new(());
        if let Transport::Http1(accept) = &self.transport {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            let accept = HeaderValue::from_bytes(accept);
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept.map_err(|_| HandshakeError::Accept)?);
        }
        *response.headers_mut() = headers;
        Ok((response, agreement))
    }
}

/// Headers that an application may not set on accepting: the handshake's own, and those that describe a body.
static RESERVED: [HeaderName; 7] = [
    CONNECTION,
    UPGRADE,
    SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_PROTOCOL,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
];

/// Whether these headers ask for an upgrade to WebSocket, validly or not; says nothing of the method.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, &CONNECTION, "upgrade") && has_token(headers, &UPGRADE, "websocket")
}

/// `Sec-WebSocket-Accept` for a key as it stands in the header (RFC 6455 section 4.2.2): 28 characters of Base64.
pub(crate) fn accept_key(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [b'='; 28];
    // Twenty bytes always make twenty-eight characters.
    let written = STANDARD.encode_slice(digest, &mut accept);
    debug_assert_eq!(written, Ok(accept.len()));
    accept
}

/// The value of a header that must be there exactly once.
pub(crate) fn once(headers: &HeaderMap, name: HeaderName) -> Result<&str, HandshakeError> {
    let mut values = headers.get_all(&name).into_iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| HandshakeError::Malformed(name)),
        _ => Err(HandshakeError::NotOnce(name)),
    }
}

/// Whether a comma-separated list header holds a token, in any case.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim_matches([' ', '\t']).eq_ignore_ascii_case(token))
}

/// Whether a character may stand in a token (RFC 9110 section 5.6.2).
pub(crate) const fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(
            c,
            '!' | '#' | '$' | '%' | '&' | '\'' | '*' | '+' | '-' | '.' | '^' | '_' | '`' | '|' | '~'
        )
}

fn check_version(headers: &HeaderMap) -> Result<(), HandshakeError> {
    match once(headers, SEC_WEBSOCKET_VERSION)?.trim() {
        VERSION => Ok(()),
        _ => Err(HandshakeError::UnsupportedVersion),
    }
}

fn parse_subprotocols(headers: &HeaderMap) -> Result<Vec<String>, HandshakeError> {
    let malformed = || HandshakeError::Malformed(SEC_WEBSOCKET_PROTOCOL);
    let mut names: Vec<String> = Vec::new();
    for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        for name in value.to_str().map_err(|_| malformed())?.split(',') {
            let name = name.trim_matches([' ', '\t']);
            if !name.chars().all(is_token_char) {
                return Err(malformed());
            }
            if !name.is_empty() && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request<()> {
        Request::get("/")
            .header(CONNECTION, "keep-alive, Upgrade")
            .header(UPGRADE, "WebSocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
            .body(())
            .unwrap()
    }

    fn refused(change: impl FnOnce(&mut Request<()>)) -> HandshakeError {
        let mut request = request();
        change(&mut request);
        OpeningHandshake::from_request(&request).unwrap_err()
    }

    fn set(name: HeaderName, value: &'static str) -> impl FnOnce(&mut Request<()>) {
        move |request| drop(request.headers_mut().insert(name, HeaderValue::from_static(value)))
    }

    fn remove(name: HeaderName) -> impl FnOnce(&mut Request<()>) {
        move |request| drop(request.headers_mut().remove(name))
    }

    #[test]
    fn bad_requests() {
        let bad = StatusCode::BAD_REQUEST;
        for error in [
            refused(|request| *request.method_mut() = Method::POST),
            refused(|request| *request.version_mut() = Version::HTTP_10),
            refused(|request| *request.version_mut() = Version::HTTP_2),
            refused(remove(SEC_WEBSOCKET_VERSION)),
            refused(remove(SEC_WEBSOCKET_KEY)),
            refused(set(SEC_WEBSOCKET_KEY, "")),
            refused(set(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ")),
            refused(set(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25j")),
            refused(set(SEC_WEBSOCKET_PROTOCOL, "chat, super chat")),
            refused(|request| {
                request
                    .headers_mut()
                    .append(SEC_WEBSOCKET_KEY, HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="));
            }),
        ] {
            assert_eq!(error.status(), bad, "{error}");
        }
    }

    #[test]
    fn what_needs_another_version_or_an_upgrade_is_told_so() {
        for error in [
            refused(remove(CONNECTION)),
            refused(remove(UPGRADE)),
            refused(set(CONNECTION, "close")),
            refused(set(UPGRADE, "h2c")),
            refused(set(SEC_WEBSOCKET_VERSION, "8")),
        ] {
            let response = error.to_response();
            assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED, "{error}");
            assert_eq!(response.headers()[SEC_WEBSOCKET_VERSION], "13");
            assert_eq!(response.headers()[UPGRADE], "websocket");
        }
    }

    #[test]
    fn subprotocols_keep_their_order_over_several_headers() {
        let mut request = request();
        for value in ["b, a", " a ,,c"] {
            request.headers_mut().append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value));
        }
        assert_eq!(OpeningHandshake::from_request(&request).unwrap().subprotocols(), ["b", "a", "c"]);
    }

    #[test]
    fn the_answer_carries_what_was_chosen_and_the_applications_headers() {
        let mut request = request();
        set(SEC_WEBSOCKET_PROTOCOL, "a, b")(&mut request);
        set(SEC_WEBSOCKET_EXTENSIONS, "permessage-deflate; client_max_window_bits")(&mut request);
        let opening = OpeningHandshake::from_request(&request).unwrap();
        let headers = HeaderMap::from_iter([(http::header::SET_COOKIE, HeaderValue::from_static("k=v"))]);
        let config = DeflateConfig::default();
        let (response, agreement) =
            opening.accept(Acceptance { subprotocol: Some("b"), headers, deflate: Some(&config) }).unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "b");
        assert_eq!(response.headers()["set-cookie"], "k=v");
        assert_eq!(
            response.headers()[SEC_WEBSOCKET_EXTENSIONS],
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        );
        assert!(agreement.deflate.unwrap().server_no_context_takeover);
        // Offered, but not wanted.
        let (response, agreement) = opening.accept(Acceptance::default()).unwrap();
        assert!(!response.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS));
        assert_eq!(agreement, Agreement::default());
    }

    #[test]
    fn an_applications_mistakes_are_its_own() {
        let opening = OpeningHandshake::from_request(&request()).unwrap();
        let error =
            opening.accept(Acceptance { subprotocol: Some("x"), ..Acceptance::default() }).unwrap_err();
        assert_eq!(error, HandshakeError::SubprotocolNotOffered("x".to_owned()));
        let headers = HeaderMap::from_iter([(CONNECTION, HeaderValue::from_static("close"))]);
        let error = opening.accept(Acceptance { headers, ..Acceptance::default() }).unwrap_err();
        assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn extended_connect_is_answered_with_200_and_no_key() {
        let request = Request::connect("/chat")
            .version(Version::HTTP_2)
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_PROTOCOL, "chat")
            .body(())
            .unwrap();
        let opening = OpeningHandshake::from_extended_connect(&request, "websocket").unwrap();
        let (response, _) =
            opening.accept(Acceptance { subprotocol: Some("chat"), ..Acceptance::default() }).unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers().keys().collect::<Vec<_>>(), [&SEC_WEBSOCKET_PROTOCOL]);
        let error = OpeningHandshake::from_extended_connect(&request, "connect-udp").unwrap_err();
        assert_eq!(error, HandshakeError::NotUpgrade);
    }
}
