//! What both interfaces tell an application of a request, before it becomes Python objects.

use std::borrow::Cow;

use hawksbill_core::{Address, Mount, Peer, Scheme};
use http::request::Parts;
use http::{HeaderValue, Version, header};
use percent_encoding::percent_decode_str;

/// A request's head together with what the server knows of its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) parts: &'a Parts,
    peer: Option<&'a Peer>,
}

impl<'a> Facts<'a> {
    pub(crate) fn new(parts: &'a Parts) -> Self {
        Self { parts, peer: parts.extensions.get::<Peer>() }
    }

    /// The number of the connection, where all its requests have the same facts. Of several requests of HTTP/2 or of a
    /// proxy each may be somebody else's.
    pub(crate) fn connection(self) -> Option<u64> {
        self.peer
            .filter(|peer| !peer.is_forwarded() && self.parts.uri.authority().is_none())
            .map(Peer::number)
    }

    /// Whether a part of the path is the application's own address.
    pub(crate) fn is_mounted(self) -> bool {
        self.parts.extensions.get::<Mount>().is_some()
    }

    /// The scheme on the client's side.
    pub(crate) fn scheme(self) -> Scheme {
        match self.peer {
            Some(peer) => peer.scheme(),
            None if self.parts.uri.scheme() == Some(&http::uri::Scheme::HTTPS) => Scheme::Https,
            None => Scheme::Http,
        }
    }

    /// The client's address, `None` on a Unix socket and where no server said.
    pub(crate) fn client(self) -> Option<std::net::SocketAddr> {
        match self.peer?.client() {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }

    /// Our end of the connection.
    pub(crate) fn local(self) -> Option<&'a Address> {
        self.peer.map(Peer::local)
    }

    /// The host that was asked for, with its port where one was named: what a trusted proxy says, else the authority of
    /// an HTTP/2 request or of an absolute target, else the `Host` header.
    pub(crate) fn host(self) -> Option<Cow<'a, [u8]>> {
        if let Some(host) = self.peer.and_then(Peer::forwarded_host) {
            return Some(Cow::Borrowed(host.as_bytes()));
        }
        if let Some(authority) = self.parts.uri.authority() {
            let text = authority.as_str();
            let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
            return Some(Cow::Borrowed(host.as_bytes()));
        }
        self.parts.headers.get(header::HOST).map(|host| Cow::Borrowed(HeaderValue::as_bytes(host)))
    }

    /// `SERVER_NAME` and `SERVER_PORT`, which are never empty (PEP 3333).
    pub(crate) fn server(self) -> (Cow<'a, [u8]>, u16) {
        let default_port = self.scheme().default_port();
        if let Some(host) = self.host().filter(|host| !host.is_empty()) {
            let (name, port) = split_port(&host);
            if !name.is_empty() {
                return (Cow::Owned(name.to_vec()), port.unwrap_or(default_port));
            }
        }
        match self.local() {
            Some(Address::Tcp(address)) => {
                let name = match address.ip() {
                    std::net::IpAddr::V4(ip) => ip.to_string(),
                    std::net::IpAddr::V6(ip) => format!("[{ip}]"),
                };
                (Cow::Owned(name.into_bytes()), address.port())
            }
            _ => (Cow::Borrowed(b"localhost"), default_port),
        }
    }

    /// `SCRIPT_NAME` and `PATH_INFO`, unquoted.
    pub(crate) fn split_path(self) -> (Cow<'a, [u8]>, Cow<'a, [u8]>) {
        let path = self.raw_path();
        let (mount, rest) = match self.parts.extensions.get::<Mount>() {
            Some(mount) => mount.split(path),
            None => ("", path),
        };
        (unquote(mount), unquote(rest))
    }

    /// The path as the client sent it; `*` for `OPTIONS *`.
    pub(crate) fn raw_path(self) -> &'a str {
        match self.parts.uri.path() {
            "" => "/",
            path => path,
        }
    }

    /// Path and query as the client sent them.
    pub(crate) fn target(self) -> &'a str {
        self.parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    }

    /// The raw query, empty where there is none.
    pub(crate) fn query(self) -> &'a str {
        self.parts.uri.query().unwrap_or_default()
    }

    /// For messages: method and target.
    pub(crate) fn describe(self) -> String {
        describe(&self.parts.method, &self.parts.uri)
    }
}

