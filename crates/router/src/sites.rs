//! The table of sites: hosts to turtles.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use hawksbill_core::config::HostPattern;
use hawksbill_core::{Body, Error, Kind, Turtle, TurtleFuture};
use http::{Request, Response};
use tower::Service;

use crate::host::{self, HostError};
use crate::shown::Shown;

/// Chooses a site by the host that a request is for. Cheap to clone; choosing costs as much with one site as with ten
/// thousand.
///
/// **The host** is what a trusted proxy said, else the authority in the request target (absolute form, HTTP/2's
/// `:authority`), else the `Host` header. Case, a trailing dot and the port do not matter. International names are in
/// punycode, as browsers send them; anything that is no DNS name or IP address is answered 400.
///
/// **The site** is the one that names this very host, else the one with the longest wildcard over it (`*.example.com`:
/// `a.example.com`, `a.b.example.com`, not `example.com`), else the default site `*`, which also takes requests that
/// name no host. Without any, the answer is 421 (RFC 9110 section 15.5.20).
///
/// ```
/// use hawksbill_core::config::HostPattern;
/// use hawksbill_core::{Body, Turtle};
/// use hawksbill_router::Sites;
/// use http::Response;
///
/// let page = Turtle::from_fn(async |_| Ok(Response::new(Body::from("hello"))));
/// let pattern = |text: &str| text.parse::<HostPattern>().unwrap();
/// let sites = Sites::builder()
///     .site("shop", [pattern("example.com"), pattern("www.example.com")], page.clone())
///     .site("tenants", [pattern("*.example.com")], page.clone())
///     .build()?;
/// assert_eq!(sites.name_for("WWW.Example.com:8000"), Some("shop"));
/// assert_eq!(sites.name_for("anything.example.com"), Some("tenants"));
/// assert_eq!(sites.name_for("example.org"), None);
///
/// let again = Sites::builder()
///     .site("shop", [pattern("example.com")], page.clone())
///     .site("blog", [pattern("Example.com")], page)
///     .build();
/// assert_eq!(
///     again.unwrap_err().to_string(),
///     "host 'example.com' is named by the sites 'shop' and 'blog'; keep it in one of them"
/// );
/// # Ok::<(), hawksbill_router::SiteError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sites(Arc<Table>);

#[derive(Debug)]
struct Table {
    sites: Vec<Site>,
    /// Indices of `sites` by host.
    exact: HashMap<String, usize>,
    /// Indices of `sites` by what stands behind `*.`.
    beneath: HashMap<String, usize>,
    default: Option<usize>,
    no_site: Option<Turtle>,
}

#[derive(Debug)]
struct Site {
    name: Arc<str>,
    turtle: Turtle,
}

impl Sites {
    /// A table without sites.
    pub fn builder() -> SitesBuilder {
        SitesBuilder::default()
    }

    /// Asks the site that the request is for. The same as [`Service::call`], from a shared reference.
    pub fn ask(&self, request: Request<Body>) -> TurtleFuture {
        match self.0.choose(&request) {
            Ok(turtle) => turtle.ask(request),
            Err(error) => TurtleFuture::refused(error),
        }
    }

    /// The name of the site that answers to a host, given as a `Host` header gives it.
    pub fn name_for(&self, host: &str) -> Option<&str> {
        self.0.site(host::parse(host).ok()?.as_deref()).map(|site| &*site.name)
    }
}

impl Table {
    fn choose(&self, request: &Request<Body>) -> Result<&Turtle, Error> {
        let host = host::of_request(request)
            .map_err(|why: HostError| Error::new(Kind::BadRequest).because(why.to_string()))?;
        if let Some(site) = self.site(host.as_deref()) {
            return Ok(&site.turtle);
        }
        self.no_site.as_ref().ok_or_else(|| {
            Error::new(Kind::Misdirected).because(match host {
                Some(host) => format!("no site answers to host {}", Shown(&host)).into(),
                None => std::borrow::Cow::Borrowed("the request names no host, and there is no site '*'"),
            })
        })
    }

    fn site(&self, host: Option<&str>) -> Option<&Site> {
        let named = host.and_then(|host| self.exact.get(host).or_else(|| self.beneath(host)));
        named.or(self.default.as_ref()).and_then(|index| self.sites.get(*index))
    }

