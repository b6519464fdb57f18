//! Clients that are slow, and clients that say nothing.

use hawksbill_core::body::to_bytes;
use hawksbill_core::{Body, Error, Turtle};
use hawksbill_server::Settings;
use http::{Request, Response};
use tokio::time::sleep;

use crate::support::{Gateway, echo, milliseconds};

fn impatient() -> Settings {
    Settings {
        header_timeout: milliseconds(300),
        keep_alive: milliseconds(1500),
        stall_timeout: milliseconds(300),
        ..Settings::default()
    }
}

#[tokio::test]
async fn half_a_head_gets_408() {
    let gateway = Gateway::with(impatient(), echo());
    for half in ["GET", "GET / HTTP/1.1\r\nHost: a\r\n", "PRI * HT"] {
        let mut client = gateway.connect().await;
        client.send(half).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
        assert!(client.closes_within(milliseconds(5000)).await);
    }
    assert_eq!(gateway.refused().len(), 3);
}

#[tokio::test]
async fn the_head_of_a_later_request_has_a_time_of_its_own() {
    let gateway = Gateway::with(impatient(), echo());
    let mut client = gateway.connect().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.answer().await;
    sleep(milliseconds(600)).await;
    // Longer idle than a head may take, and still kept.
    client.send("GET /2 HTTP/1.1\r\n").await;
    sleep(milliseconds(100)).await;
    client.send("Host: a\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "GET /2 ");
    client.send("GET /3 HTTP/1.1\r\n").await;
    assert_eq!(client.answer().await.status, 408);
}

/// Longer than a connection keeps its buffers without a request.
const REST: u64 = 500;

#[tokio::test]
async fn a_connection_that_has_rested_goes_on() {
    let gateway = Gateway::of(echo());
    let mut client = gateway.connect().await;
    for turn in 1..=3 {
        client.send(&format!("POST /{turn} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n")).await;
        client.send("hi").await;
        assert_eq!(client.answer().await.text(), format!("POST /{turn} hi"));
        sleep(milliseconds(REST)).await;
    }
    // Two at once, and a head in pieces with a rest before it.
    client.send("GET /4 HTTP/1.1\r\nHost: a\r\n\r\nGET /5 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "GET /4 ");
    assert_eq!(client.answer().await.text(), "GET /5 ");
    sleep(milliseconds(REST)).await;
    client.send("G").await;
    sleep(milliseconds(REST)).await;
    client.send("ET /6 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "GET /6 ");
    assert!(client.closes_within(milliseconds(5000)).await);
}

#[tokio::test]
async fn half_a_head_that_came_with_the_request_before_it_is_not_lost() {
    let gateway =
        Gateway::with(Settings { header_timeout: milliseconds(2000), ..Settings::default() }, echo());
    let mut client = gateway.connect().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HT").await;
    assert_eq!(client.answer().await.text(), "GET /1 ");
    sleep(milliseconds(REST)).await;
    client.send("TP/1.1\r\nHost: a\r\n\r\nGET /3").await;
    assert_eq!(client.answer().await.text(), "GET /2 ");
    // It is a head that has begun: the connection is not idle.
    assert_eq!(client.answer().await.status, 408);
}

#[tokio::test]
async fn a_connection_at_rest_is_closed_like_any_other() {
    let gateway = Gateway::with(Settings { keep_alive: milliseconds(1500), ..Settings::default() }, echo());
    let rested = async || {
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.answer().await;
        sleep(milliseconds(REST)).await;
        client
    };
    assert!(rested().await.closes_within(milliseconds(10_000)).await);
    let mut client = rested().await;
    gateway.shutdown().begin();
    assert!(client.closes_within(milliseconds(10_000)).await);
    gateway.wait().await;
}

#[tokio::test]
async fn silence_is_closed_without_a_word() {
    let gateway = Gateway::with(impatient(), echo());
    let mut client = gateway.connect().await;
    let after = client.closes_after().await;
    assert!((milliseconds(200)..milliseconds(1400)).contains(&after), "{after:?}");

    let mut client = gateway.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.answer().await;
    let after = client.closes_after().await;
    assert!((milliseconds(1400)..milliseconds(6000)).contains(&after), "{after:?}");
    assert_eq!(gateway.refused(), Vec::<String>::new());
}

#[tokio::test]
async fn a_body_that_stops_gets_408() {
    let gateway = Gateway::with(impatient(), echo());
    let mut client = gateway.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhal").await;
    assert_eq!(client.answer().await.status, 408);
    assert!(gateway.refused()[0].contains("nothing more of its body"));
}

/// As under a queue of threads: the connection's own task sleeps while another one waits for the body.
#[tokio::test]
async fn a_body_that_stops_is_noticed_wherever_it_is_read() {
    let gateway = Gateway::with(
        impatient(),
        Turtle::from_fn(async |request: Request<Body>| {
            let reading = tokio::spawn(async move {
                sleep(milliseconds(100)).await;
                to_bytes(request.into_body(), 1000).await
            });
            reading.await.unwrap().map(|_| Response::new(Body::empty()))
        }),
    );
    let mut client = gateway.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhal").await;
    assert_eq!(client.answer().await.status, 408);
}

#[tokio::test]
async fn a_body_that_is_only_slow_is_read() {
    let gateway = Gateway::with(impatient(), echo());
    let mut client = gateway.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n").await;
    for byte in "turtle".bytes() {
        sleep(milliseconds(80)).await;
        client.send([byte]).await;
    }
    assert_eq!(client.answer().await.text(), "POST / turtle");
}

#[tokio::test]
async fn a_slow_application_is_waited_for() {
    let gateway = Gateway::with(
        impatient(),
        Turtle::from_fn(async |_| {
            sleep(milliseconds(1000)).await;
            Ok(Response::new(Body::from("at last")))
        }),
    );
    let answer = gateway.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
    assert_eq!(answer.text(), "at last");
}

#[tokio::test]
async fn a_client_that_does_not_take_its_response_is_cut() {
    let gateway = Gateway::with(
        impatient(),
        Turtle::from_fn(async |_| {
            let endless = futures_util::stream::repeat_with(|| Ok::<_, Error>(vec![0; 64 * 1024]));
            Ok(Response::new(Body::from_stream(endless)))
        }),
    );
    let mut client = gateway.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    sleep(milliseconds(100)).await;
    assert_eq!(gateway.shutdown().open_connections(), 1);
    sleep(milliseconds(1500)).await;
    assert_eq!(gateway.shutdown().open_connections(), 0);
}
