//! Django projects: both interfaces of one project in one process.
//!
//! What needs nothing asynchronous goes through the WSGI handler on threads, WebSocket connections and asynchronous views
//! through the ASGI application on the event loop. `project.py` looks at the project and says which; this file has the two
//! hosted and leads each request to one of them.

mod views;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hawksbill_core::config::Duration;
use hawksbill_core::{AppKind, Body, BuildError, Builder, Error, Kind, Turtle, TurtleFuture, Upgrade};
use hawksbill_websocket::handshake::is_upgrade;
use http::{Method, Request, Response};
use pyo3::ffi::c_str;
use pyo3::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::views::Views;
use crate::asgi::{AsgiApp, Lifespan, WebSockets};
use crate::detect::Interface;
use crate::embedded::Embedded;
use crate::failure::Failure;
use crate::host::{self, Home, Hosted, Keeping, Options, keep};
use crate::kinds::{Queue, Threads, default_queue, default_threads, default_timeout, directory, is_none};
use crate::target::Target;
use crate::thread;
use crate::wsgi::WsgiApp;

/// What looks at projects.
static PROJECT: Embedded = Embedded::new(c"_hawksbill_django_project", c_str!(include_str!("project.py")));
/// What makes crossing to threads cheaper.
static CROSSING: Embedded = Embedded::new(c"_hawksbill_django_crossing", c_str!(include_str!("crossing.py")));

/// A Django project, hosted in its workers: ordinary views by WSGI on threads, WebSocket connections and asynchronous
/// views by ASGI.
///
/// Which of the two serves HTTP is found by looking at the project, and said at the start. HTTP goes by WSGI
/// (`WSGI_APPLICATION`, or Django's own handler), unless the `http` route of `ASGI_APPLICATION` is something else than
/// Django's handler: then all of it goes by ASGI. Asynchronous views (`async def`, classes with such handlers) go by
/// ASGI, so that they share the event loop and stream as they should. A middleware that chooses another URL configuration
/// for a request makes this unknowable; then, if anything in the project is asynchronous, all HTTP goes by ASGI. A project in
/// which nothing is asynchronous has no event loop at all. One process has the settings of one project.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Django {
    /// The settings module, such as `shop.settings`. It wins over `DJANGO_SETTINGS_MODULE` of the environment.
    pub django: String,
    /// The directory that the project is imported from, that of `manage.py`. Default: where the configuration file is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// What serves HTTP: `auto` (found by looking at the project), `wsgi` (all of it) or `asgi` (all of it).
    #[serde(default)]
    pub http: Http,
    /// Development: what is beneath `STATIC_URL` comes from the finders of `django.contrib.staticfiles`, so that it need not be
    /// collected. `hawksbill run --reload` sets it; it is slow, and not for production.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finders: bool,
    /// WSGI: at most this many requests run at once, each on a thread of its own.
    #[serde(default = "default_threads")]
    pub threads: Threads,
    /// WSGI: at most this many further requests wait for a thread; more are answered 503.
    #[serde(default = "default_queue")]
    pub queue: Queue,
    /// A request whose answer has not begun within this time is answered 504, and the log shows where it stands. As for
    /// `wsgi` and `asgi`, by whichever it goes. `0`: it may take as long as it likes.
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

/// What serves the HTTP requests of a Django project.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Http {
    /// Found by looking at the project.
    #[default]
    Auto,
    /// All by WSGI.
    Wsgi,
    /// All by ASGI.
    Asgi,
}

impl Http {
    fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Wsgi => "wsgi",
            Self::Asgi => "asgi",
        }
    }
}

/// How a project is looked at.
#[derive(Clone, Copy)]
struct How {
    http: Http,
    finders: bool,
}

/// The settings module of this generation's projects.
struct Settings(String);

impl AppKind for Django {
    const NAME: &'static str = "django";
    const HAS_PROCESSES: bool = true;

    fn build(self, cx: &mut Builder) -> Result<Turtle, BuildError> {
        let target = Target::module(&self.django).map_err(BuildError::new)?;
        let module = self.django.clone();
        let settings = cx.shared("django settings", |_| Ok::<_, BuildError>(Settings(module)))?;
        if settings.0 != self.django {
            return Err(BuildError::new(format!(
                "'{}' is a second Django project beside '{}', and one process has one set of settings; \
                 'hawksbill run' gives each processes of its own",
                self.django, settings.0
            )));
        }
        let dir = directory(cx, self.dir)?;
        let options = Options {
            interface: None,
            threads: self.threads.as_usize(),
            queue: self.queue.as_usize(),
            timeout: self.timeout,
            slow: self.slow,
            lifespan: self.lifespan,
            websocket: self.websocket,
        };
        let name = cx.app_name().map_or_else(|| self.django.clone(), ToString::to_string);
        let home = Home::shared(cx)?;
        let (label, hosting) = (name.clone(), home.clone());
        let how = How { http: self.http, finders: self.finders };
        let what = Some(format!("{target} in {}", dir.display()));
        let load = async move { Found::at(&label, target, dir, how).await };
        let label = name.clone();
        let start = async move |found| {
            let project = Project::start(&label, found, &hosting, &options).await?;
            Ok(Hosted::Django(Arc::new(project)))
        };
        Ok(keep(cx, Keeping { name: &name, what, home }, load, start))
    }
}

