//! The body that flows between turtles, in both directions.
//!
//! [`Body`] has the API that axum's has. Inside, the common bodies (none, bytes, what a client sends) need no box.
//! Dropping a body means: nobody wants the rest.
//!
//! ```
//! use hawksbill_core::{Body, body::to_bytes};
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let body = Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("tur"), Ok("tle")]));
//! assert_eq!(to_bytes(body, 1024).await.unwrap(), "turtle");
//! # }
//! ```

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::TryStream;
use futures_util::stream::Stream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use crate::{BoxError, Error, Kind};

type BoxBody = Pin<Box<dyn HttpBody<Data = Bytes, Error = Error> + Send + 'static>>;

/// A request or response body: frames of bytes, then perhaps trailers.
pub struct Body(Repr);

enum Repr {
    Bytes(Option<Bytes>),
    Incoming(Incoming),
    Boxed(BoxBody),
}

impl Body {
    /// No bytes at all.
    pub const fn empty() -> Self {
        Self(Repr::Bytes(None))
    }

    /// Any other body. One that is a `Body` or an [`Incoming`] already is taken as it is.
    pub fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut body = Some(body);
        let any: &mut dyn Any = &mut body;
        if let Some(own) = any.downcast_mut::<Option<Self>>().and_then(Option::take) {
            return own;
        }
        let any: &mut dyn Any = &mut body;
        if let Some(incoming) = any.downcast_mut::<Option<Incoming>>().and_then(Option::take) {
            return Self(Repr::Incoming(incoming));
        }
        match body {
            Some(body) => Self(Repr::Boxed(Box::pin(body.map_err(|error| Error::from(error.into()))))),
            None => Self::empty(),
        }
    }

    /// A body of a stream's items.
    pub fn from_stream<S>(stream: S) -> Self
    where
        S: TryStream + Send + 'static,
        S::Ok: Into<Bytes>,
        S::Error: Into<BoxError>,
    {
        Self(Repr::Boxed(Box::pin(StreamBody { stream })))
    }

    /// The data frames as a stream; trailers are left out.
    pub fn into_data_stream(self) -> BodyDataStream {
        BodyDataStream { body: self }
    }
}

/// Collects a whole body.
///
/// # Errors
/// [`Kind::BodyTooLarge`] when it has more than `limit` bytes, and whatever the body fails with.
pub async fn to_bytes(mut body: Body, limit: usize) -> Result<Bytes, Error> {
    let too_large =
        || Error::new(Kind::BodyTooLarge).because(format!("the body has more than {limit} bytes"));
    let mut first = Bytes::new();
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.len() + collected.len() + data.len() > limit {
            return Err(too_large());
        }
        // The usual body is one frame, which then needs no copy.
        if first.is_empty() && collected.is_empty() {
            first = data;
        } else {
            if collected.is_empty() {
                collected.extend_from_slice(&std::mem::take(&mut first));
            }
            collected.extend_from_slice(&data);
        }
    }
    Ok(if collected.is_empty() { first } else { collected.freeze() })
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.0 {
            Repr::Bytes(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Repr::Incoming(incoming) => Pin::new(incoming).poll_frame(cx).map_err(from_client),
            Repr::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Repr::Bytes(bytes) => bytes.is_none(),
            Repr::Incoming(incoming) => incoming.is_end_stream(),
            Repr::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Repr::Bytes(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Repr::Incoming(incoming) => incoming.size_hint(),
            Repr::Boxed(body) => body.size_hint(),
        }
    }
}

/// A client that stops sending in the middle of its body made a bad request; it is never an end of file.
fn from_client(error: hyper::Error) -> Error {
    Error::new(Kind::BadRequest).because("the request body ended before it was complete").caused_by(error)
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match self.0 {
            Repr::Bytes(_) => "bytes",
            Repr::Incoming(_) => "incoming",
            Repr::Boxed(_) => "boxed",
        };
        f.debug_struct("Body").field("form", &form).field("size", &self.size_hint()).finish()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Repr::Bytes((!bytes.is_empty()).then_some(bytes)))
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

macro_rules! from_into_bytes {
    ($($source:ty),*) => {$(
        impl From<$source> for Body {
            fn from(source: $source) -> Self {
                Self::from(Bytes::from(source))
            }
        }
    )*};
}

from_into_bytes!(Vec<u8>, String, &'static str, &'static [u8]);

/// The data of a [`Body`] as a stream. See [`Body::into_data_stream`].
#[derive(Debug)]
pub struct BodyDataStream {
    body: Body,
}

impl Stream for BodyDataStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

pin_project! {
    struct StreamBody<S> {
        #[pin]
        stream: S,
    }
}

impl<S> HttpBody for StreamBody<S>
where
    S: TryStream,
    S::Ok: Into<Bytes>,
    S::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let item = ready!(self.project().stream.try_poll_next(cx));
        Poll::Ready(item.map(|item| match item {
            Ok(data) => Ok(Frame::data(data.into())),
            Err(error) => Err(Error::from(error.into())),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ends_are_forwarded() {
        assert!(Body::empty().is_end_stream());
        assert_eq!(Body::empty().size_hint().exact(), Some(0));
        assert_eq!(Body::from("abc").size_hint().exact(), Some(3));
        assert!(!Body::from("abc").is_end_stream());
        let boxed = Body::new(http_body_util::Full::new(Bytes::from_static(b"abcd")));
        assert_eq!(boxed.size_hint().exact(), Some(4));
    }

    #[test]
    fn a_body_in_a_body_is_not_boxed_again() {
        let body = Body::new(Body::from("abc"));
        assert!(matches!(body.0, Repr::Bytes(Some(_))));
    }

    #[tokio::test]
    async fn the_limit_holds_to_the_byte() {
        let parts = || futures_util::stream::iter([Ok::<_, Error>("abc"), Ok("de"), Ok("f")]);
        assert_eq!(to_bytes(Body::from_stream(parts()), 6).await.unwrap(), "abcdef");
        let error = to_bytes(Body::from_stream(parts()), 5).await.unwrap_err();
        assert_eq!(error.kind(), Kind::BodyTooLarge);
    }

    #[tokio::test]
    async fn an_error_in_a_stream_keeps_its_kind() {
        let parts = [Ok("abc"), Err(Error::new(Kind::GatewayTimeout))];
        let error = to_bytes(Body::from_stream(futures_util::stream::iter(parts)), 99).await.unwrap_err();
        assert_eq!(error.kind(), Kind::GatewayTimeout);
    }
}
