//! One site's table: paths to turtles, by longest prefix.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use hawksbill_core::{Body, Error, Kind, Mount, Turtle, TurtleFuture};
use http::header::{ALLOW, HeaderValue};
use http::{Method, Request, Response};
use tower::Service;

use crate::PrefixError;
use crate::path::{DotSegments, PathError, RequestPath, split, split_and_resolve};
use crate::prefix::Prefix;
use crate::shown::Shown;
use crate::trie::{Found, Trie};

/// Chooses a turtle by the longest path prefix, at segment boundaries: `/static` takes `/static` and `/static/a.css`,
/// never `/static2`. Cheap to clone; choosing costs as much with one route as with a thousand.
///
/// **A path is read** with its percent-escapes decoded, empty segments passed over and dot segments resolved
/// (RFC 3986 section 6.2.2); `%2F` is part of a segment and separates nothing; upper and lower case differ. A path with
/// a broken escape or a NUL, or that climbs above the root, is answered 400. The URI stays as the client sent it.
///
/// **A path cannot mean two routes.** Applications read paths in ways of their own: WSGI and ASGI decode `%2F` to a
/// slash, and few applications resolve dot segments. `/internal%2Fx` and `/internal/../x` would so reach the
/// application at `/` and be its `/internal`, around whatever layer guards that route. Where the path that the
/// application sees leads to another route than the one chosen, the request is answered 400. Within one route such
/// paths pass (`/projects/group%2Fname`).
///
/// **A mount** puts a [`Mount`] into the request. It holds the rest of the path as it came, `//` and escapes included,
/// or resolved where it had dot segments. Under a mount, routes are chosen by that rest, so that tables stand in
/// tables.
///
/// **Targets without a path:** `OPTIONS *` asks about the server as a whole (RFC 9110 section 9.3.7) and goes to the
/// route `/`. A `CONNECT` for a tunnel is answered 405 (section 9.3.6: origin servers need not take it); RFC 8441's
/// `CONNECT` for a WebSocket has a path and is routed by it.
///
/// ```
/// use hawksbill_core::{Body, Turtle};
/// use hawksbill_router::Routes;
/// use http::{Request, Response};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let hello = Turtle::from_fn(async |_| Ok(Response::new(Body::from("hello"))));
/// let routes = Routes::builder().route("/hello", hello.clone()).build().unwrap();
///
/// let ask = |path: &str| routes.ask(Request::get(path).body(Body::empty()).unwrap());
/// assert_eq!(ask("/hello/you").await.unwrap().status(), 200);
/// assert_eq!(ask("/other").await.unwrap_err().to_string(), "404 Not Found: no route takes '/other'");
///
/// let error = Routes::builder().route("/hello", hello.clone()).mount("/hello/", hello).build().unwrap_err();
/// assert_eq!(error.to_string(), "route \"/hello/\" is the same as \"/hello\"; keep one of them");
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Routes(Arc<Table>);

#[derive(Debug)]
struct Table {
    routes: Trie<Route>,
    not_found: Option<Turtle>,
}

#[derive(Debug)]
struct Route {
    written: String,
    prefix: Arc<str>,
    manner: Manner,
    turtle: Turtle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// The application sees the whole path.
    Pass,
    /// The application sees what is behind the prefix.
    Mount,
}

impl Routes {
    /// A table without routes.
    pub fn builder() -> RoutesBuilder {
        RoutesBuilder::default()
    }

    /// Asks the turtle that the request's path leads to. The same as [`Service::call`], from a shared reference.
    pub fn ask(&self, mut request: Request<Body>) -> TurtleFuture {
        match self.0.choose(&request) {
            Ok((turtle, mount)) => {
                if let Some(mount) = mount {
                    request.extensions_mut().insert(mount);
                }
                turtle.ask(request)
            }
            Err(error) => TurtleFuture::refused(error),
        }
    }
}

impl Table {
    fn choose(&self, request: &Request<Body>) -> Result<(&Turtle, Option<Mount>), Error> {
        let whole = request.uri().path();
        if whole.is_empty() || whole == "*" {
            return self.without_path(request).map(|turtle| (turtle, None));
        }
        let outer = request.extensions().get::<Mount>();
        let path = outer.map_or(whole, |mount| mount.split(whole).1);
        let choice = self.by_path(path).map_err(|refusal| {
            Error::new(Kind::BadRequest).because(format!("{refusal}: {}", Shown(whole)))
        })?;
        let Some((route, rest)) = choice else { return Ok((self.not_found(whole)?, None)) };
        let mount = match route.manner {
            Manner::Pass => None,
            Manner::Mount => inner_mount(outer, &route.prefix, whole, &rest),
        };
        Ok((&route.turtle, mount))
    }

