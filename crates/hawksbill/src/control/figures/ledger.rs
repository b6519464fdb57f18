//! What all processes have counted: those that are there, and those that were.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use hawksbill_core::Reading;

/// Readings by site and application.
pub(super) type Readings = BTreeMap<(String, String), Reading>;

/// The time over which rates and percentiles are taken.
const WINDOW: Duration = Duration::from_secs(5);

/// Adds up what processes tell.
#[derive(Default)]
pub(super) struct Ledger {
    /// What each process has told last.
    live: BTreeMap<u64, Readings>,
    /// What those had counted that are no more.
    gone: Readings,
    /// The sums at the last moments, the oldest first.
    past: VecDeque<(Instant, Readings)>,
}

/// What has been counted at a moment, and of that the last seconds.
pub(super) struct Seen {
    pub(super) totals: Readings,
    /// The sums of a while ago, and how long ago that is.
    pub(super) earlier: Option<(Duration, Readings)>,
}

impl Ledger {
    /// Takes what processes have told; `alive` are all that are there. One that has not answered in time counts with
    /// what it told before.
    pub(super) fn take(
        &mut self,
        told: BTreeMap<u64, Vec<Reading>>,
        alive: &BTreeSet<u64>,
        now: Instant,
    ) -> Seen {
        for (process, readings) in told {
            let named = readings
                .into_iter()
                .map(|reading| ((reading.site.clone(), reading.application.clone()), reading));
            self.live.insert(process, named.collect());
        }
        let ended: Vec<u64> = self.live.keys().filter(|process| !alive.contains(process)).copied().collect();
        for readings in ended.into_iter().filter_map(|process| self.live.remove(&process)) {
            add(&mut self.gone, readings.into_iter().map(|(key, reading)| (key, settled(reading))));
        }
        let mut totals = Readings::new();
        for readings in self.live.values() {
            add(&mut totals, readings.iter().map(|(key, reading)| (key.clone(), reading.clone())));
        }
        // What is configured no more is not shown, and counts again if it comes back.
        for (key, total) in &mut totals {
            if let Some(gone) = self.gone.get(key) {
                total.add(gone);
            }
        }
        Seen { earlier: self.remember(now, totals.clone()), totals }
    }

    /// Keeps the sums, and gives those from which the last seconds count.
    fn remember(&mut self, now: Instant, totals: Readings) -> Option<(Duration, Readings)> {
        let age = |then: &Instant| now.saturating_duration_since(*then);
        // Of moments that are too long ago only the last is of use, and none after a time in which nobody looked.
        while self.past.get(1).is_some_and(|(then, _)| age(then) >= WINDOW) {
            self.past.pop_front();
        }
        while self.past.front().is_some_and(|(then, _)| age(then) > 2 * WINDOW) {
            self.past.pop_front();
        }
        let earlier = self.past.front().map(|(then, readings)| (age(then), readings.clone()));
        self.past.push_back((now, totals));
        earlier
    }
}

fn add(sums: &mut Readings, more: impl Iterator<Item = ((String, String), Reading)>) {
    for ((site, application), reading) in more {
        let named = || Reading { site: site.clone(), application: application.clone(), ..Reading::default() };
        sums.entry((site.clone(), application.clone())).or_insert_with(named).add(&reading);
    }
}

/// What was under way when a process ended is not under way any more.
fn settled(reading: Reading) -> Reading {
    Reading { begun: reading.begun.saturating_sub(reading.in_flight()), ..reading }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(begun: u64, answered: u64) -> Vec<Reading> {
        let mut reading =
            Reading { site: "a.example".into(), application: "shop".into(), begun, ..Reading::default() };
        reading.latency.count(Duration::from_millis(3), answered);
        vec![reading]
    }

    fn only(readings: &Readings) -> &Reading {
        assert_eq!(readings.len(), 1);
        readings.values().next().unwrap()
    }

    #[test]
    fn what_ended_processes_have_counted_stays() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let seen = ledger.take([(1, reading(10, 8)), (2, reading(5, 5))].into(), &[1, 2].into(), now);
        assert_eq!((only(&seen.totals).begun, only(&seen.totals).in_flight()), (15, 2));
        assert!(seen.earlier.is_none());
        // The first has ended, and another began; the second is too slow to answer.
        let later = now + Duration::from_secs(1);
        let seen = ledger.take([(3, reading(1, 1))].into(), &[2, 3].into(), later);
        assert_eq!((only(&seen.totals).begun, only(&seen.totals).in_flight()), (14, 0));
        assert_eq!(only(&seen.totals).latency.total(), 14);
        let (window, earlier) = seen.earlier.unwrap();
        assert_eq!((window, only(&earlier).begun), (Duration::from_secs(1), 15));
    }

    #[test]
    fn the_window_slides_and_is_not_bridged() {
        let (mut ledger, begin) = (Ledger::default(), Instant::now());
        let mut look = |seconds: u64, count: u64| {
            let now = begin + Duration::from_secs(seconds);
            let seen = ledger.take([(1, reading(count, count))].into(), &[1].into(), now);
            seen.earlier.map(|(window, earlier)| (window.as_secs(), only(&earlier).begun))
        };
        assert_eq!(look(0, 100), None);
        assert_eq!(look(1, 110), Some((1, 100)));
        for second in 2..=8 {
            look(second, 100 + 10 * second);
        }
        assert_eq!(look(9, 190), Some((5, 140)));
        assert_eq!(look(60, 1000), None);
        assert_eq!(look(61, 1001), Some((1, 1000)));
    }
}
