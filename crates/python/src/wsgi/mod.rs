//! Hosting of WSGI applications (PEP 3333).
//!
//! A request becomes a job in a queue; a Python thread takes it, calls the application, iterates over what it returns
//! and closes it. The answer goes back through a one-shot channel, a streamed body through a bounded one, so that
//! nothing of the runtime ever waits for the interpreter.

mod environ;
mod file;
mod gather;
mod input;
mod known;
mod recent;
mod response;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hawksbill_core::config::Duration as Span;
use hawksbill_core::{Body, Error, Kind, Side, TurtleFuture};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, Uri};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use self::environ::Template;
use self::file::FileWrapper;
use self::gather::Gathered;
use self::input::Input;
use self::response::{Halt, StartResponse};
use crate::answer::Answer;
use crate::broken::Broken;
use crate::convert::to_bytes;
use crate::facts::{Facts, describe};
use crate::failure::Failure;
use crate::host::{Home, Options};
use crate::pool::{Overdue, Pool, Refusal, Trace, Work};
use crate::reply::{self, Asked, Fate, Reply};
use crate::request_id;
use crate::slow::{self, Round, Slow, What};
use crate::stacks::Place;
use crate::thread;
use crate::watchdog::{ADVICE, Late, Watched, soonest};

/// How long a stop waits for calls that nobody waits for any more.
const STOP: Duration = Duration::from_secs(10);

/// A WSGI application with its threads.
pub(crate) struct WsgiApp {
    name: String,
    pool: Pool<Calls>,
    /// How long a call may take to begin its answer; 0: as long as it likes.
    timeout: Span,
    /// Those that take long, if anybody wants to know.
    slow: Option<Arc<Slow>>,
}

struct Calls {
    name: String,
    /// Whether somebody looks which calls are late.
    is_watched: bool,
    /// Whether it is told where slow ones stand.
    tells_slow: bool,
    /// Empty once the application is stopped.
    application: Mutex<Option<Py<PyAny>>>,
}

struct Job {
    parts: Parts,
    /// `None`: the request has none.
    body: Option<Gathered>,
    broken: Broken,
    reply: Reply,
}

/// What is kept of a call while it is made.
struct Underway {
    method: Method,
    uri: Uri,
    /// Kept where it may have to be told.
    request_id: Option<HeaderValue>,
    broken: Broken,
    late: reply::Late,
}

struct Local {
    application: Py<PyAny>,
    template: Template,
    no_input: Py<Input>,
}

impl WsgiApp {
    /// Hosts `application` on threads.
    pub(crate) fn new(name: &str, application: Py<PyAny>, home: &Home, options: &Options) -> Arc<Self> {
        let application = Mutex::new(Some(application));
        let slow = Slow::new(name, options.slow, slow::REQUEST);
        let tells_slow = slow.is_some();
        let is_watched = tells_slow || !options.timeout.is_zero();
        let calls = Calls { name: name.to_owned(), is_watched, tells_slow, application };
        // The kernel shows 15 characters of a thread's name.
        let pool = Pool::new(&format!("wsgi-{name}"), calls, options.threads, options.queue);
        let app = Arc::new(Self { name: name.to_owned(), pool, timeout: options.timeout, slow });
        let asked = Arc::downgrade(&app);
        home.watchdog
            .vitals()
            .source(move || asked.upgrade().map(|app| app.pool.sample()).unwrap_or_default());
        if is_watched {
            home.watchdog.watch(&app);
        }
        app
    }

    /// Asks the application.
    pub(crate) fn ask(self: &Arc<Self>, request: Request<Body>) -> TurtleFuture {
        let (parts, body) = request.into_parts();
        let app = self.clone();
        if http_body::Body::is_end_stream(&body) {
            return match self.submit(parts, None) {
                Ok(asked) => TurtleFuture::new(Call { asked, app }),
                Err(error) => TurtleFuture::refused(error),
            };
        }
        TurtleFuture::new(async move {
            let body = Gathered::of(&parts, body).await;
            let asked = app.submit(parts, Some(body))?;
            Call { asked, app }.await
        })
    }

    fn submit(&self, parts: Parts, body: Option<Gathered>) -> Result<Asked, Error> {
        let (reply, asked) = reply::channel(self.pool.later().cloned());
        let broken = if body.is_some() { Broken::new() } else { Broken::never() };
        self.pool.submit(Box::new(Job { parts, body, broken, reply })).map_err(|refusal| {
            let reason = match refusal {
                Refusal::Full => format!("the queue of application {} is full", self.name),
                Refusal::Stopped => format!("application {} is stopped", self.name),
            };
            Error::new(Kind::Overloaded).because(reason).retryable()
        })?;
        Ok(asked)
    }

