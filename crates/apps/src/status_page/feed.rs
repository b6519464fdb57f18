//! What those who watch are told.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::stream;
use hawksbill_core::{Body, Vitals};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::event;

/// The wish to be told, and after how many tellings it is said again. Whoever tells goes on for longer than that.
const WATCH: &str = r#"{"wish":"watch"}"#;
const RENEWED: u32 = 3;

/// How a stream begins: one that has ended is begun anew after so many milliseconds.
const BEGIN: &str = "retry: 1000\n\n";

/// What is told when this process gets no more.
const OVER: &str = "null";

/// One for all pages of a generation.
pub(super) struct Feed {
    vitals: Arc<Vitals>,
    latest: Arc<watch::Sender<News>>,
    seats: Arc<Semaphore>,
}

#[derive(Clone, Default)]
enum News {
    #[default]
    Nothing,
    Figures(Bytes),
    Over,
}

/// Why one cannot watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwatched {
    /// Enough others do.
    Full,
    /// Nobody tells.
    Nobody,
}

impl Feed {
    pub(super) fn new(vitals: &Arc<Vitals>, watchers: usize) -> Self {
        let latest = Arc::new(watch::Sender::new(News::Nothing));
        let (sender, asked) = (latest.clone(), Arc::downgrade(vitals));
        let told = AtomicU32::new(0);
        vitals.on_told(move |text| {
            if text == OVER {
                sender.send_replace(News::Over);
                return;
            }
            sender.send_replace(News::Figures(event(text)));
            let again = told.fetch_add(1, Ordering::Relaxed).is_multiple_of(RENEWED);
            if again && sender.receiver_count() > 0 {
                renew(&asked);
            }
        });
        Self { vitals: vitals.clone(), latest, seats: Arc::new(Semaphore::new(watchers)) }
    }

    /// Wishes for something; `false`: nobody hears it.
    pub(super) fn wish(&self, wish: &str) -> bool {
        self.vitals.wish(wish)
    }

    /// What is told from now on, as the body of an answer.
    pub(super) fn watch(&self) -> Result<Body, Unwatched> {
        let seat = self.seats.clone().try_acquire_owned().map_err(|_| Unwatched::Full)?;
        let mut news = self.latest.subscribe();
        // A browser may come back to a process that leaves, on a connection that it has kept: it is sent on.
        if matches!(*news.borrow(), News::Over) {
            return Ok(Body::from(BEGIN));
        }
        // What was told to others before may be old.
        news.mark_unchanged();
        if !self.wish(WATCH) {
            return Err(Unwatched::Nobody);
        }
        let begin = Bytes::from_static(BEGIN.as_bytes());
        Ok(Body::from_stream(stream::unfold((Some(begin), news, seat), next)))
    }
}

fn renew(vitals: &Weak<Vitals>) {
    if let Some(vitals) = vitals.upgrade() {
        vitals.wish(WATCH);
    }
}

type Watching = (Option<Bytes>, watch::Receiver<News>, OwnedSemaphorePermit);

async fn next((begin, mut news, seat): Watching) -> Option<(Result<Bytes, Infallible>, Watching)> {
    if let Some(begin) = begin {
        return Some((Ok(begin), (None, news, seat)));
    }
    loop {
        news.changed().await.ok()?;
        let told = news.borrow_and_update().clone();
        match told {
            News::Figures(event) => return Some((Ok(event), (None, news, seat))),
            News::Over => return None,
            News::Nothing => {}
        }
    }
}
