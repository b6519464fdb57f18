//! ASGI applications through turtles: HTTP and lifespan.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of test functions")]

mod common;

use bytes::Bytes;
use common::{App, PATIENCE, whole};
use hawksbill_core::{Address, Body, Connection, Error, Kind, Mount, Peer, Scheme};
use hawksbill_python::{Lifespan, Options};
use http::{Request, Version};
use http_body_util::BodyExt;

fn body_of(parts: &[&'static str]) -> Body {
    let parts: Vec<_> = parts.iter().map(|part| Ok::<_, Error>(*part)).collect();
    Body::from_stream(futures_util::stream::iter(parts))
}

/// An application that answers with `repr(result)` of one expression over `scope`.
fn probe(expression: &str) -> String {
    format!(
        "async def app(scope, receive, send):
    if scope['type'] == 'lifespan': return
    result = repr({expression}).encode()
    await send({{'type': 'http.response.start', 'status': 200}})
    await send({{'type': 'http.response.body', 'body': result}})
"
    )
}

async fn ask(source: &str, request: http::request::Builder, body: Body) -> Result<String, Error> {
    let app = App::start(source).await;
    let response = app.ask(request, body).await;
    let text = match response {
        Ok(response) => whole(response).await,
        Err(error) => Err(error),
    };
    app.stop().await;
    text.map(|text| String::from_utf8(text.to_vec()).unwrap())
}

#[tokio::test]
async fn the_scope_has_the_types_of_the_specification() {
    let connection = Connection {
        remote: Address::Tcp("192.0.2.7:4711".parse().unwrap()),
        local: Address::Tcp("127.0.0.1:8000".parse().unwrap()),
        scheme: Scheme::Https,
    };
    let request = || {
        Request::post("/blog/b%C3%BCcher%2F1?q=%20x")
            .version(Version::HTTP_10)
            .extension(Peer::new(connection.clone()))
            .extension(Mount::new("/blog"))
            .header("X-A", "1")
            .header("Host", "example.com")
            .header("x-a", "2")
    };
    for (key, value) in [
        ("type", "'http'"),
        ("asgi", "{'version': '3.0', 'spec_version': '2.5'}"),
        ("http_version", "'1.0'"),
        ("method", "'POST'"),
        ("scheme", "'https'"),
        ("path", "'/blog/bücher/1'"),
        ("raw_path", "b'/blog/b%C3%BCcher%2F1'"),
        ("query_string", "b'q=%20x'"),
        ("root_path", "'/blog'"),
        ("headers", "[(b'host', b'example.com'), (b'x-a', b'1'), (b'x-a', b'2')]"),
        ("client", "('192.0.2.7', 4711)"),
        ("server", "('127.0.0.1', 8000)"),
        ("extensions", "{'http.response.pathsend': {}, 'http.response.zerocopysend': {}}"),
    ] {
        let found = ask(&probe(&format!("scope.get({key:?})")), request(), Body::empty()).await.unwrap();
        assert_eq!(found, value, "{key}");
    }
    let unix = Connection {
        remote: Address::Unix(None),
        local: Address::Unix(Some("/run/a.sock".into())),
        scheme: Scheme::Http,
    };
    let request = Request::get("/").version(Version::HTTP_2).extension(Peer::new(unix));
    let expression = "(scope['client'], scope['server'], scope['http_version'], scope['headers'])";
    let found = ask(&probe(expression), request, Body::empty()).await.unwrap();
    assert_eq!(found, "(None, ('/run/a.sock', None), '2', [])");
}

#[tokio::test]
async fn a_body_whose_end_is_known_is_told_in_one_message() {
    let source = probe("[await receive() for _ in range(1)]");
    let whole_body = ask(&source, Request::post("/"), Body::from("abc")).await.unwrap();
    assert_eq!(whole_body, "[{'type': 'http.request', 'body': b'abc', 'more_body': False}]");
    let none = ask(&source, Request::get("/"), Body::empty()).await.unwrap();
    assert_eq!(none, "[{'type': 'http.request', 'body': b'', 'more_body': False}]");
    let source = probe("[await receive() for _ in range(2)]");
    let parts = ask(&source, Request::post("/"), body_of(&["ab", "c"])).await.unwrap();
    assert_eq!(
        parts,
        "[{'type': 'http.request', 'body': b'ab', 'more_body': True}, \
         {'type': 'http.request', 'body': b'c', 'more_body': False}]"
    );
}

#[tokio::test]
async fn a_body_is_waited_for_and_a_cancelled_receive_loses_nothing() {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Result<&'static str, Error>>();
    let stream =
        futures_util::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let app = App::start(
        "import asyncio
waiting = False
async def app(scope, receive, send):
    global waiting
    assert scope['type'] == 'http'
    try:
        await asyncio.wait_for(receive(), 0.01)
    except asyncio.TimeoutError:
        waiting = True
    body = b''
    while True:
        message = await asyncio.create_task(receive())
        body += message['body']
        if not message['more_body']:
            break
    await send({'type': 'http.response.start', 'status': 200})
    await send({'type': 'http.response.body', 'body': body})
",
    )
    .await;
    let answer = tokio::spawn(app.turtle.ask(Request::post("/").body(Body::from_stream(stream)).unwrap()));
    app.until("waiting").await;
    for part in ["tur", "t", "le"] {
        sender.send(Ok(part)).unwrap();
        tokio::task::yield_now().await;
    }
    drop(sender);
    let response = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().unwrap();
    assert_eq!(whole(response).await.unwrap(), "turtle");
    app.stop().await;
}

#[tokio::test]
async fn blocks_go_out_one_by_one_and_wait_for_room() {
    let app = App::start(
        "import asyncio
sent = 0
error = None
async def app(scope, receive, send):
    global sent, error
    assert scope['type'] == 'http'
    await send({'type': 'http.response.start', 'status': 200, 'headers': [[b'x-a', b'b']]})
    await send({'type': 'http.response.body', 'body': b'first', 'more_body': True})
    try:
        while True:
            await send({'type': 'http.response.body', 'body': bytes(65536), 'more_body': True})
            sent += 1
    except OSError as e:
        error = e
",
    )
    .await;
    let response = app.ask(Request::get("/"), Body::empty()).await.unwrap();
    assert_eq!(response.headers()["x-a"], "b");
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    app.until("sent >= 1").await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let before: usize = app.eval("sent").parse().unwrap();
    assert!(before <= 3, "{before}");
    for _ in 0..20 {
        body.frame().await.unwrap().unwrap();
    }
    assert!(app.eval("sent").parse::<usize>().unwrap() > before);
    drop(body);
    app.until("error is not None").await;
    app.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_told_at_once() {
    let app = App::start(
        "seen = []
async def app(scope, receive, send):
    assert scope['type'] == 'http'
    seen.append((await receive())['type'])
    seen.append((await receive())['type'])
    try:
        await send({'type': 'http.response.start', 'status': 200})
    except OSError as error:
        seen.append('OSError')
",
    )
    .await;
    let call = tokio::spawn(app.turtle.ask(Request::get("/").body(Body::empty()).unwrap()));
    app.until("len(seen) == 1").await;
    call.abort();
    app.until("len(seen) == 3").await;
    assert_eq!(app.eval("seen"), "['http.request', 'http.disconnect', 'OSError']");
    app.stop().await;
}

#[tokio::test]
async fn after_the_response_there_is_a_disconnect() {
    let app = App::start(
        "import asyncio
seen = []
async def app(scope, receive, send):
    assert scope['type'] == 'http'
    await receive()
    listener = asyncio.create_task(receive())
    await asyncio.sleep(0)
    await send({'type': 'http.response.start', 'status': 200})
    await send({'type': 'http.response.body', 'body': b'done'})
    seen.append((await listener)['type'])
    seen.append((await receive())['type'])
    await send({'type': 'http.response.body', 'body': b'ignored'})
    seen.append('end')
",
    )
    .await;
    assert_eq!(app.get("/").await, (200, Bytes::from_static(b"done")));
    app.until("len(seen) == 3").await;
    assert_eq!(app.eval("seen"), "['http.disconnect', 'http.disconnect', 'end']");
    app.stop().await;
}

#[tokio::test]
async fn failures_before_the_start_are_a_500_and_after_it_an_abort() {
    for (body, part) in [
        ("raise ValueError('why')", "ValueError: why"),
        ("return", "returned before its response was complete"),
        ("await send({'type': 'http.response.start', 'status': 200})", "before its response was complete"),
        ("await send({'type': 'http.response.body'})", "no status and headers before its body"),
        ("await send({'type': 'nonsense'})", "no message of type 'nonsense'"),
        ("await send({'type': 'http.response.start', 'status': 99})", "99 is not a status"),
        ("await send({'type': 'http.response.start', 'status': 'ok'})", "ok is not a status"),
        (
            "await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'a', b'b\\r\\n')]})",
            "line break",
        ),
        (
            "await send({'type': 'http.response.start', 'status': 200, 'headers': [('a', 'b')]})",
            "must be bytes",
        ),
        ("await send([])", "must be a dict"),
        ("raise SystemExit(1)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ] {
        let source =
            format!("async def app(scope, receive, send):\n    assert scope['type'] == 'http'\n    {body}\n");
        let error = ask(&source, Request::get("/"), Body::empty()).await.expect_err(body);
        assert_eq!(error.kind(), Kind::Internal, "{body}");
        assert!(error.to_string().contains(part), "{body}: {error}");
    }
    let source = "async def app(scope, receive, send):
    assert scope['type'] == 'http'
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'9')]})
    await send({'type': 'http.response.body', 'body': b'some', 'more_body': True})
    raise ValueError('late')
