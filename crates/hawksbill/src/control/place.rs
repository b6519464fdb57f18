//! Where control sockets are, and how the commands find the one that is meant.
//!
//! A socket's file is called `LABEL-KEY-PID.sock`. The key is made of the path of the configuration file, or of the
//! directory in which an application was named; the number of the process lets several gateways of one directory be.

use std::fs::{DirBuilder, read_dir, symlink_metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::{env, io};

use rustix::process::{Pid, geteuid, test_kill_process};

/// The most bytes of a socket's path.
const LONGEST: usize = 107;

/// The most characters of a label.
const LABEL: usize = 20;

/// What a gateway serves: its sockets are named after it.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    label: String,
    key: u64,
    shown: String,
}

/// A socket that somebody listens on.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) pid: u32,
}

impl Subject {
    /// What a configuration file describes.
    pub(crate) fn file(file: &Path) -> Self {
        let path = full(file);
        let named = path.file_stem().filter(|stem| *stem != "hawksbill");
        let named = named.or_else(|| path.parent()?.file_name());
        let label = named.unwrap_or_default().to_string_lossy().into_owned();
        Self { label: tidy(&label), key: key(&path), shown: path.display().to_string() }
    }

    /// An application that was named in a directory.
    pub(crate) fn target(dir: &Path, target: &str) -> Self {
        let path = full(dir);
        Self { label: tidy(target), key: key(&path), shown: format!("{target} in {}", path.display()) }
    }

    /// Its socket, when this process serves it.
    pub(super) fn file_name(&self, pid: u32) -> String {
        format!("{}-{:016x}-{pid}.sock", self.label, self.key)
    }

