//! Bodies both ways: large ones, slow ones, many at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hawksbill_core::body::to_bytes;
use hawksbill_core::{Body, Error, Kind, Turtle};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::Barrier;

use crate::support::{Hop, blocks, echo_path, get, post, soon, stuck, text};

const MEGABYTE: usize = 1024 * 1024;

async fn length(mut body: Body) -> Result<usize, Error> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.into_data().map_or(0, |data| data.len());
    }
    Ok(length)
}

/// Sends back what comes, block by block.
fn echo() -> Turtle {
    Turtle::from_fn(async |request: Request<Body>| Ok(Response::new(request.into_body())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_megabytes_up_and_down() {
    let hop = Hop::to(echo()).await;
    let (body, taken) = blocks(800, 64 * 1024);
    let response = hop.ask(post(body)).await.unwrap();
    assert_eq!(soon(length(response.into_body())).await.unwrap(), 50 * MEGABYTE);
    assert_eq!(taken.load(Ordering::SeqCst), 50 * MEGABYTE);
    // One block, which is cut where it is and not copied.
    let response = hop.ask(post(Body::from(vec![b'x'; 50 * MEGABYTE]))).await.unwrap();
    assert_eq!(response.body().size_hint().exact(), Some(50 * MEGABYTE as u64));
    assert_eq!(soon(length(response.into_body())).await.unwrap(), 50 * MEGABYTE);
}

#[tokio::test]
async fn small_bodies_are_what_they_were() {
    let hop = Hop::to(echo()).await;
    for size in [0, 1, 4095, 4096, 20_000, 65_536, 70_000] {
        let body = vec![u8::try_from(size % 251).unwrap(); size];
        let response = hop.ask(post(Body::from(body.clone()))).await.unwrap();
        assert_eq!(response.body().size_hint().exact(), Some(size as u64));
        assert_eq!(soon(to_bytes(response.into_body(), MEGABYTE)).await.unwrap(), body);
    }
    assert_eq!(hop.front.in_flight(), 0);
}

#[tokio::test]
async fn who_does_not_read_holds_up_the_sender_alone() {
    let (body, taken) = blocks(800, 64 * 1024);
    let body = Arc::new(std::sync::Mutex::new(Some(body)));
    let turtle = Turtle::from_fn(move |request: Request<Body>| {
        let body = if request.uri().path() == "/large" { body.lock().unwrap().take() } else { None };
        async move { Ok(Response::new(body.unwrap_or_default())) }
    });
    let hop = Hop::to(turtle).await;
    let mut slow = hop.ask(get("/large")).await.unwrap().into_body();
    soon(slow.frame()).await.unwrap().unwrap();
    hop.settled().await;
    let sent = taken.load(Ordering::SeqCst);
    assert!(sent <= 4 * 64 * 1024, "{sent} bytes were taken for a reader of one block");
    assert_eq!(hop.get("/other").await, "");
    assert!(soon(length(slow)).await.unwrap() > 49 * MEGABYTE);
}

#[tokio::test]
async fn an_upload_that_nobody_reads_is_not_taken() {
    let hop = Hop::to(stuck()).await;
    let (body, taken) = blocks(800, 64 * 1024);
    let call = hop.front.ask(post(body));
    hop.settled().await;
    let sent = taken.load(Ordering::SeqCst);
    assert!(sent <= 3 * 64 * 1024, "{sent} bytes were taken for nobody");
    drop(call);
}

#[tokio::test]
async fn three_hundred_readers_that_do_not_read() {
    let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = taken.clone();
    let turtle = Turtle::from_fn(move |request: Request<Body>| {
        let counter = counter.clone();
        async move {
            if request.uri().path() != "/large" {
                return Ok(Response::new(Body::from("here")));
            }
            let blocks = std::iter::repeat_n(bytes::Bytes::from(vec![b'x'; 16 * 1024]), 64);
            let blocks = blocks.inspect(move |block| {
                counter.fetch_add(block.len(), Ordering::SeqCst);
            });
            Ok(Response::new(Body::from_stream(futures_util::stream::iter(blocks.map(Ok::<_, Error>)))))
        }
    });
    let hop = Hop::to(turtle).await;
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(hop.ask(get("/large")).await.unwrap());
    }
    hop.settled().await;
    let sent = taken.load(Ordering::SeqCst);
    assert!(sent <= 300 * 5 * 16 * 1024, "{sent} bytes wait for readers that do not read");
    assert_eq!(hop.get("/other").await, "here");
    for response in held {
        assert_eq!(soon(length(response.into_body())).await.unwrap(), MEGABYTE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_at_once() {
    let barrier = Arc::new(Barrier::new(1000));
    let hop = Hop::to(Turtle::from_fn(move |request: Request<Body>| {
        let barrier = barrier.clone();
        async move {
            barrier.wait().await;
            let body = to_bytes(request.into_body(), 99).await?;
            Ok(Response::new(Body::from(body)))
        }
    }))
    .await;
    let calls = (0..1000).map(|number: u32| {
        let call = hop.front.ask(post(Body::from(number.to_string())));
        async move { assert_eq!(text(soon(call).await.unwrap()).await, number.to_string()) }
    });
    futures_util::future::join_all(calls).await;
    assert_eq!(hop.front.in_flight(), 0);
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let hop = Hop::to(echo()).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let frames = [Ok::<_, Error>(Frame::data("abc".into())), Ok(Frame::trailers(trailers.clone()))];
    let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
    let collected = soon(hop.ask(post(body)).await.unwrap().into_body().collect()).await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers));
    assert_eq!(collected.to_bytes(), "abc");
}

#[tokio::test]
async fn an_answer_flows_while_the_upload_does() {
    let hop = Hop::to(Turtle::from_fn(async |request: Request<Body>| {
        let counted = request.into_body().into_data_stream();
        let counted =
            futures_util::StreamExt::map(counted, |data| data.map(|data| format!("{},", data.len())));
        Ok(Response::new(Body::from_stream(counted)))
    }))
    .await;
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<&'static str>();
    let upload = futures_util::stream::unfold(receiver, |mut receiver| async {
        let block = receiver.recv().await?;
        Some((Ok::<_, Error>(block), receiver))
    });
    let mut body = hop.ask(post(Body::from_stream(upload))).await.unwrap().into_body();
    for block in ["a", "bb", "ccc"] {
        sender.send(block).unwrap();
        let answer = soon(body.frame()).await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(answer, format!("{},", block.len()));
    }
    drop(sender);
    assert!(soon(body.frame()).await.is_none());
}

#[tokio::test]
async fn a_body_that_is_expected_is_not_taken_before_it_is_asked_for() {
    let (ask, asked) = tokio::sync::oneshot::channel::<()>();
    let asked = Arc::new(tokio::sync::Mutex::new(Some(asked)));
    let hop = Hop::to(Turtle::from_fn(move |request: Request<Body>| {
        let asked = asked.clone();
        async move {
            asked.lock().await.take().unwrap().await.unwrap();
            Ok(Response::new(Body::from(to_bytes(request.into_body(), 99).await?)))
        }
    }))
    .await;
    let (body, taken) = blocks(3, 5);
    let mut request = post(body);
    request.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
    let call = hop.front.ask(request);
    hop.settled().await;
    assert_eq!(taken.load(Ordering::SeqCst), 0);
    ask.send(()).unwrap();
    assert_eq!(text(soon(call).await.unwrap()).await.len(), 15);
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_an_error_for_the_application() {
    let hop = Hop::to(Turtle::from_fn(async |request: Request<Body>| {
        let error = to_bytes(request.into_body(), 99).await.unwrap_err();
        Ok(Response::new(Body::from(error.to_string())))
    }))
    .await;
    let broken = [Ok("abc"), Err(Error::new(Kind::BadRequest).because("the client left"))];
    let body = Body::from_stream(futures_util::stream::iter(broken));
    assert_eq!(text(hop.ask(post(body)).await.unwrap()).await, "400 Bad Request: the client left");
}

#[tokio::test]
async fn errors_keep_their_kinds_and_headers() {
    let hop = Hop::to(Turtle::from_fn(async |request: Request<Body>| {
        assert!(request.uri().path() != "/panics", "on purpose");
        let retry = HeaderValue::from_static("7");
        Err(Error::new(Kind::Overloaded).because("full").header(http::header::RETRY_AFTER, retry))
    }))
    .await;
    let error = hop.ask(get("/")).await.unwrap_err();
    assert_eq!(error.to_string(), "503 Service Unavailable: full");
    assert_eq!(error.headers()["retry-after"], "7");
    let error = hop.ask(get("/panics")).await.unwrap_err();
    assert_eq!(error.to_string(), "500 Internal Server Error: the application panicked: on purpose");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_behind_what_came() {
    let hop = Hop::to(Turtle::from_fn(async |_| {
        let blocks = [Ok("abc"), Err(Error::new(Kind::GatewayTimeout).because("the disk hangs"))];
        Ok(Response::new(Body::from_stream(futures_util::stream::iter(blocks))))
    }))
    .await;
    let mut body = hop.ask(get("/")).await.unwrap().into_body();
    assert_eq!(soon(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "abc");
    let error = soon(body.frame()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::GatewayTimeout);
    assert!(soon(body.frame()).await.is_none());
}

#[tokio::test]
async fn heads_that_are_too_large_fail_by_themselves() {
    let hop = Hop::to(Turtle::from_fn(async |request: Request<Body>| {
        let mut response = Response::new(Body::from("here"));
        if request.uri().path() == "/large" {
            let value = HeaderValue::from_bytes(&vec![b'x'; MEGABYTE]).unwrap();
            response.headers_mut().insert("x-large", value);
        }
        Ok(response)
    }))
    .await;
    assert_eq!(hop.ask(get("/large")).await.unwrap_err().kind(), Kind::Internal);
    let mut request = get("/");
    request.headers_mut().insert("x-large", HeaderValue::from_bytes(&vec![b'x'; MEGABYTE]).unwrap());
    assert_eq!(hop.ask(request).await.unwrap_err().kind(), Kind::HeadersTooLarge);
    assert_eq!(hop.get("/").await, "here");
    assert_eq!(hop.front.in_flight(), 0);
}

#[tokio::test]
async fn many_requests_one_after_the_other() {
    let hop = Hop::to(echo_path()).await;
    for number in 0..2000 {
        assert_eq!(hop.get(&format!("/{number}")).await, format!("/{number}"));
    }
}
