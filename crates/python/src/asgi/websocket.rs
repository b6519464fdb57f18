//! One WebSocket of an ASGI application (ASGI "WebSocket").

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake};

use hawksbill_core::{Body, Draining, Error, Kind, Upgrade};
use hawksbill_websocket::handshake::{Acceptance, OpeningHandshake};
use hawksbill_websocket::{CloseCode, CloseFrame, Config, Message as Frame};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use tokio::runtime::Handle;

use super::Application;
use super::conversation::{ClientDisconnected, Conversation, Event, Waiting, raise};
use super::event_loop::{Loop, Tasked, Turn};
use super::message::Message;
use super::wire::{self, Pings, Wire};
use crate::answer::{Answer, Head, Trouble};
use crate::broken::Broken;
use crate::convert::to_bytes;
use crate::facts::{Facts, describe};
use crate::failure::Failure;
use crate::reply::Reply;
use crate::request_id;

/// The longest reason of a close frame in bytes (RFC 6455 section 5.5).
const MAX_REASON: usize = 123;

/// A WebSocket from its handshake to its end.
pub(super) struct Socket {
    application: Arc<Application>,
    /// Whether a turn is posted already.
    posted: AtomicBool,
    description: String,
    opening: OpeningHandshake,
    draining: Draining,
    runtime: Handle,
    wire: Arc<Wire>,
    waiting: Waiting,
    state: Mutex<State>,
}

struct State {
    request: Option<Parts>,
    upgrade: Option<Upgrade>,
    told_connect: bool,
    stage: Stage,
}

enum Stage {
    /// The client waits for an answer to its handshake.
    Handshake(Answer),
    Open,
    /// The application has closed it.
    Closed,
}

/// What `receive()` gives.
pub(super) enum Incident {
    Connect,
    Receive(Frame),
    Disconnect(CloseFrame),
}

/// A handshake that was asked for.
pub(super) struct Request {
    pub(super) parts: Parts,
    pub(super) opening: OpeningHandshake,
    pub(super) upgrade: Upgrade,
    pub(super) draining: Draining,
    pub(super) runtime: Handle,
}

impl Socket {
    pub(super) fn new(application: Arc<Application>, request: Request, reply: Reply) -> Arc<Self> {
        let Request { parts, opening, upgrade, draining, runtime } = request;
        let answer = Answer::new(reply, false, Broken::default());
        Arc::new(Self {
            application,
            posted: AtomicBool::new(false),
            description: format!("WebSocket {}", describe(&parts.method, &parts.uri)),
            opening,
            draining,
            runtime,
            wire: Wire::new(),
            waiting: Waiting::default(),
            state: Mutex::new(State {
                request: Some(parts),
                upgrade: Some(upgrade),
                told_connect: false,
                stage: Stage::Handshake(answer),
            }),
        })
    }

