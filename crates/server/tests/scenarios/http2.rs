//! HTTP/2 with prior knowledge, spoken by hyper's client.

use bytes::Bytes;
use hawksbill_core::{Body, Error, Turtle};
use hawksbill_server::Settings;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::support::{Client, Gateway, PATIENCE, echo, milliseconds, mirror, parts};

type Sender = SendRequest<Full<Bytes>>;

async fn connect(gateway: &Gateway) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn post(path: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::post(format!("http://one.example{path}")).body(Full::from(body)).unwrap()
}

async fn ask(sender: &mut Sender, request: Request<Full<Bytes>>) -> (u16, String) {
    let response = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
    let status = response.status().as_u16();
    let body = timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn many_requests_on_one_connection() {
    let gateway = Gateway::of(echo());
    let (sender, _) = connect(&gateway).await;
    let asked: Vec<_> = (0..50)
        .map(|n| {
            let mut sender = sender.clone();
            tokio::spawn(async move { ask(&mut sender, post(&format!("/{n}"), "hi")).await })
        })
        .collect();
    for (n, asked) in asked.into_iter().enumerate() {
        assert_eq!(asked.await.unwrap(), (200, format!("POST /{n} hi")));
    }
    assert_eq!(gateway.shutdown().open_connections(), 1);
}

#[tokio::test]
async fn the_authority_becomes_the_host() {
    let gateway = Gateway::of(mirror());
    let (mut sender, _) = connect(&gateway).await;
    let forged = Request::get("http://one.example/").header("x-forwarded-for", "6.6.6.6");
    let (_, lines) = ask(&mut sender, forged.body(Full::default()).unwrap()).await;
    assert!(lines.starts_with("host: one.example\npeer: 127.0.0.1:"), "{lines}");
    assert_eq!(lines.lines().count(), 2, "{lines}");

    let other =
        Request::get("http://one.example/").header("host", "two.example").body(Full::default()).unwrap();
    assert_eq!(ask(&mut sender, other).await.0, 400);
    assert_eq!(gateway.refused(), ["400 Bad Request: :authority and Host differ"]);
    // It is the request that is refused, not the connection.
    assert_eq!(ask(&mut sender, post("/", "")).await.0, 200);
}

#[tokio::test]
async fn limits_hold_as_in_http_1() {
    let settings =
        Settings { max_headers: 10, max_header_size: 4096, max_target: 1000, ..Settings::default() };
    let gateway = Gateway::with(settings, echo());
    let (mut sender, _) = connect(&gateway).await;
    let many = (0..11).fold(Request::get("http://a/"), |request, n| request.header(format!("x-{n}"), "y"));
    assert_eq!(ask(&mut sender, many.body(Full::default()).unwrap()).await.0, 431);
    let long = Request::get(format!("http://a/{}", "x".repeat(1000))).body(Full::default()).unwrap();
    assert_eq!(ask(&mut sender, long).await.0, 414);
    let large = Request::get("http://a/").header("x", "y".repeat(5000)).body(Full::default()).unwrap();
    assert_eq!(ask(&mut sender, large).await.0, 431);
    assert_eq!(ask(&mut sender, post("/", "hi")).await, (200, "POST / hi".to_owned()));
}

#[tokio::test]
async fn misbehaviour_ends_its_own_stream() {
    let gateway = Gateway::of(Turtle::from_fn(async |request: Request<Body>| {
        Ok::<_, Error>(match request.uri().path() {
            "/panic" => panic!("as asked"),
            "/shorter" => Response::builder().header("content-length", "9").body(parts(&["turtle"])).unwrap(),
            "/longer" => Response::builder().header("content-length", "4").body(parts(&["turtle"])).unwrap(),
            _ => Response::new(Body::from("ok")),
        })
    }));
    let (mut sender, _) = connect(&gateway).await;
    assert_eq!(ask(&mut sender, post("/panic", "")).await.0, 500);
    for path in ["/shorter", "/longer"] {
        // The stream may be reset before its head is seen.
        let broken = match sender.send_request(post(path, "")).await {
            Ok(response) => response.into_body().collect().await.is_err(),
            Err(_) => true,
        };
        assert!(broken, "{path}");
    }
    assert_eq!(ask(&mut sender, post("/", "")).await, (200, "ok".to_owned()));
}

#[tokio::test]
async fn an_early_answer_is_read_by_a_client_that_is_still_sending() {
    let gateway = Gateway::of(Turtle::from_fn(async |_| Err(Error::new(hawksbill_core::Kind::BodyTooLarge))));
    let (mut sender, _) = connect(&gateway).await;
    for _ in 0..3 {
        let upload = Request::post("http://a/").body(Full::from(vec![0; 4 * 1024 * 1024])).unwrap();
        let (status, page) = ask(&mut sender, upload).await;
        assert!(status == 413 && page.contains("413"), "{status} {page}");
    }
}

#[tokio::test]
async fn head_has_no_body() {
    let gateway = Gateway::of(Turtle::from_fn(async |_| Ok(Response::new(Body::from("turtle")))));
    let (mut sender, _) = connect(&gateway).await;
    let request = Request::head("http://a/").body(Full::default()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()["content-length"], "6");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "");
}

