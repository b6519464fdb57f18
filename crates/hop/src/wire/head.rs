//! Heads of requests and of responses, trailers, failures.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use bytes::Bytes;
use hawksbill_core::{Address, Connection, Error, Forwarded, Kind, Mount, Peer, Scheme, Side};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};

use crate::Fault;
use crate::wire::text::{Reader, put_length, put_text};

/// The length of a body that nobody knows.
const UNKNOWN: u64 = u64::MAX;

/// The head of a request: what it asks for, and the facts that the front vouches for, which no header can forge.
///
/// | bytes | what |
/// |---|---|
/// | 1 | version of HTTP: 9, 10, 11, 20, 30 |
/// | 8 | the body's length, `u64::MAX` where it is not known |
/// | text | method |
/// | text | target, as it came |
/// | 8, bytes | number of the client's connection, its facts: remote address, local address, scheme (1 cleartext, 2 TLS). Empty: not known |
/// | 1 | what a trusted proxy said: 1 anything, 2 client, 4 scheme, 8 host; then those |
/// | 1 | mount: 1 prefix, 2 rest; then those as texts |
/// | rest | headers, each a text and its value |
///
/// An address is a byte: 4 and 6 (address, port; with 6 also flow and scope), 1 (Unix socket and its path), 0 (Unix socket).
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The version of HTTP that the client speaks.
    pub version: Version,
    /// The length of the body, where it is known.
    pub length: Option<u64>,
    /// The method.
    pub method: Method,
    /// The target, as it came.
    pub target: Uri,
    /// The number of the client's connection at the front, and its facts as bytes.
    pub connection: Option<(u64, Bytes)>,
    /// What a trusted proxy said.
    pub forwarded: Option<Forwarded>,
    /// Where the application is mounted.
    pub mount: Option<Mount>,
    /// The headers, in order.
    pub headers: HeaderMap,
}

/// The facts of a request that are written, all borrowed.
pub(crate) struct Facts<'a> {
    pub(crate) peer: Option<&'a Peer>,
    pub(crate) mount: Option<&'a Mount>,
    pub(crate) length: Option<u64>,
}

impl RequestHead {
    /// Writes the payload for a request that has these parts.
    pub(crate) fn encode(parts: &http::request::Parts, facts: &Facts<'_>, out: &mut Vec<u8>) {
        out.push(match parts.version {
            Version::HTTP_09 => 9,
            Version::HTTP_10 => 10,
            Version::HTTP_2 => 20,
            Version::HTTP_3 => 30,
            _ => 11,
        });
        out.extend_from_slice(&facts.length.unwrap_or(UNKNOWN).to_le_bytes());
        put_text(out, parts.method.as_str().as_bytes());
        put_target(out, &parts.uri);
        match facts.peer {
            Some(peer) => {
                out.extend_from_slice(&peer.number().to_le_bytes());
                put_measured(out, |out| put_connection(out, peer.connection()));
            }
            None => out.extend_from_slice(&[0; 12]),
        }
        put_forwarded(out, facts.peer.and_then(Peer::told));
        put_mount(out, facts.mount);
        put_headers(out, &parts.headers);
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn decode(payload: &Bytes) -> Result<Self, Fault> {
        let mut reader = Reader::new(payload);
        let version = match reader.u8()? {
            9 => Version::HTTP_09,
            10 => Version::HTTP_10,
            11 => Version::HTTP_11,
            20 => Version::HTTP_2,
            30 => Version::HTTP_3,
            other => return Err(Fault::broken(format!("no version of HTTP has the number {other}"))),
        };
        let length = Some(reader.u64()?).filter(|length| *length != UNKNOWN);
        let method = Method::from_bytes(reader.bytes()?).map_err(|_| Fault::broken("a method is none"))?;
        let target = Uri::from_maybe_shared(reader.shared(payload)?);
        let target = target.map_err(|_| Fault::broken("a target is no URI"))?;
        let number = reader.u64()?;
        let facts = reader.shared(payload)?;
        Ok(Self {
            version,
            length,
            method,
            target,
            connection: (!facts.is_empty()).then_some((number, facts)),
            forwarded: forwarded(&mut reader)?,
            mount: mount(&mut reader)?,
            headers: headers(&mut reader, payload)?,
        })
    }
}

/// The target as the client sent it: with scheme and authority where it had them.
fn put_target(out: &mut Vec<u8>, uri: &Uri) {
    match (uri.scheme_str(), uri.authority()) {
        (None, None) => put_text(out, uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes()),
        _ => put_text(out, uri.to_string().as_bytes()),
    }
}

/// Writes something in front of which its length stands.
fn put_measured(out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    put(out);
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_connection(out: &mut Vec<u8>, connection: &Connection) {
    put_address(out, &connection.remote);
    put_address(out, &connection.local);
    put_scheme(out, connection.scheme);
}

/// Reads what is true of a connection.
pub(crate) fn connection_of(facts: &[u8]) -> Result<Connection, Fault> {
    let mut reader = Reader::new(facts);
    let remote = address(&mut reader)?;
    let local = address(&mut reader)?;
    let scheme = scheme(&mut reader)?;
    reader.end()?;
    Ok(Connection { remote, local, scheme })
}

fn put_scheme(out: &mut Vec<u8>, scheme: Scheme) {
    out.push(match scheme {
        Scheme::Http => 1,
        Scheme::Https => 2,
    });
}

fn scheme(reader: &mut Reader<'_>) -> Result<Scheme, Fault> {
    match reader.u8()? {
        1 => Ok(Scheme::Http),
        2 => Ok(Scheme::Https),
        other => Err(Fault::broken(format!("no scheme has the number {other}"))),
    }
}

fn put_address(out: &mut Vec<u8>, address: &Address) {
    match address {
        Address::Tcp(SocketAddr::V4(address)) => {
            out.push(4);
            out.extend_from_slice(&address.ip().octets());
            out.extend_from_slice(&address.port().to_le_bytes());
        }
        Address::Tcp(SocketAddr::V6(address)) => {
            out.push(6);
            out.extend_from_slice(&address.ip().octets());
            out.extend_from_slice(&address.port().to_le_bytes());
            out.extend_from_slice(&address.flowinfo().to_le_bytes());
            out.extend_from_slice(&address.scope_id().to_le_bytes());
        }
        Address::Unix(Some(path)) => {
            out.push(1);
            put_text(out, path.as_os_str().as_bytes());
        }
        Address::Unix(None) => out.push(0),
    }
}

fn address(reader: &mut Reader<'_>) -> Result<Address, Fault> {
    Ok(match reader.u8()? {
        4 => {
            let ip = Ipv4Addr::from(reader.address::<4>()?);
            Address::Tcp(SocketAddr::new(IpAddr::V4(ip), reader.u16()?))
        }
        6 => {
            let ip = Ipv6Addr::from(reader.address::<16>()?);
            let (port, flow, scope) = (reader.u16()?, reader.u32()?, reader.u32()?);
            Address::Tcp(SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)))
        }
        1 => Address::Unix(Some(PathBuf::from(OsStr::from_bytes(reader.bytes()?)))),
        0 => Address::Unix(None),
        other => return Err(Fault::broken(format!("no address has the number {other}"))),
    })
}

