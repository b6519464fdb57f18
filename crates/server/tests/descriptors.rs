//! Running out of descriptors. A process of its own, because the limit is the process's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use hawksbill_core::{Body, Turtle};
use hawksbill_server::{Listener, Server, Settings};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// User and system time of this process, in clock ticks of 10 ms, from its open `/proc/self/stat`.
fn ticks(stat: &File) -> u64 {
    let mut buffer = [0; 4096];
    let count = stat.read_at(&mut buffer, 0).unwrap();
    let line = std::str::from_utf8(&buffer[..count]).unwrap();
    let fields: Vec<_> = line.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

async fn ask(client: &mut TcpStream) -> String {
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(20), client.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn the_server_waits_without_spinning_and_goes_on() {
    let turtle = Turtle::from_fn(async |_| Ok(http::Response::new(Body::from("turtle"))));
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let running = Server::new(Settings::default()).listen(listener, turtle).start().unwrap();
    let address = running.addresses()[0].socket_addr().unwrap();

    let stat = File::open("/proc/self/stat").unwrap();
    // The clients have their descriptors before there are none; the server gets two.
    let sockets: Vec<_> = (0..10).map(|_| TcpSocket::new_v4().unwrap()).collect();
    let unlimited = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..unlimited }).unwrap();
    let mut taken: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    taken.truncate(taken.len() - 2);
    let mut clients = Vec::new();
    for socket in sockets {
        clients.push(socket.connect(address).await.unwrap());
    }
    sleep(Duration::from_millis(200)).await;
    assert_eq!(running.shutdown().open_connections(), 2);

    let before = ticks(&stat);
    sleep(Duration::from_secs(1)).await;
    assert!(ticks(&stat) - before < 20, "{} ticks of 100", ticks(&stat) - before);

    let mut last = clients.pop().unwrap();
    clients.clear();
    assert!(ask(&mut last).await.ends_with("turtle"));
    setrlimit(Resource::Nofile, unlimited).unwrap();
    running.shutdown().cut();
    running.wait().await;
}
