//! A line in a file for each request.
//!
//! ```
//! use hawksbill_core::{Body, Builder, LayerKind, Turtle};
//! use hawksbill_layers::AccessLog;
//! use http::{Request, Response};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let dir = tempfile::tempdir().unwrap();
//! let hello = Turtle::from_fn(async |_| Ok(Response::new(Body::from("hello"))));
//! let mut builder = Builder::new(dir.path());
//! let logged = AccessLog::to("access.log").wrap(hello, &mut builder).unwrap();
//! let mut generation = builder.finish();
//! generation.start().await.unwrap();
//!
//! let request = Request::get("/you?x=1").header("user-agent", "curl").body(Body::empty()).unwrap();
//! drop(logged.ask(request).await.unwrap());
//!
//! generation.stop().await;
//! let line = std::fs::read_to_string(dir.path().join("access.log")).unwrap();
//! assert!(line.ends_with("\"GET /you?x=1 HTTP/1.1\" 200 0 \"-\" \"curl\"\n"), "{line}");
//! # }
//! ```
//!
//! A request is logged when its response has ended: when the last of the body was handed to the server, the body
//! failed, or the client left. `bytes` are those of the body that were handed over. A client that leaves before it is
//! answered is logged with status 499; one that leaves later with the status that it got, fewer bytes, and, in JSON,
//! `"aborted": true`. A turtle that fails is logged with the status that its error stands for. An upgraded connection
//! (a WebSocket) is logged with 101 when the upgrade is answered, not when it ends.

mod format;
mod record;
mod writer;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hawksbill_core::config::{Data, Path, Value, relay};
use hawksbill_core::{Body, BuildError, Builder, Error, LayerKind, Routine, Turtle, TurtleFuture};
use http::{Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tower::{Layer, Service};

use self::record::{Record, Sink};
use self::writer::{Target, Writer};

/// Writes a line for each request. `log = true` (to standard output), `log = "/var/log/example.log"`, `log = { path = "-",
/// format = "json" }`; `log = false` switches it off where it is on for a larger part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Written so.
    On(LogSettings),
    /// Not written: `false`.
    Off,
}

/// Where and how lines are written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// A file, to which lines are appended, or `-` for standard output. The file is created, its directory is not. Once
    /// it is moved away, as by logrotate, a new one is created; no signal is needed.
    #[serde(default = "standard_output")]
    pub path: PathBuf,
    /// How a line looks.
    #[serde(default)]
    pub format: LogFormat,
    /// Whether what the kind `health` answers is logged too: a prober asks every few seconds, for ever.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub health: bool,
}

/// How a line looks. Times are those of the request's arrival, in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// The combined format of Apache and nginx: client, time, request line, status, bytes, referrer, user agent. What
    /// could forge a line is written as `\xHH`. The user is always `-`.
    #[default]
    Combined,
    /// The same without referrer and user agent.
    Common,
    /// A JSON object: `time` (RFC 3339), `client`, `port`, `method`, `host`, `uri`, `protocol`, `status`, `bytes`, `duration`
    /// (seconds), `site`, `referer`, `user_agent`, `request_id`, `error`, `aborted`; what is not known is left out.
    Json,
}

fn standard_output() -> PathBuf {
    PathBuf::from("-")
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { path: standard_output(), format: LogFormat::default(), health: false }
    }
}

impl AccessLog {
    /// A log in the combined format, to a file or (`-`) to standard output.
    pub fn to(path: impl Into<PathBuf>) -> Self {
        Self::On(LogSettings { path: path.into(), ..LogSettings::default() })
    }

    /// The same log in another format.
    pub fn format(self, format: LogFormat) -> Self {
        match self {
            Self::On(settings) => Self::On(LogSettings { format, ..settings }),
            Self::Off => Self::Off,
        }
    }

    fn switch(on: bool) -> Self {
        if on { Self::On(LogSettings::default()) } else { Self::Off }
    }
}

