//! The files of a Django project that was found by looking: those beneath `STATIC_URL` and `MEDIA_URL`. Django itself is
//! asked for them, in the project's own Python and in a process of its own.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use hawksbill_core::config::{Origin, Table, Value};
use serde::Deserialize;

use super::project::Project;

/// What is run there.
const PROGRAM: &str = include_str!("ask_django.py");
/// How long the project may take to load; whoever waits has no answer to give meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a process that has not answered may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The most of what it writes that is read.
const MOST: u64 = 1 << 16;

/// What a found project was asked, and has answered.
pub(super) struct Inquiry {
    /// The interpreter where the project has none of its own.
    python: String,
    development: bool,
    found: RefCell<Option<FoundFiles>>,
}

impl Inquiry {
    /// None yet. `program` is the command of this program, which the interpreter comes first in.
    pub(super) fn of(development: bool, program: &[String]) -> Self {
        let python = program.first().cloned().unwrap_or_default();
        Self { python, development, found: RefCell::default() }
    }

    /// Asks the project, for each reload again. Not in development, where no saved file is to wait for it.
    pub(super) fn make(&self, project: &Project, app: &Table) {
        if self.development && self.found.borrow().is_some() {
            return;
        }
        let found = match project.kind() {
            Some("django") => FoundFiles::ask(project.target(), app, &self.python),
            _ => FoundFiles::default(),
        };
        self.found.replace(Some(found));
    }

    /// Adds routes for what is served as it lies there.
    pub(super) fn route(&self, site: &mut Table) {
        if let Some(found) = &*self.found.borrow() {
            found.route(site, self.development);
        }
    }

    /// What stands beside the routes in the list of them.
    pub(super) fn route_of_finders(&self) -> Option<String> {
        self.found.borrow().as_ref().filter(|_| self.development)?.route_of_finders()
    }

    /// What a person should know of what is not served, each with what to do.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.found.borrow().as_ref().map(|found| found.warnings(self.development)).unwrap_or_default()
    }
}

/// What a project has beneath URLs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct FoundFiles {
    #[serde(rename = "static")]
    statics: Option<Place>,
    media: Option<Place>,
    /// Why nothing is known.
    #[serde(skip)]
    unknown: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Place {
    /// The prefix, with a slash at both ends.
    url: String,
    root: Option<PathBuf>,
    /// Why it is not served; empty if it is.
    left: String,
}

impl FoundFiles {
    /// Asks a project. `app` is its table in the configuration, `python` the interpreter where that names no virtual
    /// environment.
    fn ask(settings: &str, app: &Table, python: &str) -> Self {
        let text = |key: &str| app.get(key).and_then(Value::as_str);
        if text("user").is_some() || text("group").is_some() {
            // Its code has no business under the user who starts the gateway.
            return Self::unknown(
                "the project runs as another user, so that it is not asked for its settings",
            );
        }
        let python =
            text("venv").map_or_else(|| PathBuf::from(python), |venv| Path::new(venv).join("bin/python"));
        let mut command = Command::new(python);
        command.args(["-c", PROGRAM, settings, text("dir").unwrap_or(".")]);
        for (name, _, value) in app.get("env").and_then(Value::as_table).into_iter().flat_map(Table::iter) {
            command.env(name, value.as_str().unwrap_or_default());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Self::unknown(&format!("its Python cannot be started: {error}")),
        };
        let found = answer(&mut child).unwrap_or_else(|why| Self::unknown(&why));
        // It has nothing more to say, and threads of the project may keep it from ending.
        let _ = child.kill();
        let _ = child.wait();
        found
    }

    fn unknown(why: &str) -> Self {
        Self { unknown: Some(why.to_owned()), ..Self::default() }
    }

    /// Adds routes for what is served as it lies there. In development that is not what `collectstatic` has collected.
    fn route(&self, site: &mut Table, development: bool) {
        let collected = self.statics.as_ref().filter(|_| !development);
        for place in collected.into_iter().chain(&self.media).filter(|place| place.left.is_empty()) {
            let Some(root) = &place.root else { continue };
            let origin = Origin::named("Django's settings");
            let none: Vec<Value> = Vec::new();
            let files = Table::from_iter([
                ("files", Value::string(root.display().to_string(), origin.clone())),
                ("index", Value::new(none, origin.clone())),
            ]);
            site.insert(place.prefix(), origin.clone(), Value::new(files, origin));
        }
    }