    /// Lets the threads end, and the application go.
    pub(crate) async fn stop(&self) {
        if !self.pool.stop(STOP).await {
            tracing::warn!(
                target: "hawksbill::app",
                app = self.name,
                "a call still runs {STOP:?} after the stop; its thread is left behind"
            );
        }
        let application = self.pool.work().application.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread::release(application).await;
    }
}

impl Watched for WsgiApp {
    fn soonest(&self) -> Duration {
        soonest([self.timeout.get(), self.slow.as_ref().map_or(Duration::ZERO, |slow| slow.after())])
    }

    fn look_slow(self: Arc<Self>, round: &mut Round) {
        let Some(slow) = &self.slow else { return };
        let what = |call: &Underway| {
            let is_slow = call.late.is_awaited();
            is_slow.then(|| (call.method.clone(), call.uri.clone(), call.request_id.clone()))
        };
        let running = self.pool.slow(slow.after(), round.now, what);
        slow.look(
            round,
            running,
            |(_, (method, uri, id))| What::new(describe(method, uri), id.clone()),
            |(thread, _)| Place::Thread(thread),
        );
    }

    fn look(self: Arc<Self>, now: Duration, late: &mut Vec<Late>) {
        if self.timeout.is_zero() {
            return;
        }
        let Overdue { running, waiting } = self.pool.overdue(self.timeout.get(), now);
        for (thread, call) in running {
            late.extend(self.late(&thread, &call));
        }
        let count = waiting.len();
        for job in waiting {
            let reason = format!("no thread of application {} was free for {}", self.name, self.timeout);
            job.reply.send(Err(Error::new(Kind::Overloaded).because(reason).retryable()));
        }
        if count > 0 {
            late.push(Late {
                app: self.name.clone(),
                message: format!(
                    "{count} requests have waited {} for a thread, all being at work: answered 503",
                    self.timeout
                ),
                stuck: None,
                task: None,
                then: None,
            });
        }
    }
}

impl WsgiApp {
    /// Answers in place of a call that has not begun its answer. The call itself cannot be ended.
    fn late(&self, thread: &str, call: &Underway) -> Option<Late> {
        let (name, timeout) = (&self.name, self.timeout);
        let error = || {
            let reason = format!("application {name} has not begun its answer within {timeout}");
            Error::new(Kind::GatewayTimeout).because(reason).at(Side::Application)
        };
        let fate = match call.late.answer(error) {
            Fate::Answered => return None,
            Fate::Told => "answered 504",
            Fate::Left => "its client left",
        };
        let request = describe(&call.method, &call.uri);
        Some(Late {
            app: name.clone(),
            message: format!(
                "{request}: no answer within {timeout}: {fate}; its call goes on, on thread {thread}; {ADVICE}"
            ),
            stuck: Some(format!("{request} of application {name}")),
            task: None,
            then: None,
        })
    }
}

impl Trace for Underway {
    fn has_waited(&self) -> bool {
        self.broken.has_waited()
    }
}

/// A request whose answer is awaited.
struct Call {
    asked: Asked,
    app: Arc<WsgiApp>,
}

impl Future for Call {
    type Output = Result<Response<Body>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = ready!(Pin::new(&mut self.asked).poll(cx));
        Poll::Ready(answered.unwrap_or_else(|| {
            let reason = format!("application {} was stopped before it answered", self.app.name);
            Err(Error::new(Kind::Internal).because(reason))
        }))
    }
}

impl Work for Calls {
    // Moved several times on its way to a thread, so that copies would cost more than the allocation.
    type Job = Box<Job>;
    type Local = Local;
    type Trace = Underway;

    fn begin(&self, py: Python<'_>) -> Option<Local> {
        // No lock is held while Python runs: whoever waits for it attached would keep the interpreter from us.
        let application = {
            let application = self.application.lock().unwrap_or_else(PoisonError::into_inner);
            application.as_ref()?.clone_ref(py)
        };
        let made = Template::new(py)
            .and_then(|template| Ok(Local { application, template, no_input: Py::new(py, Input::empty())? }));
        made.inspect_err(|error| Failure::new(py, error).log(&self.name, "start of a thread")).ok()
    }

    fn trace(&self, job: &Box<Job>) -> Option<Underway> {
        self.is_watched.then(|| Underway {
            method: job.parts.method.clone(),
            uri: job.parts.uri.clone(),
            request_id: if self.tells_slow { slow::id_of(&job.parts.headers) } else { None },
            broken: job.broken.clone(),
            late: job.reply.late(),
        })
    }

