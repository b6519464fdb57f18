//! The kinds of applications that a configuration may name: `wsgi`, `asgi` and `callable`.

use std::path::PathBuf;

use hawksbill_core::config::{Bounded, Duration};
use hawksbill_core::{App, AppKind, BuildError, Builder, Turtle};
use pyo3::{Py, PyAny};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::asgi::{Lifespan, WebSockets};
use crate::detect::Interface;
use crate::host::{self, DEFAULT_QUEUE, DEFAULT_THREADS, DEFAULT_TIMEOUT, Options, Source};
use crate::target::Target;

pub(crate) type Threads = Bounded<1, 1024>;
pub(crate) type Queue = Bounded<1, 1_000_000>;

pub(crate) fn default_threads() -> Threads {
    Threads::clamped(DEFAULT_THREADS as u64)
}

pub(crate) fn default_queue() -> Queue {
    Queue::clamped(DEFAULT_QUEUE as u64)
}

pub(crate) fn default_timeout() -> Duration {
    DEFAULT_TIMEOUT
}

/// For serde, which hands a reference.
pub(crate) fn is_none(duration: &Duration) -> bool {
    duration.is_zero()
}

/// A WSGI application (PEP 3333), hosted in its workers.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wsgi {
    /// The application as `module:attribute`, such as `shop.wsgi:application`. A module alone means its `application`,
    /// then its `app`, then what its `create_app()` or `make_app()` returns.
    pub wsgi: String,
    /// The directory that the module is imported from. Default: where the configuration file is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// At most this many requests run at once, each on a thread of its own.
    #[serde(default = "default_threads")]
    pub threads: Threads,
    /// At most this many further requests wait for a thread; more are answered 503.
    #[serde(default = "default_queue")]
    pub queue: Queue,
    /// A request whose answer has not begun within this time (its first block) is answered 504, and the log shows where its
    /// call stands. The call itself goes on, since a thread cannot be stopped. A request that waits for a thread for so
    /// long is answered 503. The time that the application waits for the request's body does not count. `0`: never.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// A request whose answer has not begun within this time is slow: the log shows where it stands, then and after twice, four
    /// and eight times as long, and where it was most often once it is over. `0`: never.
    #[serde(default, skip_serializing_if = "is_none")]
    pub slow: Duration,
}

/// An ASGI 3 application, hosted in its workers.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Asgi {
    /// The application as `module:attribute`, such as `shop.asgi:application`. A module alone means its `application`,
    /// then its `app`, then what its `create_app()` or `make_app()` returns.
    pub asgi: String,
    /// The directory that the module is imported from. Default: where the configuration file is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// A request whose answer has not begun within this time (`http.response.start`) is answered 504, and the log shows
    /// where its task stands, which is then cancelled. The time that the application waits for the request's body does not
    /// count; answers that have begun are not bounded, nor is any WebSocket. A loop that does not turn for so long cannot answer
    /// anybody; the log shows what holds it up. `0`: never.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// A request whose answer has not begun within this time is slow: the log shows where it stands, then and after twice, four
    /// and eight times as long, and where it was most often once it is over. `0`: never.
    #[serde(default, skip_serializing_if = "is_none")]
    pub slow: Duration,
    /// Whether the application is told when it starts and ends: `auto` (if it takes part), `on` (it has to) or `off`.
    #[serde(default)]
    pub lifespan: Lifespan,
    /// Its WebSocket connections. `max_message` is the longest that a client may send, all
    /// fragments together and uncompressed. A client that has sent nothing for `ping` is asked for a sign of life, and
    /// given up if it stays silent for `ping_timeout` (`0`: never). `compress`: permessage-deflate, where the client
    /// offers it.
    #[serde(default)]
    pub websocket: WebSockets,
}

