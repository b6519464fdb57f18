//! The application of a directory that has no configuration, found by reading what is there. Nothing is imported for it:
//! whoever looks is the supervisor.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hawksbill_core::config::{ConfigError, Origin, Table, Value, parse_toml};

use super::dotenv;

/// Files that may hold an application.
const MODULES: [&str; 4] = ["app", "main", "wsgi", "asgi"];
/// What an application is called in them, and what makes one: as a module alone is understood, in this order.
const NAMES: [&str; 4] = ["application", "app", "create_app", "make_app"];
const MANAGE: &str = "manage.py";
const PYPROJECT: &str = "pyproject.toml";
/// Where `pyproject.toml` may name an application.
const NAMED: [[&str; 3]; 2] = [["tool", "hawksbill", "app"], ["tool", "fastapi", "entrypoint"]];
const SETTINGS: &str = "DJANGO_SETTINGS_MODULE";
/// Where a project has its virtual environment.
const VENVS: [&str; 2] = [".venv", "venv"];
/// The most of a file that is read.
const MOST: u64 = 1 << 20;

/// What was found.
#[derive(Debug)]
pub(super) struct Project {
    candidate: Candidate,
    /// What `.env` sets and the real environment does not.
    env: Vec<(String, String)>,
    venv: Option<Venv>,
}

#[derive(Debug)]
struct Candidate {
    file: String,
    target: String,
    django: bool,
    /// The modules that its file imports names from.
    imports: Vec<String>,
}

#[derive(Debug)]
struct Venv {
    path: PathBuf,
    /// It has a hawksbill of its own, which a worker needs.
    fit: bool,
}

impl Project {
    /// Looks in a directory, with an environment; `None` if there is no application to be seen.
    ///
    /// # Errors
    /// When there are several, and when a file that counts cannot be read.
    pub(super) fn look(
        dir: &Path,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ConfigError> {
        let mut env = match read(dir, dotenv::FILE)? {
            Some(text) => dotenv::parse(&text)?,
            None => Vec::new(),
        };
        env.retain(|(key, _)| environment(key).is_none());
        let settings = environment(SETTINGS)
            .or_else(|| env.iter().find(|(key, _)| key == SETTINGS).map(|(_, module)| module.clone()));
        let venv = Venv::look(dir, environment("VIRTUAL_ENV"));
        let mut candidates = candidates(dir, settings.filter(|module| !module.is_empty()))?;
        match candidates.pop() {
            None => Ok(None),
            Some(candidate) if candidates.is_empty() => Ok(Some(Self { candidate, env, venv })),
            Some(last) => {
                candidates.push(last);
                Err(ConfigError::new(Origin::unknown(), which(&candidates)))
            }
        }
    }

    /// The application, as the command line names one.
    pub(super) fn target(&self) -> &str {
        &self.candidate.target
    }

    /// The kind of application, where the project shows it.
    pub(super) fn kind(&self) -> Option<&'static str> {
        self.candidate.django.then_some("django")
    }

    /// Sets what the project says of its processes, where flags say nothing.
    pub(super) fn complete(&self, app: &mut Table) {
        if !self.env.is_empty() && app.get("env").is_none() {
            let origin = Origin::named(dotenv::FILE);
            let env = self.env.iter().map(|(key, value)| (key.clone(), Value::string(value, origin.clone())));
            app.insert("env", origin.clone(), Value::from(env.collect::<Table>()));
        }
        if let Some(venv) = self.venv.as_ref().filter(|venv| venv.fit && app.get("venv").is_none()) {
            let path = venv.path.display().to_string();
            app.insert("venv", Origin::unknown(), Value::string(path, Origin::unknown()));
        }
    }

    /// What was found, in a line.
    pub(super) fn said(&self) -> String {
        let what = if self.candidate.django { "the Django project" } else { "the application" };
        let mut said = format!("found {what} '{}' in {}", self.target(), self.candidate.file);
        // Writing to a string does not fail.
        if let Some(venv) = self.venv.as_ref().filter(|venv| venv.fit) {
            let _ = write!(said, ", its virtual environment {}", venv.path.display());
        }
        if !self.env.is_empty() {
            let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
            let _ = write!(said, ", and {} from {}", names.join(", "), dotenv::FILE);
        }
        said
    }

    /// What a person should know before it goes wrong.
    pub(super) fn warning(&self) -> Option<String> {
        let path = self.venv.as_ref().filter(|venv| !venv.fit)?.path.display();
        Some(format!(
            "the virtual environment {path} has no hawksbill, so the application runs on the Python of this one; \
             install it there with '{path}/bin/python -m pip install hawksbill'"
        ))
    }
}

