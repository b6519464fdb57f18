//! Where records go.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::file::Named;
use super::recent::{Asked, Following, Recent};
use super::record::{Record, Writer};
use crate::config::LogFormat;

pub(super) enum Sink {
    /// The log itself.
    Log { form: Form, file: Option<Mutex<Named>>, recent: Recent },
    /// The supervisor, who reads standard error.
    Supervisor,
}

pub(super) enum Form {
    Json,
    Text(Writer),
}

impl Sink {
    pub(super) fn new(format: LogFormat, file: Option<&Path>) -> Result<Self, String> {
        let on_terminal = file.is_none() && io::stderr().is_terminal();
        let form = match format {
            LogFormat::Text => Form::Text(Writer { colours: on_terminal }),
            LogFormat::Auto if on_terminal => Form::Text(Writer { colours: true }),
            LogFormat::Auto | LogFormat::Json => Form::Json,
        };
        let file = file.map(Named::open).transpose()?.map(Mutex::new);
        Ok(Self::Log { form, file, recent: Recent::new() })
    }

    /// A worker's. Where nobody reads it but a person (a debugger needs the terminal), it is a log like another.
    pub(super) fn to_supervisor() -> Self {
        if io::stderr().is_terminal() {
            let form = Form::Text(Writer { colours: true });
            return Self::Log { form, file: None, recent: Recent::new() };
        }
        Self::Supervisor
    }

    /// Nobody can be told that writing the log fails.
    pub(super) fn write(&self, record: Record) {
        match self {
            Self::Supervisor => {
                let _ = io::stderr().write_all(record.to_hand_over().as_bytes());
            }
            Self::Log { form, file, recent } => {
                let line = match form {
                    Form::Json => record.to_json(),
                    Form::Text(writer) => writer.text(&record),
                };
                let _ = match file {
                    Some(file) => file.lock().unwrap_or_else(PoisonError::into_inner).write(line.as_bytes()),
                    None => io::stderr().write_all(line.as_bytes()),
                };
                recent.keep(record);
            }
        }
    }

    pub(super) fn follow(&self, asked: Asked) -> Option<Following> {
        match self {
            Self::Log { recent, .. } => Some(recent.follow(asked)),
            Self::Supervisor => None,
        }
    }
}