/// A project that is served.
pub(crate) struct Project {
    wsgi: Option<Arc<WsgiApp>>,
    asgi: Option<AsgiApp>,
    takes_websockets: bool,
    /// Which requests go by ASGI, where that has to be asked for each.
    views: Option<Views>,
}

/// What looking at a project found.
struct Found {
    wsgi: Option<Py<PyAny>>,
    asgi: Option<Py<PyAny>>,
    takes_websockets: bool,
    knows_lifespan: bool,
    views: Option<views::Asked>,
    warning: String,
    said: String,
}

impl host::Found for Found {
    fn interfaces(&self) -> impl Iterator<Item = Interface> {
        let wsgi = self.wsgi.as_ref().map(|_| Interface::Wsgi);
        wsgi.into_iter().chain(self.asgi.as_ref().map(|_| Interface::Asgi))
    }
}

impl Found {
    /// Sets Django up, and looks at the project.
    ///
    /// # Errors
    /// What is missing or raises, with its traceback.
    async fn at(name: &str, settings: Target, dir: PathBuf, how: How) -> Result<Self, BuildError> {
        let found = thread::attached("import", move |py| look(py, &settings, &dir, how)).await;
        let Some(found) = found else {
            return Err(BuildError::new(format!(
                "application {name}: the Python interpreter cannot be used any more"
            )));
        };
        let found = found?;
        if !found.warning.is_empty() {
            tracing::warn!(target: "hawksbill::start", app = name, "{}", found.warning);
        }
        tracing::info!(target: "hawksbill::start", app = name, "Django: {}", found.said);
        Ok(found)
    }
}

impl Project {
    /// Hosts what there is to host.
    async fn start(name: &str, found: Found, home: &Home, options: &Options) -> Result<Self, BuildError> {
        let mut options = options.clone();
        if options.lifespan == Lifespan::Auto && !found.knows_lifespan {
            // Django's handler and Channels' router raise at it, and mean nothing by that.
            options.lifespan = Lifespan::Off;
        }
        let asgi = match found.asgi {
            Some(callable) => Some(AsgiApp::start(name, callable, home, &options).await?),
            None => None,
        };
        let host = |callable| WsgiApp::new(name, callable, home, &options);
        Ok(Self {
            wsgi: found.wsgi.map(host),
            asgi,
            takes_websockets: found.takes_websockets,
            views: found.views.map(|asked| Views::new(name, asked, options.queue)),
        })
    }

    /// Asks the project.
    pub(crate) fn ask(self: &Arc<Self>, request: Request<Body>) -> TurtleFuture {
        let (asgi, wsgi) = match (&self.asgi, &self.wsgi) {
            (Some(asgi), Some(wsgi)) => (asgi, wsgi),
            (Some(asgi), None) => return asgi.ask(request),
            (None, Some(wsgi)) => return wsgi.ask(request),
            (None, None) => {
                return TurtleFuture::refused(
                    Error::new(Kind::Internal).because("a project without interfaces"),
                );
            }
        };
        if self.takes_websockets && asks_for_websocket(&request) {
            return asgi.ask(request);
        }
        if self.views.is_none() {
            return wsgi.ask(request);
        }
        TurtleFuture::new(self.clone().ask_either(request))
    }

