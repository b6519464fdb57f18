//! A supervisor with real processes: this test program itself, started again as a worker.
// Each test program uses a part of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::print_stdout)]

pub(crate) mod program;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use hawksbill_supervisor::child::{Child, Orders, Reporter};
use hawksbill_supervisor::preloader::{Forker, end_with_supervisor, fork_workers};
use hawksbill_supervisor::{
    Apply, Beat, Descriptors, Event, Handle, Order, Output, Plan, Pool, ProcessStatus, Program, Restart,
    Settings, Size, State, Supervisor,
};
use nix::unistd::ForkResult;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

/// Longer than anything takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// This program as a worker: the test of that name below.
pub(crate) fn worker() -> Program {
    role("common::as_worker")
}

/// This program as whatever one of its tests makes it.
pub(crate) fn role(test: &str) -> Program {
    let path = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let args = [test, "--exact", "--nocapture", "--test-threads=1"].map(str::to_owned).to_vec();
    Program { path, args, ..Program::default() }
}

/// A pool of workers that do what `payload` says.
pub(crate) fn pool(count: u32, payload: Value) -> Pool {
    Pool {
        program: worker(),
        size: Size::fixed(count),
        payload: payload.to_string(),
        stop_timeout: Duration::from_secs(10),
        // The test harness of each worker has things to say.
        output: Output::Lines,
        restart: Restart { first: Duration::from_millis(100), ..Restart::default() },
        ..Pool::default()
    }
}

pub(crate) fn plan<const N: usize>(pools: [(&str, Pool); N]) -> Plan {
    let pools: BTreeMap<String, Pool> = pools.map(|(name, pool)| (name.to_owned(), pool)).into();
    Plan { pools, launcher: Vec::new() }
}

pub(crate) struct Running {
    pub(crate) handle: Handle,
    pub(crate) events: broadcast::Receiver<Event>,
    task: JoinHandle<()>,
}

pub(crate) fn supervise() -> Running {
    supervise_with(Settings::default(), Descriptors::new())
}

pub(crate) fn supervise_with(settings: Settings, descriptors: Descriptors) -> Running {
    let (supervisor, handle) = Supervisor::new(settings, descriptors).unwrap();
    Running::of(supervisor, handle)
}

impl Running {
    pub(crate) fn of(supervisor: Supervisor, handle: Handle) -> Self {
        let events = handle.events();
        Self { handle, events, task: tokio::spawn(supervisor.run()) }
    }

    pub(crate) async fn apply<const N: usize>(
        &self,
        pools: [(&str, Pool); N],
    ) -> Result<hawksbill_supervisor::Applied, hawksbill_supervisor::Failure> {
        self.handle.apply(Apply::new(plan(pools))).await
    }

    pub(crate) async fn processes(&self, pool: &str) -> Vec<ProcessStatus> {
        let mut status = self.handle.status().await.unwrap();
        status.pools.remove(pool).map(|pool| pool.processes).unwrap_or_default()
    }

    /// The numbers of those that serve.
    pub(crate) async fn serving(&self, pool: &str) -> Vec<u32> {
        let serving = self.processes(pool).await.into_iter().filter(|one| one.state == State::Serving);
        serving.map(|process| process.pid).collect()
    }

    /// Waits until exactly so many serve and there is no other.
    pub(crate) async fn whole(&self, pool: &str, count: usize) -> Vec<u32> {
        until(|| async {
            let all = self.processes(pool).await;
            let whole = all.len() == count && all.iter().all(|one| one.state == State::Serving);
            whole.then(|| all.iter().map(|one| one.pid).collect())
        })
        .await
    }

    /// Waits for the first event of which something is found.
    pub(crate) async fn event<T>(&mut self, mut find: impl FnMut(&Event) -> Option<T>) -> T {
        let wait = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if let Some(found) = find(&event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(LIMIT, wait).await.expect("the event came")
    }

    pub(crate) async fn stop(self) {
        self.handle.stop(true).await;
        self.task.await.unwrap();
    }
}

/// Asks until there is an answer.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "it never came to be");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Whether it runs; a corpse does not.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, after)| !after.starts_with('Z'))
}

/// Not a test but the worker: does nothing unless a supervisor has started it.
#[test]
fn as_worker() {
    if Child::is_one() {
        let mut child = Child::from_environment().unwrap();
        if child.is_preloader() {
            child = preload(child);
        }
        let orders = child.orders().unwrap();
        work(&child, orders);
    }
}