/// What to say where nothing was found.
pub(super) fn nothing(dir: &Path, file: &str) -> String {
    let here: Vec<String> = [MANAGE.to_owned(), PYPROJECT.to_owned()]
        .into_iter()
        .chain(MODULES.iter().map(|module| format!("{module}.py")))
        .filter(|file| dir.join(file).is_file())
        .collect();
    let seen = if here.is_empty() {
        format!("no {MANAGE}, and no {}.py", MODULES.join(".py, "))
    } else {
        format!("and no application was seen in {}", here.join(", "))
    };
    format!(
        "nothing to serve was found in this directory: there is no {file}, {seen}\n  \
         hawksbill run module:attribute              serves an application, such as shop.wsgi:application\n  \
         hawksbill run --dir DIR module:attribute    the same, imported from another directory\n  \
         hawksbill run -c FILE                       serves what a configuration file says"
    )
}

fn candidates(dir: &Path, settings: Option<String>) -> Result<Vec<Candidate>, ConfigError> {
    if let Some(candidate) = named(dir)? {
        return Ok(vec![candidate]);
    }
    let django = read(dir, MANAGE)?.and_then(|text| settings.or_else(|| settings_module(&text)));
    let mut found = Vec::new();
    for module in MODULES {
        let file = format!("{module}.py");
        let Some(text) = read(dir, &file)? else { continue };
        // An old project's wsgi.py lies beside its manage.py.
        if django.is_some() && text.contains(SETTINGS) {
            continue;
        }
        found.extend(Candidate::of(module, file, &text));
    }
    if let Some(target) = django {
        found.insert(0, Candidate { file: MANAGE.to_owned(), target, django: true, imports: Vec::new() });
    }
    // 'from app import app' in wsgi.py: one application with two names, unless each imports the other.
    let module = |candidate: &Candidate| candidate.target.split(':').next().unwrap_or_default().to_owned();
    let imported: Vec<String> = found.iter().flat_map(|candidate| candidate.imports.clone()).collect();
    if found.iter().any(|candidate| !imported.contains(&module(candidate))) {
        found.retain(|candidate| candidate.django || !imported.contains(&module(candidate)));
    }
    Ok(found)
}

/// What `pyproject.toml` names.
fn named(dir: &Path) -> Result<Option<Candidate>, ConfigError> {
    let Some(text) = read(dir, PYPROJECT)? else { return Ok(None) };
    let tree = parse_toml(PYPROJECT, text)?;
    let target = NAMED.iter().find_map(|keys| tree.at(keys)?.as_str());
    Ok(target.map(|target| Candidate {
        file: PYPROJECT.to_owned(),
        target: target.to_owned(),
        django: false,
        imports: Vec::new(),
    }))
}

/// The module that `manage.py` sets: the text that follows the variable's name.
fn settings_module(text: &str) -> Option<String> {
    let after = text.split_once(SETTINGS)?.1.get(1..)?;
    let start = after.find(['"', '\''])?;
    let quote = after.get(start..)?.chars().next()?;
    let module = after.get(start + 1..)?.split(quote).next()?;
    let plain = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '.';
    (!module.is_empty() && module.chars().all(plain)).then(|| module.to_owned())
}

impl Candidate {
    /// The application of a module, by the names that its text gives at the left margin.
    fn of(module: &str, file: String, text: &str) -> Option<Self> {
        let (mut names, mut imports) = (Vec::new(), Vec::new());
        let mut quoted = false;
        for line in text.lines() {
            let was_quoted = quoted;
            quoted ^= (line.matches("\"\"\"").count() + line.matches("'''").count()) % 2 == 1;
            if was_quoted || line.starts_with([' ', '\t', '#']) {
                continue;
            }
            if let Some((from, what)) =
                line.strip_prefix("from ").and_then(|line| line.split_once(" import "))
            {
                imports.push(from.trim().trim_start_matches('.').to_owned());
                let bound = what.split('#').next().unwrap_or_default().split(',');
                names.extend(bound.filter_map(|name| name.rsplit(' ').find(|word| !word.is_empty())));
            } else {
                names.extend(defined(line));
            }
        }
        let name = NAMES.into_iter().find(|name| names.contains(name))?;
        // What makes an application is called when a module is named alone.
        let target = if name.contains('_') { module.to_owned() } else { format!("{module}:{name}") };
        Some(Self { file, target, django: false, imports })
    }

    fn command(&self) -> String {
        format!("hawksbill run {}{}", self.target, if self.django { " --django" } else { "" })
    }
}

/// The name that a line defines: `app = ...`, `app: Flask = ...`, `def app(`, `async def app(`.
fn defined(line: &str) -> Option<&str> {
    let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("def ");
    if let Some(function) = function {
        return function.split('(').next().map(str::trim);
    }
    let (left, right) = line.split_once('=')?;
    let left = left.split(':').next().unwrap_or_default().trim();
    (!right.starts_with('=')).then_some(left)
}

impl Venv {
    fn look(dir: &Path, active: Option<String>) -> Option<Self> {
        let active = active.filter(|path| !path.is_empty()).map(PathBuf::from);
        let own = VENVS.iter().map(PathBuf::from);
        let path = active.into_iter().chain(own).find(|path| dir.join(path).join("bin/python").exists())?;
        let fit = dir.join(&path).join("bin/hawksbill").exists();
        Some(Self { path, fit })
    }
}