    /// Walks up the labels, so that the longest wildcard is met first.
    fn beneath(&self, host: &str) -> Option<&usize> {
        if self.beneath.is_empty() {
            return None;
        }
        let mut labels = host;
        while let Some((_, domain)) = labels.split_once('.') {
            if let Some(index) = self.beneath.get(domain) {
                return Some(index);
            }
            labels = domain;
        }
        None
    }
}

impl Service<Request<Body>> for Sites {
    type Response = Response<Body>;
    type Error = Error;
    type Future = TurtleFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> TurtleFuture {
        self.ask(request)
    }
}

impl From<Sites> for Turtle {
    fn from(sites: Sites) -> Self {
        Self::from_ask(move |request| sites.ask(request))
    }
}

/// Collects sites. See [`Sites`].
#[derive(Debug, Default)]
pub struct SitesBuilder {
    sites: Vec<(Site, Vec<HostPattern>)>,
    no_site: Option<Turtle>,
}

impl SitesBuilder {
    /// Adds a site. Its name is for messages; it answers to each of `hosts`.
    pub fn site(
        mut self,
        name: impl Into<Arc<str>>,
        hosts: impl IntoIterator<Item = HostPattern>,
        turtle: impl Into<Turtle>,
    ) -> Self {
        self.sites.push((Site { name: name.into(), turtle: turtle.into() }, hosts.into_iter().collect()));
        self
    }

    /// Answers requests for hosts that no site names. Without it they end in [`Kind::Misdirected`].
    pub fn no_site(self, turtle: impl Into<Turtle>) -> Self {
        Self { no_site: Some(turtle.into()), ..self }
    }

    /// Makes the table. A host named twice by one site is the same as named once.
    ///
    /// # Errors
    /// When two sites name the same host.
    pub fn build(self) -> Result<Sites, SiteError> {
        let mut table = Table {
            sites: Vec::with_capacity(self.sites.len()),
            exact: HashMap::new(),
            beneath: HashMap::new(),
            default: None,
            no_site: self.no_site,
        };
        for (site, hosts) in self.sites {
            let index = table.sites.len();
            table.sites.push(site);
            for host in hosts {
                let first = match &host {
                    HostPattern::Exact(name) => *table.exact.entry(name.to_string()).or_insert(index),
                    HostPattern::Beneath(domain) => *table.beneath.entry(domain.to_string()).or_insert(index),
                    HostPattern::Any => *table.default.get_or_insert(index),
                };
                if first != index {
                    let name = |index: usize| table.sites[index].name.to_string();
                    return Err(SiteError { host, first: name(first), second: name(index) });
                }
            }
        }
        Ok(Sites(Arc::new(table)))
    }
}

/// Two sites name the same host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SiteError {
    /// The host that both name.
    pub host: HostPattern,
    /// The site that was there first.
    pub first: String,
    /// The later one.
    pub second: String,
}

impl fmt::Display for SiteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, first, second } = self;
        write!(f, "host '{host}' is named by the sites '{first}' and '{second}'; keep it in one of them")
    }
}

impl std::error::Error for SiteError {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn page() -> Turtle {
        Turtle::from_fn(async |_| Ok(Response::new(Body::empty())))
    }

    fn sites(named: &[(&str, &str)]) -> Sites {
        let add = |builder: SitesBuilder, (name, hosts): &(&str, &str)| {
            builder.site(*name, HostPattern::parse_list(hosts).unwrap(), page())
        };
        named.iter().fold(Sites::builder(), add).build().unwrap()
    }

    async fn error_of(sites: &Sites, request: http::request::Builder) -> Error {
        sites.ask(request.body(Body::empty()).unwrap()).await.unwrap_err()
    }

