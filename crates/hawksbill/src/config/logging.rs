//! The keys `log_level` and `log_format`.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much the gateway says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What has failed.
    Error,
    /// And what will want attention.
    Warn,
    /// And what a gateway does: it starts, reloads, ends.
    #[default]
    Info,
    /// And why it does so.
    Debug,
    /// And each step.
    Trace,
}

impl LogLevel {
    const ALL: [(Self, &str); 5] = [
        (Self::Error, "error"),
        (Self::Warn, "warn"),
        (Self::Info, "info"),
        (Self::Debug, "debug"),
        (Self::Trace, "trace"),
    ];
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Self::ALL.iter().find(|(level, _)| level == self);
        f.write_str(known.map_or("", |(_, name)| name))
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(_, name)| *name == text);
        known.map(|(level, _)| *level).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(_, name)| *name).collect();
            format!("'{text}' is no level; take one of {}", names.join(", "))
        })
    }
}

/// How a record of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `text` on a terminal, `json` elsewhere.
    #[default]
    Auto,
    /// A line for a person; further lines of a message are indented, and what could forge a line is written as `\xHH`.
    Text,
    /// A JSON object: `time` (RFC 3339, UTC), `level`, `process` (an application, a service, `front`, `gateway`), `pid`,
    /// `logger`, `stream` (where a process wrote by itself), `app`, `request_id`, `message`; what is not known is left out.
    Json,
}
