//! Files in answers of WSGI applications (PEP 3333, "Optional Platform-Specific File Handling").
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of test functions")]

mod common;

use bytes::Bytes;
use common::{App, PATIENCE, whole};
use hawksbill_core::{Body, Error, Kind};
use http::{Request, Response};
use http_body_util::BodyExt;

/// Answers with what `open` returns, in a file wrapper; `/5` says a `Content-Length`, `/status/304` a status.
const FILES: &str = "
import io, os, tempfile, threading
closed, threads = [], []

class Plain:
    '''A file by its descriptor alone: whoever reads it by other means fails.'''
    def __init__(self, content, position=0):
        self.file = tempfile.TemporaryFile()
        self.file.write(content)
        self.file.flush()
        os.lseek(self.file.fileno(), position, os.SEEK_SET)
        self.fileno = self.file.fileno
    def read(self, size=-1):
        raise AssertionError('read by Python')
    def close(self):
        closed.append(type(self).__name__)
        threads.append(threading.get_ident())
        self.file.close()

def temporary(content, position=0, **options):
    file = tempfile.TemporaryFile(**options)
    file.write(content)
    file.seek(position)
    return file

def app(environ, start_response):
    threads.append(threading.get_ident())
    path = environ['PATH_INFO'].strip('/')
    status, headers = '200 OK', []
    if path.startswith('status/'):
        status = path.removeprefix('status/') + ' Said'
    elif path:
        headers = [('Content-Length', path)]
    write = start_response(status, headers)
    if environ['QUERY_STRING']:
        write(environ['QUERY_STRING'].encode())
    return environ['wsgi.file_wrapper'](make(), 4)
";

/// An application whose files are made by this expression.
async fn files(make: &str) -> App {
    App::start(&format!("{FILES}\ndef make(): return {make}\n")).await
}

fn length(response: &Response<Body>) -> Option<u64> {
    response.headers().get("content-length").map(|length| length.to_str().unwrap().parse().unwrap())
}

async fn body(response: Response<Body>) -> Result<Bytes, Error> {
    whole(response).await
}

/// Each line: a file whose `read` is not called, and what is sent of it.
#[tokio::test]
async fn a_regular_file_is_sent_from_where_it_stands_and_python_is_not_asked() {
    for (make, sent) in [
        ("Plain(b'turtle')", "turtle"),
        ("Plain(b'turtle', 2)", "rtle"),
        ("Plain(b'turtle', 99)", ""),
        ("Plain(b'')", ""),
        ("temporary(b'turtle')", "turtle"),
        ("temporary(b'turtle', 2)", "rtle"),
        ("temporary(b'turtle', buffering=0)", "turtle"),
        ("tempfile.NamedTemporaryFile('rb')", ""),
        // What was read ahead by a buffer is not lost.
        ("(f := temporary(b'turtle'), f.read(1))[0]", "urtle"),
        // What stands in a buffer of one that writes is in the file, too.
        ("(f := temporary(b'', buffering=4096), f.write(b'turtle'), f.seek(0))[0]", "turtle"),
    ] {
        let app = files(make).await;
        let response = app.ask(Request::get("/"), Body::empty()).await.expect(make);
        assert_eq!(length(&response), Some(sent.len() as u64), "{make}");
        assert_eq!(body(response).await.unwrap(), sent, "{make}");
        if make.starts_with("Plain") {
            app.until("closed == ['Plain']").await;
            assert_eq!(app.eval("len(set(threads))"), "1", "{make}");
        }
        app.stop().await;
    }
}

