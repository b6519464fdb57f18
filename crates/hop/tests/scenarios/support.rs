//! The builders that scenarios are made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hawksbill_core::body::to_bytes;
use hawksbill_core::{Body, Error, Turtle};
use hawksbill_hop::wire::{Hello, PREFIX};
use hawksbill_hop::{Connection, Fault, Settings, Worker};
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// No scenario waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it happens")
}

/// Both ends of one connection.
pub(crate) struct Hop {
    pub(crate) front: Connection,
    pub(crate) worker: Worker,
    pub(crate) serving: JoinHandle<Result<(), Fault>>,
}

impl Hop {
    pub(crate) async fn to(turtle: Turtle) -> Self {
        Self::with(&Settings::default(), turtle).await
    }

    pub(crate) async fn with(settings: &Settings, turtle: Turtle) -> Self {
        let (near, far) = UnixStream::pair().unwrap();
        let worker = Worker::new(settings.clone(), 64);
        let serving = tokio::spawn({
            let worker = worker.clone();
            async move { worker.serve(far, turtle).await }
        });
        let front = soon(Connection::open(near, settings)).await.unwrap();
        Self { front, worker, serving }
    }

    /// Both ends have done all there was to do.
    pub(crate) async fn settled(&self) {
        for _ in 0..20 {
            soon(self.front.ping()).await.unwrap();
        }
    }

    pub(crate) async fn ask(&self, request: Request<Body>) -> Result<Response<Body>, Error> {
        soon(self.front.ask(request)).await
    }

    /// The text that answers a GET.
    pub(crate) async fn get(&self, path: &str) -> String {
        text(self.ask(get(path)).await.unwrap()).await
    }
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

pub(crate) fn post(body: Body) -> Request<Body> {
    Request::post("/").body(body).unwrap()
}

pub(crate) async fn text(response: Response<Body>) -> String {
    String::from_utf8(soon(to_bytes(response.into_body(), 1 << 20)).await.unwrap().to_vec()).unwrap()
}

/// Answers with the path.
pub(crate) fn echo_path() -> Turtle {
    Turtle::from_fn(async |request: Request<Body>| {
        Ok(Response::new(Body::from(request.uri().path().to_owned())))
    })
}

/// Answers with the name.
pub(crate) fn named(name: &'static str) -> Turtle {
    Turtle::from_fn(move |_| async move { Ok(Response::new(Body::from(name))) })
}

/// Never answers.
pub(crate) fn stuck() -> Turtle {
    Turtle::from_fn(|_| std::future::pending())
}

/// A body of many blocks of this size, which counts what is taken from it.
pub(crate) fn blocks(count: usize, size: usize) -> (Body, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = taken.clone();
    let block = Bytes::from(vec![b'x'; size]);
    let body = Body::from_stream(futures_util::stream::iter((0..count).map(move |_| {
        counter.fetch_add(size, Ordering::SeqCst);
        Ok::<_, Error>(block.clone())
    })));
    (body, taken)
}

/// Tells when it is dropped.
pub(crate) struct Ends(pub(crate) tokio::sync::mpsc::UnboundedSender<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.send(()).ok();
    }
}

/// The other end, by hand: it has said hello, and the caller says the rest.
pub(crate) async fn by_hand(io: &mut UnixStream, hello: &Hello) -> Hello {
    io.write_all(&hello.encode()).await.unwrap();
    let mut prefix = [0; PREFIX];
    io.read_exact(&mut prefix).await.unwrap();
    let mut rest = vec![0; Hello::decode_prefix(prefix).unwrap()];
    io.read_exact(&mut rest).await.unwrap();
    Hello::decode(&rest).unwrap()
}
