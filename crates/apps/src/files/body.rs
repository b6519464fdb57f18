//! Parts of a file as a response body, read on threads that may block.

use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hawksbill_core::{Body, Error, Kind, Side};
use http_body::{Frame, SizeHint};
use rustix::buffer::spare_capacity;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// How many bytes one trip to a blocking thread reads. A body holds two such chunks at most: the one being sent and the
/// next.
const CHUNK: u64 = 128 * 1024;

/// Bodies up to this size are read where the file was opened, and need no further trip.
const SMALL: u64 = 64 * 1024;

/// A piece of a body.
#[derive(Debug)]
pub(super) enum Piece {
    /// Bytes of our own, as stand between the parts of a `multipart/byteranges`.
    Text(Bytes),
    /// Bytes of the file.
    File(Range<u64>),
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Text(bytes) => bytes.len() as u64,
            Self::File(range) => range.end - range.start,
        }
    }
}

/// How many bytes pieces have together.
pub(super) fn total(pieces: &[Piece]) -> u64 {
    pieces.iter().map(Piece::len).sum()
}

/// A body of pieces. A small one is read now, which blocks; a large one while it is sent.
///
/// # Errors
/// When a small one cannot be read.
pub(super) fn body(file: File, pieces: Vec<Piece>) -> Result<Body, Error> {
    let remaining = total(&pieces);
    match Handle::try_current() {
        Ok(runtime) if remaining > SMALL => {
            let (file, pieces) = (Arc::new(file), pieces.into());
            Ok(Body::new(FileBody { file, pieces, remaining, reading: None, runtime }))
        }
        Err(error) if remaining > SMALL => Err(Error::new(Kind::Internal)
            .at(Side::Gateway)
            .because("files: there is no tokio runtime")
            .caused_by(error)),
        _ => read_all(&file, &pieces).map(Body::from).map_err(failed),
    }
}

fn read_all(file: &File, pieces: &[Piece]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(total(pieces)).unwrap_or_default());
    for piece in pieces {
        match piece {
            Piece::Text(text) => bytes.extend_from_slice(text),
            Piece::File(range) => read_into(&mut bytes, file, range.clone())?,
        }
    }
    Ok(bytes)
}

/// Appends a range of a file. A file that has become shorter is an error: its length was promised.
fn read_into(bytes: &mut Vec<u8>, file: &File, range: Range<u64>) -> io::Result<()> {
    let (mut at, length) = (range.start, usize::try_from(range.end - range.start).map_err(io::Error::other)?);
    let wanted = bytes.len() + length;
    bytes.reserve(length);
    while bytes.len() < wanted {
        match rustix::io::pread(file, spare_capacity(bytes), at) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the file became shorter meanwhile",
                ));
            }
            Ok(count) => at += count as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // The buffer may have had more room than was asked for.
    bytes.truncate(wanted);
    Ok(())
}

fn failed(error: io::Error) -> Error {
    Error::new(Kind::Internal).at(Side::Gateway).because("files: reading a file failed").caused_by(error)
}

struct FileBody {
    file: Arc<File>,
    pieces: VecDeque<Piece>,
    /// How many bytes have not been handed out.
    remaining: u64,
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
    runtime: Handle,
}

impl FileBody {
    /// Begins to read the next chunk, if it comes from the file.
    fn read_ahead(&mut self) {
        let Some(Piece::File(range)) = self.pieces.front_mut() else { return };
        let chunk = range.start..range.end.min(range.start + CHUNK);
        range.start = chunk.end;
        if range.is_empty() {
            self.pieces.pop_front();
        }
        let file = self.file.clone();
        self.reading = Some(self.runtime.spawn_blocking(move || {
            let mut bytes = Vec::new();
            read_into(&mut bytes, &file, chunk).map(|()| bytes)
        }));
    }

    /// The next bytes, without regard to what follows them.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.reading.is_none() {
            if let Some(Piece::Text(_)) = self.pieces.front()
                && let Some(Piece::Text(text)) = self.pieces.pop_front()
            {
                return Poll::Ready(Some(Ok(text)));
            }
            self.read_ahead();
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        Poll::Ready(Some(read.map_err(io::Error::other).and_then(|bytes| bytes).map(Bytes::from)))
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Ready(match ready!(self.poll_bytes(cx)) {
            Some(Ok(bytes)) => {
                self.remaining -= bytes.len() as u64;
                self.read_ahead();
                Some(Ok(Frame::data(bytes)))
            }
            Some(Err(error)) => {
                self.pieces.clear();
                Some(Err(failed(error)))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use hawksbill_core::body::to_bytes;

    use super::*;

    const SIZE: u64 = 3 * CHUNK + 17;

    fn pattern() -> Vec<u8> {
        (0..SIZE).map(|at| (at % 251) as u8).collect()
    }

    fn file() -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&pattern()).unwrap();
        file
    }

    #[tokio::test]
    async fn a_large_file_arrives_whole_in_chunks() {
        let mut body = body(file(), vec![Piece::File(0..SIZE)]).unwrap();
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(SIZE));
        let mut received = Vec::new();
        while !http_body::Body::is_end_stream(&body) {
            let frame = std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await;
            let data = frame.unwrap().unwrap().into_data().unwrap();
            assert!(data.len() as u64 <= CHUNK);
            received.extend_from_slice(&data);
        }
        assert!(received == pattern());
    }

    #[tokio::test]
    async fn pieces_keep_their_order() {
        for length in [10, 2 * CHUNK] {
            let pieces = vec![
                Piece::Text(Bytes::from_static(b"<")),
                Piece::File(5..5 + length),
                Piece::Text(Bytes::from_static(b"|")),
                Piece::File(SIZE - length..SIZE),
                Piece::Text(Bytes::from_static(b">")),
            ];
            let received = to_bytes(body(file(), pieces).unwrap(), usize::MAX).await.unwrap();
            let length = usize::try_from(length).unwrap();
            let (pattern, mut expected) = (pattern(), b"<".to_vec());
            expected.extend_from_slice(&pattern[5..5 + length]);
            expected.push(b'|');
            expected.extend_from_slice(&pattern[pattern.len() - length..]);
            expected.push(b'>');
            assert!(received == expected);
        }
    }

    #[tokio::test]
    async fn a_file_that_shrinks_is_an_error_and_no_short_answer() {
        let file = file();
        let shrinking = file.try_clone().unwrap();
        let body = body(file, vec![Piece::File(0..SIZE)]).unwrap();
        shrinking.set_len(SIZE - 1).unwrap();
        let error = to_bytes(body, usize::MAX).await.unwrap_err();
        assert!(error.to_string().contains("shorter"), "{error}");
    }

    #[test]
    fn a_small_file_that_shrank_is_an_error() {
        assert!(body(tempfile::tempfile().unwrap(), vec![Piece::File(0..1)]).is_err());
    }
}
