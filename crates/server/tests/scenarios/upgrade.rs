//! Connections that speak another protocol.

use bytes::Bytes;
use hawksbill_core::{Body, Draining, Error, Kind, Turtle, Upgrade};
use hawksbill_server::Settings;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Gateway, milliseconds};

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