";
    let app = App::start(source).await;
    let response = app.ask(Request::get("/"), Body::empty()).await.unwrap();
    assert!(whole(response).await.is_err());
    app.stop().await;
}

#[tokio::test]
async fn a_body_that_was_refused_is_not_counted() {
    let source = "async def app(scope, receive, send):
    assert scope['type'] == 'http'
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'5')]})
    for refused in (b'abc', b'abcdefg'):
        try:
            await send({'type': 'http.response.body', 'body': refused})
        except RuntimeError:
            pass
    await send({'type': 'http.response.body', 'body': b'fives'})
";
    assert_eq!(ask(source, Request::get("/"), Body::empty()).await.unwrap(), "fives");
}

#[tokio::test]
async fn an_upload_that_is_too_large_is_the_clients_fault() {
    let source = probe("(await receive())['body']");
    let broken = [Err::<&str, _>(Error::new(Kind::BodyTooLarge).because("the limit"))];
    let body = Body::from_stream(futures_util::stream::iter(broken));
    let error = ask(&source, Request::post("/"), body).await.unwrap_err();
    assert_eq!(error.kind(), Kind::BodyTooLarge);
}

#[tokio::test]
async fn context_variables_and_timeouts_belong_to_one_request() {
    let app = App::start(
        "import asyncio, contextvars
who = contextvars.ContextVar('who', default='nobody')
async def app(scope, receive, send):
    assert scope['type'] == 'http'
    before = who.get()
    who.set(scope['path'])
    await asyncio.wait_for(asyncio.sleep(0.01), 5)
    text = f'{before} {who.get()} {asyncio.current_task() is not None}'
    await send({'type': 'http.response.start', 'status': 200})
    await send({'type': 'http.response.body', 'body': text.encode()})
",
    )
    .await;
    let (one, two) = tokio::join!(app.get("/1"), app.get("/2"));
    assert_eq!(
        (one.1, two.1),
        (Bytes::from_static(b"nobody /1 True"), Bytes::from_static(b"nobody /2 True"))
    );
    app.stop().await;
}

