//! One HTTP request of an ASGI application (ASGI "HTTP").
//!
//! The exchange is the waker of everything it waits for: when the client's next bytes, room for ours, or its leaving
//! come, it has itself given a turn on the event loop, and resolves the futures that wait.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use hawksbill_core::config::Duration as Span;
use hawksbill_core::{Body, Error, Kind, Side};
use http::request::Parts;
use http::{HeaderValue, Method, Uri};
use http_body::Body as _;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use tokio::runtime::Handle;

use super::conversation::{Conversation, Event, Waiting, is_done, raise};
use super::event_loop::{Loop, Tasked, Turn};
use super::message::Message;
use super::{Application, file, scope};
use crate::answer::{Answer, Trouble};
use crate::broken::Broken;
use crate::facts::{Facts, describe};
use crate::failure::Failure;
use crate::reply::{self, Fate, Reply};
use crate::request_id;
use crate::segment::Segment;
use crate::slow;
use crate::stacks::Place;
use crate::watchdog::{ADVICE, Late};

/// A request and its answer.
pub(super) struct Exchange {
    application: Arc<Application>,
    /// Whether a turn is posted already.
    posted: AtomicBool,
    method: Method,
    uri: Uri,
    /// Kept where it may have to be told.
    pub(super) request_id: Option<HeaderValue>,
    runtime: Option<Handle>,
    broken: Broken,
    late: reply::Late,
    /// Whether the client takes fields behind the body.
    takes_trailers: bool,
    waiting: Waiting,
    state: Mutex<State>,
}

struct State {
    request: Option<Parts>,
    incoming: Incoming,
    answer: Answer,
    over: bool,
    /// Its number among those that are watched.
    ticket: Option<u64>,
    /// Whether it was answered in its stead, so that its end is nobody's affair.
    is_late: bool,
    /// A file that is being opened for `http.response.pathsend`.
    opening: Option<Opening>,
}

/// A file on its way from its path, and who waits for it.
struct Opening {
    path: PathBuf,
    future: Py<PyAny>,
    file: Option<io::Result<Segment>>,
}

/// The request body on its way in.
struct Incoming {
    body: Option<Body>,
    /// A block that was read to see whether it is the last.
    ahead: Option<Bytes>,
    told_end: bool,
    /// Whether the application waits for more of the body, or has waited for what came since somebody asked.
    waits: bool,
    has_waited: bool,
}

/// What `receive()` returns.
pub(super) enum Incident {
    Request(Bytes, bool),
    Disconnect,
}

impl Exchange {
    pub(super) fn new(application: Arc<Application>, parts: Parts, body: Body, reply: Reply) -> Arc<Self> {
        let broken = Broken::default();
        let runtime = if body.is_end_stream() { None } else { Handle::try_current().ok() };
        let late = reply.late();
        let answer = Answer::new(reply, parts.method == Method::HEAD, broken.clone());
        let (method, uri) = (parts.method.clone(), parts.uri.clone());
        let takes_trailers = scope::takes_trailers(&parts);
        let request_id = if application.tells_slow() { slow::id_of(&parts.headers) } else { None };
        Arc::new(Self {
            application,
            posted: AtomicBool::new(false),
            method,
            uri,
            request_id,
            runtime,
            broken,
            late,
            takes_trailers,
            waiting: Waiting::default(),
            state: Mutex::new(State {
                request: Some(parts),
                incoming: Incoming::new(body),
                answer,
                over: false,
                ticket: None,
                is_late: false,
                opening: None,
            }),
        })
    }

    /// Has the application called on the event loop. False when that is stopped.
    pub(super) fn begin(self: Arc<Self>) -> bool {
        self.posted.store(true, Ordering::Release);
        let application = self.application.clone();
        application.underway().begin();
        // On the runtime's own thread most are over at once.
        if !application.remote().is_settled() {
            self.watch();
        }
        application.remote().run(self)
    }

    /// Has it seen whether its answer begins in time.
    fn watch(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.ticket.is_none() && !state.is_late {
            state.ticket = Some(self.application.underway().keep(self));
        }
    }

    /// Whether the application has begun its answer.
    pub(super) fn has_begun_answer(&self) -> bool {
        self.lock().answer.has_begun()
    }

    /// Whether the application waits for the request's body, or has waited for what came of it since this was last asked.
    pub(super) fn is_clients_turn(&self) -> bool {
        let mut state = self.lock();
        std::mem::take(&mut state.incoming.has_waited)
            || (!state.incoming.told_end && self.waiting.receives())
    }

