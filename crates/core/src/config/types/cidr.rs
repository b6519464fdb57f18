//! IP networks and sets of them: `"10.0.0.0/8"`, `["private", "2001:db8::/32"]`.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{InvalidValue, OneOrMany, quoted, text_value};

/// An IP network (RFC 4632, RFC 4291): an address with the length of its prefix, or one address alone.
///
/// IPv4 addresses mapped into IPv6 (`::ffff:10.0.0.1`), as a dual-stack socket names its IPv4 clients, count as
/// the IPv4 addresses that they are, in the network and in what is looked up.
///
/// ```
/// use hawksbill_core::config::Cidr;
///
/// let network: Cidr = "10.0.0.0/8".parse()?;
/// assert!(network.contains("::ffff:10.1.2.3".parse().unwrap()));
/// assert_eq!("10.0.0.1/32".parse::<Cidr>()?.to_string(), "10.0.0.1");
/// assert_eq!(
///     "10.0.0.1/8".parse::<Cidr>().unwrap_err().to_string(),
///     r#""10.0.0.1/8" has bits beyond its prefix; write "10.0.0.0/8" for the network, or "10.0.0.1" for the address"#
/// );
/// # Ok::<(), hawksbill_core::config::InvalidValue>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr(IpNet);

impl Cidr {
    /// The network.
    pub const fn network(self) -> IpNet {
        self.0
    }

    /// Whether `address` is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl From<IpAddr> for Cidr {
    fn from(address: IpAddr) -> Self {
        Self(IpNet::from(address.to_canonical()))
    }
}

/// A network; bits beyond the prefix are cleared.
impl From<IpNet> for Cidr {
    fn from(network: IpNet) -> Self {
        Self(canonical(network.trunc()))
    }
}

/// The IPv4 network that an IPv6 network maps, if it does.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let address = mapped.addr().to_ipv4_mapped();
    let prefix = mapped.prefix_len().checked_sub(96);
    match (address, prefix) {
        (Some(address), Some(prefix)) => Ipv4Net::new(address, prefix).map_or(network, IpNet::V4),
        _ => network,
    }
}

impl FromStr for Cidr {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let trimmed = text.trim();
        if let Ok(address) = trimmed.parse::<IpAddr>() {
            return Ok(Self::from(address));
        }
        let network: IpNet = trimmed.parse().map_err(|_| {
            InvalidValue::new(format!(
                "{} is no IP address or network; write one such as \"10.0.0.0/8\", \"192.0.2.7\" or \"2001:db8::/32\"",
                quoted(text)
            ))
        })?;
        if network.addr() == network.network() {
            return Ok(Self(canonical(network)));
        }
        Err(InvalidValue::new(format!(
            "{} has bits beyond its prefix; write \"{}\" for the network, or \"{}\" for the address",
            quoted(text),
            network.trunc(),
            network.addr()
        )))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

text_value!(Cidr, "an IP address or network such as \"10.0.0.0/8\"");

impl JsonSchema for Cidr {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Cidr")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An IP address, or an IP network in CIDR notation.",
            "type": "string",
            "pattern": r"^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$",
            "examples": ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"],
        })
    }
}

/// A member of a [`CidrSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CidrEntry {
    /// The word `private`: loopback (`127.0.0.0/8`, `::1`), RFC 1918 (`10.0.0.0/8`, `172.16.0.0/12`,
    /// `192.168.0.0/16`), RFC 4193 (`fc00::/7`), and link-local (`169.254.0.0/16`, `fe80::/10`).
    Private,
    /// A network or an address.
    Network(Cidr),
}

/// What [`CidrEntry::Private`] stands for.
const PRIVATE: [IpNet; 8] = [
    v4(Ipv4Addr::new(127, 0, 0, 0), 8),
    v4(Ipv4Addr::new(10, 0, 0, 0), 8),
    v4(Ipv4Addr::new(172, 16, 0, 0), 12),
    v4(Ipv4Addr::new(192, 168, 0, 0), 16),
    v4(Ipv4Addr::new(169, 254, 0, 0), 16),
    v6(Ipv6Addr::LOCALHOST, 128),
    v6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
];

