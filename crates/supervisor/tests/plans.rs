//! From one plan to the next, and back.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{kill, plan, pool, role, runs, supervise, supervise_with, until, worker};
use hawksbill_supervisor::{Apply, Descriptors, Event, Pool, Program, Settings, Size, State};
use rustix::process::Signal;
use serde_json::{Value, json};

fn version(version: &str) -> Pool {
    Pool { fingerprint: version.into(), ..pool(2, json!({})) }
}

/// A front that follows the shop.
fn front() -> Pool {
    Pool { follows: ["shop".to_owned()].into(), ..pool(1, json!({})) }
}

async fn state(running: &common::Running, pool: &str) -> Vec<Value> {
    let limit = Duration::from_secs(20);
    running.handle.query(Some(pool.into()), "state", limit).await.into_values().collect()
}

#[tokio::test]
async fn only_what_changed_is_replaced() {
    let running = supervise();
    running.apply([("shop", version("1")), ("blog", version("1"))]).await.unwrap();
    let (shop, blog) = (running.whole("shop", 2).await, running.whole("blog", 2).await);
    let applied = running.apply([("shop", version("2")), ("blog", version("1"))]).await.unwrap();
    assert_eq!(applied.pools, ["shop"]);
    let new = running.whole("shop", 2).await;
    assert!(new.iter().all(|pid| !shop.contains(pid)));
    assert_eq!(running.whole("blog", 2).await, blog);

    // A number alone replaces nothing.
    let more = Pool { size: Size::fixed(3), ..version("2") };
    let applied = running.apply([("shop", more), ("blog", version("1"))]).await.unwrap();
    assert!(applied.pools.is_empty());
    let three = running.whole("shop", 3).await;
    assert!(new.iter().all(|pid| three.contains(pid)));

    // What is gone from the plan ends.
    running.apply([("blog", version("1"))]).await.unwrap();
    until(|| async { (!three.iter().any(|&pid| runs(pid))).then_some(()) }).await;

    let forced = running.handle.reload(["blog".to_owned()], Duration::ZERO).await.unwrap();
    assert_eq!(forced.pools, ["blog"]);
    assert_ne!(running.whole("blog", 2).await, blog);
    assert!(running.handle.reload(["nothing".to_owned()], Duration::ZERO).await.is_err());
    running.stop().await;
}

