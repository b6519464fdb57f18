//! What ends with what: the supervisor, its processes, orphans; and what a process is made to be before it begins.

mod common;

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::program::{activated, field, numbers, said, supervisor};
use common::{LIMIT, kill, plan, pool, role, runs, supervise, until, worker};
use hawksbill_supervisor::{Apply, Event, Identity, Limit, Output, Plan, Pool, Program};
use rustix::process::Signal;
use serde_json::json;

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
async fn another_program_takes_over_while_processes_serve() {
    let (mut child, mut stdout) = supervisor(&[], &[]);
    let mut pids = numbers(&said(&mut stdout, "serving"));
    for _ in 0..2 {
        kill(child.id(), Signal::USR2);
        let refusal = said(&mut stdout, "upgrade").join(" ");
        assert!(
            refusal.starts_with("the new program does not take over: on trial it ended with"),
            "{refusal}"
        );
        kill(child.id(), Signal::USR2);
        assert_eq!(numbers(&said(&mut stdout, "resumed")), pids);
        assert_eq!(said(&mut stdout, "told"), ["since", "the", "start"]);
        // It looks after the processes that another program has started.
        kill(pids[0], Signal::KILL);
        let whole = loop {
            kill(child.id(), Signal::USR1);
            let whole = numbers(&said(&mut stdout, "whole"));
            if !whole.contains(&pids[0]) {
                break whole;
            }
        };
        assert!(whole.len() == 2 && whole.contains(&pids[1]));
        pids = whole;
    }
    kill(child.id(), Signal::HUP);
    until(|| async { (!pids.iter().any(|&pid| runs(pid))).then_some(()) }).await;
    kill(child.id(), Signal::TERM);
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn a_trial_holds_nothing_up_and_ends_with_all() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let mut running = supervise();
    running.apply([("shop", pool(1, json!({})))]).await.unwrap();
    // It says neither yes nor no.
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", file.display());
    let program = Program { path: "sh".into(), args: vec!["-c".into(), script], ..Program::default() };
    let handle = running.handle.clone();
    let upgrade = tokio::spawn(async move { handle.upgrade(program, json!(null)).await });
    let trial: u32 = until(|| async { std::fs::read_to_string(&file).ok()?.trim().parse().ok() }).await;
    // A process that dies meanwhile is replaced.
    let [first] = running.serving("shop").await[..] else { panic!() };
    kill(first, Signal::KILL);
    running.event(|event| matches!(event, Event::Ended { .. }).then_some(())).await;
    let [second] = running.whole("shop", 1).await[..] else { panic!() };
    assert_ne!(first, second);
    // What the program was told of stays as it is.
    let refused = running.handle.scale("shop", 2).await.unwrap_err();
    assert!(refused.to_string().contains("about to take over"), "{refused}");
    assert!(runs(trial));
    running.handle.stop(true).await;
    assert!(!runs(trial));
    assert!(upgrade.await.unwrap().to_string().contains("told to end"));
}

#[tokio::test]
async fn the_first_process_of_a_container_takes_orphans_in() {
    let mut through = vec!["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"];
    if !rustix::process::geteuid().is_root() {
        through.extend(["--user", "--map-root-user"]);
    }
    let (mut child, mut stdout) = supervisor(&through, &[]);
    said(&mut stdout, "serving");
    let children = || {
        let path = format!("/proc/{0}/task/{0}/children", child.id());
        let first = std::fs::read_to_string(path).unwrap();
        first.trim().parse::<u32>().unwrap()
    };
    let first = children();
    let inside = || {
        // Of whichever thread.
        let tasks = std::fs::read_dir(format!("/proc/{first}/task")).unwrap();
        let of = |task: std::fs::DirEntry| {
            std::fs::read_to_string(task.path().join("children")).unwrap_or_default()
        };
        tasks.map(|task| of(task.unwrap()).split_whitespace().count()).sum::<usize>()
    };
    assert_eq!(inside(), 2);
    // An orphan is born in there, and dies.
    let orphan = "sleep 0.5 & exit";
    let entered = Command::new("nsenter").args(["-t", &first.to_string(), "-p", "sh", "-c", orphan]).status();
    assert!(entered.unwrap().success());
    until(|| async { (inside() == 3).then_some(()) }).await;
    until(|| async { (inside() == 2).then_some(()) }).await;
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

#[tokio::test]
async fn a_pool_is_another_user_with_limits() {
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
    let applied = running.handle.apply(Apply::new(launched("nap", nap))).await;
    if !rustix::process::geteuid().is_root() {
        // What does not speak counts as ready once it runs; the launcher's failure is a death.
        until(|| async { (running.handle.status().await?.pools["nap"].deaths > 0).then_some(()) }).await;
        running.stop().await;
        return;
    }
    applied.unwrap();
    let pid = running.serving("nap").await[0];
    until(|| async { (field(pid, "Name") == "sleep").then_some(()) }).await;
    assert_eq!(field(pid, "Uid"), "65534 65534 65534 65534");
    assert_eq!(field(pid, "Gid"), "65534 65534 65534 65534");
    assert_eq!(field(pid, "Groups"), "1234 65534");
    assert_eq!(field(pid, "Umask"), "0027");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("123"));
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut open = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    assert!(
        !open.any(|file| file.to_string_lossy().contains("hawksbill")),
        "the order to launch is left open"
    );
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
}
