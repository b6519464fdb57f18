//! WSGI applications through turtles (PEP 3333).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of test functions")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{App, PATIENCE, whole};
use hawksbill_core::{Address, Body, Connection, Error, Kind, Mount, Peer, Scheme};
use hawksbill_python::{Interface, Options};
use http::{Request, Version};
use http_body_util::BodyExt;

fn body_of(parts: &[&'static str]) -> Body {
    let parts: Vec<_> = parts.iter().map(|part| Ok::<_, Error>(*part)).collect();
    Body::from_stream(futures_util::stream::iter(parts))
}

/// Answers with `repr(result)` of one expression over `environ`.
async fn probe(expression: &str, request: http::request::Builder, body: Body) -> String {
    let app = App::start(&format!(
        "def app(environ, start_response):
    i = environ['wsgi.input']
    result = {expression}
    start_response('200 OK', [])
    return [repr(result).encode()]
"
    ))
    .await;
    let response = app.ask(request, body).await.unwrap();
    assert_eq!(response.status(), 200);
    let text = whole(response).await.unwrap();
    app.stop().await;
    String::from_utf8(text.to_vec()).unwrap()
}

#[tokio::test]
async fn environ_says_what_cgi_says() {
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
            .header("host", "example.com:8443")
            .header("content-type", "text/plain")
            .header("content-length", "3")
            .header("x-real-ip", "a")
            .header("x_real_ip", "b")
            .header("proxy", "evil")
            .header("accept", "a")
            .header("accept", "b")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("x-bytes", http::HeaderValue::from_bytes(b"caf\xE9").unwrap())
    };
    for (key, value) in [
        ("REQUEST_METHOD", "'POST'"),
        ("SCRIPT_NAME", "'/blog'"),
        ("PATH_INFO", "'/bÃ¼cher/1'"),
        ("QUERY_STRING", "'q=%20x'"),
        ("REQUEST_URI", "'/blog/b%C3%BCcher%2F1?q=%20x'"),
        ("RAW_URI", "'/blog/b%C3%BCcher%2F1?q=%20x'"),
        ("SERVER_NAME", "'example.com'"),
        ("SERVER_PORT", "'8443'"),
        ("SERVER_PROTOCOL", "'HTTP/1.0'"),
        ("REMOTE_ADDR", "'192.0.2.7'"),
        ("REMOTE_PORT", "'4711'"),
        ("wsgi.url_scheme", "'https'"),
        ("wsgi.version", "(1, 0)"),
        ("wsgi.multithread", "True"),
        ("wsgi.input_terminated", "True"),
        ("CONTENT_TYPE", "'text/plain'"),
        ("CONTENT_LENGTH", "'3'"),
        ("HTTP_HOST", "'example.com:8443'"),
        ("HTTP_X_REAL_IP", "'a'"),
        ("HTTP_ACCEPT", "'a, b'"),
        ("HTTP_COOKIE", "'a=1; b=2'"),
        ("HTTP_X_BYTES", "'café'"),
        ("HTTP_PROXY", "None"),
        ("HTTP_CONTENT_LENGTH", "None"),
        ("PATH", "None"),
    ] {
        let found = probe(&format!("environ.get({key:?})"), request(), Body::from("abc")).await;
        assert_eq!(found, value, "{key}");
    }
    let types = "all(type(v) is str for k, v in environ.items() if '.' not in k)";
    assert_eq!(probe(types, request(), Body::empty()).await, "True");
}

#[tokio::test]
async fn input_reads_as_bytes_io_does() {
    let content = ["one\ntw", "o\n", "\nthree", " without end"];
    for expression in [
        "i.read()",
        "i.read(-1)",
        "i.read(None)",
        "(i.read(2), i.read(), i.read())",
        "(i.readline(), i.read(3), i.readline())",
        "[i.readline(3) for _ in range(12)]",
        "list(i)",
        "i.readlines()",
        "(i.readlines(5), i.readline())",
        "(i.readlines(1), i.readlines(0))",
        "(next(i), i.read(0), i.read(100))",
        "(i.readline(0), i.readline(-1), i.readline(None))",
    ] {
        let expected = probe(
            &format!("(lambda i: {expression})(__import__('io').BytesIO({:?}.encode()))", content.concat()),
            Request::get("/"),
            Body::empty(),
        )
        .await;
        assert_eq!(probe(expression, Request::post("/"), body_of(&content)).await, expected, "{expression}");
    }
}

#[tokio::test]
async fn an_upload_that_breaks_off_raises_and_is_the_clients_fault() {
    let app = App::start(
        "seen = []
def app(environ, start_response):
    try:
        environ['wsgi.input'].read()
    except OSError as error:
        seen.append(type(error).__name__)
        raise
",
    )
    .await;
    let broken = [Ok("half"), Err(Error::new(Kind::BodyTooLarge).because("the limit"))];
    let body = Body::from_stream(futures_util::stream::iter(broken));
    let error = app.ask(Request::post("/"), body).await.unwrap_err();
    assert_eq!(error.kind(), Kind::BodyTooLarge);
    assert_eq!(app.eval("seen"), "['ConnectionResetError']");
    app.stop().await;
}

