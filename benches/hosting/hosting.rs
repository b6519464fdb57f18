//! What it costs to ask an application that is written in Python, without sockets.
//!
//! The cases differ from `hello` by one thing each: the headers of a request (environ, scope), those of an answer
//! (conversion and checks), a body on its way in, one on its way out: whole, block by block, out of a file. Their difference to `hello` is the cost of it.
//!
//! `one` asks one request at a time, so it is mostly the way to the Python thread and back; `64 at once` keeps that
//! thread busy, so it is mostly the work.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has to stop")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use hawksbill_core::{Body, Builder, Generation, Turtle, body};
use hawksbill_python::{Options, live_app};
use http::{HeaderMap, HeaderValue, Request, header};
use pyo3::prelude::*;
use tokio::runtime::Runtime;

const SOURCE: &std::ffi::CStr = pyo3::ffi::c_str!(include_str!("application.py"));
const BODY: usize = 10 * 1024;
const LARGE: usize = 640 * 1024;
const AT_ONCE: usize = 64;

/// What a browser sends with each page.
const BROWSER: [(header::HeaderName, &str); 12] = [
    (header::HOST, "shop.example"),
    (header::USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (header::ACCEPT, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (header::ACCEPT_LANGUAGE, "en-GB,en;q=0.7,de;q=0.3"),
    (header::ACCEPT_ENCODING, "gzip, deflate, br, zstd"),
    (header::REFERER, "http://shop.example/basket?page=2"),
    (header::COOKIE, "sessionid=q8v1m3c7x5z2b9n4k6j0h8g2f5d7s1a3; csrftoken=L2p9T6r4W1y8Q5e3; theme=light"),
    (header::DNT, "1"),
    (header::CACHE_CONTROL, "max-age=0"),
    (header::UPGRADE_INSECURE_REQUESTS, "1"),
    (header::PRAGMA, "no-cache"),
    (header::IF_NONE_MATCH, "\"5f3-9a1c\""),
];

/// What is asked, and what comes back.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    path: &'static str,
    browser: bool,
    /// Bytes of the request's body.
    sent: usize,
    /// Bytes of the answer's body.
    answered: usize,
}

const CASES: [Case; 7] = [
    Case { name: "hello", path: "/", browser: false, sent: 0, answered: 13 },
    Case { name: "12 headers in", path: "/", browser: true, sent: 0, answered: 13 },
    Case { name: "13 headers out", path: "/headers", browser: false, sent: 0, answered: 13 },
    Case { name: "10 KB in", path: "/upload", browser: false, sent: BODY, answered: 5 },
    Case { name: "10 KB out", path: "/large", browser: false, sent: 0, answered: BODY },
    Case { name: "640 KB out in 10 blocks", path: "/stream", browser: false, sent: 0, answered: LARGE },
    Case { name: "640 KB out of a file", path: "/file", browser: false, sent: 0, answered: LARGE },
];

impl Case {
    fn request(&self, browser: &HeaderMap) -> Request<Body> {
        let body = if self.sent > 0 {
            static ONE: [u8; BODY] = [b'x'; BODY];
            Body::from(Bytes::from_static(&ONE))
        } else {
            Body::empty()
        };
        let mut request = Request::new(body);
        *request.uri_mut() = http::Uri::from_static(self.path);
        if self.sent > 0 {
            *request.method_mut() = http::Method::POST;
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(self.sent));
        }
        if self.browser {
            request.headers_mut().extend(browser.clone());
        } else {
            request.headers_mut().insert(header::HOST, HeaderValue::from_static("shop.example"));
        }
        request
    }
}

/// Hosts what `application.py` calls `name`.
async fn host(name: &str) -> (Turtle, Generation) {
    Python::initialize();
    let callable = Python::attach(|py| {
        let module = PyModule::from_code(py, SOURCE, c"application.py", c"application")?;
        module.getattr(name).map(Bound::unbind)
    });
    let mut builder = Builder::new("/");
    let app = live_app(name, callable.expect("application.py runs"), Options::default());
    let turtle = app.build(&mut builder).expect("a live application can be hosted");
    let mut generation = builder.finish();
    generation.start().await.expect("the application starts");
    (turtle, generation)
}

/// Asks and reads the whole answer; gives its length.
async fn ask(turtle: &Turtle, request: Request<Body>) -> usize {
    let response = turtle.ask(request).await.expect("an answer");
    assert_eq!(response.status(), http::StatusCode::OK);
    body::to_bytes(response.into_body(), LARGE).await.expect("all of it").len()
}

fn hosting(criterion: &mut Criterion) {
    let runtime: Runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let browser: HeaderMap =
        BROWSER.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect();
    for interface in ["wsgi", "asgi"] {
        let (turtle, generation) = runtime.block_on(host(interface));
        let mut group = criterion.benchmark_group(interface);
        for case in CASES {
            let once = || async {
                assert_eq!(ask(&turtle, case.request(&browser)).await, case.answered, "{}", case.name);
            };
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(case.name, "one"), |bench| {
                bench.iter(|| runtime.block_on(once()));
            });
            group.throughput(Throughput::Elements(AT_ONCE as u64));
            group.bench_function(BenchmarkId::new(case.name, format!("{AT_ONCE} at once")), |bench| {
                bench.iter(|| black_box(runtime.block_on(join_all((0..AT_ONCE).map(|_| once())))));
            });
        }
        group.finish();
        runtime.block_on(generation.stop());
    }
}

criterion_group!(benches, hosting);
criterion_main!(benches);
