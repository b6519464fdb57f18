//! The builders that scenarios are made of.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hawksbill_core::body::to_bytes;
use hawksbill_core::{Body, Error, Peer, Turtle};
use hawksbill_server::{Drained, Listener, Running, Server, Settings, Shutdown};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// No scenario waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a free port of the loopback address.
pub(crate) struct Gateway {
    running: Running,
    pub(crate) refusals: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    pub(crate) fn of(turtle: Turtle) -> Self {
        Self::with(Settings::default(), turtle)
    }

    pub(crate) fn with(settings: Settings, turtle: Turtle) -> Self {
        let refusals = Arc::new(Mutex::new(Vec::new()));
        let noted = refusals.clone();
        let settings =
            settings.on_refused(move |_: &Peer, refusal| noted.lock().unwrap().push(refusal.to_string()));
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        Self { running: Server::new(settings).listen(listener, turtle).start().unwrap(), refusals }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.addresses()[0].socket_addr().unwrap()
    }

    pub(crate) async fn connect(&self) -> Client<TcpStream> {
        Client::over(TcpStream::connect(self.address()).await.unwrap())
    }

    /// Sends one request on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.answer().await
    }

    pub(crate) fn shutdown(&self) -> Shutdown {
        self.running.shutdown()
    }

    pub(crate) async fn wait(self) -> Drained {
        timeout(PATIENCE, self.running.wait()).await.expect("the server ends")
    }

    pub(crate) fn refused(&self) -> Vec<String> {
        self.refusals.lock().unwrap().clone()
    }
}

/// One end of a connection, in bytes.
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    seen: Vec<u8>,
}

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and header lines, in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, seen: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("the server reads").unwrap();
    }

    /// The next response: its head, and its body by Content-Length or chunks. Other bodies are left unread.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse().unwrap();
            answer.body = self.exactly(length).await;
        } else if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line().await, 16).expect("a chunk size");
                answer.body.extend(self.exactly(size).await);
                assert_eq!(self.line().await, "");
                if size == 0 {
                    break;
                }
            }
        }
        answer
    }

    /// The next response's head.
    pub(crate) async fn head(&mut self) -> Answer {
        let mut head = String::new();
        loop {
            let line = self.line().await;
            if line.is_empty() {
                break;
            }
            head += &line.to_ascii_lowercase();
            head.push('\n');
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Answer { status: status.unwrap_or_else(|| panic!("no status in {head:?}")), head, body: Vec::new() }
    }

    pub(crate) async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.seen.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8(self.seen[..end].to_vec()).unwrap();
                self.seen.drain(..end + 2);
                return line;
            }
            assert!(
                self.more().await > 0,
                "the server closed within {:?}",
                String::from_utf8_lossy(&self.seen)
            );
        }
    }

    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.seen.len() < length {
            assert!(self.more().await > 0, "the server closed after {} of {length} bytes", self.seen.len());
        }
        self.seen.drain(..length).collect()
    }

    /// Everything up to the end of the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await > 0 {}
        std::mem::take(&mut self.seen)
    }

    /// Whether the server closes within that time, and in good order.
    pub(crate) async fn closes_within(&mut self, time: Duration) -> bool {
        let mut byte = [0; 1];
        match timeout(time, self.stream.read(&mut byte)).await {
            Err(_) => false,
            Ok(read) => read.unwrap() == 0,
        }
    }

    /// How long it takes until the server closes.
    pub(crate) async fn closes_after(&mut self) -> Duration {
        let start = Instant::now();
        assert!(self.closes_within(PATIENCE).await, "the server never closed, or sent something");
        start.elapsed()
    }

    async fn more(&mut self) -> usize {
        timeout(PATIENCE, self.stream.read_buf(&mut self.seen)).await.expect("the server answers").unwrap()
    }
}

/// Answers with the method, the path and the body it got.
pub(crate) fn echo() -> Turtle {
    Turtle::from_fn(async |request: Request<Body>| {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await?;
        let mut text = format!("{} {} ", parts.method, parts.uri.path()).into_bytes();
        text.extend_from_slice(&body);
        Ok(Response::new(Body::from(text)))
    })
}

/// Answers `ok` without reading anything.
pub(crate) fn ok() -> Turtle {
    Turtle::from_fn(async |_| Ok(Response::new(Body::from("ok"))))
}

/// Answers with its own header lines, sorted, and who it thinks asks.
pub(crate) fn mirror() -> Turtle {
    Turtle::from_fn(async |request: Request<Body>| {
        let peer = request.extensions().get::<Peer>().unwrap();
        let (scheme, host) = (peer.scheme().as_str(), peer.forwarded_host().unwrap_or("-"));
        let mut lines = vec![format!("peer: {} {scheme} {host}", peer.client())];
        for (name, value) in request.headers() {
            lines.push(format!("{name}: {}", value.to_str().unwrap()));
        }
        lines.sort();
        Ok(Response::new(Body::from(lines.join("\n"))))
    })
}

/// A body of these parts, each as one frame.
pub(crate) fn parts(parts: &'static [&'static str]) -> Body {
    Body::from_stream(futures_util::stream::iter(parts.iter().map(|part| Ok::<_, Error>(*part))))
}

pub(crate) fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}
