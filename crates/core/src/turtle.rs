//! The one thing everything is: an HTTP request goes in, a response comes out.
//!
//! ```
//! use hawksbill_core::{Body, Turtle};
//! use http::{Request, Response};
//! use tower::ServiceExt;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let hello = Turtle::from_fn(async |request: Request<Body>| {
//!     Ok(Response::new(Body::from(format!("hello, {}", request.uri().path()))))
//! });
//! // Any tower layer stands over a turtle, and gives a turtle.
//! let shouting = hello.layer(tower::util::MapResponseLayer::new(|mut response: Response<Body>| {
//!     response.headers_mut().insert("x-loud", http::HeaderValue::from_static("yes"));
//!     response
//! }));
//! // And a turtle is a tower service.
//! let response = shouting.oneshot(Request::get("/you").body(Body::empty()).unwrap()).await.unwrap();
//! assert_eq!(response.headers()["x-loud"], "yes");
//! # }
//! ```

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tower::{Layer, Service, ServiceExt};

use crate::meter::{Meter, Timing};
use crate::{Body, BoxError, Error, Kind, Side};

/// An HTTP service whose type is erased: cheap to clone, always ready, safe to share.
///
/// Limits wait inside `call`, so that a turtle need never be polled for readiness. Dropping the future of a call means
/// that the answer is no longer wanted.
#[derive(Clone)]
pub struct Turtle(Arc<dyn Erased>);

/// A call under way.
pub struct TurtleFuture {
    call: BoxFuture<'static, Result<Response<Body>, Error>>,
    /// Beside the call and not around it: that would cost each request an allocation.
    timing: Option<Timing>,
}

trait Erased: Send + Sync {
    fn call(&self, request: Request<Body>) -> TurtleFuture;
}

struct FromService<S>(S);

impl<S, B> Erased for FromService<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<Error>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn call(&self, request: Request<Body>) -> TurtleFuture {
        let mut service = self.0.clone();
        // The usual service is ready, and is called at once: a future that holds the request would be moved about.
        match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => TurtleFuture::new(answered(service.call(request))),
            Poll::Ready(Err(error)) => TurtleFuture::refused(error.into()),
            Poll::Pending => TurtleFuture::new(answered(service.oneshot(request))),
        }
    }
}

/// A service's answer as a turtle gives it.
async fn answered<B, E>(call: impl Future<Output = Result<Response<B>, E>>) -> Result<Response<Body>, Error>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    E: Into<Error>,
{
    call.await.map(|response| response.map(Body::new)).map_err(Into::into)
}

/// What a turtle can be made of: any HTTP service that is cheap to clone, with whatever body and error it has. An axum
/// router is one, a tower stack, a turtle itself.
///
/// It is implemented for all of them; it only gives their long bounds a name.
pub trait IntoTurtle {
    /// Erases the service's type.
    fn into_turtle(self) -> Turtle;
}

impl<S, B> IntoTurtle for S
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<Error>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn into_turtle(self) -> Turtle {
        let mut service = Some(self);
        let any: &mut dyn Any = &mut service;
        // A turtle in a turtle would be asked through two boxes.
        if let Some(turtle) = any.downcast_mut::<Option<Turtle>>().and_then(Option::take) {
            return turtle;
        }
        match service {
            Some(service) => Turtle(Arc::new(FromService(service))),
            None => Turtle::from_fn(async |_| Err(Error::new(Kind::Internal))),
        }
    }
}

struct FromFn<F>(F);

