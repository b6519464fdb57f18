//! What proxies say of a request: `Forwarded` (RFC 7239), `X-Forwarded-*` and `X-Real-IP`.
//!
//! Believed from trusted proxies only; from anybody else these headers are removed, so that no application sees a
//! forged one. Names spelt with underscores are removed always: CGI-like interfaces cannot tell `X_Forwarded_For` from
//! `X-Forwarded-For`, and no proxy overwrites them.

use hawksbill_core::config::CidrSet;
use hawksbill_core::{Address, Forwarded, Peer, Scheme};
use http::header::{FORWARDED, HOST, HeaderMap, HeaderName};

use crate::check::is_host;
use crate::settings::{ForwardedHeaders, Settings};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Whether the other end of a connection is a proxy to believe.
pub(crate) fn is_trusted(remote: &Address, settings: &Settings) -> bool {
    match remote {
        Address::Tcp(address) => settings.trusted_proxies.contains(address.ip()),
        Address::Unix(_) => settings.trust_unix,
    }
}

/// Removes what is not believed from the headers, and gives the peer with what is.
pub(crate) fn apply(headers: &mut HeaderMap, peer: &Peer, trusted: bool, settings: &Settings) -> Peer {
    let mut present = Present::default();
    for name in headers.keys() {
        present.note(name.as_str());
    }
    if present == Present::default() {
        return peer.clone();
    }
    let family = match settings.forwarded_headers {
        ForwardedHeaders::Either if present.x_forwarded => ForwardedHeaders::XForwarded,
        ForwardedHeaders::Either => ForwardedHeaders::Rfc7239,
        family => family,
    };
    let keeps = |family_of_name| trusted && family_of_name == family;
    present.remove_from(headers, keeps(ForwardedHeaders::XForwarded), keeps(ForwardedHeaders::Rfc7239));
    if !trusted {
        return peer.clone();
    }
    let said = match family {
        ForwardedHeaders::XForwarded => x_forwarded(headers, &settings.trusted_proxies),
        ForwardedHeaders::Rfc7239 | ForwardedHeaders::Either => rfc7239(headers, &settings.trusted_proxies),
    };
    if said == Forwarded::default() { peer.clone() } else { peer.forwarded(said) }
}

/// Which forwarding headers a request has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Present {
    forwarded: bool,
    x_forwarded: bool,
    underscored: bool,
}

impl Present {
    fn note(&mut self, name: &str) {
        match Family::of(name) {
            Some(Family::Forwarded) => self.forwarded = true,
            Some(Family::XForwarded) => self.x_forwarded = true,
            Some(Family::Underscored) => self.underscored = true,
            None => {}
        }
    }

    fn remove_from(self, headers: &mut HeaderMap, keep_x_forwarded: bool, keep_forwarded: bool) {
        if self.forwarded && !keep_forwarded {
            headers.remove(FORWARDED);
        }
        if self.underscored || (self.x_forwarded && !keep_x_forwarded) {
            let goes = |name: &HeaderName| match Family::of(name.as_str()) {
                Some(Family::XForwarded) => !keep_x_forwarded,
                Some(Family::Underscored) => true,
                Some(Family::Forwarded) | None => false,
            };
            let names: Vec<HeaderName> = headers.keys().filter(|name| goes(name)).cloned().collect();
            for name in names {
                headers.remove(name);
            }
        }
    }
}

/// What a header's name says of it.
enum Family {
    Forwarded,
    XForwarded,
    Underscored,
}

impl Family {
    fn of(name: &str) -> Option<Self> {
        if name == "forwarded" {
            return Some(Self::Forwarded);
        }
        let rest = name.strip_prefix(['x', 'X'])?.strip_prefix(['-', '_'])?;
        let told = rest
            .strip_prefix("forwarded")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
            || matches!(rest, "real-ip" | "real_ip");
        told.then(|| if name.contains('_') { Self::Underscored } else { Self::XForwarded })
    }
}

/// Walks a chain of proxies from the nearest: past trusted ones to the first that is not, which is the client. An
/// entry that names no address ends the walk.
fn walk<'a>(
    nearest_first: impl Iterator<Item = (usize, &'a str)>,
    trusted: &CidrSet,
) -> Option<(usize, Address)> {
    let mut client = None;
    for (index, entry) in nearest_first {
        let Ok(address) = entry.trim().parse::<Address>() else { break };
        let address = canonical(address);
        let is_proxy = address.ip().is_some_and(|ip| trusted.contains(ip));
        client = Some((index, address));
        if !is_proxy {
            break;
        }
    }
    client
}

/// An IPv4 address mapped into IPv6 as the IPv4 address that it is.
pub(crate) fn canonical(address: Address) -> Address {
    match address {
        Address::Tcp(mut socket) => {
            socket.set_ip(socket.ip().to_canonical());
            Address::Tcp(socket)
        }
        unix @ Address::Unix(_) => unix,
    }
}

