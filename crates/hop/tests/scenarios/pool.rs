//! Several workers: who is asked, who waits, what happens when one is lost.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hawksbill_core::{Body, Error, Kind, Turtle, TurtleFuture};
use hawksbill_hop::wire::{Hello, Limits};
use hawksbill_hop::{Pool, PoolSettings, Settings, Worker, WorkerId};
use http::{Method, Request, Response};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::support::{by_hand, get, named, post, soon, stuck, text};

fn pool() -> Pool {
    with_queue(100)
}

fn with_queue(queue: usize) -> Pool {
    let patience = Duration::from_millis(200);
    Pool::new(PoolSettings { name: "app shop".to_owned(), queue, patience, ..PoolSettings::default() })
}

/// A worker of a pool, at the other end of a pair of sockets.
struct Joined {
    id: WorkerId,
    worker: Worker,
    serving: JoinHandle<()>,
}

async fn join(pool: &Pool, capacity: u32, turtle: Turtle) -> Joined {
    let (near, far) = UnixStream::pair().unwrap();
    let worker = Worker::new(Settings::default(), capacity);
    let serving = tokio::spawn({
        let worker = worker.clone();
        async move { worker.serve(far, turtle).await.unwrap() }
    });
    Joined { id: soon(pool.add_stream(near)).await.unwrap(), worker, serving }
}

/// A worker that listens at a path.
fn listen(path: &Path, turtle: Turtle) -> Worker {
    let worker = Worker::new(Settings::default(), 8);
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn({
        let worker = worker.clone();
        async move { worker.listen(listener, turtle).await }
    });
    worker
}

fn ask(pool: &Pool) -> TurtleFuture {
    pool.turtle().ask(get("/"))
}

async fn answer(call: TurtleFuture) -> String {
    text(soon(call).await.unwrap()).await
}

/// Answers once for each permit.
fn gated(gate: &Arc<Notify>) -> Turtle {
    let gate = gate.clone();
    Turtle::from_fn(move |_| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            Ok(Response::new(Body::from("served")))
        }
    })
}

fn loads(pool: &Pool) -> Vec<usize> {
    pool.workers().iter().map(|worker| worker.in_flight).collect()
}

#[tokio::test]
async fn the_least_busy_for_its_capacity_is_asked() {
    let pool = pool();
    for capacity in [2, 6] {
        join(&pool, capacity, stuck()).await;
    }
    let mut calls = Vec::new();
    for expected in [[1, 3], [2, 6]] {
        calls.extend((0..4).map(|_| ask(&pool)));
        assert_eq!(loads(&pool), expected);
    }
}

#[tokio::test]
async fn equals_take_turns() {
    let pool = pool();
    for name in ["one", "two", "three"] {
        join(&pool, 4, named(name)).await;
    }
    let mut names = HashSet::new();
    for _ in 0..3 {
        names.insert(answer(ask(&pool)).await);
    }
    assert_eq!(names.len(), 3);
}

#[tokio::test]
async fn who_finds_no_room_waits_and_too_many_are_turned_away() {
    let gate = Arc::new(Notify::new());
    let pool = with_queue(2);
    join(&pool, 1, gated(&gate)).await;
    let served = ask(&pool);
    let mut waiting: Vec<_> = (0..2).map(|_| tokio::spawn(ask(&pool))).collect();
    while pool.waiting() < 2 {
        tokio::task::yield_now().await;
    }
    let error = soon(ask(&pool)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "503 Service Unavailable: all workers of app shop are busy and its queue is full"
    );
    assert_eq!(error.into_response().headers()["retry-after"], "1");
    gate.notify_one();
    assert_eq!(answer(served).await, "served");
    // One after the other, the one that came first.
    for call in waiting.drain(..) {
        gate.notify_one();
        assert_eq!(text(soon(call).await.unwrap().unwrap()).await, "served");
    }
    assert_eq!((loads(&pool), pool.waiting()), (vec![0], 0));
}

#[tokio::test]
async fn who_gives_up_waiting_takes_no_room() {
    let gate = Arc::new(Notify::new());
    let pool = with_queue(1);
    join(&pool, 1, gated(&gate)).await;
    let served = ask(&pool);
    let gives_up = tokio::spawn(ask(&pool));
    while pool.waiting() < 1 {
        tokio::task::yield_now().await;
    }
    gives_up.abort();
    gives_up.await.unwrap_err();
    let waits = tokio::spawn(ask(&pool));
    while pool.waiting() < 1 {
        tokio::task::yield_now().await;
    }
    gate.notify_one();
    answer(served).await;
    gate.notify_one();
    assert_eq!(text(soon(waits).await.unwrap().unwrap()).await, "served");
}

#[tokio::test]
async fn a_worker_that_makes_room_is_asked() {
    let pool = pool();
    let joined = join(&pool, 0, named("one")).await;
    let call = tokio::spawn(ask(&pool));
    while pool.waiting() < 1 {
        tokio::task::yield_now().await;
    }
    joined.worker.set_capacity(1);
    assert_eq!(text(soon(call).await.unwrap().unwrap()).await, "one");
}

#[tokio::test]
async fn without_a_worker_requests_wait_for_a_while() {
    let pool = pool();
    let call = tokio::spawn(ask(&pool));
    while pool.waiting() < 1 {
        tokio::task::yield_now().await;
    }
    let joined = join(&pool, 1, named("there")).await;
    assert_eq!(text(soon(call).await.unwrap().unwrap()).await, "there");
    pool.remove(joined.id);
    let error = soon(ask(&pool)).await.unwrap_err();
    assert_eq!(error.to_string(), "503 Service Unavailable: app shop has no worker");
}

