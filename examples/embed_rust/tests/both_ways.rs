//! The example, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn get(address: &str, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_turtle_in_axum() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served =
        tokio::spawn(async move { axum::serve(listener, embed_rust::axum_with_a_turtle().unwrap()).await });
    let page = get(&address, "localhost", "/").await;
    assert!(page.ends_with("beneath /files\n"), "{page}");
    let file = get(&address, "localhost", "/files/hello.txt").await;
    assert!(file.starts_with("HTTP/1.1 200 OK") && file.ends_with("Hello from a turtle.\n"), "{file}");
    assert!(file.contains("etag:"), "{file}");
    let missing = get(&address, "localhost", "/files/missing.txt").await;
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    served.abort();
}

#[tokio::test]
async fn axum_in_the_gateway() {
    let running = embed_rust::gateway_with_axum("127.0.0.1:0").build().unwrap().start().await.unwrap();
    let address = running.addresses()[0].to_string();
    let page = get(&address, "api.localhost", "/").await;
    assert!(page.ends_with("inside the gateway\n") && page.contains("x-served-by: hawksbill"), "{page}");
    let file = get(&address, "files.localhost", "/hello.txt").await;
    assert!(file.ends_with("Hello from a turtle.\n") && file.contains("x-served-by: hawksbill"), "{file}");
    let nobody = get(&address, "other.localhost", "/").await;
    assert!(nobody.starts_with("HTTP/1.1 421"), "{nobody}");
    running.shutdown().begin();
    running.wait().await;
}

#[test]
fn no_python_in_the_graph() {
    let graph = |package: &str| {
        let arguments =
            ["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "--package", package];
        let output = Command::new(env!("CARGO")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // That the word would be seen if it were there.
    assert!(graph("hawksbill-python").contains("pyo3 "));
    let embedded = graph("embed-rust");
    assert!(embedded.contains("hawksbill-core ") && embedded.contains("axum "));
    assert!(!embedded.contains("pyo3") && !embedded.contains("clap "), "{embedded}");
}
