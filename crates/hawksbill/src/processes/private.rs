//! Where the sockets between the front and the applications are: one directory for each application, which nobody else
//! can enter.

use std::collections::{HashMap, HashSet};
use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use hawksbill_core::BuildError;
use hawksbill_supervisor::{Event, Handle, Identity};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

/// The longest path of a Unix socket, in bytes (`sockaddr_un`, with a zero at its end).
const MOST_PATH: usize = 107;

/// What stands behind the directory in the path of a socket at most: the number of the application, that of the process.
const MOST_BEHIND: usize = "/65535/18446744073709551615.sock".len();

/// How often another name is tried where one is taken: by another user's gateway that was killed, by one in another
/// container whose processes have the same numbers.
const TRIES: u32 = 1000;

/// The directories. They are removed with this.
#[derive(Default)]
pub(super) struct Private {
    dirs: watch::Sender<Dirs>,
    /// Tells others that the directory around them is in use.
    lock: Option<OwnedFd>,
}

/// Where they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Dirs {
    root: Option<PathBuf>,
    /// By the names of the applications. A name keeps its directory over all reloads: a worker's is part of what it was
    /// started with.
    dirs: HashMap<String, PathBuf>,
}

impl Private {
    /// Those of a former program.
    pub(super) fn take_over(dirs: Dirs) -> Self {
        let lock = dirs.root.as_deref().and_then(lock);
        Self { dirs: watch::Sender::new(dirs), lock }
    }

    /// Where they are, for a program that takes over.
    pub(super) fn dirs(&self) -> Dirs {
        self.dirs.borrow().clone()
    }

    /// Where they are from now on, for [`tidy`].
    pub(super) fn watch(&self) -> watch::Receiver<Dirs> {
        self.dirs.subscribe()
    }

    /// The directory of an application, made if this is the first time, and belonging to who runs it.
    pub(super) fn dir(&mut self, app: &str, identity: &Identity) -> Result<PathBuf, BuildError> {
        let Dirs { root, mut dirs } = self.dirs();
        let root = if let Some(root) = root {
            root
        } else {
            let made = make_root()?;
            self.lock = lock(&made);
            made
        };
        let known = dirs.len();
        let dir = dirs.entry(app.to_owned()).or_insert_with(|| root.join(known.to_string())).clone();
        // Before anything is made in it: what fails from here on is removed with the rest.
        self.dirs.send_replace(Dirs { root: Some(root), dirs });
        let failed = |error: io::Error| {
            let message = format!("cannot make the directory {} for the application's socket", dir.display());
            BuildError::new(message).caused_by(error).within(format!("apps.{app}"))
        };
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let (user, group) = identity.ids().map_err(failed)?;
        if user.is_some() || group.is_some() {
            chown(&dir, user, group).map_err(failed)?;
        }
        Ok(dir)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Some(root) = &self.dirs.borrow().root {
            // Whoever is left to connect to them has ended.
            let _ = std::fs::remove_dir_all(root);
        }
    }
}

/// The socket of a process, in its application's directory.
pub(super) fn socket(dir: &Path, process: u64) -> PathBuf {
    dir.join(format!("{process}.sock"))
}

/// Removes what processes leave behind that could not do so themselves, for ever.
pub(super) async fn tidy(dirs: watch::Receiver<Dirs>, handle: Handle) {
    let mut events = handle.events();
    loop {
        match events.recv().await {
            Ok(Event::Ended { of, .. }) => {
                if let Some(dir) = dirs.borrow().dirs.get(&of.pool) {
                    // It is gone already if the process ended as it should.
                    let _ = std::fs::remove_file(socket(dir, of.process));
                }
            }
            Ok(_) => {}
            // Somebody may have ended of whom nothing was heard.
            Err(RecvError::Lagged(_)) => sweep(&dirs, &handle).await,
            Err(RecvError::Closed) => return,
        }
    }
}

/// Removes the sockets of all processes that are no more.
async fn sweep(dirs: &watch::Receiver<Dirs>, handle: &Handle) {
    let found = sockets(&dirs.borrow());
    // Asked later than the directories, so that whoever made one of the sockets is known here, unless it has ended.
    let Some(status) = handle.status().await else { return };
    let running: HashSet<u64> =
        status.pools.values().flat_map(|pool| &pool.processes).map(|process| process.process).collect();
    for (path, _) in found.iter().filter(|(_, process)| !running.contains(process)) {
        let _ = std::fs::remove_file(path);
    }
}

/// All sockets, with the numbers of the processes that made them.
fn sockets(dirs: &Dirs) -> Vec<(PathBuf, u64)> {
    let entries = dirs.dirs.values().filter_map(|dir| dir.read_dir().ok()).flatten().flatten();
    let numbered = entries.filter_map(|entry| {
        let path = entry.path();
        let process = path.file_name()?.to_str()?.strip_suffix(".sock")?.parse().ok()?;
        Some((path, process))
    });
    numbered.collect()
}

