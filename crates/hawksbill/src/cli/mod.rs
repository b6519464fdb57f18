//! The command line. Every flag is a key of the configuration and has an environment variable; flags win over the
//! environment, the environment wins over the file.

mod dotenv;
mod flags;
mod project;
mod reference;
mod remote;
mod screen;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, value_parser};
use hawksbill_core::config::{ConfigError, Origin, Table, Value};
use hawksbill_core::{Address, Registry};
use hawksbill_supervisor::Resume;

use self::flags::Flags;
use self::project::Project;
use self::screen::Screen;
use crate::control::Subject;
use crate::processes::{self, Hosting, Supervised};
use crate::{Config, Gateway, log};

pub(crate) use self::screen::url;

/// What `-c` defaults to.
const DEFAULT_FILE: &str = "hawksbill.toml";
/// Where a site listens when nothing says where.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:8000";

/// Runs the command line with these kinds. `args` begins with the program's name; `program` is the command that starts
/// this command line again, without arguments: `hawksbill run` works in processes of its own.
///
/// The exit code is 0 when the gateway ended as it was asked to, 1 when it could not start or serve, 2 when the
/// command line itself is wrong.
pub fn main(
    args: impl IntoIterator<Item = OsString>,
    program: impl IntoIterator<Item = String>,
    registry: &Registry,
) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let program: Vec<String> = program.into_iter().collect();
    // The supervisor speaks to these two, and people never do.
    match args.get(1).and_then(|word| word.to_str()) {
        Some(processes::WORKER) => {
            return told(processes::work(args.get(2).and_then(|word| word.to_str()), registry));
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
        Some(("check", matches)) => told(check(matches, &flags, registry)),
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
        .subcommand(with_flags(Command::new("run").about("Serve an application or a configuration")))
        .subcommand(with_flags(Command::new("check").about(
            "Read the configuration, print the tree of turtles that it makes, and exit; non-zero if it is wrong",
        )))
        .subcommand(Command::new("reference").about("Print the configuration reference"));
    remote::commands().fold(program, Command::subcommand)
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
    let read = || load(matches, flags, registry).map_err(|error| error.to_string());
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
    let screen = Screen::of(&config);
    let screen = Box::new(move |addresses: &[Address]| screen.with(addresses));
    let target = matches.get_one::<String>("TARGET").map(String::as_str);
    let subject = match target.or_else(|| project.as_ref().map(Project::target)) {
        Some(target) => Subject::target(Path::new("."), target),
        None => Subject::file(named_file(matches)),
    };
    let how = Supervised { program, again, subject, registry, read: &read, screen };
    processes::supervise(config, how, resume)
}

/// The configuration file, where it is named and where it is not.
fn named_file(matches: &ArgMatches) -> &Path {
    matches.get_one::<PathBuf>("config").map_or(Path::new(DEFAULT_FILE), PathBuf::as_path)
}

fn check(matches: &ArgMatches, flags: &Flags, registry: &Registry) -> Result<(), String> {
    let mut config = load(matches, flags, registry).map_err(|error| error.to_string())?;
    let tree = config.to_string();
    let hosting = Hosting::of(&mut config).map_err(|error| error.to_string())?;
    let tree = format!("{tree}{hosting}\n");
    // They are the supervisor's, and looked at by now.
    config.services.clear();
    config.cron.clear();
    // Building finds what reading cannot: missing directories, routes that contradict each other.
    Gateway::new(config).map_err(|error| error.to_string())?;
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

fn load(matches: &ArgMatches, flags: &Flags, registry: &Registry) -> Result<Config, ConfigError> {
    let mut over = flags.settings(matches);
    let project = found(matches)?;
    let app = match (matches.get_one::<String>("TARGET"), &project) {
        (Some(target), _) => Some(flags.app(matches, target, None)?),
        (None, Some(project)) => {
            let (name, mut app) = flags.app(matches, project.target(), project.kind())?;
            project.complete(&mut app);
            Some((name, app))
        }
        (None, None) => None,
    };
    let config = if let Some((name, app)) = app {
        let site = Table::from_iter([("/", Value::string(&name, Origin::named("TARGET")))]);
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