/// Each line: a file that is read by its own means, since its descriptor says something else, or nothing.
#[tokio::test]
async fn what_is_no_regular_file_is_read() {
    for (make, sent) in [
        ("io.BytesIO(b'turtle')", "turtle"),
        ("(f := io.BytesIO(b'turtle'), f.seek(2))[0]", "rtle"),
        ("(p := os.pipe(), os.write(p[1], b'turtle'), os.close(p[1]), open(p[0], 'rb'))[3]", "turtle"),
        ("__import__('gzip').open(packed(__import__('gzip')))", "turtle"),
        ("__import__('bz2').open(packed(__import__('bz2')))", "turtle"),
        ("__import__('lzma').open(packed(__import__('lzma')))", "turtle"),
        ("Around(__import__('gzip').open(packed(__import__('gzip'))))", "turtle"),
        ("Upper('turtle.txt', 'rb')", "TURTLE"),
        ("io.BufferedReader(Raw('turtle.txt'))", "TURTLE"),
    ] {
        let app = files(make).await;
        define(
            &app,
            "
directory = tempfile.mkdtemp()
def path(name):
    return os.path.join(directory, name)
def packed(module):
    with module.open(path('packed'), 'wb') as file:
        file.write(b'turtle')
    return path('packed')
class Around:
    def __init__(self, file): self.file = file
    def __getattr__(self, name): return getattr(self.file, name)
def text(name):
    with open(path(name), 'wb') as file:
        file.write(b'turtle')
    return path(name)
class Raw(io.FileIO):
    def __init__(self, name): super().__init__(text(name))
    def read(self, size=-1): return super().read(size).upper()
    def readinto(self, buffer):
        data = super().read(len(buffer)).upper()
        buffer[:len(data)] = data
        return len(data)
class Upper(io.BufferedReader):
    def __init__(self, name, mode): super().__init__(io.FileIO(text(name)))
    def read(self, size=-1): return super().read(size).upper()
",
        );
        let response = app.ask(Request::get("/"), Body::empty()).await.expect(make);
        assert_eq!(length(&response), None, "{make}");
        assert_eq!(body(response).await.unwrap(), sent, "{make}");
        app.stop().await;
    }
}

#[tokio::test]
async fn a_text_file_is_a_500_whatever_its_descriptor_says() {
    let app = files("(f := tempfile.TemporaryFile('w+'), f.write('turtle'), f.seek(0))[0]").await;
    let error = app.ask(Request::get("/"), Body::empty()).await.unwrap_err();
    assert!(error.to_string().contains("a block must be bytes, not str"), "{error}");
    app.stop().await;
}

