//! One answer on its way from nothing to complete: the same for both interfaces.
//!
//! Nothing goes out before the first block, so that an application that fails until then becomes a 500. A length that
//! was promised is kept: too much is cut off, too little cuts the connection.

use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;
use hawksbill_core::{Body, Error, Kind};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use crate::broken::Broken;
use crate::outgoing::{self, Gone};
use crate::reply::Reply;
use crate::segment::Segment;
use crate::tally::Tally;

/// Status and headers, checked.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// Why an answer does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A block came before status and headers.
    NotStarted,
    /// Status and headers came a second time.
    StartedTwice,
    /// Status and headers came when others were already sent.
    AlreadySent,
    /// `Content-Length` is no number.
    BadLength,
    /// More bytes than `Content-Length` said.
    Excess(Tally),
    /// Fewer bytes than `Content-Length` said.
    Shortage(Tally),
    /// The client left.
    Left,
}

/// The state of one answer.
#[derive(Debug)]
pub(crate) struct Answer {
    stage: Stage,
    tally: Tally,
    /// The answer to a HEAD request has no body.
    head_only: bool,
    broken: Broken,
    /// Set where trailers are to follow the body.
    trailing: Option<Box<Trailing>>,
}

/// The fields that follow a body (RFC 9110 section 6.5).
#[derive(Debug, Default)]
struct Trailing {
    body_is_over: bool,
    fields: HeaderMap,
}

enum Stage {
    /// Nothing is sent; status and headers can still be changed.
    Waiting(Reply, Option<Head>),
    /// Blocks go to the client one by one.
    Streaming(outgoing::Sender),
    /// The client has every byte that was promised; the application has not said yet that this is all.
    Promised,
    /// The client has its whole answer, which has no body; what comes is not looked at.
    Discarding,
    /// The application said that this was all.
    Complete,
    /// The client left.
    Left,
}

impl Answer {
    /// An answer to a request, whose body leaves in `broken` what it fails with.
    pub(crate) fn new(reply: Reply, head_only: bool, broken: Broken) -> Self {
        Self {
            stage: Stage::Waiting(reply, None),
            tally: Tally::default(),
            head_only,
            broken,
            trailing: None,
        }
    }

    /// Takes status and headers; `again` allows others to be replaced that are not sent yet.
    pub(crate) fn start(&mut self, head: Head, again: bool) -> Result<(), Trouble> {
        match &mut self.stage {
            Stage::Waiting(reply, _) if reply.is_closed() => {
                self.stage = Stage::Left;
                Err(Trouble::Left)
            }
            Stage::Waiting(_, Some(_)) if !again => Err(Trouble::StartedTwice),
            Stage::Waiting(_, slot) => {
                self.tally = Tally::of(&head.headers).ok_or(Trouble::BadLength)?;
                *slot = Some(head);
                Ok(())
            }
            Stage::Left => Err(Trouble::Left),
            Stage::Streaming(_) | Stage::Promised | Stage::Discarding | Stage::Complete => {
                Err(Trouble::AlreadySent)
            }
        }
    }

    /// Keeps the answer open behind its body, until [`trailers`](Self::trailers) end it.
    pub(crate) fn expect_trailers(&mut self) {
        self.trailing = Some(Box::default());
    }

    /// Whether status and headers are there, sent or not.
    pub(crate) fn has_begun(&self) -> bool {
        !matches!(self.stage, Stage::Waiting(_, None))
    }

    /// Whether anything has been sent.
    pub(crate) fn is_sent(&self) -> bool {
        !matches!(self.stage, Stage::Waiting(..))
    }

    /// Whether blocks still matter to anybody.
    pub(crate) fn wants_blocks(&self) -> bool {
        !matches!(self.stage, Stage::Discarding | Stage::Left)
    }