    /// Answers in place of an application that has not begun its answer, and has its task cancelled.
    pub(super) fn late(self: Arc<Self>, timeout: Span) -> Option<Late> {
        let name = self.application.name();
        let error = || {
            let reason = format!("application {name} has not begun its answer within {timeout}");
            Error::new(Kind::GatewayTimeout).because(reason).at(Side::Application)
        };
        self.lock().is_late = true;
        let fate = match self.late.answer(error) {
            Fate::Answered => {
                self.lock().is_late = false;
                return None;
            }
            Fate::Told => "answered 504",
            Fate::Left => "its client left",
        };
        let (shown, cancelled) = (self.clone(), self.clone());
        Some(Late {
            app: name.to_owned(),
            message: format!(
                "{}: no answer within {timeout}: {fate}; its task is cancelled; {ADVICE}",
                self.description()
            ),
            stuck: None,
            task: Some(Box::new(move |py| shown.waiting.task(py))),
            then: Some(Box::new(move || {
                let application = cancelled.application.clone();
                application.remote().post(Arc::new(Cancel(cancelled)));
            })),
        })
    }

    /// Where it stands.
    pub(super) fn place(self: Arc<Self>) -> Place {
        Place::Task(Box::new(move |py| self.waiting.task(py)))
    }

    /// For messages.
    pub(super) fn description(&self) -> String {
        describe(&self.method, &self.uri)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the application, as a task.
    fn start(self: &Arc<Self>, event_loop: &Bound<'_, Loop>, parts: &Parts) -> PyResult<()> {
        let py = event_loop.py();
        if self.lock().is_late {
            return Ok(());
        }
        let Some(callable) = self.application.callable(py) else {
            self.lock().answer.fail(self.application.stopped());
            return Ok(());
        };
        let state = self.application.state(py);
        let scope =
            event_loop.get().scopes().http(py, Facts::new(parts), self.takes_trailers, state.as_ref())?;
        let receive = Receive { exchange: self.clone(), event_loop: event_loop.clone().unbind() };
        let send = Send { exchange: self.clone(), event_loop: event_loop.clone().unbind() };
        // What runs from now on has this context.
        let _noted = request_id::note(py, &parts.headers);
        let awaitable = callable.bind(py).call1((scope, receive, send))?;
        event_loop.get().run(awaitable, self)
    }

    fn send<'py>(
        self: &Arc<Self>,
        event_loop: &Bound<'py, Loop>,
        message: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = event_loop.py();
        let message = Message::new(message)?;
        let kind = message.kind()?;
        let streaming = match kind.to_str()? {
            "http.response.start" => {
                let head = message.head()?;
                let trailers = self.takes_trailers && message.flag(intern!(py, "trailers"))?;
                let mut state = self.lock();
                // What follows a complete response is ignored (ASGI "Response Body").
                if !state.answer.is_complete() {
                    state.answer.start(head, false).map_err(raise)?;
                    if trailers {
                        state.answer.expect_trailers();
                    }
                }
                false
            }
            "http.response.body" => {
                let (block, more) = message.body()?;
                let mut state = self.lock();
                state.check_unmixed()?;
                let sent = if more { state.answer.block(block) } else { state.answer.last(block) };
                sent.map_err(raise)?;
                more
            }
            "http.response.zerocopysend" => {
                let more = message.flag(intern!(py, "more_body"))?;
                let segment = file::segment(&message)?;
                let mut state = self.lock();
                state.check_unmixed()?;
                state.answer.file(segment, more).map_err(raise)?;
                more
            }
            "http.response.pathsend" => return self.send_path(event_loop, file::path(&message)?),
            "http.response.trailers" => {
                let (fields, more) = (message.headers()?, message.flag(intern!(py, "more_trailers"))?);
                let mut state = self.lock();
                if !state.answer.takes_trailers() {
                    return Err(PyRuntimeError::new_err(
                        "trailers follow the last block of a response whose start says 'trailers': True",
                    ));
                }
                state.answer.trailers(fields, more).map_err(raise)?;
                false
            }
            other => {
                return Err(PyValueError::new_err(format!(
                    "an HTTP response has no message of type '{other}'"
                )));
            }
        };
        if streaming {
            return self.sent(event_loop);
        }
        // The end of the answer is what some `receive()` may wait for.
        self.resume_receivers(py)?;
        Ok(event_loop.get().done(py))
    }

