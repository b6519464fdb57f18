//! From hyper's request to a turtle's, and from its response to hyper's.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hawksbill_core::{Body, Error, InfallibleFuture, InfallibleTurtle, Kind, Upgrade, Upgraded};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::sync::oneshot;

use crate::body::{RequestBody, ResponseBody, UnderWay};
use crate::connection::Shared;
use crate::settings::Refusal;
use crate::{check, forwarded, response, upgrade};

/// The turtle behind one connection, as hyper asks it.
pub(crate) struct Service {
    pub(crate) turtle: InfallibleTurtle,
    pub(crate) shared: Arc<Shared>,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let shared = &self.shared;
        let under_way = UnderWay::begin(shared);
        let (mut parts, incoming) = request.into_parts();
        // Connections are handed over here, and only where the request is one that asks for it.
        let stream = parts.extensions.remove::<OnUpgrade>();
        shared.request_begins(&parts, &incoming);
        let mut answer = Answer {
            shared: shared.clone(),
            about: Some((parts.method.clone(), parts.uri.clone())),
            upgrade: None,
            under_way: Some(under_way),
            state: State::Panicked,
        };
        if let Err(refusal) = prepare(&mut parts, &incoming, stream, &mut answer.upgrade, shared) {
            answer.state = State::Refused(refusal);
            return answer;
        }
        let request = Request::from_parts(parts, RequestBody::wrap(incoming, shared));
        match catch_unwind(AssertUnwindSafe(|| self.turtle.ask(request))) {
            Ok(call) => answer.state = State::Asked(call),
            Err(panic) => answer.log_panic(panic.as_ref()),
        }
        answer
    }
}

/// Checks a request and gives it what travels in its extensions.
fn prepare(
    parts: &mut Parts,
    incoming: &Incoming,
    stream: Option<OnUpgrade>,
    upgrade: &mut Option<Switch>,
    shared: &Shared,
) -> Result<(), Refusal> {
    let checked = check::check(parts, &shared.settings);
    let peer = forwarded::apply(&mut parts.headers, &shared.peer, shared.trusted, &shared.settings);
    if let Err(refusal) = checked {
        shared.settings.refuse(&peer, &refusal);
        return Err(refusal);
    }
    parts.extensions.insert(peer);
    if parts.version == Version::HTTP_11 && incoming.is_end_stream() && upgrade::is_asked_for(&parts.headers)
    {
        let (sender, connection) = oneshot::channel();
        *upgrade = Some(Switch::Connection(sender));
        parts.extensions.insert(shared.control.draining());
        parts.extensions.insert(Upgrade::new(async {
            let ended = |_| Error::new(Kind::Canceled).because("the connection ended before it was upgraded");
            connection.await.map_err(ended)
        }));
    }
    if let Some(stream) =
        stream.filter(|_| parts.version == Version::HTTP_2 && parts.method == Method::CONNECT)
    {
        let (sender, accepted) = oneshot::channel();
        *upgrade = Some(Switch::Stream(sender));
        parts.extensions.insert(shared.control.draining());
        parts.extensions.insert(Upgrade::new(upgrade::stream(stream, accepted)));
    }
    Ok(())
}

/// Who waits to take over what a request came on.
enum Switch {
    /// The connection, after a 101.
    Connection(oneshot::Sender<Upgraded>),
    /// A stream of HTTP/2, after a 2xx: it is under way until it ends.
    Stream(oneshot::Sender<UnderWay>),
}

/// A response under way.
pub(crate) struct Answer {
    shared: Arc<Shared>,
    /// For the log. Taken by the response.
    about: Option<(Method, Uri)>,
    upgrade: Option<Switch>,
    under_way: Option<UnderWay>,
    state: State,
}

enum State {
    Asked(InfallibleFuture),
    Refused(Refusal),
    Panicked,
}

impl Future for Answer {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match &mut self.state {
            State::Refused(refusal) => refused(refusal),
            State::Panicked => failed(),
            State::Asked(call) => match catch_unwind(AssertUnwindSafe(|| Pin::new(call).poll(cx))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(Ok(response))) => response,
                Ok(Poll::Ready(Err(never))) => match never {},
                Err(panic) => {
                    self.log_panic(panic.as_ref());
                    failed()
                }
            },
        };
        let closes = matches!(self.state, State::Refused(_));
        // What the application still holds, its request's body perhaps, it gives up here.
        self.state = State::Panicked;
        Poll::Ready(Ok(self.finish(response, closes)))
    }
}

impl Answer {
    /// Makes the response fit for the wire.
    fn finish(&mut self, mut response: Response<Body>, closes: bool) -> Response<ResponseBody> {
        let about = self.about.take().unwrap_or_default();
        let under_way = self.under_way.take().unwrap_or_else(|| UnderWay::begin(&self.shared));
        let conforms = response::conform(&mut response, &about.0)
            .and_then(|promised| self.switch(&mut response).map(|()| promised));
        let promised = conforms.unwrap_or_else(|why| {
            let (method, path) = (&about.0, about.1.path());
            tracing::error!(target: "hawksbill::error", "{method} {path}: the response cannot be sent: {why}");
            response = failed();
            response::conform(&mut response, method).unwrap_or_default()
        });
        if response.status() != StatusCode::SWITCHING_PROTOCOLS
            && !self.shared.http2
            && (closes || self.shared.closes_after_response())
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.shared.activity.response_begins();
        response.map(|body| ResponseBody::new(body, promised, about, under_way))
    }

    /// Hands over the connection after a 101, or the stream after the 2xx that means the same for a CONNECT.
    fn switch(&mut self, response: &mut Response<Body>) -> Result<(), String> {
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        match self.upgrade.take() {
            Some(Switch::Connection(taker)) if switches => {
                self.shared.switch_to(Some(taker));
                Ok(())
            }
            _ if switches => Err("101 answers a request that asks for no upgrade".to_owned()),
            Some(Switch::Stream(taker)) if response.status().is_success() => {
                response.headers_mut().remove(CONTENT_LENGTH);
                *response.body_mut() = Body::empty();
                let taken = taker.send(UnderWay::begin(&self.shared));
                taken.map_err(|_| "it accepts a CONNECT, and nobody takes the stream".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn log_panic(&self, panic: &(dyn Any + Send)) {
        let what = panic.downcast_ref::<&str>().copied();
        let what =
            what.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        let (method, uri) = self.about.clone().unwrap_or_default();
        tracing::error!(target: "hawksbill::error", "{method} {}: the application panicked: {what}", uri.path());
    }
}

/// The page for a request that is refused.
fn refused(refusal: &Refusal) -> Response<Body> {
    let kind = match refusal.status {
        StatusCode::METHOD_NOT_ALLOWED => Kind::MethodNotAllowed,
        StatusCode::URI_TOO_LONG => Kind::UriTooLong,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Kind::HeadersTooLarge,
        _ => Kind::BadRequest,
    };
    let mut response = Error::new(kind).into_response();
    if kind == Kind::MethodNotAllowed {
        let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        response.headers_mut().insert(http::header::ALLOW, methods);
    }
    response
}

fn failed() -> Response<Body> {
    Error::new(Kind::Internal).into_response()
}

/// Whether the client sends its body only after a `100 Continue` (RFC 9110 section 10.1.1).
pub(crate) fn expects_continue(parts: &Parts) -> bool {
    let expects = parts.headers.get(EXPECT);
    parts.version == Version::HTTP_11
        && expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
