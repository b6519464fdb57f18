//! Host names and patterns for them: `"example.com"`, `"*.example.com"`, `"*"`.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{InvalidValue, quoted, text_value};

/// A host as requests name it, without a port, in one spelling: lower case, ASCII by IDNA (UTS 46), without the
/// trailing dot; IPv6 addresses in brackets and compressed as RFC 5952 says.
///
/// ```
/// use hawksbill_core::config::HostName;
///
/// assert_eq!("Bücher.Example.".parse::<HostName>()?.as_str(), "xn--bcher-kva.example");
/// assert_eq!("::0001".parse::<HostName>()?.as_str(), "[::1]");
/// assert!("example.com:80".parse::<HostName>().is_err());
/// # Ok::<(), hawksbill_core::config::InvalidValue>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

impl HostName {
    /// The name in its one spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, if the host is named by one.
    pub fn address(&self) -> Option<IpAddr> {
        let unbracketed = self.0.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        unbracketed.unwrap_or(&self.0).parse().ok()
    }
}

impl AsRef<str> for HostName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        normalised(text.trim()).map(Self).map_err(|reason| refused(text, reason))
    }
}

fn refused(text: &str, reason: &str) -> InvalidValue {
    InvalidValue::new(format!(
        "{} {reason}; name a host alone, such as \"example.com\", \"*.example.com\" or \"*\" for every host",
        quoted(text)
    ))
}

/// The longest name and the longest label that DNS takes (RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

fn normalised(host: &str) -> Result<String, &'static str> {
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if let Ok(address) = bracketed.unwrap_or(host).parse::<Ipv6Addr>() {
        return Ok(format!("[{address}]"));
    }
    refuse_what_is_more_than_a_host(host)?;
    // IDNA takes its time over long text, and no host in use is this long before it, in whatever script.
    if host.len() > 4 * LONGEST_NAME {
        return Err("is longer than a host name can be");
    }
    let ascii = idna::domain_to_ascii_cow(host.as_bytes(), idna::AsciiDenyList::URL)
        .map_err(|_| "is not a host name")?;
    let name = ascii.strip_suffix('.').unwrap_or(&ascii);
    if name.is_empty() {
        return Err("is not a host name");
    }
    if name.len() > LONGEST_NAME || name.split('.').any(|label| label.len() > LONGEST_LABEL) {
        return Err("is longer than a host name can be");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.split('.').any(|label| label.is_empty() || !label.bytes().all(allowed)) {
        return Err("is not a host name");
    }
    let last_label = name.rsplit('.').next().unwrap_or_default();
    if last_label.bytes().all(|byte| byte.is_ascii_digit()) && name.parse::<Ipv4Addr>().is_err() {
        return Err("is neither a host name nor an IPv4 address");
    }
    Ok(name.to_owned())
}

/// Tells apart what people put around a host by mistake.
fn refuse_what_is_more_than_a_host(host: &str) -> Result<(), &'static str> {
    if host.contains("://") {
        return Err("has a scheme");
    }
    if host.contains('/') {
        return Err("has a path");
    }
    if host.contains('@') {
        return Err("has a user name");
    }
    if host.contains(':') {
        let (_, port) = host.rsplit_once(':').unwrap_or_default();
        let port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        return Err(if port { "has a port (ports belong to 'listen')" } else { "is not a host name" });
    }
    if host.contains(char::is_whitespace) {
        return Err("is more than one host");
    }
    if host.contains('*') {
        return Err("has a '*' that does not stand for all of the first labels");
    }
    Ok(())
}

/// Which hosts a site answers for: one host, all hosts beneath a domain (`*.example.com`: at any depth, without
/// `example.com` itself), or every host (`*`).
///
/// ```
/// use hawksbill_core::config::HostPattern;
///
/// let pattern: HostPattern = "*.Example.com".parse()?;
/// assert!(pattern.matches(&"a.b.example.com".parse()?));
/// assert!(!pattern.matches(&"example.com".parse()?));
/// assert!(!pattern.matches(&"badexample.com".parse()?));
/// assert_eq!(
///     "https://example.com".parse::<HostPattern>().unwrap_err().to_string(),
///     "\"https://example.com\" has a scheme; name a host alone, such as \"example.com\", \
///      \"*.example.com\" or \"*\" for every host"
/// );
/// # Ok::<(), hawksbill_core::config::InvalidValue>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// One host.
    Exact(HostName),
    /// All hosts beneath this domain.
    Beneath(HostName),
    /// Every host, and requests that name none.
    Any,
}

impl HostPattern {
    /// Whether a request for `host` is meant.
    pub fn matches(&self, host: &HostName) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Beneath(domain) => {
                host.0.strip_suffix(&domain.0).is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
            }
            Self::Any => true,
        }
    }

    /// The patterns in a text that names several, separated by spaces: `"example.com www.example.com"`.
    ///
    /// ```
    /// use hawksbill_core::config::HostPattern;
    ///
    /// assert_eq!(HostPattern::parse_list("example.com *.example.com")?.len(), 2);
    /// assert!(HostPattern::parse_list(" ").is_err());
    /// # Ok::<(), hawksbill_core::config::InvalidValue>(())
    /// ```
    pub fn parse_list(text: &str) -> Result<Vec<Self>, InvalidValue> {
        if text.trim().is_empty() {
            return Err(refused(text, "names no host"));
        }
        text.split_whitespace().map(Self::from_str).collect()
    }
}

