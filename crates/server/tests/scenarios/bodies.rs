//! Uploads that nobody reads, and answers that arrive all the same (RFC 9112 section 9.6).

use hawksbill_core::body::to_bytes;
use hawksbill_core::{Body, Error, Kind, Turtle};
use http::Request;
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

use crate::support::{Gateway, echo, milliseconds, ok};

/// Refuses every body without reading it.
fn too_large() -> Turtle {
    Turtle::from_fn(async |_: Request<Body>| Err(Error::new(Kind::BodyTooLarge)))
}

/// A client that writes its whole upload before it looks for an answer, as simple clients do.
async fn upload(gateway: &Gateway, head: &str, size: usize) -> (crate::support::Answer, bool) {
    let mut client = gateway.connect().await;
    client.send(head).await;
    let block = vec![b'x'; 64 * 1024];
    let mut refused = false;
    for _ in 0..size / block.len() {
        if client.stream.write_all(&block).await.is_err() {
            refused = true;
            break;
        }
    }
    (client.answer().await, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_413_is_read_by_a_client_that_is_still_sending() {
    let gateway = Gateway::of(too_large());
    let size = 64 * 1024 * 1024;
    for _ in 0..5 {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
        let (answer, reset) = upload(&gateway, &head, size).await;
        assert_eq!((answer.status, answer.header("connection"), reset), (413, Some("close"), false));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_of_a_chunked_upload() {
    let gateway = Gateway::of(too_large());
    let size = 16 * 1024 * 1024;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n");
    let (answer, reset) = upload(&gateway, &head, size).await;
    assert_eq!((answer.status, reset), (413, false));
}

#[tokio::test]
async fn a_small_rest_is_thrown_away_and_the_connection_kept() {
    let gateway = Gateway::of(ok());
    let mut client = gateway.connect().await;
    for _ in 0..3 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
        // The answer does not wait for the body.
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (200, None));
        client.send(vec![b'x'; 100_000]).await;
    }
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    client.send("3\r\nabc\r\n0\r\n\r\n").await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
}

/// Answers, and holds the request for a while.
fn slow_to_let_go() -> Turtle {
    Turtle::from_fn(async |request: Request<Body>| {
        tokio::spawn(async move {
            tokio::time::sleep(milliseconds(200)).await;
            drop(request);
        });
        Ok(http::Response::new(Body::from("ok")))
    })
}

/// Reads the first part of a body, answers, and holds the request for a while.
fn curious() -> Turtle {
    Turtle::from_fn(async |mut request: Request<Body>| {
        request.body_mut().frame().await.unwrap()?;
        slow_to_let_go().ask(request).await
    })
}

/// A connection without a request is still busy with a body that somebody reads after the answer.
#[tokio::test]
async fn a_body_may_be_read_long_after_the_answer() {
    let (sender, mut read) = tokio::sync::mpsc::channel(1);
    let gateway = Gateway::of(Turtle::from_fn(move |request: Request<Body>| {
        let sender = sender.clone();
        async move {
            tokio::spawn(async move { sender.send(to_bytes(request.into_body(), 1_000_000).await).await });
            Ok::<_, Error>(http::Response::new(Body::from("ok")))
        }
    }));
    let mut client = gateway.connect().await;
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabcde").await;
        assert_eq!(client.answer().await.text(), "ok");
        tokio::time::sleep(milliseconds(500)).await;
        client.send("fghij").await;
        assert_eq!(read.recv().await.unwrap().unwrap(), "abcdefghij");
        tokio::time::sleep(milliseconds(500)).await;
    }
}

#[tokio::test]
async fn a_large_body_that_is_given_up_after_the_answer_ends_a_connection_that_said_so() {
    for turtle in [slow_to_let_go(), curious()] {
        let gateway = Gateway::of(turtle);
        let mut client = gateway.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbegins").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        assert!(client.closes_within(milliseconds(5000)).await);
    }
}

/// Answers when it has read the last byte, and lets go of the body after that.
#[tokio::test]
async fn a_large_body_that_was_read_ends_nothing() {
    let gateway = Gateway::of(Turtle::from_fn(async |mut request: Request<Body>| {
        let mut length = 0;
        while length < 1_000_000 {
            length += request.body_mut().frame().await.unwrap()?.into_data().map_or(0, |data| data.len());
        }
        slow_to_let_go().ask(request).await
    }));
    let mut client = gateway.connect().await;
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
        client.send(vec![b'x'; 1_000_000]).await;
        let answer = client.answer().await;
        assert_eq!((answer.text(), answer.header("connection")), ("ok", None));
    }
}

#[tokio::test]
async fn a_body_may_be_given_up_after_the_answer_and_elsewhere() {
    let gateway = Gateway::of(slow_to_let_go());
    let mut client = gateway.connect().await;
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "ok");
        client.send(vec![b'x'; 100_000]).await;
    }
}

#[tokio::test]
async fn a_rest_that_never_comes_does_not_hold_the_connection() {
    let settings = hawksbill_server::Settings { stall_timeout: milliseconds(200), ..Default::default() };
    let gateway = Gateway::with(settings, ok());
    let mut client = gateway.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc").await;
    assert_eq!(client.answer().await.status, 200);
    assert!(client.closes_within(milliseconds(5000)).await);
}

#[tokio::test]
async fn a_client_that_leaves_within_its_body_is_an_error_and_no_end() {
    let (told, mut outcome) = tokio::sync::mpsc::unbounded_channel();
    let gateway = Gateway::of(Turtle::from_fn(move |request: Request<Body>| {
        let told = told.clone();
        // As a queue driver would: in a task that outlives the request.
        tokio::spawn(async move {
            told.send(hawksbill_core::body::to_bytes(request.into_body(), 1000).await).unwrap();
        });
        std::future::pending()
    }));
    for head in ["Content-Length: 9\r\n\r\nhal", "Transfer-Encoding: chunked\r\n\r\n3\r\nhal\r\n"] {
        let mut client = gateway.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}")).await;
        tokio::time::sleep(milliseconds(50)).await;
        drop(client);
        let error = outcome.recv().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), Kind::BadRequest, "{error}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request() {
    struct Ends(tokio::sync::mpsc::UnboundedSender<()>);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.send(()).ok();
        }
    }
    let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let gateway = Gateway::of(Turtle::from_fn(move |_| {
        let ends = Ends(ends.clone());
        async move {
            let _ends = ends;
            std::future::pending().await
        }
    }));
    let mut client = gateway.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::sleep(milliseconds(50)).await;
    drop(client);
    tokio::time::timeout(milliseconds(1000), ended.recv()).await.expect("the future is dropped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_megabytes_arrive_intact() {
    let gateway = Gateway::of(echo());
    let body: Vec<u8> = (0..16 * 1024 * 1024_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let client = gateway.connect().await;
    let (mut read, mut write) = client.stream.into_split();
    let sent = body.clone();
    tokio::spawn(async move {
        write
            .write_all(
                format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", sent.len()).as_bytes(),
            )
            .await
            .unwrap();
        write.write_all(&sent).await.unwrap();
        std::mem::forget(write);
    });
    let mut seen = vec![0; body.len()];
    let mut head = [0; 1];
    let mut end = Vec::new();
    while !end.ends_with(b"\r\n\r\nPOST / ") {
        tokio::io::AsyncReadExt::read_exact(&mut read, &mut head).await.unwrap();
        end.push(head[0]);
    }
    tokio::io::AsyncReadExt::read_exact(&mut read, &mut seen).await.unwrap();
    assert!(seen == body);
}
