//! The half of the channel that a supervised process holds.
//!
//! Nothing here needs a runtime: a thread of its own reads the orders, so that a question is answered even while the
//! process's runtime hangs, and whoever has a [`Reporter`] can say something from any thread.
//!
//! ```no_run
//! use hawksbill_supervisor::Order;
//! use hawksbill_supervisor::child::Child;
//!
//! # fn load(_: &str) -> Result<(), String> { Ok(()) }
//! let mut child = Child::from_environment()?;
//! let listener = child.take("main").map(std::net::TcpListener::from);
//! child.answers("stacks", || "where every thread is".into());
//! let (reporter, mut orders) = (child.reporter(), child.orders()?);
//! match load(&child.start().payload) {
//!     Ok(()) => reporter.ready(serde_json::Value::Null),
//!     Err(message) => reporter.failed(message),
//! }
//! loop {
//!     match orders.blocking_next() { // or `orders.next().await`
//!         Order::Serve => { /* accept */ }
//!         Order::Drain { .. } | Order::Stop | Order::Gone => break,
//!         _ => {}
//!     }
//! }
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! **When the supervisor is gone** the thread reads the end of the stream. The process is told by [`Order::Gone`] and
//! has as long as at any other end; then the thread kills it, with its process group. A process that is still starting
//! then is killed at once. So no orphan stays, whatever hangs.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Signal, getpgrp, getpid, kill_current_process_group, kill_process};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::descriptors::{CHANNEL, Descriptors, VARIABLE};
use crate::wire::{self, Beat, MAX_ORDER, Order, Report, Start, VERSION};

/// How long a supervisor may take to answer hello, and to make room for a message.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process that a supervisor started.
pub struct Child {
    start: Start,
    descriptors: Descriptors,
    reporter: Reporter,
    reader: Option<BufReader<UnixStream>>,
    answers: Answers,
}

type Answers = HashMap<String, Box<dyn Fn() -> Value + Send>>;

impl Child {
    /// Whether a supervisor started this process.
    pub fn is_one() -> bool {
        std::env::var_os(VARIABLE).is_some()
    }

    /// Takes over what the process inherited, and waits for the supervisor's word. Works once in a process; best called
    /// before anything else, and the variable `HAWKSBILL_DESCRIPTORS` is best taken from the environment afterwards.
    ///
    /// # Errors
    /// When no supervisor started this process, or it does not speak this version.
    pub fn from_environment() -> io::Result<Self> {
        let text = std::env::var(VARIABLE).map_err(|_| {
            wrong("no supervisor started this process; it is started by 'hawksbill run', not by hand")
        })?;
        Self::of(&text)
    }

    /// As [`from_environment`](Self::from_environment), where somebody has taken the variable out of the environment
    /// already, so that programs that this process starts do not find it there.
    ///
    /// # Errors
    /// When this is not what a supervisor sets, or it does not speak this version.
    pub fn of(variable: &str) -> io::Result<Self> {
        let mut descriptors = inherited(variable)?;
        let channel =
            descriptors.take(CHANNEL).ok_or_else(|| wrong("there is no channel to a supervisor"))?;
        Self::with_channel(channel.into(), descriptors)
    }

    /// Begins the conversation.
    pub(crate) fn with_channel(stream: UnixStream, descriptors: Descriptors) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let reporter =
            Reporter(Arc::new(Sending { stream: Mutex::new(stream.try_clone()?), ready: false.into() }));
        reporter.say(&Report::Hello { version: VERSION });
        let mut reader = BufReader::new(stream);
        let start = match read(&mut reader)? {
            Some(Order::Start(start)) => start,
            Some(other) => return Err(wrong(&format!("the supervisor began with {other:?}"))),
            None => return Err(wrong("the supervisor is gone, or refused this version")),
        };
        reader.get_ref().set_read_timeout(None)?;
        Ok(Self { start, descriptors, reporter, reader: Some(reader), answers: HashMap::new() })
    }

    /// What the supervisor gave at the start.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Whether this process is to load everything and to [fork](crate::preloader::fork_workers) the others of its pool.
    pub fn is_preloader(&self) -> bool {
        self.start.preloader
    }

    /// What a preloader listens to, and what those that it forks inherit.
    pub(crate) fn into_parts(mut self) -> io::Result<(BufReader<UnixStream>, Descriptors, Reporter)> {
        let reader = self.reader.take().ok_or_else(|| wrong("the orders are read already"))?;
        Ok((reader, self.descriptors, self.reporter))
    }

    /// Takes an inherited descriptor.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        self.descriptors.take(name)
    }

    /// The names of the inherited descriptors that nobody has taken.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.descriptors.names()
    }

    /// Answers the questions of this name on the thread that reads the orders. They are not among the orders then.
    pub fn answers(&mut self, name: impl Into<String>, answer: impl Fn() -> Value + Send + 'static) {
        self.answers.insert(name.into(), Box::new(answer));
    }

    /// Says things to the supervisor.
    pub fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// Starts to read the orders. Works once.
    ///
    /// # Errors
    /// When there is no thread to be had, or the orders are read already.
    pub fn orders(&mut self) -> io::Result<Orders> {
        let reader = self.reader.take().ok_or_else(|| wrong("the orders are read already"))?;
        let answers = std::mem::take(&mut self.answers);
        let reporter = self.reporter();
        let grace = Duration::try_from_secs_f64(self.start.stop_seconds).unwrap_or(PATIENCE);
        let (sender, receiver) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("hawksbill-orders".into())
            .spawn(move || listen(reader, &answers, &reporter, &sender, grace))?;
        Ok(Orders(receiver))
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("start", &self.start)
            .field("descriptors", &self.descriptors)
            .finish_non_exhaustive()
    }
}

