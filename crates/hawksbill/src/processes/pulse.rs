//! How much a worker has to do: looked at often, told now and then.

use std::time::{Duration, Instant};

use hawksbill_core::{Sample, Vitals};
use hawksbill_supervisor::Beat;

/// How often it is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// How many looks make a beat, which the supervisor is told.
const LOOKS: u32 = 20;

/// The looks since the last beat.
#[derive(Default)]
pub(super) struct Pulse {
    looks: u32,
    /// Requests under way: the sum over all looks, and the most that were seen at once.
    running: u32,
    most: usize,
}

impl Pulse {
    /// Looks; every so often this makes a beat.
    pub(super) fn look(&mut self, sample: &Sample) -> Option<Beat> {
        self.looks += 1;
        self.running = self.running.saturating_add(saturated(sample.running));
        self.most = self.most.max(sample.most);
        if self.looks < LOOKS {
            return None;
        }
        let beat = Beat {
            requests: sample.begun,
            busy: saturated(self.most),
            load: Some(f64::from(self.running) / f64::from(self.looks)),
            slots: saturated(sample.slots),
            waiting: saturated(sample.waiting),
            ..Beat::default()
        };
        (self.looks, self.running, self.most) = (0, 0, 0);
        Some(beat)
    }
}

/// How much work a worker takes beyond what it can do at once, by the time that it needs.
const AHEAD: Duration = Duration::from_millis(1);

/// How many requests a worker has room for: as many as it can work on at once, and as many more as it finishes in a
/// moment. Otherwise one that answers quickly would sleep and wake for every few requests, as would the front.
pub(super) struct Room {
    bound: usize,
    begun: u64,
    looked: Instant,
    said: u32,
}

impl Room {
    /// `None`: nothing bounds it.
    pub(super) fn of(vitals: &Vitals) -> Option<Self> {
        let bound = vitals.bound()?;
        Some(Self { bound, begun: vitals.sample().begun, looked: Instant::now(), said: saturated(bound) })
    }

    /// What is said of it before anything was seen.
    pub(super) fn begin(&mut self) -> u32 {
        self.said = saturated(self.bound);
        self.said
    }

    /// What it is, if that is not nearly what was said last.
    pub(super) fn look(&mut self, sample: &Sample, now: Instant) -> Option<u32> {
        let passed = now.duration_since(std::mem::replace(&mut self.looked, now)).max(AHEAD);
        let begun = sample.begun.saturating_sub(std::mem::replace(&mut self.begun, sample.begun));
        let ahead = u128::from(begun) * AHEAD.as_micros() / passed.as_micros();
        let room = saturated(self.bound).saturating_add(u32::try_from(ahead).unwrap_or(u32::MAX));
        // Small changes are not worth a frame.
        if room.abs_diff(self.said) <= self.said / 8 {
            return None;
        }
        self.said = room;
        Some(room)
    }
}

fn saturated(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Finds the moment at which many connections have just gone to rest and no more do, for what is done then.
pub(super) struct Lull {
    rests: u64,
    comes: bool,
    then: fn(),
}

impl Lull {
    pub(super) fn before(then: fn()) -> Self {
        Self { rests: 0, comes: false, then }
    }

    /// Looks at how often connections have gone to rest.
    pub(super) fn look(&mut self, rests: u64) {
        let moves = std::mem::replace(&mut self.rests, rests) != rests;
        if self.comes && !moves {
            (self.then)();
        }
        self.comes = moves;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_lull_comes_once_after_each_move() {
        static LULLS: AtomicUsize = AtomicUsize::new(0);
        let mut lull = Lull::before(|| {
            LULLS.fetch_add(1, Ordering::Relaxed);
        });
        let seen = [0, 0, 3, 5, 5, 5, 6, 6].map(|rests| {
            lull.look(rests);
            LULLS.load(Ordering::Relaxed)
        });
        assert_eq!(seen, [0, 0, 0, 0, 1, 1, 1, 2]);
    }

    #[test]
    fn what_is_brief_counts_as_brief() {
        let mut pulse = Pulse::default();
        let mut look = |look: u32| {
            let busy = usize::from(look.is_multiple_of(4));
            pulse.look(&Sample { running: busy, most: busy, slots: 1, ..Sample::default() })
        };
        for _ in 0..2 {
            let beats: Vec<Beat> = (0..LOOKS).filter_map(&mut look).collect();
            let [beat] = beats.as_slice() else { unreachable!("one beat for so many looks") };
            assert_eq!((beat.busy, beat.load, beat.slots), (1, Some(0.25), 1));
        }
    }

    #[test]
    fn there_is_room_for_what_is_done_in_a_moment() {
        let vitals = Vitals::default();
        assert!(Room::of(&vitals).is_none());
        vitals.source(|| Sample { slots: 8, ..Sample::default() });
        let mut room = Room::of(&vitals).unwrap();
        let start = Instant::now();
        room.looked = start;
        assert_eq!(room.begin(), 8);
        let mut look = |begun, after: u64| {
            room.look(&Sample { begun, ..Sample::default() }, start + Duration::from_millis(after))
        };
        assert_eq!(look(0, 50), None);
        assert_eq!(look(2000, 100), Some(48));
        assert_eq!(look(4100, 150), None);
        // All its threads hang.
        assert_eq!(look(4100, 200), Some(8));
        assert_eq!(look(4100, 200), None);
    }
}