    #[test]
    fn exact_then_the_longest_wildcard_then_the_default() {
        let sites = sites(&[
            ("apex", "example.com www.example.com"),
            ("wide", "*.example.com"),
            ("deep", "*.eu.example.com"),
            ("six", "::1"),
            ("four", "127.0.0.1"),
            ("idn", "bücher.example"),
            ("rest", "*"),
        ]);
        for (host, name) in [
            ("example.com", "apex"),
            ("EXAMPLE.COM.:8443", "apex"),
            ("www.example.com", "apex"),
            ("ftp.example.com", "wide"),
            ("eu.example.com", "wide"),
            ("a.eu.example.com", "deep"),
            ("a.b.eu.example.com", "deep"),
            ("badexample.com", "rest"),
            ("com", "rest"),
            ("[0:0::1]:80", "six"),
            ("127.0.0.1:8000", "four"),
            ("XN--bcher-kva.example", "idn"),
            ("", "rest"),
        ] {
            assert_eq!(sites.name_for(host), Some(name), "{host}");
        }
    }

    #[test]
    fn a_wildcard_does_not_take_its_apex() {
        let sites = sites(&[("wide", "*.example.com")]);
        assert_eq!(sites.name_for("example.com"), None);
        assert_eq!(sites.name_for(""), None);
    }

    #[tokio::test]
    async fn refusals_say_why_to_the_log_alone() {
        let sites = sites(&[("shop", "example.com")]);
        let error = error_of(&sites, Request::get("/").header("host", "Other.Example:80")).await;
        assert_eq!(error.to_string(), "421 Misdirected Request: no site answers to host 'other.example'");
        let error = error_of(&sites, Request::get("/")).await;
        assert_eq!(
            error.to_string(),
            "421 Misdirected Request: the request names no host, and there is no site '*'"
        );
        let error = error_of(&sites, Request::get("/").header("host", "b%C3%BCcher.example")).await;
        assert_eq!(error.to_string(), "400 Bad Request: the host has a character that no host name can have");
    }

    #[tokio::test]
    async fn another_turtle_may_answer_for_unknown_hosts() {
        let sites = Sites::builder().no_site(page()).build().unwrap();
        let request = Request::get("/").header("host", "a.example").body(Body::empty()).unwrap();
        assert_eq!(sites.ask(request).await.unwrap().status(), 200);
        assert_eq!(error_of(&sites, Request::get("/").header("host", "a b")).await.kind(), Kind::BadRequest);
    }

    #[test]
    fn one_host_has_one_site() {
        let build = |hosts: &str, more: &str| {
            Sites::builder()
                .site("one", HostPattern::parse_list(hosts).unwrap(), page())
                .site("two", HostPattern::parse_list(more).unwrap(), page())
                .build()
        };
        for (hosts, more, host) in [
            ("a.example", "b.example A.example.", "a.example"),
            ("*.a.example", "*.a.example", "*.a.example"),
            ("*", "*", "*"),
        ] {
            let error = build(hosts, more).unwrap_err();
            assert_eq!(
                (error.host.to_string(), &*error.first, &*error.second),
                (host.to_owned(), "one", "two")
            );
        }
        assert!(build("a.example a.example", "*.a.example *").is_ok());
    }

    fn host() -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab]", 1..5).prop_map(|labels| labels.join("."))
    }

    proptest! {
        #[test]
        fn any_host_is_answered(host in "\\PC{0,40}|[a-z.:\\[\\]]{0,20}") {
            sites(&[("shop", "example.com *.example.com"), ("rest", "*")]).name_for(&host);
        }

        #[test]
        fn the_tables_choose_as_the_patterns_do(
            exact in proptest::collection::btree_set(host(), 0..4),
            beneath in proptest::collection::btree_set(host(), 0..4),
            asked in host(),
        ) {
            let patterns: BTreeSet<HostPattern> = exact.iter().cloned()
                .chain(beneath.iter().map(|domain| format!("*.{domain}")))
                .map(|text| text.parse().unwrap())
                .collect();
            let builder = patterns.iter().fold(Sites::builder(), |builder, pattern| {
                builder.site(pattern.to_string(), [pattern.clone()], page())
            });
            let host = asked.parse().unwrap();
            // An exact name is longer than any wildcard over it, once the `*.` is not counted.
            let best = patterns.iter().filter(|pattern| pattern.matches(&host))
                .map(ToString::to_string)
                .max_by_key(|pattern| pattern.trim_start_matches("*.").len());
            let sites = builder.build().unwrap();
            prop_assert_eq!(sites.name_for(&asked), best.as_deref());
        }
    }
}