    /// Whether the application said that this was all.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.stage, Stage::Complete)
    }

    /// Takes the way to the client, for an answer of another form. `None` where something was said already.
    pub(crate) fn take_reply(&mut self) -> Result<Option<Reply>, Trouble> {
        match std::mem::replace(&mut self.stage, Stage::Complete) {
            Stage::Waiting(reply, None) if reply.is_closed() => {
                self.stage = Stage::Left;
                Err(Trouble::Left)
            }
            Stage::Waiting(reply, None) => Ok(Some(reply)),
            other => {
                self.stage = other;
                Ok(None)
            }
        }
    }

    /// Sends a block after which others may come. An empty one sends what is waiting.
    pub(crate) fn block(&mut self, block: Bytes) -> Result<(), Trouble> {
        if self.body_is_over() {
            return Ok(());
        }
        if let Stage::Waiting(..) = self.stage {
            self.begin(&block)?;
            // The first block may have been sent with the headers.
            if matches!(self.stage, Stage::Promised) {
                let _ = self.tally.admit(block);
                return Ok(());
            }
        }
        match &self.stage {
            Stage::Streaming(sender) => {
                let (block, excess) = self.tally.admit(block);
                if sender.push(block) == Err(Gone) {
                    self.stage = Stage::Left;
                    return Err(Trouble::Left);
                }
                if excess { Err(Trouble::Excess(self.tally)) } else { Ok(()) }
            }
            Stage::Promised => {
                let excess = self.tally.admit(block).1;
                if excess { Err(Trouble::Excess(self.tally)) } else { Ok(()) }
            }
            Stage::Left => Err(Trouble::Left),
            Stage::Waiting(..) | Stage::Discarding | Stage::Complete => Ok(()),
        }
    }

    /// Sends the last block, which may be empty.
    pub(crate) fn last(&mut self, block: Bytes) -> Result<(), Trouble> {
        if self.trailing.is_some() {
            let sent = self.block(block);
            if let (Ok(()), Some(trailing)) = (sent, &mut self.trailing) {
                trailing.body_is_over = true;
            }
            return sent;
        }
        if let Stage::Waiting(..) = self.stage {
            return self.whole(block);
        }
        let pushed = if block.is_empty() { Ok(()) } else { self.block(block) };
        self.finish(HeaderMap::new())?;
        pushed
    }

    /// Sends a part of a file, of which `more` says whether anything follows. Where nothing does, and nobody said how
    /// long the answer is, its length is said.
    pub(crate) fn file(&mut self, mut segment: Segment, more: bool) -> Result<(), Trouble> {
        if self.body_is_over() || self.is_complete() {
            return Ok(());
        }
        if let Stage::Waiting(..) = self.stage {
            self.begin_file(segment.len(), more)?;
        }
        let (length, excess) = self.tally.admit_length(segment.len());
        if let Stage::Streaming(sender) = &self.stage {
            segment.truncate(length);
            if sender.push_file(segment) == Err(Gone) {
                self.stage = Stage::Left;
            }
        }
        if let Stage::Left = self.stage {
            return Err(Trouble::Left);
        }
        let complete = if more { Ok(()) } else { self.last(Bytes::new()) };
        if excess && self.has_body() { Err(Trouble::Excess(self.tally)) } else { complete }
    }

    /// Sends a file that is all that is left of the body, up to the length that was promised; where none was, its
    /// length is said. The answer stays open, so that its sender can wait until the file is read.
    pub(crate) fn rest(&mut self, mut segment: Segment) -> Result<(), Trouble> {
        segment.truncate(self.tally.left().unwrap_or(u64::MAX));
        if let Stage::Waiting(..) = self.stage {
            self.begin_file(segment.len(), false)?;
        }
        self.file(segment, true)
    }

    /// Whether this is the time for trailers: behind the body, if they were expected.
    pub(crate) fn takes_trailers(&self) -> bool {
        self.body_is_over() || matches!(self.stage, Stage::Complete | Stage::Left)
    }

    /// Takes trailers; without `more` they end the answer. Ignored where the answer is complete, or it is not the time.
    pub(crate) fn trailers(&mut self, fields: HeaderMap, more: bool) -> Result<(), Trouble> {
        if let Stage::Left = self.stage {
            return Err(Trouble::Left);
        }
        let Some(trailing) = self.trailing.as_mut().filter(|trailing| trailing.body_is_over) else {
            return Ok(());
        };
        trailing.fields.extend(fields);
        if more {
            return Ok(());
        }
        let trailing = self.trailing.take().unwrap_or_default();
        self.finish(trailing.fields)
    }

    /// The application failed: the error is the answer where nothing is sent, else the connection is cut.
    pub(crate) fn fail(&mut self, error: Error) {
        match std::mem::replace(&mut self.stage, Stage::Complete) {
            Stage::Waiting(reply, _) => {
                reply.send(Err(self.broken.take().unwrap_or(error)));
            }
            // The client has all that was promised; what failed after it is in the log.
            Stage::Streaming(sender) if self.tally.is_full() => sender.finish(),
            Stage::Streaming(sender) => sender.fail(error),
            Stage::Promised | Stage::Discarding | Stage::Complete | Stage::Left => {}
        }
    }

    /// Ready when the next block may be given.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        match &self.stage {
            Stage::Streaming(sender) => sender.poll_room(cx).map_err(|Gone| Trouble::Left),
            Stage::Left => Poll::Ready(Err(Trouble::Left)),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Ready when the client has left or has its whole answer.
    pub(crate) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.stage {
            Stage::Waiting(reply, _) => reply.poll_closed(cx),
            Stage::Streaming(sender) => sender.poll_gone(cx),
            Stage::Promised | Stage::Discarding | Stage::Complete | Stage::Left => Poll::Ready(()),
        }
    }

    fn body_is_over(&self) -> bool {
        self.trailing.as_ref().is_some_and(|trailing| trailing.body_is_over)
    }

    /// Whether what is sent goes to anybody, or is dropped because there is no body.
    fn has_body(&self) -> bool {
        !matches!(self.stage, Stage::Discarding) && !self.head_only
    }

    /// Ends what is under way.
    fn finish(&mut self, trailers: HeaderMap) -> Result<(), Trouble> {
        match std::mem::replace(&mut self.stage, Stage::Complete) {
            Stage::Left => {
                self.stage = Stage::Left;
                return Err(Trouble::Left);
            }
            Stage::Streaming(sender) if self.tally.is_short() => {
                let trouble = Trouble::Shortage(self.tally);
                sender.fail(Error::new(Kind::Internal).because(trouble.to_string()));
                return Err(trouble);
            }
            Stage::Streaming(sender) => sender.finish_with(trailers),
            _ => {}
        }
        Ok(())
    }

    /// Sends the headers, and the body with them where its first block is known to be all of it.
    fn begin(&mut self, first: &Bytes) -> Result<(), Trouble> {
        let (reply, head) = self.take_head()?;
        if self.tally.promised() == Some(first.len() as u64)
            && !(self.head_only || bodyless(head.status) || self.trailing.is_some())
        {
            self.stage = Stage::Promised;
            self.reply(reply, head, Body::from(first.clone()))
        } else {
            self.begin_streaming(reply, head)
        }
    }

    fn begin_streaming(&mut self, reply: Reply, head: Head) -> Result<(), Trouble> {
        if self.head_only || bodyless(head.status) {
            self.stage = Stage::Discarding;
            return self.reply(reply, head, Body::empty());
        }
        let (sender, body) = outgoing::channel(self.tally.promised());
        self.stage = Stage::Streaming(sender);
        self.reply(reply, head, Body::new(body))
    }

    /// Sends the headers before a part of a file, unless that is seen not to keep their promise.
    fn begin_file(&mut self, length: u64, more: bool) -> Result<(), Trouble> {
        let (reply, mut head) = self.take_head()?;
        let mut counted = self.tally;
        let excess = counted.admit_length(length).1;
        let broken = excess || (!more && counted.is_short());
        if broken && !self.head_only && !bodyless(head.status) {
            self.stage = Stage::Waiting(reply, Some(head));
            return Err(if excess { Trouble::Excess(counted) } else { Trouble::Shortage(counted) });
        }
        if !more && counted.promised().is_none() && self.trailing.is_none() && !bodyless(head.status) {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            self.tally = Tally::promise(length);
        }
        self.begin_streaming(reply, head)
    }

    fn whole(&mut self, block: Bytes) -> Result<(), Trouble> {
        let (reply, mut head) = self.take_head()?;
        let length = block.len();
        let promised = self.tally.promised();
        let mut body = Body::empty();
        if self.head_only && !bodyless(head.status) {
            if promised.is_none() && length > 0 {
                head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
        } else if !bodyless(head.status) {
            let mut counted = self.tally;
            let (block, excess) = counted.admit(block);
            if excess || counted.is_short() {
                self.stage = Stage::Waiting(reply, Some(head));
                return Err(if excess { Trouble::Excess(counted) } else { Trouble::Shortage(counted) });
            }
            self.tally = counted;
            body = Body::from(block);
        }
        self.stage = Stage::Complete;
        self.reply(reply, head, body)
    }

    fn take_head(&mut self) -> Result<(Reply, Head), Trouble> {
        match std::mem::replace(&mut self.stage, Stage::Complete) {
            Stage::Waiting(reply, Some(head)) => Ok((reply, head)),
            other => {
                self.stage = other;
                Err(Trouble::NotStarted)
            }
        }
    }

    fn reply(&mut self, reply: Reply, head: Head, body: Body) -> Result<(), Trouble> {
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        if head.status == StatusCode::NO_CONTENT {
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        // An application that fails because its request body did not arrive is not at fault.
        let broken = if head.status.is_server_error() { self.broken.take() } else { None };
        if !reply.send(broken.map_or(Ok(response), Err)) {
            self.stage = Stage::Left;
            return Err(Trouble::Left);
        }
        Ok(())
    }
}

/// Whether a response of this status never has a body (RFC 9110 section 6.4.1).
fn bodyless(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting(..) => "Waiting",
            Self::Streaming(_) => "Streaming",
            Self::Promised => "Promised",
            Self::Discarding => "Discarding",
            Self::Complete => "Complete",
            Self::Left => "Left",
        })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted => f.write_str("the application sent no status and headers before its body"),
            Self::StartedTwice => f.write_str("the application gave status and headers a second time"),
            Self::AlreadySent => {
                f.write_str("the application gave status and headers when others were already sent")
            }
            Self::BadLength => f.write_str("Content-Length must be one decimal number of bytes"),
            Self::Excess(tally) => {
                write!(
                    f,
                    "the response is longer than its Content-Length says: {tally}; the rest was cut off"
                )
            }
            Self::Shortage(tally) => {
                write!(f, "the response is shorter than its Content-Length says: {tally}")
            }
            Self::Left => f.write_str("the client closed the connection before the response was complete"),
        }
    }
}