#[tokio::test]
async fn a_failure_before_the_headers_is_a_500_and_after_them_an_abort() {
    let app = App::start(
        "def app(environ, start_response):
    start_response('200 OK', [])
    if environ['PATH_INFO'] == '/late':
        yield b'some'
    raise ValueError('in the middle')
",
    )
    .await;
    let error = app.ask(Request::get("/early"), Body::empty()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(error.to_string().contains("ValueError: in the middle"), "{error}");

    let response = app.ask(Request::get("/late"), Body::empty()).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "some");
    assert!(body.frame().await.unwrap().is_err());
    app.stop().await;
}

/// Each line: what the application does, and what its answer is.
#[tokio::test]
async fn what_cannot_be_sent_is_a_500() {
    for body in [
        "start_response('200 OK', []); return ['text']",
        "start_response('200 OK', []); return b'bytes'",
        "start_response('200 OK', []); return 'text'",
        "start_response('200 OK', []); return None",
        "return [b'no start']",
        "return []",
        "start_response('99 Too Low', []); return []",
        "start_response('100 Continue', []); return []",
        "start_response('20', []); return []",
        "start_response('OK', []); return []",
        "start_response('200 OK\\r\\nX: y', []); return []",
        "start_response(b'200 OK', []); return []",
        "start_response(200, []); return []",
        "start_response('200 OK', {}); return []",
        "start_response('200 OK', [('A', 'b\\r\\nC: d')]); return []",
        "start_response('200 OK', [('A b', 'c')]); return []",
        "start_response('200 OK', [(b'A', b'c')]); return []",
        "start_response('200 OK', [('A', '\\u20ac')]); return []",
        "start_response('200 OK', [('Transfer-Encoding', 'chunked')]); return []",
        "start_response('200 OK', [(f'X-{n}', '') for n in range(40_000)]); return []",
        "start_response('200 OK', [('Content-Length', 'x')]); return []",
        "start_response('200 OK', [('Content-Length', '5')]); return [b'abc']",
        "start_response('200 OK', [('Content-Length', '2')]); return [b'abc']",
        "start_response('200 OK', []); start_response('200 OK', []); return []",
        "raise SystemExit(3)",
    ] {
        let app = App::start(&format!("def app(environ, start_response):\n    {body}\n")).await;
        let error = app.ask(Request::get("/"), Body::empty()).await.expect_err(body);
        assert_eq!(error.kind(), Kind::Internal, "{body}");
        app.stop().await;
    }
}

#[tokio::test]
async fn exc_info_replaces_the_headers_or_is_raised() {
    let app = App::start(
        "import sys
raised = []
def app(environ, start_response):
    start_response('200 OK', [('X-A', 'first')])
    if environ['PATH_INFO'] == '/late':
        yield b'some'
    try:
        1 / 0
    except ZeroDivisionError as error:
        try:
            start_response('500 Oh', [('X-A', 'second')], sys.exc_info())
        except ZeroDivisionError as again:
            raised.append(again is error)
            raise
    yield b'sorry'
",
    )
    .await;
    let response = app.ask(Request::get("/"), Body::empty()).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["x-a"]), (500, &"second".parse().unwrap()));
    assert_eq!(whole(response).await.unwrap(), "sorry");
    let response = app.ask(Request::get("/late"), Body::empty()).await.unwrap();
    assert!(whole(response).await.is_err());
    app.until("raised == [True]").await;
    app.stop().await;
}

#[tokio::test]
async fn blocks_arrive_one_by_one_and_nobody_is_asked_for_what_nobody_takes() {
    let app = App::start(
        "import threading
go_on = threading.Semaphore(0)
asked = closed = 0
class Blocks:
    def __iter__(self):
        global asked
        yield b'first'
        go_on.acquire()
        while True:
            asked += 1
            yield bytes(65536)
    def close(self):
        global closed
        closed += 1
def app(environ, start_response):
    start_response('200 OK', [])
    class Closing:
        def __init__(self): self.it = iter(Blocks())
        def __iter__(self): return self
        def __next__(self): return next(self.it)
        def close(self): Blocks().close()
    return Closing()
",
    )
    .await;
    let mut body = app.ask(Request::get("/"), Body::empty()).await.unwrap().into_body();
    let first = tokio::time::timeout(PATIENCE, body.frame()).await.unwrap();
    assert_eq!(first.unwrap().unwrap().into_data().unwrap(), "first");
    app.eval("go_on.release()");
    app.until("asked >= 2").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(app.eval("asked").parse::<usize>().unwrap() <= 4, "bounded by what the client takes");
    assert_eq!(app.eval("closed"), "0");
    drop(body);
    app.until("closed == 1").await;
    app.stop().await;
}