#[tokio::test]
async fn a_plan_that_fails_changes_nothing() {
    let mut running = supervise();
    running.apply([("shop", version("1")), ("blog", version("1"))]).await.unwrap();
    let (shop, blog) = (running.whole("shop", 2).await, running.whole("blog", 2).await);
    for (script, says) in [("fail", "Traceback"), ("die", "SyntaxError"), ("hang", "was not ready")] {
        let broken = Pool { start_timeout: Duration::from_secs(2), ..pool(1, json!({"start": script})) };
        let failure = running.apply([("shop", broken), ("blog", version("2"))]).await.unwrap_err();
        assert!(failure.to_string().contains(says), "{failure}");
        running.event(|event| matches!(event, Event::Refused { .. }).then_some(())).await;
        assert_eq!(running.whole("shop", 2).await, shop);
        assert_eq!(running.whole("blog", 2).await, blog);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_generation_that_dies_on_probation_is_taken_back() {
    let running = supervise();
    running.apply([("shop", version("1")), ("old", version("1"))]).await.unwrap();
    let (shop, old) = (running.whole("shop", 2).await, running.whole("old", 2).await);
    let apply = |pool: Pool| Apply {
        probation: Duration::from_secs(1),
        ..Apply::new(plan([("shop", pool), ("new", version("1"))]))
    };
    let failure = running.handle.apply(apply(pool(2, json!({"serve": "crash"})))).await.unwrap_err();
    assert!(failure.reason.ends_with("ended while it served: exit code 7"), "{failure}");
    assert_eq!(running.whole("shop", 2).await, shop);
    assert_eq!(running.whole("old", 2).await, old);
    assert!(state(&running, "shop").await.iter().all(|answer| answer["state"] == "serving"));
    assert!(!running.handle.status().await.unwrap().pools.contains_key("new"));

    running.handle.apply(apply(version("2"))).await.unwrap();
    assert_ne!(running.whole("shop", 2).await, shop);
    until(|| async { (!old.iter().any(|&pid| runs(pid))).then_some(()) }).await;
    running.stop().await;
}

#[tokio::test]
async fn a_deploy_keeps_the_former_warm_and_a_rollback_returns_to_it() {
    let running = supervise();
    running.apply([("shop", version("1"))]).await.unwrap();
    let blue = running.whole("shop", 2).await;
    let deploy = |keep| Apply { keep, ..Apply::new(plan([("shop", version("2"))])) };
    running.handle.apply(deploy(Duration::from_secs(600))).await.unwrap();
    until(|| async {
        let all = running.processes("shop").await;
        let paused = all.iter().filter(|one| one.state == State::Paused && blue.contains(&one.pid));
        (paused.count() == 2).then_some(())
    })
    .await;
    let states = state(&running, "shop").await;
    assert_eq!(states.iter().filter(|answer| answer["state"] == "paused").count(), 2);
    let green = running.serving("shop").await;

    assert_eq!(running.handle.rollback("shop").await.unwrap(), 1);
    assert_eq!(running.whole("shop", 2).await, blue);
    assert!(state(&running, "shop").await.iter().all(|answer| answer["state"] == "serving"));
    assert!(!green.iter().any(|&pid| runs(pid)));
    assert!(running.handle.rollback("shop").await.is_err());

    // Kept for a while only.
    running.handle.apply(deploy(Duration::from_millis(300))).await.unwrap();
    running.whole("shop", 2).await;
    assert!(!blue.iter().any(|&pid| runs(pid)));
    running.stop().await;
}

#[tokio::test]
async fn who_follows_knows_who_serves_before_anybody_goes() {
    let mut running = supervise();
    running.apply([("shop", version("1")), ("front", front())]).await.unwrap();
    let knows = async |running: &common::Running| -> BTreeSet<u64> {
        let answers = state(running, "front").await;
        answers[0]["members"].as_array().unwrap().iter().filter_map(Value::as_u64).collect()
    };
    let serve = async |running: &common::Running| -> BTreeSet<u64> {
        running.whole("shop", 2).await.into_iter().map(u64::from).collect()
    };
    assert_eq!(knows(&running).await, serve(&running).await);
    let front_pid = running.serving("front").await;

    running.apply([("shop", version("2")), ("front", front())]).await.unwrap();
    let new = serve(&running).await;
    assert_eq!(knows(&running).await, new);
    assert_eq!(running.serving("front").await, front_pid);

    let victim = running.serving("shop").await[0];
    kill(victim, Signal::KILL);
    running.event(|event| matches!(event, Event::Ended { expected: false, .. }).then_some(())).await;
    let whole = serve(&running).await;
    assert_eq!(knows(&running).await, whole);
    assert!(!whole.contains(&u64::from(victim)));

    // Both at once: the new front has heard of the shop before it serves.
    let other = Pool { fingerprint: "2".into(), ..front() };
    running.apply([("shop", version("3")), ("front", other)]).await.unwrap();
    running.whole("front", 1).await;
    assert_eq!(knows(&running).await, serve(&running).await);

    // And at the end the front goes first.
    let mut events = running.handle.events();
    running.stop().await;
    let mut ended = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Event::Ended { of, expected: true, .. } = event {
            ended.push(of.pool);
        }
    }
    assert_eq!(ended, ["front", "shop", "shop"]);
}

#[tokio::test]
async fn a_change_is_done_when_nobody_is_sent_to_who_served_before() {
    let running = supervise();
    let slow = Pool { follows: ["shop".to_owned()].into(), ..pool(1, json!({"confirm": 300})) };
    running.apply([("shop", version("1")), ("front", slow.clone())]).await.unwrap();
    let leaving = async || {
        let all = running.processes("shop").await;
        all.iter().filter(|one| one.state == State::Leaving).count()
    };
    let keep = Duration::from_secs(600);
    let plan = plan([("shop", version("2")), ("front", slow)]);
    running.handle.apply(Apply { keep, ..Apply::new(plan) }).await.unwrap();
    assert_eq!(leaving().await, 0, "after a deploy");
    running.handle.rollback("shop").await.unwrap();
    assert_eq!(leaving().await, 0, "after a rollback");
    running.handle.reload(["shop".to_owned()], Duration::ZERO).await.unwrap();
    assert_eq!(leaving().await, 0, "after a reload");
    running.stop().await;
}

#[tokio::test]
async fn descriptors_are_inherited_by_name() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut descriptors = Descriptors::new();
    descriptors.insert("main", listener);
    let running = supervise_with(Settings::default(), descriptors);
    let greeter = |greeting: &str| Pool {
        program: role("as_greeter"),
        inherit: ["main".to_owned()].into(),
        ..pool(1, json!(greeting))
    };
    let again = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let greeting = || async {
        let mut text = String::new();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
        text
    };
    let unknown = Pool { inherit: ["other".to_owned()].into(), ..greeter("") };
    assert!(running.apply([("shop", unknown)]).await.is_err());
    running.apply([("shop", greeter("\"one\""))]).await.unwrap();
    assert_eq!(greeting().await, "\"\\\"one\\\"\"");
    running.apply([("shop", greeter("\"two\""))]).await.unwrap();
    running.whole("shop", 1).await;
    assert_eq!(greeting().await, "\"\\\"two\\\"\"");
    assert_eq!(running.handle.status().await.unwrap().descriptors, ["main"]);

    // What is in use is not taken away; another socket comes with the plan that needs it, and the first one is closed.
    let with = |name: &str| {
        let mut descriptors = Descriptors::new();
        descriptors.insert(name, again.try_clone().unwrap());
        let pool = Pool { inherit: [name.to_owned()].into(), ..pool(1, json!({})) };
        Apply { descriptors, ..Apply::new(plan([("shop", pool)])) }
    };
    assert!(running.handle.apply(with("main")).await.is_err());
    running.handle.apply(with("other")).await.unwrap();
    running.whole("shop", 1).await;
    assert_eq!(running.handle.status().await.unwrap().descriptors, ["other"]);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    running.stop().await;
}

