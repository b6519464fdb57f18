//! The log of the command line's processes: human-readable lines on standard error.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry, reload};

static CHANGE: OnceLock<Box<dyn Fn(LevelFilter) + Send + Sync>> = OnceLock::new();

/// Begins to log. A second gateway in one process keeps the first one's log.
pub(crate) fn to_stderr(level: &str) {
    let (filter, handle) = reload::Layer::new(parse(level));
    let lines = fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
    if registry().with(filter).with(lines).try_init().is_ok() {
        let _ = CHANGE.set(Box::new(move |level| drop(handle.reload(level))));
    }
}

/// Logs more or less from now on.
pub(crate) fn set_level(level: &str) {
    if let Some(change) = CHANGE.get() {
        change(parse(level));
    }
}

fn parse(level: &str) -> LevelFilter {
    level.parse::<Level>().unwrap_or(Level::INFO).into()
}