#[tokio::test]
async fn an_idle_connection_is_left() {
    let settings = Settings { keep_alive: milliseconds(300), ..Settings::default() };
    let gateway = Gateway::with(settings, echo());
    let (mut sender, connection) = connect(&gateway).await;
    assert_eq!(ask(&mut sender, post("/", "")).await.0, 200);
    sleep(milliseconds(150)).await;
    assert_eq!(ask(&mut sender, post("/", "")).await.0, 200);
    sleep(milliseconds(150)).await;
    assert_eq!(gateway.shutdown().open_connections(), 1);
    timeout(milliseconds(2000), connection).await.expect("a GOAWAY ends it").unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_listen_is_left_all_the_same() {
    let settings = Settings { header_timeout: milliseconds(200), ..Settings::default() };
    let gateway = Gateway::with(settings, echo());
    let mut client = gateway.connect().await;
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    client.rest().await;
}

#[tokio::test]
async fn a_drain_finishes_streams_and_takes_no_more() {
    let gateway = Gateway::of(Turtle::from_fn(async |_| {
        sleep(milliseconds(300)).await;
        Ok(Response::new(Body::from("done")))
    }));
    let (mut sender, connection) = connect(&gateway).await;
    let mut other = sender.clone();
    let under_way = tokio::spawn(async move { ask(&mut other, post("/", "")).await });
    sleep(milliseconds(50)).await;
    gateway.shutdown().begin();
    assert_eq!(under_way.await.unwrap(), (200, "done".to_owned()));
    assert_eq!(gateway.wait().await.cut, 0);
    connection.await.unwrap().ok();
    assert!(sender.send_request(post("/", "")).await.is_err());
}

/// A frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// The next frame's type and flags, and what it carries.
async fn next(client: &mut Client<TcpStream>) -> (u8, u8, Vec<u8>) {
    let head = client.exactly(9).await;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    (head[3], head[4], client.exactly(length as usize).await)
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
/// Of `SETTINGS` and `PING`: an acknowledgement; of `DATA` and `HEADERS`: the end of the stream.
const LAST: u8 = 1;

/// A socket that is closed with unread bytes in it is reset, and what the client has not taken yet is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_answer_is_read_by_a_client_that_is_still_sending() {
    const SIZE: usize = 4 * 1024 * 1024;
    let gateway =
        Gateway::of(Turtle::from_fn(async |_| Ok(Response::new(Body::from(Bytes::from(vec![b'x'; SIZE]))))));
    let mut client = gateway.connect().await;
    let window = &[0, 4, 0x7f, 0xff, 0xff, 0xff];
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    client.send(frame(SETTINGS, 0, 0, window)).await;
    client.send(frame(WINDOW_UPDATE, 0, 0, &[0x3f, 0, 0, 0])).await;
    // GET, http, / and the authority `a` (RFC 7541 appendix A).
    client.send(frame(HEADERS, 4 | LAST, 1, &[0x82, 0x86, 0x84, 0x01, 1, b'a'])).await;
    while next(&mut client).await.0 != HEADERS {}
    gateway.shutdown().begin();
    let (mut took, mut pings) = (0, 0);
    loop {
        match next(&mut client).await {
            (DATA, flags, data) => {
                took += data.len();
                if flags & LAST != 0 {
                    break;
                }
                // As the clients that widen a window with whatever they take.
                client.send(frame(PING, 0, 0, b"any more")).await;
                pings += 1;
                sleep(milliseconds(1)).await;
            }
            (PING, 0, said) => client.send(frame(PING, LAST, 0, &said)).await,
            _ => {}
        }
    }
    assert_eq!(took, SIZE);
    assert!(pings > 100, "{pings}");
    drop(client);
    assert_eq!(gateway.wait().await.cut, 0);
}
