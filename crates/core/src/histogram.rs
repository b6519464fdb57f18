//! Times, counted in buckets: where a median or a 99th percentile lies is known without keeping each.
//!
//! The buckets are log-linear: every power of two is cut into eight, so that a bucket is at most 12.5 % wide, from a
//! microsecond to four and a half minutes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Buckets of a power of two, as a power of two.
const CUTS: u32 = 3;

/// The power of two in microseconds that the last eight buckets begin at; what is longer counts with the longest.
const LAST: u32 = 27;

/// How many buckets there are.
const BUCKETS: usize = ((LAST - CUTS + 2) << CUTS) as usize;

/// Counts times. Any thread may do so, and none waits: a time costs one addition.
pub(crate) struct Histogram([AtomicU64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Histogram {
    pub(crate) fn record(&self, time: Duration) {
        if let Some(bucket) = self.0.get(index(time)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self) -> Latencies {
        let counts = self.0.iter().enumerate().map(|(index, count)| (index, count.load(Ordering::Relaxed)));
        let counts = counts.filter(|(_, count)| *count > 0);
        Latencies(counts.filter_map(|(index, count)| Some((u16::try_from(index).ok()?, count))).collect())
    }
}

fn index(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min((2 << LAST) - 1);
    let power = micros.max(1).ilog2();
    if power < CUTS {
        return usize::try_from(micros).unwrap_or_default();
    }
    let cut = (micros >> (power - CUTS)) & ((1 << CUTS) - 1);
    usize::try_from((u64::from(power - CUTS + 1) << CUTS) + cut).unwrap_or_default()
}

/// The shortest time of a bucket, in microseconds. That of the next one ends it.
fn begin(index: u16) -> u64 {
    let (octave, cut) = (u32::from(index) >> CUTS, u64::from(index) & ((1 << CUTS) - 1));
    match octave.checked_sub(1) {
        None => cut,
        Some(shift) => ((1 << CUTS) + cut) << shift.min(LAST),
    }
}

/// How often times of each bucket were seen. Those of several counters, processes or moments can be added and
/// subtracted.
///
/// ```
/// use std::time::Duration;
/// use hawksbill_core::Latencies;
///
/// let mut times = Latencies::default();
/// (1..=100).for_each(|millis| times.count(Duration::from_millis(millis), 1));
/// let median = times.quantile(0.5).unwrap();
/// assert!(median > Duration::from_millis(44) && median < Duration::from_millis(57));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latencies(BTreeMap<u16, u64>);

impl Latencies {
    /// Counts a time so many times.
    pub fn count(&mut self, time: Duration, times: u64) {
        let bucket = self.0.entry(u16::try_from(index(time)).unwrap_or(u16::MAX)).or_default();
        *bucket = bucket.saturating_add(times);
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.0.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How many buckets hold any: what it costs to hand them on.
    pub fn buckets(&self) -> usize {
        self.0.len()
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Self) {
        for (index, count) in &other.0 {
            let bucket = self.0.entry(*index).or_default();
            *bucket = bucket.saturating_add(*count);
        }
    }

    /// What was counted since another moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |index| earlier.0.get(index).copied().unwrap_or_default();
        let counts = self.0.iter().map(|(index, count)| (*index, count.saturating_sub(before(index))));
        Self(counts.filter(|(_, count)| *count > 0).collect())
    }

    /// The time that this part (0 to 1) of all does not exceed; within a bucket the times are taken to be spread
    /// evenly. `None` where nothing was counted.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let total = self.total();
        let wanted = part.clamp(0.0, 1.0) * number(total);
        let mut below = 0.0;
        let mut found = None;
        for (index, count) in self.0.iter().filter(|(_, count)| **count > 0) {
            let count = number(*count);
            let (shortest, longest) = (number(begin(*index)), number(begin(index.saturating_add(1))));
            let share = ((wanted - below) / count).clamp(0.0, 1.0);
            found = Some(shortest + (longest - shortest) * share);
            below += count;
            if below >= wanted {
                break;
            }
        }
        found.and_then(|micros| Duration::try_from_secs_f64(micros / 1e6).ok())
    }

    /// How many did not exceed a time, by whole buckets.
    pub fn within(&self, time: Duration) -> u64 {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let counts = self.0.iter().filter(|(index, _)| begin(index.saturating_add(1)) <= micros);
        counts.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// All times together, in seconds, each taken for the middle of its bucket.
    pub fn sum(&self) -> f64 {
        let middle = |index: u16| number(begin(index) + begin(index.saturating_add(1))) / 2e6;
        self.0.iter().map(|(index, count)| middle(*index) * number(*count)).sum()
    }
}

#[allow(clippy::cast_precision_loss, reason = "what is shown of it has three digits")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_too_long_counts_with_the_longest() {
        let histogram = Histogram::default();
        for time in [Duration::ZERO, Duration::from_secs(1000), Duration::MAX] {
            histogram.record(time);
        }
        let read = histogram.read();
        assert_eq!(read.total(), 3);
        let longest = read.quantile(1.0).unwrap();
        assert_eq!(longest, Duration::from_micros(1 << 28));
        assert_eq!(usize::from(*read.0.keys().next_back().unwrap()), BUCKETS - 1);
    }

    #[test]
    fn parts_are_found() {
        let mut times = Latencies::default();
        assert_eq!(times.quantile(0.5), None);
        times.count(Duration::from_millis(2), 98);
        times.count(Duration::from_millis(500), 2);
        let seconds = |part| times.quantile(part).unwrap().as_secs_f64();
        assert!((0.0018..0.0023).contains(&seconds(0.5)), "{}", seconds(0.5));
        assert!((0.44..0.57).contains(&seconds(0.99)), "{}", seconds(0.99));
        assert_eq!(
            (times.within(Duration::from_millis(10)), times.within(Duration::from_secs(1))),
            (98, 100)
        );
        assert!((1.0..1.4).contains(&times.sum()), "{}", times.sum());
    }

    #[test]
    fn moments_can_be_compared() {
        let mut before = Latencies::default();
        before.count(Duration::from_millis(1), 5);
        let mut now = before.clone();
        let mut more = Latencies::default();
        more.count(Duration::from_secs(1), 2);
        now.add(&more);
        assert_eq!(now.since(&before), more);
        // A process that began anew has counted less: nothing is known of the time between.
        assert_eq!(before.since(&now).total(), 0);
    }

    proptest! {
        #[test]
        fn a_time_is_in_its_bucket(micros in 0_u64..(1 << 28)) {
            let index = u16::try_from(index(Duration::from_micros(micros))).unwrap();
            let (shortest, end) = (begin(index), begin(index + 1));
            prop_assert!(shortest <= micros && micros < end, "{shortest} {micros} {end}");
            prop_assert!(end - shortest <= (shortest / 8).max(1));
        }
    }
}
