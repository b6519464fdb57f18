//! Another address.
//!
//! ```
//! use hawksbill_apps::Redirect;
//! use hawksbill_core::{AppKind, Body, Builder};
//! use http::Request;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let turtle = Redirect::to("https://example.com{uri}").build(&mut Builder::new("/")).unwrap();
//! let response = turtle.ask(Request::get("/a?b=c").body(Body::empty()).unwrap()).await.unwrap();
//! assert_eq!(response.status(), 308);
//! assert_eq!(response.headers()["location"], "https://example.com/a?b=c");
//! # }
//! ```
//!
//! What a client sent is put into the address percent-encoded where it has to be, and can name no other host than the one
//! that is configured, unless that is `{host}`.

use std::sync::Arc;

use hawksbill_core::config::HostName;
use hawksbill_core::{AppKind, Body, BuildError, Builder, Error, Kind, Peer, Scheme, Turtle};
use http::header::{CONTENT_LENGTH, HOST, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Sends every request to another address: `{ redirect = "https://example.com{uri}" }`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// The address. `{uri}` stands for the request's path with its query, `{path}` and `{query}` for each alone (the query
    /// without `?`), `{host}` for the host that was asked for, without its port, `{scheme}` for `http` or `https`.
    pub redirect: String,
    /// 301 and 308 are permanent, 302, 303 and 307 are not; with 307 and 308 a client repeats its method and body.
    #[serde(default)]
    pub status: RedirectStatus,
}

/// The statuses that send a client elsewhere (RFC 9110 section 15.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "u16", into = "u16")]
#[schemars(with = "u16", extend("enum" = [301, 302, 303, 307, 308]))]
pub struct RedirectStatus(u16);

impl Default for RedirectStatus {
    fn default() -> Self {
        Self(308)
    }
}

impl TryFrom<u16> for RedirectStatus {
    type Error = String;

    fn try_from(code: u16) -> Result<Self, String> {
        match code {
            301 | 302 | 303 | 307 | 308 => Ok(Self(code)),
            _ => Err(format!("status {code} does not redirect; write 301, 302, 303, 307 or 308")),
        }
    }
}

impl From<RedirectStatus> for u16 {
    fn from(status: RedirectStatus) -> Self {
        status.0
    }
}

impl Redirect {
    /// A permanent redirect to an address, which may have placeholders.
    pub fn to(address: impl Into<String>) -> Self {
        Self { redirect: address.into(), status: RedirectStatus::default() }
    }
}

impl AppKind for Redirect {
    const NAME: &'static str = "redirect";

    fn build(self, _: &mut Builder) -> Result<Turtle, BuildError> {
        let template = Template::parse(&self.redirect)
            .map_err(|reason| BuildError::new(format!("redirect {:?} {reason}", self.redirect)))?;
        let status = StatusCode::from_u16(self.status.0).unwrap_or(StatusCode::PERMANENT_REDIRECT);
        let template = Arc::new(template);
        Ok(Turtle::from_fn(move |request| {
            std::future::ready(template.fill(&request).map(|location| {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = status;
                response.headers_mut().insert(LOCATION, location);
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(0));
                response
            }))
        }))
    }
}

/// An address with places for what the client asked for.
struct Template {
    parts: Vec<Part>,
    /// Whether it names a host; else it is a path on the host that was asked for.
    absolute: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Uri,
    Path,
    Query,
    Host,
    Scheme,
}

