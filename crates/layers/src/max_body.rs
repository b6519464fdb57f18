//! A limit for request bodies.
//!
//! ```
//! use hawksbill_core::{Body, Builder, Kind, LayerKind, Turtle, body::to_bytes, config::Size};
//! use hawksbill_layers::MaxBody;
//! use http::{Request, Response};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let echo = Turtle::from_fn(async |request: Request<Body>| {
//!     Ok(Response::new(Body::from(to_bytes(request.into_body(), usize::MAX).await?)))
//! });
//! let limited = MaxBody(Size::new(5)).wrap(echo, &mut Builder::new("/")).unwrap();
//! let error = limited.ask(Request::post("/").body(Body::from("turtle")).unwrap()).await.unwrap_err();
//! assert_eq!(error.kind(), Kind::BodyTooLarge);
//! # }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hawksbill_core::config::Size;
use hawksbill_core::{Body, BuildError, Builder, Error, Kind, LayerKind, Turtle, TurtleFuture};
use http::{Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::Service;

/// The largest request body that is let through, as in `max_body = "1GB"`. `0` lets none through.
///
/// A request that states a greater length is refused with 413 and does not reach the application. One that does not
/// state its length (chunked, HTTP/2) is let through as far as the limit; then reading it fails, and if the application
/// has not answered by then, the client gets 413 and the application's call is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct MaxBody(pub Size);

impl LayerKind for MaxBody {
    const NAME: &'static str = "max_body";

    fn wrap(self, inner: Turtle, _: &mut Builder) -> Result<Turtle, BuildError> {
        let limited = tower::Layer::layer(&self, inner);
        Ok(Turtle::from_ask(move |request| limited.ask(request)))
    }
}

impl tower::Layer<Turtle> for MaxBody {
    type Service = MaxBodyService;

    fn layer(&self, inner: Turtle) -> MaxBodyService {
        MaxBodyService { inner, limit: self.0.bytes() }
    }
}

/// A turtle beneath a [`MaxBody`].
#[derive(Clone, Debug)]
pub struct MaxBodyService {
    inner: Turtle,
    limit: u64,
}

impl MaxBodyService {
    /// Asks what is beneath. The same as [`Service::call`], from a shared reference.
    fn ask(&self, request: Request<Body>) -> TurtleFuture {
        let limit = self.limit;
        let size = request.body().size_hint();
        if size.lower() > limit {
            return TurtleFuture::refused(too_large(limit));
        }
        if size.upper().is_some_and(|upper| upper <= limit) {
            return self.inner.ask(request);
        }
        let exceeded = Arc::new(Exceeded::default());
        let count = exceeded.clone();
        let limited = |inner| Body::new(LimitedBody { inner, left: limit, limit, exceeded: count });
        TurtleFuture::new(Counted { call: self.inner.ask(request.map(limited)), exceeded, limit })
    }
}

impl Service<Request<Body>> for MaxBodyService {
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

fn too_large(limit: u64) -> Error {
    Error::new(Kind::BodyTooLarge)
        .because(format!("max_body: the request has more than {}", Size::new(limit)))
}

/// A call whose body is counted while it is read.
struct Counted {
    call: TurtleFuture,
    exceeded: Arc<Exceeded>,
    limit: u64,
}

/// Tells the call that the body, which may be read elsewhere, went beyond the limit.
#[derive(Default)]
struct Exceeded {
    flag: AtomicBool,
    waker: AtomicWaker,
}

impl Future for Counted {
    type Output = Result<Response<Body>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { call, exceeded, limit } = &mut *self;
        exceeded.waker.register(cx.waker());
        let answer = Pin::new(call).poll(cx);
        if !exceeded.flag.load(Ordering::Acquire) {
            return answer;
        }
        match answer {
            // An application may have a page of its own for this.
            Poll::Ready(Ok(response)) if response.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Poll::Ready(Ok(response))
            }
            _ => Poll::Ready(Err(too_large(*limit))),
        }
    }
}

/// A body that fails when it goes beyond the limit.
struct LimitedBody {
    inner: Body,
    left: u64,
    limit: u64,
    exceeded: Arc<Exceeded>,
}

