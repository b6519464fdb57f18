//! This test program as a program around a supervisor.

use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use hawksbill_supervisor::{Apply, Pool, Program, Received, Resume, Settings, Signals, Supervisor, systemd};
use serde_json::json;

use super::{Running, plan, pool, role};

/// It does not outlive a test that fails.
pub(crate) struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl std::ops::Deref for Started {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl std::ops::DerefMut for Started {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

/// Starts it, through another program if need be.
pub(crate) fn supervisor(through: &[&str], env: &[(&str, &str)]) -> (Started, BufReader<ChildStdout>) {
    let own = role("common::program::as_supervisor");
    let mut words = through.iter().copied().chain([own.path.as_str()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(&own.args).env("AS_SUPERVISOR", "1").envs(env.iter().copied());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (Started(child), stdout)
}

/// A supervisor that was handed a socket, as systemd does: descriptor 3, its own number in `LISTEN_PID`.
pub(crate) fn activated(env: &[(&str, &str)]) -> (Started, BufReader<ChildStdout>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let script = format!(
        "exec 3<&{}; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec \"$0\" \"$@\"",
        listener.as_raw_fd()
    );
    supervisor(&["bash", "-c", &script], env)
}

/// Reads on until something is said with this word before it.
pub(crate) fn said(from: &mut BufReader<ChildStdout>, word: &str) -> Vec<String> {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(from.read_line(&mut line).unwrap() > 0, "nothing is said about '{word}'");
        // The test harness does not end its own line.
        if let Some((_, rest)) = line.trim_end().split_once(&format!("{word}:")) {
            return rest.split(' ').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        }
    }
}

pub(crate) fn numbers(words: &[String]) -> Vec<u32> {
    words.iter().map(|word| word.parse().unwrap()).collect()
}

/// What the system says of a process.
pub(crate) fn field(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Not a test but the program.
#[test]
fn as_supervisor() {
    if std::env::var_os("AS_SUPERVISOR").is_none() {
        return;
    }
    let resume = Resume::from_environment().unwrap();
    if let Some(resume) = &resume
        && resume.is_trial()
    {
        resume.approve().unwrap();
        std::process::exit(0);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut signals = Signals::new().unwrap();
        let running = match resume {
            Some(resume) => go_on(resume).await,
            None => begin().await,
        };
        obey(&mut signals, &running).await;
        running.stop().await;
    });
    std::process::exit(0);
}

async fn begin() -> Running {
    let sockets = systemd::sockets().unwrap();
    println!("\nsockets: {}", sockets.names().collect::<Vec<_>>().join(" "));
    println!("watchdog: {:?}", systemd::Notifier::from_environment().watchdog());
    let inherit = sockets.names().map(str::to_owned).collect();
    let running = super::supervise_with(Settings::default(), sockets);
    let drain = std::env::var("DRAIN").map_or(0, |millis| millis.parse().unwrap());
    let shop = Pool { inherit, stop_timeout: Duration::from_secs(1), ..pool(2, json!({"drain": drain})) };
    running.handle.apply(Apply::new(plan([("shop", shop)]))).await.unwrap();
    println!("serving: {}", serving(&running).await);
    running
}

async fn go_on(resume: Resume) -> Running {
    let note = resume.note().as_str().unwrap().to_owned();
    let (supervisor, handle) = Supervisor::resume(Settings::default(), resume).unwrap();
    let running = Running::of(supervisor, handle);
    println!("\nresumed: {}\ntold: {note}", serving(&running).await);
    running
}

async fn serving(running: &Running) -> String {
    words(&running.serving("shop").await)
}

fn words(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

async fn obey(signals: &mut Signals, running: &Running) {
    let notifier = systemd::Notifier::from_environment();
    notifier.ready("two processes");
    let mut upgrades = 0;
    loop {
        let signal = signals.next().await;
        println!("signal: {}", signal.name());
        match signal {
            Received::Reload => {
                notifier.reloading();
                running.handle.reload([], Duration::ZERO).await.unwrap();
                notifier.ready("reloaded");
            }
            Received::User1 => {
                notifier.alive();
                let whole = running.whole("shop", 2).await;
                println!("whole: {}", words(&whole));
            }
            Received::User2 => {
                // The first time to one that does not understand.
                let own = role("common::program::as_supervisor");
                let broken = Program { path: "true".into(), ..Program::default() };
                let program = if upgrades == 0 { broken } else { own };
                upgrades += 1;
                println!("upgrade: {}", running.handle.upgrade(program, json!("since the start")).await);
            }
            _ => break,
        }
    }
    notifier.stopping();
}