/// A worker that never answers, and that says how many requests it has seen.
fn counting(seen: &Arc<AtomicUsize>) -> Turtle {
    let seen = seen.clone();
    Turtle::from_fn(move |_| {
        seen.fetch_add(1, Ordering::SeqCst);
        std::future::pending()
    })
}

async fn until_it_is(seen: &AtomicUsize, count: usize) {
    soon(async {
        while seen.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_lost_worker_saw_fails_unless_it_is_safe_and_it_is_asked_no_more() {
    let (pool, seen) = (pool(), Arc::default());
    let lost = join(&pool, 8, counting(&seen)).await;
    let request = |method| Request::builder().method(method).uri("/").body(Body::empty()).unwrap();
    let mut asked = |method| pool.turtle().ask(request(method));
    let unsafe_ones = [Method::POST, Method::PUT, Method::DELETE, Method::PATCH].map(&mut asked);
    let safe_ones = [Method::GET, Method::HEAD, Method::OPTIONS].map(asked);
    until_it_is(&seen, 7).await;
    join(&pool, 8, named("other")).await;
    lost.serving.abort();
    for call in unsafe_ones {
        assert_eq!(soon(call).await.unwrap_err().kind(), Kind::BadGateway);
    }
    for call in safe_ones {
        assert_eq!(soon(call).await.unwrap().status(), 200);
    }
    for _ in 0..10 {
        assert_eq!(answer(ask(&pool)).await, "other");
    }
    assert_eq!(pool.workers().len(), 1);
}

#[tokio::test]
async fn what_ends_its_workers_is_tried_by_two_of_them_at_most() {
    let (pool, seen) = (pool(), Arc::<AtomicUsize>::default());
    let call = tokio::spawn(ask(&pool));
    for tried in 1..=2 {
        let worker = join(&pool, 1, counting(&seen)).await;
        until_it_is(&seen, tried).await;
        worker.serving.abort();
    }
    join(&pool, 1, counting(&seen)).await;
    assert_eq!(soon(call).await.unwrap().unwrap_err().kind(), Kind::BadGateway);
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_a_lost_worker_never_saw_goes_to_another() {
    let pool = pool();
    let (near, mut blocked) = UnixStream::pair().unwrap();
    let limits = Limits { window: 4 << 20, ..Limits::default() };
    let adding = tokio::spawn({
        let pool = pool.clone();
        async move { pool.add_stream(near).await.unwrap() }
    });
    by_hand(&mut blocked, &Hello::ours(limits, 100)).await;
    soon(adding).await.unwrap();
    // An upload fills the socket of a worker that reads nothing.
    let (full, filled) = tokio::sync::oneshot::channel();
    let mut full = Some(full);
    let blocks = (0..).map(move |number| {
        if number == 8
            && let Some(full) = full.take()
        {
            full.send(()).ok();
        }
        Ok::<_, Error>(vec![0; 64 * 1024])
    });
    let upload = tokio::spawn(pool.turtle().ask(post(Body::from_stream(futures_util::stream::iter(blocks)))));
    soon(filled).await.unwrap();
    let unseen: Vec<_> = (0..20)
        .map(|number| {
            let body = if number % 2 == 0 { Body::empty() } else { Body::from("small") };
            tokio::spawn(pool.turtle().ask(post(body)))
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(loads(&pool), [21]);
    join(&pool, 100, named("other")).await;
    drop(blocked);
    assert_eq!(soon(upload).await.unwrap().unwrap_err().kind(), Kind::BadGateway);
    for call in unseen {
        assert_eq!(text(soon(call).await.unwrap().unwrap()).await, "other");
    }
}

#[tokio::test]
async fn a_worker_is_connected_to_when_it_is_there_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("worker.sock");
    let pool = pool();
    let id = pool.add(&path);
    let call = tokio::spawn(ask(&pool));
    let first = listen(&path, named("first"));
    assert!(soon(pool.ready(id)).await);
    assert_eq!(text(soon(call).await.unwrap().unwrap()).await, "first");
    first.cut();
    soon(first.drained()).await;
    std::fs::remove_file(&path).unwrap();
    listen(&path, named("second"));
    while pool.workers()[0].trouble.is_none() {
        tokio::task::yield_now().await;
    }
    assert!(soon(pool.ready(id)).await);
    assert_eq!(answer(ask(&pool)).await, "second");
    pool.remove(id);
    assert!(!soon(pool.ready(id)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_are_exchanged_and_no_request_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let pool = pool();
    let socket = |number: usize| directory.path().join(format!("{number}.sock"));
    let mut worker = listen(&socket(0), named("served"));
    let mut id = pool.add(socket(0));
    assert!(soon(pool.ready(id)).await);
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let turtle = pool.turtle();
            tokio::spawn(async move {
                for _ in 0..200 {
                    let body = Body::from_stream(futures_util::stream::iter([Ok::<_, Error>("streamed")]));
                    let response = soon(turtle.ask(post(body))).await.unwrap();
                    assert_eq!(text(response).await, "served");
                }
            })
        })
        .collect();
    for number in 1..6 {
        let next = listen(&socket(number), named("served"));
        let next_id = pool.add(socket(number));
        assert!(soon(pool.ready(next_id)).await);
        // Either end may begin.
        if number % 2 == 0 {
            worker.drain();
        }
        soon(pool.drain(id)).await;
        worker.drain();
        soon(worker.drained()).await;
        (worker, id) = (next, next_id);
    }
    for client in clients {
        soon(client).await.unwrap();
    }
    assert_eq!(pool.workers().len(), 1);
}
