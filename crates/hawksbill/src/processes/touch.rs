//! `touch_reload`: files by whose modification time somebody asks for a reload.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::Config;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Somebody asks for a reload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Touched {
    /// The applications that are to be loaded again; all of them, if none is named.
    pub(super) apps: BTreeSet<String>,
    /// What was touched, for people.
    pub(super) what: String,
}

/// The files of a configuration, each as it was found when the configuration was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Files(BTreeMap<PathBuf, File>);

#[derive(Clone, Debug)]
struct File {
    /// As in [`Touched`].
    apps: BTreeSet<String>,
    /// Its modification time when it was last acted upon. `None`: it was never there.
    known: Option<SystemTime>,
    /// A later one, seen once: whoever writes may not have finished.
    fresh: Option<SystemTime>,
}

impl Files {
    pub(super) fn of(config: &Config) -> Self {
        let mut files = BTreeMap::new();
        for (app, node) in &config.apps {
            for path in node.processes.iter().flat_map(|processes| &processes.touch_reload) {
                let file = files.entry(config.dir.join(path)).or_insert_with_key(|path| File::at(path));
                file.apps.insert(app.clone());
            }
        }
        for path in &config.settings.touch_reload {
            let path = config.dir.join(path);
            // The whole has all applications in it.
            let file = File::at(&path);
            files.insert(path, file);
        }
        Self(files)
    }

    /// Takes on the files of another configuration. Of those that stay it is remembered what was seen.
    fn follow(&mut self, mut next: Self) {
        for (path, file) in &mut next.0 {
            if let Some(former) = self.0.get(path) {
                (file.known, file.fresh) = (former.known, former.fresh);
            }
        }
        *self = next;
    }

    /// Compares with how the files are now. A file counts as touched when it has not changed for one more look.
    fn look(&mut self, now: &BTreeMap<PathBuf, SystemTime>) -> Option<Touched> {
        let mut touched: Vec<(&Path, &BTreeSet<String>)> = Vec::new();
        for (path, file) in &mut self.0 {
            // One that is missing may be about to be put back, by a checkout or a network that is gone for a moment.
            let Some(&time) = now.get(path) else { continue };
            if file.known == Some(time) {
                file.fresh = None;
            } else if file.fresh == Some(time) {
                (file.known, file.fresh) = (Some(time), None);
                touched.push((path, &file.apps));
            } else {
                file.fresh = Some(time);
            }
        }
        let names: Vec<String> = touched.iter().map(|(path, _)| path.display().to_string()).collect();
        let is_whole = touched.iter().any(|(_, apps)| apps.is_empty());
        let apps = touched.into_iter().flat_map(|(_, apps)| apps).filter(|_| !is_whole).cloned().collect();
        (!names.is_empty()).then(|| Touched { apps, what: format!("{} was touched", names.join(", ")) })
    }
}

impl File {
    fn at(path: &Path) -> Self {
        Self { apps: BTreeSet::new(), known: modified(path), fresh: None }
    }
}

/// `None` where there is no such file, or none that may be looked at.
fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|about| about.modified()).ok()
}

/// Looks at the files of the configuration in practice, for ever.
pub(super) async fn keep(mut configured: watch::Receiver<Files>, asks: mpsc::Sender<Touched>) {
    let mut files = configured.borrow_and_update().clone();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = configured.changed() => {
                if changed.is_err() {
                    return;
                }
                files.follow(configured.borrow_and_update().clone());
            }
            _ = look.tick(), if !files.0.is_empty() => {
                // While one reload is under way, one more may wait: it will find all that was touched until then.
                let asking = match asks.try_reserve() {
                    Ok(asking) => asking,
                    Err(TrySendError::Full(())) => continue,
                    Err(TrySendError::Closed(())) => return,
                };
                let paths: Vec<PathBuf> = files.0.keys().cloned().collect();
                // A network's file system may take its time, and the supervisor has other things to do.
                let times = tokio::task::spawn_blocking(move || {
                    paths.into_iter().filter_map(|path| modified(&path).map(|time| (path, time))).collect()
                });
                if let Ok(times) = times.await && let Some(touched) = files.look(&times) {
                    asking.send(touched);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn files(known: &[(&str, &[&str], Option<u64>)]) -> Files {
        let file = |&(path, apps, known): &(&str, &[&str], Option<u64>)| {
            let apps = apps.iter().map(ToString::to_string).collect();
            (PathBuf::from(path), File { apps, known: known.map(at), fresh: None })
        };
        Files(known.iter().map(file).collect())
    }

    fn look(files: &mut Files, now: &[(&str, u64)]) -> Option<Vec<String>> {
        let now = now.iter().map(|&(path, time)| (PathBuf::from(path), at(time))).collect();
        files.look(&now).map(|touched| touched.apps.into_iter().collect())
    }

    #[test]
    fn a_file_is_touched_when_it_has_stopped_changing() {
        let mut files = files(&[("/a", &[], Some(1))]);
        assert_eq!(look(&mut files, &[("/a", 1)]), None);
        assert_eq!(look(&mut files, &[("/a", 2)]), None);
        assert_eq!(look(&mut files, &[("/a", 3)]), None, "it is still being written");
        assert_eq!(look(&mut files, &[("/a", 3)]), Some(vec![]));
        assert_eq!(look(&mut files, &[("/a", 3)]), None, "once is enough");
        // Back in time is a change too: an older file was put there.
        look(&mut files, &[("/a", 1)]);
        assert_eq!(look(&mut files, &[("/a", 1)]), Some(vec![]));
    }

    #[test]
    fn a_file_that_appears_is_touched_and_one_that_is_missing_is_not() {
        let mut files = files(&[("/a", &[], None), ("/b", &[], Some(1))]);
        assert_eq!(look(&mut files, &[]), None);
        assert_eq!(look(&mut files, &[("/b", 1)]), None, "the same again, after it was away");
        look(&mut files, &[("/a", 5), ("/b", 1)]);
        assert_eq!(look(&mut files, &[("/a", 5), ("/b", 1)]), Some(vec![]));
    }

    #[test]
    fn an_application_s_file_is_its_own_and_the_whole_has_all_in_it() {
        let mut files =
            files(&[("/a", &["shop"], Some(1)), ("/b", &["blog"], Some(1)), ("/c", &[], Some(1))]);
        let mut touch = |now: &[(&str, u64)]| {
            look(&mut files, now);
            look(&mut files, now)
        };
        assert_eq!(touch(&[("/a", 2)]), Some(vec!["shop".into()]));
        assert_eq!(touch(&[("/a", 3), ("/b", 3)]), Some(vec!["blog".into(), "shop".into()]));
        assert_eq!(touch(&[("/a", 4), ("/c", 4)]), Some(vec![]));
    }

    #[test]
    fn another_configuration_forgets_nothing_that_was_seen() {
        let mut before = files(&[("/a", &[], Some(1))]);
        look(&mut before, &[("/a", 2)]);
        // Meanwhile it was touched, and the configuration read.
        before.follow(files(&[("/a", &[], Some(2)), ("/b", &[], Some(2))]));
        assert_eq!(look(&mut before, &[("/a", 2), ("/b", 2)]), Some(vec![]));
    }
}
