//! The command line. Every flag is a key of the configuration and has an environment variable; flags win over the
//! environment, the environment wins over the file.

mod dotenv;
mod flags;
mod found_files;
mod project;
mod reference;
mod remote;
mod screen;
mod top;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use hawksbill_core::config::{ConfigError, Origin, Table, Value};
use hawksbill_core::{Address, Registry};
use hawksbill_supervisor::Resume;

use self::flags::Flags;
use self::found_files::Inquiry;
use self::project::Project;
use self::screen::Screen;
use crate::control::Subject;
use crate::processes::{self, AtStart, Counted, Hosting, Supervised};
use crate::{Config, log};

pub(crate) use self::screen::url;

/// What `-c` defaults to.
const DEFAULT_FILE: &str = "hawksbill.toml";
/// Where a site listens when nothing says where.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:8000";

/// The flag that makes a development server.
const RELOAD: &str = "reload";
/// What counts as a change besides, and what does not.
const EXTRA: &str = "reload-extra";
const EXCLUDE: &str = "reload-exclude";
/// The same in the environment.
const RELOAD_VARIABLE: &str = "HAWKSBILL_RELOAD";

/// The flag that leaves out the screen of the start.
const QUIET: &str = "quiet";

/// What the program around this library knows of itself.
#[derive(Clone, Debug)]
pub struct Program {
    /// The command that starts this command line again, without arguments: `hawksbill run` works in processes of its own.
    pub command: Vec<String>,
    /// Has its allocator give free memory back to the system. Called from the thread of the connections in a quiet moment
    /// after many were busy.
    pub give_back: fn(),
    /// What it takes to fork a process that has loaded applications; without it none is preloaded.
    pub preloading: Option<Preloading>,
}

/// What it takes to fork a process that has loaded applications: known to whoever loads them.
#[derive(Clone, Copy, Debug)]
pub struct Preloading {
    /// Keeps what is loaded from now on for the processes that will be forked.
    pub begin: fn() -> Result<(), String>,
    /// Looks whether what has been loaded outlives a fork, and prepares it for one; else says why it does not.
    pub settle: fn() -> Result<(), String>,
    /// Why the process cannot be forked as it is now.
    pub check: fn() -> Result<(), String>,
    /// As fork(2): 0 in the new process, whose number in the old one.
    pub fork: fn() -> io::Result<i32>,
}

/// Runs the command line with these kinds. `args` begins with the program's name.
///
/// The exit code is 0 when the gateway ended as it was asked to, 1 when it could not start or serve, 2 when the
/// command line itself is wrong.
pub fn main(args: impl IntoIterator<Item = OsString>, program: Program, registry: &Registry) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let Program { command: program, give_back, preloading } = program;
    // The supervisor speaks to these two, and people never do.
    match args.get(1).and_then(|word| word.to_str()) {
        Some(processes::WORKER) => {
            let inherited = args.get(2).and_then(|word| word.to_str());
            return told(processes::work(inherited, registry, give_back, preloading));
        }
        Some(processes::LAUNCHER) => return told(Err(hawksbill_supervisor::launch().to_string())),
        _ => {}
    }
    let again = again(&program, &args);
    let flags = Flags::new(registry);
    let matches = match command(&flags).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            // Help and version are errors to clap too; their exit code is 0.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    match matches.subcommand() {
        Some(("run", matches)) => told(run(matches, &flags, registry, program, again)),
        Some(("check", matches)) => told(check(matches, &flags, registry, &program)),
        Some(("reference", _)) => told(print(&reference::page(registry))),
        Some((command, matches)) => told(remote::run(command, matches)),
        None => 2,
    }
}

fn command(flags: &Flags) -> Command {
    let target = Arg::new("TARGET")
        .help(
            "The application, as module:attribute. Without it: the configuration file, else what is found in this \
             directory",
        )
        .conflicts_with("config");
    let file = config_file();
    let with_flags = |command: Command| command.arg(target.clone()).arg(file.clone()).args(flags.args());
    let program = Command::new("hawksbill")
        .version(crate::VERSION)
        .about("A gateway for WSGI and ASGI applications, files and sites")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            with_flags(Command::new("run").about("Serve an application or a configuration")).args(reload()).arg(quiet()),
        )
        .subcommand(with_flags(Command::new("check").about(
            "Read the configuration, print the tree of turtles that it makes, and exit; non-zero if it is wrong",
        )))
        .subcommand(Command::new("reference").about("Print the configuration reference"));
    remote::commands().fold(program, Command::subcommand)
}

