//! The host that a request is for, in the one spelling that sites are looked up by.
//!
//! Lower case, without port and trailing dot, IPv6 literals in brackets and in the form of RFC 5952. Only names that
//! DNS can hold are hosts: letters, digits, `-`, `_` and dots. Browsers send international names in punycode, so raw
//! UTF-8 and percent-encoding (which RFC 3986 would allow in a `reg-name`) are malformed.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

use hawksbill_core::Peer;
use http::Request;
use http::header::HOST;

/// The longest name that DNS can hold, in its textual form (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 253;

/// Why a host is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostError {
    NotText,
    Repeated,
    BadCharacter,
    EmptyLabel,
    TooLong,
    BadPort,
    BadIpv6,
}

/// The host of a request; `None`: it names none, as HTTP/1.0 may.
///
/// A trusted proxy's word comes first, then the request target (RFC 9112 section 3.2.2: an absolute-form target
/// outranks `Host`; HTTP/2 has its `:authority` there), then `Host`.
pub(crate) fn of_request<B>(request: &Request<B>) -> Result<Option<Cow<'_, str>>, HostError> {
    if let Some(forwarded) = request.extensions().get::<Peer>().and_then(Peer::forwarded_host) {
        return parse(forwarded);
    }
    if let Some(authority) = request.uri().authority() {
        return parse(authority.as_str());
    }
    let mut named = request.headers().get_all(HOST).iter();
    let Some(host) = named.next() else { return Ok(None) };
    if named.next().is_some() {
        return Err(HostError::Repeated);
    }
    parse(host.to_str().map_err(|_| HostError::NotText)?)
}

/// Reads `host`, `host:port`, `[ipv6]`, `[ipv6]:port`. An empty authority is no host (RFC 9110 section 7.2).
pub(crate) fn parse(authority: &str) -> Result<Option<Cow<'_, str>>, HostError> {
    if authority.is_empty() {
        return Ok(None);
    }
    if let Some(literal) = authority.strip_prefix('[') {
        let (address, port) = literal.split_once(']').ok_or(HostError::BadIpv6)?;
        check_port(port)?;
        let address: Ipv6Addr = address.parse().map_err(|_| HostError::BadIpv6)?;
        return Ok(Some(Cow::Owned(format!("[{address}]"))));
    }
    let end = authority.bytes().position(|byte| byte == b':').unwrap_or(authority.len());
    let (name, port) = authority.split_at(end);
    check_port(port)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    let lower = check_name(name)?;
    Ok(Some(if lower { Cow::Borrowed(name) } else { Cow::Owned(name.to_ascii_lowercase()) }))
}

/// What stands behind the host: nothing, or a colon and perhaps a number.
fn check_port(port: &str) -> Result<(), HostError> {
    let digits = match port.as_bytes() {
        [] => return Ok(()),
        [b':', digits @ ..] => digits,
        _ => return Err(HostError::BadPort),
    };
    let number = digits.iter().try_fold(0_u32, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u32::from(digit - b'0'))
            .filter(|number| *number <= 65_535)
    });
    number.map(drop).ok_or(HostError::BadPort)
}

/// Whether a name is in lower case already.
fn check_name(name: &str) -> Result<bool, HostError> {
    if name.len() > LONGEST_NAME {
        return Err(HostError::TooLong);
    }
    let mut before = b'.';
    let mut lower = true;
    for byte in name.bytes() {
        match byte {
            b'.' if before == b'.' => return Err(HostError::EmptyLabel),
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {}
            b'A'..=b'Z' => lower = false,
            _ => return Err(HostError::BadCharacter),
        }
        before = byte;
    }
    if before == b'.' { Err(HostError::EmptyLabel) } else { Ok(lower) }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotText => "the Host header is not ASCII text",
            Self::Repeated => "there is more than one Host header",
            Self::BadCharacter => "the host has a character that no host name can have",
            Self::EmptyLabel => "the host has an empty label",
            Self::TooLong => "the host is longer than 253 bytes",
            Self::BadPort => "the host's port is not a number up to 65535",
            Self::BadIpv6 => "the host is not an IPv6 address in brackets",
        })
    }
}