    /// Has the file opened elsewhere, since that may take its time; [`send_opened`](Self::send_opened) goes on.
    fn send_path<'py>(
        self: &Arc<Self>,
        event_loop: &Bound<'py, Loop>,
        path: PathBuf,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = event_loop.py();
        let future = event_loop.get().create_future(py)?;
        {
            let mut state = self.lock();
            state.check_unmixed()?;
            if state.answer.is_complete() {
                return Ok(event_loop.get().done(py));
            }
            if state.answer.is_sent() {
                return Err(raise_mixed());
            }
            state.opening = Some(Opening { path: path.clone(), future: future.clone().unbind(), file: None });
        }
        let exchange = self.clone();
        self.application.runtime().spawn_blocking(move || {
            let file = Segment::open(&path);
            if let Some(opening) = &mut exchange.lock().opening {
                opening.file = Some(file);
            }
            exchange.wake();
        });
        Loop::awaiting(&future)
    }

    /// Answers with the file that was to be opened, if it is.
    fn send_opened(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let Some(Opening { path, future, file }) =
            self.lock().opening.take_if(|opening| opening.file.is_some())
        else {
            return Ok(());
        };
        let (future, Some(file)) = (future.into_bound(py), file) else { return Ok(()) };
        // Whoever was cancelled has sent nothing.
        if is_done(&future)? {
            return Ok(());
        }
        let sent = match file {
            Ok(segment) => self.lock().answer.file(segment, false).map_err(raise),
            Err(error) => Err(file::raise(py, &error, &path)),
        };
        match sent {
            Ok(()) => future.call_method1(intern!(py, "set_result"), (py.None(),))?,
            Err(error) => future.call_method1(intern!(py, "set_exception"), (error.into_value(py),))?,
        };
        Ok(())
    }
}

impl State {
    /// A file that is sent by its path is the whole body.
    fn check_unmixed(&self) -> PyResult<()> {
        if self.opening.is_some() { Err(raise_mixed()) } else { Ok(()) }
    }
}

fn raise_mixed() -> PyErr {
    PyRuntimeError::new_err("'http.response.pathsend' is the whole body: nothing is sent before or after it")
}

impl Conversation for Exchange {
    type Event = Incident;

    fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Incident> {
        let _entered = self.runtime.as_ref().map(Handle::enter);
        let mut state = self.lock();
        let state = &mut *state;
        if state.answer.is_complete() {
            return Poll::Ready(Incident::Disconnect);
        }
        if !state.incoming.told_end {
            match state.incoming.poll(cx) {
                Poll::Ready(Ok((block, more))) => {
                    state.incoming.has_waited |= std::mem::take(&mut state.incoming.waits);
                    return Poll::Ready(Incident::Request(block, more));
                }
                Poll::Ready(Err(error)) => {
                    state.incoming.told_end = true;
                    self.broken.set(error);
                    return Poll::Ready(Incident::Disconnect);
                }
                Poll::Pending => {
                    state.incoming.waits = true;
                    return Poll::Pending;
                }
            }
        }
        if self.broken.is_set() || state.over {
            return Poll::Ready(Incident::Disconnect);
        }
        state.answer.poll_left(cx).map(|()| Incident::Disconnect)
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        self.lock().answer.poll_room(cx)
    }
}

impl Tasked for Exchange {
    fn keep(self: Arc<Self>, task: &Bound<'_, PyAny>) {
        self.waiting.keep(task);
        self.watch();
    }

    /// What the application returned or raised is the end of its answer.
    fn end(&self, py: Python<'_>, result: PyResult<()>) {
        let mut state = self.lock();
        state.over = true;
        state.incoming.body = None;
        let (ticket, is_late) = (state.ticket.take(), state.is_late);
        let opening = state.opening.take();
        let complete = state.answer.is_complete();
        let left = matches!(state.answer.poll_left(&mut Context::from_waker(Waker::noop())), Poll::Ready(()))
            && !complete;
        drop(state);
        drop(opening);
        if let Some(ticket) = ticket {
            self.application.underway().end(ticket);
        }
        self.waiting.release(py);
        let failure = match result {
            Err(error) => Failure::new(py, &error),
            Ok(()) if complete || left => return,
            Ok(()) => Failure::message("the application returned before its response was complete"),
        };
        let name = self.application.name();
        let stopping = self.application.remote().is_stopping();
        if self.broken.is_set() || left || stopping {
            let reason = match (left, stopping) {
                (true, _) if is_late => "it was late, and is over now",
                (true, _) => "the client left",
                (false, true) => "the application is stopped",
                (false, false) => "the request body did not arrive",
            };
            tracing::info!(target: "hawksbill::app", app = name, "{}: {reason}: {}", self.description(), failure.summary);
        } else {
            failure.log(name, &self.description());
        }
        self.lock().answer.fail(failure.into_error(name));
    }
}