fn which(candidates: &[Candidate]) -> String {
    let mut text = "which application is meant? There is more than one here:\n".to_owned();
    for candidate in candidates {
        let _ = writeln!(text, "  {:14} {}", candidate.file, candidate.command());
    }
    text.push_str("name it, as in one of these commands, or in hawksbill.toml");
    text
}

/// A file's text; `None` if there is none.
fn read(dir: &Path, name: &str) -> Result<Option<String>, ConfigError> {
    let path = dir.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes));
    let read = match read {
        Ok(length) if length as u64 > MOST => Err(io::Error::other("it is longer than a megabyte")),
        other => other,
    };
    read.map_err(|error| {
        let message = format!(
            "cannot read {name}: {error}; name the application, as in 'hawksbill run module:attribute'"
        );
        ConfigError::new(Origin::unknown(), message)
    })?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn dir(files: &[(&str, &str)]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn look(files: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Option<Project>, String> {
        let variable = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Project::look(dir(files).path(), variable).map_err(|error| error.to_string())
    }

    fn target(files: &[(&str, &str)]) -> Option<String> {
        look(files, &[]).unwrap().map(|project| project.target().to_owned())
    }

    const MANAGED: (&str, &str) = (
        "manage.py",
        "def main():\n    os.environ.setdefault(\n        'DJANGO_SETTINGS_MODULE', \"shop.settings\")\n",
    );

    #[test]
    fn an_application_is_seen_by_its_name() {
        for (text, wanted) in [
            ("from flask import Flask\napp = Flask(__name__)\n", Some("main:app")),
            ("app: FastAPI = FastAPI()\n", Some("main:app")),
            ("async def app(scope, receive, send): ...\n", Some("main:app")),
            ("from shop.web import site as application  # the site\n", Some("main:application")),
            ("def create_app(): ...\n", Some("main")),
            ("\"\"\"Write\n\napp = Flask()\n\"\"\"\n", None),
            ("if app == 3:\n    app = 4\napp == 3\n# app = 3\napps = 3\n", None),
        ] {
            assert_eq!(target(&[("main.py", text)]).as_deref(), wanted, "{text}");
        }
        assert_eq!(target(&[]), None);
    }

    #[test]
    fn a_django_project_is_seen_by_its_manage_py() {
        let wsgi =
            ("wsgi.py", "os.environ['DJANGO_SETTINGS_MODULE'] = 'x'\napplication = get_wsgi_application()\n");
        let project = look(&[MANAGED, wsgi], &[]).unwrap().unwrap();
        assert_eq!((project.target(), project.kind()), ("shop.settings", Some("django")));
        let files = [MANAGED, (".env", "DJANGO_SETTINGS_MODULE=shop.local\n")];
        assert_eq!(look(&files, &[]).unwrap().unwrap().target(), "shop.local");
        let real = look(&files, &[(SETTINGS, "shop.real")]).unwrap().unwrap();
        assert_eq!(real.target(), "shop.real");
        assert!(real.env.is_empty());
        assert_eq!(target(&[("manage.py", "import flask_script\n")]), None);
    }

    #[test]
    fn a_file_that_imports_the_other_is_the_one() {
        let app = ("app.py", "app = Flask()\n");
        assert_eq!(target(&[app, ("wsgi.py", "from app import app\n")]).as_deref(), Some("wsgi:app"));
        let error = look(&[app, ("main.py", "app = FastAPI()\n"), MANAGED], &[]).unwrap_err();
        for command in
            ["run app:app", "run main:app", "run shop.settings --django", "which application is meant?"]
        {
            assert!(error.contains(command), "{error}");
        }
    }

    #[test]
    fn what_pyproject_names_is_meant() {
        let files = [
            ("pyproject.toml", "[tool.hawksbill]\napp = 'shop.web:site'\n"),
            ("app.py", "app = 1\n"),
            MANAGED,
        ];
        assert_eq!(target(&files).as_deref(), Some("shop.web:site"));
        assert!(look(&[("pyproject.toml", "[tool\n")], &[]).unwrap_err().contains("pyproject.toml"));
    }

    #[test]
    fn the_environment_is_the_projects() {
        let app = ("app.py", "app = 1\n");
        let files = [app, (".env", "A=1\nB=2\n"), (".venv/bin/python", ""), (".venv/bin/hawksbill", "")];
        let project = look(&files, &[("A", "real")]).unwrap().unwrap();
        let mut table = Table::new();
        project.complete(&mut table);
        let table = Value::from(table);
        assert_eq!(table.at(&["env", "A"]), None);
        assert_eq!(table.at(&["env", "B"]).and_then(Value::as_str), Some("2"));
        assert_eq!(table.at(&["venv"]).and_then(Value::as_str), Some(".venv"));
        assert!(
            project.said().ends_with("its virtual environment .venv, and B from .env"),
            "{}",
            project.said()
        );
        let bare = look(&[app, ("venv/bin/python", "")], &[]).unwrap().unwrap();
        assert!(bare.warning().unwrap().contains("venv/bin/python -m pip install hawksbill"));
    }
}
