//! The commands that ask a gateway which is running, through its control socket.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use hawksbill_core::config::Duration as Span;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{config_file, named_file, print};
use crate::config::{self, Control};
use crate::control::{Client, Refused, Report, Subject, age, find};
use crate::log;

/// How long a gateway may take to say how it is.
const QUICK: Duration = Duration::from_secs(20);

/// How long the gateway may take to gather the stacks of its processes.
const STACKS: Duration = Duration::from_secs(60);

/// How often to look whether a gateway that was stopped is gone.
const LOOK: Duration = Duration::from_millis(50);

/// The commands.
pub(super) fn commands() -> impl Iterator<Item = Command> {
    let app = || Arg::new("APP").required(true).help("The application, as the configuration calls it");
    let maybe = |help: &'static str| app().required(false).help(help);
    let all = [
        Command::new("status").about("Show the processes of the gateway that runs here").arg(
            Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print it as JSON"),
        ),
        Command::new("top").about("Watch how much there is to do and how it goes, by site and application").arg(
            Arg::new("once").long("once").action(ArgAction::SetTrue).help("Print one table, and need no terminal"),
        ),
        Command::new("reload")
            .about("Load the configuration and the applications again, beside those that serve; returns when the new ones do")
            .arg(maybe("Only these applications [default: all]").action(ArgAction::Append).num_args(0..)),
        Command::new("deploy")
            .about("Have an application served from another directory; the former processes are kept for a way back")
            .arg(app())
            .arg(path("dir", "DIR", "The directory with the new code").required(true))
            .arg(path("venv", "DIR", "The virtual environment that goes with it [default: the one in use]"))
            .arg(span("keep", "10m", "How long 'hawksbill rollback' can go back at once"))
            .arg(span("probation", "3s", "How long the new processes are watched; if one dies, the former serve again")),
        Command::new("rollback").about("Go back to what served before the last deploy, at once").arg(app()),
        Command::new("scale")
            .about("Give an application another number of workers, until the configuration is loaded again")
            .arg(app())
            .arg(Arg::new("N").required(true).value_parser(value_parser!(u32).range(1..=1024)).help("How many")),
        Command::new("stop").about("End the gateway once the requests under way are answered").arg(
            Arg::new("now").long("now").action(ArgAction::SetTrue).help("Cut the requests under way"),
        ),
        Command::new("upgrade").about(
            "Replace the program by the one that is installed now, and its processes, while the requests go on",
        ),
        Command::new("log-level").about("Log more or less from now on").arg(
            Arg::new("LEVEL").required(true).value_parser(["error", "warn", "info", "debug", "trace"]),
        ),
        Command::new("logs")
            .about("Show what was logged lately")
            .arg(Arg::new("NAME").help("Only of this application or service [default: all]"))
            .arg(Arg::new("follow").short('f').long("follow").action(ArgAction::SetTrue).help("And what is logged from now on"))
            .arg(
                Arg::new("last")
                    .short('n')
                    .long("last")
                    .value_name("N")
                    .value_parser(value_parser!(u32))
                    .default_value("100")
                    .help("So many records, of the 2000 or so that the gateway remembers"),
            )
            .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print each as JSON")),
        Command::new("stacks")
            .about("Show what the threads of the workers are doing")
            .arg(maybe("The application [default: all]")),
    ];
    let socket = path(
        "control",
        "PATH",
        "The gateway's control socket [default: found by the configuration file or this directory]",
    );
    let socket = socket.env("HAWKSBILL_CONTROL");
    all.into_iter().map(move |command| command.arg(config_file()).arg(socket.clone()))
}

fn path(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).value_parser(value_parser!(PathBuf)).help(help)
}

fn span(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    let read = |text: &str| text.parse::<Span>().map_err(|error| error.to_string());
    Arg::new(name).long(name).value_name("TIME").value_parser(read).default_value(default).help(help)
}

/// Runs one of the commands.
pub(super) fn run(command: &str, matches: &ArgMatches) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot start the runtime: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let socket = socket(matches).await?;
        let asked = Asked { client: Client::new(&socket), matches };
        let done = match command {
            "status" => asked.status().await,
            "top" => super::top::run(&socket, matches.get_flag("once")).await,
            "reload" => asked.reload().await,
            "deploy" => asked.deploy().await,
            "rollback" => asked.rollback().await,
            "scale" => asked.scale().await,
            "stop" => asked.stop().await,
            "log-level" => asked.log_level().await,
            "upgrade" => asked.upgrade().await,
            "logs" => asked.logs().await,
            _ => asked.stacks().await,
        };
        done.map_err(|refused| explain(refused, &socket))
    })
}

