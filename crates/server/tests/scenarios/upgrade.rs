//! Connections that speak another protocol.

use bytes::Bytes;
use hawksbill_core::{Body, Draining, Error, Kind, Turtle, Upgrade};
use hawksbill_server::Settings;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use tokio::time::timeout;

use crate::support::{Gateway, PATIENCE, milliseconds};

const ASK: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n";

/// Echoes bytes after the upgrade; says goodbye when the server drains, if it is polite.
fn echo(polite: bool) -> Turtle {
    Turtle::from_fn(move |mut request: Request<Body>| async move {
        let draining = Draining::of(&request);
        let upgrade = Upgrade::take(&mut request).ok_or_else(|| Error::new(Kind::UpgradeRequired))?;
        tokio::spawn(async move {
            let mut connection = upgrade.bytes().await.unwrap();
            let mut early = connection.take_early();
            loop {
                connection.write_all(&early).await.unwrap();
                let mut buffer = [0; 1024];
                let count = tokio::select! {
                    () = draining.clone().begun(), if polite => {
                        connection.write_all(b"goodbye").await.unwrap();
                        break;
                    }
                    read = connection.read(&mut buffer) => read.unwrap_or(0),
                };
                if count == 0 {
                    break;
                }
                early = Bytes::copy_from_slice(&buffer[..count]);
            }
        });
        let response =
            Response::builder().status(101).header("connection", "upgrade").header("upgrade", "echo");
        Ok(response.body(Body::empty()).unwrap())
    })
}

#[tokio::test]
async fn bytes_go_both_ways_the_early_ones_first() {
    let gateway = Gateway::of(echo(true));
    let mut client = gateway.connect().await;
    client.send(format!("{ASK}early,")).await;
    let answer = client.head().await;
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("echo")));
    assert_eq!((answer.header("content-length"), answer.header("transfer-encoding")), (None, None));
    assert_eq!(client.exactly(6).await, b"early,");
    for word in ["one", "two"] {
        client.send(word).await;
        assert_eq!(client.exactly(3).await, word.as_bytes());
    }
    assert_eq!(gateway.shutdown().open_connections(), 1);
    drop(client);
    tokio::time::sleep(milliseconds(100)).await;
    assert_eq!(gateway.shutdown().open_connections(), 0);
}

#[tokio::test]
async fn an_upgraded_connection_outlives_the_timeouts() {
    let settings =
        Settings { header_timeout: milliseconds(100), keep_alive: milliseconds(100), ..Settings::default() };
    let gateway = Gateway::with(settings, echo(true));
    let mut client = gateway.connect().await;
    client.send(ASK).await;
    client.head().await;
    tokio::time::sleep(milliseconds(500)).await;
    client.send("still here").await;
    assert_eq!(client.exactly(10).await, b"still here");
}