const LIFESPAN: &str = "
log = []
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        log.append((await receive())['type'])
        scope['state']['pool'] = ['shared']
        await send({'type': 'lifespan.startup.complete'})
        log.append((await receive())['type'])
        await send({'type': 'lifespan.shutdown.complete'})
        return
    scope['state']['mine'] = 1
    scope['state']['pool'].append(len(scope['state']))
    body = repr(scope['state']).encode()
    await send({'type': 'http.response.start', 'status': 200})
    await send({'type': 'http.response.body', 'body': body})
";

#[tokio::test]
async fn a_life_has_a_start_a_state_and_an_end() {
    let app = App::start(LIFESPAN).await;
    assert_eq!(app.eval("log"), "['lifespan.startup']");
    assert_eq!(app.get("/").await.1, "{'pool': ['shared', 2], 'mine': 1}");
    assert_eq!(app.get("/").await.1, "{'pool': ['shared', 2, 2], 'mine': 1}");
    let log = app.log();
    app.stop().await;
    assert_eq!(
        pyo3::Python::attach(|py| log.bind(py).to_string()),
        "['lifespan.startup', 'lifespan.shutdown']"
    );
}

#[tokio::test]
async fn a_start_that_fails_keeps_the_generation_from_serving() {
    let failing = |rest: &str| {
        format!(
            "async def app(scope, receive, send):
    await receive()
    await send({{'type': 'lifespan.startup.failed', 'message': {rest}}})
    raise RuntimeError('after it')
"
        )
    };
    let error = App::with(&failing("'no database'"), Options::default()).await.err().unwrap();
    assert_eq!(error, "application test failed to start: no database");
    let error =
        App::with(&failing("'Traceback:\\n  line\\nValueError: x'"), Options::default()).await.err().unwrap();
    assert_eq!(error, "application test failed to start: ValueError: x\nTraceback:\n  line\nValueError: x");
}

