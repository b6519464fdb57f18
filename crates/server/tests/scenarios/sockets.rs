//! What a server listens on.

use std::os::fd::IntoRawFd;

use hawksbill_core::{Body, Turtle};
use hawksbill_server::{Listener, Server, Settings};
use http::Response;
use tokio::net::{TcpStream, UnixStream};

use crate::support::{Client, echo};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn saying(word: &'static str) -> Turtle {
    Turtle::from_fn(move |_| async move { Ok(Response::new(Body::from(word))) })
}

#[tokio::test]
async fn each_listener_has_its_own_turtle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let inherited = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let inherited_address = inherited.local_addr().unwrap();
    let fd = format!("fd:{}", inherited.into_raw_fd());
    let bind = |listen: &str| Listener::bind(&listen.parse().unwrap()).unwrap();
    let running = Server::new(Settings::default())
        .listen(bind("127.0.0.1:0"), saying("tcp"))
        .listen(bind(&format!("unix:{}", path.display())), saying("unix"))
        .listen(bind(&fd), saying("fd"))
        .start()
        .unwrap();
    assert_eq!(running.addresses()[1].path(), Some(path.as_path()));
    assert_eq!(running.addresses()[2].socket_addr(), Some(inherited_address));
    let port = running.addresses()[0].socket_addr().unwrap().port();
    assert_eq!(running.addresses()[0].to_string(), format!("http://127.0.0.1:{port}"));

    for (address, word) in [(running.addresses()[0].socket_addr().unwrap(), "tcp"), (inherited_address, "fd")]
    {
        let mut client = Client::over(TcpStream::connect(address).await.unwrap());
        client.send(GET).await;
        assert_eq!(client.answer().await.text(), word);
    }
    let mut client = Client::over(UnixStream::connect(&path).await.unwrap());
    client.send(GET).await;
    assert_eq!(client.answer().await.text(), "unix");

    running.shutdown().begin();
    assert_eq!(running.wait().await.cut, 0);
    assert!(!path.exists());
}

#[tokio::test]
async fn localhost_is_served_on_both_families() {
    let listener = Listener::bind(&"localhost:0".parse().unwrap()).unwrap();
    let running = Server::new(Settings::default()).listen(listener, echo()).start().unwrap();
    for bound in running.addresses() {
        let mut client = Client::over(TcpStream::connect(bound.socket_addr().unwrap()).await.unwrap());
        client.send(GET).await;
        assert_eq!(client.answer().await.text(), "GET / ");
    }
}

/// Another process may have the same socket: who waits in its queue is not ours to take, and stays there.
#[tokio::test]
async fn the_queue_of_an_inherited_socket_is_left_to_the_next() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let next = socket.try_clone().unwrap();
    let address = socket.local_addr().unwrap();
    let running = Server::new(Settings::default())
        .listen(Listener::from_tcp(socket).unwrap(), saying("old"))
        .start()
        .unwrap();
    running.shutdown().begin();
    assert_eq!(running.wait().await.cut, 0);
    let mut client = Client::over(TcpStream::connect(address).await.unwrap());
    client.send(GET).await;
    let running = Server::new(Settings::default())
        .listen(Listener::from_tcp(next).unwrap(), saying("new"))
        .start()
        .unwrap();
    assert_eq!(client.answer().await.text(), "new");
    running.shutdown().cut();
}

#[test]
fn without_a_runtime_it_says_so() {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let error = Server::new(Settings::default()).listen(listener, echo()).start().unwrap_err();
    assert!(error.to_string().contains("needs a tokio runtime"), "{error}");
}
