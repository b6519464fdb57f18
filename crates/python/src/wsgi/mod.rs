//! Hosting of WSGI applications (PEP 3333).
//!
//! A request becomes a job in a queue; a Python thread takes it, calls the application, iterates over what it returns
//! and closes it. The answer goes back through a one-shot channel, a streamed body through a bounded one, so that
//! nothing of the runtime ever waits for the interpreter.

mod environ;
mod file;
mod input;
mod response;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hawksbill_core::{Body, Error, Kind};
use http::request::Parts;
use http::{Method, Request, Response};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use tokio::runtime::Handle;

use self::environ::Template;
use self::file::FileWrapper;
use self::input::Input;
use self::response::{Halt, StartResponse};
use crate::answer::Answer;
use crate::broken::Broken;
use crate::convert::to_bytes;
use crate::facts::Facts;
use crate::failure::Failure;
use crate::pool::{Pool, Refusal, Work};
use crate::reply::{self, Reply};
use crate::thread;

/// How long a stop waits for calls that nobody waits for any more.
const STOP: Duration = Duration::from_secs(10);

/// A WSGI application with its threads.
pub(crate) struct WsgiApp {
    name: String,
    pool: Pool<Calls>,
}

struct Calls {
    name: String,
    /// Empty once the application is stopped.
    application: Mutex<Option<Py<PyAny>>>,
}

struct Job {
    parts: Parts,
    body: Body,
    runtime: Option<Handle>,
    reply: Reply,
}

struct Local {
    application: Py<PyAny>,
    template: Template,
}

impl WsgiApp {
    /// Hosts `application` on at most `threads` threads; at most `queue` requests wait for one.
    pub(crate) fn new(name: &str, application: Py<PyAny>, threads: usize, queue: usize) -> Self {
        let calls = Calls { name: name.to_owned(), application: Mutex::new(Some(application)) };
        // The kernel shows 15 characters of a thread's name.
        let pool = Pool::new(&format!("wsgi-{name}"), calls, threads, queue);
        Self { name: name.to_owned(), pool }
    }

    /// Asks the application.
    pub(crate) async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Error> {
        let (reply, answer) = reply::channel(self.pool.later().cloned());
        let (parts, body) = request.into_parts();
        let runtime = if http_body::Body::is_end_stream(&body) { None } else { Handle::try_current().ok() };
        self.pool.submit(Job { parts, body, runtime, reply }).map_err(|refusal| {
            let reason = match refusal {
                Refusal::Full => format!("the queue of application {} is full", self.name),
                Refusal::Stopped => format!("application {} is stopped", self.name),
            };
            Error::new(Kind::Overloaded).because(reason).retryable()
        })?;
        answer.await.unwrap_or_else(|| {
            let reason = format!("application {} was stopped before it answered", self.name);
            Err(Error::new(Kind::Internal).because(reason))
        })
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

impl Work for Calls {
    type Job = Job;
    type Local = Local;

    fn begin(&self, py: Python<'_>) -> Option<Local> {
        // No lock is held while Python runs: whoever waits for it attached would keep the interpreter from us.
        let application = {
            let application = self.application.lock().unwrap_or_else(PoisonError::into_inner);
            application.as_ref()?.clone_ref(py)
        };
        match Template::new(py) {
            Ok(template) => Some(Local { application, template }),
            Err(error) => {
                Failure::new(py, &error).log(&self.name, "start of a thread");
                None
            }
        }
    }

    fn run(&self, py: Python<'_>, local: &mut Local, job: Job) {
        // A client that left while its request waited is owed nothing.
        if job.reply.is_closed() {
            return;
        }
        let Job { parts, body, runtime, reply } = job;
        let broken = Broken::default();
        let start = StartResponse::new(Answer::new(reply, parts.method == Method::HEAD, broken.clone()));
        let input = Input::new(body, runtime, broken.clone());
        let (start, input) = match (Bound::new(py, start), Bound::new(py, input)) {
            (Ok(start), Ok(input)) => (start, input),
            (Err(error), _) | (_, Err(error)) => {
                return Failure::new(py, &error).log(&self.name, &Facts::new(&parts).describe());
            }
        };
        let facts = Facts::new(&parts);
        let answered = respond(local, facts, &start, &input);
        if let Err(error) = answered {
            let failure = Failure::new(py, &error);
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
            start.get().fail(failure.into_error(&self.name));
        }
        start.get().close();
        input.get().close();
    }
}

fn respond(
    local: &mut Local,
    facts: Facts<'_>,
    start: &Bound<'_, StartResponse>,
    input: &Bound<'_, Input>,
) -> PyResult<()> {
    let py = start.py();
    let environ = local.template.environ(facts, input.clone())?;
    let iterable = local.application.bind(py).call1((environ, start))?;
    let sent = send(&iterable, start.get(), input.get());
    let closed = close(&iterable);
    let finished = sent.and_then(|()| {
        // A failing `close()` is a failing application, as long as the client can be told.
        closed?;
        start.get().finish()
    });
    match finished {
        Ok(()) | Err(Halt::Enough) => Ok(()),
        Err(Halt::Raised(error)) => Err(error),
    }
}

/// Sends what the application returned.
fn send(iterable: &Bound<'_, PyAny>, start: &StartResponse, input: &Input) -> Result<(), Halt> {
    let py = iterable.py();
    // What is there as a whole needs no turn a block, and nobody is left to read: what the request's body still holds
    // decides whether the answer can say that the connection goes on.
    if iterable.is_exact_instance_of::<PyList>() || iterable.is_exact_instance_of::<PyTuple>() {
        let blocks: PyResult<Vec<_>> =
            iterable.try_iter()?.map(|block| to_bytes(&block?, "a block")).collect();
        input.close();
        return start.whole(py, blocks?);
    }
    if let Ok(wrapper) = iterable.cast_exact::<FileWrapper>()
        && let Some(segment) = wrapper.get().segment(py)
    {
        input.close();
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
