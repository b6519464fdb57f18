//! Several workers as one turtle.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hawksbill_core::{Body, Error, Kind, Turtle, TurtleFuture};
use http::Request;
use tokio::time::{Instant, sleep, timeout};

use crate::call::{Again, Call, Failure};
use crate::members::{Member, Members, Place};
use crate::settings::{Settings, Transport};
use crate::{Connection, Fault};

/// How often a request is tried at most, each time because a worker was lost.
const TRIES: usize = 8;

/// The pauses between two attempts to reach a worker.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How a pool behaves.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Whose workers these are, for the log: `app shop`.
    pub name: String,
    /// How each connection behaves.
    pub connection: Settings,
    /// How many requests may wait while all workers are busy, or there is none.
    pub queue: usize,
    /// How long a request waits while there is no worker at all.
    pub patience: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            name: "the pool".to_owned(),
            connection: Settings::default(),
            queue: 100,
            patience: Duration::from_secs(10),
        }
    }
}

/// One worker of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkerId(pub(crate) u64);

/// What a pool knows of a worker.
#[derive(Clone, Debug)]
pub struct WorkerStatus {
    /// Which one.
    pub id: WorkerId,
    /// Its socket; `None` where it was given as a connection.
    pub path: Option<PathBuf>,
    /// Whether it takes requests.
    pub ready: bool,
    /// Requests under way.
    pub in_flight: usize,
    /// How many it serves at a time.
    pub capacity: usize,
    /// Why there is no connection, or why the last one ended.
    pub trouble: Option<String>,
}

/// The workers of one application. Cheap to clone: the one who starts and stops workers keeps a clone.
///
/// A request goes to the worker that is the least busy for its capacity. While all are busy it waits, in the order of
/// arrival; more than [`PoolSettings::queue`] are answered 503.
///
/// A request whose worker is lost is given to another one where the first certainly never saw it. So is one of a safe
/// method (RFC 9110 section 9.2.1: `GET`, `HEAD`, `OPTIONS`, `TRACE`) that has no answer yet, once: it may be what ended
/// the worker, and shall not end them all.
///
/// ```
/// use hawksbill_core::{Body, Turtle};
/// use hawksbill_hop::{Pool, PoolSettings, Settings, Worker};
/// use http::{Request, Response};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let pool = Pool::new(PoolSettings { name: "app shop".to_owned(), ..PoolSettings::default() });
/// for number in 0..2 {
///     let (front, back) = tokio::net::UnixStream::pair().unwrap();
///     let turtle = Turtle::from_fn(move |_| async move {
///         Ok(Response::new(Body::from(format!("worker {number}"))))
///     });
///     tokio::spawn(async move { Worker::new(Settings::default(), 4).serve(back, turtle).await });
///     pool.add_stream(front).await.unwrap();
/// }
/// let response = pool.turtle().ask(Request::new(Body::empty())).await.unwrap();
/// assert_eq!(response.status(), 200);
/// # }
/// ```
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    settings: PoolSettings,
    members: Arc<Members>,
}

impl Pool {
    /// A pool without workers.
    pub fn new(settings: PoolSettings) -> Self {
        Self(Arc::new(Inner { settings, members: Arc::default() }))
    }

    /// The workers as one turtle.
    pub fn turtle(&self) -> Turtle {
        let inner = self.0.clone();
        Turtle::from_ask(move |request| inner.ask(request))
    }

    /// Adds the worker whose socket is at this path. It is connected to as soon as it is there, and again when the
    /// connection breaks.
    ///
    /// Must be called within a tokio runtime with time and I/O.
    pub fn add(&self, path: impl AsRef<Path>) -> WorkerId {
        let path = path.as_ref().to_owned();
        let id = self.0.members.add(Member::new(Place::Socket(path.clone())));
        let members = Arc::downgrade(&self.0.members);
        let settings = self.0.settings.clone();
        let task = tokio::spawn(keep(members, id, path, settings));
        self.0.members.kept_by(id, task.abort_handle());
        id
    }

    /// Adds the worker at the other end of a stream. When that ends, it is gone.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn add_stream(&self, io: impl Transport) -> Result<WorkerId, Fault> {
        let connection = Connection::open(io, &self.0.settings.connection).await?;
        let id = self.0.members.add(Member::new(Place::Stream));
        self.0.members.arrived(id, &connection);
        let members = Arc::downgrade(&self.0.members);
        let name = self.0.settings.name.clone();
        let ended = connection.clone();
        let task = tokio::spawn(async move {
            let fault = until_ended(ended).await;
            if let Some(members) = members.upgrade() {
                log_loss(&name, &members, id, &fault);
                members.remove(id);
            }
        });
        self.0.members.kept_by(id, task.abort_handle());
        Ok(id)
    }

    /// Waits until this worker takes requests. `false`: it is no longer in the pool.
    pub async fn ready(&self, id: WorkerId) -> bool {
        self.0.members.until_ready(id).await
    }

    /// Waits until there is any worker that takes requests.
    pub async fn any_ready(&self) {
        self.0.members.until_any_ready().await;
    }

    /// Gives this worker no new requests from now on; what is given back waits for those under way, and takes it out.
    ///
    /// The request that is queued finds another worker; add that one first.
    pub fn drain(&self, id: WorkerId) -> impl Future<Output = ()> + Send + use<> {
        let connection = self.0.members.retire(id);
        if let Some(connection) = &connection {
            connection.drain();
        }
        let members = self.0.members.clone();
        async move {
            if let Some(connection) = connection {
                until_ended(connection).await;
            }
            members.remove(id);
        }
    }

    /// Takes this worker out at once, as if it were lost with the requests that it has.
    pub fn remove(&self, id: WorkerId) {
        if let Some(connection) = self.0.members.remove(id) {
            connection.close();
        }
    }

    /// Every worker and how it is.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        self.0.members.status()
    }

    /// Requests that wait for a worker.
    pub fn waiting(&self) -> usize {
        self.0.members.waiting()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.0.settings.name).field("workers", &self.workers()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.members.clear();
    }
}