/// What a worker says when it is ready: its number, and that of the process from which it was forked.
fn info() -> Value {
    match ORIGIN.get() {
        Some(origin) => json!({"at": std::process::id(), "from": origin}),
        None => json!({"at": std::process::id()}),
    }
}

static ORIGIN: std::sync::OnceLock<u32> = std::sync::OnceLock::new();

/// Comes back in the processes that are forked. The thread of this test is the only one in them.
fn preload(child: Child) -> Child {
    let script: Value = serde_json::from_str(&child.start().payload).unwrap_or_default();
    match script["preload"].as_str() {
        Some("fail") => {
            child.reporter().failed("Traceback: no module named 'shop'");
            std::process::exit(3);
        }
        Some("hang") => std::thread::sleep(LIMIT * 2),
        Some("ready") => child.reporter().ready(Value::Null),
        _ => {}
    }
    end_with_supervisor().unwrap();
    ORIGIN.set(std::process::id()).unwrap();
    fork_workers(child, &mut Forking(script)).unwrap()
}

struct Forking(Value);

impl Forker for Forking {
    fn check(&mut self) -> Result<(), String> {
        let refuses = self.0["fork"] == "refuse";
        if refuses { Err("a thread was started".to_owned()) } else { Ok(()) }
    }

    fn fork(&mut self) -> std::io::Result<i32> {
        if self.0["fork"] == "fail" {
            return Err(std::io::Error::from_raw_os_error(nix::libc::ENOMEM));
        }
        // SAFETY: the test harness's own thread holds no lock while it waits for this one.
        #[allow(unsafe_code)]
        let forked = unsafe { nix::unistd::fork() }?;
        match (forked, self.0["fork"].as_str()) {
            (ForkResult::Child, _) => Ok(0),
            // That is not what was forked.
            (ForkResult::Parent { .. }, Some("lie")) => Ok(1),
            (ForkResult::Parent { child }, _) => Ok(child.as_raw()),
        }
    }

    fn told(&mut self, _: Order) {}
}

fn work(child: &Child, mut orders: Orders) -> ! {
    let script: Value = serde_json::from_str(&child.start().payload).unwrap_or_default();
    let reporter = child.reporter();
    match script["start"].as_str() {
        Some("fail") => {
            reporter.failed("Traceback: no module named 'shop'");
            // One that does not end by itself.
            std::thread::sleep(Duration::from_millis(script["then"].as_u64().unwrap_or(0)));
            std::process::exit(3);
        }
        Some("die") => {
            eprintln!("SyntaxError: line 7");
            std::process::exit(4);
        }
        Some("hang") => {
            reporter.starting("it looks for its keys");
            std::thread::sleep(LIMIT * 2);
        }
        _ => reporter.ready(info()),
    }
    let mut worker = Worker { script, reporter, state: "ready", members: Value::Null };
    loop {
        worker.obey(orders.blocking_next());
    }
}

struct Worker {
    script: Value,
    reporter: Reporter,
    state: &'static str,
    members: Value,
}

impl Worker {
    fn obey(&mut self, order: Order) {
        match order {
            Order::Serve => {
                self.state = "serving";
                if self.script["serve"] == "crash" {
                    std::process::exit(7);
                }
            }
            Order::Pause => self.state = "paused",
            Order::Drain { .. } | Order::Gone => {
                let millis = self.script["drain"].as_u64().unwrap_or(0);
                std::thread::sleep(Duration::from_millis(millis));
                std::process::exit(0);
            }
            Order::Stop => std::process::exit(0),
            Order::Query { id, name } if name == "state" => {
                self.reporter.answer(id, json!({"state": self.state, "members": self.members}));
            }
            Order::Members { id, members, .. } => {
                let at: Vec<u64> = members.iter().filter_map(|member| member.info["at"].as_u64()).collect();
                self.members = json!(at);
                std::thread::sleep(Duration::from_millis(self.script["confirm"].as_u64().unwrap_or(0)));
                self.reporter.answer(id, Value::Null);
            }
            Order::Tell { value } => self.told(&value),
            _ => {}
        }
    }

    fn told(&self, value: &Value) {
        if let Ok(beat) = serde_json::from_value::<Beat>(value["beat"].clone()) {
            self.reporter.beat(beat);
        }
        if value["stuck"] == json!(std::process::id()) {
            self.reporter.stuck("/reports?year=2026", "time.sleep");
        }
    }
}