/// A Python application, hosted in its workers; whether it is WSGI or ASGI is found by looking at it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Callable {
    /// The application as `module:attribute`, such as `shop:app`. A module alone means its `application`, then its
    /// `app`, then what its `create_app()` or `make_app()` returns.
    pub callable: String,
    /// The directory that the module is imported from. Default: where the configuration file is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// WSGI: at most this many requests run at once, each on a thread of its own.
    #[serde(default = "default_threads")]
    pub threads: Threads,
    /// WSGI: at most this many further requests wait for a thread; more are answered 503.
    #[serde(default = "default_queue")]
    pub queue: Queue,
    /// A request whose answer has not begun within this time is answered 504, and the log shows where it stands. As for
    /// `wsgi` and `asgi`, whichever it is. `0`: never.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// A request whose answer has not begun within this time is slow: the log shows where it stands, then and after twice, four
    /// and eight times as long, and where it was most often once it is over. `0`: never.
    #[serde(default, skip_serializing_if = "is_none")]
    pub slow: Duration,
    /// ASGI: whether the application is told when it starts and ends: `auto` (if it takes part), `on` (it has to) or
    /// `off`.
    #[serde(default)]
    pub lifespan: Lifespan,
    /// ASGI: its WebSocket connections. `max_message` is the longest that a client may send, all
    /// fragments together and uncompressed. A client that has sent nothing for `ping` is asked for a sign of life, and
    /// given up if it stays silent for `ping_timeout` (`0`: never). `compress`: permessage-deflate, where the client
    /// offers it.
    #[serde(default)]
    pub websocket: WebSockets,
}

impl AppKind for Wsgi {
    const NAME: &'static str = "wsgi";
    const HAS_PROCESSES: bool = true;

    fn build(self, cx: &mut Builder) -> Result<Turtle, BuildError> {
        let options = Options {
            interface: Some(Interface::Wsgi),
            threads: self.threads.as_usize(),
            queue: self.queue.as_usize(),
            timeout: self.timeout,
            slow: self.slow,
            ..Options::default()
        };
        build(cx, &self.wsgi, self.dir, options)
    }
}

impl AppKind for Asgi {
    const NAME: &'static str = "asgi";
    const HAS_PROCESSES: bool = true;

    fn build(self, cx: &mut Builder) -> Result<Turtle, BuildError> {
        let options = Options {
            interface: Some(Interface::Asgi),
            timeout: self.timeout,
            slow: self.slow,
            lifespan: self.lifespan,
            websocket: self.websocket,
            ..Options::default()
        };
        build(cx, &self.asgi, self.dir, options)
    }
}

impl AppKind for Callable {
    const NAME: &'static str = "callable";
    const HAS_PROCESSES: bool = true;

    fn build(self, cx: &mut Builder) -> Result<Turtle, BuildError> {
        let options = Options {
            interface: None,
            threads: self.threads.as_usize(),
            queue: self.queue.as_usize(),
            timeout: self.timeout,
            slow: self.slow,
            lifespan: self.lifespan,
            websocket: self.websocket,
        };
        build(cx, &self.callable, self.dir, options)
    }
}

fn build(
    cx: &mut Builder,
    target: &str,
    dir: Option<PathBuf>,
    options: Options,
) -> Result<Turtle, BuildError> {
    let parsed = Target::parse(target).map_err(BuildError::new)?;
    let dir = directory(cx, dir)?;
    let name = cx.app_name().map_or_else(|| target.to_owned(), ToString::to_string);
    host::host(cx, &name, Source::Named(parsed, dir), options)
}

/// The directory that an application is imported from, made absolute.
pub(crate) fn directory(cx: &Builder, dir: Option<PathBuf>) -> Result<PathBuf, BuildError> {
    let dir = cx.path(dir.unwrap_or_default());
    let absolute = std::path::absolute(&dir).unwrap_or(dir);
    if absolute.is_dir() {
        return Ok(absolute);
    }
    let message = format!("'{}' is no directory; applications are imported from 'dir'", absolute.display());
    Err(BuildError::new(message))
}

