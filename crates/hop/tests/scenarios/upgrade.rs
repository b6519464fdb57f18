//! Connections that speak another protocol, on both sides of the hop.

use bytes::Bytes;
use hawksbill_core::{Body, Draining, Error, Kind, Turtle, Upgrade, Upgraded};
use http::{Method, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::oneshot;

use crate::support::{Hop, get, soon, text};

/// A request that asks for an upgrade, as the server makes it; the client's end, and how the server hands it over.
fn asking(method: Method, early: &'static [u8]) -> (Request<Body>, DuplexStream, oneshot::Sender<()>) {
    let (client, server) = tokio::io::duplex(4096);
    let (written, is_written) = oneshot::channel();
    let mut request = get("/");
    *request.method_mut() = method;
    request.extensions_mut().insert(Upgrade::new(async move {
        is_written.await.map_err(|_| Error::new(Kind::Canceled))?;
        Ok(Upgraded::new(server, Bytes::from_static(early)))
    }));
    (request, client, written)
}

/// Echoes bytes after the upgrade; says goodbye when a server drains.
fn echo(status: u16) -> Turtle {
    Turtle::from_fn(move |mut request: Request<Body>| async move {
        let draining = Draining::of(&request);
        let upgrade = Upgrade::take(&mut request).ok_or_else(|| Error::new(Kind::UpgradeRequired))?;
        tokio::spawn(async move {
            let mut connection = upgrade.bytes().await.unwrap();
            let mut buffer = [0; 1024];
            loop {
                let count = tokio::select! {
                    () = draining.clone().begun() => {
                        connection.write_all(b"goodbye").await.unwrap();
                        break;
                    }
                    read = connection.read(&mut buffer) => read.unwrap_or(0),
                };
                if count == 0 {
                    break;
                }
                connection.write_all(&buffer[..count]).await.unwrap();
            }
        });
        Ok(Response::builder().status(status).header("upgrade", "echo").body(Body::empty()).unwrap())
    })
}

async fn exactly(client: &mut DuplexStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    soon(client.read_exact(&mut bytes)).await.unwrap();
    bytes
}

#[tokio::test]
async fn bytes_go_both_ways_the_early_ones_first() {
    for (method, status) in [(Method::GET, 101), (Method::CONNECT, 200)] {
        let hop = Hop::to(echo(status)).await;
        let (request, mut client, written) = asking(method, b"early,");
        let response = hop.ask(request).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["upgrade"]),
            (status, &"echo".parse().unwrap())
        );
        written.send(()).unwrap();
        assert_eq!(exactly(&mut client, 6).await, b"early,");
        for word in ["one", "two"] {
            client.write_all(word.as_bytes()).await.unwrap();
            assert_eq!(exactly(&mut client, 3).await, word.as_bytes());
        }
        assert_eq!(hop.front.in_flight(), 1);
        drop(client);
        while hop.front.in_flight() > 0 {
            hop.settled().await;
        }
    }
}

#[tokio::test]
async fn large_amounts_pass() {
    let hop = Hop::to(echo(101)).await;
    let (request, client, written) = asking(Method::GET, b"");
    hop.ask(request).await.unwrap();
    written.send(()).unwrap();
    let (mut reader, mut writer) = tokio::io::split(client);
    let sent: Vec<u8> = (0..2_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let mut came = vec![0; sent.len()];
    let (wrote, read) =
        soon(async { tokio::join!(writer.write_all(&sent), reader.read_exact(&mut came)) }).await;
    wrote.unwrap();
    read.unwrap();
    assert_eq!(came, sent);
}

#[tokio::test]
async fn another_answer_keeps_to_http() {
    let hop = Hop::to(Turtle::from_fn(async |mut request: Request<Body>| {
        let upgrade = Upgrade::take(&mut request).unwrap();
        tokio::spawn(async move { assert!(upgrade.bytes().await.is_err()) });
        Ok(Response::new(Body::from("no")))
    }))
    .await;
    for _ in 0..3 {
        let (request, _client, _written) = asking(Method::GET, b"");
        assert_eq!(text(hop.ask(request).await.unwrap()).await, "no");
    }
    hop.settled().await;
    assert_eq!(hop.front.in_flight(), 0);
}

#[tokio::test]
async fn who_switches_what_nobody_asked_for_fails() {
    let hop =
        Hop::to(Turtle::from_fn(async |_| Ok(Response::builder().status(101).body(Body::empty()).unwrap())))
            .await;
    let error = hop.ask(get("/")).await.unwrap_err();
    assert!(error.to_string().contains("101 answers a request that asks for no upgrade"), "{error}");
    let (request, _client, _written) = asking(Method::GET, b"");
    let error = hop.ask(request).await.unwrap_err();
    assert!(error.to_string().contains("nobody takes the connection"), "{error}");
}

#[tokio::test]
async fn a_server_that_drains_is_told_to_the_application() {
    let hop = Hop::to(echo(101)).await;
    let (mut request, mut client, written) = asking(Method::GET, b"");
    let (begin, begins) = oneshot::channel::<()>();
    request.extensions_mut().insert(Draining::new(async {
        begins.await.ok();
    }));
    hop.ask(request).await.unwrap();
    written.send(()).unwrap();
    client.write_all(b"there").await.unwrap();
    assert_eq!(exactly(&mut client, 5).await, b"there");
    begin.send(()).unwrap();
    let mut rest = Vec::new();
    soon(client.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"goodbye");
}

#[tokio::test]
async fn so_is_a_worker_that_drains() {
    let hop = Hop::to(echo(101)).await;
    let (request, mut client, written) = asking(Method::GET, b"");
    hop.ask(request).await.unwrap();
    written.send(()).unwrap();
    hop.settled().await;
    hop.worker.drain();
    let mut rest = Vec::new();
    soon(client.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"goodbye");
    // The client has not closed its direction.
    drop(client);
    soon(hop.worker.drained()).await;
}

#[tokio::test]
async fn a_worker_that_dies_ends_the_connection() {
    let hop = Hop::to(echo(101)).await;
    let (request, mut client, written) = asking(Method::GET, b"");
    hop.ask(request).await.unwrap();
    written.send(()).unwrap();
    hop.settled().await;
    hop.serving.abort();
    let mut rest = Vec::new();
    soon(client.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_the_application() {
    let (tell, told) = std::sync::mpsc::channel();
    let hop = Hop::to(Turtle::from_fn(move |mut request: Request<Body>| {
        let tell = tell.clone();
        async move {
            let upgrade = Upgrade::take(&mut request).unwrap();
            tokio::spawn(async move {
                let mut connection = upgrade.bytes().await.unwrap();
                while connection.write_all(&[0; 1000]).await.is_ok() {
                    tell.send(1000).unwrap();
                }
            });
            Ok(Response::builder().status(101).body(Body::empty()).unwrap())
        }
    }))
    .await;
    let (request, client, written) = asking(Method::GET, b"");
    hop.ask(request).await.unwrap();
    written.send(()).unwrap();
    hop.settled().await;
    let sent: usize = told.try_iter().sum();
    assert!(sent < 300_000, "{sent} bytes were written for a client that does not read");
    drop(client);
    while hop.front.in_flight() > 0 {
        hop.settled().await;
    }
}
