//! Processes are forked from one that has loaded their program.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use common::program::field;
use common::{Running, kill, plan, pool, role, runs, supervise, until};
use hawksbill_supervisor::{Apply, Event, Limit, Plan, Pool, ProcessStatus, State};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

/// Whoever forks takes the status of every child of this program, those of other tests among them.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

fn preloaded(count: u32, payload: Value) -> Pool {
    Pool { preload: true, ..pool(count, payload) }
}

/// Waits until so many serve and nobody else is there but preloaders, which are given first.
async fn whole(running: &Running, count: usize) -> (Vec<u32>, Vec<ProcessStatus>) {
    until(|| async {
        let all = running.processes("shop").await;
        let (origins, rest): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|process| process.state == State::Preloaded);
        let whole = rest.len() == count && rest.iter().all(|one| one.state == State::Serving);
        whole.then(|| (origins.iter().map(|process| process.pid).collect(), rest))
    })
    .await
}

#[tokio::test]
async fn workers_are_forked_and_are_the_supervisors_own() {
    let _alone = alone().await;
    let running = supervise();
    running.apply([("shop", preloaded(3, json!({})))]).await.unwrap();
    let (origins, workers) = whole(&running, 3).await;
    let [origin] = origins[..] else { panic!("{origins:?}") };
    for worker in &workers {
        assert_eq!(worker.info, json!({"at": worker.pid, "from": origin}));
        assert_eq!(field(worker.pid, "PPid"), std::process::id().to_string());
        assert_eq!(field(worker.pid, "NSpgid"), worker.pid.to_string());
    }
    running.stop().await;
    assert!(!runs(origin) && !workers.iter().any(|worker| runs(worker.pid)));
}

#[tokio::test]
async fn a_replacement_comes_from_the_same_process() {
    let _alone = alone().await;
    let mut running = supervise();
    running.apply([("shop", preloaded(2, json!({})))]).await.unwrap();
    let (origins, workers) = whole(&running, 2).await;
    kill(workers[0].pid, Signal::KILL);
    let exit = running
        .event(|event| match event {
            Event::Ended { exit, expected: false, .. } => Some(exit.clone()),
            _ => None,
        })
        .await;
    assert!(exit.contains("SIGKILL"), "{exit}");
    until(|| async { (!running.serving("shop").await.contains(&workers[0].pid)).then_some(()) }).await;
    let (same, now) = whole(&running, 2).await;
    assert_eq!(same, origins);
    assert!(now.iter().all(|worker| worker.info["from"] == json!(origins[0])));
    running.handle.scale("shop", 4).await.unwrap();
    assert_eq!(whole(&running, 4).await.0, origins);
    running.stop().await;
}