#[tokio::test]
async fn write_comes_before_the_iterable() {
    let app = App::start(
        "def app(environ, start_response):
    write = start_response('200 OK', [('X-A', 'b')])
    write(b'one ')
    write(bytearray(b'two '))
    return [b'three']
",
    )
    .await;
    assert_eq!(app.get("/").await, (200, Bytes::from_static(b"one two three")));
    app.stop().await;
}

#[tokio::test]
async fn close_is_called_whatever_happens() {
    let app = App::start(
        "closed = []
class Result(list):
    def __init__(self, name, items):
        super().__init__(items)
        self.name = name
    def close(self):
        closed.append(self.name)
def app(environ, start_response):
    name = environ['PATH_INFO']
    start_response('200 OK', [])
    return Result(name, ['text'] if name == '/text' else [b'a', b'b'])
",
    )
    .await;
    assert_eq!(app.get("/fine").await, (200, Bytes::from_static(b"ab")));
    assert!(app.ask(Request::get("/text"), Body::empty()).await.is_err());
    app.until("closed == ['/fine', '/text']").await;
    app.stop().await;
}

#[tokio::test]
async fn a_single_block_knows_its_length_also_for_head() {
    let app = App::start(
        "def app(environ, start_response):
    start_response('204 No Content' if environ['PATH_INFO'] == '/none' else '200 OK', [])
    return [b'abc']
",
    )
    .await;
    let response = app.ask(Request::get("/"), Body::empty()).await.unwrap();
    assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(3));
    let response = app.ask(Request::head("/"), Body::empty()).await.unwrap();
    assert_eq!(response.headers()["content-length"], "3");
    assert_eq!(whole(response).await.unwrap(), "");
    assert_eq!(app.get("/none").await, (204, Bytes::new()));
    app.stop().await;
}

#[tokio::test]
async fn slow_requests_leave_the_other_threads_to_others_and_the_queue_is_bounded() {
    let options = Options { threads: 4, queue: 2, ..Options::default() };
    let app = App::with(
        "import threading
go_on = threading.Event()
slow = 0
def app(environ, start_response):
    global slow
    if environ['PATH_INFO'] == '/slow':
        slow += 1
        go_on.wait()
    start_response('200 OK', [])
    return [b'done']
",
        options,
    )
    .await
    .unwrap();
    let ask_slow = || tokio::spawn(app.turtle.ask(Request::get("/slow").body(Body::empty()).unwrap()));
    let mut slow: Vec<_> = (0..3).map(|_| ask_slow()).collect();
    app.until("slow == 3").await;
    assert_eq!(app.get("/fast").await.0, 200);
    slow.push(ask_slow());
    app.until("slow == 4").await;
    let waiting: Vec<_> = (0..2).map(|_| ask_slow()).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = app.ask(Request::get("/"), Body::empty()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Overloaded, true));
    app.eval("go_on.set()");
    for call in slow.into_iter().chain(waiting) {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    app.stop().await;
}

#[tokio::test]
async fn threads_may_begin_together_while_python_is_busy() {
    let app = App::start(
        "import sys, threading, time
busy = True
def spin():
    while busy: pass
threading.Thread(target=spin, daemon=True).start()
# What a thread looks up when it begins takes its time, in which others begin.
class Slow(type(sys)):
    @property
    def stderr(self):
        time.sleep(0.002)
        return vars(self)['stderr']
plain, sys.__class__ = type(sys), Slow
def app(environ, start_response):
    start_response('200 OK', [])
    return [b'done']
",
    )
    .await;
    let ask = || tokio::spawn(app.turtle.ask(Request::get("/").body(Body::empty()).unwrap()));
    let calls: Vec<_> = (0..32).map(|_| ask()).collect();
    for call in calls {
        let response = tokio::time::timeout(PATIENCE, call).await.expect("an answer in time");
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    app.eval("globals().update(busy=False) or setattr(sys, '__class__', plain)");
    app.stop().await;
}

#[tokio::test]
async fn wsgiref_validate_finds_nothing() {
    // The validator takes any arguments, so looking at it tells nothing.
    let options = Options { interface: Some(Interface::Wsgi), ..Options::default() };
    let app = App::with(
        "from wsgiref.validate import validator
def inner(environ, start_response):
    data = environ['wsgi.input'].read(100)
    lines = [environ['wsgi.input'].readline(10), *environ['wsgi.input'].readlines(10)]
    write = start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', str(len(data)))])
    return iter([data])
app = validator(inner)
",
        options,
    )
    .await
    .unwrap();
    for _ in 0..3 {
        let request = Request::post("/a%20b?c").header("host", "example.com").header("content-length", "8");
        let response = app.ask(request, body_of(&["one\n", "two\n"])).await.unwrap();
        assert_eq!(whole(response).await.unwrap(), "one\ntwo\n");
    }
    app.stop().await;
}
