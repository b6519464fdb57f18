//! Processes are kept as many and as well as they should be.

mod common;

use std::time::Duration;

use common::{kill, plan, pool, runs, supervise, until};
use hawksbill_supervisor::{Apply, Event, Pool, Recycle, Restart, Size, State};
use rustix::process::Signal;
use serde_json::json;

#[tokio::test]
async fn a_plan_is_in_practice_when_all_serve() {
    let running = supervise();
    let applied = running.apply([("shop", pool(2, json!({}))), ("blog", pool(1, json!({})))]).await.unwrap();
    assert_eq!(applied.pools, ["blog", "shop"]);
    assert_eq!(running.serving("shop").await.len(), 2);
    let status = running.handle.status().await.unwrap();
    let blog = &status.pools["blog"].processes[0];
    assert_eq!(blog.info, json!({"at": blog.pid}));
    assert!(blog.rss > 100_000);
    assert_eq!(status.pools["blog"].deaths, 0);
    let pid = blog.pid;
    running.stop().await;
    assert!(!runs(pid));
}

#[tokio::test]
async fn a_first_start_that_fails_says_what_the_process_said() {
    let running = supervise();
    let failing = [("shop", pool(1, json!({"start": "fail"}))), ("blog", pool(1, json!({})))];
    let failure = running.apply(failing).await.unwrap_err();
    assert_eq!(failure.pool.as_deref(), Some("shop"));
    let lingering = running.apply([("shop", pool(1, json!({"start": "fail", "then": 60_000})))]).await;
    assert_eq!(lingering.unwrap_err().message, failure.message);
    assert_eq!(failure.message.as_deref(), Some("Traceback: no module named 'shop'"));
    assert!(failure.reason.ends_with("ended while it started: exit code 3"), "{failure}");
    let status = running.handle.status().await.unwrap();
    assert!(status.pools.values().all(|pool| pool.generation == 0), "{status:?}");
    running.stop().await;
}