#[cfg(test)]
mod tests {
    use hawksbill_core::body::to_bytes;

    use super::*;
    use crate::reply::{self, Asked};

    type Receiver = Asked;

    fn answer(head_only: bool) -> (Answer, Receiver) {
        let (reply, answer) = reply::channel(None);
        (Answer::new(reply, head_only, Broken::default()), answer)
    }

    fn head(status: u16, length: Option<&str>) -> Head {
        let mut headers = HeaderMap::new();
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, length.parse().unwrap());
        }
        Head { status: StatusCode::from_u16(status).unwrap(), headers }
    }

    async fn body(response: Response<Body>) -> Result<Bytes, Error> {
        to_bytes(response.into_body(), 4096).await
    }

    #[tokio::test]
    async fn nothing_is_sent_before_the_first_block() {
        let (mut answer, mut receiver) = answer(false);
        answer.start(head(200, None), false).unwrap();
        assert_eq!(answer.start(head(500, None), false), Err(Trouble::StartedTwice));
        answer.start(head(404, None), true).unwrap();
        assert!(futures_util::FutureExt::now_or_never(&mut receiver).is_none());
        answer.block(Bytes::from_static(b"a")).unwrap();
        assert_eq!(answer.start(head(200, None), true), Err(Trouble::AlreadySent));
        answer.last(Bytes::from_static(b"b")).unwrap();
        let response = receiver.await.unwrap().unwrap();
        assert_eq!(response.status(), 404);
        assert_eq!(body(response).await.unwrap(), "ab");
    }

    fn segment(content: &[u8]) -> Segment {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, content).unwrap();
        Segment::of(file, Some(0), None).unwrap()
    }

    #[tokio::test]
    async fn a_file_among_blocks_keeps_its_place() {
        let (mut answer, receiver) = answer(false);
        answer.start(head(200, None), false).unwrap();
        answer.block(Bytes::from_static(b"a ")).unwrap();
        answer.file(segment(b"turtle"), true).unwrap();
        assert!(answer.poll_room(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
        answer.last(Bytes::from_static(b" swims")).unwrap();
        assert_eq!(body(receiver.await.unwrap().unwrap()).await.unwrap(), "a turtle swims");
    }

    #[tokio::test]
    async fn a_file_that_is_all_has_its_length_said() {
        for (head_only, length, sent) in
            [(false, None, "turtle"), (true, None, ""), (false, Some("6"), "turtle")]
        {
            let (mut answer, receiver) = answer(head_only);
            answer.start(head(200, length), false).unwrap();
            answer.file(segment(b"turtle"), false).unwrap();
            assert!(answer.is_complete());
            answer.file(segment(b"ignored"), true).unwrap();
            let response = receiver.await.unwrap().unwrap();
            assert_eq!(response.headers()[header::CONTENT_LENGTH], "6");
            assert_eq!(body(response).await.unwrap(), sent);
        }
    }

    #[tokio::test]
    async fn a_file_of_another_length_is_refused_before_anything_is_sent() {
        for length in ["5", "7"] {
            let (mut answer, _receiver) = answer(false);
            answer.start(head(200, Some(length)), false).unwrap();
            let trouble = answer.file(segment(b"turtle"), false).unwrap_err();
            assert!(matches!(trouble, Trouble::Excess(_) | Trouble::Shortage(_)), "{trouble:?}");
            assert!(!answer.is_sent());
        }
    }

    #[tokio::test]
    async fn trailers_follow_the_body() {
        let (mut answer, receiver) = answer(false);
        answer.start(head(200, None), false).unwrap();
        answer.expect_trailers();
        assert!(!answer.takes_trailers());
        answer.last(Bytes::from_static(b"turtle")).unwrap();
        assert!(answer.takes_trailers() && !answer.is_complete());
        answer.block(Bytes::from_static(b"ignored")).unwrap();
        for (name, more) in [("x-a", true), ("x-b", false)] {
            let fields = HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static("1"))]);
            answer.trailers(fields, more).unwrap();
        }
        assert!(answer.is_complete());
        let collected =
            http_body_util::BodyExt::collect(receiver.await.unwrap().unwrap().into_body()).await.unwrap();
        assert_eq!(collected.trailers().unwrap().len(), 2);
        assert_eq!(collected.to_bytes(), "turtle");
    }

    #[tokio::test]
    async fn a_promise_that_is_not_kept_cuts_the_connection() {
        let (mut answer, receiver) = answer(false);
        answer.start(head(200, Some("5")), false).unwrap();
        answer.block(Bytes::from_static(b"abc")).unwrap();
        assert!(matches!(answer.last(Bytes::new()), Err(Trouble::Shortage(_))));
        assert!(body(receiver.await.unwrap().unwrap()).await.is_err());
    }

    #[tokio::test]
    async fn too_much_is_cut_off() {
        let (mut answer, receiver) = answer(false);
        answer.start(head(200, Some("5")), false).unwrap();
        answer.block(Bytes::from_static(b"abc")).unwrap();
        assert!(matches!(answer.block(Bytes::from_static(b"defg")), Err(Trouble::Excess(_))));
        answer.fail(Error::new(Kind::Internal));
        assert_eq!(body(receiver.await.unwrap().unwrap()).await.unwrap(), "abcde");
    }

    #[tokio::test]
    async fn an_answer_without_a_body_has_none() {
        for (head_only, status) in [(true, 200), (false, 204), (false, 304)] {
            let (mut answer, receiver) = answer(head_only);
            answer.start(head(status, None), false).unwrap();
            answer.last(Bytes::from_static(b"abc")).unwrap();
            let response = receiver.await.unwrap().unwrap();
            assert_eq!(response.headers().contains_key(header::CONTENT_LENGTH), head_only);
            assert_eq!(body(response).await.unwrap(), "");
        }
    }

    #[tokio::test]
    async fn a_request_body_that_did_not_arrive_is_the_answer_of_a_failing_application() {
        for raises in [true, false] {
            let (reply, receiver) = reply::channel(None);
            let broken = Broken::default();
            let mut answer = Answer::new(reply, false, broken.clone());
            broken.set(Error::new(Kind::BodyTooLarge));
            if raises {
                answer.fail(Error::new(Kind::Internal));
            } else {
                answer.start(head(500, None), false).unwrap();
                answer.last(Bytes::new()).unwrap();
            }
            assert_eq!(receiver.await.unwrap().unwrap_err().kind(), Kind::BodyTooLarge);
        }
    }

    #[tokio::test]
    async fn a_client_that_left_is_noticed() {
        let (mut answer, receiver) = answer(false);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(answer.poll_left(&mut cx).is_pending());
        drop(receiver);
        assert!(answer.poll_left(&mut cx).is_ready());
        assert_eq!(answer.start(head(200, None), false), Err(Trouble::Left));
    }
}
