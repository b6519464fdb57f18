//! Until when the times of each command have been seen to: a small file that outlives the gateway, so that what was due
//! while none ran is known at the next start.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Job;
use crate::control::Subject;

/// The longest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// See the module. Cheap to clone. The file is looked for when there is a command.
#[derive(Clone)]
pub(crate) struct Past {
    subject: Subject,
    known: Arc<OnceLock<Known>>,
}

struct Known {
    path: Option<PathBuf>,
    seen: Mutex<BTreeMap<String, Seen>>,
}

/// Until when a command of these times was seen to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    schedule: String,
    timezone: Option<String>,
    /// RFC 3339.
    until: String,
}

impl Past {
    pub(crate) fn of(subject: &Subject) -> Self {
        Self { subject: subject.clone(), known: Arc::default() }
    }

    fn known(&self) -> &Known {
        self.known.get_or_init(|| {
            let path = crate::control::kept(&self.subject, "cron.json");
            let read = path.and_then(|path| Ok((read(&path)?, path)));
            let (seen, path) = match read {
                Ok((seen, path)) => (seen, Some(path)),
                Err(error) => {
                    tracing::warn!(
                        target: "hawksbill::cron",
                        "what is due while the gateway does not run will not be known: {error}"
                    );
                    (BTreeMap::new(), None)
                }
            };
            Known { path, seen: Mutex::new(seen) }
        })
    }

    /// Until when this command was seen to; `None` if it is new, or was due at other times.
    pub(super) fn seen(&self, job: &Job) -> Option<Timestamp> {
        let seen = self.known().lock().get(&job.name).cloned()?;
        let is_same = seen.schedule == job.table.schedule && seen.timezone == job.table.timezone;
        if is_same { seen.until.parse().ok() } else { None }
    }

    /// Notes that this command was seen to until then.
    pub(super) fn note(&self, job: &Job, until: Timestamp) {
        let known = self.known();
        let mut seen = known.lock();
        let (schedule, timezone) = (job.table.schedule.clone(), job.table.timezone.clone());
        seen.insert(job.name.clone(), Seen { schedule, timezone, until: until.to_string() });
        known.write(&seen);
    }

    /// Forgets the other commands.
    pub(super) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.known().lock().retain(|name, _| wanted(name));
    }
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, seen: &BTreeMap<String, Seen>) {
        let Some(path) = &self.path else { return };
        if let Err(error) = replace(path, seen) {
            let path = path.display();
            tracing::debug!(target: "hawksbill::cron", "cannot write {path}: {error}");
        }
    }
}

/// What the file says; nothing, if there is none, or another program's.
fn read(path: &Path) -> io::Result<BTreeMap<String, Seen>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        opened => opened?,
    };
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

/// Writes it beside and moves it there, so that it is whole whenever somebody looks.
fn replace(path: &Path, seen: &BTreeMap<String, Seen>) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let text = serde_json::to_vec(seen)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&text)?;
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(until: &str) -> BTreeMap<String, Seen> {
        let seen = Seen { schedule: "@daily".into(), timezone: None, until: until.to_owned() };
        BTreeMap::from([("backup".to_owned(), seen)])
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site-0.cron.json");
        assert!(read(&path).unwrap().is_empty());
        replace(&path, &seen("2024-05-01T12:00:00Z")).unwrap();
        replace(&path, &seen("2024-05-02T12:00:00Z")).unwrap();
        assert_eq!(read(&path).unwrap(), seen("2024-05-02T12:00:00Z"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(&path, "no JSON").unwrap();
        assert!(read(&path).unwrap().is_empty());
    }
}