#[tokio::test]
async fn workers_outlive_the_process_that_forked_them() {
    let _alone = alone().await;
    let running = supervise();
    running.apply([("shop", preloaded(2, json!({})))]).await.unwrap();
    let (origins, workers) = whole(&running, 2).await;
    kill(origins[0], Signal::KILL);
    let none = || async { whole(&running, 2).await.0.is_empty().then_some(()) };
    until(none).await;
    kill(workers[0].pid, Signal::KILL);
    let another = || async {
        let (others, now) = whole(&running, 2).await;
        let replaced = now.iter().all(|worker| worker.pid != workers[0].pid);
        (replaced && others.len() == 1).then(|| (others[0], now))
    };
    let (origin, now) = until(another).await;
    assert_ne!(origin, origins[0]);
    let mut from: Vec<&Value> = now.iter().map(|worker| &worker.info["from"]).collect();
    from.sort_by_key(|from| from.as_u64());
    let mut expected = [json!(origins[0]), json!(origin)];
    expected.sort_by_key(Value::as_u64);
    assert_eq!(from, expected.iter().collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test]
async fn a_generation_takes_its_preloader_along() {
    let _alone = alone().await;
    let running = supervise();
    running.apply([("shop", preloaded(2, json!({})))]).await.unwrap();
    let (former, _) = whole(&running, 2).await;
    let kept = Apply {
        keep: Duration::from_secs(600),
        ..Apply::new(plan([("shop", preloaded(2, json!({"v": 2})))]))
    };
    running.handle.apply(kept).await.unwrap();
    let both = || async {
        let all = running.processes("shop").await;
        let of = |state| all.iter().filter(|one| one.state == state).map(|one| one.pid).collect::<Vec<_>>();
        let (origins, paused) = (of(State::Preloaded), of(State::Paused));
        (paused.len() == 2).then_some(origins)
    };
    let origins = until(both).await;
    assert!(origins.len() == 2 && origins.contains(&former[0]), "{origins:?}");
    // Back to the former one, which can still fork.
    running.handle.rollback("shop").await.unwrap();
    let (origins, workers) = whole(&running, 2).await;
    assert_eq!(origins, former);
    kill(workers[0].pid, Signal::KILL);
    let replaced = || async {
        let (origins, now) = whole(&running, 2).await;
        now.iter().all(|worker| worker.pid != workers[0].pid).then_some(origins)
    };
    assert_eq!(until(replaced).await, former);
    // A plan without the pool leaves nothing.
    running.apply([("blog", pool(1, json!({})))]).await.unwrap();
    until(|| async { running.processes("shop").await.is_empty().then_some(()) }).await;
    running.stop().await;
}

#[tokio::test]
async fn what_keeps_it_from_forking_is_told() {
    let _alone = alone().await;
    let running = supervise();
    let told = async |payload: Value| {
        let hangs = payload.as_object().is_some_and(|script| script.values().any(|what| what == "hang"));
        // Time enough for what is to fail for another reason.
        let start_timeout = if hangs { Duration::from_millis(700) } else { common::LIMIT };
        let slow = Pool { start_timeout, ..preloaded(2, payload) };
        let failure = running.apply([("shop", slow)]).await.unwrap_err();
        assert_eq!(failure.pool.as_deref(), Some("shop"));
        failure.to_string()
    };
    let expectations = [
        (json!({"preload": "fail"}), "no module named 'shop'"),
        (json!({"preload": "hang"}), "it was not ready after 0.7 s"),
        (json!({"preload": "ready"}), "knows no preloading"),
        (json!({"fork": "refuse"}), "a thread was started"),
        (json!({"fork": "fail"}), "cannot be forked: Cannot allocate memory"),
        (json!({"fork": "lie"}), "it has forked 1, which is no such process"),
        (json!({"start": "fail"}), "no module named 'shop'"),
        (json!({"start": "hang"}), "it was not ready after 0.7 s"),
    ];
    for (payload, expected) in expectations {
        let said = told(payload.clone()).await;
        assert!(said.contains(expected), "{payload}: {said}");
    }
    // Nothing of it is left.
    until(|| async { running.processes("shop").await.is_empty().then_some(()) }).await;
    running.stop().await;
}

#[tokio::test]
async fn a_stop_that_comes_while_it_loads_is_obeyed() {
    let _alone = alone().await;
    let running = supervise();
    let handle = running.handle.clone();
    let loading = plan([("shop", preloaded(2, json!({"preload": "hang"})))]);
    let applying = tokio::spawn(async move { handle.apply(Apply::new(loading)).await });
    let loads = || async {
        let all = running.processes("shop").await;
        all.iter().find(|one| one.state == State::Loading).map(|one| one.pid)
    };
    let origin = until(loads).await;
    running.stop().await;
    assert!(applying.await.unwrap().is_err());
    assert!(!runs(origin));
}

#[tokio::test]
async fn a_preloader_that_does_not_listen_is_replaced() {
    let _alone = alone().await;
    let running = supervise();
    let impatient = Pool { start_timeout: Duration::from_secs(3), ..preloaded(2, json!({})) };
    running.apply([("shop", impatient)]).await.unwrap();
    let (origins, workers) = whole(&running, 2).await;
    kill(origins[0], Signal::STOP);
    kill(workers[0].pid, Signal::KILL);
    let another = || async {
        let (others, now) = whole(&running, 2).await;
        (now.iter().all(|worker| worker.pid != workers[0].pid)).then_some(others)
    };
    let others = until(another).await;
    assert!(others.len() == 1 && others != origins, "{others:?}");
    assert!(!runs(origins[0]));
    running.stop().await;
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

#[tokio::test]
async fn whoever_is_forked_belongs_to_the_same_user() {
    let _alone = alone().await;
    let running = supervise();
    let dir = tempfile::tempdir().unwrap();
    let mut shop = preloaded(2, json!({}));
    shop.identity.umask = Some(0o027);
    shop.identity.limits = [(Limit::Core, 0)].into();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        // What the test program is built into may be for root alone.
        let everybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), everybody.clone()).unwrap();
        let copy = dir.path().join("worker");
        std::fs::copy(&shop.program.path, &copy).unwrap();
        std::fs::set_permissions(&copy, everybody).unwrap();
        shop.program.path = copy.to_str().unwrap().to_owned();
        shop.program.dir = Some("/".into());
        shop.identity.user = Some("65534".into());
    }
    let own = role("as_launcher");
    let launcher = [own.path].into_iter().chain(own.args).collect();
    running.handle.apply(Apply::new(Plan { launcher, ..plan([("shop", shop)]) })).await.unwrap();
    let (origins, workers) = whole(&running, 2).await;
    for pid in workers.iter().map(|worker| worker.pid).chain(origins) {
        assert_eq!(field(pid, "Umask"), "0027");
        let uid = field(pid, "Uid");
        assert!(!is_root || uid == "65534 65534 65534 65534", "{uid}");
    }
    running.stop().await;
}
