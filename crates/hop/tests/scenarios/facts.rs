//! What the front vouches for: it passes as it is, and no client can forge it.

use hawksbill_core::{Address, Body, Connection, Forwarded, Mount, Peer, Scheme, Turtle};
use http::{HeaderValue, Method, Request, Response, Version};
use tokio::sync::mpsc;

use crate::support::{Hop, get};

/// Hands out each request's parts.
fn witness() -> (Turtle, mpsc::UnboundedReceiver<http::request::Parts>) {
    let (tell, told) = mpsc::unbounded_channel();
    let turtle = Turtle::from_fn(move |request: Request<Body>| {
        tell.send(request.into_parts().0).unwrap();
        async { Ok(Response::new(Body::empty())) }
    });
    (turtle, told)
}

fn connection(remote: &str) -> Connection {
    let local = Address::Unix(Some("/run/hawksbill.sock".into()));
    Connection { remote: Address::Tcp(remote.parse().unwrap()), local, scheme: Scheme::Https }
}

#[tokio::test]
async fn the_facts_of_a_connection_pass_as_they_are() {
    let (turtle, mut told) = witness();
    let hop = Hop::to(turtle).await;
    let (one, other) = (Peer::new(connection("203.0.113.7:4711")), Peer::new(connection("203.0.113.7:4711")));
    let mut numbers = Vec::new();
    for peer in [&one, &other, &one] {
        let mut request = get("/");
        request.extensions_mut().insert(peer.clone());
        hop.ask(request).await.unwrap();
        let parts = told.recv().await.unwrap();
        let there = parts.extensions.get::<Peer>().unwrap();
        assert_eq!((there.connection(), there.told()), (peer.connection(), None));
        numbers.push(there.number());
    }
    // The same facts are still two connections.
    assert_eq!(numbers[0], numbers[2]);
    assert_ne!(numbers[0], numbers[1]);
}

#[tokio::test]
async fn what_a_trusted_proxy_said_is_of_one_request() {
    let (turtle, mut told) = witness();
    let hop = Hop::to(turtle).await;
    let peer = Peer::new(connection("10.0.0.1:80"));
    let said = Forwarded {
        client: Some("2001:db8::1".parse().unwrap()),
        scheme: Some(Scheme::Http),
        host: Some("example.com:8080".to_owned()),
    };
    for peer in [peer.forwarded(said.clone()), peer] {
        let expected = peer.told().cloned();
        let mut request = get("/");
        request.extensions_mut().insert(peer);
        hop.ask(request).await.unwrap();
        let parts = told.recv().await.unwrap();
        assert_eq!(parts.extensions.get::<Peer>().unwrap().told(), expected.as_ref());
    }
}

#[tokio::test]
async fn more_connections_than_are_remembered_have_numbers_of_their_own() {
    let (turtle, mut told) = witness();
    let hop = Hop::to(turtle).await;
    let mut numbers = std::collections::HashSet::new();
    for _ in 0..1500 {
        let mut request = get("/");
        request.extensions_mut().insert(Peer::new(connection("10.0.0.1:80")));
        hop.ask(request).await.unwrap();
        numbers.insert(told.recv().await.unwrap().extensions.get::<Peer>().unwrap().number());
    }
    assert_eq!(numbers.len(), 1500);
}

#[tokio::test]
async fn headers_become_no_facts() {
    let (turtle, mut told) = witness();
    let hop = Hop::to(turtle).await;
    let mut request = get("/");
    for name in ["forwarded", "x-forwarded-for", "x-real-ip", "peer", "mount", "x-script-name"] {
        request.headers_mut().append(name, HeaderValue::from_static("203.0.113.99"));
    }
    let sent = request.headers().clone();
    hop.ask(request).await.unwrap();
    let parts = told.recv().await.unwrap();
    assert!(parts.extensions.get::<Peer>().is_none() && parts.extensions.get::<Mount>().is_none());
    assert_eq!(parts.headers, sent);
}

#[tokio::test]
async fn the_head_is_as_it_came() {
    let (turtle, mut told) = witness();
    let hop = Hop::to(turtle).await;
    let mut request = Request::builder()
        .method(Method::from_bytes(b"PURGE").unwrap())
        .uri("/a//b/%2e%2E?q=%41&r")
        .version(Version::HTTP_10)
        .header("x-twice", "1")
        .header("x-bytes", HeaderValue::from_bytes(b"caf\xe9").unwrap())
        .header("x-twice", "2")
        .header("x-empty", "")
        .body(Body::empty())
        .unwrap();
    request.extensions_mut().insert(Mount::new("/a").with_rest("/b"));
    let (sent, mount) = (request.headers().clone(), request.extensions().get::<Mount>().cloned());
    hop.ask(request).await.unwrap();
    let parts = told.recv().await.unwrap();
    assert_eq!(
        (parts.method.as_str(), parts.uri.to_string(), parts.version),
        ("PURGE", "/a//b/%2e%2E?q=%41&r".to_owned(), Version::HTTP_10)
    );
    assert_eq!(parts.headers, sent);
    assert_eq!(parts.extensions.get::<Mount>(), mount.as_ref());
}
