//! Nobody wants it any more: at the front, at the worker, and when one of them is gone.

use bytes::Bytes;
use hawksbill_core::{Body, Error, Kind, Turtle};
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::support::{Ends, Hop, blocks, echo_path, get, post, soon, stuck};

#[tokio::test]
async fn a_dropped_call_is_dropped_at_the_worker() {
    let (ends, mut ended) = mpsc::unbounded_channel();
    let (begins, mut begun) = mpsc::unbounded_channel();
    let hop = Hop::to(Turtle::from_fn(move |_| {
        let ends = Ends(ends.clone());
        begins.send(()).unwrap();
        async move {
            let _ends = ends;
            std::future::pending().await
        }
    }))
    .await;
    let call = hop.front.ask(get("/"));
    soon(begun.recv()).await.unwrap();
    assert_eq!(hop.front.in_flight(), 1);
    drop(call);
    assert_eq!(hop.front.in_flight(), 0);
    soon(ended.recv()).await.unwrap();
}

#[tokio::test]
async fn a_dropped_answer_is_dropped_at_the_worker() {
    let (ends, mut ended) = mpsc::unbounded_channel();
    let hop = Hop::to(Turtle::from_fn(move |_| {
        let ends = Ends(ends.clone());
        let blocks = futures_util::stream::repeat_with(move || {
            let _ends = &ends;
            Ok::<_, Error>(Bytes::from_static(&[0; 9000]))
        });
        async move { Ok(Response::new(Body::from_stream(blocks))) }
    }))
    .await;
    let mut response = hop.ask(get("/")).await.unwrap();
    soon(response.body_mut().frame()).await.unwrap().unwrap();
    drop(response);
    soon(ended.recv()).await.unwrap();
    assert_eq!(hop.front.in_flight(), 0);
}

#[tokio::test]
async fn an_upload_ends_when_the_application_wants_no_more() {
    struct Watched {
        body: Body,
        _ends: Ends,
    }
    impl http_body::Body for Watched {
        type Data = Bytes;
        type Error = Error;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Error>>> {
            std::pin::Pin::new(&mut self.body).poll_frame(cx)
        }
    }
    let (ends, mut ended) = mpsc::unbounded_channel();
    let hop = Hop::to(Turtle::from_fn(async |request: Request<Body>| {
        drop(request);
        Err(Error::new(Kind::BodyTooLarge))
    }))
    .await;
    let body = Body::new(Watched { body: blocks(usize::MAX, 1000).0, _ends: Ends(ends) });
    assert_eq!(hop.ask(post(body)).await.unwrap_err().kind(), Kind::BodyTooLarge);
    soon(ended.recv()).await.unwrap();
    hop.settled().await;
    assert_eq!(hop.front.in_flight(), 0);
}

#[tokio::test]
async fn a_body_read_elsewhere_ends_with_an_error_when_the_client_leaves() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let hop = Hop::to(Turtle::from_fn(move |request: Request<Body>| {
        let tell = tell.clone();
        // As a queue driver would: in a task that outlives the request.
        tokio::spawn(async move {
            let error = request.into_body().collect().await.unwrap_err();
            tell.send(error.kind()).unwrap();
        });
        std::future::pending()
    }))
    .await;
    let body = futures_util::StreamExt::chain(
        futures_util::stream::iter([Ok::<_, Error>("abc")]),
        futures_util::stream::pending(),
    );
    let call = hop.front.ask(post(Body::from_stream(body)));
    hop.settled().await;
    drop(call);
    assert_eq!(soon(told.recv()).await.unwrap(), Kind::BadRequest);
}

#[tokio::test]
async fn a_worker_that_dies_fails_all_its_requests_at_once() {
    let hop = Hop::to(stuck()).await;
    let calls: Vec<_> = (0..50).map(|_| hop.front.ask(get("/"))).collect();
    hop.settled().await;
    hop.serving.abort();
    for call in calls {
        let error = soon(call).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (Kind::BadGateway, false), "{error}");
    }
    soon(hop.front.ended()).await;
    let error = hop.ask(get("/")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::BadGateway, true), "{error}");
}

#[tokio::test]
async fn a_worker_that_dies_within_an_answer_cuts_it_short() {
    let hop = Hop::to(Turtle::from_fn(async |_| {
        let blocks = futures_util::StreamExt::chain(
            futures_util::stream::iter([Ok::<_, Error>("abc")]),
            futures_util::stream::pending(),
        );
        Ok(Response::new(Body::from_stream(blocks)))
    }))
    .await;
    let mut body = hop.ask(get("/")).await.unwrap().into_body();
    soon(body.frame()).await.unwrap().unwrap();
    hop.serving.abort();
    assert_eq!(soon(body.frame()).await.unwrap().unwrap_err().kind(), Kind::BadGateway);
}

#[tokio::test]
async fn a_front_that_is_gone_ends_the_calls() {
    let (ends, mut ended) = mpsc::unbounded_channel();
    let hop = Hop::to(Turtle::from_fn(move |_| {
        let ends = Ends(ends.clone());
        async move {
            let _ends = ends;
            std::future::pending().await
        }
    }))
    .await;
    let call = hop.front.ask(get("/"));
    hop.settled().await;
    hop.front.close();
    assert_eq!(soon(call).await.unwrap_err().kind(), Kind::BadGateway);
    soon(ended.recv()).await.unwrap();
    soon(hop.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_ends_with_its_last_user() {
    let hop = Hop::to(echo_path()).await;
    let answer = hop.front.ask(get("/last"));
    drop(hop.front);
    assert_eq!(crate::support::text(soon(answer).await.unwrap()).await, "/last");
    soon(hop.serving).await.unwrap().unwrap();
}
