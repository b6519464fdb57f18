//! Both roles against each other over TCP, from the bytes of the handshake to the end of the stream.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the lint knows tests, but not the helpers of tests"
)]

use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hawksbill_websocket::client::ClientHandshake;
use hawksbill_websocket::handshake::{Acceptance, OpeningHandshake};
use hawksbill_websocket::{
    CloseFrame, Config, DeflateConfig, Error as WsError, Message, ProtocolError, Role, SharedMessage,
    WebSocket,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

type Failure = Box<dyn Error + Send + Sync>;

/// The lines of a header block up to its empty line, and the bytes after it.
async fn read_head(stream: &mut TcpStream) -> Result<(Vec<String>, Bytes), Failure> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err("the stream ended in the handshake".into());
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec())?;
            return Ok((head.split("\r\n").map(str::to_owned).collect(), bytes.split_off(end + 4).into()));
        }
    }
}

fn parse_headers(lines: &[String]) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or("no colon")?;
        headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
    }
    Ok(headers)
}

fn write_headers(first: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut out = format!("{first}\r\n").into_bytes();
    for (name, value) in headers {
        out.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    out.extend(b"\r\n");
    out
}

async fn accept(
    listener: TcpListener,
    config: Config,
    wish: Option<DeflateConfig>,
) -> Result<WebSocket<TcpStream>, Failure> {
    let (mut stream, _) = listener.accept().await?;
    let (lines, read_ahead) = read_head(&mut stream).await?;
    let mut request = Request::get("/live").body(())?;
    *request.headers_mut() = parse_headers(&lines[1..])?;
    let opening = OpeningHandshake::from_request(&request)?;
    let acceptance =
        Acceptance { subprotocol: Some("chat"), deflate: wish.as_ref(), ..Acceptance::default() };
    let (response, agreed) = opening.accept(acceptance)?;
    stream.write_all(&write_headers("HTTP/1.1 101 Switching Protocols", response.headers())).await?;
    let config = Config { deflate: agreed.deflate, ..config };
    Ok(WebSocket::with_read_ahead(stream, Role::Server, &config, read_ahead))
}

async fn connect(
    address: SocketAddr,
    config: Config,
    wish: Option<DeflateConfig>,
) -> Result<WebSocket<TcpStream>, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    let mut handshake = ClientHandshake::new()?.subprotocol("other").subprotocol("chat");
    if let Some(wish) = wish {
        handshake = handshake.deflate(wish);
    }
    let mut headers = handshake.headers();
    headers.insert("host", HeaderValue::from_static("localhost"));
    stream.write_all(&write_headers("GET /live HTTP/1.1", &headers)).await?;
    let (lines, read_ahead) = read_head(&mut stream).await?;
    let mut response = Response::builder().status(101).body(())?;
    *response.headers_mut() = parse_headers(&lines[1..])?;
    let agreed = handshake.verify(&response)?;
    assert_eq!(agreed.subprotocol.as_deref(), Some("chat"));
    let config = Config { deflate: agreed.deflate, ..config };
    Ok(WebSocket::with_read_ahead(stream, Role::Client, &config, read_ahead))
}

/// A server and a client after their handshake.
async fn pair(config: Config, wish: Option<DeflateConfig>) -> (WebSocket<TcpStream>, WebSocket<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (server, client) =
        tokio::join!(accept(listener, config.clone(), wish.clone()), connect(address, config, wish));
    (server.unwrap(), client.unwrap())
}

/// Nothing here takes long; what hangs fails.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), future).await.expect("hangs")
}