fn x_forwarded(headers: &HeaderMap, trusted: &CidrSet) -> Forwarded {
    let chain = list(headers, &X_FORWARDED_FOR);
    let walked = walk(chain.iter().copied().enumerate().rev(), trusted);
    let real_ip = || list(headers, &X_REAL_IP).last().and_then(|text| text.parse().ok()).map(canonical);
    // Where each proxy added an entry of its own, the client's entry counts; else what the nearest one said.
    let beside_client = |name: &HeaderName| {
        let said = list(headers, name);
        let index = walked.as_ref().map(|(index, _)| *index).filter(|_| said.len() == chain.len());
        said.get(index.unwrap_or_else(|| said.len().saturating_sub(1))).copied()
    };
    let scheme = beside_client(&X_FORWARDED_PROTO).and_then(scheme);
    let host = beside_client(&X_FORWARDED_HOST).filter(|host| is_host(host.as_bytes()));
    let port = beside_client(&X_FORWARDED_PORT).and_then(|port| port.parse::<u16>().ok());
    let host = host_and_port(host, port, scheme, headers);
    Forwarded { client: walked.map(|(_, client)| client).or_else(real_ip), scheme, host }
}

/// The host that was asked for, with a port that it did not name.
fn host_and_port(
    host: Option<&str>,
    port: Option<u16>,
    scheme: Option<Scheme>,
    headers: &HeaderMap,
) -> Option<String> {
    let port = port.filter(|port| *port != scheme.unwrap_or(Scheme::Http).default_port());
    let named = host.or_else(|| headers.get(HOST)?.to_str().ok());
    match (host, named, port) {
        (_, Some(named), Some(port)) if !names_port(named) => Some(format!("{named}:{port}")),
        (host, _, _) => host.map(str::to_owned),
    }
}

fn names_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(name, _)| !name.starts_with('[') || name.ends_with(']'))
}

/// The members of a header that is a list, over all its lines.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|member| !member.is_empty()).collect()
}

fn scheme(text: &str) -> Option<Scheme> {
    match text {
        _ if text.eq_ignore_ascii_case("https") || text.eq_ignore_ascii_case("wss") => Some(Scheme::Https),
        _ if text.eq_ignore_ascii_case("http") || text.eq_ignore_ascii_case("ws") => Some(Scheme::Http),
        _ => None,
    }
}

/// One member of a `Forwarded` list (RFC 7239 section 4).
#[derive(Default)]
struct Element {
    node: String,
    scheme: Option<Scheme>,
    host: Option<String>,
}

fn rfc7239(headers: &HeaderMap, trusted: &CidrSet) -> Forwarded {
    let mut elements = Vec::new();
    for line in headers.get_all(FORWARDED) {
        // One malformed line makes the order of the whole unknown.
        let Some(parsed) = line.to_str().ok().and_then(parse_elements) else { return Forwarded::default() };
        elements.extend(parsed);
    }
    let walked = walk(elements.iter().map(|element| element.node.as_str()).enumerate().rev(), trusted);
    let first = walked.as_ref().map_or_else(|| elements.len().saturating_sub(1), |(index, _)| *index);
    // What the proxy that saw the client left unsaid, the next one may have said.
    let mut believed = elements.into_iter().skip(first);
    let mut said = Forwarded { client: walked.map(|(_, client)| client), ..Forwarded::default() };
    while let (true, Some(element)) = (said.scheme.is_none() || said.host.is_none(), believed.next()) {
        said.scheme = said.scheme.or(element.scheme);
        said.host = said.host.or(element.host);
    }
    said
}

/// `None`: not a list of elements.
fn parse_elements(line: &str) -> Option<Vec<Element>> {
    let mut elements = vec![Element::default()];
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(',') {
            elements.push(Element::default());
            rest = after.trim_start();
            continue;
        }
        if let Some(after) = rest.strip_prefix(';') {
            rest = after.trim_start();
            continue;
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = token_or_quoted(after)?;
        let element = elements.last_mut()?;
        match name.trim() {
            name if name.eq_ignore_ascii_case("for") => element.node = value,
            name if name.eq_ignore_ascii_case("proto") => element.scheme = scheme(&value),
            name if name.eq_ignore_ascii_case("host") => {
                element.host = Some(value).filter(|host| is_host(host.as_bytes()));
            }
            _ => {}
        }
        rest = after.trim_start();
        if !(rest.is_empty() || rest.starts_with([',', ';'])) {
            return None;
        }
    }
    Some(elements)
}

