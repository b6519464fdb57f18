//! What ends with what: the supervisor, its processes, orphans; and what a process is made to be before it begins.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{LIMIT, kill, plan, pool, role, runs, supervise, supervise_with, until, worker};
use hawksbill_supervisor::{
    Apply, Descriptors, Identity, Limit, Output, Plan, Pool, Received, Settings, Signals, systemd,
};
use rustix::process::Signal;
use serde_json::json;

/// This program as a supervisor, with what it says.
fn supervisor(
    through: &[&str],
    env: &[(&str, &str)],
) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let own = role("as_supervisor");
    let mut words = through.iter().copied().chain([own.path.as_str()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(&own.args).env("AS_SUPERVISOR", "1").envs(env.iter().copied());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

/// Reads on until something is said with this word before it.
fn said(from: &mut BufReader<std::process::ChildStdout>, word: &str) -> Vec<String> {
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

/// Not a test but a program around a supervisor.
#[test]
fn as_supervisor() {
    if std::env::var_os("AS_SUPERVISOR").is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut signals = Signals::new().unwrap();
        let sockets = systemd::sockets().unwrap();
        println!("\nsockets: {}", sockets.names().collect::<Vec<_>>().join(" "));
        let notifier = systemd::Notifier::from_environment();
        println!("watchdog: {:?}", notifier.watchdog());
        let inherit = sockets.names().map(str::to_owned).collect();
        let running = supervise_with(Settings::default(), sockets);
        let drain = std::env::var("DRAIN").map_or(0, |millis| millis.parse().unwrap());
        let shop = Pool { inherit, stop_timeout: Duration::from_secs(1), ..pool(2, json!({"drain": drain})) };
        running.handle.apply(Apply::new(plan([("shop", shop)]))).await.unwrap();
        let pids: Vec<String> = running.serving("shop").await.iter().map(u32::to_string).collect();
        println!("serving: {}", pids.join(" "));
        notifier.ready("two processes");
        loop {
            let signal = signals.next().await;
            println!("signal: {}", signal.name());
            match signal {
                Received::Reload => {
                    notifier.reloading();
                    running.handle.reload([], Duration::ZERO).await.unwrap();
                    notifier.ready("reloaded");
                }
                Received::User1 => notifier.alive(),
                _ => break,
            }
        }
        notifier.stopping();
        running.stop().await;
    });
    std::process::exit(0);
}

fn numbers(words: &[String]) -> Vec<u32> {
    words.iter().map(|word| word.parse().unwrap()).collect()
}

#[tokio::test]
async fn no_process_outlives_a_supervisor_that_is_killed() {
    for drain in ["0", "60000"] {
        let (mut child, mut stdout) = supervisor(&[], &[("DRAIN", drain)]);
        let pids = numbers(&said(&mut stdout, "serving"));
        assert_eq!(pids.len(), 2);
        assert!(pids.iter().all(|&pid| runs(pid)));
        child.kill().unwrap();
        child.wait().unwrap();
        until(|| async { (!pids.iter().any(|&pid| runs(pid))).then_some(()) }).await;
    }
}

#[tokio::test]
async fn signals_reload_and_end() {
    let (mut child, mut stdout) = supervisor(&[], &[]);
    let old = numbers(&said(&mut stdout, "serving"));
    kill(child.id(), Signal::HUP);
    assert_eq!(said(&mut stdout, "signal"), ["SIGHUP"]);
    until(|| async { (!old.iter().any(|&pid| runs(pid))).then_some(()) }).await;
    kill(child.id(), Signal::TERM);
    assert_eq!(said(&mut stdout, "signal"), ["SIGTERM"]);
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn the_first_process_of_a_container_takes_orphans_in() {
    let through = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"];
    if !rustix::process::geteuid().is_root() {
        println!("only root makes a process namespace");
        return;
    }
    let (mut child, mut stdout) = supervisor(&through, &[]);
    said(&mut stdout, "serving");
    let children = || {
        let path = format!("/proc/{0}/task/{0}/children", child.id());
        let first = std::fs::read_to_string(path).unwrap();
        first.trim().parse::<u32>().unwrap()
    };
    let first = children();
    // An orphan is born in there, and dies.
    let orphan = "sh -c 'sleep 0.1 & exit'";
    let entered = Command::new("nsenter").args(["-t", &first.to_string(), "-p", "sh", "-c", orphan]).status();
    assert!(entered.unwrap().success());
    let zombies = || {
        let all = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap();
        all.split_whitespace().filter(|pid| !runs(pid.parse().unwrap())).count()
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    until(|| async { (zombies() == 0).then_some(()) }).await;
    kill(first, Signal::TERM);
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn sockets_are_taken_over_and_progress_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let notified = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    notified.set_read_timeout(Some(LIMIT)).unwrap();
    let heard = || {
        let mut buffer = [0; 4096];
        let length = notified.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let env = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "3000000")];
    let (mut child, mut stdout) = activated(&env);
    assert_eq!(said(&mut stdout, "sockets"), ["web"]);
    assert_eq!(said(&mut stdout, "watchdog"), ["Some(1.5s)"]);
    assert_eq!(heard(), "READY=1\nSTATUS=two processes");
    let served = numbers(&said(&mut stdout, "serving"));
    let environment = std::fs::read_to_string(format!("/proc/{}/environ", served[0])).unwrap();
    for name in ["LISTEN_PID", "LISTEN_FDS", "NOTIFY_SOCKET", "WATCHDOG_USEC"] {
        assert!(!environment.contains(name), "{name} reached a process");
    }
    kill(child.id(), Signal::HUP);
    let reloading = heard();
    let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(micros.parse::<u64>().unwrap() > 0);
    assert_eq!(heard(), "READY=1\nSTATUS=reloaded");
    kill(child.id(), Signal::USR1);
    assert_eq!(heard(), "WATCHDOG=1");
    kill(child.id(), Signal::TERM);
    assert_eq!(heard(), "STOPPING=1");
    assert!(child.wait().unwrap().success());
}

/// A supervisor that was handed a socket, as systemd does: descriptor 3, its own number in `LISTEN_PID`.
fn activated(env: &[(&str, &str)]) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    use std::os::fd::AsRawFd;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let script = format!(
        "exec 3<&{}; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec \"$0\" \"$@\"",
        listener.as_raw_fd()
    );
    supervisor(&["bash", "-c", &script], env)
}

/// Not a test but a launcher.
#[test]
fn as_launcher() {
    if std::env::var_os("HAWKSBILL_DESCRIPTORS").is_some() {
        let error = hawksbill_supervisor::launch();
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn launched(name: &str, pool: Pool) -> Plan {
    let own = role("as_launcher");
    let launcher = [own.path].into_iter().chain(own.args).collect();
    Plan { launcher, ..plan([(name, pool)]) }
}

fn field(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_pool_is_another_user_with_limits() {
    if !rustix::process::geteuid().is_root() {
        println!("only root becomes another user");
        return;
    }
    let identity = Identity {
        user: Some("nobody".into()),
        groups: Some(vec!["65534".into(), "1234".into()]),
        umask: Some(0o027),
        limits: [(Limit::Files, 123), (Limit::Core, 0)].into(),
        ..Identity::default()
    };
    let running = supervise();
    // What the test program is built into may be for root alone: `sh` is for everybody.
    let mut nap = Pool { identity, speaks: false, output: Output::Inherit, ..pool(1, json!({})) };
    nap.program.path = "sleep".into();
    nap.program.args = vec!["60".into()];
    nap.program.dir = Some("/".into());
    running.handle.apply(Apply::new(launched("nap", nap.clone()))).await.unwrap();
    let pid = running.serving("nap").await[0];
    until(|| async { (field(pid, "Name") == "sleep").then_some(()) }).await;
    assert_eq!(field(pid, "Uid"), "65534 65534 65534 65534");
    assert_eq!(field(pid, "Gid"), "65534 65534 65534 65534");
    assert_eq!(field(pid, "Groups"), "1234 65534");
    assert_eq!(field(pid, "Umask"), "0027");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("123"));
    assert!(Path::new(&format!("/proc/{pid}/fd/3")).symlink_metadata().is_err(), "nothing is left open");
    running.stop().await;
}

#[tokio::test]
async fn a_launcher_that_fails_says_so_through_the_channel() {
    let running = supervise();
    let mut shop = pool(1, json!({}));
    shop.identity.user = Some("no-such-user".into());
    let failure = running.handle.apply(Apply::new(launched("shop", shop))).await.unwrap_err();
    assert_eq!(failure.message.as_deref(), Some("there is no user 'no-such-user'"));

    let mut shop = pool(1, json!({}));
    shop.identity.limits = [(Limit::Core, 0)].into();
    running.handle.apply(Apply::new(launched("shop", shop.clone()))).await.unwrap();
    assert_eq!(running.serving("shop").await.len(), 1);
    shop.program.path = "/nowhere/python".into();
    let failure = running.handle.apply(Apply::new(launched("shop", shop))).await.unwrap_err();
    assert!(failure.message.unwrap().contains("cannot start '/nowhere/python'"));
    running.stop().await;
}

#[test]
fn a_worker_that_nobody_started_does_not_begin() {
    let (own, mut text) = (worker(), String::new());
    let mut command = Command::new(&own.path);
    command.args(&own.args).env("HAWKSBILL_DESCRIPTORS", r#"{"@channel":999}"#);
    command.stderr(Stdio::piped()).stdout(Stdio::null()).process_group(0);
    let mut child = command.spawn().unwrap();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(text.contains("the inherited descriptor 999 is not open"), "{text}");
    drop(Descriptors::new());
}
