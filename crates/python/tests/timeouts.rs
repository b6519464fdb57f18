//! Applications that do not answer in time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of test functions")]

mod common;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{App, PATIENCE};
use hawksbill_core::config::Duration as Span;
use hawksbill_core::{Body, Error, Kind, Side, Stuck};
use hawksbill_python::Options;
use http::Request;

const TIMEOUT: Span = Span::from_millis(300);

const WSGI: &str = "
import threading
go_on = threading.Event()
def stubborn_view():
    go_on.wait()
def app(environ, start_response):
    if environ['PATH_INFO'] == '/stubborn':
        stubborn_view()
    read = environ['wsgi.input'].read()
    start_response('200 OK', [])
    return [b'served', read]
";

const ASGI: &str = "
import asyncio, time
ended, go_on = [], []
async def stubborn_view(scope):
    try:
        await asyncio.Event().wait()
    except BaseException as error:
        ended.append(type(error).__name__)
        raise
def computing_view():
    while not go_on:
        time.sleep(0.001)
async def app(scope, receive, send):
    if scope['type'] != 'http':
        return
    if scope['path'] == '/stubborn':
        await stubborn_view(scope)
    if scope['path'] == '/computing':
        computing_view()
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message['body']), message['more_body']
    await send({'type': 'http.response.start', 'status': 200})
    if scope['path'] == '/streaming':
        await asyncio.sleep(1)
    await send({'type': 'http.response.body', 'body': b'%d' % size})
";

fn options(threads: usize) -> Options {
    Options { timeout: TIMEOUT, threads, ..Options::default() }
}

async fn fail(app: &App, path: &str) -> Error {
    let began = Instant::now();
    let error = app.ask(Request::get(path), Body::empty()).await.unwrap_err();
    let took = began.elapsed();
    assert!(took >= TIMEOUT.get() && took < TIMEOUT.get() * 4, "{took:?}");
    error
}

fn told(app: &App) -> mpsc::Receiver<Stuck> {
    let (tell, told) = mpsc::channel();
    app.vitals().on_stuck(move |stuck| tell.send(stuck.clone()).unwrap());
    told
}

/// Blocks that come one after the other, for longer than the timeout altogether.
fn slow_body() -> Body {
    let blocks = futures_util::stream::unfold(0, |at| async move {
        tokio::time::sleep(TIMEOUT.get() / 2).await;
        (at < 6).then_some((Ok::<_, Error>("block"), at + 1))
    });
    Body::from_stream(blocks)
}

#[tokio::test]
async fn a_call_that_hangs_is_answered_by_another_and_holds_up_nobody() {
    let app = App::with(WSGI, options(2)).await.unwrap();
    let stuck = told(&app);
    let error = fail(&app, "/stubborn").await;
    assert_eq!((error.kind(), error.side()), (Kind::GatewayTimeout, Side::Application));
    let stuck = tokio::task::spawn_blocking(move || stuck.recv_timeout(PATIENCE)).await.unwrap().unwrap();
    assert_eq!(stuck.what, "GET /stubborn of application test");
    assert!(stuck.detail.contains("thread wsgi-test-1:\n"), "{}", stuck.detail);
    assert!(stuck.detail.contains("in stubborn_view\n"), "{}", stuck.detail);

    assert_eq!(app.get("/").await.0, 200);
    let sample = app.vitals().sample();
    assert_eq!((sample.begun, sample.most, sample.slots, sample.waiting), (2, 2, 2, 0));
    assert!(app.vitals().ask("stacks").unwrap().contains("in stubborn_view\n"));
    app.eval("go_on.set()");
    app.stop().await;
}

#[tokio::test]
async fn who_waits_for_a_thread_in_vain_may_ask_again() {
    let app = App::with(WSGI, options(1)).await.unwrap();
    let (hangs, waits) = tokio::join!(fail(&app, "/stubborn"), fail(&app, "/"));
    assert_eq!(hangs.kind(), Kind::GatewayTimeout);
    assert_eq!((waits.kind(), waits.is_retryable()), (Kind::Overloaded, true));
    app.eval("go_on.set()");
    assert_eq!(app.get("/").await.0, 200);
    app.stop().await;
}

#[tokio::test]
async fn the_time_that_a_client_takes_to_send_its_body_is_its_own() {
    for source in [WSGI, ASGI] {
        let app = App::with(source, options(1)).await.unwrap();
        let response = app.ask(Request::post("/"), slow_body()).await.unwrap();
        assert_eq!(response.status(), 200);
        app.stop().await;
    }
}

#[tokio::test]
async fn no_timeout_is_none() {
    for source in [WSGI, ASGI] {
        let app = App::with(source, Options { timeout: Span::default(), ..options(1) }).await.unwrap();
        let asked = app.ask(Request::get("/stubborn"), Body::empty());
        assert!(tokio::time::timeout(Duration::from_secs(1), asked).await.is_err());
        app.eval(if source == WSGI { "go_on.set()" } else { "None" });
        app.stop().await;
    }
}

#[tokio::test]
async fn a_task_that_waits_for_ever_is_cancelled() {
    let app = App::with(ASGI, options(1)).await.unwrap();
    let stuck = told(&app);
    assert_eq!(fail(&app, "/stubborn").await.kind(), Kind::GatewayTimeout);
    app.until("ended == ['CancelledError']").await;
    assert!(stuck.try_recv().is_err(), "a task can be ended");
    assert_eq!(app.get("/").await.0, 200);
    // An application goes on for a moment when its answer is there.
    let is_over = async {
        while app.vitals().sample().running > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_over).await.unwrap();
    let sample = app.vitals().sample();
    assert_eq!((sample.begun, sample.running, sample.slots), (2, 0, 0));
    app.stop().await;
}

#[tokio::test]
async fn an_answer_that_has_begun_takes_its_time() {
    let app = App::with(ASGI, options(1)).await.unwrap();
    assert_eq!(app.get("/streaming").await.0, 200);
    app.stop().await;
}

#[tokio::test]
async fn a_loop_that_does_not_turn_is_told_and_its_clients_are_answered() {
    let app = App::with(ASGI, options(1)).await.unwrap();
    let stuck = told(&app);
    let (computes, waits) = tokio::join!(fail(&app, "/computing"), fail(&app, "/"));
    assert_eq!((computes.kind(), waits.kind()), (Kind::GatewayTimeout, Kind::GatewayTimeout));
    let stuck = tokio::task::spawn_blocking(move || stuck.recv_timeout(PATIENCE)).await.unwrap().unwrap();
    assert_eq!(stuck.what, "the event loop");
    assert!(stuck.detail.contains("thread event loop:\n"), "{}", stuck.detail);
    assert!(stuck.detail.contains("in computing_view\n"), "{}", stuck.detail);
    app.eval("go_on.append(1)");
    assert_eq!(app.get("/").await.0, 200);
    app.stop().await;
}