/// Not a test but a worker: says its payload to whoever connects.
#[test]
fn as_greeter() {
    use hawksbill_supervisor::Order;
    use hawksbill_supervisor::child::Child;
    use std::io::Write;

    if !Child::is_one() {
        return;
    }
    let mut child = Child::from_environment().unwrap();
    let listener = std::net::TcpListener::from(child.take("main").unwrap());
    let mut orders = child.orders().unwrap();
    let payload = child.start().payload.clone();
    child.reporter().ready(Value::Null);
    loop {
        match orders.blocking_next() {
            Order::Serve => {
                let (listener, payload) = (listener.try_clone().unwrap(), payload.clone());
                std::thread::spawn(move || {
                    for stream in listener.incoming() {
                        stream.unwrap().write_all(payload.as_bytes()).unwrap();
                    }
                });
            }
            Order::Drain { .. } | Order::Stop | Order::Gone => std::process::exit(0),
            _ => {}
        }
    }
}

#[tokio::test]
async fn plans_that_cannot_be_are_refused() {
    let running = supervise();
    let lost = Pool { follows: ["nobody".to_owned()].into(), ..pool(1, json!({})) };
    let failure = running.apply([("front", lost)]).await.unwrap_err();
    assert_eq!(failure.to_string(), "front: it follows 'nobody', which is no pool");
    let mut circle = front();
    circle.follows = ["front".to_owned()].into();
    assert!(running.apply([("front", circle)]).await.is_err());
    let mut rich = pool(1, json!({}));
    rich.identity.user = Some("nobody".into());
    let failure = running.apply([("shop", rich)]).await.unwrap_err();
    assert!(failure.reason.contains("no launcher"), "{failure}");
    running.stop().await;
}

#[tokio::test]
async fn the_environment_is_what_the_plan_says() {
    let running = supervise();
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program { path: "sh".into(), dir: Some(dir.path().into()), ..worker() };
    program.args = vec!["-c".into(), "env > env; pwd > pwd; : > done; exec sleep 60".into()];
    program.env.insert("SECRET".into(), "s3cret".into());
    program.clear_env = true;
    running.apply([("shop", Pool { program, speaks: false, ..pool(1, json!({})) })]).await.unwrap();
    until(|| async { dir.path().join("done").exists().then_some(()) }).await;
    let env = std::fs::read_to_string(dir.path().join("env")).unwrap();
    assert!(env.contains("SECRET=s3cret") && !env.contains("CARGO"), "{env}");
    let pwd = std::fs::read_to_string(dir.path().join("pwd")).unwrap();
    assert_eq!(std::path::Path::new(pwd.trim()), dir.path().canonicalize().unwrap());
    running.stop().await;
}