const fn v4(address: Ipv4Addr, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(address, prefix))
}

const fn v6(address: Ipv6Addr, prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(address, prefix))
}

impl FromStr for CidrEntry {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text.trim().eq_ignore_ascii_case("private") {
            return Ok(Self::Private);
        }
        text.parse().map(Self::Network).map_err(|InvalidValue(message)| {
            // Only text that is no network at all may be a word gone wrong.
            let hint = if message.contains("no IP address") { ", or the word \"private\"" } else { "" };
            InvalidValue(message + hint)
        })
    }
}

impl fmt::Display for CidrEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private => f.write_str("private"),
            Self::Network(network) => network.fmt(f),
        }
    }
}

text_value!(CidrEntry, "an IP address or network such as \"10.0.0.0/8\", or the word \"private\"");

impl JsonSchema for CidrEntry {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("CidrEntry")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An IP address, an IP network in CIDR notation, or the word `private`: loopback, RFC 1918, \
                            RFC 4193 and link-local addresses.",
            "type": "string",
            "pattern": r"^([0-9A-Fa-f.:]+(/[0-9]{1,3})?|private)$",
            "examples": ["private", "10.0.0.0/8", "2001:db8::/32"],
        })
    }
}

/// A set of IP networks: one or several of them, the word `private` among them.
///
/// In one text (a flag, an environment variable) the members are separated by commas or spaces.
///
/// ```
/// use hawksbill_core::config::{CidrSet, Path, Value};
///
/// let trusted: CidrSet = Value::from(vec!["private", "203.0.113.0/24"]).decode(&Path::root())?;
/// assert!(trusted.contains("192.168.1.1".parse().unwrap()));
/// assert!(trusted.contains("203.0.113.9".parse().unwrap()));
/// assert!(!trusted.contains("198.51.100.1".parse().unwrap()));
/// assert_eq!(trusted, "private, 203.0.113.0/24".parse().unwrap());
/// # Ok::<(), hawksbill_core::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CidrSet {
    entries: Vec<CidrEntry>,
}

impl CidrSet {
    /// Whether one of the networks has the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.entries.iter().any(|entry| match entry {
            CidrEntry::Private => PRIVATE.iter().any(|network| network.contains(&address)),
            CidrEntry::Network(network) => network.0.contains(&address),
        })
    }

    /// The members as they were written.
    pub fn entries(&self) -> &[CidrEntry] {
        &self.entries
    }

    /// All networks; `private` gives those that it stands for.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> {
        self.entries.iter().flat_map(|entry| match entry {
            CidrEntry::Private => PRIVATE.to_vec(),
            CidrEntry::Network(network) => vec![network.0],
        })
    }

    /// Whether it has no member, and so no address.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl FromIterator<CidrEntry> for CidrSet {
    fn from_iter<I: IntoIterator<Item = CidrEntry>>(entries: I) -> Self {
        Self { entries: entries.into_iter().collect() }
    }
}

impl FromStr for CidrSet {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
        words.map(CidrEntry::from_str).collect()
    }
}

impl fmt::Display for CidrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, entry) in self.entries.iter().enumerate() {
            if position > 0 {
                f.write_str(", ")?;
            }
            entry.fmt(f)?;
        }
        Ok(())
    }
}

/// Text is read as `FromStr` reads it, each element of an array as one member.
impl<'de> Deserialize<'de> for CidrSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        OneOrMany::<Words>::deserialize(deserializer)
            .map(|words| words.into_iter().flat_map(|word| word.0).collect())
    }
}

/// One text of a set: several members.
struct Words(Vec<CidrEntry>);

