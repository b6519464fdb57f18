//! The records of late, for `hawksbill logs`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::record::Record;

/// So many records are kept, and messages of so many bytes.
const RECORDS: usize = 2000;
const BYTES: usize = 1 << 20;

/// So many records a slow reader may be behind.
const BEHIND: usize = 512;

/// What somebody wants to read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// Only of this application, service or process.
    pub(crate) name: Option<String>,
    /// So many of those that are kept.
    pub(crate) last: usize,
}

/// Reads records: first those that were kept, then those that come.
pub(crate) struct Following {
    name: Option<String>,
    kept: VecDeque<Arc<Record>>,
    coming: broadcast::Receiver<Arc<Record>>,
}

pub(super) struct Recent {
    kept: Mutex<Kept>,
    coming: broadcast::Sender<Arc<Record>>,
}

#[derive(Default)]
struct Kept {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::default(), coming: broadcast::Sender::new(BEHIND) }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keep(&self, record: Record) {
        let record = Arc::new(record);
        let mut kept = self.lock();
        kept.bytes += record.message.len();
        kept.records.push_back(record.clone());
        while kept.records.len() > RECORDS || kept.bytes > BYTES {
            let Some(oldest) = kept.records.pop_front() else { break };
            kept.bytes -= oldest.message.len();
        }
        // With the lock held, so that a reader gets each once.
        let _ = self.coming.send(record);
    }

    pub(super) fn follow(&self, asked: Asked) -> Following {
        let kept = self.lock();
        let wanted = |record: &&Arc<Record>| asked.name.as_ref().is_none_or(|name| record.is_of(name));
        let mut records: VecDeque<_> =
            kept.records.iter().rev().filter(wanted).take(asked.last).cloned().collect();
        records.make_contiguous().reverse();
        Following { kept: records, coming: self.coming.subscribe(), name: asked.name }
    }
}

impl Following {
    /// The next of those that were kept.
    pub(crate) fn next_kept(&mut self) -> Option<Arc<Record>> {
        self.kept.pop_front()
    }

    /// The next one that comes; `Err` with how many were missed. `None`: there will be none.
    pub(crate) async fn next_coming(&mut self) -> Option<Result<Arc<Record>, u64>> {
        loop {
            match self.coming.recv().await {
                Ok(record) if self.name.as_ref().is_none_or(|name| record.is_of(name)) => {
                    return Some(Ok(record));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => return Some(Err(missed)),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(process: &str, message: &str) -> Record {
        Record { process: process.into(), message: message.into(), ..Record::default() }
    }

    #[tokio::test]
    async fn the_last_ones_and_then_each_once() {
        let recent = Recent::new();
        for number in 0..5 {
            recent.keep(record("shop", &number.to_string()));
            recent.keep(record("blog", "no"));
        }
        let mut following = recent.follow(Asked { name: Some("shop".into()), last: 2 });
        recent.keep(record("blog", "no"));
        recent.keep(record("shop", "5"));
        let mut seen: Vec<String> =
            std::iter::from_fn(|| following.next_kept()).map(|r| r.message.clone()).collect();
        seen.push(following.next_coming().await.unwrap().unwrap().message.clone());
        assert_eq!(seen, ["3", "4", "5"]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let recent = Recent::new();
        for _ in 0..RECORDS + 9 {
            recent.keep(record("shop", "x"));
        }
        assert_eq!(recent.lock().records.len(), RECORDS);
        for _ in 0..9 {
            recent.keep(record("shop", &"x".repeat(BYTES / 4)));
        }
        let kept = recent.lock();
        assert!(kept.records.len() <= 4 && kept.bytes <= BYTES);
    }
}
