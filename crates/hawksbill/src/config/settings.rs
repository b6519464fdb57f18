//! The keys that concern the gateway as a whole.

use std::path::PathBuf;

use hawksbill_core::config::{CidrSet, Duration, Listen, OneOrMany, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, LogFormat, LogLevel};

/// The keys that concern the gateway as a whole.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The sockets to listen on: `":80"` (every address), `"127.0.0.1:8000"`, `"[::1]:8000"`, `"unix:/run/hawksbill.sock"`,
    /// `"fd:3"` (inherited). Port 0 lets the system choose. One or several.
    pub listen: OneOrMany<Listen>,
    /// Whether a process of its own has the clients, the routes and everything that is not Python, and the applications'
    /// processes stand behind it. Where several Python applications, or state that all workers share, need such a front,
    /// there is one anyway; else each worker is a whole gateway, which costs a request less. `hawksbill check` says
    /// which it is.
    pub front: bool,
    /// Proxies that are believed when they say, in `Forwarded` or `X-Forwarded-*` headers, who the client is: addresses,
    /// networks, or `"private"`. From everybody else these headers are removed. None by default.
    pub trusted_proxies: CidrSet,
    /// Whether whoever connects through a Unix socket is a trusted proxy too, as nginx in front is.
    pub trust_unix: bool,
    /// How long a client may take to send a request's header block.
    pub header_timeout: Duration,
    /// How long a connection may be idle between two requests.
    pub keep_alive: Duration,
    /// How long a client may stop sending the body that is being read, or taking the answer that is being written; then
    /// its connection is cut.
    pub stall_timeout: Duration,
    /// The largest header block of a request, its first line included, in bytes; a larger one is refused with 431.
    pub max_header: Size,
    /// The largest number of header lines of a request; more are refused with 431.
    pub max_headers: u16,
    /// The longest request target (path and query), in bytes; a longer one is refused with 414.
    pub max_target: Size,
    /// How long requests under way may take to end once the gateway was asked to stop; then they are cut.
    pub drain: Duration,
    /// How long the gateway goes on accepting once it was asked to stop, while `health` answers already that it is not
    /// ready: as long as a load balancer takes to see that and to send its clients elsewhere. Then `drain` begins. `0` unless set.
    #[serde(skip_serializing_if = "is_none")]
    pub drain_delay: Duration,
    /// One or several files that are touched to have everything loaded again, as SIGHUP does: `hawksbill run` looks once a
    /// second, and reloads when a modification time has changed, or a file has appeared, and is the same at the next look.
    /// They need not be there.
    #[serde(skip_serializing_if = "no_files")]
    pub touch_reload: OneOrMany<PathBuf>,
    /// The socket through which `hawksbill status`, `reload`, `deploy` and the others ask a gateway that `hawksbill run`
    /// started (docs/control.md): a path, or `false` for none. By default each gateway has one of its own in
    /// `$XDG_RUNTIME_DIR/hawksbill` or `/run/hawksbill`, where the commands find it by the configuration file or the
    /// directory. Read at the start only.
    #[serde(skip_serializing_if = "Control::is_usual")]
    pub control: Control,
    /// How much the gateway says of itself in its log: `error`, `warn`, `info`, `debug` or `trace`. `hawksbill log-level`
    /// changes it while the gateway runs. What applications write or log is their own affair. Read at the start only.
    pub log_level: LogLevel,
    /// How the log looks: `text`, `json`, or `auto`, which is text on a terminal and JSON elsewhere. Access logs have a
    /// format of their own. Read at the start only.
    pub log_format: LogFormat,
    /// A file for the log, to which records are appended; by default it goes to standard error. Once the file is moved
    /// away, as by logrotate, a new one is created. The log is everything that the gateway says of itself, and what
    /// applications and services write and log; only requests are elsewhere (`log`). Read at the start only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_log: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: OneOrMany::default(),
            front: false,
            trusted_proxies: CidrSet::default(),
            trust_unix: false,
            header_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(60),
            max_header: Size::kilobytes(64),
            max_headers: 100,
            max_target: Size::kilobytes(16),
            drain: Duration::from_secs(30),
            drain_delay: Duration::default(),
            touch_reload: OneOrMany::default(),
            control: Control::Usual,
            log_level: LogLevel::default(),
            log_format: LogFormat::default(),
            error_log: None,
        }
    }
}

fn is_none(duration: &Duration) -> bool {
    duration.is_zero()
}

/// For serde, which hands a reference.
pub(super) fn no_files(files: &OneOrMany<PathBuf>) -> bool {
    files.is_empty()
}
