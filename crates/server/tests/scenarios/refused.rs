//! Requests that no application sees.

use hawksbill_server::Settings;

use crate::support::{Gateway, echo, milliseconds, mirror};

/// Each is answered with that status, the connection is closed, and the rule is told.
async fn refuses(settings: Settings, cases: &[(u16, &str, &str)]) {
    let gateway = Gateway::with(settings, echo());
    for (status, rule, request) in cases {
        let mut client = gateway.connect().await;
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (*status, Some("close")), "{request:?}");
        assert!(client.closes_within(milliseconds(5000)).await, "{request:?}");
        let told = gateway.refused().pop().unwrap_or_default();
        assert!(told.starts_with(&status.to_string()) && told.contains(rule), "{request:?}: {told}");
    }
    assert_eq!(gateway.refused().len(), cases.len());
}

#[tokio::test]
async fn hosts() {
    let cases = [
        (400, "without a Host", "GET / HTTP/1.1\r\n\r\n"),
        (400, "more than one Host", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, "more than one Host", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, "Host header is malformed", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, "Host header is malformed", "GET / HTTP/1.1\r\nHost: a/../b\r\n\r\n"),
        (400, "Host header is malformed", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
        (400, "Host header is malformed", "GET / HTTP/1.1\r\nHost: a:port\r\n\r\n"),
        (400, "Host header is malformed", "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n"),
    ];
    refuses(Settings::default(), &cases).await;
}

#[tokio::test]
async fn ways_to_smuggle() {
    let te = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ";
    let chunked = |values: &str| format!("{te}{values}\r\n\r\n0\r\n\r\n");
    let doubled = chunked("chunked\r\nTransfer-Encoding: chunked");
    let (gzip, list, upper) = (chunked("gzip, chunked"), chunked("chunked, chunked"), chunked("identity"));
    let cases = [
        (400, "Transfer-Encoding", doubled.as_str()),
        (400, "Transfer-Encoding", gzip.as_str()),
        (400, "Transfer-Encoding", list.as_str()),
        (400, "transfer-encoding", upper.as_str()),
        (
            400,
            "transfer-encoding",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            400,
            "content-length",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        ),
        (400, "content-length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx"),
        (400, "content-length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx"),
        (400, "header", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        (400, "header", "GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n"),
        (400, "header", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
    ];
    refuses(Settings::default(), &cases).await;
}

#[tokio::test]
async fn targets_and_methods() {
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(17 * 1024));
    let cases = [
        (414, "more than 16384 bytes", long.as_str()),
        (405, "CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
        (400, "neither a path nor a URL", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "neither a path nor a URL", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "request target is malformed", "GET http://me@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "version", "GET / HTTP/9.9\r\nHost: a\r\n\r\n"),
        (400, "method", "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\r\n\r\n"),
    ];
    refuses(Settings::default(), &cases).await;
}

#[tokio::test]
async fn header_blocks() {
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100));
    let cases = [(431, "more than 65536 bytes", large.as_str()), (431, "100 lines", many.as_str())];
    refuses(Settings::default(), &cases).await;

    let small = Settings { max_header_size: 1024, max_headers: 5, ..Settings::default() };
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(5));
    refuses(small, &[(431, "more than 1024 bytes", large.as_str()), (431, "5 lines", many.as_str())]).await;
}

#[tokio::test]
async fn as_many_header_lines_as_allowed() {
    let gateway = Gateway::of(mirror());
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(99));
    assert_eq!(gateway.ask(&many).await.status, 200);
}

/// RFC 9112 section 6.3: the length is ignored, and the connection ends after the answer.
#[tokio::test]
async fn chunked_wins_over_a_length() {
    let gateway = Gateway::of(mirror());
    for headers in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\nContent-Length: 3",
    ] {
        let mut client = gateway.connect().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        assert!(!answer.text().contains("content-length"), "{}", answer.text());
        assert!(client.closes_within(milliseconds(5000)).await);
    }
}