impl Inner {
    fn ask(self: &Arc<Self>, request: Request<Body>) -> TurtleFuture {
        // The usual request finds a worker at once, and is on its way before anybody waits for its answer.
        let sent = match self.members.choose() {
            Some((connection, seat)) => connection.send(seat, request),
            None => Err(Failure::unseen(self.no_worker(), request)),
        };
        let inner = self.clone();
        TurtleFuture::new(async move { inner.settle(sent).await })
    }

    /// Waits for the answer; begins anew where the worker was lost before it saw the request, and once where it saw one
    /// that is safe. Only once, for it may be what ends the workers.
    async fn settle(&self, mut sent: Result<Call, Failure>) -> Result<http::Response<Body>, Error> {
        let mut was_seen = false;
        for _ in 0..TRIES {
            let failure = match sent {
                Ok(call) => match call.await {
                    Ok(response) => return Ok(response),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            let request = match failure.again {
                Again::Unseen(request) => request,
                Again::Safe(request) if !std::mem::replace(&mut was_seen, true) => request,
                Again::Safe(_) | Again::No => return Err(failure.error),
            };
            let (connection, seat) = match self.members.choose() {
                Some(chosen) => chosen,
                None => self.wait().await?,
            };
            sent = connection.send(seat, *request);
        }
        Err(Error::new(Kind::BadGateway)
            .because(format!("workers of {} were lost again and again", self.settings.name)))
    }

    async fn wait(&self) -> Result<(Connection, crate::seat::Seat), Error> {
        let Some(mut place) = self.members.queue(self.settings.queue) else {
            let reason = format!("all workers of {} are busy and its queue is full", self.settings.name);
            return Err(overloaded(reason));
        };
        loop {
            match timeout(self.settings.patience, &mut place).await {
                Ok(Ok(seat)) => return Ok(seat),
                Err(_) if self.members.any_ready() => {}
                Ok(Err(_)) | Err(_) => return Err(self.no_worker()),
            }
        }
    }

    fn no_worker(&self) -> Error {
        let trouble = self.members.status().into_iter().find_map(|worker| worker.trouble);
        let trouble = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
        overloaded(format!("{} has no worker{trouble}", self.settings.name))
    }
}

fn overloaded(reason: String) -> Error {
    Error::new(Kind::Overloaded).because(reason).retryable()
}

/// Waits for the end of a connection without keeping it open.
async fn until_ended(connection: Connection) -> Arc<Fault> {
    let link = connection.link();
    drop(connection);
    link.ended().await
}

/// Keeps a worker connected as long as it is in the pool.
async fn keep(members: Weak<Members>, id: WorkerId, path: PathBuf, settings: PoolSettings) {
    let mut pause = Duration::ZERO;
    loop {
        let began = Instant::now();
        let connected = Connection::connect(&path, &settings.connection).await;
        let Some(there) = members.upgrade() else { return };
        match connected {
            Ok(connection) => {
                if !there.arrived(id, &connection) {
                    return;
                }
                drop(there);
                let fault = until_ended(connection).await;
                let Some(there) = members.upgrade() else { return };
                log_loss(&settings.name, &there, id, &fault);
                if !there.left(id, fault.to_string()) {
                    return;
                }
            }
            Err(fault) => {
                let trouble = format!("the worker at {} is not reached: {fault}", path.display());
                if there.left_anew(id, &trouble) {
                    tracing::warn!(target: "hawksbill::error", "{}: {trouble}", settings.name);
                }
            }
        }
        // One that was there for a while is looked for at once.
        pause = match pause {
            _ if began.elapsed() >= PAUSES.1 => Duration::ZERO,
            Duration::ZERO => PAUSES.0,
            pause => (pause * 2).min(PAUSES.1),
        };
        sleep(pause).await;
    }
}

fn log_loss(name: &str, members: &Members, id: WorkerId, fault: &Fault) {
    if !matches!(fault, Fault::Closed) && !members.is_retired(id) {
        tracing::warn!(target: "hawksbill::error", "{name}: a worker was lost: {fault}");
    }
}