    /// What stands beside the routes in the list of them: in development the application has static files as well.
    fn route_of_finders(&self) -> Option<String> {
        let place = self.statics.as_ref()?;
        Some(format!("{} static files by their finders", place.prefix()))
    }

    /// What a person should know of what is not served, each with what to do.
    fn warnings(&self, development: bool) -> Vec<String> {
        let mut said = Vec::new();
        if let Some(why) = &self.unknown {
            said.push(format!(
                "no files are served beneath STATIC_URL and MEDIA_URL: {why}; routes with files = \"...\" in hawksbill.toml \
                 serve them"
            ));
        }
        let collected = self.statics.as_ref().filter(|place| !development && !place.left.is_empty());
        said.extend(collected.map(|place| {
            let first = if place.root.is_some() { "" } else { "set it, " };
            format!(
                "nothing is served beneath STATIC_URL, {}: {}; {first}run 'python manage.py collectstatic', then 'hawksbill \
                 reload'",
                place.url, place.left
            )
        }));
        let uploaded = self.media.as_ref().filter(|place| !place.left.is_empty());
        said.extend(uploaded.map(|place| {
            format!("the files of MEDIA_ROOT are not served beneath MEDIA_URL, {}: {}", place.url, place.left)
        }));
        said
    }
}

impl Place {
    /// The path of the route.
    fn prefix(&self) -> &str {
        self.url.trim_end_matches('/')
    }
}

/// Reads the answer of a process, or why there is none.
fn answer(child: &mut Child) -> Result<FoundFiles, String> {
    let line = child.stdout.take().map(|out| {
        reading(move || {
            let mut line = String::new();
            BufReader::new(out.take(MOST)).read_line(&mut line).map(|_| line)
        })
    });
    let errors = child.stderr.take().map(|mut err| {
        reading(move || {
            let mut text = Vec::new();
            err.by_ref().take(MOST).read_to_end(&mut text)?;
            // A full pipe would stop the process.
            std::io::copy(&mut err, &mut std::io::sink())?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        })
    });
    let line = line.and_then(|line| line.recv_timeout(PATIENCE).ok());
    match line {
        None => Err(format!("the project was not loaded within {} s", PATIENCE.as_secs())),
        Some(line) if line.is_empty() => {
            let said = errors.and_then(|errors| errors.recv_timeout(LAST_WORDS).ok()).unwrap_or_default();
            let last =
                said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason was given");
            Err(format!("the project does not load: {}", last.trim()))
        }
        Some(line) => {
            serde_json::from_str(&line).map_err(|error| format!("its answer is not understood: {error}"))
        }
    }
}

/// What is read on a thread, as nobody knows whether it ends: a program that the project started may have the pipe.
fn reading(read: impl FnOnce() -> std::io::Result<String> + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // Whoever asked may have given up.
        let _ = sender.send(read().unwrap_or_default());
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> FoundFiles {
        let text = r#"{"static": {"url": "/static/", "root": null, "left": "STATIC_ROOT is not set"},
            "media": {"url": "/up/loads/", "root": "/srv/media", "left": ""}}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_there_gets_a_route() {
        let mut site = Table::new();
        found().route(&mut site, false);
        assert_eq!(site.keys().collect::<Vec<_>>(), ["/up/loads"]);
        let site = Value::from(site);
        assert_eq!(site.at(&["/up/loads", "files"]).and_then(Value::as_str), Some("/srv/media"));
    }

    #[test]
    fn what_is_missing_is_told_in_production() {
        let said = found().warnings(false);
        assert!(
            said[0].contains("STATIC_ROOT is not set; set it, run 'python manage.py collectstatic'"),
            "{said:?}"
        );
        assert!(found().warnings(true).is_empty());
    }

    #[test]
    fn a_python_that_is_not_there_is_told() {
        let found = FoundFiles::ask("shop.settings", &Table::new(), "/nowhere/python");
        assert!(found.warnings(false)[0].contains("its Python cannot be started"), "{found:?}");
    }

    #[test]
    fn nothing_is_run_for_a_project_of_another_user() {
        let app = Table::from_iter([("user", Value::string("shop", Origin::unknown()))]);
        let found = FoundFiles::ask("shop.settings", &app, "/nowhere/python");
        assert!(found.warnings(false)[0].contains("another user"), "{found:?}");
    }
}