#[tokio::test]
async fn an_application_need_not_take_part_in_lifespan_unless_it_has_to() {
    let source = "async def app(scope, receive, send):\n    raise ValueError('only http here')\n";
    App::with(source, Options::default()).await.unwrap().stop().await;
    let off = Options { lifespan: Lifespan::Off, ..Options::default() };
    App::with(source, off).await.unwrap().stop().await;
    let on = Options { lifespan: Lifespan::On, ..Options::default() };
    let error = App::with(source, on).await.err().unwrap();
    assert!(
        error.starts_with("application test takes no part in lifespan: ValueError: only http here"),
        "{error}"
    );
}

#[tokio::test]
async fn many_requests_share_one_loop() {
    let app = App::start(
        "import asyncio
most = now = 0
async def app(scope, receive, send):
    global most, now
    assert scope['type'] == 'http'
    now += 1
    most = max(most, now)
    await asyncio.sleep(0.05)
    now -= 1
    await send({'type': 'http.response.start', 'status': 200})
    await send({'type': 'http.response.body', 'body': b'x'})
",
    )
    .await;
    let calls: Vec<_> = (0..200)
        .map(|_| tokio::spawn(app.turtle.ask(Request::get("/").body(Body::empty()).unwrap())))
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert!(app.eval("most").parse::<usize>().unwrap() > 50);
    app.stop().await;
}

#[tokio::test]
async fn after_the_response_nothing_is_received_and_nothing_sent_counts() {
    let app = App::start(
        "log = []
async def app(scope, receive, send):
    assert scope['type'] == 'http'
    for _ in range(2):
        await send({'type': 'http.response.start', 'status': 200})
        await send({'type': 'http.response.body', 'body': b'once'})
    await send({'type': 'http.response.body', 'body': b'ignored', 'more_body': True})
    await send({'type': 'http.response.pathsend', 'path': '/nowhere'})
    # Nobody wants to know what the request's body was any more.
    log.extend([await receive(), await receive()])
",
    )
    .await;
    assert_eq!(app.get("/").await, (200, Bytes::from_static(b"once")));
    app.until("log").await;
    assert_eq!(app.eval("log"), "[{'type': 'http.disconnect'}, {'type': 'http.disconnect'}]");
    app.stop().await;
}

#[tokio::test]
async fn a_message_out_of_order_is_an_error_and_harms_nothing() {
    let app = App::start(
        "import os, tempfile
log = []
path = tempfile.NamedTemporaryFile()
async def app(scope, receive, send):
    assert scope['type'] == 'http'
    async def fails(kind, **message):
        try:
            await send({'type': 'http.response.' + kind, **message})
        except Exception as error:
            log.append((kind, type(error).__name__))
    await fails('body')
    await fails('pathsend', path=path.name)
    await fails('trailers', headers=[])
    await fails('start', status='200')
    await fails('start', status=200, headers=[('text', b'')])
    await fails('unheard-of')
    await fails('zerocopysend', file=None)
    await fails('zerocopysend', file=__import__('io').StringIO())
    await fails('zerocopysend', file=-1)
    await fails('zerocopysend', file=path, offset=-1)
    await send({'type': 'http.response.start', 'status': 200})
    await fails('start', status=200)
    await fails('trailers', headers=[])
    await send({'type': 'http.response.body', 'body': b'fine', 'more_body': True})
    await fails('start', status=200)
    await fails('pathsend', path=path.name)
    await send({'type': 'http.response.body'})
",
    )
    .await;
    assert_eq!(app.get("/").await, (200, Bytes::from_static(b"fine")));
    let expected = [
        ("body", "RuntimeError"),
        ("pathsend", "RuntimeError"),
        ("trailers", "RuntimeError"),
        ("start", "ValueError"),
        ("start", "TypeError"),
        ("unheard-of", "ValueError"),
        ("zerocopysend", "ValueError"),
        ("zerocopysend", "UnsupportedOperation"),
        ("zerocopysend", "OSError"),
        ("zerocopysend", "ValueError"),
        ("start", "RuntimeError"),
        ("trailers", "RuntimeError"),
        ("start", "RuntimeError"),
        ("pathsend", "RuntimeError"),
    ];
    for (at, (kind, error)) in expected.iter().enumerate() {
        assert_eq!(app.eval(&format!("log[{at}]")), format!("('{kind}', '{error}')"), "{at}");
    }
    app.stop().await;
}