/// The descriptors that were inherited.
fn inherited(text: &str) -> io::Result<Descriptors> {
    let numbers: BTreeMap<String, i32> = serde_json::from_str(text)
        .map_err(|error| wrong(&format!("{VARIABLE} is not what a supervisor sets: {error}")))?;
    Descriptors::adopt(numbers)
}

fn wrong(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}

/// Reads one order; none at the end of the stream.
pub(crate) fn read(reader: &mut BufReader<UnixStream>) -> io::Result<Option<Order>> {
    let mut line = Vec::new();
    let limit = u64::try_from(MAX_ORDER).unwrap_or(u64::MAX);
    Read::by_ref(reader).take(limit).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(|error| wrong(&format!("not an order: {error}")))
}

/// The life of the thread that reads the orders.
fn listen(
    mut reader: BufReader<UnixStream>,
    answers: &Answers,
    reporter: &Reporter,
    sender: &mpsc::UnboundedSender<Order>,
    grace: Duration,
) {
    loop {
        match read(&mut reader) {
            Ok(Some(Order::Query { id, name })) if answers.contains_key(&name) => {
                let value = answers.get(&name).map_or(Value::Null, |answer| answer());
                reporter.answer(id, value);
            }
            Ok(Some(order)) => {
                // Who does not listen any more is on its way out.
                let _ = sender.send(order);
            }
            Ok(None) | Err(_) => break,
        }
    }
    if reporter.0.ready.load(Ordering::Acquire) {
        let _ = sender.send(Order::Gone);
        std::thread::sleep(grace);
    }
    if getpgrp() == getpid() {
        let _ = kill_current_process_group(Signal::KILL);
    }
    let _ = kill_process(getpid(), Signal::KILL);
}

/// The orders of the supervisor, in their order.
#[derive(Debug)]
pub struct Orders(mpsc::UnboundedReceiver<Order>);

impl Orders {
    /// Waits for the next one, under any runtime. [`Order::Gone`] is the last, and is repeated.
    pub async fn next(&mut self) -> Order {
        self.0.recv().await.unwrap_or(Order::Gone)
    }

    /// Waits for the next one and blocks the thread meanwhile. Not to be called by a thread that drives a runtime.
    pub fn blocking_next(&mut self) -> Order {
        self.0.blocking_recv().unwrap_or(Order::Gone)
    }

    /// The next one if it is there.
    pub fn try_next(&mut self) -> Option<Order> {
        self.0.try_recv().ok()
    }
}

/// Says things to the supervisor, from any thread. When the supervisor is gone nothing is said, without an error: that
/// comes as an order.
#[derive(Clone, Debug)]
pub struct Reporter(Arc<Sending>);

#[derive(Debug)]
struct Sending {
    stream: Mutex<UnixStream>,
    ready: AtomicBool,
}

impl Reporter {
    /// Everything is loaded. `info` is told to the pools that follow: where this process is to be reached.
    pub fn ready(&self, info: Value) {
        self.0.ready.store(true, Ordering::Release);
        self.say(&Report::Ready { info });
    }

    /// What the start waits for. The last that was said names the cause if the start takes longer than it may.
    pub fn starting(&self, what: impl Into<String>) {
        self.say(&Report::Starting { what: bounded(what.into()) });
    }

    /// The start failed. The caller ends the process.
    pub fn failed(&self, message: impl Into<String>) {
        self.say(&Report::Failed { message: bounded(message.into()) });
    }

    /// How things stand: to be said about once a second.
    pub fn beat(&self, beat: Beat) {
        self.say(&Report::Beat(beat));
    }

    /// Asks to be replaced. [`Order::Drain`] follows when there is a replacement, and an end by force if need be.
    pub fn stuck(&self, what: impl Into<String>, detail: impl Into<String>) {
        self.say(&Report::Stuck { what: what.into(), detail: detail.into() });
    }

    /// Wants something of the program that runs the supervisor. Where much is wanted at once some of it is not heard.
    pub fn wish(&self, value: Value) {
        self.say(&Report::Wish { value });
    }

    /// Answers [`Order::Query`] or [`Order::Members`].
    pub fn answer(&self, id: u64, value: Value) {
        self.say(&Report::Answer { id, value });
    }

    pub(crate) fn say(&self, report: &Report) {
        let line = wire::line(report);
        let line = if line.len() <= wire::MAX_REPORT { line } else { too_long(report) };
        let mut stream = self.0.stream.lock().unwrap_or_else(PoisonError::into_inner);
        // SIGPIPE is ignored in every Rust program and in Python.
        let _ = stream.write_all(&line);
    }
}

/// The longest message of a start, in bytes: as JSON it is at most six times as long.
const MAX_MESSAGE: usize = wire::MAX_REPORT / 8;

fn bounded(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let cut = (0..=MAX_MESSAGE).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
        message.truncate(cut);
    }
    message
}

fn too_long(report: &Report) -> Vec<u8> {
    match report {
        Report::Answer { id, .. } => wire::line(&Report::Answer {
            id: *id,
            value: "the answer is longer than a message may be".into(),
        }),
        Report::Beat(beat) => wire::line(&Report::Beat(Beat { more: Value::Null, ..beat.clone() })),
        _ => Vec::new(),
    }
}
