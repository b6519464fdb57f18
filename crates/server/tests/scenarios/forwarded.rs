//! Whom the server believes.

use hawksbill_server::{Listener, Server, Settings};
use tokio::net::UnixStream;

use crate::support::{Client, Gateway, mirror};

const FORGED: &str = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
                      X-Forwarded-Host: evil\r\nX-Real-IP: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n\
                      Forwarded: for=6.6.6.6;proto=https\r\nX-Other: 1\r\n\r\n";

fn trusting() -> Settings {
    Settings { trusted_proxies: "127.0.0.0/8".parse().unwrap(), ..Settings::default() }
}

#[tokio::test]
async fn a_stranger_is_not_believed_and_its_headers_are_gone() {
    let answer = Gateway::of(mirror()).ask(FORGED).await;
    let lines: Vec<_> = answer.text().lines().collect();
    assert!(lines[0] == "host: a" && lines[2] == "x-other: 1" && lines.len() == 3, "{lines:?}");
    assert!(lines[1].starts_with("peer: 127.0.0.1:") && lines[1].ends_with(" http -"), "{lines:?}");
}

#[tokio::test]
async fn a_proxy_is_believed_in_either_family() {
    let gateway = Gateway::with(trusting(), mirror());
    let answer = gateway.ask(FORGED).await;
    assert!(answer.text().contains("peer: 6.6.6.6:0 https evil"), "{}", answer.text());
    assert!(answer.text().contains("x-forwarded-for: 6.6.6.6"), "the header remains");
    assert!(
        !answer.text().contains("x_forwarded_for") && !answer.text().contains("\nforwarded"),
        "{}",
        answer.text()
    );

    let line = "Forwarded: for=\"[2001:db8::7]:4711\";proto=https;host=shop.example, for=127.0.0.9";
    let answer = gateway.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n")).await;
    assert!(answer.text().contains("peer: [2001:db8::7]:4711 https shop.example"), "{}", answer.text());
}

#[tokio::test]
async fn each_request_of_a_proxys_connection_has_its_own_client() {
    let gateway = Gateway::with(trusting(), mirror());
    let mut proxy = gateway.connect().await;
    for client in ["203.0.113.1", "203.0.113.2"] {
        proxy.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n")).await;
        assert!(proxy.answer().await.text().contains(&format!("peer: {client}:0 ")));
    }
    proxy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(proxy.answer().await.text().contains("peer: 127.0.0.1:"));
}

#[tokio::test]
async fn a_unix_socket_is_believed_where_it_is_configured() {
    for (trust_unix, expected) in [(false, "peer: unix: http -"), (true, "peer: 6.6.6.6:0 https evil")] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = Listener::bind(&format!("unix:{}", path.display()).parse().unwrap()).unwrap();
        let settings = Settings { trust_unix, ..Settings::default() };
        let running = Server::new(settings).listen(listener, mirror()).start().unwrap();
        let mut client = Client::over(UnixStream::connect(&path).await.unwrap());
        client.send(FORGED).await;
        let answer = client.answer().await;
        assert!(answer.text().contains(expected), "{}", answer.text());
        running.shutdown().cut();
        running.wait().await;
        assert!(!path.exists());
    }
}
