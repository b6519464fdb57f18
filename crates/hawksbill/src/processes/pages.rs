//! What status pages are told, and what they want done.
//!
//! A worker that serves such a page says so while somebody watches, and is told the figures each second for as long; the
//! private channel is enough for that, so the page works whoever the worker runs as, and without a control socket.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hawksbill_apps::StatusPage;
use hawksbill_core::{App, AppKind};
use hawksbill_supervisor::{Event, Handle, Wish};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::practice::{Change, Facts, Request};
use crate::Config;
use crate::config::Target;
use crate::control::{Api, Figures, Lookout, OFTEN};

/// How many wishes may wait.
pub(super) const WAITING: usize = 32;

/// How long a pool is told after it last wished for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many of the last things that happened are shown.
const NOTES: usize = 8;

/// The longest that is shown of one, in characters.
const LONGEST: usize = 200;

/// What a page may wish for.
#[derive(Debug, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case")]
enum Wished {
    /// To be told.
    Watch,
    Reload {
        application: String,
    },
}

/// What a page is told.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    figures: &'a Figures,
    /// What happened lately, the latest first.
    notes: &'a VecDeque<Note>,
}

/// Something that happened.
#[derive(Serialize)]
struct Note {
    /// Seconds since 1970.
    time: f64,
    is_bad: bool,
    text: String,
}

/// Looks after the pages of a gateway.
pub(super) struct Pages {
    handle: Handle,
    lookout: Lookout,
    facts: watch::Receiver<Facts>,
    changes: mpsc::Sender<Request>,
}

impl Pages {
    /// With what the control socket needs as well.
    pub(super) fn of(api: &Api) -> Self {
        Self {
            handle: api.handle.clone(),
            lookout: api.lookout.clone(),
            facts: api.facts.clone(),
            changes: api.changes.clone(),
        }
    }

    /// Does so for ever.
    pub(super) async fn keep(self, mut wishes: mpsc::Receiver<Wish>) {
        let mut events = self.handle.events();
        let mut often = tokio::time::interval(OFTEN);
        often.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watching: BTreeMap<String, Instant> = BTreeMap::new();
        let mut notes = VecDeque::new();
        loop {
            tokio::select! {
                wish = wishes.recv() => {
                    let Some(wish) = wish else { return };
                    // One who begins to watch need not wait for the next second.
                    if let Some(pool) = self.heard(wish)
                        && watching.insert(pool, Instant::now() + PATIENCE).is_none()
                    {
                        often.reset_immediately();
                    }
                }
                _ = often.tick(), if !watching.is_empty() => {
                    watching.retain(|_, until| *until > Instant::now());
                    self.tell(watching.keys(), &notes).await;
                }
                event = events.recv() => match event {
                    Ok(event) => remember(&mut notes, &event),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    /// Does what is wished for; gives the pool that wants to be told.
    fn heard(&self, wish: Wish) -> Option<String> {
        match serde_json::from_value(wish.value).ok()? {
            Wished::Watch => return Some(wish.of.pool),
            // The page has looked as well, but it stands beside other code in its process.
            Wished::Reload { application } if self.facts.borrow().page_acts => self.reload(application),
            Wished::Reload { .. } => {
                tracing::warn!(
                    target: "hawksbill::control",
                    "{} wants a reload, and no status page has actions = true; nothing is done", wish.of.pool
                );
            }
        }
        None
    }

    /// What comes of it is an event.
    fn reload(&self, application: String) {
        tracing::info!(target: "hawksbill::control", "the status page asks to reload {application:?}");
        let (reply, _) = oneshot::channel();
        let change = Change::Reload(BTreeSet::from([application]));
        let _ = self.changes.try_send(Request { change, reply });
    }

    async fn tell(&self, pools: impl Iterator<Item = &String>, notes: &VecDeque<Note>) {
        let Some(figures) = self.lookout.look().await else { return };
        let told = serde_json::to_value(Told { figures: &figures, notes }).unwrap_or_default();
        for pool in pools {
            // One that is gone watches no more.
            let _ = self.handle.tell(pool.clone(), told.clone()).await;
        }
    }
}

/// Whether a status page is configured that may have something done.
pub(super) fn may_act(config: &Config) -> bool {
    let named = config.apps.values().map(|node| &node.app);
    let inline = config.sites.iter().flat_map(|site| &site.routes).filter_map(|route| match &route.target {
        Target::Inline(app) => Some(app),
        Target::Named(_) => None,
    });
    let acts = |app: &dyn App| app.settings().get("actions").and_then(serde_json::Value::as_bool);
    named.chain(inline).any(|app| app.name() == StatusPage::NAME && acts(app.as_ref()).unwrap_or_default())
}

fn remember(notes: &mut VecDeque<Note>, event: &Event) {
    let (is_bad, text) = match event {
        Event::Ended { of, exit, expected: false, .. } => {
            (true, format!("{}: process {} ended unasked, {exit}", of.pool, of.process))
        }
        Event::Stuck { of, what, .. } => (true, format!("{}: process {} hangs: {what}", of.pool, of.process)),
        Event::Killed { of } => (true, format!("{}: process {} was killed", of.pool, of.process)),
        Event::PutOff { pool, seconds } => {
            (true, format!("{pool}: its processes keep ending; the next one starts in {seconds:.0} s"))
        }
        Event::Refused { message } => {
            (true, format!("not loaded: {}", message.lines().next().unwrap_or_default()))
        }
        Event::Applied { generation, pools } if pools.is_empty() => {
            (false, format!("generation {generation} serves"))
        }
        Event::Applied { generation, pools } => {
            (false, format!("generation {generation} serves: {}", pools.join(", ")))
        }
        Event::RolledBack { pool, generation } => (false, format!("{pool}: back to generation {generation}")),
        Event::Scaled { pool, target } => (false, format!("{pool}: {target} processes from now on")),
        _ => return,
    };
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = text.chars().take(LONGEST).collect();
    notes.push_front(Note { time: since_1970.as_secs_f64(), is_bad, text });
    notes.truncate(NOTES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_happened_is_kept() {
        let mut notes = VecDeque::new();
        for generation in 0..20 {
            remember(&mut notes, &Event::Applied { generation, pools: vec!["shop".into()] });
        }
        remember(&mut notes, &Event::Refused { message: "x".repeat(1000) + "\nmore" });
        assert_eq!(notes.len(), NOTES);
        assert_eq!((notes[0].is_bad, notes[0].text.len()), (true, LONGEST));
        assert_eq!(notes[1].text, "generation 19 serves: shop");
    }

    #[test]
    fn wishes_are_read_with_care() {
        let read = |text: &str| serde_json::from_str::<Wished>(text);
        assert!(matches!(read(r#"{"wish":"watch"}"#), Ok(Wished::Watch)));
        assert!(matches!(read(r#"{"wish":"reload","application":"shop"}"#), Ok(Wished::Reload { .. })));
        assert!(read(r#"{"wish":"stop"}"#).is_err());
    }
}