#[tokio::test]
async fn what_was_written_last_explains_a_death() {
    let running = supervise();
    let failure = running.apply([("shop", pool(1, json!({"start": "die"})))]).await.unwrap_err();
    assert!(failure.message.unwrap().contains("SyntaxError: line 7"));
    running.stop().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told() {
    let running = supervise();
    let mut nowhere = pool(1, json!({}));
    nowhere.program.path = "/nowhere/python".into();
    let failure = running.apply([("shop", nowhere)]).await.unwrap_err();
    assert!(failure.to_string().contains("cannot start '/nowhere/python'"), "{failure}");
    running.stop().await;
}

#[tokio::test]
async fn a_start_that_hangs_is_ended() {
    let running = supervise();
    let hanging = Pool { start_timeout: Duration::from_millis(500), ..pool(1, json!({"start": "hang"})) };
    let failure = running.apply([("shop", hanging)]).await.unwrap_err();
    assert_eq!(failure.message.as_deref(), Some("it was not ready after 0.5 s: it looks for its keys"));
    assert!(failure.reason.contains("SIGKILL"), "{failure}");
    running.stop().await;
}

#[tokio::test]
async fn one_that_dies_is_replaced_at_once() {
    let mut running = supervise();
    running.apply([("shop", pool(2, json!({})))]).await.unwrap();
    for _ in 0..3 {
        let before = running.whole("shop", 2).await;
        kill(before[0], Signal::KILL);
        let exit = running
            .event(|event| match event {
                Event::Ended { exit, expected: false, .. } => Some(exit.clone()),
                _ => None,
            })
            .await;
        assert!(exit.starts_with("SIGKILL"), "{exit}");
        let after = running.whole("shop", 2).await;
        assert!(after.contains(&before[1]) && !after.contains(&before[0]));
    }
    let status = running.handle.status().await.unwrap();
    assert_eq!(status.pools["shop"].deaths, 3);
    running.stop().await;
}

#[tokio::test]
async fn a_loop_of_crashes_is_slowed_and_harms_nobody_else() {
    let mut running = supervise();
    let crashing = pool(1, json!({"serve": "crash"}));
    running.apply([("shop", crashing), ("blog", pool(1, json!({})))]).await.unwrap();
    let blog = running.serving("blog").await;
    let mut waits = Vec::new();
    while waits.len() < 3 {
        waits.push(
            running
                .event(|event| match event {
                    Event::PutOff { pool, seconds } if pool == "shop" => Some(*seconds),
                    _ => None,
                })
                .await,
        );
    }
    assert_eq!(waits, [0.1, 0.2, 0.4]);
    assert_eq!(running.serving("blog").await, blog);
    let status = running.handle.status().await.unwrap();
    assert!(status.pools["shop"].last_death.as_ref().unwrap().ends_with("exit code 7"));
    running.stop().await;
}

#[tokio::test]
async fn a_slow_drain_is_waited_for_and_an_endless_one_is_not() {
    let running = supervise();
    running.apply([("shop", pool(1, json!({"drain": 300})))]).await.unwrap();
    let begun = std::time::Instant::now();
    running.stop().await;
    assert!(begun.elapsed() >= Duration::from_millis(300));

    let mut running = supervise();
    let endless = Pool { stop_timeout: Duration::from_millis(200), ..pool(1, json!({"drain": 60_000})) };
    running.apply([("shop", endless)]).await.unwrap();
    let pid = running.serving("shop").await[0];
    let handle = running.handle.clone();
    let stopping = tokio::spawn(async move { handle.stop(true).await });
    running.event(|event| matches!(event, Event::Killed { .. }).then_some(())).await;
    stopping.await.unwrap();
    assert!(!runs(pid));
}

/// The order in which a replacement serves and the replaced one is drained.
async fn replaced_first(running: &mut common::Running, old: u32) {
    let mut process = None;
    running
        .event(|event| match event {
            Event::Retiring { of, .. } | Event::Stuck { of, .. } => {
                process = Some(of.process);
                Some(())
            }
            _ => None,
        })
        .await;
    let mut served = false;
    running
        .event(|event| match event {
            Event::Serving { .. } => {
                served = true;
                None
            }
            Event::Draining { of } if Some(of.process) == process => Some(()),
            _ => None,
        })
        .await;
    assert!(served, "the replacement serves before the old one is drained");
    let new = running.whole("shop", 1).await;
    assert_ne!(new, [old]);
}

#[tokio::test]
async fn one_is_recycled_when_its_replacement_serves() {
    let mut running = supervise();
    let recycle = Recycle { requests: Some(100), ..Recycle::default() };
    running.apply([("shop", Pool { recycle, ..pool(1, json!({})) })]).await.unwrap();
    let old = running.serving("shop").await[0];
    running.handle.tell("shop", json!({"beat": {"requests": 100}})).await.unwrap();
    replaced_first(&mut running, old).await;

    let recycle = Recycle { age: Some(Duration::from_secs(1)), ..Recycle::default() };
    let old = running.serving("shop").await[0];
    running.apply([("shop", Pool { recycle, ..pool(1, json!({})) })]).await.unwrap();
    replaced_first(&mut running, old).await;

    let recycle = Recycle { rss: Some(1), ..Recycle::default() };
    running.apply([("shop", Pool { recycle: Recycle::default(), ..pool(1, json!({})) })]).await.unwrap();
    let old = running.whole("shop", 1).await[0];
    running.apply([("shop", Pool { recycle, ..pool(1, json!({})) })]).await.unwrap();
    replaced_first(&mut running, old).await;
    running.stop().await;
}

#[tokio::test]
async fn one_that_is_stuck_is_replaced() {
    let mut running = supervise();
    running.apply([("shop", pool(1, json!({})))]).await.unwrap();
    let old = running.serving("shop").await[0];
    running.handle.tell("shop", json!({"stuck": old})).await.unwrap();
    replaced_first(&mut running, old).await;
    running.stop().await;
}

#[tokio::test]
async fn a_pool_follows_its_load() {
    let running = supervise();
    let size = Size { min: 1, max: 3, idle: Duration::from_secs(1) };
    running.apply([("shop", Pool { size, ..pool(1, json!({})) })]).await.unwrap();
    let beat = |busy: u32, waiting: u32| json!({"beat": {"busy": busy, "slots": 4, "waiting": waiting}});
    let under_load = |load: serde_json::Value, count: usize| {
        let running = &running;
        async move {
            until(|| async {
                running.handle.tell("shop", load.clone()).await.unwrap();
                let all = running.processes("shop").await;
                (all.len() == count && all.iter().all(|one| one.state == State::Serving)).then_some(())
            })
            .await;
        }
    };
    under_load(beat(4, 9), 3).await;
    // Each has its most now and then, and little all in all.
    under_load(json!({"beat": {"busy": 4, "load": 0.5, "slots": 4}}), 1).await;
    under_load(beat(4, 9), 2).await;
    under_load(beat(0, 0), 1).await;
    running.handle.scale("shop", 2).await.unwrap();
    running.whole("shop", 2).await;
    running.handle.scale("shop", 0).await.unwrap();
    running.whole("shop", 0).await;
    running.stop().await;
}

#[tokio::test]
async fn what_does_not_speak_is_run_too() {
    let running = supervise();
    let mut nap = Pool { speaks: false, ..pool(1, json!({})) };
    nap.program.path = "sh".into();
    nap.program.args = vec!["-c".into(), "trap 'exit 0' TERM; echo napping >&2; sleep 60 & wait".into()];
    running.apply([("nap", nap)]).await.unwrap();
    let pid = running.serving("nap").await[0];
    running.stop().await;
    assert!(!runs(pid));
}

#[tokio::test]
async fn all_are_asked_and_answer() {
    let running = supervise();
    running.apply([("shop", pool(3, json!({})))]).await.unwrap();
    let limit = Duration::from_secs(20);
    let answers = running.handle.query(Some("shop".into()), "state", limit).await;
    assert_eq!(answers.len(), 3);
    assert!(answers.values().all(|answer| answer["state"] == "serving"));
    // Nobody answers this one.
    let none = running.handle.query(None, "weather", Duration::from_millis(50)).await;
    assert!(none.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_longest_wait_is_kept() {
    let running = supervise();
    let restart = Restart {
        first: Duration::from_millis(10),
        longest: Duration::from_millis(20),
        ..Restart::default()
    };
    let crashing = Pool { restart, ..pool(1, json!({"serve": "crash"})) };
    running.handle.apply(Apply::new(plan([("shop", crashing)]))).await.unwrap();
    until(|| async { (running.handle.status().await?.pools["shop"].deaths > 6).then_some(()) }).await;
    running.stop().await;
}