    /// Asks the one that the view of this request is for.
    async fn ask_either(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, Error> {
        let (parts, body) = request.into_parts();
        let is_asynchronous = match &self.views {
            Some(views) => views.is_asynchronous(&parts).await,
            None => false,
        };
        let request = Request::from_parts(parts, body);
        match (&self.asgi, &self.wsgi) {
            (Some(asgi), _) if is_asynchronous => asgi.ask(request).await,
            (_, Some(wsgi)) => wsgi.ask(request).await,
            _ => Err(Error::new(Kind::Internal).because("a project without WSGI")),
        }
    }

    /// Lets both go, the ASGI application first.
    pub(crate) async fn stop(&self) {
        if let Some(asgi) = &self.asgi {
            asgi.stop().await;
        }
        if let Some(views) = &self.views {
            views.stop().await;
        }
        if let Some(wsgi) = &self.wsgi {
            wsgi.stop().await;
        }
    }
}

fn asks_for_websocket(request: &Request<Body>) -> bool {
    let asks = is_upgrade(request.headers()) || request.method() == Method::CONNECT;
    asks && request.extensions().get::<Upgrade>().is_some()
}

fn look(py: Python<'_>, settings: &Target, dir: &Path, how: How) -> Result<Found, BuildError> {
    let failed = |error: PyErr| BuildError::new("looking at the Django project failed").caused_by(error);
    settings.prepare(py, dir)?;
    if let Err(error) = py.import("django") {
        return Err(Target::module("django").map_err(BuildError::new)?.import_failed(py, dir, &error));
    }
    let project = PROJECT.get(py).map_err(failed)?;
    let told = |error: PyErr| {
        let refused =
            project.getattr("Refused").is_ok_and(|refused| error.matches(py, refused).unwrap_or(false));
        if refused {
            return BuildError::new(error.value(py).to_string());
        }
        BuildError::new(format!("the Django project '{settings}' does not start: {error}"))
            .details(Failure::new(py, &error).traceback)
    };
    let warning = project.call_method1("set_up", (settings.to_string(),));
    let warning = match warning {
        Ok(warning) => warning.extract::<String>().map_err(failed)?,
        Err(error) => {
            // A settings module that is not there is told as any other module that is not.
            settings.import(py, dir)?;
            return Err(told(error));
        }
    };
    settings.import(py, dir)?;
    let found = project.call_method1("look", (how.http.as_str(), how.finders)).map_err(told)?;
    if let Ok(asgi) = found.getattr("handler") {
        ease(py, &settings.to_string(), &asgi);
    }
    read(&project, &found, warning).map_err(failed)
}

/// Makes Django under ASGI cheaper, if this callable is one of its: calls cross to threads that are kept, and a
/// synchronous request crosses once. What is not as known is left as it is.
pub(crate) fn ease(py: Python<'_>, name: &str, application: &Bound<'_, PyAny>) {
    let eased = || -> PyResult<String> {
        let loaded = py.import("sys")?.getattr("modules")?;
        if !loaded.contains("django.core.handlers.asgi")? {
            return Ok(String::new());
        }
        CROSSING.get(py)?.call_method0("install")?;
        PROJECT.get(py)?.call_method1("ease", (application,))?.extract()
    };
    match eased() {
        Ok(left) if left.is_empty() => {}
        Ok(left) => {
            tracing::debug!(target: "hawksbill::start", app = name, "each middleware crosses to a thread: {left}");
        }
        // A mistake in the project shows itself where the project uses it.
        Err(error) => {
            tracing::debug!(target: "hawksbill::start", app = name, "each middleware crosses to a thread: {error}");
        }
    }
}

fn read(project: &Bound<'_, PyModule>, found: &Bound<'_, PyAny>, warning: String) -> PyResult<Found> {
    let callable = |name| -> PyResult<Option<Py<PyAny>>> {
        let callable = found.getattr(name)?;
        Ok((!callable.is_none()).then(|| callable.unbind()))
    };
    let views = if found.getattr("http")?.eq("each")? {
        Some(views::Asked {
            is_asynchronous: project.getattr("is_asynchronous")?.unbind(),
            prefixes: found.getattr("prefixes")?.extract()?,
            steady: found.getattr("steady")?.extract()?,
        })
    } else {
        None
    };
    Ok(Found {
        wsgi: callable("wsgi")?,
        asgi: callable("asgi")?,
        takes_websockets: found.getattr("websocket")?.extract()?,
        knows_lifespan: found.getattr("lifespan")?.extract()?,
        views,
        warning,
        said: found.getattr("said")?.extract()?,
    })
}

#[cfg(test)]
mod tests {
    use hawksbill_core::App;
    use hawksbill_core::config::{Path, parse_toml};

    use super::*;

    fn project(settings: &str) -> Django {
        let tree = parse_toml("hawksbill.toml", format!("django = '{settings}'")).unwrap();
        tree.decode(&Path::root()).unwrap()
    }

    #[test]
    fn the_defaults_are_shown() {
        let settings = App::settings(&project("shop.settings"));
        assert_eq!(settings["http"], "auto");
        assert_eq!(settings["threads"], 8);
        assert_eq!(settings["lifespan"], "auto");
    }

    #[test]
    fn one_process_has_one_project() {
        let mut cx = Builder::new("/");
        assert!(AppKind::build(project("shop.settings"), &mut cx).is_ok());
        assert!(AppKind::build(project("shop.settings"), &mut cx).is_ok());
        let error = AppKind::build(project("blog.settings"), &mut cx).unwrap_err().to_string();
        assert!(error.contains("second Django project beside 'shop.settings'"), "{error}");
    }

    #[test]
    fn settings_are_a_module() {
        let mut cx = Builder::new("/");
        let error = AppKind::build(project("shop.settings:DEBUG"), &mut cx).unwrap_err().to_string();
        assert!(error.contains("name a module, such as 'shop.settings'"), "{error}");
    }
}
