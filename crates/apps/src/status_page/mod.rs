//! A page that shows how much there is to do and how it goes, while one looks.
//!
//! The page is one HTML file, which then listens to `events` beside it (server-sent events); with `actions = true` it can
//! have an application reloaded, by a POST to `actions`. What is shown comes from whoever runs the gateway, who is
//! [asked](hawksbill_core::Vitals::wish) for it only while somebody watches, and [tells](hawksbill_core::Vitals::tell) it.
//!
//! Nothing here asks who the client is. That is for what stands around the route: a `listen` of the site's own, such as
//! `127.0.0.1:9000`, or a layer.

mod action;
mod feed;

use bytes::Bytes;
use hawksbill_core::config::Bounded;
use hawksbill_core::{AppKind, Body, BuildError, Builder, Error, Kind, Mount, Turtle};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use self::feed::{Feed, Unwatched};

/// Without any asset of its own; `NONCE` stands where the policy's has to.
const PAGE: &str = include_str!("page.html");

/// Where the page finds whether it may act, and the nonce of its parts.
const ACTIONS: &str = "{{actions}}";
const NONCE: &str = "{{nonce}}";

/// Shows how the gateway does, live: `{ status_page = true }`. Whoever can reach the route can read it, so give it a site with a
/// `listen` of its own, such as `"127.0.0.1:9000"`, or a layer that asks who comes.
///
/// It tells the names of sites and applications, their figures, the directory and the processes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusPage {
    /// `true`.
    pub status_page: bool,
    /// Whether the page can have applications reloaded. Whoever reaches the route may then do so.
    #[serde(default)]
    pub actions: bool,
    /// How many may watch at once in each process; one more is answered 503.
    #[serde(default = "default_watchers")]
    pub watchers: Bounded<1, 1000>,
}

fn default_watchers() -> Bounded<1, 1000> {
    Bounded::clamped(32)
}

impl Default for StatusPage {
    fn default() -> Self {
        Self { status_page: true, actions: false, watchers: default_watchers() }
    }
}

impl AppKind for StatusPage {
    const NAME: &'static str = "status_page";
    const MOUNTED: bool = true;

    fn build(self, cx: &mut Builder) -> Result<Turtle, BuildError> {
        if !self.status_page {
            return Err(BuildError::new("status_page is false; write true, or leave the route out"));
        }
        let watchers = usize::try_from(self.watchers.get()).unwrap_or(usize::MAX);
        let feed = cx.shared::<Feed, BuildError>("status_page", |cx| Ok(Feed::new(cx.vitals(), watchers)))?;
        let page = Arc::new(Page { feed, actions: self.actions });
        Ok(Turtle::from_fn(move |request| {
            let page = page.clone();
            async move { page.answer(request).await }
        }))
    }
}

struct Page {
    feed: Arc<Feed>,
    actions: bool,
}

impl Page {
    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Error> {
        let whole = request.uri().path();
        let path = request.extensions().get::<Mount>().map_or(whole, |mount| mount.split(whole).1);
        match (path, request.method()) {
            // What the page asks for stands beside it.
            ("", &Method::GET | &Method::HEAD) => Ok(beside(whole)),
            ("/", &Method::GET | &Method::HEAD) => self.page(),
            ("/events", &Method::GET) => Ok(self.events()),
            ("/actions", &Method::POST) => action::act(&self.feed, self.actions, request).await,
            ("" | "/" | "/events" | "/actions", _) => Err(Error::new(Kind::MethodNotAllowed)),
            _ => Err(Error::new(Kind::NotFound)),
        }
    }

    fn page(&self) -> Result<Response<Body>, Error> {
        let mut bytes = [0_u8; 16];
        let nonce = match getrandom::fill(&mut bytes) {
            Ok(()) => format!("{:032x}", u128::from_be_bytes(bytes)),
            Err(error) => return Err(Error::new(Kind::Internal).because(format!("no random bytes: {error}"))),
        };
        let actions = if self.actions { "on" } else { "off" };
        let text = PAGE.replace(NONCE, &nonce).replace(ACTIONS, actions);
        let policy = format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let mut response = answer(StatusCode::OK, "text/html; charset=utf-8", text);
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
        }
        Ok(response)
    }

    fn events(&self) -> Response<Body> {
        match self.feed.watch() {
            Ok(body) => answer(StatusCode::OK, "text/event-stream", body),
            Err(why) => {
                let text = match why {
                    Unwatched::Full => "too many watch this page already",
                    Unwatched::Nobody => {
                        "nobody tells how the gateway does: it was not started by 'hawksbill run'"
                    }
                };
                let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, "text/plain", text);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
                response
            }
        }
    }
}

fn beside(path: &str) -> Response<Body> {
    // Only the last part, so that no other host can be meant, whatever stands before.
    let last = path.rsplit('/').next().unwrap_or_default();
    let mut response = answer(StatusCode::FOUND, "text/plain", "");
    if let Ok(place) = HeaderValue::from_str(&format!("./{last}/")) {
        response.headers_mut().insert(LOCATION, place);
    }
    response
}

fn answer(status: StatusCode, media_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers: [(HeaderName, &'static str); 4] = [
        (CONTENT_TYPE, media_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What a page is sent: an event.
fn event(text: &str) -> Bytes {
    // A line break would end it.
    Bytes::from(format!("data: {}\n\n", text.replace(['\n', '\r'], " ")))
}

#[cfg(test)]
mod tests;