impl Turn for Exchange {
    fn turn(self: Arc<Self>, event_loop: &Bound<'_, Loop>) {
        let py = event_loop.py();
        self.posted.store(false, Ordering::Release);
        let request = self.lock().request.take();
        let result = match request {
            Some(parts) => match self.start(event_loop, &parts) {
                Ok(()) => Ok(()),
                Err(error) => {
                    self.end(py, Err(error));
                    Ok(())
                }
            },
            None => self.send_opened(py).and_then(|()| self.resume(py)),
        };
        if let Err(error) = result {
            Failure::new(py, &error).log(self.application.name(), &self.description());
        }
    }
}

impl Drop for Exchange {
    /// One that the loop never came to has no end.
    fn drop(&mut self) {
        let ticket = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).ticket.take();
        if let Some(ticket) = ticket {
            self.application.underway().end(ticket);
        }
    }
}

/// Cancels the task of a request that was answered in its stead.
struct Cancel(Arc<Exchange>);

impl Turn for Cancel {
    fn turn(self: Arc<Self>, event_loop: &Bound<'_, Loop>) {
        let py = event_loop.py();
        let Some(task) = self.0.waiting.task(py) else { return };
        if let Err(error) = task.call_method0(py, intern!(py, "cancel")) {
            Failure::new(py, &error).log(self.0.application.name(), &self.0.description());
        }
    }
}

impl Wake for Exchange {
    fn wake(self: Arc<Self>) {
        if !self.posted.swap(true, Ordering::AcqRel) {
            let turn: Arc<dyn Turn> = self.clone();
            self.application.remote().post(turn);
        }
    }
}

impl Incoming {
    fn new(body: Body) -> Self {
        Self { body: Some(body), ahead: None, told_end: false, waits: false, has_waited: false }
    }

    /// The next block and whether others follow. Where the connection knows already, the last block says so.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Bytes, bool), Error>> {
        let block = match self.ahead.take() {
            Some(block) => block,
            None => match self.poll_block(cx) {
                Poll::Ready(block) => block?,
                Poll::Pending => return Poll::Pending,
            },
        };
        if self.body.is_none() {
            self.told_end = true;
            return Poll::Ready(Ok((block, false)));
        }
        match self.poll_block(cx) {
            Poll::Ready(Ok(next)) if next.is_empty() && self.body.is_none() => {
                self.told_end = true;
                Poll::Ready(Ok((block, false)))
            }
            Poll::Ready(Ok(next)) => {
                self.ahead = Some(next);
                Poll::Ready(Ok((block, true)))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Ready(Ok((block, true))),
        }
    }

    /// The next block, empty at the end, where the body is let go.
    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Error>> {
        while let Some(body) = &mut self.body {
            if body.is_end_stream() {
                self.body = None;
                break;
            }
            match Pin::new(body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => {
                        if self.body.as_ref().is_some_and(Body::is_end_stream) {
                            self.body = None;
                        }
                        return Poll::Ready(Ok(data));
                    }
                    _ => {}
                },
                Poll::Ready(Some(Err(error))) => {
                    self.body = None;
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(None) => self.body = None,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(Bytes::new()))
    }
}

impl Event for Incident {
    fn into_dict(self, py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        let message = PyDict::new(py);
        let kind = intern!(py, "type");
        match self {
            Self::Request(body, more) => {
                message.set_item(kind, intern!(py, "http.request"))?;
                message.set_item(intern!(py, "body"), PyBytes::new(py, &body))?;
                message.set_item(intern!(py, "more_body"), more)?;
            }
            Self::Disconnect => message.set_item(kind, intern!(py, "http.disconnect"))?,
        }
        Ok(message)
    }
}

#[pyclass(frozen, module = "hawksbill")]
struct Receive {
    exchange: Arc<Exchange>,
    event_loop: Py<Loop>,
}

#[pymethods]
impl Receive {
    fn __call__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.exchange.receive(self.event_loop.bind(py))
    }
}

#[pyclass(frozen, module = "hawksbill")]
struct Send {
    exchange: Arc<Exchange>,
    event_loop: Py<Loop>,
}

#[pymethods]
impl Send {
    fn __call__<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.exchange.send(self.event_loop.bind(message.py()), message)
    }
}