/// Development is asked for here and nowhere else: no file may bring it to where it does not belong. One image may serve for
/// both by a variable of its environment, which has to say clearly what is meant.
fn reload() -> [Arg; 3] {
    let further =
        |name, value| Arg::new(name).long(name).value_name(value).action(ArgAction::Append).requires(RELOAD);
    [
        Arg::new(RELOAD).long(RELOAD).env(RELOAD_VARIABLE).action(ArgAction::SetTrue).value_parser(is_wanted).help(
            "For development, never for production: load an application again as soon as one of its files is saved, and \
             show what is wrong with it in the browser",
        ),
        further(EXTRA, "PATH").value_parser(value_parser!(PathBuf)).help(
            "With --reload: a change of this file, or of any below this directory, loads all applications again",
        ),
        further(EXCLUDE, "PATTERN").help(
            "With --reload: a change of a file whose whole path is like this, as in '*/drafts/*', loads nothing again",
        ),
    ]
}

/// What the flags say of what counts as a change.
fn counted(matches: &ArgMatches) -> Result<Counted, String> {
    let extra = matches.get_many::<PathBuf>(EXTRA).into_iter().flatten().cloned();
    let except = matches.get_many::<String>(EXCLUDE).into_iter().flatten().cloned();
    Counted::new(extra, except).map_err(|error| format!("flag --{EXCLUDE}: {error}"))
}

/// Yes or no, as a variable says it; an empty one says nothing.
fn is_wanted(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "" | "0" | "false" => Ok(false),
        _ => Err(format!("set {RELOAD_VARIABLE} to 1 or true for development, to 0 or false for production")),
    }
}

/// Who has asked for development.
fn asked_by(matches: &ArgMatches) -> &'static str {
    match matches.value_source(RELOAD) {
        Some(ValueSource::EnvVariable) => RELOAD_VARIABLE,
        _ => "--reload",
    }
}

fn quiet() -> Arg {
    Arg::new(QUIET)
        .long(QUIET)
        .action(ArgAction::SetTrue)
        .help("Say nothing at the start of what is served, and where; what is wrong is still told")
}

/// Whether one of the flags was given that `run` alone has.
fn is_set(matches: &ArgMatches, flag: &str) -> bool {
    matches.try_get_one::<bool>(flag).ok().flatten().copied().unwrap_or_default()
}

fn config_file() -> Arg {
    Arg::new("config")
        .short('c')
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .env("HAWKSBILL_CONFIG")
        .help(format!("The configuration file [default: {DEFAULT_FILE} in this directory]"))
}

/// Tells a failure on standard error.
fn told(result: Result<(), String>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(message) => {
            // A worker has told its supervisor.
            if !message.is_empty() {
                let _ = writeln!(io::stderr(), "hawksbill: {message}");
            }
            1
        }
    }
}

/// The command that does this again.
fn again(program: &[String], args: &[OsString]) -> Vec<String> {
    let args = args.iter().skip(1).map(|word| word.to_string_lossy().into_owned());
    program.iter().cloned().chain(args).collect()
}

fn run(
    matches: &ArgMatches,
    flags: &Flags,
    registry: &Registry,
    program: Vec<String>,
    again: Vec<String>,
) -> Result<(), String> {
    let files = Inquiry::of(is_set(matches, RELOAD), &program);
    let read = || load(matches, flags, registry, &files).map_err(|error| error.to_string());
    let resume = Resume::from_environment().map_err(|error| format!("cannot take over: {error}"))?;
    let config = read()?;
    if let Some(resume) = resume.as_ref().filter(|resume| resume.is_trial()) {
        return resume
            .approve()
            .map_err(|error| format!("cannot say that this program may take over: {error}"));
    }
    log::begin(&config.settings, &config.dir)?;
    let project = found(matches).map_err(|error| error.to_string())?;
    if let Some(project) = &project {
        tracing::info!("{}", project.said());
        if let Some(warning) = project.warning() {
            tracing::warn!("{warning}");
        }
    }
    let development = is_set(matches, RELOAD);
    for warning in files.warnings() {
        tracing::warn!("{warning}");
    }
    let by = asked_by(matches);
    // Whoever has typed the flag knows; a variable may have been forgotten.
    if development && (by == RELOAD_VARIABLE || !is_set(matches, QUIET)) {
        tracing::warn!("{}", processes::development_notice(&config, by));
    }
    let finders = files.route_of_finders();
    let screen = (!is_set(matches, QUIET)).then(|| Screen::of(&config).and(finders));
    let screen =
        screen.map(|screen| Box::new(move |addresses: &[Address]| screen.with(addresses)) as AtStart);
    let target = matches.get_one::<String>("TARGET").map(String::as_str);
    let subject = match target.or_else(|| project.as_ref().map(Project::target)) {
        Some(target) => Subject::target(Path::new("."), target),
        None => Subject::file(named_file(matches)),
    };
    let counted = counted(matches)?;
    let how = Supervised { program, again, subject, registry, read: &read, screen, development, counted };
    processes::supervise(config, how, resume)
}

