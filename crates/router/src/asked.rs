//! The call that a routing table made, or its refusal.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use hawksbill_core::{Body, Error, TurtleFuture};
use http::Response;

/// A request on its way: what [`Sites`](crate::Sites) and [`Routes`](crate::Routes) give when they are asked.
///
/// It is the chosen turtle's own future, so that choosing adds no box.
pub struct Asked(State);

enum State {
    Chosen(TurtleFuture),
    Refused(Option<Error>),
}

impl Asked {
    pub(crate) fn chosen(call: TurtleFuture) -> Self {
        Self(State::Chosen(call))
    }

    pub(crate) fn refused(error: Error) -> Self {
        Self(State::Refused(Some(error)))
    }
}

impl Future for Asked {
    type Output = Result<Response<Body>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Chosen(call) => Pin::new(call).poll(cx),
            // A future that has ended is not polled again; one that is nevertheless stays silent.
            State::Refused(error) => error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            State::Chosen(_) => f.write_str("Asked::Chosen"),
            State::Refused(error) => f.debug_tuple("Asked::Refused").field(error).finish(),
        }
    }
}
