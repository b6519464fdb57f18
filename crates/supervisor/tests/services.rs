//! Programs that know nothing of a supervisor: in their order, one after the other, and without harm to anybody.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use common::{Running, kill, plan, pool, runs, supervise, until};
use hawksbill_supervisor::{Apply, Event, Exit, Kind, Output, Pool, Program, Restart, Size, State, When};
use rustix::process::Signal;
use serde_json::json;

/// A shell script as a service.
fn service(script: &str) -> Pool {
    Pool {
        kind: Kind::Service,
        program: Program { path: "sh".into(), args: vec!["-c".into(), script.into()], ..Program::default() },
        speaks: false,
        size: Size::fixed(1),
        stop_timeout: Duration::from_secs(10),
        restart: Restart {
            soon: Duration::from_secs(10),
            first: Duration::from_millis(50),
            ..Restart::default()
        },
        output: Output::Lines,
        ..Pool::default()
    }
}

const NAP: &str = "trap 'exit 0' TERM; sleep 60 & wait";

fn after<const N: usize>(names: [&str; N], pool: Pool) -> Pool {
    Pool { after: names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>(), ..pool }
}

async fn starting(running: &Running, pool: &str) -> u64 {
    until(|| async {
        let all = running.processes(pool).await;
        all.iter().find(|one| one.state == State::Starting).map(|one| one.process)
    })
    .await
}