/// What a browser would not leave as it is in an address. A backslash counts as a slash there.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, placeholder) = match rest.split_once('{') {
                Some((literal, behind)) => {
                    let (name, behind) =
                        behind.split_once('}').ok_or("has a '{' without '}'; close the placeholder")?;
                    rest = behind;
                    (literal, Some(name))
                }
                None => (std::mem::take(&mut rest), None),
            };
            if utf8_percent_encode(literal, ESCAPED).next().is_some_and(|first| first != literal) {
                return Err(format!(
                    "has characters in {literal:?} that no address has; percent-encode them"
                ));
            }
            if !literal.is_empty() {
                parts.push(Part::Text(literal.to_owned()));
            }
            parts.extend(placeholder.map(Part::named).transpose()?);
        }
        let absolute = is_absolute(&parts)?;
        Ok(Self { parts, absolute })
    }

    fn fill(&self, request: &Request<Body>) -> Result<HeaderValue, Error> {
        let uri = request.uri();
        // `*` and the authority of CONNECT are no paths, and must not lengthen a host's name.
        let path = if uri.path().starts_with('/') { uri.path() } else { "/" };
        let mut address = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => address.push_str(text),
                Part::Path => address.extend(utf8_percent_encode(path, ESCAPED)),
                Part::Query => address.extend(utf8_percent_encode(uri.query().unwrap_or_default(), ESCAPED)),
                Part::Uri => {
                    address.extend(utf8_percent_encode(path, ESCAPED));
                    if let Some(query) = uri.query() {
                        address.push('?');
                        address.extend(utf8_percent_encode(query, ESCAPED));
                    }
                }
                Part::Host => address.push_str(host(request)?.as_str()),
                Part::Scheme => {
                    let peer = request.extensions().get::<Peer>();
                    address.push_str(peer.map_or(Scheme::Http, Peer::scheme).as_str());
                }
            }
        }
        if !self.absolute {
            // `//host` would be another server.
            address = format!("/{}", address.trim_start_matches('/'));
        }
        HeaderValue::try_from(address)
            .map_err(|error| Error::new(Kind::BadRequest).because("redirect: no address").caused_by(error))
    }
}

impl Part {
    fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "uri" => Self::Uri,
            "path" => Self::Path,
            "query" => Self::Query,
            "host" => Self::Host,
            "scheme" => Self::Scheme,
            _ => {
                return Err(format!(
                    "has an unknown placeholder {{{name}}}; there are {{uri}}, {{path}}, {{query}}, {{host}} and {{scheme}}"
                ));
            }
        })
    }
}

/// Whether an address names a host, which a client must not be able to choose or to lengthen.
fn is_absolute(parts: &[Part]) -> Result<bool, String> {
    let (authority, rest) = match parts {
        [Part::Uri | Part::Path, ..] => return Ok(false),
        [Part::Text(text), ..] if text.starts_with('/') && !text.starts_with("//") => return Ok(false),
        [Part::Scheme, Part::Text(text), rest @ ..] => (text.strip_prefix("://"), rest),
        [Part::Text(text), rest @ ..] => {
            let is_scheme = |scheme: &str| {
                scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                    && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            };
            (text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)).map(|(_, behind)| behind), rest)
        }
        _ => (None, parts),
    };
    let authority =
        authority.ok_or("begins neither with a scheme and '://' nor with '/', {uri} or {path}")?;
    let ends = |text: &str| text.contains(['/', '?', '#']);
    if authority.starts_with(['/', '?', '#']) {
        return Err("names no host behind '://'".to_owned());
    }
    let mut named = !authority.is_empty();
    let mut ended = ends(authority);
    for part in rest.iter().take_while(|_| !std::mem::replace(&mut ended, false)) {
        match part {
            Part::Text(text) if ends(text) => break,
            Part::Text(_) | Part::Host => named = true,
            Part::Uri | Part::Path => break,
            Part::Query | Part::Scheme => {
                return Err(
                    "lets the client choose the host; write '/' before {query} or {scheme}".to_owned()
                );
            }
        }
    }
    if named { Ok(true) } else { Err("names no host behind '://'".to_owned()) }
}