impl FromStr for Words {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.parse::<CidrSet>()? {
            CidrSet { entries } if entries.is_empty() => text.parse().map(|entry| Self(vec![entry])),
            CidrSet { entries } => Ok(Self(entries)),
        }
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(super::TextVisitor::new(
            "an IP address or network such as \"10.0.0.0/8\", or the word \"private\"",
        ))
    }
}

impl Serialize for CidrSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.entries.serialize(serializer)
    }
}

impl JsonSchema for CidrSet {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("CidrSet")
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        OneOrMany::<CidrEntry>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Path, parse_toml};

    #[test]
    fn networks_are_read_and_written() {
        for (text, canonical) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::1", "::1"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            (" 10.0.0.1 ", "10.0.0.1"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "10.0.0.0/33", "10.0.0", "example.com", "10.0.0.0/8/8", "[::1]", "010.0.0.1", "10.0.0.0/"]
        {
            let error = text.parse::<Cidr>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{text:?} is no IP address or network; write one such")),
                "{error}"
            );
        }
        let word = "privat".parse::<CidrEntry>().unwrap_err().to_string();
        assert!(word.ends_with(", or the word \"private\""), "{word}");
        let bits = "2001:db8::1/32".parse::<CidrEntry>().unwrap_err().to_string();
        assert!(
            bits.ends_with("write \"2001:db8::/32\" for the network, or \"2001:db8::1\" for the address"),
            "{bits}"
        );
    }

    #[test]
    fn private_is_what_the_rfcs_say() {
        let private: CidrSet = "private".parse().unwrap();
        let has = |address: &str| private.contains(address.parse().unwrap());
        for inside in [
            "127.9.9.9",
            "10.255.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.1.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(has(inside), "{inside}");
        }
        for outside in
            ["172.15.255.255", "172.32.0.1", "192.169.0.1", "8.8.8.8", "::2", "2001:db8::1", "fec0::1"]
        {
            assert!(!has(outside), "{outside}");
        }
        assert_eq!(private.networks().count(), 8);
    }

    #[test]
    fn a_set_is_read_from_text_and_arrays() {
        let read = |text: &str| {
            let tree = parse_toml("f.toml", text).unwrap();
            tree.at(&["allow"]).unwrap().decode::<CidrSet>(&Path::root().key("allow"))
        };
        let expected: CidrSet = "private 192.0.2.0/24".parse().unwrap();
        assert_eq!(read("allow = \"private,192.0.2.0/24\"").unwrap(), expected);
        assert_eq!(read("allow = [\"private\", \"192.0.2.0/24\"]").unwrap(), expected);
        assert!(read("allow = []").unwrap().is_empty());
        let error = read("allow = [\"private\", \"10.0.0.1/8\"]").unwrap_err().to_string();
        assert!(
            error.starts_with("f.toml:1:21: allow[1]: \"10.0.0.1/8\" has bits beyond its prefix;"),
            "{error}"
        );
        assert!(read("allow = \"\"").is_err());
        assert_eq!(serde_json::to_string(&expected).unwrap(), r#"["private","192.0.2.0/24"]"#);
    }

    fn networks() -> impl Strategy<Value = Cidr> {
        (any::<IpAddr>(), 0_u8..=128).prop_map(|(address, prefix)| {
            let widest = if address.is_ipv4() { 32 } else { 128 };
            Cidr::from(IpNet::new(address, prefix.min(widest)).unwrap())
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(network in networks(), others in proptest::collection::vec(networks(), 0..4)) {
            prop_assert_eq!(network.to_string().parse(), Ok(network));
            let entries = others.into_iter().map(CidrEntry::Network).chain([CidrEntry::Private]);
            let set: CidrSet = entries.collect();
            prop_assert_eq!(set.to_string().parse(), Ok(set));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "([0-9a-f]|\\.|:|/|.)*") {
            let _ = text.parse::<CidrSet>();
            if let Ok(network) = text.parse::<Cidr>() {
                prop_assert_eq!(network.to_string().parse(), Ok(network));
            }
        }
    }
}
