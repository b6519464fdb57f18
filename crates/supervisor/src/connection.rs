//! The supervisor's half of a process's channel, and of its output.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::wire::{self, MAX_REPORT, Order, Report};

/// How many orders may wait for a process that does not read.
const WAITING: usize = 256;

/// The longest line of output, in bytes; a longer one is cut in pieces.
const MAX_LINE: usize = 512 << 10;

/// What comes from a process, for the actor.
#[derive(Debug)]
pub(crate) enum Note {
    /// It said something.
    Report(u64, Report),
    /// It wrote a line; true: on standard error.
    Line(u64, bool, String),
    /// One of its streams has come to its end; true: the channel.
    Closed(u64, bool),
    /// A program was tried out, and is gone.
    Tried(std::io::Result<()>),
}

/// A process's channel. When it is dropped what was ordered is still written.
#[derive(Debug)]
pub(crate) struct Connection {
    orders: mpsc::Sender<Vec<u8>>,
    task: JoinHandle<(UnixStream, Vec<u8>)>,
}

impl Connection {
    /// Takes up the conversation; `unread` is what a former program had read of it.
    pub(crate) fn open(
        process: u64,
        stream: StdStream,
        unread: Vec<u8>,
        notes: mpsc::UnboundedSender<Note>,
    ) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        let (orders, waiting) = mpsc::channel(WAITING);
        let task = tokio::spawn(converse(process, stream, unread, waiting, notes));
        Ok(Self { orders, task })
    }

    /// Says it; false if the process does not listen.
    pub(crate) fn say(&self, order: &Order) -> bool {
        self.orders.try_send(wire::line(order)).is_ok()
    }

    /// Ends the conversation between two messages: the stream, and what was read of it beyond the last one.
    pub(crate) async fn dissolve(self) -> std::io::Result<(OwnedFd, Vec<u8>)> {
        drop(self.orders);
        let (stream, unread) = self.task.await.map_err(std::io::Error::other)?;
        Ok((stream.into_std()?.into(), unread))
    }
}

async fn converse(
    process: u64,
    mut stream: UnixStream,
    mut unread: Vec<u8>,
    mut orders: mpsc::Receiver<Vec<u8>>,
    notes: mpsc::UnboundedSender<Note>,
) -> (UnixStream, Vec<u8>) {
    let (mut from, mut to) = stream.split();
    let reading = async {
        loop {
            for report in complete(&mut unread) {
                let _ = notes.send(Note::Report(process, report));
            }
            if unread.len() > MAX_REPORT {
                tracing::warn!(target: "hawksbill::supervisor", "process {process} sends lines without an end; they are not read");
                break;
            }
            match from.read_buf(&mut unread).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let _ = notes.send(Note::Closed(process, true));
        std::future::pending::<()>().await;
    };
    let writing = async {
        while let Some(line) = orders.recv().await {
            if to.write_all(&line).await.is_err() {
                // The end of the stream is noticed by reading.
                orders.close();
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
    (stream, unread)
}

/// Takes the complete messages out of the buffer.
fn complete(buffer: &mut Vec<u8>) -> Vec<Report> {
    let Some(end) = buffer.iter().rposition(|&byte| byte == b'\n') else {
        return Vec::new();
    };
    let rest = buffer.split_off(end + 1);
    let lines = std::mem::replace(buffer, rest);
    let lines = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines
        .filter_map(|line| match serde_json::from_slice(line) {
            Ok(report) => Some(report),
            Err(error) => {
                tracing::warn!(target: "hawksbill::supervisor", "a process said what is not a message: {error}");
                None
            }
        })
        .collect()
}

/// Reads what a process writes, line by line.
pub(crate) fn read_lines(
    process: u64,
    stderr: bool,
    output: OwnedFd,
    notes: mpsc::UnboundedSender<Note>,
) -> std::io::Result<()> {
    let mut output = pipe::Receiver::from_owned_fd(output)?;
    tokio::spawn(async move {
        let mut buffer = Vec::new();
        loop {
            let ended = !matches!(output.read_buf(&mut buffer).await, Ok(1..));
            while let Some(end) = line_end(&buffer, ended) {
                let rest = buffer.split_off(end);
                let line = std::mem::replace(&mut buffer, rest);
                let line = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
                let _ = notes.send(Note::Line(process, stderr, line));
            }
            if ended {
                break;
            }
        }
        let _ = notes.send(Note::Closed(process, false));
    });
    Ok(())
}

/// Where the first line ends, behind its end.
fn line_end(buffer: &[u8], ended: bool) -> Option<usize> {
    match buffer.iter().position(|&byte| byte == b'\n') {
        Some(end) if end < MAX_LINE => Some(end + 1),
        _ if buffer.len() >= MAX_LINE => Some(MAX_LINE),
        Some(end) => Some(end + 1),
        None => (ended && !buffer.is_empty()).then_some(buffer.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole() {
        let mut buffer = b"{\"report\":\"hello\",\"version\":1}\n{\"report\":\"re".to_vec();
        assert_eq!(complete(&mut buffer), [Report::Hello { version: 1 }]);
        assert_eq!(buffer, b"{\"report\":\"re");
        buffer.extend_from_slice(b"ady\",\"info\":null}\nnonsense\n");
        assert_eq!(complete(&mut buffer), [Report::Ready { info: serde_json::Value::Null }]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn lines_are_bounded() {
        assert_eq!(line_end(b"one\ntwo", false), Some(4));
        assert_eq!(line_end(b"two", false), None);
        assert_eq!(line_end(b"two", true), Some(3));
        assert_eq!(line_end(&vec![b'x'; MAX_LINE + 9], false), Some(MAX_LINE));
    }
}