/// A value and what follows it. Quoted strings lose their quotes and backslashes (RFC 9110 section 5.6.4).
fn token_or_quoted(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ';', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[index + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use hawksbill_core::Connection;

    use super::*;

    /// What is believed, written `client scheme host`, of a request through a proxy at 10.0.0.1.
    fn told(family: ForwardedHeaders, lines: &[(&'static str, &str)]) -> (String, HeaderMap) {
        let settings = Settings {
            trusted_proxies: "private".parse().unwrap(),
            forwarded_headers: family,
            ..Settings::default()
        };
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let remote: Address = "10.0.0.1:4711".parse().unwrap();
        let peer = Peer::new(Connection { local: remote.clone(), remote, scheme: Scheme::Http });
        let trusted = is_trusted(peer.remote(), &settings);
        let peer = apply(&mut headers, &peer, trusted, &settings);
        let host = peer.forwarded_host().unwrap_or("-");
        (format!("{} {} {host}", peer.client(), peer.scheme().as_str()), headers)
    }

    fn either(lines: &[(&'static str, &str)]) -> String {
        told(ForwardedHeaders::Either, lines).0
    }

    #[test]
    fn the_walk_ends_at_the_first_that_is_not_trusted() {
        let chain = |chain| either(&[("x-forwarded-for", chain)]);
        assert_eq!(chain("203.0.113.7"), "203.0.113.7:0 http -");
        assert_eq!(chain("6.6.6.6, 203.0.113.7, 10.0.0.2"), "203.0.113.7:0 http -");
        assert_eq!(chain("10.0.0.3, 10.0.0.2"), "10.0.0.3:0 http -");
        assert_eq!(chain("6.6.6.6, unknown, 10.0.0.2"), "10.0.0.2:0 http -");
        assert_eq!(chain("nonsense"), "10.0.0.1:4711 http -");
        assert_eq!(chain("::ffff:203.0.113.7"), "203.0.113.7:0 http -");
    }

    #[test]
    fn lines_of_a_list_are_one_list() {
        let lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.7")];
        assert_eq!(either(&lines), "203.0.113.7:0 http -");
    }

    #[test]
    fn scheme_host_and_port() {
        let lines = [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-port", "8443"),
        ];
        assert_eq!(either(&lines), "10.0.0.1:4711 https shop.example:8443");
        assert_eq!(
            either(&[lines[0], lines[1], ("x-forwarded-port", "443")]),
            "10.0.0.1:4711 https shop.example"
        );
        assert_eq!(either(&[("host", "a.example"), lines[2]]), "10.0.0.1:4711 http a.example:8443");
        assert_eq!(either(&[("x-forwarded-host", "a b")]), "10.0.0.1:4711 http -");
        let appended = [("x-forwarded-for", "203.0.113.7, 10.0.0.2"), ("x-forwarded-proto", "https, http")];
        assert_eq!(either(&appended), "203.0.113.7:0 https -");
        assert_eq!(either(&[("x-real-ip", "203.0.113.9")]), "203.0.113.9:0 http -");
    }

    #[test]
    fn rfc_7239() {
        let line = |line| either(&[("forwarded", line)]);
        assert_eq!(
            line("for=203.0.113.7;proto=https;host=\"a.example:8443\""),
            "203.0.113.7:0 https a.example:8443"
        );
        assert_eq!(line("For=\"[2001:db8::1]:4711\""), "[2001:db8::1]:4711 http -");
        assert_eq!(
            line("for=6.6.6.6;proto=https, for=203.0.113.7, for=10.0.0.2;host=b.example"),
            "203.0.113.7:0 http b.example"
        );
        assert_eq!(line("for=_hidden;proto=https"), "10.0.0.1:4711 https -");
        assert_eq!(line("for=\"203.0.113.7"), "10.0.0.1:4711 http -");
        assert_eq!(line("for=\"a\\\"b,c\", for=203.0.113.7"), "203.0.113.7:0 http -");
    }

    #[test]
    fn the_family_that_is_not_believed_is_removed() {
        let both = [("x-forwarded-for", "203.0.113.7"), ("forwarded", "for=6.6.6.6")];
        let (said, headers) = told(ForwardedHeaders::Either, &both);
        assert_eq!((said.as_str(), headers.contains_key(FORWARDED)), ("203.0.113.7:0 http -", false));
        let (said, headers) = told(ForwardedHeaders::Rfc7239, &both);
        assert_eq!((said.as_str(), headers.contains_key(X_FORWARDED_FOR)), ("6.6.6.6:0 http -", false));
    }

    #[test]
    fn underscores_never_pass() {
        let lines = [
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded_proto", "https"),
            ("x_real_ip", "6.6.6.6"),
            ("x_other", "1"),
        ];
        let (said, headers) = told(ForwardedHeaders::Either, &lines);
        assert_eq!(said, "10.0.0.1:4711 http -");
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x_other"]);
    }
}
