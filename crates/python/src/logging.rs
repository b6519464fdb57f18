//! What the gateway says of itself within a Python program goes to Python's `logging`, as any library's does: events of the
//! target `hawksbill::app` to the logger `hawksbill.app`, with the attributes `app` and `request_id`.
//!
//! Events come from threads that must not wait for the interpreter. So they are queued for one thread that may, and where
//! the program does not keep up, they are counted and left out.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use hawksbill::config::LogLevel;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, registry, reload};

/// The most records that wait; further ones are left out.
const MOST: usize = 1024;
/// How long the end of a gateway waits for what it has said.
const PATIENCE: Duration = Duration::from_secs(5);

static QUEUE: Queue = Queue {
    waiting: Mutex::new(Waiting { records: VecDeque::new(), lost: 0, is_busy: false }),
    changed: Condvar::new(),
};
static LEVEL: Mutex<Option<reload::Handle<LevelFilter, Registry>>> = Mutex::new(None);
static AT_EXIT: Once = Once::new();

/// Begins to hand events of this level and graver ones to `logging`; of several gateways the most talkative counts. Where this
/// process has a log already, that has them.
pub(crate) fn begin(py: Python<'_>, level: LogLevel) -> PyResult<()> {
    let wanted = LevelFilter::from_level(level.into());
    let mut known = LEVEL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*known {
        let _ = handle.modify(|level| *level = wanted.max(*level));
        return Ok(());
    }
    let (filter, handle) = reload::Layer::new(wanted);
    if registry().with(filter).with(Events).try_init().is_err() {
        return Ok(());
    }
    std::thread::Builder::new().name("hawksbill-log".into()).spawn(hand_over)?;
    *known = Some(handle);
    drop(known);
    let mut registered = Ok(());
    AT_EXIT.call_once(|| {
        registered = pyo3::wrap_pyfunction!(flush, py)
            .and_then(|flush| py.import("atexit")?.call_method1("register", (flush,)))
            .map(drop);
    });
    registered
}

/// Waits until `logging` has what was said so far, though not for ever.
#[pyfunction]
pub(crate) fn flush(py: Python<'_>) {
    py.detach(|| QUEUE.wait_until_empty(PATIENCE));
}

struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

struct Waiting {
    records: VecDeque<Record>,
    lost: usize,
    is_busy: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, record: Record) {
        let mut waiting = self.lock();
        if waiting.records.len() < MOST {
            waiting.records.push_back(record);
            self.changed.notify_all();
        } else {
            waiting.lost += 1;
        }
    }

    /// All that waits, when there is something.
    fn take(&self) -> VecDeque<Record> {
        let mut waiting = self.lock();
        waiting.is_busy = false;
        self.changed.notify_all();
        while waiting.records.is_empty() {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.is_busy = true;
        let mut taken = std::mem::take(&mut waiting.records);
        let lost = std::mem::take(&mut waiting.lost);
        if lost > 0 {
            taken.push_back(Record::of_loss(lost));
        }
        taken
    }

    fn wait_until_empty(&self, patience: Duration) {
        let end = Instant::now() + patience;
        let mut waiting = self.lock();
        while waiting.is_busy || !waiting.records.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The thread that gives `logging` what is queued, until the interpreter ends.
fn hand_over() {
    loop {
        let records = QUEUE.take();
        let told = Python::try_attach(|py| {
            for record in records {
                // A handler that raises is told of by `logging` itself; what is left is a broken `logging`.
                if let Err(error) = record.log(py) {
                    error.write_unraisable(py, None);
                }
            }
        });
        if told.is_none() {
            QUEUE.lock().is_busy = false;
            return;
        }
    }
}

struct Events;

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut record = Record {
            level: *metadata.level(),
            logger: metadata.target().replace("::", "."),
            message: String::new(),
            app: String::new(),
            request_id: String::new(),
        };
        event.record(&mut record);
        QUEUE.put(record);
    }
}

/// An event, as `logging` takes it.
struct Record {
    level: Level,
    logger: String,
    message: String,
    app: String,
    request_id: String,
}

impl Record {
    fn of_loss(lost: usize) -> Self {
        Self {
            level: Level::WARN,
            logger: "hawksbill.log".to_owned(),
            message: format!(
                "Python's logging is slower than what the gateway says; {lost} records are missing"
            ),
            app: String::new(),
            request_id: String::new(),
        }
    }

    fn log(&self, py: Python<'_>) -> PyResult<()> {
        let logger = py.import("logging")?.call_method1("getLogger", (&self.logger,))?;
        let extra = PyDict::new(py);
        extra.set_item("app", &self.app)?;
        extra.set_item("request_id", &self.request_id)?;
        let named = PyDict::new(py);
        named.set_item("extra", extra)?;
        // The numbers of `logging`; it has none for `trace`.
        let level = match self.level {
            Level::ERROR => 40,
            Level::WARN => 30,
            Level::INFO => 20,
            Level::DEBUG => 10,
            Level::TRACE => 5,
        };
        logger.call_method("log", (level, "%s", &self.message), Some(&named)).map(drop)
    }

    fn set(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            "app" => self.app = value,
            "request_id" => self.request_id = value,
            name => self.message = format!("{} {name}={value}", self.message),
        }
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}"));
    }
}