impl Serialize for AccessLog {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::On(settings) => settings.serialize(serializer),
            Self::Off => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for AccessLog {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value.is_untyped()
            && let Ok(on) = value.decode(&Path::root())
        {
            return Ok(Self::switch(on));
        }
        match &value.data {
            Data::Boolean(on) => Ok(Self::switch(*on)),
            Data::String(path) if !path.is_empty() => Ok(Self::to(path)),
            Data::Table(_) => value.decode(&Path::root()).map(Self::On).map_err(relay),
            _ => Err(relay(value.mismatch("a path, \"-\" for standard output, true, false, or a table"))),
        }
    }
}

/// Writes a line for each request. `true` or `"-"` (to standard output), a path, or a table with `path`, `format` and `health`;
/// `false` switches it off where it is on for a larger part.
///
/// `format` is `"combined"`, `"common"` or `"json"`. A file is created, its directory is not, and once it is moved away, as
/// by logrotate, a new one is created. Times are those of the request's arrival, in UTC. What the kind `health` answers is left
/// out, unless `health` is true.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
enum Spelling {
    Switch(bool),
    Path(PathBuf),
    Table(LogSettings),
}

impl JsonSchema for AccessLog {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AccessLog".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Spelling::json_schema(generator)
    }
}

impl LayerKind for AccessLog {
    const NAME: &'static str = "log";

    fn wrap(self, inner: Turtle, cx: &mut Builder) -> Result<Turtle, BuildError> {
        let Self::On(settings) = self else { return Ok(inner) };
        let target = Target::new(&settings.path, cx);
        let writer = cx.shared(&target.to_string(), |cx| Writer::start(target, cx))?;
        let sink = Sink {
            writer: Writer::clone(&writer),
            format: settings.format,
            routine: settings.health,
            site: cx.site().cloned(),
        };
        Ok(inner.layer(AccessLogLayer { sink: Arc::new(sink) }))
    }
}

/// Puts a log over a turtle.
#[derive(Clone)]
struct AccessLogLayer {
    sink: Arc<Sink>,
}

impl Layer<Turtle> for AccessLogLayer {
    type Service = AccessLogService;

    fn layer(&self, inner: Turtle) -> AccessLogService {
        AccessLogService { inner, sink: self.sink.clone() }
    }
}

#[derive(Clone)]
struct AccessLogService {
    inner: Turtle,
    sink: Arc<Sink>,
}

impl Service<Request<Body>> for AccessLogService {
    type Response = Response<Body>;
    type Error = Error;
    type Future = LoggedCall;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> LoggedCall {
        let record = Record::new(self.sink.clone(), &request);
        LoggedCall { call: self.inner.ask(request), record: Some(record) }
    }
}

/// A call whose record is written when it fails or is dropped, else when the response ends.
struct LoggedCall {
    call: TurtleFuture,
    record: Option<Record>,
}

impl Future for LoggedCall {
    type Output = Result<Response<Body>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.call).poll(cx));
        let Some(mut record) = self.record.take() else { return Poll::Ready(answer) };
        Poll::Ready(match answer {
            Ok(response) => {
                record.answered(response.status());
                if response.extensions().get::<Routine>().is_some() && record.leaves_out_routine() {
                    record.forget();
                    return Poll::Ready(Ok(response));
                }
                let done =
                    response.status() == StatusCode::SWITCHING_PROTOCOLS || response.body().is_end_stream();
                if done {
                    record.ended();
                    Ok(response)
                } else {
                    Ok(response.map(|inner| Body::new(LoggedBody { inner, record: Some(record) })))
                }
            }
            Err(error) => {
                record.answered(error.status());
                record.failed(&error);
                Err(error)
            }
        })
    }
}

/// A body whose record is written when it ends.
struct LoggedBody {
    inner: Body,
    record: Option<Record>,
}

impl HttpBody for LoggedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let last = self.inner.is_end_stream();
        let Some(mut record) = self.record.take() else { return Poll::Ready(frame) };
        match &frame {
            Some(Ok(frame)) => {
                record.sent(frame.data_ref().map_or(0, Bytes::len));
                if last {
                    record.ended();
                } else {
                    self.record = Some(record);
                }
            }
            Some(Err(error)) => record.failed(error),
            None => record.ended(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for LoggedBody {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else { return };
        // A server asks for no more than the length it announced, and for nothing where a response has no content.
        if self.inner.size_hint().exact() == Some(0) || record.has_no_content() {
            record.ended();
        }
    }
}

#[cfg(test)]
mod tests;