    /// Has the application called on the event loop. False when that is stopped.
    pub(super) fn begin(self: Arc<Self>) -> bool {
        self.posted.store(true, Ordering::Release);
        let application = self.application.clone();
        application.remote().run(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the application, as a task.
    fn start(self: &Arc<Self>, event_loop: &Bound<'_, Loop>, parts: &Parts) -> PyResult<()> {
        let py = event_loop.py();
        let Some(callable) = self.application.callable(py) else {
            self.refuse(self.application.stopped());
            return Ok(());
        };
        let state = self.application.state(py);
        let scope = event_loop.get().scopes().websocket(
            py,
            Facts::new(parts),
            self.opening.subprotocols(),
            state.as_ref(),
        )?;
        let receive = Receive { socket: self.clone(), event_loop: event_loop.clone().unbind() };
        let send = Send { socket: self.clone(), event_loop: event_loop.clone().unbind() };
        // What runs from now on has this context.
        let _noted = request_id::note(py, &parts.headers);
        let awaitable = callable.bind(py).call1((scope, receive, send))?;
        event_loop.get().run(awaitable, self)
    }

    fn refuse(&self, error: Error) {
        if let Stage::Handshake(answer) = &mut self.lock().stage {
            answer.fail(error);
        }
    }

    fn send<'py>(
        self: &Arc<Self>,
        event_loop: &Bound<'py, Loop>,
        message: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let message = Message::new(message)?;
        let kind = message.kind()?;
        match kind.to_str()? {
            "websocket.accept" => self.accept(event_loop.py(), &message)?,
            "websocket.send" => self.send_frame(&message, event_loop.py())?,
            "websocket.close" => self.close(&message, event_loop.py())?,
            "websocket.http.response.start" => {
                let head = message.head()?;
                self.with_answer("websocket.http.response.start", |answer| answer.start(head, false))?;
            }
            "websocket.http.response.body" => {
                let (block, more) = message.body()?;
                let send = |answer: &mut Answer| if more { answer.block(block) } else { answer.last(block) };
                self.with_answer("websocket.http.response.body", send)?;
            }
            other => {
                return Err(PyValueError::new_err(format!("a WebSocket has no message of type '{other}'")));
            }
        }
        self.sent(event_loop)
    }

    fn with_answer(&self, kind: &str, act: impl FnOnce(&mut Answer) -> Result<(), Trouble>) -> PyResult<()> {
        match &mut self.lock().stage {
            Stage::Handshake(answer) => act(answer).map_err(raise),
            Stage::Open | Stage::Closed => Err(PyRuntimeError::new_err(format!(
                "'{kind}' can only be sent before the WebSocket is accepted"
            ))),
        }
    }

    fn accept(&self, py: Python<'_>, message: &Message<'_, '_>) -> PyResult<()> {
        let subprotocol: Option<String> =
            message.get(intern!(py, "subprotocol"))?.map(|name| name.extract()).transpose()?;
        let deflate = self.application.websockets.deflate();
        let acceptance = Acceptance {
            subprotocol: subprotocol.as_deref(),
            headers: message.headers()?,
            deflate: deflate.as_ref(),
        };
        let accepted =
            self.opening.accept(acceptance).map_err(|error| PyValueError::new_err(error.to_string()));
        let (response, agreement) = accepted?;
        let mut state = self.lock();
        let state = &mut *state;
        let Stage::Handshake(answer) = &mut state.stage else {
            return Err(PyRuntimeError::new_err("the WebSocket is accepted or closed already"));
        };
        let Some(reply) = answer.take_reply().map_err(raise)? else {
            return Err(PyRuntimeError::new_err(
                "the WebSocket has been refused with an HTTP response already",
            ));
        };
        let Some(upgrade) = state.upgrade.take() else { return Err(raise(Trouble::Left)) };
        state.stage = Stage::Open;
        if !reply.send(Ok(response.map(|()| Body::empty()))) {
            return Err(raise(Trouble::Left));
        }
        let settings = self.application.websockets;
        let config = Config { deflate: agreement.deflate, ..settings.config() };
        let pings = Pings { interval: settings.ping.get(), timeout: settings.ping_timeout.get() };
        self.runtime.spawn(wire::run(upgrade, config, pings, self.wire.clone(), self.draining.clone()));
        Ok(())
    }

    fn send_frame(&self, message: &Message<'_, '_>, py: Python<'_>) -> PyResult<()> {
        let bytes = message.get(intern!(py, "bytes"))?;
        let text = message.get(intern!(py, "text"))?;
        let (frame, length) = match (bytes, text) {
            (Some(bytes), None) => {
                let bytes = to_bytes(&bytes, "'bytes'")?;
                let length = bytes.len();
                (Frame::Binary(bytes), length)
            }
            (None, Some(text)) => {
                let Ok(text) = text.cast::<PyString>() else {
                    return Err(PyTypeError::new_err("'text' must be a str"));
                };
                let text = text.to_str()?;
                (Frame::text(text), text.len())
            }
            _ => return Err(PyValueError::new_err("websocket.send needs either 'bytes' or 'text'")),
        };
        match self.lock().stage {
            Stage::Handshake(_) => {
                Err(PyRuntimeError::new_err("send 'websocket.accept' before 'websocket.send'"))
            }
            Stage::Closed => {
                Err(ClientDisconnected::new_err("the WebSocket was closed by 'websocket.close'"))
            }
            Stage::Open => self.wire.outgoing.push(frame, length).map_err(|_| raise(Trouble::Left)),
        }
    }

    fn close(&self, message: &Message<'_, '_>, py: Python<'_>) -> PyResult<()> {
        // Before the handshake is answered a close is a 403, which has neither code nor reason.
        if let Stage::Handshake(answer) = &mut self.lock().stage {
            let head = Head { status: StatusCode::FORBIDDEN, headers: HeaderMap::new() };
            return answer.start(head, false).and_then(|()| answer.last(bytes::Bytes::new())).map_err(raise);
        }
        let code: u16 = message.get(intern!(py, "code"))?.map_or(Ok(1000), |code| code.extract())?;
        let reason: String =
            message.get(intern!(py, "reason"))?.map_or(Ok(String::new()), |text| text.extract())?;
        if !CloseCode(code).is_sendable() {
            return Err(PyValueError::new_err(format!(
                "{code} is no close code; use 1000, another of RFC 6455 section 7.4.1 that may be sent, or one \
                 from 3000 to 4999"
            )));
        }
        let mut state = self.lock();
        // Closing twice is a mistake that harms nobody.
        if matches!(state.stage, Stage::Open) {
            state.stage = Stage::Closed;
            drop(state);
            self.wire.close(CloseFrame::new(code, fitting(&reason)));
        }
        Ok(())
    }
}

impl Conversation for Socket {
    type Event = Incident;

    fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Incident> {
        let mut state = self.lock();
        if !state.told_connect {
            state.told_connect = true;
            return Poll::Ready(Incident::Connect);
        }
        if let Stage::Handshake(answer) = &mut state.stage {
            let left = || Incident::Disconnect(CloseFrame::new(CloseCode::ABNORMAL, ""));
            return answer.poll_left(cx).map(|()| left());
        }
        drop(state);
        let message = std::task::ready!(self.wire.incoming.poll_take(cx));
        Poll::Ready(match message {
            Some(message) => Incident::Receive(message),
            None => Incident::Disconnect(self.wire.end()),
        })
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        match &self.lock().stage {
            Stage::Handshake(answer) => answer.poll_room(cx),
            Stage::Open => self.wire.outgoing.poll_room(cx).map_err(|_| Trouble::Left),
            Stage::Closed => Poll::Ready(Ok(())),
        }
    }
}

impl Tasked for Socket {
    fn keep(self: Arc<Self>, task: &Bound<'_, PyAny>) {
        self.waiting.keep(task);
    }

    /// An application that is over has no connection (ASGI "WebSocket Connection Scope").
    fn end(&self, py: Python<'_>, result: PyResult<()>) {
        self.waiting.release(py);
        let name = self.application.name();
        let unanswered = match &self.lock().stage {
            Stage::Handshake(answer) => !answer.is_complete(),
            Stage::Open | Stage::Closed => false,
        };
        let failure = match result {
            // It was told that nobody is there, and need not do anything about it.
            Err(error) if error.is_instance_of::<ClientDisconnected>(py) => {
                tracing::info!(target: "hawksbill::app", app = name, "{}: {error}", self.description);
                None
            }
            Err(error) => Some(Failure::new(py, &error)),
            Ok(()) if unanswered => {
                Some(Failure::message("the application returned before it accepted or closed"))
            }
            Ok(()) => None,
        };
        let code = if failure.is_some() { CloseCode::INTERNAL } else { CloseCode::NORMAL };
        if let Some(failure) = failure {
            if self.application.remote().is_stopping() {
                tracing::debug!(target: "hawksbill::app", app = name, "{}: {}", self.description, failure.summary);
            } else {
                failure.log(name, &self.description);
            }
            self.refuse(failure.into_error(name));
        }
        let stage = std::mem::replace(&mut self.lock().stage, Stage::Closed);
        if let Stage::Open = stage {
            self.wire.close(CloseFrame::new(code, ""));
        }
    }
}

impl Turn for Socket {
    fn turn(self: Arc<Self>, event_loop: &Bound<'_, Loop>) {
        let py = event_loop.py();
        self.posted.store(false, Ordering::Release);
        let request = self.lock().request.take();
        let result = match request {
            Some(parts) => {
                if let Err(error) = self.start(event_loop, &parts) {
                    self.end(py, Err(error));
                }
                Ok(())
            }
            None => self.resume(py),
        };
        if let Err(error) = result {
            Failure::new(py, &error).log(self.application.name(), &self.description);
        }
    }
}

impl Wake for Socket {
    fn wake(self: Arc<Self>) {
        if !self.posted.swap(true, Ordering::AcqRel) {
            let turn: Arc<dyn Turn> = self.clone();
            self.application.remote().post(turn);
        }
    }
}

impl Event for Incident {
    fn into_dict(self, py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        let message = PyDict::new(py);
        let kind = intern!(py, "type");
        match self {
            Self::Connect => message.set_item(kind, intern!(py, "websocket.connect"))?,
            Self::Receive(frame) => {
                message.set_item(kind, intern!(py, "websocket.receive"))?;
                match frame {
                    Frame::Text(text) => message.set_item(intern!(py, "text"), text.as_str())?,
                    Frame::Binary(bytes) | Frame::Ping(bytes) | Frame::Pong(bytes) => {
                        message.set_item(intern!(py, "bytes"), PyBytes::new(py, &bytes))?;
                    }
                    Frame::Close(_) => {}
                }
            }
            Self::Disconnect(frame) => {
                message.set_item(kind, intern!(py, "websocket.disconnect"))?;
                message.set_item(intern!(py, "code"), u16::from(frame.code))?;
                message.set_item(intern!(py, "reason"), frame.reason.as_str())?;
            }
        }
        Ok(message)
    }
}

/// As much of a close reason as a frame has room for; to the specification a reason is any string.
fn fitting(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// The answer to a handshake that is none.
pub(super) fn malformed(error: &hawksbill_websocket::handshake::HandshakeError) -> Error {
    let mut answer = Error::new(Kind::BadRequest);
    if error.status() == StatusCode::UPGRADE_REQUIRED {
        answer = Error::new(Kind::UpgradeRequired);
    }
    for (name, value) in error.to_response().headers() {
        answer = answer.header(name.clone(), value.clone());
    }
    answer.because(error.to_string())
}

#[pyclass(frozen, module = "hawksbill")]
struct Receive {
    socket: Arc<Socket>,
    event_loop: Py<Loop>,
}

#[pymethods]
impl Receive {
    fn __call__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.socket.receive(self.event_loop.bind(py))
    }
}

#[pyclass(frozen, module = "hawksbill")]
struct Send {
    socket: Arc<Socket>,
    event_loop: Py<Loop>,
}

#[pymethods]
impl Send {
    fn __call__<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.socket.send(self.event_loop.bind(message.py()), message)
    }
}