#[cfg(test)]
mod tests {
    use hawksbill_core::{Address, Connection, Forwarded, Scheme};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_host() {
        for (written, host) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com", "example.com"),
            ("example.com.", "example.com"),
            ("example.com:8000", "example.com"),
            ("Example.Com.:443", "example.com"),
            ("example.com:", "example.com"),
            ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
            ("my_app.internal", "my_app.internal"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::1]:8000", "[::1]"),
            ("[2001:DB8:0:0:0:0:0:1]:80", "[2001:db8::1]"),
        ] {
            assert_eq!(parse(written).unwrap().as_deref(), Some(host), "{written}");
        }
        assert_eq!(parse(""), Ok(None));
    }

    #[test]
    fn malformed_hosts() {
        for (written, why) in [
            ("münchen.example", HostError::BadCharacter),
            ("m%C3%BCnchen.example", HostError::BadCharacter),
            ("user@example.com", HostError::BadCharacter),
            ("example.com/path", HostError::BadCharacter),
            ("a b", HostError::BadCharacter),
            ("*.example.com", HostError::BadCharacter),
            (".", HostError::EmptyLabel),
            (":80", HostError::EmptyLabel),
            (".example.com", HostError::EmptyLabel),
            ("example..com", HostError::EmptyLabel),
            ("example.com..", HostError::EmptyLabel),
            ("example.com:http", HostError::BadPort),
            ("example.com:+80", HostError::BadPort),
            ("example.com:65536", HostError::BadPort),
            ("::1", HostError::BadPort),
            ("[::1", HostError::BadIpv6),
            ("[::1]x", HostError::BadPort),
            ("[fe80::1%25eth0]", HostError::BadIpv6),
            ("[v1.x]", HostError::BadIpv6),
        ] {
            assert_eq!(parse(written), Err(why), "{written}");
        }
        assert!(parse(&"a.".repeat(126)).is_ok());
        assert_eq!(parse(&"a.".repeat(128)), Err(HostError::TooLong));
    }

    #[test]
    fn the_usual_host_is_not_copied() {
        assert!(matches!(parse("www.example.com:8000"), Ok(Some(Cow::Borrowed("www.example.com")))));
    }

    fn proxied(host: Option<&str>) -> Peer {
        let address = Address::Unix(None);
        let connection = Connection { remote: address.clone(), local: address, scheme: Scheme::Http };
        Peer::new(connection).forwarded(Forwarded { host: host.map(str::to_owned), ..Forwarded::default() })
    }

    #[test]
    fn a_proxys_word_then_the_target_then_the_header() {
        let mut request =
            Request::get("http://target.example/").header("host", "header.example").body(()).unwrap();
        request.extensions_mut().insert(proxied(Some("proxy.example")));
        assert_eq!(of_request(&request).unwrap().as_deref(), Some("proxy.example"));
        request.extensions_mut().insert(proxied(None));
        assert_eq!(of_request(&request).unwrap().as_deref(), Some("target.example"));
        *request.uri_mut() = http::Uri::from_static("/");
        assert_eq!(of_request(&request).unwrap().as_deref(), Some("header.example"));
        request.headers_mut().clear();
        assert_eq!(of_request(&request), Ok(None));
    }

    #[test]
    fn what_the_server_should_have_refused() {
        let twice =
            Request::get("/").header("host", "a.example").header("host", "a.example").body(()).unwrap();
        assert_eq!(of_request(&twice), Err(HostError::Repeated));
        let latin = http::HeaderValue::from_bytes(b"m\xfcnchen.example").unwrap();
        let latin = Request::get("/").header("host", latin).body(()).unwrap();
        assert_eq!(of_request(&latin), Err(HostError::NotText));
    }

    proptest! {
        #[test]
        fn what_is_read_reads_as_itself(authority in "\\PC{0,40}|[a-zA-Z0-9_.:\\-\\[\\]]{0,40}") {
            if let Ok(Some(host)) = parse(&authority) {
                prop_assert_eq!(parse(&host), Ok(Some(host.clone())));
                prop_assert!(!host.bytes().any(|byte| byte.is_ascii_uppercase()));
            }
        }
    }
}
