//! What a process tells of the requests that it counts, when the supervisor asks.

use std::collections::BTreeMap;

use hawksbill_core::{Reading, Vitals};
use hawksbill_hop::Pool;
use serde::{Deserialize, Serialize};

/// The name of the question.
pub(crate) const FIGURES: &str = "figures";

/// How much may be said, in bytes of JSON: half of what the supervisor takes.
const MOST: usize = 512 * 1024;

/// Bytes of JSON that a reading takes at most, beside its names: its counters, and each of its buckets.
const OF_READING: usize = 200;
const OF_BUCKET: usize = 28;

/// What the readings are counted under that there is no room for.
const OTHERS: &str = "(others)";

/// What a process says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Told {
    /// What it counts since it started.
    pub(crate) readings: Vec<Reading>,
    /// How many requests wait in it for a worker of an application.
    pub(crate) queues: BTreeMap<String, u64>,
}

impl Told {
    pub(super) fn now(vitals: &Vitals, pools: &[(String, Pool)]) -> Self {
        let waiting = |pool: &Pool| u64::try_from(pool.waiting()).unwrap_or(u64::MAX);
        let queues = pools.iter().map(|(name, pool)| (name.clone(), waiting(pool)));
        Self { readings: within(vitals.readings(), MOST), queues: queues.collect() }
    }
}

/// The busiest of them, and the sum of those that would be too much.
fn within(mut readings: Vec<Reading>, most: usize) -> Vec<Reading> {
    readings.sort_by_key(|reading| std::cmp::Reverse(reading.begun));
    let mut size = 0_usize;
    let fitting = readings.iter().take_while(|reading| {
        let names = (reading.site.len() + reading.application.len()) * 2;
        size += OF_READING + names + reading.latency.buckets() * OF_BUCKET;
        size <= most
    });
    let rest = readings.split_off(fitting.count());
    if !rest.is_empty() {
        let mut others =
            Reading { site: OTHERS.to_owned(), application: OTHERS.to_owned(), ..Reading::default() };
        for reading in &rest {
            others.add(reading);
        }
        readings.push(others);
    }
    readings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_summed_up() {
        let reading =
            |number: u64| Reading { site: format!("{number}.example"), begun: number, ..Reading::default() };
        let all: Vec<Reading> = (1..=100).map(reading).collect();
        let told = within(all.clone(), 10 * 300);
        assert!(told.len() > 5 && told.len() < 20, "{}", told.len());
        assert_eq!(told[0].site, "100.example");
        assert_eq!(told.iter().map(|reading| reading.begun).sum::<u64>(), 5050);
        assert!(serde_json::to_string(&told).unwrap().len() < 3000);
        assert_eq!(within(all, MOST).len(), 100);
    }
}
