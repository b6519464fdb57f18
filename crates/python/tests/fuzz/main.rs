//! Requests and applications at random: whatever a client sends makes an environ and a scope that are right, and
//! whatever an application does is a well-formed answer or a failure of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code outside of test functions"
)]

#[path = "../common/mod.rs"]
mod common;
mod objects;
mod requests;
mod responses;
mod sockets;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use common::App;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

/// Panics on any thread; those of an application's threads are caught there, and seen nowhere else.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// One application for all the cases of a test.
pub(crate) struct Subject {
    runtime: Runtime,
    app: Option<App>,
    runner: TestRunner,
}

impl Subject {
    pub(crate) fn new(source: &str, cases: u32) -> Self {
        static COUNT: Once = Once::new();
        COUNT.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                PANICS.fetch_add(1, Ordering::Relaxed);
                usual(info);
            }));
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let app = Some(runtime.block_on(App::start(source)));
        // A case that fails by waiting in vain is not made smaller for ever.
        let config =
            Config { failure_persistence: None, max_shrink_time: 30_000, ..Config::with_cases(cases) };
        Self { runtime, app, runner: TestRunner::new(config) }
    }

    /// Runs the cases, and tells the smallest that fails.
    pub(crate) fn check<S: proptest::strategy::Strategy>(
        &mut self,
        strategy: &S,
        case: impl Fn(&Runtime, &App, S::Value) -> Result<(), proptest::test_runner::TestCaseError>,
    ) {
        // The count of panics is that of one test at a time.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (runtime, app) = (&self.runtime, self.app.as_ref().unwrap());
        let found = self.runner.run(strategy, |value| {
            let before = PANICS.load(Ordering::Relaxed);
            case(runtime, app, value)?;
            let panics = PANICS.load(Ordering::Relaxed) - before;
            if panics == 0 { Ok(()) } else { Err(proptest::test_runner::TestCaseError::fail("a panic")) }
        });
        if let Err(error) = found {
            panic!("{error}");
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Some(app) = self.app.take()
            && !std::thread::panicking()
        {
            self.runtime.block_on(app.stop());
        }
    }
}
