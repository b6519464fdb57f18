//! What hyper alone can do on one thread: the limit for a server that is built on it.
//!
//! `limit PORT [--http2]` answers the plain paths of `load/apps/plain.py` on the loopback; the comparison with other
//! servers shows it as `hyper`.

use std::error::Error;
use std::future::Future;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

static LARGE: [u8; 10 * 1024] = [b'x'; 10 * 1024];

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = match request.uri().path() {
        "/echo" => request.into_body().collect().await?.to_bytes(),
        "/large" => Bytes::from_static(&LARGE),
        _ => Bytes::from_static(b"Hello, world!"),
    };
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

#[derive(Clone, Copy)]
struct ThisThread;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for ThisThread {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

async fn converse(stream: TcpStream, http2: bool) {
    let (io, service) = (TokioIo::new(stream), service_fn(answer));
    // A client that fails harms nobody but itself.
    let _ = if http2 {
        http2::Builder::new(ThisThread).serve_connection(io, service).await
    } else {
        http1::Builder::new().serve_connection(io, service).await
    };
}

async fn serve(port: u16, http2: bool) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        spawn_local(converse(stream, http2));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let port = words.next().ok_or("usage: limit PORT [--http2]")?.parse()?;
    let http2 = words.next().as_deref() == Some("--http2");
    LocalSet::new().run_until(serve(port, http2)).await
}