fn put_forwarded(out: &mut Vec<u8>, told: Option<&Forwarded>) {
    let Some(told) = told else { return out.push(0) };
    let flag = |there, flag| if there { flag } else { 0 };
    let flags =
        flag(told.client.is_some(), 2) | flag(told.scheme.is_some(), 4) | flag(told.host.is_some(), 8);
    out.push(1 | flags);
    if let Some(client) = &told.client {
        put_address(out, client);
    }
    if let Some(scheme) = told.scheme {
        put_scheme(out, scheme);
    }
    if let Some(host) = &told.host {
        put_text(out, host.as_bytes());
    }
}

fn forwarded(reader: &mut Reader<'_>) -> Result<Option<Forwarded>, Fault> {
    let flags = reader.u8()?;
    if flags == 0 {
        return Ok(None);
    }
    if flags & 1 == 0 || flags > 15 {
        return Err(Fault::broken("what a proxy said has unknown parts"));
    }
    let mut told = Forwarded::default();
    if flags & 2 != 0 {
        told.client = Some(address(reader)?);
    }
    if flags & 4 != 0 {
        told.scheme = Some(scheme(reader)?);
    }
    if flags & 8 != 0 {
        told.host = Some(reader.text()?.to_owned());
    }
    Ok(Some(told))
}

/// A peer of whose request a trusted proxy may have said something.
pub(crate) fn forwarded_of(peer: Peer, told: Option<Forwarded>) -> Peer {
    match told {
        Some(told) => peer.forwarded(told),
        None => peer,
    }
}

fn put_mount(out: &mut Vec<u8>, mount: Option<&Mount>) {
    let Some(mount) = mount else { return out.push(0) };
    out.push(1 | if mount.rest().is_some() { 2 } else { 0 });
    put_text(out, mount.prefix().as_bytes());
    if let Some(rest) = mount.rest() {
        put_text(out, rest.as_bytes());
    }
}

fn mount(reader: &mut Reader<'_>) -> Result<Option<Mount>, Fault> {
    match reader.u8()? {
        0 => Ok(None),
        1 => Ok(Some(Mount::new(reader.text()?))),
        3 => {
            let mount = Mount::new(reader.text()?);
            Ok(Some(mount.with_rest(reader.text()?)))
        }
        _ => Err(Fault::broken("a mount has unknown parts")),
    }
}