impl<F, Fut> Erased for FromFn<F>
where
    F: Fn(Request<Body>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Response<Body>, Error>> + Send + 'static,
{
    fn call(&self, request: Request<Body>) -> TurtleFuture {
        TurtleFuture::new((self.0)(request))
    }
}

struct FromAsk<F>(F);

impl<F> Erased for FromAsk<F>
where
    F: Fn(Request<Body>) -> TurtleFuture + Send + Sync + 'static,
{
    fn call(&self, request: Request<Body>) -> TurtleFuture {
        (self.0)(request)
    }
}

impl Turtle {
    /// Erases any HTTP service: a tower stack, an axum router, one of our kinds.
    pub fn new(service: impl IntoTurtle) -> Self {
        service.into_turtle()
    }

    /// A turtle from an asynchronous function.
    pub fn from_fn<F, Fut>(handler: F) -> Self
    where
        F: Fn(Request<Body>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>, Error>> + Send + 'static,
    {
        Self(Arc::new(FromFn(handler)))
    }

    /// A turtle that hands each request on to another one, or refuses it. What it gives is the other's own call, so
    /// it costs no allocation: tables and limits are made so.
    ///
    /// ```
    /// use hawksbill_core::{Body, Error, Kind, Turtle, TurtleFuture};
    /// use http::{Method, Request, Response};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let hello = Turtle::from_fn(async |_| Ok(Response::new(Body::from("hello"))));
    /// let read_only = Turtle::from_ask(move |request: Request<Body>| match *request.method() {
    ///     Method::GET | Method::HEAD => hello.ask(request),
    ///     _ => TurtleFuture::refused(Error::new(Kind::MethodNotAllowed)),
    /// });
    /// let ask = |method| read_only.ask(Request::builder().method(method).body(Body::empty()).unwrap());
    /// assert_eq!(ask(Method::GET).await.unwrap().status(), 200);
    /// assert_eq!(ask(Method::POST).await.unwrap_err().kind(), Kind::MethodNotAllowed);
    /// # }
    /// ```
    pub fn from_ask<F>(ask: F) -> Self
    where
        F: Fn(Request<Body>) -> TurtleFuture + Send + Sync + 'static,
    {
        Self(Arc::new(FromAsk(ask)))
    }

    /// Puts a tower layer over this turtle.
    pub fn layer<L>(self, layer: L) -> Self
    where
        L: Layer<Self>,
        L::Service: IntoTurtle,
    {
        Self::new(layer.layer(self))
    }

    /// Has a meter count what this turtle is asked, and how long it takes to answer. A request costs that two looks at
    /// the clock and a few additions.
    #[must_use]
    pub fn metered(self, meter: Arc<Meter>) -> Self {
        Self::from_ask(move |request| {
            let timing = Timing::begin(meter.clone());
            self.ask(request).timed(timing)
        })
    }

    /// Asks the turtle. The same as [`Service::call`], from a shared reference.
    pub fn ask(&self, request: Request<Body>) -> TurtleFuture {
        self.0.call(request)
    }

    /// The same turtle with every error made a response: what a listener or axum's router needs.
    ///
    /// This is the one place where an [`Error`] ends. It is logged here, quietly where the client is at fault.
    pub fn infallible(self) -> InfallibleTurtle {
        InfallibleTurtle(self)
    }
}

impl Service<Request<Body>> for Turtle {
    type Response = Response<Body>;
    type Error = Error;
    type Future = TurtleFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> TurtleFuture {
        self.ask(request)
    }
}

impl TurtleFuture {
    /// A call of one's own.
    pub fn new<F>(call: F) -> Self
    where
        F: Future<Output = Result<Response<Body>, Error>> + Send + 'static,
    {
        Self { call: Box::pin(call), timing: None }
    }

    fn timed(mut self, timing: Timing) -> Self {
        if self.timing.is_some() {
            self = Self::new(self);
        }
        self.timing = Some(timing);
        self
    }

    /// A call that ends with this error.
    pub fn refused(error: Error) -> Self {
        Self::new(std::future::ready(Err(error)))
    }
}

impl Future for TurtleFuture {
    type Output = Result<Response<Body>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.call.as_mut().poll(cx));
        if let Some(timing) = self.timing.take() {
            timing.answered(answer.as_ref().map_or_else(Error::status, Response::status));
        }
        Poll::Ready(answer)
    }
}

impl fmt::Debug for Turtle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turtle")
    }
}

impl fmt::Debug for TurtleFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TurtleFuture")
    }
}

/// A turtle whose errors have become responses. See [`Turtle::infallible`].
#[derive(Clone, Debug)]
pub struct InfallibleTurtle(Turtle);

impl<B> Service<Request<B>> for InfallibleTurtle
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = InfallibleFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> InfallibleFuture {
        self.ask(request.map(Body::new))
    }
}

impl InfallibleTurtle {
    /// Asks the turtle. The same as [`Service::call`], from a shared reference.
    pub fn ask(&self, request: Request<Body>) -> InfallibleFuture {
        InfallibleFuture(self.0.ask(request))
    }
}

/// A call under way whose error becomes a response.
#[derive(Debug)]
pub struct InfallibleFuture(TurtleFuture);

impl Future for InfallibleFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(Ok(answer.unwrap_or_else(|error| {
            log(&error);
            error.into_response()
        })))
    }
}

fn log(error: &Error) {
    match error.side() {
        Side::Client => tracing::info!(target: "hawksbill::refused", "{error}"),
        Side::Application | Side::Upstream | Side::Gateway => {
            tracing::error!(target: "hawksbill::error", "{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing() -> Turtle {
        Turtle::from_fn(async |_| Err(Error::new(Kind::Overloaded).because("queue of app shop is full")))
    }

    #[tokio::test]
    async fn errors_stay_errors_between_turtles() {
        let through_a_layer =
            failing().layer(tower::util::MapRequestLayer::new(|request: Request<Body>| request));
        let error = through_a_layer.ask(Request::new(Body::empty())).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Overloaded);
    }

    #[test]
    fn a_turtle_in_a_turtle_is_the_turtle() {
        let turtle = failing();
        assert!(Arc::ptr_eq(&turtle.0, &Turtle::new(turtle.clone()).0));
    }

    #[tokio::test]
    async fn errors_end_in_one_place() {
        let response = failing().infallible().oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), 503);
    }
}
