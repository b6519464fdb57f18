//! How much a worker has to do: looked at often, told now and then.

use std::sync::Arc;
use std::time::Duration;

use hawksbill_core::Vitals;
use hawksbill_supervisor::Beat;

/// How often it is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// How many looks make a beat, which the supervisor is told.
const LOOKS: u32 = 20;

/// The looks since the last beat.
pub(super) struct Pulse {
    vitals: Arc<Vitals>,
    looks: u32,
    /// Requests under way: the sum over all looks, and the most that were seen at once.
    running: u32,
    most: usize,
}

impl Pulse {
    pub(super) fn new(vitals: Arc<Vitals>) -> Self {
        Self { vitals, looks: 0, running: 0, most: 0 }
    }

    /// Looks; every so often this makes a beat.
    pub(super) fn look(&mut self) -> Option<Beat> {
        let sample = self.vitals.sample();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        self.looks += 1;
        self.running = self.running.saturating_add(count(sample.running));
        self.most = self.most.max(sample.most);
        if self.looks < LOOKS {
            return None;
        }
        let beat = Beat {
            requests: sample.begun,
            busy: count(self.most),
            load: Some(f64::from(self.running) / f64::from(self.looks)),
            slots: count(sample.slots),
            waiting: count(sample.waiting),
            ..Beat::default()
        };
        (self.looks, self.running, self.most) = (0, 0, 0);
        Some(beat)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hawksbill_core::Sample;

    use super::*;

    #[test]
    fn what_is_brief_counts_as_brief() {
        let (vitals, looks) = (Arc::new(Vitals::default()), AtomicUsize::new(0));
        vitals.source(move || {
            let busy = looks.fetch_add(1, Ordering::Relaxed) % 4 == 0;
            Sample { running: busy.into(), most: busy.into(), slots: 1, ..Sample::default() }
        });
        let mut pulse = Pulse::new(vitals);
        for _ in 0..2 {
            let beats: Vec<Beat> = (0..LOOKS).filter_map(|_| pulse.look()).collect();
            let [beat] = beats.as_slice() else { unreachable!("one beat for so many looks") };
            assert_eq!((beat.busy, beat.load, beat.slots), (1, Some(0.25), 1));
        }
    }
}
