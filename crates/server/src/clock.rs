//! A clock that is cheap to look at, for times of which some milliseconds do not matter.
//!
//! Each request looks at the clock of its connection twice. Where the system keeps the time of its last tick (Linux,
//! `CLOCK_MONOTONIC_COARSE`), a look costs a fifth of one at the precise clock, and is up to ten milliseconds behind it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// The time since some moment in the past, the same for the whole process.
pub(crate) fn now() -> Duration {
    Duration::try_from(clock_gettime(CLOCK)).unwrap_or_default()
}
