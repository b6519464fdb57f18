//! HTTP/1.1 and 1.0 as RFC 9112 has them.

use hawksbill_core::{Body, Turtle};
use http::{Response, StatusCode};

use crate::support::{Gateway, echo, milliseconds, ok, parts};

#[tokio::test]
async fn a_connection_is_kept_and_pipelined_requests_are_answered_in_order() {
    let gateway = Gateway::of(echo());
    let mut client = gateway.connect().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "GET /1 ");
    let request = |n| format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    let pipelined: Vec<String> = (2..50).map(request).collect();
    client.send(pipelined.concat()).await;
    for n in 2..50 {
        assert_eq!(client.answer().await.text(), format!("POST /{n} hi"));
    }
}

#[tokio::test]
async fn http_1_0_closes_unless_asked_to_stay() {
    let gateway = Gateway::of(echo());
    let mut client = gateway.connect().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let answer = String::from_utf8(client.rest().await).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");

    let mut client = gateway.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        assert_eq!(client.answer().await.header("connection"), Some("keep-alive"));
    }
}

#[tokio::test]
async fn chunks_both_ways() {
    let gateway = Gateway::of(Turtle::from_fn(async |request: http::Request<Body>| {
        // Straight back, in whatever chunks come.
        Ok(Response::new(Body::from_stream(request.into_body().into_data_stream())))
    }));
    let mut client = gateway.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntur\r\n").await;
    assert_eq!(client.head().await.header("transfer-encoding"), Some("chunked"));
    // The first chunk comes back before the second is sent: nothing is buffered.
    assert_eq!((client.line().await, client.line().await), ("3".to_owned(), "tur".to_owned()));
    client.send("3;ext=1\r\ntle\r\n0\r\nTrailer: x\r\n\r\n").await;
    assert_eq!((client.line().await, client.line().await), ("3".to_owned(), "tle".to_owned()));
    assert_eq!((client.line().await, client.line().await), ("0".to_owned(), String::new()));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_streamed_body_goes_to_http_1_0_until_the_end_of_the_connection() {
    let gateway = Gateway::of(Turtle::from_fn(async |_| Ok(Response::new(parts(&["tur", "tle"])))));
    let mut client = gateway.connect().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let answer = String::from_utf8(client.rest().await).unwrap();
    assert!(!answer.contains("chunked") && answer.ends_with("\r\n\r\nturtle"), "{answer}");
}

#[tokio::test]
async fn the_body_is_asked_for_when_it_is_wanted() {
    let gateway = Gateway::of(echo());
    let mut client = gateway.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n").await;
    assert_eq!(client.head().await.status, 100);
    client.send("hi").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (200, "POST / hi"));
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "GET /next ");
}

#[tokio::test]
async fn a_body_that_is_not_wanted_is_never_asked_for() {
    let gateway = Gateway::of(ok());
    let mut client = gateway.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(client.closes_within(milliseconds(5000)).await);
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    for turtle in [
        Turtle::from_fn(async |_| Ok(Response::new(Body::from("turtle")))),
        Turtle::from_fn(async |_| {
            Ok(Response::builder().header("content-length", "6").body(parts(&["turtle"])).unwrap())
        }),
        Turtle::from_fn(async |_| {
            Ok(Response::builder().header("content-length", "6").body(Body::empty()).unwrap())
        }),
    ] {
        let gateway = Gateway::of(turtle);
        let mut client = gateway.connect().await;
        for _ in 0..2 {
            client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(client.head().await.header("content-length"), Some("6"));
        }
    }
}

#[tokio::test]
async fn statuses_without_a_body_have_none() {
    for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
        let gateway = Gateway::of(Turtle::from_fn(move |_| async move {
            Ok(Response::builder()
                .status(status)
                .header("content-length", "6")
                .body(parts(&["turtle"]))
                .unwrap())
        }));
        let mut client = gateway.connect().await;
        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let answer = client.head().await;
            assert_eq!(answer.status, status.as_u16());
            assert_eq!((answer.header("content-length"), answer.header("transfer-encoding")), (None, None));
        }
    }
}

#[tokio::test]
async fn there_is_a_date_and_no_server() {
    let answer = Gateway::of(ok()).ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.header("date").is_some());
    assert_eq!(answer.header("server"), None);
}

#[tokio::test]
async fn an_application_may_close() {
    let gateway = Gateway::of(Turtle::from_fn(async |_| {
        Ok(Response::builder().header("connection", "Close").body(Body::from("bye")).unwrap())
    }));
    let mut client = gateway.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.header("connection"), Some("close"));
    assert!(client.closes_within(milliseconds(5000)).await);
}

#[tokio::test]
async fn an_absolute_target_names_the_host() {
    let gateway = Gateway::of(crate::support::mirror());
    let answer = gateway.ask("GET http://one.example/x HTTP/1.1\r\nHost: two.example\r\n\r\n").await;
    assert!(answer.text().starts_with("host: one.example\n"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_at_once() {
    let gateway = Gateway::of(echo());
    let mut clients = Vec::new();
    for _ in 0..1000 {
        clients.push(gateway.connect().await);
    }
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    }
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.answer().await.text(), format!("GET /{n} "));
    }
    assert_eq!(gateway.shutdown().open_connections(), 1000);
}