/// The host that the client asked for: what a trusted proxy says, else the request's own.
fn host(request: &Request<Body>) -> Result<HostName, Error> {
    let told = request.extensions().get::<Peer>().and_then(Peer::forwarded_host);
    let own = || request.uri().authority().map(http::uri::Authority::as_str);
    let header = || request.headers().get(HOST).and_then(|value| value.to_str().ok());
    let asked =
        told.or_else(own).or_else(header).and_then(|asked| asked.parse::<http::uri::Authority>().ok());
    asked.and_then(|authority| authority.host().parse().ok()).ok_or_else(|| {
        Error::new(Kind::BadRequest).because("redirect: {host} needs a request that names a host")
    })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use hawksbill_core::{Address, Connection, Forwarded};
    use proptest::prelude::*;

    use super::*;

    fn ask(template: &str, request: Request<Body>) -> Result<String, Error> {
        let turtle = Redirect::to(template).build(&mut Builder::new("/")).unwrap();
        let response = turtle.ask(request).now_or_never().expect("nothing to wait for")?;
        Ok(response.headers()[LOCATION].to_str().unwrap().to_owned())
    }

    fn get(uri: &str) -> Request<Body> {
        Request::get(uri).header(HOST, "Example.COM:8080").body(Body::empty()).unwrap()
    }

    #[test]
    fn placeholders_are_filled() {
        for (template, location) in [
            ("https://example.org{uri}", "https://example.org/a//b?c=d&e"),
            ("https://example.org{path}", "https://example.org/a//b"),
            ("https://{host}{uri}", "https://example.com/a//b?c=d&e"),
            ("{scheme}://www.{host}{path}", "http://www.example.com/a//b"),
            ("/search?q={query}", "/search?q=c=d&e"),
            ("/fixed", "/fixed"),
            ("https://example.org", "https://example.org"),
            ("https://example.org/{query}", "https://example.org/c=d&e"),
            ("{uri}", "/a//b?c=d&e"),
        ] {
            assert_eq!(ask(template, get("/a//b?c=d&e")).unwrap(), location, "{template}");
        }
    }

    #[test]
    fn a_trusted_proxy_knows_host_and_scheme() {
        let mut request = get("/x");
        let address = Address::Tcp("127.0.0.1:1".parse().unwrap());
        let peer = Peer::new(Connection { remote: address.clone(), local: address, scheme: Scheme::Http });
        let told =
            Forwarded { client: None, scheme: Some(Scheme::Https), host: Some("shop.example:444".into()) };
        request.extensions_mut().insert(peer.forwarded(told));
        assert_eq!(ask("{scheme}://{host}/", request).unwrap(), "https://shop.example/");
    }

    #[test]
    fn a_client_chooses_no_host() {
        assert_eq!(ask("{uri}", get("//evil.example/")).unwrap(), "/evil.example/");
        assert_eq!(ask("/{path}", get("//evil.example/")).unwrap(), "/evil.example/");
        assert_eq!(ask("{path}", get("/\\evil.example")).unwrap(), "/%5Cevil.example");
        assert_eq!(ask("https://example.org{uri}", get("*")).unwrap(), "https://example.org/");
        for template in [
            "https://{path}",
            "https://{query}/",
            "https://a{scheme}/",
            "{host}/",
            "x{uri}",
            "//{uri}",
            "https:///x",
        ] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
    }

    #[test]
    fn a_host_that_is_none_is_refused() {
        let request = |host: &str| Request::get("/").header(HOST, host).body(Body::empty()).unwrap();
        for host in ["", "a b", "a/b", "a@b/", "[::1"] {
            assert_eq!(ask("https://{host}/", request(host)).unwrap_err().status(), 400, "{host}");
        }
        assert_eq!(ask("https://{host}/", request("[::1]:80")).unwrap(), "https://[::1]/");
    }

    #[test]
    fn mistakes_are_found_before_serving() {
        let reason = |template| Redirect::to(template).build(&mut Builder::new("/")).unwrap_err().to_string();
        assert!(reason("https://a/{url}").contains("unknown placeholder {url}; there are {uri}"));
        assert!(reason("https://a/{uri").contains("without '}'"));
        assert!(reason("https://a/ b").contains("percent-encode"));
        assert!(reason("").contains("begins neither"));
        assert!(serde_json::from_str::<Redirect>(r#"{ "redirect": "/", "status": 200 }"#).is_err());
    }

    proptest! {
        #[test]
        fn the_host_stays(path in "/[!-~&&[^#?]]{0,20}") {
            if let Ok(request) = Request::get(path).body(Body::empty()) {
                let location = ask("https://example.org{uri}", request).unwrap();
                let uri: http::Uri = location.parse().unwrap();
                prop_assert_eq!(uri.host(), Some("example.org"));
            }
        }
    }
}