/// Makes the directory around them, at the first place where that can be done. Others may pass through, since the
/// applications of other users have to, and find nothing that they can enter.
fn make_root() -> Result<PathBuf, BuildError> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = std::iter::once(PathBuf::from("/run")).chain(runtime).chain([std::env::temp_dir()]);
    let mut failures = Vec::new();
    for place in places.filter(|place| place.is_absolute()) {
        sweep_places(&place);
        match make(&place) {
            Ok(made) => return Ok(made),
            Err(error) => failures.push(format!("{}: {error}", place.display())),
        }
    }
    let message = "there is no place for the sockets between the front and the applications; set TMPDIR or XDG_RUNTIME_DIR \
                   to a directory that can be written and whose path is short";
    Err(BuildError::new(message).details(failures.join("\n")))
}

fn make(place: &Path) -> io::Result<PathBuf> {
    let number = std::process::id();
    for turn in 0..TRIES {
        let name =
            if turn == 0 { format!("hawksbill-{number}") } else { format!("hawksbill-{number}-{turn}") };
        let path = place.join(name);
        let length = path.as_os_str().as_bytes().len() + MOST_BEHIND;
        if length > MOST_PATH {
            let message = format!("a socket's path would have {length} bytes, and {MOST_PATH} is the most");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        match DirBuilder::new().mode(0o711).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| path),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many directories of former gateways; remove them"))
}

/// Removes what gateways have left behind that were killed.
fn sweep_places(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(maker) else { continue };
        let own = rustix::process::geteuid().as_raw();
        let is_ours = entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == own);
        // The number of this process was another's then.
        let is_gone = pid == rustix::process::getpid() || test_kill_process(pid) == Err(Errno::SRCH);
        if is_ours && is_gone && is_forsaken(&entry.path()) {
            tracing::debug!(target: "hawksbill::server", "removing {}, left behind by process {pid}", entry.path().display());
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whose directory has this name.
fn maker(name: &str) -> Option<Pid> {
    let numbers = name.strip_prefix("hawksbill-")?;
    let (pid, turn) = numbers.split_once('-').unwrap_or((numbers, "1"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(pid) || !digits(turn) {
        return None;
    }
    Pid::from_raw(pid.parse().ok()?)
}

/// Whether nobody has locked it. A process that cannot be seen may be in another container with the same `/run`.
fn is_forsaken(dir: &Path) -> bool {
    lock(dir).is_some()
}

/// Held as long as the descriptor is open. None: somebody else has it, or it cannot be had.
fn lock(dir: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty()).ok()?;
    flock(&dir, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(dir)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_application_keeps_its_directory_and_it_goes_at_the_end() {
        let mut private = Private::default();
        let shop = private.dir("shop", &Identity::default()).unwrap();
        let other = private.dir("a/name with ../ in it", &Identity::default()).unwrap();
        assert_ne!(shop, other);
        assert_eq!(shop.parent(), other.parent());
        assert_eq!(private.dir("shop", &Identity::default()).unwrap(), shop);
        assert_eq!(shop.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        drop(private);
        assert!(!shop.parent().unwrap().exists());
    }

    #[test]
    fn a_path_that_is_too_long_is_told() {
        let place = std::env::temp_dir().join("x".repeat(80));
        assert!(make(&place).unwrap_err().to_string().contains("107 is the most"));
    }

    #[test]
    fn a_directory_that_was_left_behind_is_passed_over() {
        let place = tempfile::tempdir().unwrap();
        let (first, second) = (make(place.path()).unwrap(), make(place.path()).unwrap());
        assert_ne!(first, second);
    }
    #[test]
    fn what_the_dead_have_left_is_swept() {
        let place = tempfile::tempdir().unwrap();
        let make = |name: String| {
            let dir = place.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join("0.sock"), "").unwrap();
            dir
        };
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = child.id();
        child.wait().unwrap();
        let dead = [format!("hawksbill-{gone}"), format!("hawksbill-{gone}-3")].map(make);
        let former = make(format!("hawksbill-{}", std::process::id()));
        let locked = make(format!("hawksbill-{gone}-4"));
        let _lock = lock(&locked).unwrap();
        let living = make(format!("hawksbill-{}", std::os::unix::process::parent_id()));
        let other =
            ["hawksbill-1x", "hawksbill--2", "hawksbill", "hawksbill-9-9-9"].map(|name| make(name.into()));
        sweep_places(place.path());
        assert!(dead.iter().chain([&former]).all(|dir| !dir.exists()));
        assert!(other.iter().chain([&locked, &living]).all(|dir| dir.exists()));
    }
}
