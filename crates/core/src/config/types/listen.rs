//! Where a server listens: `":80"`, `"127.0.0.1:8000"`, `"unix:/run/hawksbill.sock"`, `"fd:3"`.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{InvalidValue, quoted, text_value};

/// A place to listen at.
///
/// - `":80"`, `"80"` or `80`: the port on all addresses, IPv6 and IPv4;
/// - `"127.0.0.1:8000"`, `"[::1]:8000"`: the port on one address; `0.0.0.0` is all of IPv4, `[::]` all of IPv6;
/// - `"localhost:8000"`: the port on the loopback addresses, IPv6 and IPv4. Other names are not looked up;
/// - `"unix:/run/hawksbill.sock"`: a Unix socket; a relative path is allowed;
/// - `"fd:3"`: a listening socket that the process inherited.
///
/// Port 0 lets the system choose.
///
/// ```
/// use hawksbill_core::config::{Listen, ListenHost};
///
/// assert_eq!(":80".parse(), Ok(Listen::Tcp { host: ListenHost::All, port: 80 }));
/// assert_eq!("unix:///run/x.sock".parse::<Listen>()?.to_string(), "unix:/run/x.sock");
/// assert_eq!(
///     "::1:8000".parse::<Listen>().unwrap_err().to_string(),
///     r#""::1:8000" has an IPv6 address without brackets; write "[::1]:8000""#
/// );
/// # Ok::<(), hawksbill_core::config::InvalidValue>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// A TCP port.
    Tcp {
        /// On which addresses.
        host: ListenHost,
        /// Which port; 0 lets the system choose.
        port: u16,
    },
    /// A Unix socket at a path.
    Unix(PathBuf),
    /// An inherited file descriptor; never negative.
    Fd(i32),
}

/// The addresses of a TCP listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenHost {
    /// All addresses, IPv6 and IPv4.
    All,
    /// The loopback addresses, IPv6 and IPv4.
    Localhost,
    /// One address; an unspecified one stands for all of its family, and of its family alone.
    Address(IpAddr),
}

impl FromStr for Listen {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let trimmed = text.trim();
        if let Some(path) = trimmed.strip_prefix("unix:") {
            unix(path, text)
        } else if let Some(number) = trimmed.strip_prefix("fd:") {
            fd(number, text)
        } else {
            tcp(trimmed, text)
        }
    }
}

fn refused(text: &str, reason: &str) -> InvalidValue {
    InvalidValue::new(format!("{} {reason}", quoted(text)))
}

fn unix(path: &str, text: &str) -> Result<Listen, InvalidValue> {
    if path.contains('\0') {
        return Err(refused(text, "has a NUL character in its path"));
    }
    // `unix:///run/x` is what some tools write for `unix:/run/x`.
    let names = path.trim_start_matches('/');
    if names.is_empty() {
        return Err(refused(text, "has no path; write one such as \"unix:/run/hawksbill.sock\""));
    }
    let path =
        if names.len() == path.len() { PathBuf::from(path) } else { PathBuf::from(format!("/{names}")) };
    Ok(Listen::Unix(path))
}

fn fd(number: &str, text: &str) -> Result<Listen, InvalidValue> {
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { number.parse().ok() } else { None };
    let refused = || refused(text, "has no number of a file descriptor; write one such as \"fd:3\"");
    number.map(Listen::Fd).ok_or_else(refused)
}

fn tcp(trimmed: &str, text: &str) -> Result<Listen, InvalidValue> {
    if trimmed.contains("://") || trimmed.contains('/') {
        let reason = "is a URL or a path; write an address and a port such as \"127.0.0.1:8000\", or \"unix:\" and a path";
        return Err(refused(text, reason));
    }
    if let Ok(address) = trimmed.parse::<IpAddr>() {
        return Err(if looks_like_unbracketed(trimmed) {
            unbracketed(trimmed, text)
        } else {
            let example = Listen::Tcp { host: ListenHost::Address(address), port: 8000 };
            refused(text, &format!("has no port; write one such as \"{example}\""))
        });
    }
    let (host, port) = trimmed.rsplit_once(':').unwrap_or(("", trimmed));
    if host.contains(':') && !host.starts_with('[') {
        return Err(unbracketed(trimmed, text));
    }
    if host.ends_with(']') || !port.ends_with(']') {
        let port = port_number(port, text)?;
        return Ok(Listen::Tcp { host: listen_host(host, text)?, port });
    }
    Err(refused(text, &format!("has no port; write one such as \"{trimmed}:8000\"")))
}

/// Whether a text that is an IPv6 address was probably meant as an address with a port: `::1:8000`.
fn looks_like_unbracketed(text: &str) -> bool {
    let last = text.rsplit_once(':').map(|(address, port)| (address.parse::<Ipv6Addr>(), port));
    last.is_some_and(|(address, port)| address.is_ok() && port.len() >= 2 && port.parse::<u16>().is_ok())
}

fn unbracketed(trimmed: &str, text: &str) -> InvalidValue {
    let (address, port) = trimmed.rsplit_once(':').unwrap_or((trimmed, "8000"));
    refused(text, &format!("has an IPv6 address without brackets; write \"[{address}]:{port}\""))
}