/// For messages: method and target, without what a query may hold in confidence.
pub(crate) fn describe(method: &http::Method, uri: &http::Uri) -> String {
    format!("{method} {}", uri.path())
}

fn unquote(path: &str) -> Cow<'_, [u8]> {
    percent_decode_str(path).into()
}

/// `SERVER_PROTOCOL` of CGI.
pub(crate) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

fn split_port(host: &[u8]) -> (&[u8], Option<u16>) {
    let Some(colon) = host.iter().rposition(|byte| *byte == b':') else { return (host, None) };
    let (name, port) = (&host[..colon], &host[colon + 1..]);
    if host.last() == Some(&b']') || (name.contains(&b':') && !name.ends_with(b"]")) {
        return (host, None);
    }
    (name, std::str::from_utf8(port).ok().and_then(|port| port.parse().ok()))
}

#[cfg(test)]
mod tests {
    use hawksbill_core::{Connection, Forwarded};
    use http::Request;

    use super::*;

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    fn peer(local: Address) -> Peer {
        Peer::new(Connection { remote: Address::Unix(None), local, scheme: Scheme::Http })
    }

    #[test]
    fn the_server_is_the_host_that_was_asked_for() {
        for (host, name, port) in [
            ("example.com", "example.com", 80),
            ("example.com:8000", "example.com", 8000),
            ("[::1]:8000", "[::1]", 8000),
            ("[::1]", "[::1]", 80),
            ("::1", "::1", 80),
            ("example.com:", "example.com", 80),
            ("example.com:nonsense", "example.com", 80),
        ] {
            let parts = parts(Request::get("/").header("host", host));
            let (found, found_port) = Facts::new(&parts).server();
            assert_eq!((&*found, found_port), (name.as_bytes(), port), "{host}");
        }
    }

    #[test]
    fn without_a_host_the_server_is_our_end() {
        let tcp = peer(Address::Tcp("127.0.0.1:8000".parse().unwrap()));
        let parts_tcp = parts(Request::get("/").extension(tcp));
        assert_eq!(Facts::new(&parts_tcp).server(), (Cow::Borrowed(&b"127.0.0.1"[..]), 8000));
        let parts_unix = parts(Request::get("/").extension(peer(Address::Unix(None))));
        assert_eq!(Facts::new(&parts_unix).server(), (Cow::Borrowed(&b"localhost"[..]), 80));
    }

    #[test]
    fn a_trusted_proxy_is_believed_over_the_host_header() {
        let told = Forwarded {
            client: Some("203.0.113.7".parse().unwrap()),
            scheme: Some(Scheme::Https),
            host: Some("example.com".into()),
        };
        let peer = peer(Address::Unix(None)).forwarded(told);
        let parts = parts(Request::get("/").header("host", "internal:80").extension(peer));
        let facts = Facts::new(&parts);
        assert_eq!(facts.server(), (Cow::Borrowed(&b"example.com"[..]), 443));
        assert_eq!(facts.client().unwrap().to_string(), "203.0.113.7:0");
    }

    #[test]
    fn paths_are_unquoted_after_they_are_split() {
        let parts = parts(Request::get("/bl%6Fg/a%2Fb%20%FF/").extension(Mount::new("/bl%6Fg")));
        let (script_name, path_info) = Facts::new(&parts).split_path();
        assert_eq!((&*script_name, &*path_info), (&b"/blog"[..], &b"/a/b \xFF/"[..]));
    }
}