/// The socket that is meant.
async fn socket(matches: &ArgMatches) -> Result<PathBuf, String> {
    if let Some(path) = matches.get_one::<PathBuf>("control") {
        return Ok(path.clone());
    }
    let file = named_file(matches);
    match config::peek(file, "control") {
        Some(Control::At(path)) => {
            return Ok(file.parent().unwrap_or(Path::new("")).join(path));
        }
        Some(Control::Off) => {
            return Err(format!("{} says control = false: its gateway cannot be asked", file.display()));
        }
        Some(Control::Usual) | None => {}
    }
    let mut subjects = vec![Subject::file(file)];
    if !matches.contains_id("config") {
        subjects.push(Subject::target(Path::new("."), ""));
    }
    let mut found = find(&subjects);
    if found.len() > 1 {
        return Err(several(&found).await);
    }
    found.pop().map(|found| found.path).ok_or_else(|| {
        let here = if matches.contains_id("config") {
            format!("for {}", file.display())
        } else {
            env::current_dir().map_or_else(|_| "here".to_owned(), |dir| format!("in {}", dir.display()))
        };
        format!(
            "no gateway of this user is running {here}; start one with 'hawksbill run', \
             or say which one is meant with -c FILE or --control PATH"
        )
    })
}

/// What to choose from.
async fn several(found: &[crate::control::Found]) -> String {
    let mut lines = String::from("several gateways are running here; choose one with --control PATH:");
    for one in found {
        let report = Client::new(&one.path).get::<Report>("/status", QUICK).await;
        let listen = report.map_or_else(|_| "?".to_owned(), |report| report.listen.join(", "));
        let (path, pid) = (one.path.display(), one.pid);
        // Writing to a string does not fail.
        let _ = write!(lines, "\n  {path}  (pid {pid}, {listen})");
    }
    lines
}

fn explain(refused: Refused, socket: &Path) -> String {
    let shown = socket.display();
    match refused {
        // What a process said stands for itself.
        Refused::Refusal(error, None) => error,
        Refused::Refusal(error, Some(details)) => format!("{error}\n{}", details.trim_end()),
        Refused::Broken(error) => format!("{error} (control socket {shown})"),
        Refused::Nobody(error) => match error.kind() {
            io::ErrorKind::NotFound => format!("there is no control socket {shown}; is the gateway running?"),
            io::ErrorKind::ConnectionRefused => {
                format!(
                    "nobody listens at {shown}: the gateway was killed; start it again with 'hawksbill run'"
                )
            }
            io::ErrorKind::PermissionDenied => format!(
                "the control socket {shown} may be used only by the user who runs the gateway and by root; try it with sudo"
            ),
            _ => format!("cannot connect to the control socket {shown}: {error}"),
        },
    }
}

#[derive(Deserialize)]
struct Applied {
    generation: u64,
    pools: Vec<String>,
    #[serde(default)]
    failing: BTreeMap<String, String>,
}

struct Asked<'a> {
    client: Client,
    matches: &'a ArgMatches,
}

