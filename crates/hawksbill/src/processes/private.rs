//! Where the sockets between the front and the applications are: one directory for each application, which nobody else
//! can enter.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use hawksbill_core::BuildError;
use hawksbill_supervisor::Identity;
use serde::{Deserialize, Serialize};

/// The longest path of a Unix socket, in bytes (`sockaddr_un`, with a zero at its end).
const MOST_PATH: usize = 107;

/// What stands behind the directory in the path of a socket at most: the number of the application, that of the process.
const MOST_BEHIND: usize = "/65535/18446744073709551615.sock".len();

/// How often another name is tried where one is taken: by a gateway that was killed, in a container whose processes
/// have the same numbers each time.
const TRIES: u32 = 1000;

/// The directories. They are removed with this.
#[derive(Default)]
pub(super) struct Private(Dirs);

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
        Self(dirs)
    }

    /// Where they are, for a program that takes over.
    pub(super) fn dirs(&self) -> Dirs {
        self.0.clone()
    }

    /// The directory of an application, made if this is the first time, and belonging to who runs it.
    pub(super) fn dir(&mut self, app: &str, identity: &Identity) -> Result<PathBuf, BuildError> {
        let Dirs { root, dirs } = &mut self.0;
        let root = match root {
            Some(root) => root.clone(),
            None => root.insert(make_root()?).clone(),
        };
        let known = dirs.len();
        let dir = dirs.entry(app.to_owned()).or_insert_with(|| root.join(known.to_string())).clone();
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
        if let Some(root) = &self.0.root {
            // Whoever is left to connect to them has ended.
            let _ = std::fs::remove_dir_all(root);
        }
    }
}

/// Makes the directory around them, at the first place where that can be done. Others may pass through, since the
/// applications of other users have to, and find nothing that they can enter.
fn make_root() -> Result<PathBuf, BuildError> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = std::iter::once(PathBuf::from("/run")).chain(runtime).chain([std::env::temp_dir()]);
    let mut failures = Vec::new();
    for place in places.filter(|place| place.is_absolute()) {
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
}
