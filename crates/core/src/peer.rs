//! Facts about the connection a request came on, in one typed extension.
//!
//! The server inserts a [`Peer`] into the extensions of every request, after it has decided whom to believe: what an
//! untrusted client says of itself in `Forwarded` or `X-Forwarded-*` headers never gets here.
//!
//! ```
//! use hawksbill_core::{Address, Connection, Forwarded, Peer, Scheme};
//!
//! let proxy = Address::Tcp("10.0.0.1:4711".parse().unwrap());
//! let local = Address::Tcp("10.0.0.9:80".parse().unwrap());
//! let peer = Peer::new(Connection { remote: proxy, local, scheme: Scheme::Http });
//! assert_eq!(peer.client().to_string(), "10.0.0.1:4711");
//!
//! let told = Forwarded { client: Some("203.0.113.7".parse().unwrap()), scheme: Some(Scheme::Https), host: None };
//! let peer = peer.forwarded(told);
//! assert_eq!(peer.client().to_string(), "203.0.113.7:0");
//! assert_eq!(peer.scheme(), Scheme::Https);
//! ```

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP. Port 0 where only the address is known, as from an `X-Forwarded-For` header.
    Tcp(SocketAddr),
    /// A Unix socket, with its path where it has one.
    Unix(Option<PathBuf>),
}

impl Address {
    /// The IP address, `None` on a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix(_) => None,
        }
    }

    /// The port, `None` on a Unix socket and where it is not known.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()).filter(|port| *port != 0),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(None) => f.write_str("unix:"),
        }
    }
}

/// `203.0.113.7`, `203.0.113.7:4711`, `2001:db8::1`, `[2001:db8::1]:4711`: the forms of RFC 7239 section 6.
impl FromStr for Address {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Tcp(address));
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        bare.parse::<IpAddr>().map(|ip| Self::Tcp(SocketAddr::new(ip, 0)))
    }
}

/// The scheme a client used on its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Cleartext.
    Http,
    /// TLS, ended here or at a trusted proxy.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URL of this scheme need not name.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What is true of a connection as long as it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The other end of our socket: the client itself or the nearest proxy.
    pub remote: Address,
    /// Our end.
    pub local: Address,
    /// Whether TLS ends here.
    pub scheme: Scheme,
}

/// What a trusted proxy said of one request. `None`: it said nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// The nearest client that is not a trusted proxy.
    pub client: Option<Address>,
    /// The scheme that client used.
    pub scheme: Option<Scheme>,
    /// The host it asked for, with its port if it named one.
    pub host: Option<String>,
}

/// The facts about a request's connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peer {
    number: u64,
    connection: Arc<Connection>,
    forwarded: Option<Arc<Forwarded>>,
}

impl Peer {
    /// A peer of which no proxy has said anything.
    pub fn new(connection: Connection) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Self { number, connection: Arc::new(connection), forwarded: None }
    }

    /// The same connection, for a request of which a *trusted* proxy said this.
    pub fn forwarded(&self, forwarded: Forwarded) -> Self {
        Self { forwarded: Some(Arc::new(forwarded)), ..self.clone() }
    }

    /// The number of the connection: no other one of this process has it, and the next connection has the next.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether a trusted proxy said something of this request.
    pub fn is_forwarded(&self) -> bool {
        self.forwarded.is_some()
    }

    /// What is true of the connection, whatever a proxy said: for those who pass a peer on to another process.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What a trusted proxy said of this request: for those who pass a peer on to another process.
    pub fn told(&self) -> Option<&Forwarded> {
        self.forwarded.as_deref()
    }

    /// Who asks: what a trusted proxy said, else the other end of the socket.
    pub fn client(&self) -> &Address {
        self.said(|said| said.client.as_ref()).unwrap_or(&self.connection.remote)
    }

    /// The scheme that the client used.
    pub fn scheme(&self) -> Scheme {
        self.said(|said| said.scheme.as_ref()).copied().unwrap_or(self.connection.scheme)
    }

    /// The host that a trusted proxy was asked for; `None`: the request's own host counts.
    pub fn forwarded_host(&self) -> Option<&str> {
        self.said(|said| said.host.as_deref())
    }

    /// The other end of our socket, whatever a proxy said.
    pub fn remote(&self) -> &Address {
        &self.connection.remote
    }

    /// Our end of the socket.
    pub fn local(&self) -> &Address {
        &self.connection.local
    }

    fn said<'a, T: ?Sized>(&'a self, what: impl FnOnce(&'a Forwarded) -> Option<&'a T>) -> Option<&'a T> {
        self.forwarded.as_deref().and_then(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_forwarded_headers() {
        for (text, shown) in [
            ("203.0.113.7", "203.0.113.7:0"),
            ("203.0.113.7:80", "203.0.113.7:80"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("[2001:db8::1]", "[2001:db8::1]:0"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        assert!("unknown".parse::<Address>().is_err());
        assert!("_hidden".parse::<Address>().is_err());
    }
}