#[tokio::test]
async fn the_length_that_was_said_is_what_is_sent() {
    let app = files("Plain(b'turtle', 1)").await;
    for (said, sent) in [("/5", "urtle"), ("/3", "urt"), ("/0", "")] {
        let response = app.ask(Request::get(said), Body::empty()).await.unwrap();
        assert_eq!(length(&response), said[1..].parse().ok());
        assert_eq!(body(response).await.unwrap(), sent);
    }
    // Less than was promised: nothing has been sent yet, so the client can be told.
    let error = app.ask(Request::get("/6"), Body::empty()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(error.to_string().contains("shorter than its Content-Length says: 5 bytes, not 6"), "{error}");
    app.until("len(closed) == 4").await;
    app.stop().await;
}

#[tokio::test]
async fn a_file_follows_what_was_written() {
    let app = files("Plain(b'turtle')").await;
    let response = app.ask(Request::get("/?sea-"), Body::empty()).await.unwrap();
    assert_eq!((length(&response), body(response).await.unwrap()), (None, Bytes::from_static(b"sea-turtle")));
    let response = app.ask(Request::get("/7?sea-"), Body::empty()).await.unwrap();
    assert_eq!(body(response).await.unwrap(), "sea-tur");
    let response = app.ask(Request::get("/4?sea-"), Body::empty()).await.unwrap();
    assert_eq!(body(response).await.unwrap(), "sea-");
    let response = app.ask(Request::get("/11?sea-"), Body::empty()).await.unwrap();
    assert!(body(response).await.is_err(), "a promise that is not kept");
    app.stop().await;
}

#[tokio::test]
async fn an_answer_without_a_body_has_none_but_its_length() {
    let app = files("Plain(b'turtle')").await;
    let response = app.ask(Request::head("/"), Body::empty()).await.unwrap();
    assert_eq!((length(&response), body(response).await.unwrap()), (Some(6), Bytes::new()));
    let response = app.ask(Request::head("/9"), Body::empty()).await.unwrap();
    assert_eq!((length(&response), body(response).await.unwrap()), (Some(9), Bytes::new()));
    for status in ["204", "304"] {
        let response = app.ask(Request::get(format!("/status/{status}")), Body::empty()).await.unwrap();
        assert_eq!((length(&response), body(response).await.unwrap()), (None, Bytes::new()), "{status}");
    }
    app.until("len(closed) == 4").await;
    app.stop().await;
}

#[tokio::test]
async fn a_file_is_closed_when_it_is_read_or_the_client_leaves_and_not_before() {
    let app = files("Plain(bytes(4_000_000))").await;
    let mut read = app.ask(Request::get("/"), Body::empty()).await.unwrap().into_body();
    assert!(tokio::time::timeout(PATIENCE, read.frame()).await.unwrap().unwrap().is_ok());
    assert_eq!(app.eval("closed"), "[]");
    let rest = tokio::time::timeout(PATIENCE, read.collect()).await.unwrap().unwrap().to_bytes();
    assert!(rest.len() > 3_000_000);
    app.until("closed == ['Plain']").await;

    let mut left = app.ask(Request::get("/"), Body::empty()).await.unwrap().into_body();
    assert!(tokio::time::timeout(PATIENCE, left.frame()).await.unwrap().unwrap().is_ok());
    assert_eq!(app.eval("closed"), "['Plain']");
    drop(left);
    app.until("closed == ['Plain', 'Plain']").await;
    assert_eq!(app.get("/0").await, (200, Bytes::new()), "the thread is free again");
    app.stop().await;
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_sent_cuts_the_answer() {
    let app = files("kept[0]").await;
    define(&app, "kept = [Plain(bytes(4_000_000))]");
    let mut body = app.ask(Request::get("/"), Body::empty()).await.unwrap().into_body();
    assert!(tokio::time::timeout(PATIENCE, body.frame()).await.unwrap().unwrap().is_ok());
    app.eval("os.ftruncate(kept[0].fileno(), 0)");
    let rest = tokio::time::timeout(PATIENCE, body.collect()).await.unwrap();
    assert!(rest.is_err(), "half a file is never taken for a whole one");
    app.until("closed == ['Plain']").await;
    app.stop().await;
}

#[tokio::test]
async fn the_wrapper_is_an_iterable_that_closes_what_can_be_closed() {
    let app = App::start(
        "
import io
class Closing(io.BytesIO):
    times = 0
    def close(self): Closing.times += 1
class Bare:
    def __init__(self, content): self.read = io.BytesIO(content).read
def app(environ, start_response):
    wrap = environ['wsgi.file_wrapper']
    wrapper = wrap(Closing(b'turtle'), 4)
    assert (wrapper.blksize, list(wrapper), iter(wrapper) is wrapper) == (4, [b'turt', b'le'], True)
    assert wrapper.filelike.tell() == 6 and wrapper.tell() == 6 and wrapper.seekable()
    wrapper.close()
    assert Closing.times == 1
    assert not hasattr(wrapper, 'read') and not hasattr(wrapper, 'fileno')
    bare = wrap(Bare(bytes(10_000)))
    assert not hasattr(bare, 'close') and not hasattr(bare, 'seekable')
    assert [len(block) for block in bare] == [8192, 1808]
    start_response('200 OK', [])
    return (block for block in wrap(io.BytesIO(b'around'), 2))
",
    )
    .await;
    assert_eq!(app.get("/").await, (200, Bytes::from_static(b"around")));
    app.stop().await;
}

/// Adds to the module of an application.
fn define(app: &App, source: &str) {
    app.eval(&format!("exec({source:?}, globals())"));
}