fn port_number(port: &str, text: &str) -> Result<u16, InvalidValue> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { port.parse().ok() } else { None };
    number.ok_or_else(|| {
        let allowed = "write an address and a port from 0 to 65535, such as \":80\" or \"127.0.0.1:8000\"";
        refused(text, &format!("is not a place to listen at; {allowed}, \"unix:/path\" or \"fd:3\""))
    })
}

fn listen_host(host: &str, text: &str) -> Result<ListenHost, InvalidValue> {
    if host.is_empty() || host == "*" {
        return Ok(ListenHost::All);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(ListenHost::Localhost);
    }
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = match bracketed {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    };
    let reason = "names no IP address; names other than localhost are not looked up: write the address, such as \
                  \"127.0.0.1:8000\" or \"[::1]:8000\", or \":8000\" for all";
    address.map(ListenHost::Address).ok_or_else(|| refused(text, reason))
}

impl fmt::Display for ListenHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => Ok(()),
            Self::Localhost => f.write_str("localhost"),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Fd(number) => write!(f, "fd:{number}"),
        }
    }
}

text_value!(Listen, "a place to listen at such as \":80\", \"127.0.0.1:8000\", \"unix:/path\" or \"fd:3\"");

impl JsonSchema for Listen {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Listen")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A place to listen at: a port on all addresses, an IP address (or localhost) with a port, \
                            a Unix socket, or an inherited file descriptor. Port 0 lets the system choose.",
            "type": ["string", "integer"],
            "pattern": r"^(([0-9.]+|\[[0-9A-Fa-f.:]+\]|localhost|\*)?:)?[0-9]{1,5}$|^unix:.+$|^fd:[0-9]+$",
            "minimum": 0,
            "maximum": 65535,
            "examples": [":80", "127.0.0.1:8000", "[::]:8000", "localhost:8000", "unix:/run/hawksbill.sock", "fd:3"],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_forms_are_read_and_written() {
        for (text, canonical) in [
            (":80", ":80"),
            ("8000", ":8000"),
            ("*:80", ":80"),
            (":0", ":0"),
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            ("0.0.0.0:8000", "0.0.0.0:8000"),
            ("[::]:8000", "[::]:8000"),
            ("[2001:DB8::1]:1", "[2001:db8::1]:1"),
            ("LocalHost:8000", "localhost:8000"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("unix:///run/x.sock", "unix:/run/x.sock"),
            ("unix:x y.sock", "unix:x y.sock"),
            ("fd:3", "fd:3"),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), canonical);
        }
        assert_eq!(
            "[::]:1".parse(),
            Ok(Listen::Tcp { host: ListenHost::Address(Ipv6Addr::UNSPECIFIED.into()), port: 1 })
        );
        assert_eq!(serde_json::from_str::<Listen>("8000").unwrap().to_string(), ":8000");
    }

    #[test]
    fn what_is_refused_is_refused_with_a_way_out() {
        for (text, reason) in [
            ("", "is not a place to listen at; write an address and a port from 0 to 65535"),
            (":", "is not a place to listen at"),
            (":65536", "is not a place to listen at"),
            (":+80", "is not a place to listen at"),
            ("-1", "is not a place to listen at"),
            ("localhost", "is not a place to listen at"),
            ("127.0.0.1", "has no port; write one such as \"127.0.0.1:8000\""),
            ("::1", "has no port; write one such as \"[::1]:8000\""),
            ("[::1]", "has no port; write one such as \"[::1]:8000\""),
            ("::1:8000", "has an IPv6 address without brackets; write \"[::1]:8000\""),
            ("fe80::1:2:3:4:5:6:80", "has an IPv6 address without brackets"),
            ("[127.0.0.1]:80", "names no IP address"),
            ("example.com:80", "names no IP address; names other than localhost are not looked up"),
            ("http://127.0.0.1:80", "is a URL or a path"),
            ("/run/x.sock", "is a URL or a path; write an address and a port such as"),
            ("unix:", "has no path"),
            ("unix:///", "has no path"),
            ("unix:a\0b", "has a NUL character in its path"),
            ("fd:", "has no number of a file descriptor"),
            ("fd:-1", "has no number of a file descriptor"),
            ("fd:99999999999", "has no number of a file descriptor"),
        ] {
            let error = text.parse::<Listen>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} {reason}")), "{error}");
        }
    }

    fn places() -> impl Strategy<Value = Listen> {
        let host = prop_oneof![
            Just(ListenHost::All),
            Just(ListenHost::Localhost),
            any::<IpAddr>().prop_map(ListenHost::Address)
        ];
        prop_oneof![
            (host, any::<u16>()).prop_map(|(host, port)| Listen::Tcp { host, port }),
            "/?[^/\0\\s]([^\0]*[^\0\\s])?".prop_map(|path| Listen::Unix(path.into())),
            (0_i32..).prop_map(Listen::Fd),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(place in places()) {
            prop_assert_eq!(place.to_string().parse(), Ok(place));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(unix:|fd:|[0-9a-f]|\\.|:|\\[|\\]|.)*") {
            if let Ok(place) = text.parse::<Listen>() {
                prop_assert_eq!(place.to_string().parse(), Ok(place));
            }
        }
    }
}