/// The configuration file, where it is named and where it is not.
fn named_file(matches: &ArgMatches) -> &Path {
    matches.get_one::<PathBuf>("config").map_or(Path::new(DEFAULT_FILE), PathBuf::as_path)
}

fn check(matches: &ArgMatches, flags: &Flags, registry: &Registry, program: &[String]) -> Result<(), String> {
    let files = Inquiry::of(is_set(matches, RELOAD), program);
    let mut config = load(matches, flags, registry, &files).map_err(|error| error.to_string())?;
    let tree = config.to_string();
    let hosting = Hosting::of(&mut config).map_err(|error| error.to_string())?;
    let tree = format!("{tree}{hosting}\n");
    hosting.rehearse(config).map_err(|error| error.to_string())?;
    print(&tree)
}

fn print(text: &str) -> Result<(), String> {
    io::stdout().write_all(text.as_bytes()).map_err(|error| format!("cannot write: {error}"))
}

/// The project in this directory, where neither an application nor a file is named and there is no file.
fn found(matches: &ArgMatches) -> Result<Option<Project>, ConfigError> {
    let named = matches.contains_id("config") || matches.get_one::<String>("TARGET").is_some();
    if named || named_file(matches).exists() {
        return Ok(None);
    }
    let variable = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    Project::look(Path::new("."), variable)
}

fn load(
    matches: &ArgMatches,
    flags: &Flags,
    registry: &Registry,
    files: &Inquiry,
) -> Result<Config, ConfigError> {
    let mut over = flags.settings(matches);
    if is_set(matches, RELOAD) {
        processes::develop(&mut over);
    }
    let project = found(matches)?;
    let app = match (matches.get_one::<String>("TARGET"), &project) {
        (Some(target), _) => Some(flags.app(matches, target, None)?),
        (None, Some(project)) => {
            let (name, mut app) = flags.app(matches, project.target(), project.kind())?;
            project.complete(&mut app);
            files.make(project, &app);
            Some((name, app))
        }
        (None, None) => None,
    };
    let config = if let Some((name, app)) = app {
        let mut site = Table::from_iter([("/", Value::string(&name, Origin::named("TARGET")))]);
        files.route(&mut site);
        let app = Value::new(app, Origin::named("TARGET"));
        over.insert("apps", Origin::unknown(), Value::from(Table::from_iter([(name, app)])));
        over.insert("sites", Origin::unknown(), Value::from(Table::from_iter([("*", Value::from(site))])));
        Config::from_value(Value::from(over), ".", registry)
    } else {
        if let Some(flag) = flags.app_flag_given(matches) {
            let message =
                "this flag belongs to an application; name one, as in 'hawksbill run module:attribute'";
            return Err(ConfigError::new(flag, message));
        }
        let file = named_file(matches);
        if !matches.contains_id("config") && !file.exists() {
            let message = project::nothing(Path::new("."), DEFAULT_FILE);
            return Err(ConfigError::new(Origin::unknown(), message));
        }
        Config::load(file, over, registry)
    };
    config.and_then(|mut config| {
        config.listen_somewhere(DEFAULT_LISTEN)?;
        Ok(config)
    })
}

#[cfg(test)]
mod tests {
    use super::is_wanted;

    #[test]
    fn a_variable_says_clearly_what_is_meant() {
        for text in ["1", "true", "True", "TRUE"] {
            assert_eq!(is_wanted(text), Ok(true), "{text}");
        }
        for text in ["0", "false", "False", ""] {
            assert_eq!(is_wanted(text), Ok(false), "{text}");
        }
        for text in ["yes", "on", "2", " 1", "production"] {
            assert!(is_wanted(text).unwrap_err().contains("HAWKSBILL_RELOAD"), "{text}");
        }
    }
}
