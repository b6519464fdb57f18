//! Tiny builders, so that scenarios read as scenarios.

#![allow(dead_code, unreachable_pub, reason = "each scenario file uses some of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a scenario that cannot go on fails")]

use std::path::Path;

use hawksbill::{Config, Gateway, Registry, Running};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A gateway that serves this TOML; relative paths count from `dir`.
pub async fn serve(toml: &str, dir: &Path, registry: &Registry) -> Running {
    let config = Config::parse("test.toml", toml, dir, registry).unwrap_or_else(|error| panic!("{error}"));
    let gateway = Gateway::new(config).unwrap_or_else(|error| panic!("{error}"));
    gateway.start().await.unwrap_or_else(|error| panic!("{error}"))
}

/// As [`serve`], with the standard kinds and paths from here.
pub async fn serve_toml(toml: &str) -> Running {
    serve(toml, Path::new("."), &hawksbill::standard_registry().unwrap()).await
}

/// Stops a gateway and waits.
pub async fn stop(running: Running) {
    running.shutdown().begin();
    running.wait().await;
}

/// An answer, split.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// One GET over a connection of its own.
pub async fn get(address: impl ToString, host: &str, path: &str) -> Answer {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
}

/// Sends bytes as they are and reads to the end.
pub async fn send(address: impl ToString, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address.to_string()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}