impl Asked<'_> {
    fn app(&self) -> &str {
        self.matches.get_one::<String>("APP").map_or("", String::as_str)
    }

    async fn status(&self) -> Result<(), Refused> {
        if self.matches.get_flag("json") {
            let report: Value = self.client.get("/status", QUICK).await?;
            return say(&format!("{report:#}\n"));
        }
        let report: Report = self.client.get("/status", QUICK).await?;
        say(&report.to_string())
    }

    async fn reload(&self) -> Result<(), Refused> {
        let apps: Vec<&String> = self.matches.get_many("APP").into_iter().flatten().collect();
        let applied: Applied = self.client.post("/reload", &json!({ "apps": apps })).await?;
        say(&format!("generation {} serves: {}\n", applied.generation, applied.pools.join(", ")))?;
        let failing =
            applied.failing.iter().map(|(name, end)| format!("{name} fails, and is tried again: {end}"));
        let failing: Vec<String> = failing.collect();
        if failing.is_empty() { Ok(()) } else { Err(Refused::Refusal(failing.join("\n"), None)) }
    }

    async fn deploy(&self) -> Result<(), Refused> {
        let full = |name: &str| {
            let path = self.matches.get_one::<PathBuf>(name)?;
            std::path::absolute(path).ok()
        };
        let seconds = |name: &str| self.matches.get_one::<Span>(name).map_or(0.0, |span| span.as_secs_f64());
        let (app, keep) = (self.app(), seconds("keep"));
        let (dir, venv, probation) = (full("dir"), full("venv"), seconds("probation"));
        let body = json!({ "app": app, "dir": dir, "venv": venv, "keep": keep, "probation": probation });
        let applied: Applied = self.client.post("/deploy", &body).await?;
        let back = if keep > 0.0 {
            format!("; for {} the former one can be had back with 'hawksbill rollback {app}'", age(keep))
        } else {
            String::new()
        };
        let dir = dir.unwrap_or_default();
        say(&format!("generation {} of {app} serves from {}{back}\n", applied.generation, dir.display()))
    }

    async fn rollback(&self) -> Result<(), Refused> {
        let app = self.app();
        let applied: Applied = self.client.post("/rollback", &json!({ "app": app })).await?;
        say(&format!("generation {} of {app} serves again\n", applied.generation))
    }

    async fn scale(&self) -> Result<(), Refused> {
        let (app, workers) = (self.app(), self.matches.get_one::<u32>("N").copied().unwrap_or(1));
        let body = json!({ "app": app, "workers": workers });
        self.client.post::<Value>("/scale", &body).await?;
        let many = if workers == 1 { "worker" } else { "workers" };
        say(&format!("{app} has {workers} {many} from now on, until the configuration is loaded again\n"))
    }

    async fn stop(&self) -> Result<(), Refused> {
        let drain = !self.matches.get_flag("now");
        let stopped: Value = self.client.post("/stop", &json!({ "drain": drain })).await?;
        while self.client.is_there().await {
            tokio::time::sleep(LOOK).await;
        }
        let pid = stopped.get("pid").and_then(Value::as_u64).unwrap_or_default();
        say(&format!("the gateway has ended (pid {pid})\n"))
    }

    /// The gateway becomes another program in the middle of the connection, under the same number and at the same socket.
    async fn upgrade(&self) -> Result<(), Refused> {
        let before: Report = self.client.get("/status", QUICK).await?;
        match self.client.post::<Value>("/upgrade", &json!({})).await {
            Ok(_) | Err(Refused::Broken(_)) => {}
            Err(refused) => return Err(refused),
        }
        let mut answered = Instant::now();
        loop {
            match self.client.get::<Report>("/status", QUICK).await {
                Ok(now) if now.pid != before.pid => {
                    return Err(Refused::Broken("another gateway has taken its place".to_owned()));
                }
                Ok(now) if now.upgrades.count != before.upgrades.count => return upgraded(&now),
                Ok(_) => answered = Instant::now(),
                Err(refused) if answered.elapsed() > QUICK => return Err(refused),
                Err(_) => {}
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn log_level(&self) -> Result<(), Refused> {
        let level = self.matches.get_one::<String>("LEVEL").map_or("", String::as_str);
        self.client.post::<Value>("/log-level", &json!({ "level": level })).await?;
        say(&format!("the gateway logs at the level {level} from now on\n"))
    }

    async fn logs(&self) -> Result<(), Refused> {
        let last = self.matches.get_one::<u32>("last").copied().unwrap_or_default();
        let mut path = format!("/logs?last={last}");
        if let Some(name) = self.matches.get_one::<String>("NAME") {
            let _ = write!(path, "&name={}", utf8_percent_encode(name, NON_ALPHANUMERIC));
        }
        if self.matches.get_flag("follow") {
            path.push_str("&follow=true");
        }
        let as_json = self.matches.get_flag("json");
        let writer = log::Writer { colours: io::stdout().is_terminal() };
        self.client
            .lines(&path, |line| match serde_json::from_str::<log::Record>(line) {
                Ok(record) if !as_json => say(&writer.text(&record)),
                _ if line.is_empty() => Ok(()),
                // Another version's record is shown as it is.
                _ => say(&format!("{line}\n")),
            })
            .await
    }

    async fn stacks(&self) -> Result<(), Refused> {
        #[derive(Deserialize)]
        struct Stacks {
            processes: BTreeMap<u64, Value>,
        }
        let query = self
            .matches
            .get_one::<String>("APP")
            .map(|app| format!("?app={}", utf8_percent_encode(app, NON_ALPHANUMERIC)));
        let report: Report = self.client.get("/status", QUICK).await?;
        let stacks: Stacks =
            self.client.get(&format!("/stacks{}", query.unwrap_or_default()), STACKS).await?;
        let mut text = String::new();
        for (number, stack) in &stacks.processes {
            let (pool, pid) = report.process(*number).unwrap_or(("?", 0));
            let stack = match stack {
                Value::String(stack) => stack.clone(),
                Value::Null => "it does not say".to_owned(),
                other => format!("{other:#}"),
            };
            let _ = writeln!(text, "== {pool}: process {pid}\n{}", stack.trim_end());
        }
        if text.is_empty() {
            text.push_str("no process has answered\n");
        }
        say(&text)
    }
}

fn upgraded(now: &Report) -> Result<(), Refused> {
    let (version, pid) = (&now.hawksbill, now.pid);
    match &now.upgrades.error {
        None => say(&format!("hawksbill {version} serves (pid {pid})\n")),
        Some(error) => {
            let why = "has taken over, but its processes do not start; those of the former program serve on";
            Err(Refused::Refusal(format!("hawksbill {version} {why}: {error}"), None))
        }
    }
}

fn say(text: &str) -> Result<(), Refused> {
    print(text).map_err(Refused::Broken)
}