impl FromStr for HostPattern {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let trimmed = text.trim();
        if trimmed == "*" {
            return Ok(Self::Any);
        }
        let Some(domain) = trimmed.strip_prefix("*.") else { return trimmed.parse().map(Self::Exact) };
        let domain = HostName(normalised(domain).map_err(|reason| refused(text, reason))?);
        match domain.address() {
            None => Ok(Self::Beneath(domain)),
            Some(_) => Err(refused(text, "has a '*' before an address")),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Beneath(domain) => write!(f, "*.{domain}"),
            Self::Any => f.write_str("*"),
        }
    }
}

text_value!(HostPattern, "a host such as \"example.com\", \"*.example.com\", or \"*\" for every host");

impl JsonSchema for HostPattern {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("HostPattern")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A host name or address, all hosts beneath a domain (`*.example.com`), or every host (`*`).",
            "type": "string",
            "pattern": r"^(\*|(\*\.)?[^*:/@\s]+|\[?[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]?)$",
            "examples": ["example.com", "*.example.com", "*"],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_have_one_spelling() {
        for (text, canonical) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com.", "example.com"),
            ("*.Example.COM", "*.example.com"),
            ("*", "*"),
            ("localhost", "localhost"),
            ("my_app", "my_app"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("*.BÜCHER.example", "*.xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "[::1]"),
            ("[2001:DB8:0::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(text.parse::<HostPattern>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn what_is_no_host_is_refused_for_what_it_is() {
        for (text, reason) in [
            ("https://example.com", "has a scheme"),
            ("example.com/shop", "has a path"),
            ("example.com:8080", "has a port (ports belong to 'listen')"),
            ("[::1]:80", "has a port (ports belong to 'listen')"),
            ("me@example.com", "has a user name"),
            ("a.com b.com", "is more than one host"),
            ("www.*.com", "has a '*' that does not stand for all of the first labels"),
            ("*example.com", "has a '*' that does not stand for all of the first labels"),
            ("*.*.com", "has a '*' that does not stand for all of the first labels"),
            ("*.127.0.0.1", "has a '*' before an address"),
            ("*.[::1]", "has a '*' before an address"),
            ("*.", "is not a host name"),
            ("", "is not a host name"),
            (".", "is not a host name"),
            ("a..b", "is not a host name"),
            ("exa mple%2e", "is more than one host"),
            ("example%2ecom", "is not a host name"),
            ("xn--a", "is not a host name"),
            ("127.1", "is neither a host name nor an IPv4 address"),
            ("256.0.0.1", "is neither a host name nor an IPv4 address"),
            ("[::g]", "is not a host name"),
            ("a,b", "is not a host name"),
        ] {
            let error = text.parse::<HostPattern>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} {reason}; name a host alone")), "{error}");
        }
        for long in ["a".repeat(64), vec!["a"; 128].join("."), "é".repeat(100_000)] {
            let error = long.parse::<HostPattern>().unwrap_err().to_string();
            assert!(error.contains("is longer than a host name can be"), "{error}");
        }
        assert!(vec!["a"; 127].join(".").parse::<HostPattern>().is_ok());
    }

    #[test]
    fn matching_stops_at_label_boundaries() {
        let matches = |pattern: &str, host: &str| {
            pattern.parse::<HostPattern>().unwrap().matches(&host.parse().unwrap())
        };
        assert!(matches("*.example.com", "a.example.com"));
        assert!(matches("*.example.com", "a.b.example.com"));
        assert!(!matches("*.example.com", "example.com"));
        assert!(!matches("*.example.com", "aexample.com"));
        assert!(matches("example.com", "EXAMPLE.COM."));
        assert!(!matches("example.com", "www.example.com"));
        assert!(matches("*", "[::1]"));
        assert!(matches("::1", "[0::1]"));
    }

    #[test]
    fn addresses_are_told_from_names() {
        let address = |host: &str| host.parse::<HostName>().unwrap().address();
        assert_eq!(address("[::1]"), Some("::1".parse().unwrap()));
        assert_eq!(address("127.0.0.1"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(address("example.com"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in "(\\*\\.)?[a-zA-Z0-9_äß]{1,9}(\\.[a-z0-9-]{1,9}){0,3}\\.[a-z]{2,5}\\.?") {
            if let Ok(pattern) = text.parse::<HostPattern>() {
                prop_assert_eq!(pattern.to_string().parse(), Ok(pattern));
            }
        }

        #[test]
        fn addresses_are_hosts(address in any::<IpAddr>()) {
            let host: HostName = address.to_string().parse().unwrap();
            prop_assert_eq!(host.address(), Some(address));
            prop_assert_eq!(host.as_str().parse(), Ok(host.clone()));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "([a-z0-9]|\\.|:|\\[|\\]|\\*|xn--|.)*") {
            if let Ok(pattern) = text.parse::<HostPattern>() {
                prop_assert_eq!(pattern.to_string().parse(), Ok(pattern));
            }
        }
    }
}
