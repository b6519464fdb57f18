//! The one log of the command line's processes: what the gateway says of itself, and what applications and services write.
//!
//! Only the supervisor writes it. Workers hand it their [records](Record) through their standard error, which the
//! supervisor reads, one to a line behind a mark; a line without it is something that the process wrote by itself, and
//! becomes a record here.

mod file;
mod layer;
mod recent;
mod record;
mod sink;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use hawksbill_supervisor::Line;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{registry, reload};

use self::layer::Events;
pub(crate) use self::recent::{Asked, Following};
pub(crate) use self::record::{Record, Writer};
use self::sink::Sink;
use crate::config::{LogLevel, Settings};

static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    sink: Arc<Sink>,
    change: Box<dyn Fn(LevelFilter) + Send + Sync>,
}

/// Begins to log. A second gateway in one process keeps the first one's log.
///
/// # Errors
/// When the file cannot be opened.
pub(crate) fn begin(settings: &Settings, dir: &Path) -> Result<(), String> {
    let file = settings.error_log.as_ref().map(|path| dir.join(path));
    install(Sink::new(settings.log_format, file.as_deref())?, settings.log_level, None);
    Ok(())
}

/// Begins to log in a process that others look after: `process` is what they call it.
pub(crate) fn begin_in_worker(level: LogLevel, process: &str) {
    install(Sink::to_supervisor(), level, Some(process.to_owned()));
}

fn install(sink: Sink, level: LogLevel, process: Option<String>) {
    let sink = Arc::new(sink);
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level.into()));
    let events = Events::new(sink.clone(), process);
    if registry().with(filter).with(events).try_init().is_ok() {
        let change = Box::new(move |level| drop(handle.reload(level)));
        let _ = LOG.set(Log { sink, change });
    }
}

/// Logs more or less from now on.
pub(crate) fn set_level(level: LogLevel) {
    if let Some(log) = LOG.get() {
        (log.change)(LevelFilter::from_level(level.into()));
    }
}

/// Takes a line that a process wrote. True: by itself.
pub(crate) fn line(line: &Line<'_>) -> bool {
    // What another program writes is never taken for the gateway's own.
    let handed_over = line.speaks.then(|| Record::handed_over(line.text)).flatten();
    let by_itself = handed_over.is_none();
    if let Some(log) = LOG.get() {
        log.sink.write(handed_over.unwrap_or_else(|| Record::of_line(line)));
    }
    by_itself
}

/// What was logged lately, and what is from now on.
pub(crate) fn follow(asked: Asked) -> Option<Following> {
    LOG.get()?.sink.follow(asked)
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}
