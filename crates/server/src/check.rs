//! The rules that every request passes before a turtle sees it, beyond those that hyper has applied.

use http::header::{HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, StatusCode, Uri, Version};
use hyper::ext::Protocol;

use crate::settings::{Refusal, Settings};

/// Checks a request's head, and gives it the one `Host` that it is for: that of an absolute or HTTP/2 target, else the
/// one that came.
///
/// # Errors
/// The first rule that it breaks.
pub(crate) fn check(parts: &mut Parts, settings: &Settings) -> Result<(), Refusal> {
    sizes(parts, settings)?;
    target(parts)?;
    let fields = Fields::of(&parts.headers);
    fields.transfer_encoding()?;
    if let Some(host) = fields.host(parts)? {
        parts.headers.insert(HOST, host);
    }
    Ok(())
}

/// The header fields that decide how a request is read and whom it is for, found in one pass over all.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a HeaderValue>,
    hosts: usize,
    coding: Option<&'a HeaderValue>,
    codings: usize,
}

impl<'a> Fields<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            if *name == HOST {
                fields.host = Some(value);
                fields.hosts += 1;
            } else if *name == TRANSFER_ENCODING {
                fields.coding = Some(value);
                fields.codings += 1;
            }
        }
        fields
    }

    /// hyper has seen that `chunked` comes last; anything beside it is a way to smuggle (RFC 9112 section 6.1).
    fn transfer_encoding(&self) -> Result<(), Refusal> {
        match self.coding {
            None => Ok(()),
            Some(coding) if self.codings == 1 && coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
            Some(_) => Err(Refusal::bad_request("Transfer-Encoding is not exactly 'chunked'")),
        }
    }

    /// RFC 9112 section 3.2 and RFC 9113 section 8.3.1. Gives the `Host` that replaces the one that came, if any.
    fn host(&self, parts: &Parts) -> Result<Option<HeaderValue>, Refusal> {
        let named = self.host;
        if self.hosts > 1 {
            return Err(Refusal::bad_request("there is more than one Host header"));
        }
        if named.is_some_and(|host| !host.is_empty() && !is_host(host.as_bytes())) {
            return Err(Refusal::bad_request("the Host header is malformed"));
        }
        if named.is_none() && parts.version == Version::HTTP_11 {
            return Err(Refusal::bad_request("HTTP/1.1 without a Host header"));
        }
        let Some(authority) = parts.uri.authority() else {
            return match named {
                None if parts.version == Version::HTTP_2 => {
                    Err(Refusal::bad_request("HTTP/2 without :authority or Host"))
                }
                _ => Ok(None),
            };
        };
        // An authority is made of characters that a header may have.
        match HeaderValue::from_str(authority.as_str()) {
            Ok(host) if is_host(host.as_bytes()) => {
                let differs = |named| !same_host(named, authority, &parts.uri);
                if parts.version == Version::HTTP_2 && named.is_some_and(differs) {
                    return Err(Refusal::bad_request(":authority and Host differ"));
                }
                Ok(Some(host))
            }
            _ => Err(Refusal::bad_request("the host in the request target is malformed")),
        }
    }
}

fn sizes(parts: &Parts, settings: &Settings) -> Result<(), Refusal> {
    let path = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    let authority = parts.uri.authority().map_or(0, |authority| authority.as_str().len());
    if path + authority > settings.max_target {
        let rule = format!("the request target has more than {} bytes", settings.max_target);
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, rule));
    }
    if parts.headers.len() > settings.max_headers {
        let rule = format!("there are more than {} header lines", settings.max_headers);
        return Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, rule));
    }
    Ok(())
}

/// RFC 9112 section 3.2: an origin server answers origin-form, absolute-form, and `*` for OPTIONS. A CONNECT is served
/// where it asks for a WebSocket (RFC 8441 section 4).
fn target(parts: &Parts) -> Result<(), Refusal> {
    let (method, protocol) = (&parts.method, parts.extensions.get::<Protocol>());
    if *method == Method::CONNECT {
        match protocol {
            None => return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served")),
            Some(protocol) if protocol.as_str().eq_ignore_ascii_case("websocket") => {}
            Some(protocol) => {
                let rule = format!("CONNECT for the protocol '{}' is not served", protocol.as_str());
                return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, rule));
            }
        }
    }
    let path = parts.uri.path();
    if path.starts_with('/') || (path == "*" && *method == Method::OPTIONS) {
        return Ok(());
    }
    Err(Refusal::bad_request("the request target is neither a path nor a URL"))
}

