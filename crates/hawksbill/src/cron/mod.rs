//! Commands that run at certain times.
//!
//! A command is a [task](hawksbill_supervisor::Kind::Task) of the supervisor; this says when it runs, and remembers how that
//! went.

mod board;
mod lock;
mod past;
mod schedule;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hawksbill_supervisor::Handle;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub(crate) use self::board::{Board, Shown};
use self::lock::Claim;
pub(crate) use self::past::Past;
pub(crate) use self::schedule::Schedule;
use crate::config::Cron;

/// The longest sleep: whether a machine was asleep, or a clock was set, is noticed after it.
const LOOK: Duration = Duration::from_secs(20);

/// A run that is later than this is left out.
const LATE: Duration = Duration::from_secs(60);

/// How many times that have passed are counted.
const MOST_COUNTED: usize = 10_000;

/// A command with its times.
#[derive(Debug)]
pub(crate) struct Job {
    /// The name of its table.
    pub(crate) name: String,
    table: Cron,
    schedule: Schedule,
}

impl Job {
    /// # Errors
    /// When the table says what cannot be.
    pub(crate) fn new(name: &str, table: &Cron) -> Result<Self, String> {
        let schedule = Schedule::new(&table.schedule, table.timezone.as_deref())?;
        if let Some(url) = &table.lock {
            lock::check(url)?;
        }
        Ok(Self { name: name.to_owned(), table: table.clone(), schedule })
    }

    /// The pool of a command.
    pub(crate) fn pool(name: &str) -> String {
        format!("cron.{name}")
    }
}

pub(crate) type Jobs = Vec<Arc<Job>>;

/// Has all commands run at their times, for ever; what stays the same in another configuration goes on.
pub(crate) async fn keep(mut jobs: watch::Receiver<Jobs>, handle: Handle, board: Board, past: Past) {
    let mut followed: BTreeMap<String, (Cron, Ended)> = BTreeMap::new();
    loop {
        let wanted = jobs.borrow_and_update().clone();
        followed.retain(|name, (table, _)| wanted.iter().any(|job| &job.name == name && &job.table == table));
        board.retain(|name| wanted.iter().any(|job| job.name == name));
        if !wanted.is_empty() {
            past.retain(|name| wanted.iter().any(|job| job.name == name));
        }
        for job in wanted {
            followed.entry(job.name.clone()).or_insert_with(|| {
                board.begin(&job);
                let following = follow(Arc::clone(&job), handle.clone(), board.clone(), past.clone());
                let following = tokio::spawn(following);
                (job.table.clone(), Ended(following.abort_handle()))
            });
        }
        if jobs.changed().await.is_err() {
            return;
        }
    }
}

/// A task that ends with this.
struct Ended(AbortHandle);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts one command each time that it is due.
async fn follow(job: Arc<Job>, handle: Handle, board: Board, past: Past) {
    let mut last = Timestamp::now();
    tell_missed(&job, last, &board, &past);
    while let Some(due) = job.schedule.next(last) {
        board.next(&job, due);
        sleep_until(due).await;
        let (due, passed) = latest(&job.schedule, due, Timestamp::now());
        last = due;
        past.note(&job, due);
        let late = lateness(due) > LATE;
        let missed = passed + usize::from(late);
        if missed > 0 {
            let times = if missed == 1 { "a run was".to_owned() } else { format!("{missed} runs were") };
            board.missed(
                &job,
                missed,
                &format!("{times} due while the machine slept, or before its clock was set"),
            );
        }
        if !late {
            // A run goes on when the configuration changes.
            tokio::spawn(run(Arc::clone(&job), due, handle.clone(), board.clone()));
        }
    }
}

/// Tells what was due since the command was last seen to, by a gateway that has ended since.
fn tell_missed(job: &Job, now: Timestamp, board: &Board, past: &Past) {
    let first = past.seen(job).and_then(|seen| job.schedule.next(seen)).filter(|first| *first <= now);
    past.note(job, now);
    let Some(first) = first else { return };
    let (last, passed) = latest(&job.schedule, first, now);
    let last = job.schedule.shown(last);
    let why = match passed {
        0 => format!("it was due at {last}, while the gateway did not run"),
        passed => format!("{} runs were due while the gateway did not run, the last at {last}", passed + 1),
    };
    board.missed(job, passed + 1, &why);
}

async fn sleep_until(due: Timestamp) {
    loop {
        let left = Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default();
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

fn lateness(due: Timestamp) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(due)).unwrap_or_default()
}

/// The last time until now, and how many have passed before it.
fn latest(schedule: &Schedule, first: Timestamp, now: Timestamp) -> (Timestamp, usize) {
    let (mut due, mut passed) = (first, 0);
    while passed < MOST_COUNTED
        && let Some(next) = schedule.next(due).filter(|next| *next <= now)
    {
        due = next;
        passed += 1;
    }
    (due, passed)
}

async fn run(job: Arc<Job>, due: Timestamp, handle: Handle, board: Board) {
    if runs(&handle, &Job::pool(&job.name)).await {
        return board.missed(&job, 1, "the run before is still under way");
    }
    let held = match &job.table.lock {
        None => None,
        Some(url) => match lock::claim(url, &job.name, due).await {
            Ok(Claim::Ours(held)) => Some(held),
            Ok(Claim::Others) => {
                tracing::info!(target: "hawksbill::cron", "{}: another gateway runs it this time", job.name);
                return;
            }
            Ok(Claim::UnderWay) => {
                return board.missed(&job, 1, "the run before is still under way at another gateway");
            }
            Err(error) => {
                return board.missed(&job, 1, &format!("the Redis of its lock does not answer: {error}"));
            }
        },
    };
    let keeping = async {
        match &held {
            Some(held) => held.keep(&job.name).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = perform(&job, due, &handle, &board) => {}
        () = keeping => {}
    }
    if let Some(held) = held {
        held.release().await;
    }
}

/// Whether a run is under way here.
async fn runs(handle: &Handle, pool: &str) -> bool {
    let status = handle.status().await;
    status.is_some_and(|status| status.pools.get(pool).is_some_and(|pool| !pool.processes.is_empty()))
}

async fn perform(job: &Job, due: Timestamp, handle: &Handle, board: &Board) {
    let pool = Job::pool(&job.name);
    let began = Board::runs(job, due);
    let running = handle.once(&pool);
    tokio::pin!(running);
    let timeout = job.table.timeout.map_or(Duration::MAX, |timeout| *timeout);
    let in_time = tokio::time::timeout(timeout, &mut running).await;
    let ended = if let Ok(ended) = in_time {
        ended
    } else {
        let seconds = timeout.as_secs_f64();
        tracing::error!(target: "hawksbill::cron", "{}: it has run for {seconds} s, and is ended", job.name);
        handle.cancel(&pool).await;
        running.await
    };
    match ended {
        Ok(exit) => board.ended(job, began, exit),
        Err(failure) => board.missed(job, 1, &failure.reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_have_passed_are_counted() {
        let schedule = Schedule::new("*/10 * * * *", Some("UTC")).unwrap();
        let at = |text: &str| -> Timestamp { format!("2024-05-01T{text}Z").parse().unwrap() };
        let cases = [("12:00:01", "12:00:00", 0), ("12:09:59", "12:00:00", 0), ("15:00:30", "15:00:00", 18)];
        for (now, due, passed) in cases {
            assert_eq!(latest(&schedule, at("12:00:00"), at(now)), (at(due), passed), "{now}");
        }
    }
}
