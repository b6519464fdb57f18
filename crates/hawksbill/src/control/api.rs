//! The interface: paths, what they take, what they answer. `docs/control.md` describes it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use hawksbill_core::body::to_bytes;
use hawksbill_core::{Body, Turtle};
use hawksbill_supervisor::{Event, Handle};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::VERSION;
use super::figures::{Lookout, OFTEN};
use super::logs::logs;
use super::report::Report;
use super::trouble::{Trouble, answer};
use crate::config::LogLevel;
use crate::cron::Board;
use crate::processes::{Change, Deploy, Facts, Request as Asked};

/// The most bytes of a request's body.
const MAX_BODY: usize = 64 * 1024;

/// How long processes may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(10);

/// The media type of the text format of Prometheus.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long a stream of events is silent at most.
pub(super) const SILENCE: Duration = Duration::from_secs(15);

/// The longest times that make sense: a year, an hour.
const MOST_KEPT: f64 = 365.0 * 86_400.0;
const MOST_WATCHED: f64 = 3600.0;

const PATHS: [(&str, Method); 15] = [
    ("/status", Method::GET),
    ("/config", Method::GET),
    ("/stacks", Method::GET),
    ("/events", Method::GET),
    ("/logs", Method::GET),
    ("/metrics", Method::GET),
    ("/prometheus", Method::GET),
    ("/reload", Method::POST),
    ("/deploy", Method::POST),
    ("/rollback", Method::POST),
    ("/scale", Method::POST),
    ("/stop", Method::POST),
    ("/upgrade", Method::POST),
    ("/log-level", Method::POST),
    ("/", Method::GET),
];