fn put_headers(out: &mut Vec<u8>, headers: &HeaderMap) {
    put_length(out, headers.len());
    for (name, value) in headers {
        put_text(out, name.as_str().as_bytes());
        put_text(out, value.as_bytes());
    }
}

fn headers(reader: &mut Reader<'_>, payload: &Bytes) -> Result<HeaderMap, Fault> {
    const TOO_MANY: &str = "there are more headers than one message can have";
    let count = reader.u32()? as usize;
    // Each takes eight bytes at least, so that what is reserved is never more than what came.
    if count > reader.rest() / 8 {
        return Err(Fault::broken("there are fewer headers than were announced"));
    }
    let mut headers = HeaderMap::try_with_capacity(count).map_err(|_| Fault::broken(TOO_MANY))?;
    for _ in 0..count {
        let name = HeaderName::from_bytes(reader.bytes()?);
        let name = name.map_err(|_| Fault::broken("the name of a header is none"))?;
        let value = HeaderValue::from_maybe_shared(reader.shared(payload)?);
        let value = value.map_err(|_| Fault::broken("the value of a header is none"))?;
        headers.try_append(name, value).map_err(|_| Fault::broken(TOO_MANY))?;
    }
    if reader.rest() > 0 {
        return Err(Fault::broken("there are more headers than were announced"));
    }
    Ok(headers)
}

/// Writes the fields that follow a body.
pub fn encode_trailers(trailers: &HeaderMap, out: &mut Vec<u8>) {
    put_headers(out, trailers);
}

/// Reads the fields that follow a body.
///
/// # Errors
/// The rule that the payload breaks.
pub fn decode_trailers(payload: &Bytes) -> Result<HeaderMap, Fault> {
    headers(&mut Reader::new(payload), payload)
}

/// The head of a response: `u16` status, `u64` length of the body (`u64::MAX`: not known), headers.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The length of the body, where it is known.
    pub length: Option<u64>,
    /// The headers, in order.
    pub headers: HeaderMap,
}

impl ResponseHead {
    /// Writes the payload for a response that has these parts.
    pub(crate) fn encode(parts: &http::response::Parts, length: Option<u64>, out: &mut Vec<u8>) {
        out.extend_from_slice(&parts.status.as_u16().to_le_bytes());
        out.extend_from_slice(&length.unwrap_or(UNKNOWN).to_le_bytes());
        put_headers(out, &parts.headers);
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn decode(payload: &Bytes) -> Result<Self, Fault> {
        let mut reader = Reader::new(payload);
        let status = StatusCode::from_u16(reader.u16()?);
        let status = status.map_err(|_| Fault::broken("the status of a response is none"))?;
        let length = Some(reader.u64()?).filter(|length| *length != UNKNOWN);
        Ok(Self { status, length, headers: headers(&mut reader, payload)? })
    }
}

/// An error on its way to the other end: `u16` status of its kind, `u8` side (1 client, 2 application, 3 upstream,
/// 4 gateway), `u8` whether the request was not acted upon, text that says why, headers.
#[derive(Debug)]
pub struct Failure(pub Error);

/// More than this nobody reads in a log.
const MAX_REASON: usize = 4096;

impl Failure {
    /// Writes the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let error = &self.0;
        out.extend_from_slice(&error.status().as_u16().to_le_bytes());
        out.push(match error.side() {
            Side::Client => 1,
            Side::Application => 2,
            Side::Upstream => 3,
            Side::Gateway => 4,
        });
        out.push(u8::from(error.is_retryable()));
        put_text(out, reason(error).as_bytes());
        put_headers(out, error.headers());
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn decode(payload: &Bytes) -> Result<Self, Fault> {
        let mut reader = Reader::new(payload);
        // A kind that a later version has is an error of the application for an earlier one.
        let kind = Kind::of_status(reader.u16()?).unwrap_or(Kind::Internal);
        let side = match reader.u8()? {
            1 => Side::Client,
            2 => Side::Application,
            3 => Side::Upstream,
            4 => Side::Gateway,
            other => return Err(Fault::broken(format!("no side has the number {other}"))),
        };
        let retryable = reader.u8()? != 0;
        let reason = reader.text()?.to_owned();
        let mut error = Error::new(kind).at(side).because(reason);
        if retryable {
            error = error.retryable();
        }
        for (name, value) in &headers(&mut reader, payload)? {
            error = error.header(name.clone(), value.clone());
        }
        Ok(Self(error))
    }
}

/// What happened and what caused it, in one text.
fn reason(error: &Error) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(error.reason());
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let between = if text.is_empty() { "" } else { ": " };
        text = Cow::Owned(format!("{text}{between}{cause}"));
        source = cause.source();
    }
    if text.len() > MAX_REASON {
        let end = (0..=MAX_REASON).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text = Cow::Owned(text[..end].to_owned());
    }
    text
}