    /// The process that a socket's name speaks of, if it serves this.
    fn process(&self, file_name: &str) -> Option<u32> {
        let (_, key, pid) = parts(file_name)?;
        (key == format!("{:016x}", self.key)).then_some(pid)
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

fn parts(file_name: &str) -> Option<(&str, &str, u32)> {
    let mut parts = file_name.strip_suffix(".sock")?.rsplitn(3, '-');
    let pid = parts.next()?.parse().ok()?;
    let key = parts.next()?;
    Some((parts.next()?, key, pid))
}

fn full(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

fn tidy(label: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || letter == '_' { letter } else { '.' };
    let label: String = label.chars().take(LABEL).map(plain).collect();
    if label.trim_matches('.').is_empty() { "gateway".to_owned() } else { label }
}

/// FNV-1a: the same in every version of the program, which the hashers of the library are not.
fn key(path: &Path) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    path.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Where sockets may be, the best place first.
fn directories() -> Vec<PathBuf> {
    let user = geteuid();
    let session = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let session = session.map(|dir| dir.join("hawksbill"));
    let system = user.is_root().then(|| PathBuf::from("/run/hawksbill"));
    let last = env::temp_dir().join(format!("hawksbill-{}", user.as_raw()));
    session.into_iter().chain(system).chain([last]).collect()
}

/// The path of the socket of this process, in a directory that nobody else can write to.
pub(super) fn usual(subject: &Subject) -> io::Result<PathBuf> {
    let mut failure = None;
    for dir in directories() {
        let path = dir.join(subject.file_name(std::process::id()));
        let fits = if path.as_os_str().len() <= LONGEST {
            Ok(())
        } else {
            Err(io::Error::other("the path is too long"))
        };
        match fits.and_then(|()| prepare(&dir)) {
            Ok(()) => {
                clean(&dir);
                return Ok(path);
            }
            Err(error) => {
                let error = io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
                failure.get_or_insert(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| io::Error::other("there is no directory for it")))
}

/// The path of a file of what is served that outlives the process: where systemd keeps the state of a service
/// (`StateDirectory=`), else beside the sockets, where it lasts until the machine starts anew.
///
/// # Errors
/// When there is no directory that nobody else can write to.
pub(crate) fn kept(subject: &Subject, ending: &str) -> io::Result<PathBuf> {
    let state = env::var_os("STATE_DIRECTORY").and_then(|list| env::split_paths(&list).next());
    let state = state.filter(|dir| dir.is_absolute());
    let mut dirs = state.into_iter().chain(directories());
    let dir = dirs.find(|dir| prepare(dir).is_ok());
    let dir = dir.ok_or_else(|| io::Error::other("there is no directory for it"))?;
    Ok(dir.join(format!("{}-{:016x}.{ending}", subject.label, subject.key)))
}

fn prepare(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if is_own(dir) { Ok(()) } else { Err(io::Error::other("others can write there")) }
}

/// Whether it is a directory of this user that others cannot put anything into.
fn is_own(dir: &Path) -> bool {
    symlink_metadata(dir)
        .is_ok_and(|dir| dir.is_dir() && dir.uid() == geteuid().as_raw() && dir.mode() & 0o022 == 0)
}

/// Removes what killed processes have left.
fn clean(dir: &Path) {
    for (path, name) in sockets(dir) {
        let gone = parts(&name).is_some_and(|(.., pid)| !is_alive(pid));
        if gone && refuses(&path) {
            let _ = std::fs::remove_file(&path);
        }
    }
}

fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

fn refuses(path: &Path) -> bool {
    UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn sockets(dir: &Path) -> impl Iterator<Item = (PathBuf, String)> + use<> {
    let entries = read_dir(dir).ok().into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), entry.file_name().into_string().ok()?)))
}

/// The gateways of this user that serve one of these, of the first that is served at all.
pub(crate) fn find(subjects: &[Subject]) -> Vec<Found> {
    let places: Vec<_> =
        directories().into_iter().filter(|dir| is_own(dir)).flat_map(|dir| sockets(&dir)).collect();
    for subject in subjects {
        let mut found: Vec<Found> = places
            .iter()
            .filter_map(|(path, name)| Some(Found { path: path.clone(), pid: subject.process(name)? }))
            .filter(|found| UnixStream::connect(&found.path).is_ok())
            .collect();
        if !found.is_empty() {
            found.sort_by_key(|found| found.pid);
            return found;
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_what_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shop").join("hawksbill.toml");
        let subject = Subject::file(&file);
        let name = subject.file_name(42);
        assert!(name.starts_with("shop-") && name.ends_with("-42.sock"), "{name}");
        assert_eq!(subject.process(&name), Some(42));
        assert_eq!(Subject::file(&dir.path().join("shop").join("other.toml")).process(&name), None);
        assert_eq!(subject.process("shop-42.sock"), None);
        assert_eq!(subject.process("hawksbill.sock"), None);
    }

    #[test]
    fn all_applications_of_a_directory_have_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Subject::target(dir.path(), "shop.wsgi:app"), Subject::target(dir.path(), "x"));
        assert!(one.file_name(1).starts_with("shop.wsgi.app-"));
        assert_eq!(two.process(&one.file_name(7)), Some(7));
    }

    #[test]
    fn the_same_file_by_another_path_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hawksbill.toml");
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("current")).unwrap();
        let (one, two) = (Subject::file(&file), Subject::file(&dir.path().join("current/hawksbill.toml")));
        assert_eq!(one.key, two.key);
    }

    #[test]
    fn labels_are_short_and_plain() {
        assert_eq!(tidy("a/b c-d"), "a.b.c.d");
        assert_eq!(tidy("ü"), "gateway");
        assert_eq!(tidy(&"x".repeat(99)).len(), LABEL);
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        prepare(&own).unwrap();
        assert!(is_own(&own));
        std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        assert!(prepare(&own).is_err());
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let subject = Subject::target(dir.path(), "shop");
        // More than the system ever gives.
        let stale = dir.path().join(subject.file_name(u32::MAX / 2));
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        let alive = dir.path().join(subject.file_name(std::process::id()));
        drop(std::os::unix::net::UnixListener::bind(&alive).unwrap());
        clean(dir.path());
        assert!(!stale.exists() && alive.exists());
    }
}
