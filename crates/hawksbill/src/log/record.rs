//! One thing that is logged, as JSON and as text.

use std::fmt::{self, Write};
use std::time::SystemTime;

use hawksbill_core::time::Rfc3339;
use hawksbill_supervisor::Line;
use serde::{Deserialize, Serialize};

/// Stands before a record that a worker hands to its supervisor: the separator of RFC 7464.
const MARK: char = '\u{1e}';

/// The most bytes of a message; a longer one is cut.
const MOST: usize = 64 * 1024;

/// What the supervisor's own records are from.
const GATEWAY: &str = "gateway";

/// What is logged. Fields that say nothing are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// When, by RFC 3339, in UTC.
    pub(crate) time: String,
    /// `error`, `warn`, `info`, `debug` or `trace`; nothing of what a process wrote by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) level: Option<String>,
    /// What the process is to the supervisor: the name of an application or a service, `front`, or `gateway`.
    pub(crate) process: String,
    pub(crate) pid: u32,
    /// Who says it: a part of the gateway, or one of Python's loggers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) logger: Option<String>,
    /// `stdout` or `stderr`, where it was written there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) app: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
    pub(crate) message: String,
}

impl Record {
    /// A record of this process and this moment.
    pub(super) fn here(process: Option<&str>) -> Self {
        Self {
            time: Rfc3339(SystemTime::now()).to_string(),
            process: process.unwrap_or(GATEWAY).to_owned(),
            pid: std::process::id(),
            ..Self::default()
        }
    }

    /// A line that a process wrote by itself.
    pub(super) fn of_line(line: &Line<'_>) -> Self {
        let stream = if line.is_stderr { "stderr" } else { "stdout" };
        let record = Self { pid: line.pid, stream: Some(stream.to_owned()), ..Self::here(Some(line.pool)) };
        record.saying(line.text.to_owned())
    }

    /// What a worker has handed over in a line.
    pub(super) fn handed_over(line: &str) -> Option<Self> {
        serde_json::from_str(line.strip_prefix(MARK)?).ok()
    }

    /// As a worker hands it over.
    pub(super) fn to_hand_over(&self) -> String {
        format!("{MARK}{}", self.to_json())
    }

    pub(super) fn saying(mut self, mut message: String) -> Self {
        if message.len() > MOST {
            let end = (0..=MOST).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
            message.truncate(end);
            message.push_str(" … (cut)");
        }
        self.message = message;
        self
    }

    /// One line, with its end.
    pub(crate) fn to_json(&self) -> String {
        // Strings and numbers always become text.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    /// Whether it concerns this application, service or process.
    pub(crate) fn is_of(&self, name: &str) -> bool {
        self.process == name || self.app.as_deref() == Some(name)
    }
}

/// How records look to people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer {
    pub(crate) colours: bool,
}

impl Writer {
    /// A line, and more of them, indented, where the message has several.
    pub(crate) fn text(self, record: &Record) -> String {
        let mut text = String::with_capacity(record.message.len() + 80);
        // Writing to a string does not fail.
        let _ = self.write(&mut text, record);
        text
    }

    fn write(self, out: &mut String, record: &Record) -> fmt::Result {
        let [dim, plain] = if self.colours { ["\x1b[2m", "\x1b[0m"] } else { ["", ""] };
        write!(out, "{dim}{}{plain} ", record.time)?;
        let level = record.level.as_deref();
        let colour = level.and_then(colour).filter(|_| self.colours);
        let level = level.or(record.stream.as_deref()).unwrap_or_default();
        match colour {
            Some(colour) => write!(out, "{colour}{:<6}{plain} ", level.to_uppercase())?,
            None => write!(out, "{:<6} ", level.to_uppercase())?,
        }
        write!(out, "{dim}{}[{}]", record.process, record.pid)?;
        let app = record.app.as_ref().filter(|app| **app != record.process);
        let names = [(" ", app), (" ", record.logger.as_ref()), (" request=", record.request_id.as_ref())];
        for (before, name) in names {
            if let Some(name) = name {
                out.push_str(before);
                escape(out, name, "");
            }
        }
        write!(out, ":{plain} ")?;
        escape(out, record.message.trim_end(), "\n    ");
        out.push('\n');
        Ok(())
    }
}

fn colour(level: &str) -> Option<&'static str> {
    match level {
        "error" => Some("\x1b[31m"),
        "warn" => Some("\x1b[33m"),
        "info" => Some("\x1b[32m"),
        "debug" => Some("\x1b[34m"),
        "trace" => Some("\x1b[35m"),
        _ => None,
    }
}

/// Writes text so that it can neither begin a line of the log nor move a terminal's cursor.
fn escape(out: &mut String, text: &str, line: &str) {
    for character in text.chars() {
        match character {
            '\n' => out.push_str(line),
            '\t' => out.push('\t'),
            '\r' => {}
            _ if character.is_control() => {
                let _ = write!(out, "\\x{:02X}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            time: "2026-11-25T22:54:39.123Z".into(),
            level: Some("error".into()),
            process: "shop".into(),
            pid: 42,
            app: Some("shop".into()),
            logger: Some("shop.views".into()),
            request_id: Some("abc".into()),
            message: "it failed\nbecause\x1b[2J".into(),
            ..Record::default()
        }
    }

    #[test]
    fn as_text() {
        let plain = Writer { colours: false };
        assert_eq!(
            plain.text(&record()),
            "2026-11-25T22:54:39.123Z ERROR  shop[42] shop.views request=abc: it failed\n    because\\x1B[2J\n"
        );
        let line =
            Line { pool: "celery", process: 1, pid: 7, speaks: false, is_stderr: true, text: "ready\r" };
        let line = Record { time: record().time, ..Record::of_line(&line) };
        assert_eq!(plain.text(&line), "2026-11-25T22:54:39.123Z STDERR celery[7]: ready\n");
        assert!(Writer { colours: true }.text(&record()).contains("\x1b[31mERROR"));
    }

    #[test]
    fn through_the_pipe_and_back() {
        let line = record().to_hand_over();
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line:?}");
        assert_eq!(Record::handed_over(line.trim_end()), Some(record()));
        assert_eq!(Record::handed_over("{}"), None);
    }

    #[test]
    fn long_messages_are_cut() {
        let cut = Record::default().saying("ü".repeat(MOST)).message;
        assert!(cut.len() < MOST + 20 && cut.ends_with("ü … (cut)"));
    }
}
