//! A number for each request, which all logs name.
//!
//! ```
//! use hawksbill_core::{Body, Builder, LayerKind, Turtle};
//! use hawksbill_layers::RequestId;
//! use http::{Request, Response};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let echo = Turtle::from_fn(async |request: Request<Body>| {
//!     let id = request.headers()["x-request-id"].to_str().unwrap().to_owned();
//!     Ok(Response::new(Body::from(id)))
//! });
//! let numbered = RequestId(true).wrap(echo, &mut Builder::new("/")).unwrap();
//! let response = numbered.ask(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
//! assert_eq!(response.headers()["x-request-id"].len(), 32);
//! # }
//! ```

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hawksbill_core::{Body, BuildError, Builder, LayerKind, Peer, Turtle};
use http::{HeaderName, HeaderValue, Request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether each request gets an id, 32 hexadecimal digits in the header `X-Request-ID`, which the application finds there,
/// the client finds in the answer, and the logs name (access logs in JSON, and whatever the application logs meanwhile).
///
/// A trusted proxy's id (at most 128 letters, digits and `-_.:+/=@`) is kept; anybody else's is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct RequestId(pub bool);

pub(crate) static HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The most bytes of a proxy's id.
const MOST: usize = 128;

impl LayerKind for RequestId {
    const NAME: &'static str = "request_id";

    fn wrap(self, inner: Turtle, _: &mut Builder) -> Result<Turtle, BuildError> {
        if !self.0 {
            return Ok(inner);
        }
        let ids = Arc::new(Ids::new()?);
        Ok(Turtle::from_fn(move |mut request: Request<Body>| {
            let id = from_proxy(&request).unwrap_or_else(|| ids.next());
            request.headers_mut().insert(HEADER.clone(), id.clone());
            let answer = inner.ask(request);
            async move {
                let mut response = answer.await?;
                response.headers_mut().insert(HEADER.clone(), id);
                Ok(response)
            }
        }))
    }
}

/// Ids that nobody else gives: a random half, and a count.
struct Ids {
    own: u64,
    count: AtomicU64,
}

impl Ids {
    fn new() -> Result<Self, BuildError> {
        let random = getrandom::u64();
        let own =
            random.map_err(|error| BuildError::new("no random number for request_id").caused_by(error))?;
        Ok(Self { own, count: AtomicU64::new(0) })
    }

    fn next(&self) -> HeaderValue {
        // By an odd number, so that neighbours do not look alike, and none comes twice.
        let count = self.count.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let count = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut text = String::with_capacity(32);
        // Writing to a string does not fail, and hexadecimal digits are a header's value.
        let _ = write!(text, "{:016x}{count:016x}", self.own);
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

fn from_proxy(request: &Request<Body>) -> Option<HeaderValue> {
    let peer = request.extensions().get::<Peer>()?;
    let id = request.headers().get(&HEADER).filter(|_| peer.is_forwarded())?;
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(byte);
    let is_id = (1..=MOST).contains(&id.len()) && id.as_bytes().iter().all(allowed);
    is_id.then(|| id.clone())
}

#[cfg(test)]
mod tests {
    use hawksbill_core::{Address, Connection, Forwarded, Scheme};
    use http::Response;

    use super::*;

    async fn id_of(sent: &str, is_forwarded: bool) -> String {
        let echo = Turtle::from_fn(async |request: Request<Body>| {
            let mut response = Response::new(Body::empty());
            response.headers_mut().insert("x-seen", request.headers()[&HEADER].clone());
            Ok(response)
        });
        let turtle = RequestId(true).wrap(echo, &mut Builder::new("/")).unwrap();
        let nobody = Address::Unix(None);
        let mut peer = Peer::new(Connection { remote: nobody.clone(), local: nobody, scheme: Scheme::Http });
        if is_forwarded {
            peer = peer.forwarded(Forwarded::default());
        }
        let mut request = Request::get("/").header(&HEADER, sent).body(Body::empty()).unwrap();
        request.extensions_mut().insert(peer);
        let response = turtle.ask(request).await.unwrap();
        assert_eq!(response.headers()["x-seen"], response.headers()[&HEADER]);
        response.headers()["x-seen"].to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn only_a_trusted_proxy_gives_ids() {
        assert_eq!(id_of("abc-1", true).await, "abc-1");
        for (sent, is_forwarded) in [("abc-1", false), ("a b", true), ("", true), (&"x".repeat(129), true)] {
            let id = id_of(sent, is_forwarded).await;
            assert!(id.len() == 32 && id != sent, "{sent:?}: {id}");
        }
    }

    #[test]
    fn none_comes_twice() {
        let ids = Ids::new().unwrap();
        let seen: std::collections::BTreeSet<_> = (0..1000).map(|_| ids.next().as_bytes().to_vec()).collect();
        assert_eq!(seen.len(), 1000);
    }
}
