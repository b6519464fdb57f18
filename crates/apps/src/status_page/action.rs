//! What the page may do, and who may have it do so: the page itself, in a browser, and nothing that another site shows.

use hawksbill_core::body::to_bytes;
use hawksbill_core::{Body, Error, Kind};
use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::answer;
use super::feed::Feed;

/// The most bytes of an order.
const MOST: usize = 4096;

/// What the page sends, and what is wished for by it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    action: Action,
    application: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Reload,
}

#[derive(Serialize)]
struct Wish<'a> {
    wish: Action,
    application: &'a str,
}

/// Asks for what the page wants done. What comes of it is among what those who watch are told.
pub(super) async fn act(feed: &Feed, allowed: bool, request: Request<Body>) -> Result<Response<Body>, Error> {
    let forbidden = |why: &str| Error::new(Kind::Forbidden).because(why.to_owned());
    if !allowed {
        return Err(forbidden("the status page has no actions; actions = true allows them"));
    }
    let (parts, body) = request.into_parts();
    if !is_own(&parts.headers, &parts.uri) {
        return Err(forbidden("an action of the status page was asked for by another site, or by no page"));
    }
    let is_json = |value: &http::HeaderValue| value.as_bytes().starts_with(b"application/json");
    if !parts.headers.get(CONTENT_TYPE).is_some_and(is_json) {
        return Err(Error::new(Kind::BadRequest).because("an action is JSON"));
    }
    let bytes = to_bytes(body, MOST).await?;
    let order: Order = serde_json::from_slice(&bytes).map_err(|error| {
        Error::new(Kind::BadRequest).because(format!("an action is not understood: {error}"))
    })?;
    let wish = Wish { wish: order.action, application: &order.application };
    let wish = serde_json::to_string(&wish).unwrap_or_default();
    if feed.wish(&wish) {
        Ok(answer(StatusCode::ACCEPTED, "text/plain", "asked for\n"))
    } else {
        Ok(answer(
            StatusCode::SERVICE_UNAVAILABLE,
            "text/plain",
            "nobody runs this gateway who could do it\n",
        ))
    }
}

/// Whether a browser says that the page itself asks: by `Sec-Fetch-Site`, which no script can set, and by `Origin`. A
/// browser sends one of them with every POST; who sends neither is none.
fn is_own(headers: &HeaderMap, uri: &Uri) -> bool {
    let text = |value: &http::HeaderValue| value.to_str().ok().map(str::to_owned);
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes() == b"same-origin");
    let origin = headers.get(ORIGIN).map(|origin| {
        let origin = text(origin).unwrap_or_default();
        let host = uri.authority().map(ToString::to_string).or_else(|| headers.get(HOST).and_then(text));
        let named = origin.split_once("://").map(|(_, host)| host.to_owned());
        named.is_some()
            && named.map(|host| host.to_ascii_lowercase()) == host.map(|host| host.to_ascii_lowercase())
    });
    match (site, origin) {
        (None, None) => false,
        (site, origin) => site.unwrap_or(true) && origin.unwrap_or(true),
    }
}