    fn run(&self, py: Python<'_>, local: &mut Local, job: Box<Job>) {
        // A client that left while its request waited is owed nothing.
        if job.reply.is_closed() {
            return;
        }
        let Job { parts, body, broken, reply } = *job;
        let start = StartResponse::new(Answer::new(reply, parts.method == Method::HEAD, broken.clone()));
        let has_body = body.is_some();
        let input = match body {
            Some(body) => Bound::new(py, Input::new(body, broken.clone())),
            None => Ok(local.no_input.bind(py).clone()),
        };
        let facts = Facts::new(&parts);
        let (start, input) = match (Bound::new(py, start), input) {
            (Ok(start), Ok(input)) => (start, input),
            (Err(error), _) | (_, Err(error)) => {
                return Failure::new(py, &error).log(&self.name, &facts.describe());
            }
        };
        let _noted = request_id::note(py, &parts.headers);
        if let Err(error) = respond(local, facts, &start, &input) {
            start.get().fail(self.failed(py, &error, facts, &broken));
        }
        start.get().close();
        if has_body {
            input.get().close();
        }
    }
}

impl Calls {
    /// Tells of a call that failed, and gives what that means to its client.
    fn failed(&self, py: Python<'_>, error: &PyErr, facts: Facts<'_>, broken: &Broken) -> Error {
        let failure = Failure::new(py, error);
        if broken.is_set() {
            tracing::info!(
                target: "hawksbill::app",
                app = self.name,
                "{}: the request body did not arrive: {}",
                facts.describe(),
                failure.summary
            );
        } else {
            failure.log(&self.name, &facts.describe());
        }
        failure.into_error(&self.name)
    }
}

fn respond(
    local: &mut Local,
    facts: Facts<'_>,
    start: &Bound<'_, StartResponse>,
    input: &Bound<'_, Input>,
) -> PyResult<()> {
    let py = start.py();
    let environ = local.template.environ(facts, input)?;
    let iterable = local.application.bind(py).call1((environ, start))?;
    let (start, input) = (start.get(), input.get());
    // Most answers are lists of one block: nothing is asked of them, and they have no `close`.
    if iterable.is_exact_instance_of::<PyList>() || iterable.is_exact_instance_of::<PyTuple>() {
        return done(send_whole(&iterable, start, input));
    }
    let sent = send(&iterable, start, input);
    let closed = close(&iterable);
    done(sent.and_then(|()| {
        // A failing `close()` is a failing application, as long as the client can be told.
        closed?;
        start.finish()
    }))
}

fn done(outcome: Result<(), Halt>) -> PyResult<()> {
    match outcome {
        Ok(()) | Err(Halt::Enough) => Ok(()),
        Err(Halt::Raised(error)) => Err(error),
    }
}

/// Sends what is there as a whole. Nobody is left to read: what the request's body still holds decides whether the answer
/// can say that the connection goes on.
fn send_whole(iterable: &Bound<'_, PyAny>, start: &StartResponse, input: &Input) -> Result<(), Halt> {
    let mut blocks = iterable.try_iter()?.map(|block| to_bytes(&block?, "a block"));
    let mut whole = blocks.next().transpose()?.unwrap_or_default();
    let further = blocks.collect::<PyResult<Vec<_>>>()?;
    if !further.is_empty() {
        whole = [vec![whole], further].concat().concat().into();
    }
    input.let_go();
    if let Some(block) = start.whole(whole)? {
        start.block(iterable.py(), block)?;
        start.finish()?;
    }
    Ok(())
}

/// Sends what the application returned, block by block.
fn send(iterable: &Bound<'_, PyAny>, start: &StartResponse, input: &Input) -> Result<(), Halt> {
    let py = iterable.py();
    if let Ok(wrapper) = iterable.cast_exact::<FileWrapper>()
        && let Some(segment) = wrapper.get().segment(py)
    {
        input.let_go();
        return start.file(py, segment);
    }
    for block in iterable.try_iter()? {
        start.block(py, to_bytes(&block?, "a block")?)?;
    }
    Ok(())
}

/// Calls `close()` where there is one (PEP 3333, "Specification Details").
fn close(iterable: &Bound<'_, PyAny>) -> PyResult<()> {
    match iterable.getattr_opt(intern!(iterable.py(), "close"))? {
        Some(close) => close.call0().map(drop),
        None => Ok(()),
    }
}
