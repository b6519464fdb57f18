//! Who breaks a rule loses the connection, and nothing else happens.

use std::time::Duration;

use hawksbill_core::Kind;
use hawksbill_hop::wire::{END, FrameHeader, FrameKind, HEADER, Hello, Limits, Role, StreamId, UPGRADE};
use hawksbill_hop::{Connection, Fault, Settings, Worker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::{by_hand, echo_path, get, soon, stuck};

fn frame(kind: FrameKind, flags: u8, slot: u32, generation: u32, payload: &[u8]) -> Vec<u8> {
    let stream = StreamId { slot, generation };
    let mut bytes = FrameHeader { length: payload.len(), kind, flags, stream }.encode().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// The head of `GET /`, by hand.
fn request() -> Vec<u8> {
    let mut payload = vec![11];
    payload.extend_from_slice(&u64::MAX.to_le_bytes());
    for text in ["GET", "/"] {
        payload.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
        payload.extend_from_slice(text.as_bytes());
    }
    payload.extend_from_slice(&[0; 12 + 1 + 1 + 4]);
    payload
}

/// The head of a 200, by hand.
fn response() -> Vec<u8> {
    let mut payload = 200_u16.to_le_bytes().to_vec();
    payload.extend_from_slice(&u64::MAX.to_le_bytes());
    payload.extend_from_slice(&[0; 4]);
    payload
}

fn ours() -> Hello {
    Hello::ours(Limits::default(), 8)
}

#[tokio::test]
async fn fronts_that_break_a_rule() {
    let begin = frame(FrameKind::Request, 0, 0, 1, &request());
    let too_long = FrameHeader {
        length: 1 << 30,
        ..FrameHeader::decode(begin[..HEADER].try_into().unwrap(), Role::Front, &Limits::default()).unwrap()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("kind 0", vec![0; HEADER]),
        ("kind 99", [&[0, 0, 0, 0, 99], &[0; 11][..]].concat()),
        ("too long", too_long.encode().to_vec()),
        ("a response", frame(FrameKind::Response, 0, 0, 1, &response())),
        ("room", frame(FrameKind::Room, 0, u32::MAX, 0, &[0; 4])),
        ("a flag that it has not", frame(FrameKind::Data, UPGRADE, 0, 1, b"")),
        ("a slot beyond the limit", frame(FrameKind::Request, END, 4096, 1, &request())),
        ("no slot", frame(FrameKind::Request, END, u32::MAX, 0, &request())),
        ("a ping about a stream", frame(FrameKind::Ping, 0, 0, 1, &[0; 8])),
        ("a head that is none", frame(FrameKind::Request, END, 0, 1, &[9; 30])),
        ("a head that is longer", frame(FrameKind::Request, END, 0, 1, &[&request()[..], &[0]].concat())),
        ("data for nothing", frame(FrameKind::Data, 0, 7, 1, b"x")),
        ("a stream to come", [begin.clone(), frame(FrameKind::Data, 0, 0, 2, b"x")].concat()),
        ("a slot that is not free", [begin.clone(), frame(FrameKind::Request, 0, 0, 2, &request())].concat()),
        (
            "an old generation",
            [
                frame(FrameKind::Request, 0, 0, 5, &request()),
                frame(FrameKind::Reset, 0, 0, 5, b""),
                frame(FrameKind::Request, 0, 0, 4, &request()),
            ]
            .concat(),
        ),
        (
            "data behind the end",
            [begin.clone(), frame(FrameKind::Data, END, 0, 1, b"x"), frame(FrameKind::Data, END, 0, 1, b"x")]
                .concat(),
        ),
        (
            "more than its credit",
            [begin.clone(), frame(FrameKind::Data, 0, 0, 1, &[0; 32_000]).repeat(3)].concat(),
        ),
        ("endless credit", [begin.clone(), frame(FrameKind::Credit, 0, 0, 1, &[0xff; 4])].concat()),
        ("trailers that are none", [begin.clone(), frame(FrameKind::Trailers, 0, 0, 1, &[1; 9])].concat()),
        ("a request behind the last", [frame(FrameKind::Leave, 0, u32::MAX, 0, b""), begin.clone()].concat()),
    ];
    for (what, bytes) in cases {
        let (mut front, far) = UnixStream::pair().unwrap();
        let worker = Worker::new(Settings::default(), 8);
        let serving = tokio::spawn(async move { worker.serve(far, stuck()).await });
        by_hand(&mut front, &ours()).await;
        front.write_all(&bytes).await.unwrap();
        let fault = soon(serving).await.unwrap();
        assert!(matches!(fault, Err(Fault::Broken(_))), "{what}: {fault:?}");
        let mut rest = Vec::new();
        // Closed with unread bytes in it, a Unix socket is reset.
        soon(front.read_to_end(&mut rest)).await.ok();
    }
}

#[tokio::test]
async fn workers_that_break_a_rule() {
    let answer = frame(FrameKind::Response, 0, 0, 1, &response());
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a request", frame(FrameKind::Request, 0, 0, 2, &request())),
        ("two answers", answer.repeat(2)),
        ("an answer that switches", frame(FrameKind::Response, UPGRADE, 0, 1, &response())),
        ("an answer to nothing", frame(FrameKind::Response, 0, 5, 1, &response())),
        (
            "more than its credit",
            [answer.clone(), frame(FrameKind::Data, 0, 0, 1, &[0; 32_000]).repeat(3)].concat(),
        ),
        ("a status that is none", frame(FrameKind::Response, 0, 0, 1, &[0; 14])),
        ("a goodbye to one stream", frame(FrameKind::Leave, 0, 0, 1, b"")),
    ];
    for (what, bytes) in cases {
        let (near, mut worker) = UnixStream::pair().unwrap();
        let opening = tokio::spawn(async move { Connection::open(near, &Settings::default()).await });
        by_hand(&mut worker, &ours()).await;
        let front = soon(opening).await.unwrap().unwrap();
        let call = front.ask(get("/"));
        worker.write_all(&bytes).await.unwrap();
        let fault = soon(front.ended()).await;
        assert!(matches!(&*fault, Fault::Broken(_)), "{what}: {fault:?}");
        drop(call);
    }
}

#[tokio::test]
async fn a_body_that_is_longer_than_announced_fails_alone() {
    let (near, mut worker) = UnixStream::pair().unwrap();
    let opening = tokio::spawn(async move { Connection::open(near, &Settings::default()).await });
    by_hand(&mut worker, &ours()).await;
    let front = soon(opening).await.unwrap().unwrap();
    let (one, other) = (front.ask(get("/one")), front.ask(get("/other")));
    let mut head = response();
    head[2..10].copy_from_slice(&3_u64.to_le_bytes());
    worker.write_all(&frame(FrameKind::Response, 0, 0, 1, &head)).await.unwrap();
    worker.write_all(&frame(FrameKind::Data, 0, 0, 1, b"four")).await.unwrap();
    worker.write_all(&frame(FrameKind::Response, END, 1, 1, &response())).await.unwrap();
    assert_eq!(soon(other).await.unwrap().status(), 200);
    let body = soon(one).await.unwrap().into_body();
    let error = soon(hawksbill_core::body::to_bytes(body, 99)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::BadGateway);
    assert!(front.is_open());
}

#[tokio::test]
async fn late_frames_of_a_stream_that_is_over_are_skipped() {
    let (near, mut worker) = UnixStream::pair().unwrap();
    let opening = tokio::spawn(async move { Connection::open(near, &Settings::default()).await });
    by_hand(&mut worker, &ours()).await;
    let front = soon(opening).await.unwrap().unwrap();
    drop(front.ask(get("/")));
    let call = front.ask(get("/"));
    // The first call's answer, in the slot that the second one has now.
    worker.write_all(&frame(FrameKind::Response, END, 0, 1, &response())).await.unwrap();
    worker.write_all(&frame(FrameKind::Data, END, 0, 1, b"late")).await.unwrap();
    worker.write_all(&frame(FrameKind::Response, END, 0, 2, &response())).await.unwrap();
    assert_eq!(soon(call).await.unwrap().status(), 200);
}

#[tokio::test]
async fn versions_that_do_not_fit_are_both_named_at_both_ends() {
    let theirs = Hello { versions: (4, 6), release: "9.9.9".to_owned(), ..ours() };
    let (near, mut far) = UnixStream::pair().unwrap();
    let opening = tokio::spawn(async move { Connection::open(near, &Settings::default()).await });
    by_hand(&mut far, &theirs).await;
    let at_front = soon(opening).await.unwrap().unwrap_err().to_string();
    let (near, mut far) = UnixStream::pair().unwrap();
    let worker = Worker::new(Settings::default(), 8);
    let serving = tokio::spawn(async move { worker.serve(near, echo_path()).await });
    by_hand(&mut far, &theirs).await;
    let at_worker = soon(serving).await.unwrap().unwrap_err().to_string();
    for text in [at_front, at_worker] {
        assert!(
            text.contains("in versions 1 to 1")
                && text.contains("9.9.9")
                && text.contains("in versions 4 to 6"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn who_speaks_another_protocol_or_none() {
    let settings = Settings { hello_timeout: Duration::from_millis(100), ..Settings::default() };
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    assert!(matches!(soon(Connection::open(near, &settings)).await, Err(Fault::Stranger)));
    let (near, _far) = UnixStream::pair().unwrap();
    assert!(matches!(soon(Connection::open(near, &settings)).await, Err(Fault::Silent)));
    let (near, far) = UnixStream::pair().unwrap();
    drop(far);
    assert!(soon(Connection::open(near, &settings)).await.is_err());
}

#[tokio::test]
async fn pings_that_nobody_reads_the_answers_of_cost_nothing() {
    let (mut front, far) = UnixStream::pair().unwrap();
    let worker = Worker::new(Settings::default(), 8);
    let serving = tokio::spawn(async move { worker.serve(far, stuck()).await });
    by_hand(&mut front, &ours()).await;
    let pings = frame(FrameKind::Ping, 0, u32::MAX, 0, &[7; 8]).repeat(10_000);
    for _ in 0..20 {
        // As long as the worker reads on, it answers no more than it can write.
        soon(front.write_all(&pings)).await.unwrap();
    }
    drop(front);
    soon(serving).await.unwrap().unwrap();
}