#[tokio::test]
async fn who_does_not_ask_properly_gets_none() {
    let gateway = Gateway::of(echo(true));
    for headers in
        ["Upgrade: echo", "Connection: upgrade", "Connection: upgrade\r\nUpgrade: echo\r\nContent-Length: 1"]
    {
        let answer = gateway.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\nx")).await;
        assert_eq!(answer.status, 426, "{headers}");
    }
    let answer = gateway.ask("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
    assert_eq!(answer.status, 426);
}

#[tokio::test]
async fn another_response_keeps_the_connection_in_http() {
    let gateway = Gateway::of(Turtle::from_fn(async |mut request: Request<Body>| {
        let upgrade = Upgrade::take(&mut request).unwrap();
        tokio::spawn(async move { assert!(upgrade.bytes().await.is_err()) });
        Ok(Response::new(Body::from("no")))
    }));
    let mut client = gateway.connect().await;
    for _ in 0..2 {
        client.send(ASK).await;
        assert_eq!(client.answer().await.text(), "no");
    }
    client.send(ASK.replace("keep-alive", "close")).await;
    assert_eq!(client.answer().await.text(), "no");
    assert!(client.closes_within(milliseconds(5000)).await);
}

#[tokio::test]
async fn a_drain_is_told_to_upgraded_connections() {
    let gateway = Gateway::of(echo(true));
    let mut client = gateway.connect().await;
    client.send(ASK).await;
    client.head().await;
    gateway.shutdown().begin();
    assert_eq!(client.rest().await, b"goodbye");
    assert_eq!(gateway.wait().await.cut, 0);
}

#[tokio::test]
async fn who_does_not_listen_is_cut_at_the_deadline() {
    let settings = Settings { drain_timeout: milliseconds(300), ..Settings::default() };
    let gateway = Gateway::with(settings, echo(false));
    let mut client = gateway.connect().await;
    client.send(ASK).await;
    client.head().await;
    gateway.shutdown().begin();
    let after = client.closes_after().await;
    assert!(after >= milliseconds(250), "{after:?}");
    assert_eq!(gateway.wait().await.cut, 1);
}

type Sender = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

/// A connection of HTTP/2 whose settings have arrived.
async fn http2(gateway: &Gateway) -> Sender {
    let stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let any = Request::get("http://a/").body(Empty::new()).unwrap();
    sender.send_request(any).await.unwrap();
    sender
}

/// Asks for a WebSocket; the status, and the stream where it is a 200.
async fn extended(
    sender: &mut Sender,
    protocol: &'static str,
) -> (u16, Option<TokioIo<hyper::upgrade::Upgraded>>) {
    let request = Request::connect("http://a/live").extension(Protocol::from_static(protocol));
    let response = sender.send_request(request.body(Empty::new()).unwrap());
    let response = timeout(PATIENCE, response).await.unwrap().unwrap();
    let status = response.status().as_u16();
    let stream = if status == 200 { Some(hyper::upgrade::on(response).await.unwrap()) } else { None };
    (status, stream.map(TokioIo::new))
}

/// Answers 200 where [`echo`] answers 101.
fn accepting(polite: bool) -> Turtle {
    let echo = echo(polite);
    Turtle::from_fn(move |request: Request<Body>| {
        let echo = echo.clone();
        async move {
            let connects = request.method() == http::Method::CONNECT;
            let mut response = echo.ask(request).await?;
            if connects {
                *response.status_mut() = http::StatusCode::OK;
            }
            Ok(response)
        }
    })
}

#[tokio::test]
async fn a_stream_of_http_2_is_taken_over_after_a_200() {
    let settings = Settings { keep_alive: milliseconds(100), ..Settings::default() };
    let gateway = Gateway::with(settings, accepting(true));
    let mut sender = http2(&gateway).await;
    let (status, stream) = extended(&mut sender, "websocket").await;
    assert_eq!(status, 200);
    let mut stream = stream.unwrap();
    // It is not idle while the stream is there, however quiet that is.
    tokio::time::sleep(milliseconds(500)).await;
    let long = vec![7; 300_000];
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let mut back = vec![0; long.len()];
    let (sent, received) =
        tokio::join!(write.write_all(&long), timeout(PATIENCE, read.read_exact(&mut back)));
    sent.unwrap();
    received.unwrap().unwrap();
    assert_eq!(back, long);
    // Other streams of the connection go on.
    assert_eq!(extended(&mut sender, "websocket").await.0, 200);
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn only_websockets_are_connected_to() {
    let gateway = Gateway::of(accepting(true));
    let mut sender = http2(&gateway).await;
    assert_eq!(extended(&mut sender, "connect-udp").await.0, 405);
    assert_eq!(
        gateway.refused(),
        ["405 Method Not Allowed: CONNECT for the protocol 'connect-udp' is not served"]
    );
}

#[tokio::test]
async fn a_connect_that_nobody_takes_is_not_accepted() {
    let gateway = Gateway::of(Turtle::from_fn(async |_| Ok(Response::new(Body::from("a page")))));
    assert_eq!(extended(&mut http2(&gateway).await, "websocket").await.0, 500);
    let gateway = Gateway::of(echo(true));
    assert_eq!(extended(&mut http2(&gateway).await, "websocket").await.0, 500);
}

#[tokio::test]
async fn a_drain_is_told_to_streams_that_were_taken_over() {
    let gateway = Gateway::of(accepting(true));
    let mut sender = http2(&gateway).await;
    let mut stream = extended(&mut sender, "websocket").await.1.unwrap();
    gateway.shutdown().begin();
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b"goodbye");
    drop((stream, sender));
    assert_eq!(gateway.wait().await.cut, 0);
}