    /// The route of a path, and what of the path is behind its prefix.
    fn by_path<'a>(&self, path: &'a str) -> Result<Option<(&Route, Cow<'a, str>)>, Refusal> {
        let path = RequestPath::read(path)?;
        let found = self.routes.longest(path.segments());
        if path.has_other_readings() && self.is_ambiguous(&path, found.as_ref())? {
            return Err(Refusal::Ambiguous);
        }
        Ok(found.map(|Found { value, depth }| (value, path.rest(depth))))
    }

    /// Whether another reading of the path leads elsewhere than the one that routing goes by.
    fn is_ambiguous(
        &self,
        path: &RequestPath<'_>,
        found: Option<&Found<'_, Route>>,
    ) -> Result<bool, PathError> {
        let elsewhere = |other: Option<Found<'_, Route>>| match (found, &other) {
            (Some(found), Some(other)) => !std::ptr::eq(found.value, other.value),
            (found, other) => found.is_some() != other.is_some(),
        };
        let seen = path.flat(match found.map(|found| found.value.manner) {
            Some(Manner::Mount) => DotSegments::Resolved,
            Some(Manner::Pass) => DotSegments::AsTheyCame,
            // No application sees it.
            None => return Ok(false),
        });
        Ok(elsewhere(self.routes.longest(split(&seen)))
            || elsewhere(self.routes.longest(split_and_resolve(&seen)?.into_iter())))
    }

    fn without_path(&self, request: &Request<Body>) -> Result<&Turtle, Error> {
        let refused = |kind, why| Err(Error::new(kind).because(why));
        match (request.uri().path(), request.method()) {
            ("*", &Method::OPTIONS) => match self.routes.longest(std::iter::empty::<&[u8]>()) {
                Some(root) => Ok(&root.value.turtle),
                None => self.not_found("*"),
            },
            ("*", _) => refused(Kind::BadRequest, "the target '*' is for OPTIONS alone"),
            (_, &Method::CONNECT) => refused(Kind::MethodNotAllowed, "no tunnels (CONNECT) are made here")
                .map_err(|error: Error| error.header(ALLOW, HeaderValue::from_static(""))),
            _ => refused(Kind::BadRequest, "the request target has no path"),
        }
    }

    fn not_found(&self, path: &str) -> Result<&Turtle, Error> {
        self.not_found
            .as_ref()
            .ok_or_else(|| Error::new(Kind::NotFound).because(format!("no route takes {}", Shown(path))))
    }
}

/// The mount of a route, inside the mount that its table stands in.
fn inner_mount(outer: Option<&Mount>, prefix: &Arc<str>, whole: &str, rest: &str) -> Option<Mount> {
    let prefix: Arc<str> = match outer.map(Mount::prefix) {
        None | Some("") => prefix.clone(),
        Some(outer) => [outer, prefix].concat().into(),
    };
    let can_be_cut_off = whole.strip_prefix(&*prefix) == Some(rest);
    if can_be_cut_off && prefix.is_empty() && outer.is_none() {
        return None;
    }
    let mount = Mount::new(prefix);
    Some(if can_be_cut_off { mount } else { mount.with_rest(rest) })
}

/// Why a path is answered 400.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Malformed(PathError),
    Ambiguous,
}

impl From<PathError> for Refusal {
    fn from(error: PathError) -> Self {
        Self::Malformed(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => error.fmt(f),
            Self::Ambiguous => {
                f.write_str("dot segments or an escaped slash make the path lead to two routes")
            }
        }
    }
}

impl Service<Request<Body>> for Routes {
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

impl From<Routes> for Turtle {
    fn from(routes: Routes) -> Self {
        Self::from_ask(move |request| routes.ask(request))
    }
}

/// Collects the routes of a table. See [`Routes`].
#[derive(Debug, Default)]
pub struct RoutesBuilder {
    routes: Vec<(String, Manner, Turtle)>,
    not_found: Option<Turtle>,
}

impl RoutesBuilder {
    /// Gives all paths under `prefix` to a turtle, which sees them whole. `/` takes what no other route takes.
    pub fn route(self, prefix: impl Into<String>, turtle: impl Into<Turtle>) -> Self {
        self.add(prefix.into(), Manner::Pass, turtle.into())
    }

    /// Mounts a turtle at `prefix`: it sees what is behind it, and the prefix as `SCRIPT_NAME` or `root_path`.
    pub fn mount(self, prefix: impl Into<String>, turtle: impl Into<Turtle>) -> Self {
        self.add(prefix.into(), Manner::Mount, turtle.into())
    }

    /// Answers paths that no route takes. Without it they end in [`Kind::NotFound`].
    pub fn not_found(self, turtle: impl Into<Turtle>) -> Self {
        Self { not_found: Some(turtle.into()), ..self }
    }

    /// Makes the table.
    ///
    /// # Errors
    /// When a prefix is malformed, or two are the same path.
    pub fn build(self) -> Result<Routes, RouteError> {
        let mut routes = Trie::new();
        for (written, manner, turtle) in self.routes {
            let prefix: Prefix = match written.parse() {
                Ok(prefix) => prefix,
                Err(why) => return Err(RouteError::Malformed { prefix: written, why }),
            };
            let slot: &mut Option<Route> = routes.slot(prefix.segments());
            if let Some(first) = slot {
                return Err(RouteError::Duplicate { prefix: written, first: first.written.clone() });
            }
            *slot = Some(Route { written, prefix: prefix.encoded().clone(), manner, turtle });
        }
        Ok(Routes(Arc::new(Table { routes, not_found: self.not_found })))
    }

    fn add(mut self, prefix: String, manner: Manner, turtle: Turtle) -> Self {
        self.routes.push((prefix, manner, turtle));
        self
    }
}

/// Why routes make no table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouteError {
    /// A prefix is not a path.
    Malformed {
        /// The prefix as it was written.
        prefix: String,
        /// What is wrong with it.
        why: PrefixError,
    },
    /// Two prefixes are the same path.
    Duplicate {
        /// The later one, as it was written.
        prefix: String,
        /// The one that was there first, as it was written.
        first: String,
    },
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { prefix, why } => write!(f, "route {prefix:?} {why}"),
            Self::Duplicate { prefix, first } if prefix == first => {
                write!(f, "route {prefix:?} is there twice; keep one of them")
            }
            Self::Duplicate { prefix, first } => {
                write!(f, "route {prefix:?} is the same as {first:?}; keep one of them")
            }
        }
    }
}

impl std::error::Error for RouteError {}

#[cfg(test)]
mod tests;
