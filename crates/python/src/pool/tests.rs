use std::sync::mpsc;

use super::attend::STUCK;
use super::*;
use crate::lead::{Crew, SELDOM, View};

struct Calls;

type Call = Box<dyn FnOnce(Python<'_>) + Send>;

impl Work for Calls {
    type Job = Call;
    type Local = ();
    type Trace = ();

    fn begin(&self, _: Python<'_>) -> Option<()> {
        Some(())
    }

    fn trace(&self, _: &Call) -> Option<()> {
        Some(())
    }

    fn run(&self, py: Python<'_>, (): &mut (), call: Call) {
        call(py);
    }
}

fn pool(threads: usize, jobs: usize) -> Pool<Calls> {
    Python::initialize();
    Pool::new("test", Calls, threads, jobs)
}

/// Holds a thread until it is told to go on.
fn block(pool: &Pool<Calls>) -> mpsc::Sender<()> {
    let (go_on, wait) = mpsc::channel::<()>();
    let (started, has_started) = mpsc::channel();
    pool.submit(Box::new(move |py| {
        started.send(()).unwrap();
        py.detach(move || wait.recv().unwrap_err());
    }))
    .unwrap();
    has_started.recv().unwrap();
    go_on
}

#[tokio::test]
async fn a_slow_job_delays_none_that_a_free_thread_can_do() {
    let pool = pool(2, 8);
    let slow = block(&pool);
    for _ in 0..20 {
        let (done, is_done) = mpsc::channel();
        pool.submit(Box::new(move |_| done.send(()).unwrap())).unwrap();
        is_done.recv_timeout(Duration::from_secs(5)).unwrap();
    }
    drop(slow);
    assert!(pool.stop(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_crowd_is_told_from_threads_that_keep_up() {
    let pool = pool(1, 2);
    let blocked = block(&pool);
    // Nobody waits: a thread may be free to lead at any moment.
    assert_eq!(pool.inner.clone().look(), View::Busy(Duration::ZERO));
    pool.submit(Box::new(|_| ())).unwrap();
    assert_eq!(pool.inner.clone().look(), View::Crowded);
    // Who waits for threads that end nothing may do so for long.
    std::thread::sleep(STUCK);
    assert_eq!(pool.inner.clone().look(), View::Busy(SELDOM));
    drop(blocked);
    assert!(pool.stop(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let pool = pool(1, 2);
    let slow = block(&pool);
    assert_eq!(pool.submit(Box::new(|_| ())), Ok(()));
    assert_eq!(pool.submit(Box::new(|_| ())), Ok(()));
    assert_eq!(pool.submit(Box::new(|_| ())), Err(Refusal::Full));
    drop(slow);
    assert!(pool.stop(Duration::from_secs(5)).await);
    assert_eq!(pool.submit(Box::new(|_| ())), Err(Refusal::Stopped));
}

#[tokio::test]
async fn jobs_are_overdue_by_their_age_at_a_look_and_told_once() {
    let pool = pool(2, 8);
    let at = |seconds| pool.overdue(Duration::from_secs(10), Duration::from_secs(seconds));
    let counts = |overdue: Overdue<Calls>| (overdue.running.len(), overdue.waiting.len());
    let slow = [block(&pool), block(&pool)];
    let (done, is_done) = mpsc::channel();
    assert_eq!(counts(at(1)), (0, 0));
    pool.submit(Box::new(move |_| done.send(()).unwrap())).unwrap();
    assert_eq!(counts(at(2)), (0, 0));
    let sample = pool.sample();
    assert_eq!((sample.begun, sample.running, sample.most, sample.slots, sample.waiting), (2, 2, 2, 2, 1));
    let overdue = at(11);
    let names: Vec<_> = overdue.running.iter().map(|(name, ())| name.as_str()).collect();
    assert_eq!((names, overdue.waiting.len()), (vec!["test-1", "test-2"], 0));
    assert_eq!(counts(at(12)), (0, 1));
    assert!(is_done.recv().is_err());
    assert_eq!(counts(at(60)), (0, 0));
    drop(slow);
    assert!(pool.stop(Duration::from_secs(5)).await);
    assert_eq!((pool.sample().begun, pool.sample().most), (2, 0));
}

#[tokio::test]
async fn a_panic_harms_its_own_job_only() {
    let pool = pool(1, 8);
    pool.submit(Box::new(|_| panic!("in a job"))).unwrap();
    let (done, is_done) = mpsc::channel();
    pool.submit(Box::new(move |_| done.send(()).unwrap())).unwrap();
    is_done.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(pool.stop(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_stop_meets_threads_wherever_they_are() {
    for round in 0..100 {
        let pool = pool(4, 64);
        for _ in 0..round % 10 {
            pool.submit(Box::new(|_| ())).unwrap();
        }
        if round % 3 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            pool.submit(Box::new(|_| ())).unwrap();
        }
        assert!(pool.stop(Duration::from_secs(5)).await, "round {round}");
    }
}

#[tokio::test]
async fn stopping_is_bounded_in_time() {
    let pool = pool(1, 8);
    let slow = block(&pool);
    assert!(!pool.stop(Duration::from_millis(50)).await);
    drop(slow);
    assert!(pool.stop(Duration::from_secs(5)).await);
}
