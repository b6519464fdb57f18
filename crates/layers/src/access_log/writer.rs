//! One thread a file, which writes what requests hand to it.
//!
//! A request appends its line to a buffer in memory and goes on. The thread writes the first line at once and then, while
//! lines keep coming, what has gathered ten times a second, or as soon as it is much.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hawksbill_core::{BuildError, Builder};
use rustix::fs::{Mode, OFlags, open};
use tokio::sync::oneshot;

/// How long lines gather.
const PAUSE: Duration = Duration::from_millis(100);

/// So many bytes are written without waiting for more.
const MUCH: usize = 64 * 1024;

/// What is waiting never takes more bytes than this; further lines are dropped and counted.
const MOST: usize = 4 * 1024 * 1024;

/// How long a stop waits for lines to be written, though nobody reads them.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// How often at most troubles are reported.
const COMPLAIN: Duration = Duration::from_secs(10);

/// Where lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    StandardOutput,
    File(PathBuf),
}

impl Target {
    pub(super) fn new(path: &Path, cx: &Builder) -> Self {
        if path == Path::new("-") { Self::StandardOutput } else { Self::File(cx.path(path)) }
    }

    fn open(&self) -> io::Result<File> {
        match self {
            Self::StandardOutput => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
            Self::File(path) => {
                // A FIFO that nobody reads must not hold us.
                let flags =
                    OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let owner_writes_all_read = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
                Ok(open(path, flags | OFlags::NOCTTY, owner_writes_all_read)?.into())
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StandardOutput => f.write_str("-"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Takes lines for one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Writer(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// There is something to do for the thread.
    wake: Condvar,
    /// The thread is at its end.
    finished: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    lost: u64,
    /// The thread waits for a first line.
    idle: bool,
    stopping: bool,
    running: bool,
}

impl Writer {
    /// A writer that opens its file when the generation starts and writes the last line when it stops.
    ///
    /// # Errors
    /// When the file's directory does not exist.
    pub(super) fn start(target: Target, cx: &mut Builder) -> Result<Self, BuildError> {
        if let Target::File(path) = &target
            && let Some(directory) = path.parent()
            && !directory.as_os_str().is_empty()
            && !directory.is_dir()
        {
            let message = format!("log: the directory {} does not exist; create it", directory.display());
            return Err(BuildError::new(message));
        }
        let writer = Self::default();
        let (starting, stopping) = (writer.0.clone(), writer.0.clone());
        cx.on_start(format!("open the access log {target}"), async move { starting.run(target) });
        cx.on_stop(stopping.stop());
        Ok(writer)
    }

    /// Takes a line, with its end. Never waits for the file.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.0.lock();
        let before = state.lines.len();
        if before + line.len() > MOST {
            state.lost += 1;
            return;
        }
        state.lines.extend_from_slice(line);
        let wake = std::mem::take(&mut state.idle) || (before < MUCH && state.lines.len() >= MUCH);
        drop(state);
        if wake {
            self.0.wake.notify_one();
        }
    }
}

impl Queue {
    /// Opens the file and begins to write.
    fn run(self: Arc<Self>, target: Target) -> Result<(), BuildError> {
        let file = target.open().map_err(|error| {
            BuildError::new(format!("log: cannot write to {target}; correct the path, or its permissions"))
                .caused_by(error)
        })?;
        let mut output = Output::new(target, file);
        self.lock().running = true;
        let queue = self.clone();
        let spawned = thread::Builder::new().name("access log".into()).spawn(move || {
            while let Some((lines, lost)) = queue.take(std::mem::take(&mut output.spare)) {
                output.write(lines, lost);
                queue.pause();
            }
            output.report(true);
            queue.lock().running = false;
            queue.finished.notify_all();
        });
        spawned.map(|_| ()).map_err(|error| {
            self.lock().running = false;
            BuildError::new("log: cannot start the thread that writes the access log").caused_by(error)
        })
    }

    /// Waits for lines and gives them, leaving `spare` in their place; `None` at the end.
    fn take(&self, spare: Vec<u8>) -> Option<(Vec<u8>, u64)> {
        let mut state = self.lock();
        while state.lines.is_empty() && !state.stopping {
            state.idle = true;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        if state.lines.is_empty() && state.lost == 0 {
            return None;
        }
        Some((std::mem::replace(&mut state.lines, spare), std::mem::take(&mut state.lost)))
    }

    fn pause(&self) {
        let gather = |state: &mut State| !state.stopping && state.lines.len() < MUCH;
        drop(self.wake.wait_timeout_while(self.lock(), PAUSE, gather));
    }

    /// Has what is waiting written. A reader of standard output that reads no more holds it up for [`LAST_WAIT`] alone,
    /// on a thread that may block.
    async fn stop(self: Arc<Self>) {
        self.lock().stopping = true;
        self.wake.notify_one();
        let (tell, told) = oneshot::channel::<()>();
        let waiting = thread::Builder::new().name("access log stop".into()).spawn(move || {
            drop(self.finished.wait_timeout_while(self.lock(), LAST_WAIT, |state| state.running));
            drop(tell);
        });
        if waiting.is_ok() {
            let _ = told.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The open file.
struct Output {
    target: Target,
    file: File,
    /// Which file is open, to see when another one takes its place.
    identity: Option<(u64, u64)>,
    /// The buffer that was written last, to be filled again.
    spare: Vec<u8>,
    /// A line was written in part.
    torn: bool,
    lost: u64,
    trouble: Option<io::Error>,
    reported: Option<Instant>,
}

impl Output {
    fn new(target: Target, file: File) -> Self {
        let identity = file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
        Self {
            target,
            file,
            identity,
            spare: Vec::new(),
            torn: false,
            lost: 0,
            trouble: None,
            reported: None,
        }
    }

    fn write(&mut self, mut lines: Vec<u8>, lost: u64) {
        self.lost += lost;
        self.reopen_if_moved();
        if std::mem::take(&mut self.torn) {
            lines.insert(0, b'\n');
        }
        let mut rest = lines.as_slice();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(count) if count > 0 => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Standard output may be a pipe that somebody else made non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(10));
                }
                failed => {
                    self.trouble = failed.err().or(self.trouble.take());
                    self.torn = lines.len() > rest.len() && lines[lines.len() - rest.len() - 1] != b'\n';
                    self.lost += rest.split_inclusive(|byte| *byte == b'\n').count() as u64;
                    break;
                }
            }
        }
        lines.clear();
        self.spare = lines;
        self.report(false);
    }

    /// A file that was moved or removed, as by logrotate, gets a successor under the old name.
    fn reopen_if_moved(&mut self) {
        let Target::File(path) = &self.target else { return };
        let there = std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        if there == self.identity {
            return;
        }
        match self.target.open() {
            Ok(file) => {
                self.identity = file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
                self.file = file;
                self.torn = false;
            }
            Err(error) => self.trouble = Some(error),
        }
    }

    fn report(&mut self, at_once: bool) {
        let recently = self.reported.is_some_and(|reported| reported.elapsed() < COMPLAIN);
        if (self.lost == 0 && self.trouble.is_none()) || (recently && !at_once) {
            return;
        }
        let (target, lost) = (&self.target, std::mem::take(&mut self.lost));
        match self.trouble.take() {
            Some(error) => {
                tracing::warn!(target: "hawksbill::log", "access log {target}: {error}; {lost} lines are missing");
            }
            None => {
                tracing::warn!(target: "hawksbill::log", "access log {target}: it is written too slowly; {lost} lines are missing");
            }
        }
        self.reported = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;

    fn output(path: &Path) -> Output {
        let target = Target::File(path.to_owned());
        let file = target.open().unwrap();
        Output::new(target, file)
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let mut output = output(Path::new("/dev/full"));
        output.reported = Some(Instant::now());
        output.write(b"one\ntwo\n".to_vec(), 3);
        assert_eq!(output.lost, 5);
        assert!(output.trouble.as_ref().unwrap().to_string().contains("No space left"));
        output.report(true);
        assert_eq!((output.lost, output.trouble.is_none()), (0, true));
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut output = output(&path);
        output.torn = true;
        output.write(b"next\n".to_vec(), 0);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "\nnext\n");
    }

    #[tokio::test]
    async fn a_reader_that_reads_no_more_holds_up_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let mut reader: File = open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap().into();
        let mut cx = Builder::new(dir.path());
        let writer = Writer::start(Target::File(path), &mut cx).unwrap();
        let mut generation = cx.finish();
        generation.start().await.unwrap();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        for _ in 0..3 * MOST / line.len() {
            writer.push(&line);
        }
        assert!(writer.0.lock().lines.len() <= MOST);
        assert!(writer.0.lock().lost > 0);
        let started = Instant::now();
        generation.stop().await;
        assert!(started.elapsed() < LAST_WAIT * 2);
        let mut some = [0; 1024];
        reader.read_exact(&mut some).unwrap();
        assert_eq!(some, *line);
    }
}