/// A Python object that exists already, as an application. `name` is how messages call it.
///
/// Nothing is asked of the object before the generation starts.
pub fn live_app(name: impl Into<String>, callable: Py<PyAny>, options: Options) -> Box<dyn App> {
    Box::new(Live { name: name.into(), callable, options })
}

struct Live {
    name: String,
    callable: Py<PyAny>,
    options: Options,
}

impl App for Live {
    fn name(&self) -> &'static str {
        Callable::NAME
    }

    fn shared_state(&self) -> bool {
        Callable::SHARED_STATE
    }

    fn mounted(&self) -> bool {
        Callable::MOUNTED
    }

    /// An object that exists lives where it is.
    fn has_processes(&self) -> bool {
        false
    }

    fn settings(&self) -> serde_json::Value {
        let mut settings = serde_json::json!({
            "callable": format!("<{}>", self.name),
            "threads": self.options.threads,
            "queue": self.options.queue,
            "timeout": self.options.timeout,
            "lifespan": self.options.lifespan,
            "websocket": self.options.websocket,
        });
        if !is_none(&self.options.slow) {
            settings["slow"] = serde_json::json!(self.options.slow);
        }
        settings
    }

    fn build(self: Box<Self>, cx: &mut Builder) -> Result<Turtle, BuildError> {
        host::host(cx, &self.name, Source::Live(self.callable), self.options)
    }
}

#[cfg(test)]
mod tests {
    use hawksbill_core::Registry;
    use hawksbill_core::config::{Path, parse_toml};

    use super::*;

    fn parse<K: AppKind>(text: &str) -> Result<serde_json::Value, String> {
        let tree = parse_toml("hawksbill.toml", text).unwrap();
        let kind: Result<K, _> = tree.decode(&Path::root());
        kind.map(|kind| App::settings(&kind)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_shown() {
        assert_eq!(
            parse::<Wsgi>("wsgi = 'shop:app'").unwrap(),
            serde_json::json!({ "wsgi": "shop:app", "threads": 8, "queue": 1024, "timeout": "30s" })
        );
        assert_eq!(
            parse::<Asgi>("asgi = 'shop:app'\ndir = 'src'\nlifespan = 'off'").unwrap(),
            serde_json::json!({
                "asgi": "shop:app",
                "dir": "src",
                "timeout": "30s",
                "lifespan": "off",
                "websocket": { "max_message": "16MB", "ping": "20s", "ping_timeout": "20s", "compress": true },
            })
        );
    }

    #[test]
    fn what_a_kind_does_not_take_is_refused() {
        assert!(
            parse::<Asgi>("asgi = 'shop:app'\nthreads = 4").unwrap_err().contains("unknown key 'threads'")
        );
        assert!(parse::<Wsgi>("wsgi = 'shop:app'\nthreads = 0").unwrap_err().contains("from 1 to 1024"));
        assert!(parse::<Callable>("callable = 'shop:app'\nlifespan = 'yes'").is_err());
        let pong = parse::<Asgi>("asgi = 'shop:app'\nwebsocket = { pong = '1s' }").unwrap_err();
        assert!(pong.contains("unknown key 'pong'"), "{pong}");
    }

    #[test]
    fn a_target_that_cannot_be_is_refused_at_once() {
        let kind = Wsgi {
            wsgi: "shop/wsgi.py".into(),
            dir: None,
            threads: default_threads(),
            queue: default_queue(),
            timeout: default_timeout(),
            slow: Duration::default(),
        };
        let error = AppKind::build(kind, &mut Builder::new("/")).unwrap_err();
        assert!(error.to_string().contains("'shop.wsgi:app'"), "{error}");
    }

    #[test]
    fn all_kinds_fit_into_one_registry() {
        let registry = crate::register(Registry::new()).unwrap();
        let names: Vec<_> = registry.apps().map(hawksbill_core::AppEntry::name).collect();
        assert_eq!(names, ["wsgi", "asgi", "django", "callable"]);
    }
}
