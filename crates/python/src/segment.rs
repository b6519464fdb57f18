//! A part of a file on its way into a response: read by the server's blocking threads, one block ahead of the client.

use std::fmt;
use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// How much is read at once.
const BLOCK: usize = 128 * 1024;

/// So many bytes of a regular file, from an offset on.
pub(crate) struct Segment {
    file: Arc<File>,
    offset: u64,
    left: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Segment {
    /// All of the file at a path. Blocks; nothing but a regular file is opened, for opening another may never end.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        regular(&fs::metadata(path)?)?;
        let file = File::open(path)?;
        let length = regular(&file.metadata()?)?;
        Ok(Self::new(file, 0, length))
    }

    /// A part of an open file: from `offset` or else its own position, `count` bytes or else all that follow, but no
    /// more than there are.
    pub(crate) fn of(mut file: File, offset: Option<u64>, count: Option<u64>) -> io::Result<Self> {
        let length = regular(&file.metadata()?)?;
        let offset = match offset {
            Some(offset) => offset,
            None => file.stream_position()?,
        };
        let left = length.saturating_sub(offset);
        Ok(Self::new(file, offset, count.map_or(left, |count| count.min(left))))
    }

    fn new(file: File, offset: u64, length: u64) -> Self {
        Self { file: Arc::new(file), offset, left: length, reading: None }
    }

    /// How many bytes are still to come.
    pub(crate) fn len(&self) -> u64 {
        self.left
    }

    /// Where in the file it ends.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.left)
    }

    /// Moves the file's own position, which all duplicates of its descriptor share.
    pub(crate) fn seek(&self, position: u64) -> io::Result<()> {
        (&*self.file).seek(SeekFrom::Start(position)).map(drop)
    }

    /// Leaves out what goes beyond a length.
    pub(crate) fn truncate(&mut self, length: u64) {
        self.left = self.left.min(length);
    }

    /// The next block; `None` at the end. Must be called within a tokio runtime.
    pub(crate) fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.reading.is_none() {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            if let Err(error) = self.read() {
                return Poll::Ready(Some(Err(error)));
            }
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let block = ready!(Pin::new(reading).poll(cx)).unwrap_or_else(|error| Err(io::Error::other(error)));
        self.reading = None;
        Poll::Ready(Some(block.and_then(|block| {
            let length = block.len() as u64;
            if length == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
            }
            self.offset = self.offset.saturating_add(length);
            self.left = self.left.saturating_sub(length);
            if self.left > 0 {
                self.read()?;
            }
            Ok(block)
        })))
    }

    fn read(&mut self) -> io::Result<()> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let (file, offset) = (self.file.clone(), self.offset);
        let length = usize::try_from(self.left).unwrap_or(BLOCK).min(BLOCK);
        self.reading = Some(runtime.spawn_blocking(move || {
            let mut block = vec![0; length];
            loop {
                match file.read_at(&mut block, offset) {
                    Ok(count) => {
                        block.truncate(count);
                        return Ok(Bytes::from(block));
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }));
        Ok(())
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("offset", &self.offset)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// A file of our own behind a descriptor of Python's. To be called by who runs the application, on its thread.
#[allow(unsafe_code, reason = "Python's descriptors are plain numbers")]
pub(crate) fn duplicate(descriptor: RawFd) -> io::Result<File> {
    if descriptor < 0 {
        return Err(rustix::io::Errno::BADF.into());
    }
    // SAFETY: the number is used for nothing but one `fcntl`, which fails where it stands for no open file; the
    // application, which runs on this thread, cannot close it meanwhile.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    borrowed.try_clone_to_owned().map(File::from)
}

/// The length of a regular file; anything else has none.
fn regular(metadata: &fs::Metadata) -> io::Result<u64> {
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    if metadata.is_dir() {
        return Err(rustix::io::Errno::ISDIR.into());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "only regular files can be sent"))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;

    use super::*;

    async fn all(mut segment: Segment) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(block) = poll_fn(|cx| segment.poll_block(cx)).await {
            bytes.extend_from_slice(&block?);
        }
        Ok(bytes)
    }

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[tokio::test]
    async fn a_file_of_several_blocks_comes_whole() {
        let content: Vec<u8> = (0_u32..100_000).flat_map(u32::to_le_bytes).collect();
        let file = file(&content);
        assert_eq!(all(Segment::open(file.path()).unwrap()).await.unwrap(), content);
        let part = Segment::of(file.reopen().unwrap(), Some(7), Some(200_000)).unwrap();
        assert_eq!(all(part).await.unwrap(), content[7..200_007]);
    }

    #[tokio::test]
    async fn a_part_ends_with_its_file_and_begins_where_that_stands() {
        let file = file(b"turtle");
        let mut open = file.reopen().unwrap();
        open.seek(SeekFrom::Start(2)).unwrap();
        let part = Segment::of(open, None, Some(100)).unwrap();
        assert_eq!((part.len(), part.end()), (4, 6));
        assert_eq!(all(part).await.unwrap(), b"rtle");
        assert_eq!(Segment::of(file.reopen().unwrap(), Some(9), None).unwrap().len(), 0);
    }

    #[tokio::test]
    async fn a_file_that_shrinks_is_an_error_and_no_end() {
        let file = file(b"turtle");
        let segment = Segment::open(file.path()).unwrap();
        file.as_file().set_len(3).unwrap();
        assert_eq!(all(segment).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn only_regular_files_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Segment::open(directory.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(Segment::open(Path::new("/dev/null")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(
            Segment::open(&directory.path().join("none")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