async fn echo(mut ws: WebSocket<TcpStream>) -> WsError {
    loop {
        match ws.recv().await {
            Ok(message) if message.is_data() => {
                if let Err(error) = ws.send(message).await {
                    return error;
                }
            }
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn messages_of_every_size_come_back() {
    let takeover = DeflateConfig {
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: 10,
        client_max_window_bits: 12,
        ..DeflateConfig::default()
    };
    for wish in [None, Some(DeflateConfig::default()), Some(takeover)] {
        let (server, mut client) = pair(Config::default(), wish).await;
        let server = tokio::spawn(echo(server));
        for size in [0, 1, 125, 126, 65_535, 65_536, 3_000_000] {
            let text = Message::text("turtle ".repeat(size / 7));
            let noise =
                Message::binary((0..size).map(|i| (i * i / 7 % 251).to_le_bytes()[0]).collect::<Vec<u8>>());
            for message in [text, noise] {
                soon(client.send(message.clone())).await.unwrap();
                assert!(soon(client.recv()).await.unwrap() == message, "{size}");
            }
        }
        soon(client.close(Some(CloseFrame::new(1000, "done")))).await.unwrap();
        assert!(matches!(soon(server).await.unwrap(), WsError::Closed));
    }
}

/// Far more than all buffers of both sockets, both ways at once, each end in a single task.
#[tokio::test]
async fn one_task_reads_while_it_writes() {
    const COUNT: usize = 400;
    async fn flood(mut ws: WebSocket<TcpStream>) -> usize {
        let (mut sent, mut received) = (0, 0);
        poll_fn(|cx| {
            while sent < COUNT && ws.poll_ready(cx).is_ready() {
                ws.start_send(Message::binary(vec![1; 50_000])).unwrap();
                sent += 1;
            }
            while received < COUNT
                && let Poll::Ready(message) = ws.poll_recv(cx)
            {
                assert!(message.unwrap().is_data());
                received += 1;
            }
            let flushed = ws.poll_flush(cx).is_ready();
            if sent == COUNT && received == COUNT && flushed { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        received
    }
    let (server, client) = pair(Config::default(), None).await;
    let (server, client) = (tokio::spawn(flood(server)), tokio::spawn(flood(client)));
    assert_eq!(soon(server).await.unwrap(), COUNT);
    assert_eq!(soon(client).await.unwrap(), COUNT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves_run_on_different_threads() {
    let (server, client) = pair(Config { write_buffer: 1000, ..Config::default() }, None).await;
    let mut sending = Vec::new();
    let mut receiving = Vec::new();
    for ws in [server, client] {
        let (mut receiver, mut sender) = ws.split();
        sending.push(tokio::spawn(async move {
            for i in 0..5000_usize {
                sender.send(Message::binary(vec![0; i])).await.unwrap();
                if i % 10 == 0 {
                    sender.send(Message::Ping(Bytes::new())).await.unwrap();
                }
            }
            sender
        }));
        receiving.push(tokio::spawn(async move {
            let mut expected = 0;
            while expected < 5000 {
                if let Message::Binary(data) = receiver.recv().await.unwrap() {
                    assert_eq!(data.len(), expected);
                    expected += 1;
                }
            }
        }));
    }
    // A socket closed over unread pongs would reset the other end: the senders stay until all has arrived.
    for task in receiving {
        soon(task).await.unwrap();
    }
    for task in sending {
        soon(task).await.unwrap();
    }
}

#[tokio::test]
async fn the_server_closes_and_hears_the_answer() {
    let (mut server, client) = pair(Config::default(), None).await;
    let client = tokio::spawn(async move {
        let mut client = client;
        let last = client.recv().await;
        (last, client.recv().await)
    });
    soon(server.close(Some(CloseFrame::new(1001, "restart")))).await.unwrap();
    let (last, end) = soon(client).await.unwrap();
    assert_eq!(last.unwrap(), Message::close(1001, "restart"));
    assert!(matches!(end, Err(WsError::Closed)));
}

/// The server gives up in the middle of a message; the client, still sending, must hear why and not just a reset.
#[tokio::test]
async fn who_sends_too_much_is_told_so() {
    let small = Config { max_message_size: 1000, ..Config::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, client) =
        tokio::join!(accept(listener, small, None), connect(address, Config::default(), None));
    let (mut server, mut client) = (accepted.unwrap(), client.unwrap());
    let refusing = tokio::spawn(async move {
        let fault = server.recv().await;
        let _ = server.close(None).await;
        fault
    });
    let message = Message::binary(vec![0; 10_000_000]);
    let (sent, last) = soon(async {
        let sent = client.send(message).await;
        (sent, client.recv().await)
    })
    .await;
    sent.unwrap();
    assert_eq!(last.unwrap(), Message::close(1009, "message too big"));
    drop(client);
    let fault = soon(refusing).await.unwrap();
    assert!(matches!(fault, Err(WsError::Protocol(ProtocolError::MessageTooBig { limit: 1000 }))));
}

#[tokio::test]
async fn news_is_framed_once_for_many() {
    let mut servers = Vec::new();
    let mut clients = Vec::new();
    for i in 0..12 {
        let wish = (i % 2 == 0).then(DeflateConfig::default);
        let (server, client) = pair(Config::default(), wish).await;
        servers.push(server);
        clients.push(client);
    }
    let news = Message::text("the turtle moves; ".repeat(30));
    let shared = SharedMessage::new(news.clone()).unwrap();
    for server in &mut servers {
        for _ in 0..3 {
            server.start_send_shared(&shared).unwrap();
        }
        soon(server.flush()).await.unwrap();
    }
    for client in &mut clients {
        for _ in 0..3 {
            assert_eq!(soon(client.recv()).await.unwrap(), news);
        }
    }
}

#[tokio::test]
async fn a_heartbeat_is_kept_from_outside() {
    let (server, mut client) = pair(Config::default(), None).await;
    let answering = tokio::spawn(echo(server));
    for beat in 0..3_u8 {
        soon(client.send(Message::Ping(vec![beat].into()))).await.unwrap();
        assert_eq!(soon(client.recv()).await.unwrap(), Message::Pong(vec![beat].into()));
    }
    drop(client);
    assert!(matches!(soon(answering).await.unwrap(), WsError::Disconnected | WsError::Io(_)));
}