/// Whether both name the same host and port, however written.
fn same_host(host: &HeaderValue, authority: &Authority, uri: &Uri) -> bool {
    let without_default_port = |host: &str| {
        let port = if uri.scheme_str() == Some("https") { ":443" } else { ":80" };
        host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase()
    };
    host.to_str().is_ok_and(|host| without_default_port(host) == without_default_port(authority.as_str()))
}

/// `uri-host [ ":" port ]` (RFC 3986 section 3.2): no user, no list, no path.
pub(crate) fn is_host(host: &[u8]) -> bool {
    let end = match host {
        [b'[', ..] => {
            let Some(end) = host.iter().position(|byte| *byte == b']') else { return false };
            let address = std::str::from_utf8(&host[1..end]).ok().map(str::parse::<std::net::Ipv6Addr>);
            if !matches!(address, Some(Ok(_))) {
                return false;
            }
            end + 1
        }
        _ => match host.iter().position(|byte| !NAME_BYTES[usize::from(*byte)]) {
            Some(0) => return false,
            Some(end) => end,
            None => return !host.is_empty(),
        },
    };
    match &host[end..] {
        [] => true,
        [b':', digits @ ..] => is_port(digits),
        _ => false,
    }
}

/// A number of 16 bits, or none at all.
fn is_port(digits: &[u8]) -> bool {
    let number = digits.iter().try_fold(0_u32, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u32::from(digit - b'0'))
            .filter(|number| *number <= 65_535)
    });
    number.is_some()
}

/// The bytes of a `reg-name`, percent-escapes included.
const NAME_BYTES: [bool; 256] = {
    let mut bytes = [false; 256];
    let mut byte = 0;
    while byte < bytes.len() {
        let is = byte.to_le_bytes()[0];
        bytes[byte] = is.is_ascii_alphanumeric()
            || matches!(is, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*')
            || matches!(is, b'+' | b',' | b';' | b'=' | b'%');
        byte += 1;
    }
    bytes
};

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn checked(request: http::request::Builder) -> Result<Parts, StatusCode> {
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        check(&mut parts, &Settings::default()).map_err(|refusal| refusal.status)?;
        Ok(parts)
    }

    #[test]
    fn hosts() {
        for host in [
            "example.com",
            "example.com:8000",
            "127.0.0.1",
            "[::1]",
            "[::1]:80",
            "a_b.example",
            "example.com:",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "a b",
            "a/b",
            "user@a",
            "a:b",
            "a:99999",
            "a:1:2",
            "[::1",
            "[x]",
            "::1",
            ":80",
            "a\"b",
            "h\u{e9}.example",
            "a:+1",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn the_target_decides_the_host() {
        let absolute = Request::get("http://one.example/").header(HOST, "two.example");
        assert_eq!(checked(absolute).unwrap().headers[HOST], "one.example");
        let with_user = Request::get("http://me@one.example/").header(HOST, "one.example");
        assert_eq!(checked(with_user).unwrap_err(), 400);
    }

    #[test]
    fn the_authority_of_http_2_is_the_host() {
        let request = |host: Option<&str>| {
            let request = Request::get("http://one.example:80/").version(Version::HTTP_2);
            checked(host.into_iter().fold(request, |request, host| request.header(HOST, host)))
        };
        assert_eq!(request(None).unwrap().headers[HOST], "one.example:80");
        assert!(request(Some("ONE.example")).is_ok());
        assert_eq!(request(Some("two.example")).unwrap_err(), 400);
    }

    #[test]
    fn http_1_0_needs_no_host() {
        assert!(checked(Request::get("/").version(Version::HTTP_10)).is_ok());
        assert_eq!(checked(Request::get("/")).unwrap_err(), 400);
    }

    #[test]
    fn targets() {
        let with_host = |request: http::request::Builder| checked(request.header(HOST, "a"));
        assert!(with_host(Request::options("*")).is_ok());
        assert_eq!(with_host(Request::get("*")).unwrap_err(), 400);
        assert_eq!(with_host(Request::get("example.com:80")).unwrap_err(), 400);
        assert_eq!(with_host(Request::connect("example.com:80")).unwrap_err(), 405);
        assert_eq!(with_host(Request::get(format!("/{}", "x".repeat(16 * 1024)))).unwrap_err(), 414);
    }
}
