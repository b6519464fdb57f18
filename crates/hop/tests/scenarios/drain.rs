//! Workers that end in good order.

use std::sync::Arc;

use hawksbill_core::{Body, Kind, Turtle};
use http::Response;
use tokio::sync::Notify;

use crate::support::{Hop, get, soon, text};

/// Answers when it is told to.
fn waiting(go: &Arc<Notify>) -> Turtle {
    let go = go.clone();
    Turtle::from_fn(move |_| {
        let go = go.clone();
        async move {
            go.notified().await;
            Ok(Response::new(Body::from("finished")))
        }
    })
}

#[tokio::test]
async fn what_is_under_way_is_finished_and_nothing_new_is_taken() {
    let go = Arc::new(Notify::new());
    let hop = Hop::to(waiting(&go)).await;
    let call = hop.front.ask(get("/"));
    hop.settled().await;
    hop.worker.drain();
    hop.settled().await;
    assert!(!hop.front.is_open());
    let error = hop.ask(get("/")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::BadGateway, true));
    go.notify_one();
    assert_eq!(text(soon(call).await.unwrap()).await, "finished");
    soon(hop.worker.drained()).await;
    soon(hop.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_that_cross_the_news_are_served() {
    let go = Arc::new(Notify::new());
    let hop = Hop::to(waiting(&go)).await;
    // Neither end has had its turn yet: the request is on its way while the worker says that it leaves.
    hop.worker.drain();
    let call = hop.front.ask(get("/"));
    go.notify_one();
    assert_eq!(text(soon(call).await.unwrap()).await, "finished");
    soon(hop.worker.drained()).await;
}

#[tokio::test]
async fn an_idle_worker_ends_at_once() {
    let hop = Hop::to(crate::support::echo_path()).await;
    assert_eq!(hop.get("/before").await, "/before");
    hop.worker.drain();
    soon(hop.worker.drained()).await;
    soon(hop.front.ended()).await;
}

#[tokio::test]
async fn a_cut_ends_what_is_under_way() {
    let hop = Hop::to(crate::support::stuck()).await;
    let call = hop.front.ask(get("/"));
    hop.settled().await;
    hop.worker.drain();
    hop.worker.cut();
    assert_eq!(soon(call).await.unwrap_err().kind(), Kind::BadGateway);
    soon(hop.worker.drained()).await;
}
