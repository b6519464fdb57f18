//! Ending without losing a request.

use hawksbill_core::{Body, Turtle};
use hawksbill_server::Settings;
use http::Response;
use tokio::time::{Instant, sleep};

use crate::support::{Gateway, echo, milliseconds};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Answers after a while.
fn slow(after: u64) -> Turtle {
    Turtle::from_fn(move |_| async move {
        sleep(milliseconds(after)).await;
        Ok(Response::new(Body::from("done")))
    })
}

fn settings(idle_grace: u64, drain_timeout: u64) -> Settings {
    Settings {
        idle_grace: milliseconds(idle_grace),
        drain_timeout: milliseconds(drain_timeout),
        ..Settings::default()
    }
}

#[tokio::test]
async fn nothing_open_ends_at_once() {
    let gateway = Gateway::of(echo());
    let address = gateway.address();
    let start = Instant::now();
    gateway.shutdown().begin();
    assert_eq!(gateway.wait().await.cut, 0);
    assert!(start.elapsed() < milliseconds(1000));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_request_under_way_is_finished_and_its_connection_closed() {
    let gateway = Gateway::with(settings(100, 5000), slow(500));
    let mut client = gateway.connect().await;
    client.send(GET).await;
    sleep(milliseconds(50)).await;
    gateway.shutdown().begin();
    let answer = client.answer().await;
    assert_eq!((answer.text(), answer.header("connection")), ("done", Some("close")));
    assert!(client.closes_within(milliseconds(5000)).await);
    assert_eq!(gateway.wait().await.cut, 0);
}

#[tokio::test]
async fn a_request_on_its_way_is_answered() {
    let gateway = Gateway::with(settings(1000, 5000), echo());
    let mut client = gateway.connect().await;
    client.send(GET).await;
    assert_eq!(client.answer().await.header("connection"), None);
    gateway.shutdown().begin();
    sleep(milliseconds(300)).await;
    client.send(GET).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(client.closes_within(milliseconds(5000)).await);
    assert_eq!(gateway.wait().await.cut, 0);
}

#[tokio::test]
async fn half_a_request_may_be_completed() {
    let gateway = Gateway::with(settings(100, 5000), echo());
    let mut fresh = gateway.connect().await;
    let mut kept = gateway.connect().await;
    kept.send(GET).await;
    kept.answer().await;
    for client in [&mut fresh, &mut kept] {
        client.send("GET /late HTTP/1.1\r\n").await;
    }
    sleep(milliseconds(50)).await;
    gateway.shutdown().begin();
    sleep(milliseconds(400)).await;
    for mut client in [fresh, kept] {
        client.send("Host: a\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "GET /late ");
    }
    assert_eq!(gateway.wait().await.cut, 0);
}

#[tokio::test]
async fn idle_connections_are_closed_after_the_grace() {
    let gateway = Gateway::with(settings(300, 5000), echo());
    let mut silent = gateway.connect().await;
    let mut kept = gateway.connect().await;
    kept.send(GET).await;
    kept.answer().await;
    let start = Instant::now();
    gateway.shutdown().begin();
    assert!(!kept.closes_within(milliseconds(150)).await);
    silent.closes_after().await;
    kept.closes_after().await;
    assert_eq!(gateway.wait().await.cut, 0);
    assert!((milliseconds(250)..milliseconds(4000)).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[tokio::test]
async fn who_leaves_keeps_idle_connections_until_shortly_before_the_deadline() {
    let gateway = Gateway::with(settings(100, 2000), echo());
    let (mut asks, mut idles) = (gateway.connect().await, gateway.connect().await);
    for client in [&mut asks, &mut idles] {
        client.send(GET).await;
        client.answer().await;
    }
    let start = Instant::now();
    gateway.shutdown().leave();
    assert!(!idles.closes_within(milliseconds(600)).await);
    asks.send(GET).await;
    assert_eq!(asks.answer().await.header("connection"), Some("close"));
    idles.closes_after().await;
    assert!(start.elapsed() < milliseconds(1900), "{:?}", start.elapsed());
    assert_eq!(gateway.wait().await.cut, 0);
}

#[tokio::test]
async fn a_response_that_began_before_the_drain_leaves_time_for_one_more_request() {
    let gateway = Gateway::with(
        settings(500, 5000),
        Turtle::from_fn(async |_| {
            let parts = futures_util::stream::unfold(0, |n| async move {
                sleep(milliseconds(100)).await;
                (n < 4).then_some((Ok::<_, hawksbill_core::Error>("part"), n + 1))
            });
            Ok(Response::new(Body::from_stream(parts)))
        }),
    );
    let mut client = gateway.connect().await;
    client.send(GET).await;
    sleep(milliseconds(150)).await;
    gateway.shutdown().begin();
    let answer = client.answer().await;
    assert_eq!((answer.text(), answer.header("connection")), ("partpartpartpart", None));
    sleep(milliseconds(200)).await;
    client.send(GET).await;
    assert_eq!(client.answer().await.header("connection"), Some("close"));
    assert_eq!(gateway.wait().await.cut, 0);
}

#[tokio::test]
async fn the_deadline_cuts() {
    let gateway = Gateway::with(settings(100, 300), slow(60_000));
    let mut client = gateway.connect().await;
    client.send(GET).await;
    sleep(milliseconds(50)).await;
    let start = Instant::now();
    gateway.shutdown().begin();
    assert_eq!(gateway.wait().await.cut, 1);
    assert!((milliseconds(300)..milliseconds(5000)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn a_second_signal_cuts_at_once() {
    let gateway = Gateway::with(settings(100, 60_000), slow(60_000));
    let mut client = gateway.connect().await;
    client.send(GET).await;
    sleep(milliseconds(50)).await;
    gateway.shutdown().begin();
    gateway.shutdown().cut();
    assert_eq!(gateway.wait().await.cut, 1);
}

/// The clients have connected, the server has not accepted them when the drain begins: both run on one thread, and the
/// server's turn comes only when this test waits.
#[tokio::test]
async fn who_waits_in_the_queue_is_served() {
    let gateway = Gateway::with(settings(500, 5000), echo());
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = std::net::TcpStream::connect(gateway.address()).unwrap();
        std::io::Write::write_all(&mut client, GET.as_bytes()).unwrap();
        clients.push(client);
    }
    gateway.shutdown().begin();
    let drained = gateway.wait().await;
    assert_eq!(drained.cut, 0);
    for mut client in clients {
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut client, &mut answer).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("connection: close"),
            "{answer}"
        );
    }
}

/// A client that sends request after request never sees one fail: each is answered, or never gets a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_under_load() {
    for _ in 0..10 {
        let gateway = Gateway::with(settings(300, 5000), echo());
        let address = gateway.address();
        let clients: Vec<_> = (0..20)
            .map(|_| {
                tokio::spawn(async move {
                    if let Ok(stream) = tokio::net::TcpStream::connect(address).await {
                        let mut client = crate::support::Client::over(stream);
                        loop {
                            client.send(GET).await;
                            let answer = client.answer().await;
                            assert_eq!(answer.status, 200);
                            if answer.header("connection") == Some("close") {
                                return;
                            }
                        }
                    }
                })
            })
            .collect();
        sleep(milliseconds(30)).await;
        gateway.shutdown().begin();
        for client in clients {
            client.await.expect("no request fails");
        }
        assert_eq!(gateway.wait().await.cut, 0);
    }
}