/// What the interface needs of the gateway.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) handle: Handle,
    pub(crate) began: Instant,
    /// What is served, in words.
    pub(crate) serves: String,
    pub(crate) facts: watch::Receiver<Facts>,
    pub(crate) changes: mpsc::Sender<Asked>,
    /// Takes whether to drain.
    pub(crate) stops: mpsc::Sender<bool>,
    pub(crate) level: watch::Sender<Option<LogLevel>>,
    /// The commands that run at certain times.
    pub(crate) board: Board,
    pub(crate) lookout: Lookout,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReloadBody {
    apps: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeployBody {
    app: String,
    dir: PathBuf,
    venv: Option<PathBuf>,
    #[serde(default = "ten_minutes")]
    keep: f64,
    #[serde(default = "three_seconds")]
    probation: f64,
}

fn ten_minutes() -> f64 {
    600.0
}

fn three_seconds() -> f64 {
    3.0
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackBody {
    app: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScaleBody {
    app: String,
    workers: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StopBody {
    drain: bool,
}

impl Default for StopBody {
    fn default() -> Self {
        Self { drain: true }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LevelBody {
    level: String,
}

impl Api {
    /// The turtle that answers.
    pub(crate) fn turtle(self) -> Turtle {
        let api = Arc::new(self);
        Turtle::from_fn(move |request| {
            let api = Arc::clone(&api);
            async move { Ok(api.answer(request).await.unwrap_or_else(Trouble::into_response)) }
        })
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Trouble> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().strip_prefix(VERSION).unwrap_or_default();
        let Some((path, method)) = PATHS.iter().find(|(known, _)| *known == path) else {
            let paths: Vec<String> = PATHS.iter().map(|(path, _)| format!("{VERSION}{path}")).collect();
            let message = format!("there is no {}; there is {}", parts.uri.path(), paths.join(", "));
            return Err(Trouble::new(StatusCode::NOT_FOUND, message));
        };
        if parts.method != method {
            let message = format!("{VERSION}{path} takes {method}, not {}", parts.method);
            let mut response = Trouble::new(StatusCode::METHOD_NOT_ALLOWED, message).into_response();
            if let Ok(allowed) = HeaderValue::from_str(method.as_str()) {
                response.headers_mut().insert(header::ALLOW, allowed);
            }
            return Ok(response);
        }
        match *path {
            "/status" => Ok(ok(&self.status().await?)),
            "/config" => Ok(text(self.facts.borrow().config.clone())),
            "/stacks" => self.stacks(parts.uri.query().unwrap_or_default()).await,
            "/events" => Ok(self.events()),
            "/logs" => logs(parts.uri.query().unwrap_or_default(), self.facts.clone()),
            "/metrics" => self.metrics(),
            "/prometheus" => {
                let text = self.lookout.exposition().await.ok_or_else(Trouble::ending)?;
                Ok(typed(text, EXPOSITION))
            }
            "/reload" => self.change(Change::Reload(read_or::<ReloadBody>(body).await?.apps)).await,
            "/deploy" => self.change(Change::Deploy(deploy(read(body).await?)?)).await,
            "/rollback" => self.rollback(&read::<RollbackBody>(body).await?.app).await,
            "/scale" => {
                let ScaleBody { app, workers } = read(body).await?;
                self.change(Change::Scale(app, workers)).await
            }
            "/upgrade" => self.change(Change::Upgrade).await,
            "/stop" => self.stop(read_or::<StopBody>(body).await?.drain).await,
            "/log-level" => self.log_level(&read::<LevelBody>(body).await?.level),
            _ => Ok(ok(&json!({ "hawksbill": crate::VERSION, "pid": std::process::id() }))),
        }
    }

    async fn status(&self) -> Result<Report, Trouble> {
        let status = self.handle.status().await.ok_or_else(Trouble::ending)?;
        let Facts { listen, upgrades, .. } = self.facts.borrow().clone();
        let report = Report::new(status, self.serves.clone(), listen, self.began.elapsed());
        let figures = self.lookout.look().await.as_deref().cloned();
        Ok(Report { cron: self.board.shown(), upgrades, figures, ..report })
    }

    /// The pool of an application, or of that name.
    fn pool(&self, app: &str) -> Result<String, Trouble> {
        self.facts.borrow().pool(app)
    }

    async fn change(&self, change: Change) -> Result<Response<Body>, Trouble> {
        let (reply, answer) = oneshot::channel();
        let asked = Asked { change, reply };
        self.changes.send(asked).await.map_err(|_| Trouble::ending())?;
        Ok(ok(&answer.await.map_err(|_| Trouble::ending())??))
    }

    /// Does not wait until another change is done: it may be the one to go back from.
    async fn rollback(&self, app: &str) -> Result<Response<Body>, Trouble> {
        let pool = self.pool(app)?;
        let failed = |failure| Trouble::failed(StatusCode::CONFLICT, failure);
        let generation = self.handle.rollback(pool.clone()).await.map_err(failed)?;
        self.change(Change::RolledBack(pool, generation)).await
    }

    async fn stop(&self, drain: bool) -> Result<Response<Body>, Trouble> {
        self.stops.send(drain).await.map_err(|_| Trouble::ending())?;
        Ok(answer(StatusCode::ACCEPTED, &json!({ "pid": std::process::id(), "drain": drain })))
    }

    fn log_level(&self, level: &str) -> Result<Response<Body>, Trouble> {
        let level: LogLevel = level.parse().map_err(Trouble::bad)?;
        self.level.send_replace(Some(level));
        Ok(ok(&json!({ "level": level })))
    }

    async fn stacks(&self, query: &str) -> Result<Response<Body>, Trouble> {
        let pool = match query.split_once('=') {
            None if query.is_empty() => None,
            Some(("app", app)) => Some(self.pool(&percent_decode_str(app).decode_utf8_lossy())?),
            _ => return Err(Trouble::bad("the query is not understood; write ?app=NAME")),
        };
        let answers: BTreeMap<u64, Value> = self.handle.query(pool, "stacks", PATIENCE).await;
        Ok(ok(&json!({ "processes": answers })))
    }

    /// Server-sent events: what happens from now on.
    fn events(&self) -> Response<Body> {
        let begin = stream::once(async { Ok::<_, Infallible>(": what happens from now on\n\n".to_owned()) });
        let events = stream::unfold((self.handle.events(), self.facts.clone()), next_event);
        event_stream(Body::from_stream(begin.chain(events).boxed()))
    }

    /// Server-sent events: how it goes, each second.
    fn metrics(&self) -> Result<Response<Body>, Trouble> {
        let seat = self.lookout.seat().ok_or_else(|| {
            let message =
                "too many watch the gateway already; end one of them, such as a forgotten 'hawksbill top'";
            Trouble::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })?;
        let mut often = tokio::time::interval(OFTEN);
        often.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watching = (self.lookout.clone(), self.facts.clone(), often, seat);
        let figures = stream::unfold(watching, async |(lookout, mut facts, mut often, seat)| {
            let look = async {
                often.tick().await;
                lookout.look().await
            };
            let figures = tokio::select! {
                figures = look => figures?,
                () = gone(&mut facts) => return None,
            };
            let text = format!("data: {}\n\n", serde_json::to_string(&*figures).unwrap_or_default());
            Some((Ok::<_, Infallible>(text), (lookout, facts, often, seat)))
        });
        Ok(event_stream(Body::from_stream(figures.boxed())))
    }
}

type Listening = (broadcast::Receiver<Event>, watch::Receiver<Facts>);

async fn next_event((mut events, mut facts): Listening) -> Option<(Result<String, Infallible>, Listening)> {
    let text = tokio::select! {
        event = events.recv() => match event {
            Ok(event) => format!("data: {}\n\n", serde_json::to_string(&event).unwrap_or_default()),
            Err(RecvError::Lagged(missed)) => format!("data: {{\"event\":\"missed\",\"count\":{missed}}}\n\n"),
            Err(RecvError::Closed) => return None,
        },
        () = gone(&mut facts) => return None,
        () = tokio::time::sleep(SILENCE) => ": nothing new\n\n".to_owned(),
    };
    Some((Ok(text), (events, facts)))
}

/// Waits until the gateway is about to end.
pub(super) async fn gone(facts: &mut watch::Receiver<Facts>) {
    while facts.changed().await.is_ok() {}
}

fn deploy(body: DeployBody) -> Result<Deploy, Trouble> {
    let DeployBody { app, dir, venv, keep, probation } = body;
    let full = |what: &str, path: &Path| {
        if path.is_absolute() {
            return Ok(());
        }
        Err(Trouble::bad(format!("{what} {} is not a full path, beginning with /", path.display())))
    };
    full("dir", &dir)?;
    venv.as_deref().map_or(Ok(()), |venv| full("venv", venv))?;
    let seconds = |what: &str, number: f64, most: f64| {
        let fits = Some(number).filter(|number| (0.0..=most).contains(number));
        let wrong = || Trouble::bad(format!("{what} is {number}; take seconds from 0 to {most}"));
        fits.and_then(|number| Duration::try_from_secs_f64(number).ok()).ok_or_else(wrong)
    };
    let keep = seconds("keep", keep, MOST_KEPT)?;
    let probation = seconds("probation", probation, MOST_WATCHED)?;
    Ok(Deploy { app, dir, venv, keep, probation })
}

fn ok(value: &impl Serialize) -> Response<Body> {
    answer(StatusCode::OK, value)
}

fn text(text: String) -> Response<Body> {
    typed(text, "text/plain; charset=utf-8")
}

fn typed(text: String, media_type: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn event_stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Trouble> {
    let bytes = to_bytes(body, MAX_BODY).await;
    let bytes =
        bytes.map_err(|error| Trouble::new(error.status(), format!("the body cannot be read: {error}")))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Trouble::bad(format!("the body is not what is expected: {error}")))
}

/// As [`read`], where nothing need be said.
async fn read_or<T: DeserializeOwned + Default>(body: Body) -> Result<T, Trouble> {
    if http_body_is_empty(&body) { Ok(T::default()) } else { read(body).await }
}

fn http_body_is_empty(body: &Body) -> bool {
    hyper::body::Body::is_end_stream(body)
}