#[tokio::test]
async fn workers_wait_for_the_services_that_they_come_after() {
    let mut running = supervise();
    let store = Pool { told_ready: true, ..service(NAP) };
    let queue = after(["store"], service(NAP));
    let shop = after(["queue"], pool(1, json!({})));
    let handle = running.handle.clone();
    let pools = plan([("store", store), ("queue", queue), ("shop", shop)]);
    let applying = tokio::spawn(async move { handle.apply(Apply::new(pools)).await });
    let store = starting(&running, "store").await;
    assert!(running.processes("queue").await.is_empty());
    assert!(running.processes("shop").await.is_empty());
    running.handle.ready(store).await;
    applying.await.unwrap().unwrap();
    assert_eq!(running.serving("shop").await.len(), 1);
    // They end in the other direction.
    let handle = running.handle.clone();
    let stopping = tokio::spawn(async move { handle.stop(true).await });
    let mut order = Vec::new();
    while order.len() < 3 {
        let ended = |event: &Event| match event {
            Event::Ended { of, .. } => Some(of.pool.clone()),
            _ => None,
        };
        order.push(running.event(ended).await);
    }
    assert_eq!(order, ["shop", "queue", "store"]);
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_service_that_fails_holds_nothing_up() {
    let running = supervise();
    let broken = service("exit 7");
    let applied =
        running.apply([("broken", broken), ("shop", after(["broken"], pool(1, json!({}))))]).await.unwrap();
    assert_eq!(applied.pools, ["shop", "broken"]);
    until(|| async {
        let status = running.handle.status().await?;
        let broken = &status.pools["broken"];
        (broken.deaths > 3 && broken.last_death.as_ref()?.contains("exit code 7")).then_some(())
    })
    .await;
    assert_eq!(running.serving("shop").await.len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_changed_service_is_replaced_by_one_that_never_meets_it() {
    let dir = tempfile::tempdir().unwrap();
    let lock = dir.path().join("lock");
    let alone = |version: u32| {
        let lock = lock.display();
        let script = format!(
            "trap 'sleep 0.2; rmdir {lock}; exit 0' TERM; mkdir {lock} || exit 1; : {version}; sleep 60 & wait"
        );
        service(&script)
    };
    let running = supervise();
    running.apply([("store", alone(1)), ("shop", pool(1, json!({})))]).await.unwrap();
    let first = running.whole("store", 1).await;
    let shop = running.whole("shop", 1).await;
    let same = running.apply([("store", alone(1)), ("shop", pool(1, json!({})))]).await.unwrap();
    assert!(same.pools.is_empty());
    assert_eq!(running.whole("store", 1).await, first);
    let changed = running.apply([("store", alone(2)), ("shop", pool(1, json!({})))]).await.unwrap();
    assert_eq!(changed.pools, ["store"]);
    assert!(changed.failing.is_empty());
    let second = running.serving("store").await;
    assert!(second.len() == 1 && second != first);
    assert_eq!(running.handle.status().await.unwrap().pools["store"].deaths, 0);
    assert_eq!(running.whole("shop", 1).await, shop);
    running.apply([("shop", pool(1, json!({})))]).await.unwrap();
    until(|| async { (!Path::exists(&lock)).then_some(()) }).await;
    running.stop().await;
}

#[tokio::test]
async fn a_plan_that_fails_brings_the_former_services_back() {
    let running = supervise();
    let shop = || pool(1, json!({}));
    running.apply([("store", service(NAP)), ("shop", shop())]).await.unwrap();
    let before = running.whole("store", 1).await;
    let broken = pool(1, json!({"start": "fail"}));
    let changed = service("trap 'exit 0' TERM; sleep 61 & wait");
    let plan_of = |shop: Pool| plan([("store", changed.clone()), ("new", service(NAP)), ("shop", shop)]);
    running.handle.apply(Apply::new(plan_of(broken))).await.unwrap_err();
    // Nothing of it was touched, and what was new is gone.
    assert_eq!(running.whole("store", 1).await, before);
    running.whole("new", 0).await;
    let doomed = pool(1, json!({"serve": "crash"}));
    let probation = Duration::from_secs(30);
    let apply = Apply { probation, ..Apply::new(plan_of(doomed)) };
    running.handle.apply(apply).await.unwrap_err();
    running.whole("new", 0).await;
    until(|| async {
        let status = running.handle.status().await?;
        let restored = running.serving("store").await;
        let args = std::fs::read_to_string(format!("/proc/{}/cmdline", restored.first()?)).ok()?;
        (!status.pools.contains_key("new") && args.contains("sleep 60")).then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn who_ended_well_may_stay_away() {
    let mut running = supervise();
    let once = |when: When, script: &str| {
        let pool = service(script);
        Pool { restart: Restart { when, ..pool.restart }, ..pool }
    };
    running
        .apply([("well", once(When::Failure, "exit 0")), ("ill", once(When::Never, "exit 3"))])
        .await
        .unwrap();
    let mut ends = BTreeSet::new();
    while ends.len() < 2 {
        let finished = |event: &Event| match event {
            Event::Finished { pool, exit } => Some((pool.clone(), exit.clone())),
            _ => None,
        };
        ends.insert(running.event(finished).await);
    }
    let status = running.handle.status().await.unwrap();
    assert_eq!(status.pools["well"].finished.as_deref(), Some("exit code 0"));
    assert_eq!(status.pools["ill"].finished.as_deref(), Some("exit code 3"));
    assert!(running.processes("well").await.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn its_own_signal_ends_it_and_force_ends_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    // Not QUIT, which a test that was started in the background ignores, and so does what it starts.
    let script = format!(
        "trap 'echo quit >>{0}' USR1; trap '' TERM; sh -c 'trap \"\" TERM; sleep 77' & echo $! >>{0};
         setsid sh -c 'echo $$ >>{0}; exec sleep 78' & while :; do sleep 0.05; done",
        pids.display()
    );
    let stubborn = Pool { stop_signal: 10, stop_timeout: Duration::from_secs(2), ..service(&script) };
    let mut running = supervise();
    running.apply([("stubborn", stubborn)]).await.unwrap();
    let children: Vec<u32> = until(|| async {
        let said = std::fs::read_to_string(&pids).ok()?;
        let numbers: Vec<u32> = said.lines().filter_map(|line| line.parse().ok()).collect();
        (numbers.len() == 2).then_some(numbers)
    })
    .await;
    let main = running.serving("stubborn").await[0];
    assert!(children.iter().all(|&pid| runs(pid)));
    let handle = running.handle.clone();
    let stopping = tokio::spawn(async move { handle.stop(true).await });
    running.event(|event| matches!(event, Event::Killed { .. }).then_some(())).await;
    stopping.await.unwrap();
    assert!(std::fs::read_to_string(&pids).unwrap().contains("quit"));
    until(|| async { (!children.iter().chain([&main]).any(|&pid| runs(pid))).then_some(()) }).await;
}

#[tokio::test]
async fn a_task_runs_when_it_is_told_to() {
    let running = supervise();
    let task = |script: &str| Pool { kind: Kind::Task, ..service(script) };
    running.apply([("quick", task("exit 4")), ("long", task(NAP))]).await.unwrap();
    assert!(running.processes("quick").await.is_empty());
    for _ in 0..2 {
        assert_eq!(running.handle.once("quick").await, Ok(Exit::Code(4)));
    }
    let handle = running.handle.clone();
    let long = tokio::spawn(async move { handle.once("long").await });
    let pids = running.whole("long", 1).await;
    assert!(running.handle.once("long").await.unwrap_err().reason.contains("still runs"));
    // Another plan lets it run.
    running.apply([("long", task("exit 5"))]).await.unwrap();
    assert_eq!(running.whole("long", 1).await, pids);
    running.handle.cancel("long").await;
    assert!(long.await.unwrap().is_ok());
    assert_eq!(running.handle.once("long").await, Ok(Exit::Code(5)));
    assert!(running.handle.once("quick").await.unwrap_err().reason.contains("no such task"));
    let status = running.handle.status().await.unwrap();
    assert_eq!((status.pools["long"].deaths, &status.pools["long"].last_death), (0, &None));
    running.stop().await;
}

#[tokio::test]
async fn a_service_that_was_killed_comes_back_without_its_children() {
    let running = supervise();
    running.apply([("nap", service("sleep 60 & wait"))]).await.unwrap();
    let first = running.whole("nap", 1).await[0];
    let children = || std::fs::read_to_string(format!("/proc/{first}/task/{first}/children"));
    let child: u32 = until(|| async { children().ok()?.trim().parse().ok() }).await;
    kill(first, Signal::KILL);
    until(|| async {
        let serving = running.serving("nap").await;
        (serving.first().is_some_and(|&pid| pid != first)).then_some(())
    })
    .await;
    until(|| async { (!runs(child)).then_some(()) }).await;
    running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_put_in_order_is_refused() {
    let running = supervise();
    let circle = [("a", after(["b"], service(NAP))), ("b", after(["a"], service(NAP)))];
    assert!(running.apply(circle).await.unwrap_err().reason.contains("comes after itself"));
    let workers = [("a", after(["shop"], service(NAP))), ("shop", pool(1, json!({})))];
    assert!(running.apply(workers).await.unwrap_err().reason.contains("no service"));
    running.stop().await;
}
