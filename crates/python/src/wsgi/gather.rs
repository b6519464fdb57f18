//! A request body before a thread is taken for its request: what is small is there as a whole, so that a slow client
//! occupies no thread.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hawksbill_core::{Body, Error};
use http::header::EXPECT;
use http::request::Parts;
use http_body::Body as _;
use tokio::runtime::Handle;

/// A body that says it is no longer than this is waited for.
const SMALL: u64 = 64 * 1024;

/// A body, partly or wholly there.
pub(super) struct Gathered {
    pub(super) blocks: VecDeque<Bytes>,
    /// What is still to come.
    pub(super) rest: Option<Body>,
    /// Why nothing more comes.
    pub(super) failed: Option<Error>,
    /// Bodies with deadlines need their runtime around them when they are polled.
    pub(super) runtime: Option<Handle>,
}

impl Gathered {
    /// Takes what is there; waits for all of it if that is little. A client that waits for leave to send (`Expect`) gets
    /// it when the application reads.
    pub(super) async fn of(parts: &Parts, body: Body) -> Self {
        let waits = body.size_hint().upper().is_some_and(|length| length <= SMALL);
        let runtime = Handle::try_current().ok();
        let mut gathered = Self { blocks: VecDeque::new(), rest: Some(body), failed: None, runtime };
        if !parts.headers.contains_key(EXPECT) {
            poll_fn(|cx| gathered.poll(cx, waits)).await;
        }
        gathered
    }

    fn poll(&mut self, cx: &mut Context<'_>, waits: bool) -> Poll<()> {
        let mut held: u64 = self.blocks.iter().map(|block| block.len() as u64).sum();
        while let Some(body) = &mut self.rest {
            if body.is_end_stream() {
                self.rest = None;
                break;
            }
            if held >= SMALL {
                break;
            }
            match Pin::new(body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let block = frame.into_data().unwrap_or_default();
                    held += block.len() as u64;
                    self.blocks.push_back(block);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.failed = Some(error);
                    self.rest = None;
                }
                Poll::Ready(None) => self.rest = None,
                Poll::Pending if waits => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http::Request;

    use super::*;

    fn stream(blocks: &'static [&'static str], ends: bool) -> Body {
        use futures_util::StreamExt;
        let blocks = futures_util::stream::iter(blocks.iter().map(|block| Ok::<_, Error>(*block)));
        if ends {
            Body::from_stream(blocks)
        } else {
            Body::from_stream(blocks.chain(futures_util::stream::pending()))
        }
    }

    fn gather(request: http::request::Builder, body: Body) -> Option<Gathered> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Gathered::of(&parts, body).now_or_never()
    }

    #[test]
    fn what_is_there_is_taken_and_nothing_unknown_is_waited_for() {
        let whole = gather(Request::post("/"), stream(&["ab", "c"], true)).unwrap();
        assert_eq!(whole.blocks, ["ab", "c"]);
        assert!(whole.rest.is_none());
        let part = gather(Request::post("/"), stream(&["ab"], false)).unwrap();
        assert_eq!(part.blocks, ["ab"]);
        assert!(part.rest.is_some());
    }

    #[test]
    fn a_client_that_asks_for_leave_is_not_read_from() {
        let request = Request::post("/").header(EXPECT, "100-continue");
        let gathered = gather(request, stream(&["ab"], true)).unwrap();
        assert!(gathered.blocks.is_empty() && gathered.rest.is_some());
    }
}