impl HttpBody for LimitedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            let Some(left) = self.left.checked_sub(length) else {
                // Nothing more is wanted from the client.
                self.inner = Body::empty();
                self.exceeded.flag.store(true, Ordering::Release);
                self.exceeded.waker.wake();
                return Poll::Ready(Some(Err(too_large(self.limit))));
            };
            self.left = left;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        if hint.upper().is_none_or(|upper| upper > self.left) && hint.lower() <= self.left {
            hint.set_upper(self.left);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{StreamExt, stream};
    use hawksbill_core::body::to_bytes;
    use hawksbill_core::config::{Path, Value};
    use http::Method;

    use super::*;

    fn limited(app: Turtle) -> Turtle {
        MaxBody(Size::new(5)).wrap(app, &mut Builder::new("/")).unwrap()
    }

    fn echo() -> Turtle {
        Turtle::from_fn(async |request: Request<Body>| {
            Ok(Response::new(Body::from(to_bytes(request.into_body(), usize::MAX).await?)))
        })
    }

    /// A request whose length nobody knows beforehand.
    fn chunked(parts: &'static [&'static str]) -> Request<Body> {
        let parts = stream::iter(parts).map(|part| Ok::<_, Error>(*part));
        Request::builder().method(Method::POST).body(Body::from_stream(parts)).unwrap()
    }

    #[tokio::test]
    async fn a_stated_length_is_refused_before_the_application() {
        let app = Turtle::from_fn(async |_| panic!("the application must not be asked"));
        let error = limited(app).ask(Request::new(Body::from("123456"))).await.unwrap_err();
        assert_eq!(error.to_string(), "413 Payload Too Large: max_body: the request has more than 5B");
    }

    #[tokio::test]
    async fn the_limit_itself_is_let_through() {
        for request in
            [Request::new(Body::from("12345")), chunked(&["123", "45"]), Request::new(Body::empty())]
        {
            assert!(limited(echo()).ask(request).await.is_ok());
        }
    }

    #[tokio::test]
    async fn an_unstated_length_fails_while_it_is_read() {
        let error = limited(echo()).ask(chunked(&["123", "456"])).await.unwrap_err();
        assert_eq!(error.kind(), Kind::BodyTooLarge);
    }

    #[tokio::test]
    async fn an_application_that_swallows_the_error_or_hangs_on_it_is_answered_for() {
        let swallows = Turtle::from_fn(async |request: Request<Body>| {
            let _ = to_bytes(request.into_body(), usize::MAX).await;
            Ok(Response::new(Body::empty()))
        });
        let hangs = Turtle::from_fn(async |request: Request<Body>| {
            tokio::spawn(to_bytes(request.into_body(), usize::MAX));
            std::future::pending().await
        });
        for app in [swallows, hangs] {
            let answer = limited(app).ask(chunked(&["123", "456"]));
            let error = tokio::time::timeout(Duration::from_secs(5), answer).await.unwrap().unwrap_err();
            assert_eq!(error.status(), 413);
        }
    }

    #[tokio::test]
    async fn an_answer_that_says_so_itself_is_kept() {
        let app = Turtle::from_fn(async |request: Request<Body>| {
            let mut response = Response::new(Body::from("mine"));
            if let Err(error) = to_bytes(request.into_body(), usize::MAX).await {
                *response.status_mut() = error.status();
            }
            Ok(response)
        });
        let response = limited(app).ask(chunked(&["123456"])).await.unwrap();
        assert_eq!(to_bytes(response.into_body(), 10).await.unwrap(), "mine");
    }

    #[tokio::test]
    async fn an_answer_given_before_stays() {
        let app = Turtle::from_fn(async |request: Request<Body>| Ok(Response::new(request.into_body())));
        let response = limited(app).ask(chunked(&["123", "456"])).await.unwrap();
        assert_eq!(to_bytes(response.into_body(), 10).await.unwrap_err().kind(), Kind::BodyTooLarge);
    }

    #[test]
    fn settings_are_a_size() {
        let max_body: MaxBody = Value::from("1GB").decode(&Path::root()).unwrap();
        assert_eq!(max_body, MaxBody(Size::gigabytes(1)));
        assert_eq!(serde_json::to_string(&max_body).unwrap(), "\"1GB\"");
    }
}
