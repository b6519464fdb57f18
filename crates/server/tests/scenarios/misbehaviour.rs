//! Applications that do not keep their promises. Only their own requests suffer.

use hawksbill_core::{Body, Error, Turtle};
use http::{Request, Response};

use crate::support::{Gateway, milliseconds, parts};

async fn misbehave(request: Request<Body>) -> Result<Response<Body>, Error> {
    let response = Response::builder();
    let response = match request.uri().path() {
        "/panic" => panic!("as asked"),
        "/late-panic" => {
            tokio::task::yield_now().await;
            panic!("as asked, later")
        }
        "/panic-in-body" => {
            let stream = futures_util::stream::iter(0..3)
                .map(|n| if n < 2 { Ok::<_, Error>("x") } else { panic!("{n}") });
            response.body(Body::from_stream(stream))
        }
        "/error-in-body" => {
            let stream =
                futures_util::stream::iter([Ok("x"), Err(Error::new(hawksbill_core::Kind::Internal))]);
            response.body(Body::from_stream(stream))
        }
        "/shorter" => response.header("content-length", "9").body(parts(&["tur", "tle"])),
        "/longer" => response.header("content-length", "4").body(parts(&["tur", "tle"])),
        "/wrong" => response.header("content-length", "4").body(Body::from("turtle")),
        "/none" => response.header("content-length", "4").body(Body::empty()),
        "/two" => {
            response.header("content-length", "6").header("content-length", "7").body(parts(&["turtle"]))
        }
        "/103" => response.status(103).body(Body::empty()),
        "/101" => response.status(101).body(Body::empty()),
        "/99" => response.status(999).body(Body::from("odd")),
        "/chunked" => {
            response.header("transfer-encoding", "chunked").body(Body::from("3\r\ntur\r\n0\r\n\r\n"))
        }
        _ => response.body(Body::from("ok")),
    };
    Ok(response.unwrap())
}

use futures_util::StreamExt;

async fn asked(path: &str) -> (u16, bool, Vec<u8>) {
    let gateway = Gateway::of(Turtle::from_fn(misbehave));
    let mut client = gateway.connect().await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    let answer = client.head().await;
    let length = answer.header("content-length").and_then(|length| length.parse().ok());
    if let (Some(length), false) = (length, matches!(path, "/shorter" | "/longer")) {
        client.exactly(length).await;
        // The connection is as good as before.
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "ok", "{path}");
        return (answer.status, true, Vec::new());
    }
    let rest = client.rest().await;
    assert_eq!(gateway.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.text(), "ok");
    (answer.status, false, rest)
}

#[tokio::test]
async fn what_cannot_be_sent_is_500() {
    for path in ["/panic", "/late-panic", "/wrong", "/none", "/two", "/103", "/101"] {
        assert_eq!(asked(path).await, (500, true, Vec::new()), "{path}");
    }
    assert_eq!(asked("/99").await, (999, true, Vec::new()));
    assert_eq!(asked("/chunked").await, (200, true, Vec::new()));
}

#[tokio::test]
async fn what_breaks_on_the_way_is_seen_to_be_broken() {
    for path in ["/panic-in-body", "/error-in-body"] {
        let (status, _, rest) = asked(path).await;
        let rest = String::from_utf8(rest).unwrap();
        assert!(
            status == 200 && rest.starts_with("1\r\nx\r\n") && !rest.ends_with("0\r\n\r\n"),
            "{path}: {rest:?}"
        );
    }
    assert_eq!(asked("/shorter").await, (200, false, b"turtle".to_vec()));
    assert_eq!(asked("/longer").await, (200, false, b"tur".to_vec()));
}

#[tokio::test]
async fn other_requests_go_on_beside_a_panic() {
    let gateway = Gateway::of(Turtle::from_fn(async |request: Request<Body>| {
        tokio::time::sleep(milliseconds(200)).await;
        misbehave(request).await
    }));
    let mut slow = gateway.connect().await;
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(gateway.ask("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 500);
    assert_eq!(slow.answer().await.text(), "ok");
}
