//! What the gateway's code says, made records.

use std::fmt;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::record::Record;
use super::sink::Sink;

/// What Python wrote or logged: the fields `level`, `logger` and `stream` say how; it is logged whatever the gateway's level.
const OUTPUT: &str = "hawksbill::output";

pub(super) struct Events {
    sink: Arc<Sink>,
    process: Option<String>,
}

impl Events {
    pub(super) fn new(sink: Arc<Sink>, process: Option<String>) -> Self {
        Self { sink, process }
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut said = Said { record: Record::here(self.process.as_deref()), message: String::new() };
        if metadata.target() != OUTPUT {
            said.record.level = Some(metadata.level().as_str().to_ascii_lowercase());
            said.record.logger = Some(metadata.target().to_owned());
        }
        event.record(&mut said);
        self.sink.write(said.record.saying(said.message));
    }
}

struct Said {
    record: Record,
    message: String,
}

impl Said {
    fn set(&mut self, field: &Field, value: String) {
        let place = match field.name() {
            "message" => {
                self.message = value;
                return;
            }
            "app" => &mut self.record.app,
            "level" => &mut self.record.level,
            "logger" => &mut self.record.logger,
            "stream" => &mut self.record.stream,
            "request_id" => &mut self.record.request_id,
            name => {
                // What no field is meant for belongs to the message.
                self.message = format!("{} {name}={value}", self.message);
                return;
            }
        };
        *place = Some(value).filter(|value| !value.is_empty());
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}"));
    }
}
